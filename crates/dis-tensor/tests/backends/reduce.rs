//! Sums over rows, samples and tokens.

use dis_tensor::Accum;
use proptest::prelude::*;

use crate::draw::{Draw, check};
use crate::operation::Operation;

/// Sums of some thousand float32 values.
const SUMS: f64 = 2e-6;

fn all(batch: usize, tokens: usize, channels: usize, seed: u64) {
    let mut d = Draw::new(seed);
    let alpha = d.normal();
    let x = d.view(batch, tokens, channels);
    check(
        &Operation::AddColumnSums,
        &[x.clone(), d.view(1, 1, channels)],
        SUMS,
    );
    check(
        &Operation::AddBatchSums,
        &[x.clone(), d.view(1, tokens, channels)],
        SUMS,
    );
    for accum in [Accum::Replace, Accum::Add] {
        let operands = [x.clone(), d.view(batch, 1, channels)];
        check(&Operation::TokenSums { alpha, accum }, &operands, SUMS);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn small(batch in 0usize..4, tokens in 0usize..40, channels in 0usize..40, seed: u64) {
        all(batch, tokens, channels, seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn large(batch in 1usize..5, tokens in 100usize..300, channels in 90usize..700, seed: u64) {
        all(batch, tokens, channels, seed);
    }
}
