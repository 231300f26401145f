//! Elementwise operations and broadcasts.

use dis_tensor::{Backend, ImageOps, Layout};
use proptest::prelude::*;

use crate::draw::{Draw, LEVELS, Operand, check, outcome};
use crate::operation::Operation;

/// float32 rounding of a few operations.
const ROUNDING: f64 = 4e-7;

fn all(batch: usize, tokens: usize, channels: usize, seed: u64) {
    let mut d = Draw::new(seed);
    let alpha = d.normal();
    let mut views =
        |n: usize| -> Vec<_> { (0..n).map(|_| d.view(batch, tokens, channels)).collect() };
    check(&Operation::Fill(alpha), &views(1), ROUNDING);
    check(&Operation::Copy, &views(2), 0.0);
    check(&Operation::Axpy(alpha), &views(2), ROUNDING);
    check(&Operation::Silu, &views(2), ROUNDING);
    check(&Operation::SiluBackward, &views(3), 2.0 * ROUNDING);
    check(&Operation::NegExp, &views(2), ROUNDING);
    check(&Operation::AddProduct, &views(3), ROUNDING);
    // An exponent, a sum over the channels and a quotient; the exponent's own rounding is relative
    // to its size, here below 4 |alpha|.
    check(&Operation::Softmax(alpha), &views(2), 4.0 * ROUNDING);
    // The sum is of up to 200 products, of which the largest is what the tolerance goes by.
    let softmax_backward = Operation::SoftmaxBackward(alpha);
    check(&softmax_backward, &views(3), 50.0 * ROUNDING);

    let scale = d.view(batch, 1, 1);
    let (x, out) = (
        d.view(batch, tokens, channels),
        d.view(batch, tokens, channels),
    );
    check(
        &Operation::ScaleSamples,
        &[scale, x.clone(), out.clone()],
        ROUNDING,
    );
    let rows = d.view(batch, 1, channels);
    check(
        &Operation::AddToTokens(alpha),
        &[rows, out.clone()],
        ROUNDING,
    );
    let row = d.view(1, 1, channels);
    check(
        &Operation::AddToTokens(alpha),
        &[row, out.clone()],
        ROUNDING,
    );
    let table = d.view(1, tokens, channels);
    check(&Operation::AddToSamples(alpha), &[table, out], ROUNDING);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn small(batch in 0usize..4, tokens in 0usize..8, channels in 0usize..40, seed: u64) {
        all(batch, tokens, channels, seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    /// Large enough to be shared among threads.
    #[test]
    fn large(batch in 1usize..5, tokens in 60usize..130, channels in 90usize..200, seed: u64) {
        all(batch, tokens, channels, seed);
    }
}

/// SiLU and its derivative keep their limits where exp overflows.
#[test]
fn silu_of_extreme_values_is_finite() {
    let mut d = Draw::new(1);
    let mut x = d.dense(8);
    x.data = vec![-1e4, -104.0, -88.0, -20.0, 20.0, 88.0, 104.0, 1e4];
    check(&Operation::Silu, &[x.clone(), d.dense(8)], 1e-7);
    check(&Operation::SiluBackward, &[x, d.dense(8), d.dense(8)], 4e-7);
}

/// The largest is subtracted first, so that nothing overflows and the rest vanishes.
#[test]
fn softmax_of_extreme_values_sums_to_one() {
    let mut d = Draw::new(1);
    let mut x = d.dense(8);
    x.data = vec![-1e4, -104.0, 1e30, 88.0, 1e30, 88.0, 104.0, 1e4];
    check(&Operation::Softmax(0.5), &[x.clone(), d.dense(8)], 0.0);
    let cpu = &LEVELS[0];
    let out = outcome(cpu, &Operation::Softmax(0.5), &[x, d.dense(8)]).unwrap();
    let half = |i| if i == 2 || i == 4 { 0.5 } else { 0.0 };
    assert_eq!(cpu.to_f32(&out[1]), [0, 1, 2, 3, 4, 5, 6, 7].map(half));
}

/// One NaN makes its whole row NaN, and no other.
#[test]
fn softmax_does_not_lose_nan() {
    for cpu in LEVELS.iter() {
        softmax_passes_nan(cpu);
    }
    #[cfg(feature = "sim")]
    for gpu in crate::gpu::GPUS.iter() {
        softmax_passes_nan(&gpu.backend);
    }
}

fn softmax_passes_nan<B: Backend + ImageOps>(backend: &B) {
    let mut d = Draw::new(2);
    let mut x = d.filled(Layout::dense(1, 3, 20));
    x.data[25] = f32::NAN;
    let (y, out) = (d.filled(x.layout), d.filled(x.layout));
    for (operation, operands) in [
        (Operation::Softmax(1.0), vec![x.clone(), out.clone()]),
        (
            Operation::SoftmaxBackward(1.0),
            vec![x.clone(), y.clone(), out.clone()],
        ),
        (Operation::SoftmaxBackward(1.0), vec![y, x, out]),
    ] {
        let results = outcome(backend, &operation, &operands).unwrap();
        let last = backend.to_f32(&results[operands.len() - 1]);
        for (i, value) in last.iter().take(60).enumerate() {
            let want = (20..40).contains(&i);
            let name = backend.describe();
            assert_eq!(value.is_nan(), want, "{operation:?}, {name}, {i}");
        }
    }
}

/// Infinities are differences of none: on every backend the same rows are NaN.
#[test]
fn softmax_of_infinities_is_nan_or_nothing() {
    let mut d = Draw::new(3);
    let mut x = d.filled(Layout::dense(1, 4, 5));
    x.data[1] = f32::INFINITY;
    x.data[7] = f32::NEG_INFINITY;
    x.data[15..20].fill(f32::NEG_INFINITY);
    let out = d.filled(x.layout);
    let operands = [x, out];
    let passes = |values: Vec<f32>| {
        for (i, y) in values.iter().take(20).enumerate() {
            assert_eq!(y.is_nan(), i / 5 == 0 || i / 5 == 3, "{i}: {y}");
        }
        assert_eq!(values[7], 0.0);
    };
    for cpu in LEVELS.iter() {
        let results = outcome(cpu, &Operation::Softmax(1.0), &operands).unwrap();
        passes(cpu.to_f32(&results[1]));
    }
    #[cfg(feature = "sim")]
    for gpu in crate::gpu::GPUS.iter() {
        let gpu = &gpu.backend;
        let results = outcome(gpu, &Operation::Softmax(1.0), &operands).unwrap();
        passes(gpu.to_f32(&results[1]));
    }
}

/// A NaN must reach the loss, where it is looked for.
#[test]
fn nan_is_not_lost() {
    for cpu in LEVELS.iter() {
        nan_passes(cpu);
    }
    #[cfg(feature = "sim")]
    for gpu in crate::gpu::GPUS.iter() {
        nan_passes(&gpu.backend);
    }
}

fn nan_passes<B: Backend + ImageOps>(backend: &B) {
    let mut d = Draw::new(1);
    let mut x = d.dense(40);
    x.data[17] = f32::NAN;
    x.data[39] = f32::NAN;
    let (y, out) = (d.dense(40), d.dense(40));
    let run = |operation: Operation, operands: &[Operand]| {
        let results = outcome(backend, &operation, operands).unwrap();
        let last = backend.to_f32(&results[operands.len() - 1]);
        for (i, value) in last.iter().enumerate() {
            let want = i == 17 || i == 39;
            let name = backend.describe();
            assert_eq!(value.is_nan(), want, "{operation:?}, {name}, {i}");
        }
    };
    run(Operation::Silu, &[x.clone(), out.clone()]);
    run(Operation::NegExp, &[x.clone(), out.clone()]);
    run(
        Operation::SiluBackward,
        &[x.clone(), y.clone(), out.clone()],
    );
    run(
        Operation::SiluBackward,
        &[y.clone(), x.clone(), out.clone()],
    );
    run(Operation::AddProduct, &[x, y, out]);
}
