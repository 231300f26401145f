//! Residual add and normalisation, forward and backward.

use dis_tensor::{Accum, NormKind};
use proptest::prelude::*;

use crate::draw::{Draw, LEVELS, check, outcome, same_bits};
use crate::operation::{NormParts, Operation};

/// A few channels can all but agree, and then their norm magnifies the rounding of its input without
/// bound; a larger eps bounds it.
fn parts(d: &mut Draw, channels: usize) -> NormParts {
    let (kind, small) = if d.coin() {
        (NormKind::Rms, 1e-5)
    } else {
        (NormKind::Layer, 1e-6)
    };
    NormParts {
        kind,
        eps: if channels < 8 { 0.1 } else { small },
        weight: d.coin(),
        bias: d.coin(),
        shift_scale: d.coin(),
    }
}

fn forward(batch: usize, tokens: usize, channels: usize, seed: u64) {
    let mut d = Draw::new(seed);
    let parts = parts(&mut d, channels);
    let operation = Operation::AddNorm {
        parts,
        residual: d.coin(),
        hidden_scale: d.coin(),
        sum: d.coin(),
        stats: d.coin(),
    };
    let operands = [
        d.view(batch, tokens, channels),
        d.view(batch, tokens, channels),
        d.view(batch, 1, 1),
        d.view(1, 1, channels),
        d.view(1, 1, channels),
        d.view(batch, 1, 2 * channels),
        d.view(batch, tokens, channels),
        d.view(batch, tokens, 2),
        d.view(batch, tokens, channels),
    ];
    check(&operation, &operands, 2e-6);
}

/// The statistics need not belong to x: the formula is compared for whatever they are. They are
/// kept positive and of order one, as they are in a model.
fn backward(batch: usize, tokens: usize, channels: usize, seed: u64) {
    let mut d = Draw::new(seed);
    let parts = parts(&mut d, channels);
    let at = d.below(5);
    let grads = d.coin().then_some([at, at + channels + d.below(3)]);
    let operation = Operation::AddNormBackward {
        parts,
        accum: if d.coin() { Accum::Add } else { Accum::Replace },
        grads,
    };
    let mut stats = d.view(batch, tokens, 2);
    for x in &mut stats.data {
        *x = 0.5 + 0.1 * x.abs();
    }
    let operands = [
        d.view(batch, tokens, channels),
        stats,
        d.view(1, 1, channels),
        d.view(1, 1, channels),
        d.view(batch, 1, 2 * channels),
        d.view(batch, tokens, channels),
        d.view(batch, tokens, channels),
        d.dense(2 * channels + 12),
        d.view(batch, 1, 2 * channels),
    ];
    check(&operation, &operands, 4e-6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn small(batch in 1usize..4, tokens in 1usize..8, channels in 1usize..70, seed: u64) {
        forward(batch, tokens, channels, seed);
        backward(batch, tokens, channels, seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn large(batch in 1usize..5, tokens in 60usize..130, channels in 90usize..200, seed: u64) {
        forward(batch, tokens, channels, seed);
        backward(batch, tokens, channels, seed);
    }
}

/// A mean far from zero must not drown the variance, as it does in E[x^2] - E[x]^2.
#[test]
fn layer_norm_survives_a_large_mean() {
    let mut d = Draw::new(3);
    let parts = NormParts {
        kind: NormKind::Layer,
        eps: 1e-6,
        weight: false,
        bias: false,
        shift_scale: false,
    };
    let operation = Operation::AddNorm {
        parts,
        residual: false,
        hidden_scale: false,
        sum: false,
        stats: true,
    };
    let mut operands: Vec<_> = (0..9).map(|_| d.dense(64)).collect();
    operands[1]
        .data
        .iter_mut()
        .for_each(|x| *x = (1000.0 + *x).round() + 0.5);
    operands[7] = d.view(1, 1, 2);
    check(&operation, &operands, 2e-6);
}

#[test]
fn empty_views_are_no_work() {
    for [batch, tokens, channels] in [[0, 3, 4], [2, 0, 4]] {
        for seed in 0..8 {
            forward(batch, tokens, channels, seed);
            backward(batch, tokens, channels, seed);
        }
    }
}

/// Nothing in a norm is fused or approximated, so instruction sets agree bit by bit.
#[test]
fn instruction_sets_give_the_same_bits() {
    let mut d = Draw::new(12);
    for kind in [NormKind::Rms, NormKind::Layer] {
        let parts = NormParts {
            kind,
            eps: 1e-5,
            weight: true,
            bias: true,
            shift_scale: true,
        };
        let forward = Operation::AddNorm {
            parts,
            residual: true,
            hidden_scale: true,
            sum: true,
            stats: true,
        };
        let backward = Operation::AddNormBackward {
            parts,
            accum: Accum::Add,
            grads: Some([0, 77]),
        };
        let view = |d: &mut Draw, channels| d.view(2, 13, channels);
        let forward_operands = [
            view(&mut d, 77),
            view(&mut d, 77),
            d.view(2, 1, 1),
            d.view(1, 1, 77),
            d.view(1, 1, 77),
            d.view(2, 1, 154),
            view(&mut d, 77),
            view(&mut d, 2),
            view(&mut d, 77),
        ];
        let backward_operands = [
            view(&mut d, 77),
            view(&mut d, 2),
            d.view(1, 1, 77),
            d.view(1, 1, 77),
            d.view(2, 1, 154),
            view(&mut d, 77),
            view(&mut d, 77),
            d.dense(154),
            d.view(2, 1, 154),
        ];
        for (operation, operands) in [(forward, forward_operands), (backward, backward_operands)] {
            let first = outcome(&LEVELS[0], &operation, &operands).unwrap();
            for cpu in LEVELS.iter() {
                let other = outcome(cpu, &operation, &operands).unwrap();
                same_bits(
                    &first,
                    &other,
                    &format!("{operation:?} with {}", cpu.level()),
                );
            }
        }
    }
}
