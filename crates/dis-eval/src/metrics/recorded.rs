//! Every metric against values that NumPy and SciPy gave by the published formulas
//! (`recorded.json`, which says how the points are made).

use ndarray::Array2;
use serde_json::Value;

use super::*;

fn splitmix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn points(seed: u64, n: usize, d: usize, scale: f64, shift: f64) -> Array2<f32> {
    Array2::from_shape_fn((n, d), |(i, j)| {
        let first = 1_000_003 * seed + 4 * (i * d + j) as u64;
        let sum: f64 = (0..4)
            .map(|k| (splitmix64(first + k) >> 44) as f64 / f64::from(1 << 20))
            .sum();
        ((sum - 2.0) * scale + shift) as f32
    })
}

fn close(what: &str, ours: f64, theirs: f64) {
    let tolerance = 1e-6 * theirs.abs();
    assert!(
        (ours - theirs).abs() <= tolerance,
        "{what}: {ours} here, {theirs} recorded"
    );
}

#[test]
fn all_metrics_equal_what_numpy_and_scipy_gave() {
    let recorded: Value = serde_json::from_str(include_str!("recorded.json")).unwrap();
    let cases = recorded["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let number = |key: &str| case[key].as_f64().unwrap();
        let count = |key: &str| case[key].as_u64().unwrap() as usize;
        let (seed, n, m) = (count("seed") as u64, count("real"), count("samples"));
        let d = count("dimensions");
        let real = points(seed, n, d, 1.0, 0.0);
        let samples = points(seed + 100, m, d, number("scale"), number("shift"));
        // The parser of numbers may be off by the last bit.
        let off = f64::from(samples[[0, 0]]) - number("first");
        assert!(off.abs() < 1e-12, "other points");
        let (x, y) = (real.view(), samples.view());

        let a = Statistics::from_points(x).unwrap();
        let b = Statistics::from_points(y).unwrap();
        close(
            "frechet",
            frechet_distance(&a, &b).unwrap(),
            number("frechet"),
        );
        close(
            "kernel",
            squared_discrepancy(x, y).unwrap(),
            number("kernel"),
        );
        let score = inception_score(softmax(y).view(), count("splits")).unwrap();
        close("inception mean", score.mean, number("inception_mean"));
        close("inception std", score.std, number("inception_std"));
        let options = BallOptions {
            precision_k: count("precision_k"),
            density_k: count("density_k"),
        };
        let balls = balls(x, y, options).unwrap();
        close(
            "precision",
            mean(&balls.fidelity.precision),
            number("precision"),
        );
        close("recall", mean(&balls.fidelity.recall), number("recall"));
        close("density", mean(&balls.density.density), number("density"));
        close(
            "coverage",
            mean(&balls.density.coverage),
            number("coverage"),
        );

        let mut copied = samples.clone();
        for i in 0..n.min(m) / 2 {
            for j in 0..d {
                copied[[i, j]] = real[[i, j]] + 0.001;
            }
        }
        let rule = CopyRule::of(x).unwrap();
        close("copy threshold", rule.threshold, number("copy_threshold"));
        let copies = rule.rate(x, copied.view()).unwrap();
        close("copies", copies, number("copies"));
    }
}
