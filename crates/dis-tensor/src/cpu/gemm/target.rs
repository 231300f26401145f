//! The result of a product, divided among threads.

use std::marker::PhantomData;

use crate::simd::LANES;
use crate::simd::rows::Tile;

/// A part of a row-major matrix that nobody else touches: some rows of some columns.
#[derive(Debug)]
pub(super) struct Rect<'a> {
    start: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    memory: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Rect` is the only way to its elements, as a `&mut [f32]` is, which is `Send`.
unsafe impl Send for Rect<'_> {}

impl<'a> Rect<'a> {
    /// The matrix whose first row begins `buf`, with `stride` elements from row to row.
    ///
    /// # Panics
    /// If rows overlap or `buf` is too short.
    pub fn new(buf: &'a mut [f32], stride: usize, rows: usize, columns: usize) -> Self {
        assert!(rows <= 1 || stride >= columns, "rows overlap");
        let needed = match rows {
            0 => 0,
            _ => (rows - 1) * stride + columns,
        };
        assert!(buf.len() >= needed, "a matrix beyond its memory");
        Self {
            start: buf.as_mut_ptr(),
            stride,
            rows,
            columns,
            memory: PhantomData,
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The first `at` rows, and the others.
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let at = at.min(self.rows);
        let start = self.start.wrapping_add(at * self.stride);
        let tail = Self {
            start,
            rows: self.rows - at,
            ..self
        };
        (Self { rows: at, ..self }, tail)
    }

    /// The first `at` columns, and the others.
    pub fn split_columns(self, at: usize) -> (Self, Self) {
        let at = at.min(self.columns);
        let tail = Self {
            start: self.start.wrapping_add(at),
            columns: self.columns - at,
            ..self
        };
        (
            Self {
                columns: at,
                ..self
            },
            tail,
        )
    }

    /// `len` elements of row `row` from column `first`.
    #[inline(always)]
    pub fn row(&mut self, row: usize, first: usize, len: usize) -> &mut [f32] {
        assert!(row < self.rows && first + len <= self.columns);
        let start = self.start.wrapping_add(row * self.stride + first);
        // SAFETY: the elements lie in the memory that `new` checked and borrowed for 'a: row and
        // columns are within this part (asserted), which lies within the whole. Parts made by
        // splitting share no element, and `&mut self` excludes another slice of this one.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

impl Rect<'_> {
    /// A vector of each of `R` rows from row `row` on, from column `first` on.
    #[inline(always)]
    pub fn tile<const R: usize, const V: usize>(
        &mut self,
        row: usize,
        first: usize,
    ) -> [&mut [[f32; LANES]; V]; R] {
        assert!(row + R <= self.rows && first + V * LANES <= self.columns);
        let start = self.start.wrapping_add(row * self.stride + first);
        std::array::from_fn(|i| {
            let start = start.wrapping_add(i * self.stride).cast();
            // SAFETY: as in `row`, for row `row + i` and `V * LANES` elements (asserted), which an
            // array of arrays is without padding or further alignment. Rows do not overlap (asserted by `new`), so the
            // references of one call share no element.
            unsafe { &mut *start }
        })
    }
}

impl Rect<'_> {
    /// [`Rect::tile`] for a kernel that writes all of it.
    pub fn whole_tile<const H: usize, const V: usize>(
        &mut self,
        row: usize,
        first: usize,
    ) -> Tile<'_, H, V> {
        assert!(row + H <= self.rows && first + V * LANES <= self.columns);
        let start = self.start.wrapping_add(row * self.stride + first);
        // SAFETY: as in `row`, for `V * LANES` elements of each of these rows (asserted), which are
        // borrowed as long as the tile.
        unsafe { Tile::new(start, self.stride) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_matrix_once() {
        let (rows, columns, stride) = (5, 7, 9);
        let mut buf = vec![0.0; (rows - 1) * stride + columns];
        let (top, bottom) = Rect::new(&mut buf, stride, rows, columns).split_rows(2);
        let (a, b) = top.split_columns(3);
        let (c, d) = bottom.split_columns(7);
        assert_eq!((d.rows(), d.columns()), (3, 0));
        for mut part in [a, b, c] {
            for row in 0..part.rows() {
                let columns = part.columns();
                for x in part.row(row, 0, columns) {
                    *x += 1.0;
                }
            }
        }
        for (i, x) in buf.iter().enumerate() {
            let inside = i % stride < columns;
            assert_eq!(*x, if inside { 1.0 } else { 0.0 }, "{i}");
        }
    }

    #[test]
    #[should_panic(expected = "beyond its memory")]
    fn a_matrix_must_fit_its_memory() {
        let _ = Rect::new(&mut [0.0; 10], 4, 3, 3);
    }
}
