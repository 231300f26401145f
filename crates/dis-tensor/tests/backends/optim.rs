//! The gradient norm and AdamW.

use dis_tensor::{AdamState, AdamW, Backend};
use proptest::prelude::*;

use crate::draw::{CPUS, Draw, Operand, check, outcome};
use crate::operation::Operation;

const STEP: AdamW = AdamW {
    lr: 1e-3,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.01,
    step: 3,
    grad_scale: 0.5,
    max_grad_norm: Some(1.0),
    ema_decay: 0.99,
};

fn arenas(d: &mut Draw, n: usize, norm: f32) -> Vec<Operand> {
    let mut all: Vec<_> = (0..6).map(|_| d.dense(n)).collect();
    for v in &mut all[3].data {
        *v = v.abs();
    }
    all[5] = d.dense(1);
    all[5].data[0] = norm;
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn one_step(
        n in prop_oneof![0usize..40, 30_000usize..90_000],
        step in 1u64..2000,
        norm in 0.0f32..100.0,
        clip in proptest::option::of(0.1f64..10.0),
        weight_decay in 0.0f64..0.1,
        seed: u64,
    ) {
        let operands = arenas(&mut Draw::new(seed), n, norm);
        let operation = Operation::AdamW(AdamW { step, weight_decay, max_grad_norm: clip, ..STEP });
        check(&operation, &operands, 1e-6);
    }

    #[test]
    fn norm(n in prop_oneof![0usize..40, 15_000usize..90_000], seed: u64) {
        let mut d = Draw::new(seed);
        check(&Operation::GlobalNorm, &[d.dense(n), d.dense(2)], 1e-7);
    }
}

/// Two updates of two parameters, worked out with PyTorch's formulas by hand in float64:
/// p = (1, -2), g = (0.5, -1) then (0.25, 0.5), lr 0.1, betas (0.9, 0.99), eps 1e-8, decay 0.1.
#[test]
fn agrees_with_the_update_written_out() {
    let b = dis_tensor::Reference::new();
    let step = AdamW {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 1,
        grad_scale: 1.0,
        max_grad_norm: None,
        ema_decay: 0.0,
    };
    let mut params = b.upload(&[1.0, -2.0]);
    let (mut m, mut v, mut ema) = (b.zeros(2), b.zeros(2), b.zeros(2));
    let norm = b.upload(&[1.0]);
    for (t, grads) in (1..).zip([[0.5, -1.0], [0.25, 0.5]]) {
        let grads = b.upload(&grads);
        let (params, m, v, ema) = (&mut params, &mut m, &mut v, &mut ema);
        let state = AdamState {
            params,
            grads: &grads,
            m,
            v,
            ema,
            grad_norm: &norm,
        };
        b.adamw(state, AdamW { step: t, ..step }).unwrap();
    }
    // After step 1 m / correction is g and v / correction is g^2, so p moves by lr * sign(g).
    let first = [1.0 * 0.99 - 0.1, -2.0 * 0.99 + 0.1];
    let second = |p: f64, g1: f64, g2: f64| {
        let m = (0.9 * 0.1 * g1 + 0.1 * g2) / (1.0 - 0.81);
        let v: f64 = (0.99 * 0.01 * g1 * g1 + 0.01 * g2 * g2) / (1.0 - 0.9801);
        p * 0.99 - 0.1 * m / (v.sqrt() + 1e-8)
    };
    let expected = [second(first[0], 0.5, 0.25), second(first[1], -1.0, 0.5)];
    for (got, want) in params.iter().zip(expected) {
        // eps in the first step is left out above.
        assert!((got - want).abs() < 1e-8, "{got} instead of {want}");
    }
    assert_eq!(ema.as_slice(), params.as_slice());
}

#[test]
fn a_non_finite_norm_changes_nothing() {
    for norm in [f32::NAN, f32::INFINITY] {
        let operands = arenas(&mut Draw::new(8), 1000, norm);
        let operation = Operation::AdamW(STEP);
        let after = outcome(&CPUS[1], &operation, &operands).unwrap();
        let reference = outcome(&dis_tensor::Reference::new(), &operation, &operands).unwrap();
        #[cfg(feature = "sim")]
        for gpu in crate::gpu::GPUS.iter() {
            let b = &gpu.backend;
            let after = outcome(b, &operation, &operands).unwrap();
            for i in 0..5 {
                assert_eq!(b.to_f32(&after[i]), operands[i].data);
            }
        }
        for i in 0..5 {
            assert_eq!(after[i].as_slice(), operands[i].data.as_slice());
            let same = reference[i]
                .iter()
                .zip(&operands[i].data)
                .all(|(&a, &b)| a == f64::from(b));
            assert!(same);
        }
    }
}

/// Gradients too large to square in float32 still have a norm.
#[test]
fn norm_is_summed_in_float64() {
    large_norm(&CPUS[0]);
    #[cfg(feature = "sim")]
    large_norm(&crate::gpu::GPUS[0].backend);
}

fn large_norm<B: Backend<Real = f32>>(b: &B) {
    let x = b.upload(&[1e30f32, 1e30, 1e-30]);
    let mut out = b.zeros(1);
    b.global_norm(&x, &mut out).unwrap();
    let expected = (2.0f64.sqrt() * f64::from(1e30f32)) as f32;
    assert_eq!(b.to_f32(&out), [expected]);
}

/// The update is the same operations in the same order, each rounded.
#[cfg(feature = "sim")]
#[test]
fn the_update_has_the_same_bits_on_a_device() {
    for clip in [None, Some(0.5)] {
        let operands = arenas(&mut Draw::new(3), 3000, 7.0);
        let operation = Operation::AdamW(AdamW {
            max_grad_norm: clip,
            ..STEP
        });
        let cpu = outcome(&CPUS[0], &operation, &operands).unwrap();
        let gpu = &crate::gpu::GPUS[0].backend;
        let other = outcome(gpu, &operation, &operands).unwrap();
        for i in 0..5 {
            assert_eq!(gpu.to_f32(&other[i]), cpu[i].as_slice());
        }
    }
}
