//! Softmax: the formula, rows of every length, values at the ends, and operands that do not fit.

use dis_kernels::ptx;
use dis_kernels::sim::{Approx, Options};
use dis_kernels::softmax::{SoftmaxBackward, SoftmaxForward};

use crate::bench::{Bench, Field};
use crate::refused::{cut, others, refused};
use crate::{ROUNDING, SHAPES};

/// Rows that fit in shared memory, one that is too long for the backward and one for both.
const LENGTHS: [[usize; 3]; 3] = [[1, 2, 6144], [2, 1, 6145], [1, 2, 12_289]];

/// float64 from what a row's operands are in float32.
fn softmax(row: &[f64], scale: f64) -> Vec<f64> {
    let largest = row.iter().fold(f64::NEG_INFINITY, |m, x| m.max(scale * x));
    let e: Vec<f64> = row.iter().map(|x| (scale * x - largest).exp()).collect();
    let total: f64 = e.iter().sum();
    e.iter().map(|e| e / total).collect()
}

fn row(x: &Field, b: usize, t: usize) -> Vec<f64> {
    (0..x.shape[2]).map(|c| x.at(b, t, c)).collect()
}

/// Products are below 2 |scale| and differences below 4 |scale|, each rounded, and that is how far an
/// exponential is off besides `ex2` and two roundings. Numerator and sum both have it; then come the
/// additions of a lane and of the butterfly, and the quotient.
fn tolerance(channels: usize, scale: f64, ex2: f64) -> f64 {
    let adds = channels.div_ceil(32) + 5;
    2.0 * ex2 + (12.0 * scale.abs() + 4.0 + adds as f64 + 1.0) * ROUNDING
}

#[test]
fn equals_the_formula() {
    for (approx, ex2) in [
        (Approx::Exact, 0.0),
        (Approx::High, 2f64.powi(-22)),
        (Approx::Low, 2f64.powi(-22)),
    ] {
        for (i, shape) in SHAPES.into_iter().chain(LENGTHS).enumerate() {
            let mut d = Bench::new();
            d.sim.set_options(Options {
                approx,
                ..Options::default()
            });
            let (pad, scale) = ([0, 3][i % 2], [0.3f32, -1.5][i / 2 % 2]);
            let wide = f64::from(scale);
            let (x, out) = (d.field(shape, pad), d.field(shape, 1));
            d.run(SoftmaxForward::new(x.mat(), out.mat_mut(), scale));
            let rows: Vec<Vec<f64>> = (0..shape[0] * shape[1])
                .map(|r| softmax(&row(&x, r / shape[1], r % shape[1]), wide))
                .collect();
            d.check(
                "softmax",
                &out,
                tolerance(shape[2], wide, ex2),
                |b, t, c| rows[b * shape[1] + t][c],
            );
            let (y, dout, dx) = (d.field(shape, 2), d.field(shape, pad), d.field(shape, 0));
            d.run(SoftmaxBackward::new(
                y.mat(),
                dout.mat(),
                dx.mat_mut(),
                scale,
            ));
            let sums: Vec<[f64; 2]> = (0..shape[0] * shape[1])
                .map(|r| {
                    let (b, t) = (r / shape[1], r % shape[1]);
                    let products = |c| y.at(b, t, c) * dout.at(b, t, c);
                    let all = 0..shape[2];
                    [
                        all.clone().map(products).sum(),
                        all.map(|c| products(c).abs()).sum(),
                    ]
                })
                .collect();
            // A sum's error goes with the sum of magnitudes; y is below 2.
            let most = sums.iter().fold(0.0, |m: f64, s| m.max(s[1]));
            let adds = (shape[2].div_ceil(32) + 6) as f64;
            let absolute = wide.abs() * 2.0 * (adds * most + 4.0 * (2.0 + most)) * ROUNDING;
            let want = |b: usize, t: usize, c: usize| {
                wide * y.at(b, t, c) * (dout.at(b, t, c) - sums[b * shape[1] + t][0])
            };
            let mut largest = 0.0f64;
            for r in 0..shape[0] * shape[1] {
                for c in 0..shape[2] {
                    largest = largest.max(want(r / shape[1], r % shape[1], c).abs());
                }
            }
            d.check("softmax_backward", &dx, absolute / largest, want);
        }
    }
}

/// Runs one row.
fn forward(d: &mut Bench, scale: f32, values: &[f32]) -> Vec<f32> {
    let mut x = d.field([1, 1, values.len()], 0);
    x.block = d.put(values);
    let out = d.field([1, 1, values.len()], 0);
    d.run(SoftmaxForward::new(x.mat(), out.mat_mut(), scale));
    d.get(&out.block)
}

#[test]
fn ends_of_the_numbers() {
    for approx in [Approx::Exact, Approx::High, Approx::Low] {
        let d = &mut Bench::new();
        d.sim.set_options(Options {
            approx,
            ..Options::default()
        });
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        // A row of one, whatever it is.
        for x in [0.0, -3e38, 3e38, 1e-40] {
            assert_eq!(forward(d, 0.7, &[x]), [1.0], "{x}");
        }
        // Nothing overflows, and what is far below vanishes.
        let two = [-1e4, 3e38, 88.0, 3e38, -3e38, -inf];
        assert_eq!(forward(d, 1.0, &two), [0.0, 0.5, 0.0, 0.5, 0.0, 0.0]);
        assert_eq!(forward(d, -1.0, &[-1e30, 1e30, 1e30]), [1.0, 0.0, 0.0]);
        assert_eq!(forward(d, 0.0, &[1e30, -1e30, 5.0, 0.0]), [0.25; 4]);
        // As on the CPU: what is no number stays none, and infinities are differences of none.
        let mut long = vec![0.5; 70];
        for bad in [nan, inf] {
            for at in [0, 31, 32, 69] {
                long[at] = bad;
                let out = forward(d, 1.0, &long);
                assert!(out.iter().all(|y| y.is_nan()), "{bad} at {at}: {out:?}");
                long[at] = 0.5;
            }
        }
        assert!(forward(d, 1.0, &[-inf; 3]).iter().all(|y| y.is_nan()));
        assert!(forward(d, 1.0, &[nan; 40]).iter().all(|y| y.is_nan()));
    }
}

/// What an exponential this far down is off by comes from the argument: relative to itself.
#[test]
fn small_results_are_relatively_accurate() {
    let d = &mut Bench::new();
    let values: Vec<f32> = (0..173).map(|i| -0.5 * i as f32).collect();
    let got = forward(d, 1.0, &values);
    let wide: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
    for (i, (got, want)) in got.iter().zip(softmax(&wide, 1.0)).enumerate() {
        // Two roundings of an exponential in numerator and sum, 11 additions, and the quotient.
        let off = (f64::from(*got) / want - 1.0).abs();
        assert!(off < 16.0 * ROUNDING, "{}: {got}, not {want}", values[i]);
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let mut d = Bench::new();
    let shape = [2, 3, 4];
    let (x, out) = (d.field(shape, 1), d.field(shape, 0));
    let bad: Vec<Field> = others(shape).into_iter().map(|s| d.field(s, 0)).collect();
    for m in bad.iter().map(Field::mat).chain([cut(x.mat())]) {
        refused("softmax", SoftmaxForward::new(m, out.mat_mut(), 1.0));
        refused(
            "softmax_backward",
            SoftmaxBackward::new(m, x.mat(), out.mat_mut(), 1.0),
        );
        refused(
            "softmax_backward",
            SoftmaxBackward::new(x.mat(), m, out.mat_mut(), 1.0),
        );
    }
    for m in &bad {
        refused("softmax", SoftmaxForward::new(x.mat(), m.mat_mut(), 1.0));
        refused(
            "softmax_backward",
            SoftmaxBackward::new(x.mat(), x.mat(), m.mat_mut(), 1.0),
        );
    }
    let many = [65_536, 1, 1];
    let (x, out) = (d.field(many, 0), d.field(many, 0));
    refused("softmax", SoftmaxForward::new(x.mat(), out.mat_mut(), 1.0));
}

#[test]
fn every_line_runs() {
    let mut d = Bench::new();
    // Lanes without a channel, a token more than a block has, and rows that are too long.
    for shape in [[1, 5, 7], [1, 1, 12_289]] {
        let (x, y, out) = (d.field(shape, 0), d.field(shape, 0), d.field(shape, 0));
        d.run(SoftmaxForward::new(x.mat(), out.mat_mut(), 0.5));
        d.run(SoftmaxBackward::new(x.mat(), y.mat(), out.mat_mut(), 0.5));
    }
    let coverage = d.sim.coverage(&ptx::SOFTMAX).unwrap();
    let missed: Vec<_> = coverage.uncovered().collect();
    assert!(missed.is_empty(), "{missed:?}");
}
