//! The training loss: numbers that the formulas give, memory around them, and operands that do not fit.

use dis_kernels::loss::{GaussianLoss, LossNumbers, step_words};
use dis_kernels::{Driver, Mat, Ptr};

use crate::ROUNDING;
use crate::bench::{Bench, Field};
use crate::refused::{cut, others, refused};

/// A sample with a square error and a divergence, and one with a likelihood alone.
const NUMBERS: [LossNumbers; 2] = [
    LossNumbers {
        noised: [0.8, 0.6],
        target: Some([0.8, -0.6]),
        bound: true,
        start: [-0.6, 0.8],
        mean: [0.3, 0.65],
        log_variance: [0.5, -2.0],
        truth: Some([-2.5, 0.082_084_998_623_898_8]),
        factors: [0.7, 0.2, 0.4],
        weight: 1.5,
    },
    LossNumbers {
        noised: [0.99, 0.1],
        target: None,
        bound: true,
        start: [1.0, 0.0],
        mean: [1.0, 0.0],
        log_variance: [0.3, 2.0],
        truth: None,
        factors: [0.7, 0.2, 0.4],
        weight: 0.5,
    },
];

/// What the normal distribution has below z, by the tanh approximation.
fn below(z: f64) -> f64 {
    let a = (2.0 / std::f64::consts::PI).sqrt() * (z + 0.044715 * z.powi(3));
    0.5 * (1.0 + a.tanh())
}

/// The term of the bound of an element for output `o` and log variance `log`.
fn term(s: &LossNumbers, [x, z, o, log]: [f64; 4]) -> f64 {
    let x_t = s.noised[0] * x + s.noised[1] * z;
    let start = s.start[0] * o + s.start[1] * x_t;
    let mean = s.mean[0] * start + s.mean[1] * x_t;
    if let Some([truth, variance]) = s.truth {
        let apart = mean - s.mean[0] * x - s.mean[1] * x_t;
        return 0.5 * (log - truth + (variance + apart * apart) / log.exp() - 1.0);
    }
    let side = |half: f64| (x - mean + half) / (0.5 * log).exp();
    let above = if x > 0.999 {
        1.0
    } else {
        below(side(1.0 / 255.0))
    };
    let under = if x < -0.999 {
        0.0
    } else {
        below(side(-1.0 / 255.0))
    };
    -(above - under).ln()
}

#[test]
fn losses() {
    for (n, pad, learned) in [(1, 0, true), (37, 3, false), (257, 0, true), (300, 2, true)] {
        let mut d = Bench::new();
        let batch = NUMBERS.len();
        let (x, z) = (d.field([batch, 1, n], pad), d.field([batch, 1, n], pad));
        let width = if learned { 2 * n } else { n };
        let (output, gradient) = (
            d.field([batch, 1, width], pad),
            d.field([batch, 1, width], pad),
        );
        let steps = d.put(&step_words(&NUMBERS));
        let sums = d.put(&[0u64; 2 * NUMBERS.len() + 1]);
        d.run(GaussianLoss::new(
            x.mat(),
            z.mat(),
            output.mat(),
            gradient.mat_mut(),
            steps.ptr(),
            sums.ptr_mut(),
        ));
        let element = |b: usize, i: usize| {
            let s = &NUMBERS[b];
            let v = if learned { output.at(b, 0, n + i) } else { 0.0 };
            let log = s.log_variance[0] * v + s.log_variance[1];
            let (x, z) = (x.at(b, 0, i), z.at(b, 0, i));
            let off = s
                .target
                .map_or(0.0, |[on_z, on_x]| output.at(b, 0, i) - on_z * z - on_x * x);
            (off, [x, z, output.at(b, 0, i), log])
        };
        // Slopes by central differences: their own error is some 1e-8.
        d.check("gradient", &gradient, 4.0 * ROUNDING, |b, _, c| {
            let s = &NUMBERS[b];
            let (off, at) = element(b, c % n);
            let slope = |k: usize, by: f64| {
                let (mut up, mut down) = (at, at);
                up[k] += 1e-4;
                down[k] -= 1e-4;
                by * (term(s, up) - term(s, down)) / 2e-4
            };
            let by_mean = s.factors[1] / (s.mean[0] * s.start[0]);
            s.weight
                * if c < n {
                    2.0 * off / n as f64 + slope(2, by_mean)
                } else {
                    slope(3, s.factors[2])
                }
        });
        let mut got = [0.0f64; 2 * NUMBERS.len() + 1];
        let bytes = bytemuck::cast_slice_mut(&mut got);
        d.sim.download(sums.address(), bytes).unwrap();
        for (b, s) in NUMBERS.iter().enumerate() {
            let mse: f64 = (0..n).map(|i| element(b, i).0.powi(2) / n as f64).sum();
            let bound: f64 = (0..n)
                .map(|i| s.factors[0] * term(s, element(b, i).1))
                .sum();
            for (got, want) in got[2 * b..].iter().zip([mse, bound]) {
                assert!(
                    (got - want).abs() <= 1e-11 * (1.0 + want.abs()),
                    "{got}, not {want}"
                );
            }
        }
        assert_eq!(got[2 * batch], 0.0, "behind the sums");
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let mut d = Bench::new();
    let (shape, both) = ([2, 1, 4], [2, 1, 8]);
    let (x, output) = (d.field(shape, 1), d.field(both, 1));
    let (steps, sums) = (d.put(&step_words(&NUMBERS)), d.put(&[0u64; 4]));
    let try_with = |x: [Mat; 3], gradient: &Field, steps: Ptr<u64>, skip: u64| {
        let sums = sums.ptr_mut().at(skip);
        GaussianLoss::new(x[0], x[1], x[2], gradient.mat_mut(), steps, sums)
    };
    let (m, o) = (x.mat(), output.mat());
    try_with([m, m, o], &output, steps.ptr(), 0).unwrap();
    let mut bad: Vec<Mat> = others(shape).map(|s| d.field(s, 0).mat()).to_vec();
    bad.push(cut(m));
    for bad in bad {
        refused("x_start", try_with([bad, m, o], &output, steps.ptr(), 0));
        refused("noise", try_with([m, bad, o], &output, steps.ptr(), 0));
    }
    for shape in others(both) {
        let other = d.field(shape, 0);
        refused(
            "output",
            try_with([m, m, other.mat()], &output, steps.ptr(), 0),
        );
        refused("gradient", try_with([m, m, o], &other, steps.ptr(), 0));
    }
    refused("output", try_with([m, m, cut(o)], &output, steps.ptr(), 0));
    refused("steps", try_with([m, m, o], &output, steps.ptr().at(1), 0));
    refused("sums", try_with([m, m, o], &output, steps.ptr(), 1));
}
