//! Sixteen columns that are each contiguous, to rows and back: a matrix in the other order.

use crate::{Kernel, LANES, Level, Simd, Vector, dispatch};

/// Copies sixteen columns to rows that are `width` apart: element t of column c to `rows[t * width + c]`.
///
/// # Panics
/// If columns differ in length or `rows` is too short for them.
pub fn columns_to_rows(level: Level, columns: [&[f32]; LANES], rows: &mut [f32], width: usize) {
    dispatch(
        level,
        ToRows {
            columns,
            rows,
            width,
        },
    );
}

/// Copies sixteen numbers of rows that are `width` apart to columns: `rows[t * width + c]` to element t of
/// column c.
///
/// # Panics
/// As [`columns_to_rows`].
pub fn rows_to_columns(level: Level, rows: &[f32], width: usize, columns: [&mut [f32]; LANES]) {
    dispatch(
        level,
        ToColumns {
            rows,
            width,
            columns,
        },
    );
}

struct ToRows<'a> {
    columns: [&'a [f32]; LANES],
    rows: &'a mut [f32],
    width: usize,
}

impl Kernel for ToRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            columns,
            rows,
            width,
        } = self;
        let tokens = columns[0].len();
        let whole = tokens / LANES * LANES;
        let chunks = columns.map(|column| {
            assert_eq!(column.len(), tokens, "columns of different lengths");
            column.as_chunks::<LANES>().0
        });
        for block in 0..whole / LANES {
            let values = chunks.map(|column| simd.load(&column[block]));
            let rows = &mut rows[block * LANES * width..];
            for (t, values) in S::V::transpose(values, simd).into_iter().enumerate() {
                if let Some(row) = rows[t * width..].first_chunk_mut() {
                    values.store(row);
                }
            }
        }
        for t in whole..tokens {
            for (to, column) in rows[t * width..][..LANES].iter_mut().zip(&columns) {
                *to = column[t];
            }
        }
    }
}

struct ToColumns<'a> {
    rows: &'a [f32],
    width: usize,
    columns: [&'a mut [f32]; LANES],
}

impl Kernel for ToColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            rows,
            width,
            mut columns,
        } = self;
        let tokens = columns[0].len();
        let whole = tokens / LANES * LANES;
        for column in &columns {
            assert_eq!(column.len(), tokens, "columns of different lengths");
        }
        for first in (0..whole).step_by(LANES) {
            let mut values = [simd.splat(0.0); LANES];
            for (t, values) in values.iter_mut().enumerate() {
                if let Some(row) = rows[(first + t) * width..].first_chunk() {
                    *values = simd.load(row);
                }
            }
            for (values, column) in S::V::transpose(values, simd).into_iter().zip(&mut columns) {
                if let Some(to) = column[first..].first_chunk_mut() {
                    values.store(to);
                }
            }
        }
        for t in whole..tokens {
            for (column, &x) in columns.iter_mut().zip(&rows[t * width..][..LANES]) {
                column[t] = x;
            }
        }
    }
}
