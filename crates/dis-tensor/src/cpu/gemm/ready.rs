//! Products by columns that lie packed already: rows are packed a few tiles at a time, into
//! second-level cache, and threads share the rows.

use std::ops::Range;

use super::target::Rect;
use super::tile::Block;
use super::{COLUMNS, Left, run_block};
use crate::simd::LANES;

/// Tiles of rows that are packed at once: beside packed columns, as many as a second-level cache
/// holds.
const TILES: usize = 8;

/// Packed columns of a product.
#[derive(Clone, Copy, Debug)]
pub(in crate::cpu) struct Columns<'a> {
    /// Whole panels, each `[step][vector]`, from the first step of the product on.
    pub panels: &'a [[f32; LANES]],
    /// How many.
    pub count: usize,
    /// Vectors from panel to panel.
    pub stride: usize,
    /// The columns after them, in the same order, with as many vectors as they need.
    pub rest: &'a [[f32; LANES]],
}

impl Left<'_> {
    /// Computes `c` with these columns.
    pub(super) fn times<const H: usize, const N: usize>(&self, columns: Columns<'_>, c: Rect<'_>) {
        let threads = self.threads(&c);
        let (_, steps) = self.steps();
        let tiles = c.rows().div_ceil(threads).div_ceil(H).min(TILES);
        let mut scratch = self.cpu.scratch::<f32>(threads * tiles * steps * LANES);
        let scratch = scratch.as_chunks_mut().0;
        if threads == 1 {
            self.rows::<H, N>(columns, 0, c, scratch);
        } else {
            let share = || self.share_rows::<H, N>(columns, 0, c, threads, scratch);
            self.cpu.install(share);
        }
    }

    /// Divides the rows, of which `c` has those from `first` on, among threads.
    fn share_rows<const H: usize, const N: usize>(
        &self,
        columns: Columns<'_>,
        first: usize,
        c: Rect<'_>,
        threads: usize,
        scratch: &mut [[f32; LANES]],
    ) {
        if threads <= 1 || c.rows() < 2 {
            return self.rows::<H, N>(columns, first, c, scratch);
        }
        let left = threads / 2;
        let (mine, others) = scratch.split_at_mut(left * (scratch.len() / threads));
        let at = (c.rows() * left).div_ceil(threads);
        let (here, there) = c.split_rows(at);
        rayon::join(
            || self.share_rows::<H, N>(columns, first, here, left, mine),
            || self.share_rows::<H, N>(columns, first + at, there, threads - left, others),
        );
    }

    /// Computes rows on this thread.
    fn rows<const H: usize, const N: usize>(
        &self,
        columns: Columns<'_>,
        first: usize,
        mut c: Rect<'_>,
        scratch: &mut [[f32; LANES]],
    ) {
        let (units, steps) = self.steps();
        let panels = c.columns().div_ceil(N * LANES);
        let group = (COLUMNS / (steps * N * LANES)).max(1);
        // Blocks of the same size, none with more tiles than there is scratch for.
        let (tiles, room) = (c.rows().div_ceil(H), scratch.len() / steps);
        let rows = tiles.div_ceil(tiles.div_ceil(room)) * H;
        for block in (0..c.rows()).step_by(rows) {
            let block = block..c.rows().min(block + rows);
            for from in (0..units).step_by(steps) {
                let steps = steps.min(units - from);
                let tiles = || block.clone().step_by(H);
                for (row, a) in tiles().zip(scratch.chunks_exact_mut(steps)) {
                    self.pack_tile(first + row, from, a);
                }
                for panel in (0..panels).step_by(group) {
                    let part = Panels {
                        columns,
                        range: panel..panels.min(panel + group),
                        from,
                    };
                    for (row, a) in tiles().zip(scratch.chunks_exact(steps)) {
                        let height = (block.end - row).min(H);
                        self.tile::<H, N>(a, part.clone(), row, height, &mut c);
                    }
                }
            }
        }
    }

    /// One tile times some panels.
    fn tile<const H: usize, const N: usize>(
        &self,
        a: &[[f32; LANES]],
        part: Panels<'_>,
        row: usize,
        height: usize,
        c: &mut Rect<'_>,
    ) {
        let Panels {
            columns,
            range,
            from,
        } = part;
        let (steps, base) = (a.len(), self.base(from));
        let whole = range.start..range.end.min(columns.count);
        if !whole.is_empty() {
            let start = whole.start * columns.stride + from * N;
            let len = (whole.len() - 1) * columns.stride + steps * N;
            let block = Block::<H, N> {
                a,
                b: &columns.panels[start..start + len],
                b_stride: columns.stride,
                base,
                c,
                row,
                height,
                first: whole.start * N * LANES,
                columns: whole.len() * N * LANES,
            };
            run_block(self.form, block);
        }
        if range.end > columns.count {
            let done = columns.count * N * LANES;
            let left = c.columns() - done;
            let vectors = left.div_ceil(LANES);
            let block = Block::<H, N> {
                a,
                b: &columns.rest[from * vectors..][..steps * vectors],
                b_stride: steps * vectors,
                base,
                c,
                row,
                height,
                first: done,
                columns: left,
            };
            run_block(self.form, block);
        }
    }

    /// Packs the rows of a tile over the steps from a packed one on, as many as there is room for.
    fn pack_tile(&self, row: usize, from: usize, out: &mut [[f32; LANES]]) {
        let each = self.form.steps();
        let sum = from * each..((from + out.len()) * each).min(self.k);
        // Rows beyond the tile fill lanes that nobody reads.
        let rows = self.a.lines().saturating_sub(row).min(LANES);
        self.a.pack(self.form, [row, rows], sum, out, 1);
    }
}

/// Some panels, counting that of the rest, from a packed step on.
#[derive(Clone)]
struct Panels<'a> {
    columns: Columns<'a>,
    range: Range<usize>,
    from: usize,
}
