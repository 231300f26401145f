//! Sums of what tasks left behind, in the order of blocks and samples.

use super::backward::partial_width;
use super::pieces::Piece;
use dis_tensor::Tokens;
use dis_tensor::simd::{Kernel, LANES, Simd, Vector};

/// Adds up the blocks' partial dB and dC of some tokens of one sample.
pub(crate) struct ReducePartials<'a> {
    /// One row per block, see [`super::backward::partial_layout`].
    pub partials: Tokens<'a, [f32]>,
    pub b: usize,
    /// First token.
    pub start: usize,
    pub states: usize,
    /// The tokens' rows of dbc, overwritten.
    pub dbc: Piece<'a>,
}

impl Kernel for ReducePartials<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let width = partial_width(self.states);
        for row in 0..self.dbc.rows() {
            let (db, dc) = self.dbc.row(row).split_at_mut(self.states);
            let offset = (self.start + row) * width;
            add_blocks(simd, &self.partials, self.b, offset, db);
            add_blocks(simd, &self.partials, self.b, offset + width / 2, dc);
        }
    }
}

/// `out` = the sum over blocks of what lies at `offset` in their rows.
#[inline(always)]
fn add_blocks<S: Simd>(
    simd: S,
    partials: &Tokens<'_, [f32]>,
    b: usize,
    offset: usize,
    out: &mut [f32],
) {
    for (k, to) in out.chunks_mut(LANES).enumerate() {
        let mut sum = simd.splat(0.0);
        for block in 0..partials.layout.tokens {
            let start = partials.layout.row(b, block) + offset + k * LANES;
            sum = sum + simd.load_partial(&partials.buf[start..start + LANES]);
        }
        sum.store_partial(to);
    }
}

/// Element `i` of row `g` of a sums buffer, added over samples in their order.
pub(crate) fn over_batch(sums: &Tokens<'_, [f32]>, g: usize, i: usize) -> f32 {
    (0..sums.layout.batch)
        .map(|b| sums.buf[sums.layout.row(b, g) + i])
        .sum()
}
