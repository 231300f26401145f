//! The kernel: a few rows times a few vectors of columns, all sums in registers.
//!
//! The sum of an element runs over the steps in their order, in one accumulator, whatever the size
//! of the tile it is in and whoever computes it. So bits depend neither on threads nor on how many
//! rows there are: a sample alone and in a batch has the same.

use super::target::Rect;
use crate::simd::pairs::{PairKernel, Pairs};
use crate::simd::{Kernel, LANES, Simd, Vector};

/// What an element is before the products are added.
#[derive(Clone, Copy, Debug)]
pub(super) enum Base<'a> {
    /// Zero.
    Zero,
    /// One number for each column.
    Bias(&'a [f32]),
    /// What is there.
    Kept,
}

/// Rows times columns over a part of the sum, with operands packed for tiles of `H` rows and `N`
/// vectors. As a [`PairKernel`], elements of packed operands are pairs of bfloat16.
#[derive(Debug)]
pub(super) struct Block<'a, 'b, const H: usize, const N: usize> {
    /// Tiles of rows, each `[step][lane]` with up to `H` lanes in use.
    pub a: &'a [[f32; LANES]],
    /// Steps from tile to tile.
    pub a_stride: usize,
    /// Panels of columns, each `[step][N vectors]`, one after another.
    pub b: &'a [[[f32; LANES]; N]],
    /// Steps of the sum.
    pub steps: usize,
    /// What to add to.
    pub base: Base<'a>,
    /// The result: all rows, and the columns of these panels.
    pub c: &'a mut Rect<'b>,
    /// First column.
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
        let rows = self.c.rows();
        let mut row = 0;
        let mut tile = 0;
        while row < rows {
            let a = &self.a[tile * self.a_stride..][..self.steps];
            let height = (rows - row).min(H);
            for (panel, b) in self.b.chunks_exact(self.steps).enumerate() {
                // Every height is compiled on its own, so that its sums are in registers.
                macro_rules! heights {
                    ($($h:literal)*) => {
                        match height {
                            $($h => self.tile::<S, M, $h>(simd, a, b, row, panel),)*
                            _ => self.tile::<S, M, H>(simd, a, b, row, panel),
                        }
                    };
                }
                heights!(1 2 3 4 5 6 7 8 9 10 11 12 13);
            }
            row += height;
            tile += 1;
        }
    }

    #[inline(always)]
    fn tile<S: Simd, M: Multiply<S>, const R: usize>(
        &mut self,
        simd: S,
        a: &[[f32; LANES]],
        b: &[[[f32; LANES]; N]],
        row: usize,
        panel: usize,
    ) {
        if R > H {
            return;
        }
        let mut sums = [[simd.splat(0.0); N]; R];
        for (a, b) in a.iter().zip(b) {
            let mut columns = [simd.splat(0.0); N];
            for n in 0..N {
                columns[n] = simd.load(&b[n]);
            }
            for i in 0..R {
                let x = simd.splat(a[i]);
                for n in 0..N {
                    sums[i][n] = M::multiply(simd, x, columns[n], sums[i][n]);
                }
            }
        }
        for i in 0..R {
            for n in 0..N {
                let column = (panel * N + n) * LANES;
                if column >= self.columns {
                    break;
                }
                let lanes = (self.columns - column).min(LANES);
                let out = self.c.row(row + i, self.first + column, lanes);
                let base = match self.base {
                    Base::Zero => simd.splat(0.0),
                    Base::Bias(bias) => {
                        let start = self.first + column;
                        simd.load_partial(&bias[start..start + lanes])
                    }
                    Base::Kept => simd.load_partial(out),
                };
                (sums[i][n] + base).store_partial(out);
            }
        }
    }
}
