//! Matrix products, by packed blocks (Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication", 2008): both operands are copied into the order that the kernel reads, tiles of
//! the result are summed in registers.
//!
//! Own code rather than a library for one property: bits that depend on neither threads nor the
//! number of rows, so that a sample has the same alone and in any batch.

mod pack;
mod target;
mod tile;

use std::ops::Range;

use self::pack::{Form, Operand};
use self::target::Rect;
use self::tile::{Base, Block};
use super::threads::Pieces;
use super::{Cpu, Precision};
use crate::check::GemmSize;
use crate::layout::{Tokens, TokensMut};
use crate::simd::pairs::{dispatch_pairs, has_pairs};
use crate::simd::{LANES, Level, dispatch};

/// Multiply-adds below which a product runs on the calling thread.
const INLINE: usize = 48 * 48 * 256;
/// Most steps of the sum at once: a panel of so many fits the second-level cache many times over,
/// and shorter sums round less.
const STEPS: usize = 512;
/// Elements of packed columns at once, about half of a second-level cache.
const COLUMNS: usize = 96 * 1024;

/// `c = op(a) op(b) + bias` or `c += op(a) op(b)`; the arguments have been checked.
pub(super) fn gemm(
    cpu: &Cpu,
    size: GemmSize,
    a: Tokens<'_, [f32]>,
    transpose_a: bool,
    b: Tokens<'_, [f32]>,
    transpose_b: bool,
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
    let level = cpu.level();
    let form = match cpu.precision() {
        Precision::Float32 => Form::Single(level),
        Precision::Bfloat16 if level == Level::Avx512 && has_pairs() => Form::Paired,
        Precision::Bfloat16 => Form::Rounded(level),
    };
    let product = Product {
        cpu,
        form,
        k,
        units: form.units(k),
        a: Operand::left(a, transpose_a),
        b: Operand::right(b, transpose_b),
        base,
    };
    // Tiles that fill the registers: thirty-two of 512 bits, or sixteen of half as many.
    match level {
        Level::Avx512 | Level::Neon => product.run::<14, 2>(c),
        Level::Avx2 | Level::Portable => product.run::<6, 1>(c),
    }
}

struct Product<'a> {
    cpu: &'a Cpu,
    form: Form,
    k: usize,
    /// Packed steps of the sum.
    units: usize,
    a: Operand<'a>,
    b: Operand<'a>,
    base: Base<'a>,
}

impl Product<'_> {
    fn run<const H: usize, const N: usize>(&self, c: Rect<'_>) {
        let (m, n, units) = (c.rows(), c.columns(), self.units);
        let work = m.saturating_mul(n).saturating_mul(self.k);
        let mut packed = self.cpu.scratch::<f32>(m.div_ceil(H) * units * LANES);
        let tiles = Pieces {
            data: packed.as_chunks_mut::<LANES>().0,
            width: units,
            units: 1,
        };
        let work_of_packing = m.saturating_mul(self.k);
        self.cpu
            .blocks(m.div_ceil(H), 4, work_of_packing, tiles, |range, tiles| {
                for (tile, out) in range.zip(tiles.data.chunks_exact_mut(units)) {
                    // Rows beyond the tile fill lanes that nobody reads.
                    let rows = (m - tile * H).min(LANES);
                    self.a.pack(self.form, [tile * H, rows], 0..self.k, out, 1);
                }
            });
        let tiles = packed.as_chunks::<LANES>().0;
        let threads = if work < INLINE { 1 } else { self.cpu.threads() };
        let part = Part { tiles, columns: 0 };
        // Room for the packed columns of every thread, so that what is taken from the pool does not
        // depend on which of them run at the same time.
        let steps = units.div_ceil(units.div_ceil(STEPS));
        let group = (COLUMNS / (steps * N * LANES)).clamp(1, n.div_ceil(N * LANES));
        let blocking = Blocking { steps, group };
        let room = group * steps * N * LANES;
        let mut scratch = self.cpu.scratch::<f32>(threads * room);
        let scratch = scratch.as_mut_slice();
        if threads == 1 {
            self.part::<H, N>(part, blocking, c, scratch);
        } else {
            let share = || self.share::<H, N>(part, blocking, c, threads, scratch);
            self.cpu.install(share);
        }
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
        if panels > 1 && (tiles < 2 || waste(panels) < waste(tiles) + 0.02) {
            let at = share(panels).max(1) * N * LANES;
            let (here, there) = c.split_columns(at);
            let columns = part.columns + at;
            rayon::join(
                || self.share::<H, N>(part, blocking, here, left, mine),
                || {
                    self.share::<H, N>(
                        part.at_columns(columns),
                        blocking,
                        there,
                        threads - left,
                        others,
                    )
                },
            );
        } else {
            let at = share(tiles).max(1);
            let (here, there) = c.split_rows(at * H);
            let (top, bottom) = part.tiles.split_at(at * self.units);
            rayon::join(
                || self.share::<H, N>(part.of_tiles(top), blocking, here, left, mine),
                || {
                    self.share::<H, N>(
                        part.of_tiles(bottom),
                        blocking,
                        there,
                        threads - left,
                        others,
                    )
                },
            );
        }
    }

    /// Computes a part on this thread.
    fn part<const H: usize, const N: usize>(
        &self,
        part: Part<'_>,
        Blocking { steps, group }: Blocking,
        mut c: Rect<'_>,
        scratch: &mut [f32],
    ) {
        let panels = c.columns().div_ceil(N * LANES);
        let mut panel = 0;
        while panel < panels {
            let count = group.min(panels - panel);
            let first = panel * N * LANES;
            let columns = (count * N * LANES).min(c.columns() - first);
            let mut from = 0;
            while from < self.units {
                let steps = steps.min(self.units - from);
                let packed = &mut scratch[..count * steps * N * LANES];
                self.pack::<N>(part.columns + first, columns, from..from + steps, packed);
                let base = match self.base {
                    _ if from > 0 => Base::Kept,
                    Base::Bias(bias) => Base::Bias(&bias[part.columns..]),
                    base => base,
                };
                let block = Block::<H, N> {
                    a: &part.tiles[from..],
                    a_stride: self.units,
                    b: packed.as_chunks::<LANES>().0.as_chunks::<N>().0,
                    steps,
                    base,
                    c: &mut c,
                    first,
                    columns,
                };
                match self.form {
                    Form::Single(level) | Form::Rounded(level) => dispatch(level, block),
                    Form::Paired => {
                        dispatch_pairs(block);
                    }
                }
                from += steps;
            }
            panel += count;
        }
    }

    /// Packs `columns` from `first` in panels of `N` vectors.
    fn pack<const N: usize>(
        &self,
        first: usize,
        columns: usize,
        steps: Range<usize>,
        out: &mut [f32],
    ) {
        let width = N * LANES;
        let each = self.form.steps();
        let sum = steps.start * each..(steps.end * each).min(self.k);
        for (i, out) in out.chunks_exact_mut(steps.len() * width).enumerate() {
            let out = out.as_chunks_mut::<LANES>().0;
            for vector in 0..N {
                let done = (i * N + vector) * LANES;
                let lines = [first + done, columns.saturating_sub(done)];
                let out = &mut out[vector..];
                self.b.pack(self.form, lines, sum.clone(), out, N);
            }
        }
    }
}

/// How much is packed at once.
#[derive(Clone, Copy)]
struct Blocking {
    /// Packed steps of the sum. They depend on the length of the sum alone, so sums are cut at the
    /// same places by everybody.
    steps: usize,
    /// Panels of columns.
    group: usize,
}

/// What a thread works on.
#[derive(Clone, Copy)]
struct Part<'a> {
    /// Packed rows, `[tile][step][lane]`.
    tiles: &'a [[f32; LANES]],
    /// Its first column in the whole.
    columns: usize,
}

impl<'a> Part<'a> {
    fn at_columns(self, columns: usize) -> Self {
        let Self { tiles, .. } = self;
        Self { tiles, columns }
    }

    fn of_tiles(self, tiles: &'a [[f32; LANES]]) -> Self {
        let Self { columns, .. } = self;
        Self { tiles, columns }
    }
}
