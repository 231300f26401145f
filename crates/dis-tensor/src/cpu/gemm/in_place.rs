//! Tiles whose rows are read where they lie, so that the left operand need not be packed.

use super::ready::Panels;
use super::target::Rect;
use super::tile::{Base, FETCH};
use super::{Form, Left};
use crate::simd::rows::{Addend, InPlace, ROWS, Tile};
use crate::simd::{LANES, Level, prefetch, prefetch_second};

/// Vectors of a panel.
const VECTORS: usize = 2;

/// Rows of a left operand that are read where they lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    kernel: InPlace,
    data: &'a [f32],
    stride: usize,
}

impl<'a> Left<'a> {
    /// The rows, where tiles of `height` can read so many steps of them in place: contiguous along the
    /// sum, in float32, on a processor that has the kernel, and together in first-level cache.
    pub(super) fn in_place(&self, height: usize, steps: usize) -> Option<Rows<'a>> {
        let (data, stride) = self.a.contiguous()?;
        let fits = height == ROWS
            && self.form == Form::Single(Level::Avx512)
            && share_a_cache(stride, steps);
        let kernel = if fits { InPlace::detect() } else { None }?;
        Some(Rows {
            kernel,
            data,
            stride,
        })
    }
}

/// Whether the elements of a tile's rows, `stride` apart, leave each set of a first-level cache (64 sets
/// of eight lines) something: rows of 3072 numbers all begin in the same set.
fn share_a_cache(stride: usize, steps: usize) -> bool {
    const SETS: usize = 64;
    let mut lines = [0; SETS];
    for start in (0..ROWS).map(|row| row * stride) {
        for line in start / LANES..(start + steps).div_ceil(LANES) {
            lines[line % SETS] += 1;
        }
    }
    lines.iter().all(|&count| count <= 8)
}

impl Rows<'_> {
    /// [`ROWS`] rows from row `line` of the operand on, over so many steps, times some panels, to the
    /// rows of `c` from `row` on. If `fetch`, the next tile's elements are fetched into the second-level
    /// cache meanwhile.
    pub(super) fn tile(
        self,
        line: usize,
        steps: usize,
        part: &Panels<'_>,
        base: Base<'_>,
        row: usize,
        fetch: bool,
        c: &mut Rect<'_>,
    ) {
        let (columns, from) = (part.columns, part.from);
        let a = &self.data[line * self.stride + from..];
        let panels = part.range.start..part.range.end.min(columns.count);
        let mut next = if fetch { 0..ROWS } else { 0..0 };
        let share = ROWS.div_ceil(panels.len().max(1));
        for panel in panels {
            for i in next.by_ref().take(share) {
                let start = (line + ROWS + i) * self.stride + from;
                for step in (0..steps).step_by(LANES) {
                    prefetch_second(self.data, start + step);
                }
            }
            let b = panel * columns.stride + from * VECTORS;
            let b = columns.panels[b..b + steps * VECTORS]
                .as_chunks::<VECTORS>()
                .0;
            let first = panel * VECTORS * LANES;
            self.panel(a, b, base, row, first, VECTORS * LANES, c);
        }
        if part.range.end > columns.count {
            let first = columns.count * VECTORS * LANES;
            let width = c.columns() - first;
            if width > LANES {
                let b = columns.rest[from * 2..(from + steps) * 2]
                    .as_chunks::<2>()
                    .0;
                self.panel(a, b, base, row, first, width, c);
            } else {
                let b = columns.rest[from..from + steps].as_chunks::<1>().0;
                self.panel(a, b, base, row, first, width, c);
            }
        }
    }

    /// One panel of up to `V` vectors, `width` columns from column `first` on.
    fn panel<const V: usize>(
        self,
        a: &[f32],
        b: &[[[f32; LANES]; V]],
        base: Base<'_>,
        row: usize,
        first: usize,
        width: usize,
        c: &mut Rect<'_>,
    ) {
        let zero = Addend::Row(&[0.0; VECTORS * LANES]);
        if width == V * LANES {
            let addend = match base {
                Base::Zero => zero,
                Base::Bias(bias) => Addend::Row(&bias[first..]),
                Base::Kept => Addend::Kept,
            };
            if b.len() >= FETCH {
                for row in c.tile::<ROWS, V>(row, first) {
                    row.iter().for_each(|vector| prefetch(vector, 0));
                }
            }
            let tile = c.whole_tile::<V>(row, first);
            return self.kernel.times(a, self.stride, b, addend, tile);
        }
        // Beyond the columns: through memory of whole vectors.
        let mut sums = [[[0.0; LANES]; V]; ROWS];
        let tile = Tile::of(&mut sums);
        self.kernel.times(a, self.stride, b, zero, tile);
        for (i, sums) in sums.iter().enumerate() {
            let out = c.row(row + i, first, width).iter_mut();
            let sums = sums.as_flattened();
            match base {
                Base::Zero => out.zip(sums).for_each(|(out, sum)| *out = *sum),
                Base::Bias(bias) => {
                    let bias = &bias[first..first + width];
                    out.zip(sums)
                        .zip(bias)
                        .for_each(|((out, sum), bias)| *out = sum + bias);
                }
                Base::Kept => out.zip(sums).for_each(|(out, sum)| *out += sum),
            }
        }
    }
}
