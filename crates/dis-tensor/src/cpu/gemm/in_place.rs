//! Tiles whose rows are read where they lie, so that the left operand need not be packed; in bfloat16
//! they are converted, but not transposed.

use super::ready::Panels;
use super::target::Rect;
use super::tile::{Base, FETCH};
use super::{Form, Left};
use crate::simd::pairs::{PairKernel, Pairs, dispatch_pairs};
use crate::simd::rows::{Addend, InPlace, Tile};
use crate::simd::{LANES, Vector, prefetch, prefetch_second};

/// What is added where nothing is: as many as two vectors have.
const ZEROS: [f32; 2 * LANES] = [0.0; 2 * LANES];

/// Rows of a left operand, or of what it was converted to, for tiles of `H` of them and panels of `N`
/// vectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a, const H: usize, const N: usize> {
    kernel: InPlace,
    /// From the first element that is read.
    data: &'a [f32],
    stride: usize,
}

impl<'a> Left<'a> {
    /// The kernel, where tiles can read so many steps in place: rows contiguous along the sum, which
    /// together fit first-level cache. Pairs of bfloat16 are read from converted rows.
    pub(super) fn in_place<const H: usize, const N: usize>(&self, steps: usize) -> Option<InPlace> {
        let (_, stride) = self.a.contiguous()?;
        let (level, pairs) = match self.form {
            Form::Single(level) => (level, false),
            Form::Paired => (self.cpu.level(), true),
            Form::Rounded(_) => return None,
        };
        let kernel = InPlace::detect(level, pairs)?;
        // Half of a cache where a panel stays in it too.
        let ways = if N == 1 { 4 } else { 8 };
        let fits = pairs || share_a_cache(H, ways, stride, steps);
        (kernel.shape() == (H, N) && fits).then_some(kernel)
    }

    /// `count` rows from row `first` on, from packed step `from` on over so many; converted ones are in
    /// `scratch`, [`converted`] vectors each.
    pub(super) fn rows_in_place<'b, const H: usize, const N: usize>(
        &self,
        kernel: InPlace,
        first: usize,
        count: usize,
        from: usize,
        steps: usize,
        scratch: &'b mut [[f32; LANES]],
    ) -> Option<Rows<'b, H, N>>
    where
        'a: 'b,
    {
        let (data, stride) = self.a.contiguous()?;
        if count == 0 {
            return None;
        }
        if !kernel.pairs() {
            let data = &data[first * stride + from..];
            return Some(Rows {
                kernel,
                data,
                stride,
            });
        }
        let vectors = converted(steps);
        let out = &mut scratch[..count * vectors];
        let sum = 2 * from..(2 * (from + steps)).min(self.k);
        for (row, out) in (first..).zip(out.chunks_exact_mut(vectors)) {
            let row = &data[row * stride..][sum.clone()];
            dispatch_pairs(Convert { row, out });
        }
        Some(Rows {
            kernel,
            data: out.as_flattened(),
            stride: vectors * LANES,
        })
    }
}

/// Vectors of a row of so many pairs: an odd number, so that rows do not begin in the same sets of a
/// cache.
pub(super) fn converted(steps: usize) -> usize {
    steps.div_ceil(LANES) | 1
}

/// A row in pairs of neighbours, the last one with zero if there is no other.
struct Convert<'a> {
    row: &'a [f32],
    out: &'a mut [[f32; LANES]],
}

impl PairKernel for Convert<'_> {
    #[inline(always)]
    fn run<S: Pairs>(self, simd: S) {
        for (from, to) in self.row.chunks(2 * LANES).zip(self.out) {
            let (first, second) = from.split_at(from.len().min(LANES));
            let (first, second) = (simd.load_partial(first), simd.load_partial(second));
            simd.pair_neighbours(first, second).store(to);
        }
    }
}

/// Whether the elements of a tile's `rows`, `stride` apart, leave each set of a first-level cache (64 sets
/// of eight lines) something, taking so many lines at most: rows of 3072 numbers all begin in the same set.
fn share_a_cache(rows: usize, ways: usize, stride: usize, steps: usize) -> bool {
    const SETS: usize = 64;
    let mut lines = [0; SETS];
    for start in (0..rows).map(|row| row * stride) {
        for line in start / LANES..(start + steps).div_ceil(LANES) {
            lines[line % SETS] += 1;
        }
    }
    lines.iter().all(|&count| count <= ways)
}

impl<const H: usize, const N: usize> Rows<'_, H, N> {
    /// `H` rows from row `line` on, over so many steps, times some panels, to the rows of `c` from
    /// `row` on. If `fetch`, the next tile's elements are fetched into the second-level cache meanwhile.
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
        let a = &self.data[line * self.stride..];
        // Converted rows are in cache already.
        let fetch = fetch && !self.kernel.pairs();
        let panels = part.range.start..part.range.end.min(columns.count);
        let mut next = if fetch { 0..H } else { 0..0 };
        let share = H.div_ceil(panels.len().max(1));
        for panel in panels {
            for i in next.by_ref().take(share) {
                let start = (line + H + i) * self.stride;
                for step in (0..steps).step_by(LANES) {
                    prefetch_second(self.data, start + step);
                }
            }
            let b = panel * columns.stride + from * N;
            let b = columns.panels[b..b + steps * N].as_chunks::<N>().0;
            let first = panel * N * LANES;
            self.panel(a, b, base, row, first, N * LANES, c);
        }
        if part.range.end > columns.count {
            let first = columns.count * N * LANES;
            let width = c.columns() - first;
            let vectors = width.div_ceil(LANES);
            let b = &columns.rest[from * vectors..(from + steps) * vectors];
            match vectors {
                2 => self.panel(a, b.as_chunks::<2>().0, base, row, first, width, c),
                _ => self.panel(a, b.as_chunks::<1>().0, base, row, first, width, c),
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
        let zero = Addend::Row(&ZEROS);
        if width == V * LANES {
            let addend = match base {
                Base::Zero => zero,
                Base::Bias(bias) => Addend::Row(&bias[first..]),
                Base::Kept => Addend::Kept,
            };
            if b.len() >= FETCH {
                for row in c.tile::<H, V>(row, first) {
                    row.iter().for_each(|vector| prefetch(vector, 0));
                }
            }
            let tile = c.whole_tile::<H, V>(row, first);
            return self.kernel.times(a, self.stride, b, addend, false, tile);
        }
        // Beyond the columns: through memory of whole vectors.
        let mut sums = [[[0.0; LANES]; V]; H];
        let tile = Tile::of(&mut sums);
        let narrow = width <= LANES / 2;
        self.kernel.times(a, self.stride, b, zero, narrow, tile);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_meet_in_one_set_are_packed() {
        for (stride, steps, fits) in [
            (368, 368, true),
            (1472, 368, true),
            (3072, 512, false),
            (1024, 512, false),
            (23, 23, true),
        ] {
            assert_eq!(share_a_cache(14, 8, stride, steps), fits, "{stride}");
        }
    }
}
