//! The training loss: every backend against float64, and what becomes of losses that are not finite.

use dis_tensor::{
    Backend, BoundStep, Buffer, Cpu, ImageOps, Layout, LossInputs, LossStep, Reference, Tokens,
    TokensMut,
};
use proptest::prelude::*;

use crate::draw::{CPUS, Draw, Operand, check, outcome};
use crate::operation::Operation;

/// One rounding to float32 of a result in float64, whose own errors are far below one.
const ROUNDED: f64 = 6e-8;

/// Numbers as a schedule gives them for alpha_bar and beta of a step, for a network that predicts the
/// noise (0), the image (1) or the velocity (2).
fn step(d: &mut Draw, kinds: [bool; 2], prediction: usize, values: usize, last: bool) -> LossStep {
    let unit = |d: &mut Draw| d.below(1000) as f64 / 1000.0;
    let (bar, beta) = if last {
        (0.9999, 1e-4)
    } else {
        (0.02 + 0.97 * unit(d), 1e-4 + 0.02 * unit(d))
    };
    let (signal, spread) = (f64::sqrt(bar), f64::sqrt(1.0 - bar));
    let before = if last { 1.0 } else { bar / (1.0 - beta) };
    let (small, large) = (
        f64::ln(beta * (1.0 - before).max(1e-5) / (1.0 - bar)),
        beta.ln(),
    );
    let (target, start) = [
        ([1.0, 0.0], [-spread / signal, 1.0 / signal]),
        ([0.0, 1.0], [1.0, 0.0]),
        ([signal, -spread], [-spread, signal]),
    ][prediction];
    let scale = 1.0 / (values.max(1) as f64 * std::f64::consts::LN_2);
    let mean = [
        beta * before.sqrt() / (1.0 - bar),
        (1.0 - before) * (1.0 - beta).sqrt() / (1.0 - bar),
    ];
    let log_variance = if d.coin() {
        [(large - small) / 2.0, (large + small) / 2.0]
    } else {
        [1.0, small]
    };
    LossStep {
        signal,
        spread,
        target: kinds[0].then_some(target),
        bound: kinds[1].then_some(BoundStep {
            start,
            mean,
            log_variance,
            true_log_variance: (!last).then_some(small),
            scale,
            // Held where there is a square error.
            through_mean: if kinds[0] {
                0.0
            } else {
                scale * mean[0] * start[0]
            },
            through_variance: scale * log_variance[0],
        }),
        weight: 0.2 + unit(d),
    }
}

/// A batch of images, dense or some channels of larger ones, somewhere in its buffer.
fn images(d: &mut Draw, batch: usize, values: usize) -> Operand {
    let (before, after) = (d.below(3), d.below(2) * d.below(50));
    let stride = before + values + after;
    let layout = Layout::padded(batch, 1, stride, stride);
    let at = d.below(4);
    d.filled(layout.columns(before, values).at(at))
}

/// Kinds of loss (square error, bound), whether the variance is learned, what is predicted.
type Kind = ([bool; 2], bool, usize);

fn case(batch: usize, values: usize, kind: Kind, seed: u64) -> (Operation, Vec<Operand>) {
    let (kinds, learned, prediction) = kind;
    let mut d = Draw::new(seed);
    let steps: Vec<LossStep> = (0..batch)
        .map(|b| step(&mut d, kinds, prediction, values, b % 2 == 1 || batch == 1))
        .collect();
    let width = if learned { 2 * values } else { values };
    let mut x = images(&mut d, batch, values);
    let z = images(&mut d, batch, values);
    let mut output = images(&mut d, batch, width);
    let gradient = images(&mut d, batch, width);
    for b in 0..batch {
        for i in 0..values {
            // Grey values, the open ones too, and outputs near the target: far from it the likelihood
            // is at its floor.
            let at = |x: &Operand| x.layout.row(b, 0) + i;
            let index = at(&x);
            x.data[index] = ((x.data[index] * 90.0).round().clamp(-127.0, 128.0) - 0.5) / 127.5;
            let (x, z) = (f64::from(x.data[index]), f64::from(z.data[at(&z)]));
            let [on_z, on_x] = match (prediction, &steps[b]) {
                (0, _) => [1.0, 0.0],
                (1, _) => [0.0, 1.0],
                (_, step) => [step.signal, -step.spread],
            };
            let near = 0.1 * d.normal() * if prediction == 0 { 1.0 } else { 0.03 };
            let index = at(&output);
            output.data[index] = (on_z * z + on_x * x + near) as f32;
        }
    }
    let sums = d.dense(2 * batch);
    let operands = vec![x, z, output, gradient, sums];
    (Operation::GaussianLoss(steps), operands)
}

fn kind() -> impl Strategy<Value = Kind> {
    let kinds = prop_oneof![
        Just([true, true]),
        Just([true, false]),
        Just([false, true]),
        Just([false, false])
    ];
    (kinds, any::<bool>(), 0usize..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_backend_agrees(batch in 0usize..4, values in 0usize..600, kind in kind(), seed: u64) {
        let (operation, operands) = case(batch, values, kind, seed);
        check(&operation, &operands, ROUNDED);
    }
}

/// What each sample adds up to, in float64.
fn sums<B: Backend + ImageOps>(b: &B, steps: &[LossStep], operands: &[Operand]) -> Vec<f64> {
    let put: Vec<_> = operands.iter().map(|x| b.from_f32(&x.data)).collect();
    let view = |k: usize| Tokens::new(&put[k], operands[k].layout);
    let inputs = LossInputs {
        x_start: view(0),
        noise: view(1),
        output: view(2),
    };
    let mut gradient = b.zeros(operands[3].layout.end());
    let mut sums = b.zeros(2 * steps.len() + 3);
    let out = TokensMut::new(&mut gradient, operands[3].layout);
    b.gaussian_loss(steps, inputs, out, &mut sums, 2).unwrap();
    assert_eq!(sums.len(), 2 * steps.len() + 3);
    b.download(&sums)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Another order of the same float64 terms: each of the n is off by some roundings of its largest
    /// part (logarithms up to 30), and so is each partial sum.
    #[test]
    fn sums_are_float64(values in 1usize..600, kind in kind(), seed: u64) {
        let (operation, operands) = case(3, values, kind, seed);
        let Operation::GaussianLoss(steps) = operation else { unreachable!() };
        let want = sums(&Reference::new(), &steps, &operands);
        let near = |got: Vec<f64>| {
            assert_eq!([got[0], got[1], got[8]], [0.0; 3], "beside");
            for (got, want) in got.iter().zip(&want) {
                let bound = (values as f64 + 64.0) * f64::EPSILON * (30.0 + want.abs());
                assert!((got - want).abs() <= bound, "{got} not {want}");
            }
        };
        near(sums(&CPUS[2], &steps, &operands));
        #[cfg(feature = "sim")]
        for gpu in crate::gpu::GPUS.iter() {
            near(sums(&gpu.backend, &steps, &operands));
        }
    }
}

#[cfg(feature = "sim")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// The gradient of the square error has no exponential in it.
    #[test]
    fn a_gpu_has_the_bits_of_the_cpu(values in 1usize..600, prediction in 0usize..3, seed: u64) {
        let (operation, operands) = case(3, values, ([true, false], false, prediction), seed);
        let on_cpu = outcome(&CPUS[0], &operation, &operands).unwrap();
        let gpu = &crate::gpu::GPUS[1].backend;
        let on_gpu = outcome(gpu, &operation, &operands).unwrap();
        let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(CPUS[0].to_f32(&on_cpu[3])), bits(gpu.to_f32(&on_gpu[3])));
    }
}

fn everywhere(test: impl Fn(&dyn Fn(&Operation, &[Operand]) -> [Vec<f32>; 2])) {
    fn last<B: Backend + ImageOps>(b: &B, o: &Operation, operands: &[Operand]) -> [Vec<f32>; 2] {
        let results = outcome(b, o, operands).unwrap();
        [b.to_f32(&results[3]), b.to_f32(&results[4])]
    }
    let cpu: &Cpu = &CPUS[0];
    test(&|operation, operands| last(cpu, operation, operands));
    test(&|operation, operands| last(&Reference::new(), operation, operands));
    #[cfg(feature = "sim")]
    test(&|operation, operands| last(&crate::gpu::GPUS[0].backend, operation, operands));
}

/// Whatever makes the loss of a sample not finite makes some of its gradient NaN, and leaves that of the
/// other samples alone.
#[test]
fn losses_that_are_not_finite_spoil_the_gradient() {
    const N: usize = 5;
    for (sample, last) in [(0, false), (1, true)] {
        for kinds in [[true, true], [false, true], [true, false]] {
            let (operation, fine) = case(2, N, (kinds, true, 0), 5);
            // Of the variance: infinite, and so large that its inverse is beyond float64.
            for (operand, at, value) in [
                (0, 3, f32::NAN),
                (1, 4, f32::INFINITY),
                (2, 2, f32::NAN),
                (2, 1, f32::NEG_INFINITY),
                (2, N + 2, f32::INFINITY),
                (2, N + 2, f32::NEG_INFINITY),
                (2, N + 1, -3e5),
                (2, N + 3, f32::NAN),
            ] {
                let mut bad = fine.clone();
                let place = bad[operand].layout.row(sample, 0) + at;
                bad[operand].data[place] = value;
                everywhere(|run| {
                    let [good, _] = run(&operation, &fine);
                    let [gradient, sums] = run(&operation, &bad);
                    let row = |x: &[f32], b| x[fine[3].layout.row(b, 0)..][..2 * N].to_vec();
                    let total = sums[2 * sample] + sums[2 * sample + 1];
                    let spoilt = row(&gradient, sample).iter().any(|x| x.is_nan());
                    assert!(
                        total.is_finite() || spoilt,
                        "{kinds:?}, last {last}, operand {operand} at {at}: {value}, loss {total}"
                    );
                    assert_eq!(row(&gradient, 1 - sample), row(&good, 1 - sample));
                });
            }
        }
    }
}

#[test]
fn calls_that_do_not_fit_are_refused() {
    fn refused<B: Backend + ImageOps>(b: &B) {
        let x = b.from_f32(&[0.0; 48]);
        let mut gradient = b.from_f32(&[0.0; 48]);
        let mut d = Draw::new(1);
        let steps: Vec<LossStep> = (0..3)
            .map(|_| step(&mut d, [true, true], 0, 8, false))
            .collect();
        let mut says = |words: &str, shapes: [[usize; 2]; 4], steps: &[LossStep], sums: usize| {
            let mut sums = b.zeros(sums);
            let l = shapes.map(|[batch, values]| Layout::dense(batch, 1, values));
            let inputs = LossInputs {
                x_start: Tokens::new(&x, l[0]),
                noise: Tokens::new(&x, l[1]),
                output: Tokens::new(&x, l[2]),
            };
            let out = TokensMut::new(&mut gradient, l[3]);
            let result = b.gaussian_loss(steps, inputs, out, &mut sums, 1);
            let message = result.unwrap_err().to_string();
            assert!(message.contains(words), "{message:?} without {words:?}");
        };
        let (one, two) = ([3, 8], [3, 16]);
        says("[2, 1, 8]", [one, [2, 8], two, two], &steps, 7);
        says("[3, 1, 8]", [one, one, two, one], &steps, 7);
        says("[3, 1, 12]", [one, one, [3, 12], [3, 12]], &steps, 7);
        says("2 steps for 3", [one, one, two, two], &steps[..2], 7);
        says("3 samples from 1", [one, one, two, two], &steps, 6);
    }
    refused(&CPUS[0].clone());
    refused(&Reference::new());
    #[cfg(feature = "sim")]
    refused(&crate::gpu::GPUS[0].backend);
}
