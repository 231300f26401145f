//! Products by columns that lie packed: rows are packed a few tiles at a time, into second-level cache, and
//! threads share the rows.

use std::ops::Range;

use super::in_place::converted;
use super::pack::Groups;
use super::target::Rect;
use super::tile::{Block, packed_lanes};
use super::{Left, run_block};
use crate::simd::LANES;

/// Rows that pass by a group of panels before the next one, in tiles of this height. Low tiles are read
/// so seldom that they may lie beyond the second-level cache, so there are more of them, and columns come
/// from memory less often.
const fn most_tiles(height: usize) -> usize {
    if height < 8 { 44 } else { 8 }
}

/// Elements of packed columns at once, about half of a second-level cache.
const COLUMNS: usize = 96 * 1024;

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
    /// Which of the product's columns is the first of these.
    pub first: usize,
}

impl Columns<'_> {
    /// The first `at` panels of so many columns, and the others.
    fn split(self, at: usize, width: usize) -> (Self, Self) {
        let (head, tail) = self.panels.split_at(at * self.stride);
        let first = Self {
            panels: head,
            count: at,
            rest: &[],
            ..self
        };
        let others = Self {
            panels: tail,
            count: self.count - at,
            first: self.first + at * width,
            ..self
        };
        (first, others)
    }
}

impl Left<'_> {
    /// Computes `c` with these columns.
    pub(super) fn times<const H: usize, const N: usize>(&self, columns: Columns<'_>, c: Rect<'_>) {
        let threads = self.threads(&c);
        let (_, steps) = self.steps();
        let tiles = c.rows().div_ceil(H).min(most_tiles(H));
        // Packed tiles or converted rows, and a packed tile of what is left.
        let each = tiles * steps.max(H * converted(steps)) + steps;
        let mut scratch = self.cpu.scratch::<f32>(threads * each * LANES);
        let scratch = scratch.as_chunks_mut().0;
        if threads == 1 {
            self.rows::<H, N>(columns, 0, c, scratch);
        } else {
            let share = || self.share::<H, N>(columns, 0, c, threads, scratch);
            self.cpu.install(share);
        }
    }

    /// Divides the rows, of which `c` has those from `first` on, among threads; columns where there are
    /// so few rows that their tiles would not be full.
    fn share<const H: usize, const N: usize>(
        &self,
        columns: Columns<'_>,
        first: usize,
        c: Rect<'_>,
        threads: usize,
        scratch: &mut [[f32; LANES]],
    ) {
        let (rows, panels) = (c.rows(), columns.count);
        let by_columns = rows < 2 * H * threads && panels > 1;
        if threads <= 1 || (rows < 2 && !by_columns) {
            return self.rows::<H, N>(columns, first, c, scratch);
        }
        let left = threads / 2;
        let (mine, others) = scratch.split_at_mut(left * (scratch.len() / threads));
        let (here, there, second, one, two);
        if by_columns {
            let at = (panels * left).div_ceil(threads);
            (here, there) = c.split_columns(at * N * LANES);
            (one, two) = columns.split(at, N * LANES);
            second = first;
        } else {
            let at = (rows * left).div_ceil(threads);
            (here, there) = c.split_rows(at);
            (one, two) = (columns, columns);
            second = first + at;
        }
        rayon::join(
            || self.share::<H, N>(one, first, here, left, mine),
            || self.share::<H, N>(two, second, there, threads - left, others),
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
        let in_place = self.in_place::<H, N>(steps);
        let panels = c.columns().div_ceil(N * LANES);
        let group = (COLUMNS / (steps * N * LANES)).max(1);
        // Blocks of the same size.
        let tiles = c.rows().div_ceil(H);
        let rows = tiles.div_ceil(tiles.div_ceil(most_tiles(H))) * H;
        for start in (0..c.rows()).step_by(rows) {
            let block = start..c.rows().min(start + rows);
            for from in (0..units).step_by(steps) {
                let steps = steps.min(units - from);
                let tiles = || block.clone().step_by(H);
                // Whole tiles, if in place, come before those that are packed.
                let whole = in_place.map_or(0, |_| block.len() / H);
                let left = tiles().len() - whole;
                let (packed, converted) = scratch.split_at_mut(left * steps);
                let packed = &mut packed.as_flattened_mut()[..left * steps * packed_lanes(H)];
                self.pack_tiles::<H>(first + start + whole * H, from, packed, steps);
                let in_place = in_place.and_then(|kernel| {
                    let (first, count) = (first + start, whole * H);
                    self.rows_in_place::<H, N>(kernel, first, count, from, steps, converted)
                });
                for panel in (0..panels).step_by(group) {
                    let part = Panels {
                        columns,
                        range: panel..panels.min(panel + group),
                        from,
                    };
                    if let Some(rows) = in_place {
                        let base = self.base(from, columns.first);
                        for row in tiles().take(whole) {
                            // Each tile once, not long before its time; once for every group where
                            // there are too many for the second-level cache.
                            let fetch = match row + H < block.end {
                                true => part.range.start == 0 || most_tiles(H) > 8,
                                false => part.range.end == panels,
                            };
                            rows.tile(row - start, steps, &part, base, row, fetch, &mut c);
                        }
                    }
                    for (row, a) in tiles()
                        .skip(whole)
                        .zip(packed.chunks_exact(steps * packed_lanes(H)))
                    {
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
        a: &[f32],
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
        let (steps, base) = (a.len() / packed_lanes(H), self.base(from, columns.first));
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

    /// Packs tiles of rows from row `first` on, over so many packed steps from `from` on.
    fn pack_tiles<const H: usize>(&self, first: usize, from: usize, out: &mut [f32], steps: usize) {
        let each = self.form.steps();
        let sum = from * each..((from + steps) * each).min(self.k);
        // Rows beyond a tile fill lanes that nobody reads.
        let groups = Groups {
            first,
            height: H,
            count: out.len() / (steps * packed_lanes(H)),
            vectors: 1,
        };
        const HALF: usize = LANES / 2;
        if packed_lanes(H) == HALF {
            let out = out.as_chunks_mut::<HALF>().0;
            self.a.pack(self.form, groups, sum, out);
        } else {
            let out = out.as_chunks_mut::<LANES>().0;
            self.a.pack(self.form, groups, sum, out);
        }
    }
}

/// Some panels, counting that of the rest, from a packed step on.
#[derive(Clone)]
pub(super) struct Panels<'a> {
    pub columns: Columns<'a>,
    pub range: Range<usize>,
    pub from: usize,
}
