//! Matrix products, by packed blocks (Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication", 2008): both operands are copied into the order that the kernel reads, tiles of
//! the result are summed in registers.
//!
//! Own code rather than a library for one property: bits that depend on neither threads nor the
//! number of rows, so that a sample has the same alone and in any batch.

mod in_place;
mod pack;
mod prepared;
mod ready;
mod target;
mod tile;

use self::pack::{Form, Groups, Operand};
pub(crate) use self::prepared::Prepared;
pub(super) use self::prepared::{prepare, right};
use self::ready::Columns;
use self::target::Rect;
pub(super) use self::tile::Base;
use self::tile::Block;
use super::Cpu;
use super::threads::Pieces;
use crate::layout::TokensMut;
use crate::operands::{GemmSize, Matrix};
use crate::simd::pairs::dispatch_pairs;
use crate::simd::{LANES, Level, dispatch};

/// Multiply-adds below which a product runs on the calling thread.
const INLINE: usize = 48 * 48 * 256;
/// Most steps of the sum at once: a panel of so many fits the second-level cache many times over,
/// and shorter sums round less. On AVX2 it fits the first-level cache, beside a tile's rows.
fn most_steps(level: Level) -> usize {
    match level {
        Level::Avx2 => 384,
        _ => 512,
    }
}

/// The right operand of a product.
#[derive(Clone, Copy, Debug)]
pub(super) enum Right<'a> {
    /// One as it lies in memory.
    Plain(Matrix<'a, [f32]>),
    /// The transpose of a matrix that has been prepared.
    Prepared(Columns<'a>),
}

/// `c = base + a b`; the arguments have been checked.
pub(super) fn gemm(
    cpu: &Cpu,
    size: GemmSize,
    a: Matrix<'_, [f32]>,
    b: Right<'_>,
    base: Base<'_>,
    c: TokensMut<'_, [f32]>,
) {
    let GemmSize { m, n, k } = size;
    if m == 0 || n == 0 {
        return;
    }
    let stride = c.layout.row_stride;
    let c = &mut c.buf[c.layout.offset..c.layout.end()];
    let mut c = Rect::new(c, stride, m, n);
    if k == 0 {
        for row in 0..m {
            let row = c.row(row, 0, n);
            match base {
                Base::Zero => row.fill(0.0),
                Base::Bias(bias) => row.copy_from_slice(bias),
                Base::Kept => {}
            }
        }
        return;
    }
    let left = Left {
        cpu,
        form: Form::of(cpu),
        k,
        a: Operand::left(a),
        base,
    };
    // Tiles that fill the registers: thirty-two of 512 bits, or sixteen of half as many.
    match cpu.level() {
        Level::Avx512 | Level::Neon => left.run::<14, 2>(b, c),
        Level::Avx2 | Level::Portable => left.run::<6, 1>(b, c),
    }
}

/// Columns of a panel: the vectors of a tile of [`gemm`].
fn panel_width(level: Level) -> usize {
    match level {
        Level::Avx512 | Level::Neon => 2 * LANES,
        Level::Avx2 | Level::Portable => LANES,
    }
}

/// A product but for its right operand.
struct Left<'a> {
    cpu: &'a Cpu,
    form: Form,
    /// Steps of the sum.
    k: usize,
    a: Operand<'a>,
    base: Base<'a>,
}

impl Left<'_> {
    fn run<const H: usize, const N: usize>(&self, b: Right<'_>, c: Rect<'_>) {
        let b = match b {
            Right::Prepared(columns) => return self.times::<H, N>(columns, c),
            Right::Plain(b) => b,
        };
        let (b, units) = (Operand::right(b), self.form.units(self.k));
        let count = c.columns() / (N * LANES);
        let vectors = c.columns().div_ceil(LANES);
        let mut packed = self.cpu.scratch::<f32>(vectors * units * LANES);
        let (panels, rest) = packed.as_chunks_mut().0.split_at_mut(count * units * N);
        pack_columns::<N>(self.cpu, &b, self.form, self.k, panels, rest);
        let columns = Columns {
            panels,
            count,
            stride: units * N,
            rest,
            first: 0,
        };
        self.times::<H, N>(columns, c);
    }

    /// Packed steps of the sum, and how many of them are added before the result is touched. The
    /// latter depends on the length of the sum alone, so sums are cut at the same places by
    /// everybody.
    fn steps(&self) -> (usize, usize) {
        let units = self.form.units(self.k);
        let most = most_steps(self.cpu.level());
        (units, units.div_ceil(units.div_ceil(most)))
    }

    /// How many threads share a product of this size.
    fn threads(&self, c: &Rect<'_>) -> usize {
        let work = c.rows().saturating_mul(c.columns()).saturating_mul(self.k);
        if work < INLINE { 1 } else { self.cpu.threads() }
    }

    /// What is in the columns from `first` on before the steps from `from` are added.
    fn base(&self, from: usize, first: usize) -> Base<'_> {
        match self.base {
            _ if from > 0 => Base::Kept,
            Base::Bias(bias) => Base::Bias(&bias[first..]),
            base => base,
        }
    }
}

fn run_block<const H: usize, const N: usize>(form: Form, block: Block<'_, '_, H, N>) {
    match form {
        Form::Single(level) | Form::Rounded(level) => dispatch(level, block),
        Form::Paired => {
            dispatch_pairs(block);
        }
    }
}

/// Panels of columns that are packed together, see [`Operand::pack`].
const PANELS: usize = 4;

/// Packs all columns of a product: whole panels of `N` vectors, `[panel][step][vector]`, and what fills
/// none, `[step][vector]`.
fn pack_columns<const N: usize>(
    cpu: &Cpu,
    source: &Operand<'_>,
    form: Form,
    steps: usize,
    panels: &mut [[f32; LANES]],
    rest: &mut [[f32; LANES]],
) {
    let units = form.units(steps);
    let (width, stride) = (N * LANES, units * N);
    let groups = |panel: usize, count: usize, vectors: usize| Groups {
        first: panel * width,
        height: LANES,
        count: count * vectors,
        vectors,
    };
    let (count, left) = (panels.len() / stride, rest.len() / units);
    let work = panels.len() * LANES;
    let pieces = Pieces {
        data: panels,
        width: stride,
        units: 1,
    };
    cpu.blocks(count, PANELS, work, pieces, |range, panels| {
        let groups = groups(range.start, range.len(), N);
        source.pack(form, groups, 0..steps, panels.data);
    });
    if left > 0 {
        source.pack(form, groups(count, 1, left), 0..steps, rest);
    }
}
