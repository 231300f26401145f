//! The kernel: a few rows times a few vectors of columns, all sums in registers.
//!
//! The sum of an element runs over the steps in their order, in one accumulator, whatever the size
//! of the tile it is in and whoever computes it. So bits depend neither on threads nor on how many
//! rows there are: a sample alone and in a batch has the same.

use super::target::Rect;
use crate::simd::pairs::{PairKernel, Pairs};
use crate::simd::{Kernel, LANES, Number, Simd, Vector, prefetch};

/// Steps in whose time a tile of the result comes from memory; with fewer, fetching it ahead costs more
/// than it gives.
pub(super) const FETCH: usize = 64;

/// Lanes of a packed step of tiles of so many rows.
pub(super) const fn packed_lanes(height: usize) -> usize {
    if height <= LANES / 2 {
        LANES / 2
    } else {
        LANES
    }
}

/// What an element is before the products are added.
#[derive(Clone, Copy, Debug)]
pub(in crate::cpu) enum Base<'a> {
    /// Zero.
    Zero,
    /// One number for each column.
    Bias(&'a [f32]),
    /// What is there.
    Kept,
}

/// One tile of up to `H` rows times panels of `N` vectors of columns, over a part of the sum. As a
/// [`PairKernel`], elements of packed operands are pairs of bfloat16.
#[derive(Debug)]
pub(super) struct Block<'a, 'b, const H: usize, const N: usize> {
    /// The rows, `[step][lane]` with `height` of [`packed_lanes`] in use.
    pub a: &'a [f32],
    /// Panels of columns, each `[step][vector]`. The last one has as many vectors as it needs.
    pub b: &'a [[f32; LANES]],
    /// Vectors from panel to panel.
    pub b_stride: usize,
    /// What to add to.
    pub base: Base<'a>,
    /// The result.
    pub c: &'a mut Rect<'b>,
    /// First row of it.
    pub row: usize,
    /// How many, up to `H`.
    pub height: usize,
    /// First column of it.
    pub first: usize,
    /// How many.
    pub columns: usize,
}

/// How an element of the rows meets one of the columns.
trait Multiply<S: Simd> {
    fn multiply(simd: S, x: S::V, y: S::V, sum: S::V) -> S::V;
}

/// One float32 each.
struct Single;

impl<S: Simd> Multiply<S> for Single {
    #[inline(always)]
    fn multiply(_: S, x: S::V, y: S::V, sum: S::V) -> S::V {
        x.fma(y, sum)
    }
}

/// Two bfloat16 each.
struct Double;

impl<S: Pairs> Multiply<S> for Double {
    #[inline(always)]
    fn multiply(simd: S, x: S::V, y: S::V, sum: S::V) -> S::V {
        simd.dot(x, y, sum)
    }
}

impl<const H: usize, const N: usize> Kernel for Block<'_, '_, H, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.tiles::<S, Single>(simd);
    }
}

impl<const H: usize, const N: usize> PairKernel for Block<'_, '_, H, N> {
    #[inline(always)]
    fn run<S: Pairs>(self, simd: S) {
        self.tiles::<S, Double>(simd);
    }
}

impl<const H: usize, const N: usize> Block<'_, '_, H, N> {
    #[inline(always)]
    fn tiles<S: Simd, M: Multiply<S>>(mut self, simd: S) {
        let mut done = 0;
        for b in self.b.chunks(self.b_stride) {
            // Every size is compiled on its own, so that its sums are in registers.
            macro_rules! heights {
                ($vectors:tt: $($h:literal)*) => {
                    match self.height {
                        $($h => self.tile::<S, M, $h, $vectors>(simd, b, done),)*
                        _ => self.tile::<S, M, H, $vectors>(simd, b, done),
                    }
                };
            }
            if self.columns - done > (N - 1) * LANES {
                heights!(N: 1 2 3 4 5 6 7 8 9 10 11 12 13);
            } else {
                heights!(1: 1 2 3 4 5 6 7 8 9 10 11 12 13);
            }
            done += N * LANES;
        }
    }

    #[inline(always)]
    fn tile<S: Simd, M: Multiply<S>, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        b: &[[f32; LANES]],
        done: usize,
    ) {
        if R > H {
            return;
        }
        let whole = self.columns - done >= V * LANES;
        let lanes = packed_lanes(H);
        if whole && self.a.len() >= FETCH * lanes {
            for row in self.c.tile::<R, V>(self.row, self.first + done) {
                row.iter().for_each(|vector| prefetch(vector, 0));
            }
        }
        let mut sums = [[simd.splat(0.0); V]; R];
        for (a, b) in self.a.chunks_exact(lanes).zip(b.as_chunks::<V>().0) {
            let mut columns = [simd.splat(0.0); V];
            for n in 0..V {
                columns[n] = simd.load(&b[n]);
            }
            for i in 0..R {
                let x = simd.splat(a[i]);
                for n in 0..V {
                    sums[i][n] = M::multiply(simd, x, columns[n], sums[i][n]);
                }
            }
        }
        // No loop that is left indexes the sums, so they stay in registers.
        if !whole {
            let mut stored = [[[0.0; LANES]; V]; R];
            for i in 0..R {
                for n in 0..V {
                    sums[i][n].store(&mut stored[i][n]);
                }
            }
            return self.store_part(simd, &stored, done);
        }
        let first = self.first + done;
        let out = self.c.tile::<R, V>(self.row, first);
        match self.base {
            Base::Zero => {
                for i in 0..R {
                    for n in 0..V {
                        (sums[i][n] + simd.splat(0.0)).store(&mut out[i][n]);
                    }
                }
            }
            Base::Bias(bias) => {
                let bias = bias[first..first + V * LANES].as_chunks().0;
                for n in 0..V {
                    let bias = simd.load(&bias[n]);
                    for i in 0..R {
                        (sums[i][n] + bias).store(&mut out[i][n]);
                    }
                }
            }
            Base::Kept => {
                for i in 0..R {
                    for n in 0..V {
                        (sums[i][n] + simd.load(&out[i][n])).store(&mut out[i][n]);
                    }
                }
            }
        }
    }

    /// Stores the sums of a tile that reaches beyond the columns.
    #[inline(always)]
    fn store_part<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        sums: &[[[f32; LANES]; V]],
        done: usize,
    ) {
        let (start, width) = (self.first + done, self.columns - done);
        for (i, sums) in sums.iter().enumerate() {
            let out = self.c.row(self.row + i, start, width);
            for (n, (sum, out)) in sums.iter().zip(out.chunks_mut(LANES)).enumerate() {
                let base = match self.base {
                    Base::Zero => simd.splat(0.0),
                    Base::Bias(bias) => simd.load_partial(&bias[start + n * LANES..][..out.len()]),
                    Base::Kept => simd.load_partial(out),
                };
                (simd.load(sum) + base).store_partial(out);
            }
        }
    }
}
