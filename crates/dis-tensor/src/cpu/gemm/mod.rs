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

use self::pack::Operand;
use self::target::Rect;
use self::tile::{Base, Block};
use super::Cpu;
use super::threads::Pieces;
use crate::check::GemmSize;
use crate::layout::{Tokens, TokensMut};
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
    let product = Product {
        cpu,
        k,
        a: Operand::left(a, transpose_a),
        b: Operand::right(b, transpose_b),
        base,
    };
    // Tiles that fill the registers: thirty-two of 512 bits, or sixteen of half as many.
    match cpu.level() {
        Level::Avx512 | Level::Neon => product.run::<14, 2>(c),
        Level::Avx2 | Level::Portable => product.run::<6, 1>(c),
    }
}

struct Product<'a> {
    cpu: &'a Cpu,
    k: usize,
    a: Operand<'a>,
    b: Operand<'a>,
    base: Base<'a>,
}

impl Product<'_> {
    fn run<const H: usize, const N: usize>(&self, c: Rect<'_>) {
        let (m, n, k) = (c.rows(), c.columns(), self.k);
        let work = m.saturating_mul(n).saturating_mul(k);
        let mut packed = self.cpu.scratch::<f32>(m.div_ceil(H) * k * LANES);
        let tiles = Pieces {
            data: packed.as_chunks_mut::<LANES>().0,
            width: k,
            units: 1,
        };
        let level = self.cpu.level();
        self.cpu.blocks(
            m.div_ceil(H),
            4,
            m.saturating_mul(k),
            tiles,
            |range, tiles| {
                for (tile, out) in range.zip(tiles.data.chunks_exact_mut(k)) {
                    let rows = (m - tile * H).min(H);
                    self.a.pack(level, [tile * H, rows], 0, out, 1);
                }
            },
        );
        let tiles = packed.as_chunks::<LANES>().0;
        let threads = if work < INLINE { 1 } else { self.cpu.threads() };
        let part = Part { tiles, columns: 0 };
        if threads == 1 {
            self.part::<H, N>(part, c);
        } else {
            self.cpu.install(|| self.share::<H, N>(part, c, threads));
        }
    }

    /// Divides a part among threads: halves of its columns while there are panels, else of its
    /// rows.
    fn share<const H: usize, const N: usize>(&self, part: Part<'_>, c: Rect<'_>, threads: usize) {
        let panels = c.columns().div_ceil(N * LANES);
        let tiles = c.rows().div_ceil(H);
        if threads <= 1 || panels.max(tiles) < 2 {
            return self.part::<H, N>(part, c);
        }
        let left = threads / 2;
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
                || self.share::<H, N>(part, here, left),
                || self.share::<H, N>(part.at_columns(columns), there, threads - left),
            );
        } else {
            let at = share(tiles).max(1);
            let (here, there) = c.split_rows(at * H);
            let (top, bottom) = part.tiles.split_at(at * self.k);
            rayon::join(
                || self.share::<H, N>(part.of_tiles(top), here, left),
                || self.share::<H, N>(part.of_tiles(bottom), there, threads - left),
            );
        }
    }

    /// Computes a part on this thread.
    fn part<const H: usize, const N: usize>(&self, part: Part<'_>, mut c: Rect<'_>) {
        let panels = c.columns().div_ceil(N * LANES);
        let steps = self.k.div_ceil(self.k.div_ceil(STEPS).max(1)).max(1);
        let group = (COLUMNS / (steps * N * LANES)).clamp(1, panels.max(1));
        let mut scratch = self.cpu.scratch::<f32>(group * steps * N * LANES);
        let mut panel = 0;
        while panel < panels {
            let count = group.min(panels - panel);
            let first = panel * N * LANES;
            let columns = (count * N * LANES).min(c.columns() - first);
            let mut from = 0;
            loop {
                let steps = steps.min(self.k - from);
                let packed = &mut scratch[..count * steps * N * LANES];
                self.pack::<N>(part.columns + first, columns, from..from + steps, packed);
                let base = match self.base {
                    _ if from > 0 => Base::Kept,
                    Base::Bias(bias) => Base::Bias(&bias[part.columns..]),
                    base => base,
                };
                dispatch(
                    self.cpu.level(),
                    Block::<H, N> {
                        a: &part.tiles[from..],
                        a_stride: self.k,
                        b: as_panels(packed),
                        steps,
                        base,
                        c: &mut c,
                        first,
                        columns,
                    },
                );
                from += steps;
                if from >= self.k {
                    break;
                }
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
        let level = self.cpu.level();
        for (i, out) in out.chunks_exact_mut(steps.len() * width).enumerate() {
            let out = out.as_chunks_mut::<LANES>().0;
            for vector in 0..N {
                let done = (i * N + vector) * LANES;
                let lines = [first + done, columns.saturating_sub(done)];
                self.b
                    .pack(level, lines, steps.start, &mut out[vector..], N);
            }
        }
    }
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

/// Packed columns as `[step][vector][lane]`.
fn as_panels<const N: usize>(packed: &[f32]) -> &[[[f32; LANES]; N]] {
    packed.as_chunks::<LANES>().0.as_chunks::<N>().0
}
