//! Batches of images: what samplers do between two calls of a network.

use dis_tensor::{Backend, Cpu, ImageOps, Layout, Reference, Tokens, TokensMut};
use proptest::prelude::*;

use crate::draw::{CPUS, Draw, Operand, check, outcome};
use crate::operation::Operation;

/// One rounding to float32 of a result in float64.
const ROUNDED: f64 = 6e-8;

/// A batch of images, dense or some channels of larger ones, somewhere in its buffer.
fn images(d: &mut Draw, batch: usize, values: usize) -> Operand {
    let (before, after) = (d.below(3), d.below(2) * d.below(50));
    let stride = before + values + after;
    let layout = Layout::padded(batch, 1, stride, stride);
    let at = d.below(4);
    d.filled(layout.columns(before, values).at(at))
}

/// One number for each sample, or one for all.
fn numbers(d: &mut Draw, batch: usize) -> Vec<f64> {
    let count = if d.coin() { 1 } else { batch };
    (0..count).map(|_| d.normal()).collect()
}

/// A weight, often at an end.
fn weight(x: f32) -> f32 {
    x.clamp(0.0, 1.0)
}

fn cases(batch: usize, values: usize, terms: usize, seed: u64) -> Vec<(Operation, Vec<Operand>)> {
    let mut d = Draw::new(seed);
    let coefficients = (0..terms).map(|_| numbers(&mut d, batch)).collect();
    let some = |d: &mut Draw, n: usize| (0..n).map(|_| images(d, batch, values)).collect();
    let mut out: Vec<(Operation, Vec<Operand>)> = vec![
        (Operation::Combine(coefficients), some(&mut d, terms + 1)),
        (Operation::Clamp(-0.4, 0.7), some(&mut d, 1)),
        (Operation::Rescale(0.6), some(&mut d, 2)),
    ];
    for (ratio, most) in [(0.0, 2.0), (0.7, 2.0), (0.95, f64::INFINITY), (1.0, 1.2)] {
        out.push((Operation::Threshold(ratio, most), some(&mut d, 1)));
    }
    let (slope, mut offset) = (numbers(&mut d, batch), numbers(&mut d, batch));
    if let (Some(first), true) = (offset.first_mut(), d.coin()) {
        *first = f64::NEG_INFINITY;
    }
    let mut operands: Vec<Operand> = some(&mut d, 3);
    out.push((Operation::ExpNoise(slope, offset), operands));
    operands = some(&mut d, 4);
    operands[0].data.iter_mut().for_each(|w| *w = weight(*w));
    out.push((Operation::Mix, operands));
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_backend_agrees(batch in 0usize..4, values in 0usize..600, terms in 1usize..7, seed: u64) {
        for (operation, operands) in cases(batch, values, terms, seed) {
            // Two units in the last place of the exponential at one end, and the rounding of it.
            let rtol = match operation {
                Operation::ExpNoise(..) => 6.0 * ROUNDED,
                // The limit and its quotient.
                Operation::Threshold(..) => 2.0 * ROUNDED,
                _ => ROUNDED,
            };
            check(&operation, &operands, rtol);
        }
    }
}

#[cfg(feature = "sim")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// What has no exponential in it, and no sum over a sample, has the same bits on a GPU, so that a sampler of
    /// fixed noise differs by the network alone.
    #[test]
    fn a_gpu_has_the_bits_of_the_cpu(values in 1usize..600, terms in 1usize..7, seed: u64) {
        for (operation, operands) in cases(3, values, terms, seed) {
            if matches!(operation, Operation::ExpNoise(..) | Operation::Rescale(_)) {
                continue;
            }
            let on_cpu = outcome(&CPUS[0], &operation, &operands).unwrap();
            let gpu = &crate::gpu::GPUS[1].backend;
            let on_gpu = outcome(gpu, &operation, &operands).unwrap();
            for (a, b) in on_cpu.iter().zip(&on_gpu) {
                let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                assert_eq!(bits(CPUS[0].to_f32(a)), bits(gpu.to_f32(b)), "{operation:?}");
            }
        }
    }
}

fn everywhere(test: impl Fn(&dyn Fn(&Operation, &[Operand]) -> Vec<f32>)) {
    fn last<B: Backend + ImageOps>(b: &B, operation: &Operation, operands: &[Operand]) -> Vec<f32> {
        let results = outcome(b, operation, operands).unwrap();
        b.to_f32(results.last().unwrap())
    }
    let cpu: &Cpu = &CPUS[0];
    test(&|operation, operands| last(cpu, operation, operands));
    test(&|operation, operands| last(&Reference::new(), operation, operands));
    #[cfg(feature = "sim")]
    test(&|operation, operands| last(&crate::gpu::GPUS[0].backend, operation, operands));
}

fn of(values: &[f32]) -> Operand {
    Operand {
        data: values.to_vec(),
        layout: Layout::dense(1, 1, values.len()),
    }
}

/// Masks and limits must not let in what they keep out.
#[test]
fn extremes_go_where_they_belong() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    everywhere(|run| {
        let limited = run(&Operation::Clamp(-1.0, 1.0), &[of(&[nan, inf, -inf, 0.5])]);
        assert!(limited[0].is_nan());
        assert_eq!(limited[1..], [1.0, -1.0, 0.5]);

        // Half of what is infinite, and what is no number, which is the largest.
        let limited = run(
            &Operation::Threshold(0.5, 4.0),
            &[of(&[inf, -inf, 2.0, -1.0])],
        );
        assert_eq!(limited, [1.0, -1.0, 0.5, -0.25]);
        let limited = run(&Operation::Threshold(0.5, 4.0), &[of(&[-nan, 3.0, -1.0])]);
        assert!(limited[0].is_nan());
        assert_eq!(limited[1..], [1.0, -1.0 / 3.0]);
        let limited = run(&Operation::Threshold(1.0, 4.0), &[of(&[nan, 3.0, -1.0])]);
        assert_eq!(limited[1..], [1.0, -1.0]);
        // Nothing deviates, or nothing is wanted.
        assert_eq!(
            run(&Operation::Rescale(0.5), &[of(&[1.0, 3.0]), of(&[7.0; 2])]),
            [7.0; 2]
        );
        assert_eq!(
            run(&Operation::Rescale(0.5), &[of(&[2.0; 2]), of(&[1.0, 3.0])]),
            [0.5, 1.5]
        );

        let mixed = run(
            &Operation::Mix,
            &[
                of(&[1.0, 0.0, 0.5]),
                of(&[2.0, nan, nan]),
                of(&[inf, 3.0, 1.0]),
                of(&[0.0; 3]),
            ],
        );
        assert_eq!(mixed[..2], [2.0, 3.0]);
        assert!(mixed[2].is_nan());

        // exp of 800 and of -800 is beyond float64; masked samples ignore their scale.
        let noise = |log: &[f32], offset: f64| {
            run(
                &Operation::ExpNoise(vec![1.0], vec![offset]),
                &[of(&[2.0; 5]), of(log), of(&[1.0; 5])],
            )
        };
        let all = noise(&[800.0, -800.0, inf, -inf, nan], 0.0);
        assert_eq!(all[..4], [inf, 1.0, inf, 1.0]);
        assert!(all[4].is_nan());
        assert_eq!(
            noise(&[800.0, 0.0, inf, -inf, nan], f64::NEG_INFINITY),
            [1.0; 5]
        );
        // Scales below float32, and far above, which the noise brings back.
        let tiny = run(
            &Operation::ExpNoise(vec![1.0], vec![0.0]),
            &[of(&[3e38, 1e-38]), of(&[-95.0, 92.0]), of(&[0.0; 2])],
        );
        for (got, want) in tiny
            .iter()
            .zip([3e38 * (-95f64).exp(), 1e-38 * 92f64.exp()])
        {
            assert!(
                (f64::from(*got) / want - 1.0).abs() < 4e-7,
                "{got} not {want}"
            );
        }
    });
}

#[test]
fn calls_that_do_not_fit_are_refused() {
    fn refused<B: Backend + ImageOps>(b: &B) {
        let x = b.from_f32(&[0.0; 24]);
        let mut y = b.from_f32(&[0.0; 24]);
        let three = Tokens::new(&x, Layout::dense(3, 1, 8));
        let two = Tokens::new(&x, Layout::dense(2, 1, 12));
        macro_rules! says {
            ($words:literal, |$out:ident| $call:expr) => {{
                let $out = TokensMut::new(&mut y, Layout::dense(3, 1, 8));
                let message = $call.unwrap_err().to_string();
                assert!(message.contains($words), "{message:?} without {:?}", $words);
            }};
        }
        says!("terms", |out| b.combine(&[], out));
        says!("[2, 1, 12]", |out| b
            .combine(&[(&[1.0], three), (&[1.0], two)], out));
        says!("2 coefficients for 3", |out| b
            .combine(&[(&[1.0, 2.0], three)], out));
        says!("2 slopes for 3", |out| b.add_noise(
            three,
            three,
            &[1.0; 2],
            &[0.0],
            out
        ));
        says!("0 offsets for 3", |out| b.add_noise(
            three,
            three,
            &[1.0],
            &[],
            out
        ));
        says!("[2, 1, 12]", |out| b.mix(three, three, two, out));
        says!("[2, 1, 12]", |out| b.rescale(0.5, two, out));
        says!("quantile of 2", |out| b.threshold(2.0, 1.0, out));
        let tokens = TokensMut::new(&mut y, Layout::dense(3, 2, 4));
        let message = ImageOps::clamp(b, 0.0, 1.0, tokens)
            .unwrap_err()
            .to_string();
        assert!(message.contains("2 tokens"), "{message}");
    }
    refused(&CPUS[0].clone());
    refused(&Reference::new());
    #[cfg(feature = "sim")]
    refused(&crate::gpu::GPUS[0].backend);
}
