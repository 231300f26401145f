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
            let mut parts = [db.chunks_mut(4), dc.chunks_mut(4)];
            for k in (0..width).step_by(LANES) {
                let mut lanes = [0.0; LANES];
                add_blocks(simd, &self.partials, self.b, offset + k).store(&mut lanes);
                for (i, from) in lanes.as_chunks::<4>().0.iter().enumerate() {
                    // None are left where the last vector is not full.
                    if let Some(to) = parts[i % 2].next() {
                        to.copy_from_slice(&from[..to.len()]);
                    }
                }
            }
        }
    }
}

/// The sum over blocks of the vector at `offset` in their rows.
#[inline(always)]
fn add_blocks<S: Simd>(simd: S, partials: &Tokens<'_, [f32]>, b: usize, offset: usize) -> S::V {
    let mut sum = simd.splat(0.0);
    for block in 0..partials.layout.tokens {
        let start = partials.layout.row(b, block) + offset;
        sum = sum + simd.load_partial(&partials.buf[start..start + LANES]);
    }
    sum
}

/// Element `i` of row `g` of a sums buffer, added over samples in their order.
pub(crate) fn over_batch(sums: &Tokens<'_, [f32]>, g: usize, i: usize) -> f32 {
    (0..sums.layout.batch)
        .map(|b| sums.buf[sums.layout.row(b, g) + i])
        .sum()
}
