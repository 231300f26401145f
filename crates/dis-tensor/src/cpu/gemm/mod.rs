//! Matrix products, by packed blocks (Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication", 2008): both operands are copied into the order that the kernel reads, tiles of
//! the result are summed in registers.
//!
//! Own code rather than a library for one property: bits that depend on neither threads nor the
//! number of rows, so that a sample has the same alone and in any batch.

mod pack;
mod prepared;
mod ready;
mod target;
mod tile;

use std::ops::Range;

use self::pack::{Form, Operand};
pub(crate) use self::prepared::Prepared;
pub(super) use self::prepared::{prepare, right};
use self::ready::Columns;
use self::target::Rect;
use self::tile::{Base, Block};
use super::Cpu;
use super::threads::Pieces;
use crate::check::GemmSize;
use crate::layout::{Tokens, TokensMut};
use crate::simd::pairs::dispatch_pairs;
use crate::simd::{LANES, Level, dispatch};

/// Multiply-adds below which a product runs on the calling thread.
const INLINE: usize = 48 * 48 * 256;
/// Most steps of the sum at once: a panel of so many fits the second-level cache many times over,
/// and shorter sums round less.
const STEPS: usize = 512;
/// Elements of packed columns at once, about half of a second-level cache.
const COLUMNS: usize = 96 * 1024;

/// The right operand of a product.
#[derive(Clone, Copy, Debug)]
pub(super) enum Right<'a> {
    /// A matrix, or its transpose.
    Plain(Tokens<'a, [f32]>, bool),
    /// The transpose of a matrix that has been prepared.
    Prepared(Columns<'a>),
}

/// `c = op(a) b + bias` or `c += op(a) b`; the arguments have been checked.
pub(super) fn gemm(
    cpu: &Cpu,
    size: GemmSize,
    a: Tokens<'_, [f32]>,
    transpose_a: bool,
    b: Right<'_>,
    bias: Option<&[f32]>,
    accumulate: bool,
    c: TokensMut<'_, [f32]>,
) {
    let GemmSize { m, n, k } = size;
    if m == 0 || n == 0 {
        return;
    }
    let base = match bias {
        Some(bias) => Base::Bias(bias),
        None if accumulate => Base::Kept,
        None => Base::Zero,
    };
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
        a: Operand::left(a, transpose_a),
        base,
    };
    // Tiles that fill the registers: thirty-two of 512 bits, or sixteen of half as many.
    match (b, cpu.level()) {
        (Right::Plain(b, transpose), level) => {
            let b = Operand::right(b, transpose);
            let product = Product { left, b };
            match level {
                Level::Avx512 | Level::Neon => product.run::<14, 2>(c),
                Level::Avx2 | Level::Portable => product.run::<6, 1>(c),
            }
        }
        (Right::Prepared(columns), Level::Avx512 | Level::Neon) => {
            left.times::<14, 2>(columns, c);
        }
        (Right::Prepared(columns), Level::Avx2 | Level::Portable) => {
            left.times::<6, 1>(columns, c);
        }
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
    /// Packed steps of the sum, and how many of them are added before the result is touched. The
    /// latter depends on the length of the sum alone, so sums are cut at the same places by
    /// everybody.
    fn steps(&self) -> (usize, usize) {
        let units = self.form.units(self.k);
        (units, units.div_ceil(units.div_ceil(STEPS)))
    }

    /// How many threads share a product of this size.
    fn threads(&self, c: &Rect<'_>) -> usize {
        let work = c.rows().saturating_mul(c.columns()).saturating_mul(self.k);
        if work < INLINE { 1 } else { self.cpu.threads() }
    }

    /// What is there before the steps from `from` are added.
    fn base(&self, from: usize) -> Base<'_> {
        if from > 0 { Base::Kept } else { self.base }
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

/// A product whose operands are packed now.
struct Product<'a> {
    left: Left<'a>,
    /// By its columns.
    b: Operand<'a>,
}

impl Product<'_> {
    fn run<const H: usize, const N: usize>(&self, c: Rect<'_>) {
        let (units, steps) = self.left.steps();
        let (m, n) = (c.rows(), c.columns());
        let mut packed = self.left.cpu.scratch::<f32>(m.div_ceil(H) * units * LANES);
        self.pack_rows::<H>(m, units, &mut packed);
        let tiles = packed.as_chunks().0;
        let threads = self.left.threads(&c);
        let part = Part { tiles, columns: 0 };
        // Room for the packed columns of every thread, so that what is taken from the pool does not
        // depend on which of them run at the same time.
        let group = (COLUMNS / (steps * N * LANES)).clamp(1, n.div_ceil(N * LANES));
        let blocking = Blocking {
            units,
            steps,
            group,
        };
        let room = group * steps * N * LANES;
        let mut scratch = self.left.cpu.scratch::<f32>(threads * room);
        let scratch = scratch.as_mut_slice();
        if threads == 1 {
            self.part::<H, N>(part, blocking, c, scratch);
        } else {
            let share = || self.share::<H, N>(part, blocking, c, threads, scratch);
            self.left.cpu.install(share);
        }
    }

    fn pack_rows<const H: usize>(&self, m: usize, units: usize, out: &mut [f32]) {
        let Left {
            cpu, form, k, a, ..
        } = self.left;
        let tiles = Pieces {
            data: out.as_chunks_mut::<LANES>().0,
            width: units,
            units: 1,
        };
        let work = m.saturating_mul(k);
        cpu.blocks(m.div_ceil(H), 4, work, tiles, |range, tiles| {
            for (tile, out) in range.zip(tiles.data.chunks_exact_mut(units)) {
                // Rows beyond the tile fill lanes that nobody reads.
                let rows = (m - tile * H).min(LANES);
                a.pack(form, [tile * H, rows], 0..k, out, 1);
            }
        });
    }

    /// Divides a part among threads: halves of its columns while there are panels, else of its
    /// rows.
    fn share<const H: usize, const N: usize>(
        &self,
        part: Part<'_>,
        blocking: Blocking,
        c: Rect<'_>,
        threads: usize,
        scratch: &mut [f32],
    ) {
        let panels = c.columns().div_ceil(N * LANES);
        let tiles = c.rows().div_ceil(H);
        if threads <= 1 || panels.max(tiles) < 2 {
            return self.part::<H, N>(part, blocking, c, scratch);
        }
        let left = threads / 2;
        let (mine, others) = scratch.split_at_mut(left * (scratch.len() / threads));
        let share = |units: usize| (units * left + threads / 2) / threads;
        // Columns are divided unless that is much less even than dividing rows.
        let waste = |units: usize| {
            let first = share(units) as f64 / left as f64;
            let second = (units - share(units)) as f64 / (threads - left) as f64;
            first.max(second) * threads as f64 / units as f64
        };
        let (first, second, here, there);
        if panels > 1 && (tiles < 2 || waste(panels) < waste(tiles) + 0.02) {
            let at = share(panels).max(1) * N * LANES;
            (here, there) = c.split_columns(at);
            first = part;
            second = Part {
                columns: part.columns + at,
                ..part
            };
        } else {
            let at = share(tiles).max(1);
            (here, there) = c.split_rows(at * H);
            first = part;
            second = Part {
                tiles: &part.tiles[at * blocking.units..],
                ..part
            };
        }
        rayon::join(
            || self.share::<H, N>(first, blocking, here, left, mine),
            || self.share::<H, N>(second, blocking, there, threads - left, others),
        );
    }

    /// Computes a part on this thread.
    fn part<const H: usize, const N: usize>(
        &self,
        part: Part<'_>,
        blocking: Blocking,
        mut c: Rect<'_>,
        scratch: &mut [f32],
    ) {
        let Blocking { units, group, .. } = blocking;
        let width = N * LANES;
        for first in (0..c.columns()).step_by(group * width) {
            let columns = (group * width).min(c.columns() - first);
            let mut from = 0;
            while from < units {
                let steps = blocking.steps.min(units - from);
                let packed = scratch.as_chunks_mut().0;
                let lines = [part.columns + first, columns];
                let b = self.pack::<N>(lines, from..from + steps, packed);
                let base = match self.left.base(from) {
                    Base::Bias(bias) => Base::Bias(&bias[part.columns..]),
                    base => base,
                };
                for (tile, row) in (0..c.rows()).step_by(H).enumerate() {
                    let block = Block::<H, N> {
                        a: &part.tiles[tile * units + from..][..steps],
                        b,
                        b_stride: steps * N,
                        base,
                        row,
                        height: (c.rows() - row).min(H),
                        c: &mut c,
                        first,
                        columns,
                    };
                    run_block(self.left.form, block);
                }
                from += steps;
            }
        }
    }

    /// Packs so many columns from the first.
    fn pack<'a, const N: usize>(
        &self,
        [first, columns]: [usize; 2],
        steps: Range<usize>,
        out: &'a mut [[f32; LANES]],
    ) -> &'a [[f32; LANES]] {
        let Left { form, k, .. } = self.left;
        let sum = steps.start * form.steps()..(steps.end * form.steps()).min(k);
        pack_columns::<N>(&self.b, form, [first, columns], sum, out)
    }
}

/// Packs so many lines from the first, as columns of panels of `N` vectors, and returns the panels.
fn pack_columns<'a, const N: usize>(
    source: &Operand<'_>,
    form: Form,
    [first, columns]: [usize; 2],
    sum: Range<usize>,
    out: &'a mut [[f32; LANES]],
) -> &'a [[f32; LANES]] {
    let units = form.units(sum.len());
    let vectors = columns.div_ceil(LANES);
    let out = &mut out[..units * vectors];
    for (i, out) in out.chunks_mut(units * N).enumerate() {
        let width = out.len() / units;
        for vector in 0..width {
            let done = (i * N + vector) * LANES;
            let lines = [first + done, columns - done];
            source.pack(form, lines, sum.clone(), &mut out[vector..], width);
        }
    }
    out
}

/// How much is packed at once.
#[derive(Clone, Copy)]
struct Blocking {
    /// Packed steps of the whole sum.
    units: usize,
    /// Of them, at once.
    steps: usize,
    /// Panels of columns.
    group: usize,
}

/// What a thread works on.
#[derive(Clone, Copy)]
struct Part<'a> {
    /// Packed rows, `[tile][step][lane]`: its own, and those after them.
    tiles: &'a [[f32; LANES]],
    /// Its first column in the whole.
    columns: usize,
}
