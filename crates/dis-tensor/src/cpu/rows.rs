//! Token matrices as rows of float32 slices.

use super::threads::Split;
use crate::layout::{Layout, Tokens, TokensMut};

/// Index of the first element of row `r`, counted over samples and tokens.
#[inline]
fn start(layout: &Layout, matrix: bool, r: usize) -> usize {
    // The division is worth avoiding: rows can be as short as one element.
    if matrix {
        layout.offset + r * layout.row_stride
    } else {
        layout.row(r / layout.tokens, r % layout.tokens)
    }
}

/// The row stride in a form where `is_matrix` means that row r starts at `offset + r * stride`.
#[inline]
fn normalised(mut layout: Layout) -> (Layout, bool) {
    if layout.tokens == 1 && layout.batch > 1 {
        // One token per sample: the samples are the rows, at any distance.
        layout.row_stride = layout.batch_stride;
        return (layout, true);
    }
    (layout, layout.is_matrix())
}

/// Rows to read.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [f32],
    layout: Layout,
    matrix: bool,
    dense: bool,
}

impl<'a> Rows<'a> {
    /// The rows of a view that has been checked.
    #[inline]
    pub fn new(x: Tokens<'a, [f32]>) -> Self {
        let dense = x.layout.is_dense();
        let (layout, matrix) = normalised(x.layout);
        Self {
            data: x.buf,
            layout,
            matrix,
            dense,
        }
    }

    /// Batch times tokens.
    #[inline]
    pub fn count(&self) -> usize {
        self.layout.rows()
    }

    /// Elements of a row.
    #[inline]
    pub fn channels(&self) -> usize {
        self.layout.channels
    }

    /// Tokens of a sample.
    #[inline]
    pub fn tokens(&self) -> usize {
        self.layout.tokens
    }

    /// Row `r`, counted over samples and tokens.
    #[inline]
    pub fn row(&self, r: usize) -> &'a [f32] {
        // An empty view may lie anywhere.
        if self.layout.channels == 0 {
            return &[];
        }
        let start = start(&self.layout, self.matrix, r);
        &self.data[start..start + self.layout.channels]
    }

    /// All elements, if they are contiguous.
    #[inline]
    pub fn flat(&self) -> Option<&'a [f32]> {
        let n = self.layout.elements();
        self.dense.then(|| {
            if n == 0 {
                &[]
            } else {
                &self.data[self.layout.offset..][..n]
            }
        })
    }
}

/// Rows to write; a [`Split`] unit is a row.
#[derive(Debug)]
pub struct RowsMut<'a> {
    data: &'a mut [f32],
    /// Index in the buffer of the first element of `data`.
    base: usize,
    /// The row that `data` begins with.
    first: usize,
    layout: Layout,
    matrix: bool,
    dense: bool,
}

impl<'a> RowsMut<'a> {
    /// The rows of a view that has been checked.
    #[inline]
    pub fn new(x: TokensMut<'a, [f32]>) -> Self {
        let dense = x.layout.is_dense();
        let (layout, matrix) = normalised(x.layout);
        Self {
            data: x.buf,
            base: 0,
            first: 0,
            layout,
            matrix,
            dense,
        }
    }

    /// Batch times tokens of the whole, before any split.
    #[inline]
    pub fn count(&self) -> usize {
        self.layout.rows()
    }

    /// Elements of a row.
    #[inline]
    pub fn channels(&self) -> usize {
        self.layout.channels
    }

    /// Row `r`, counted over samples and tokens of the whole; it must belong to this part.
    #[inline]
    pub fn row(&mut self, r: usize) -> &mut [f32] {
        if self.layout.channels == 0 {
            return &mut [];
        }
        let start = start(&self.layout, self.matrix, r) - self.base;
        &mut self.data[start..start + self.layout.channels]
    }

    /// All elements of an undivided view if they are contiguous, or the view itself.
    #[inline]
    pub fn into_flat(self) -> Result<&'a mut [f32], Self> {
        let n = self.layout.elements();
        if self.dense {
            let offset = if n == 0 { 0 } else { self.layout.offset };
            Ok(&mut self.data[offset..][..n])
        } else {
            Err(self)
        }
    }
}

impl Split for RowsMut<'_> {
    /// Rows ascend in memory (checked views do not overlap), so one cut separates them.
    fn split(self, at: usize) -> (Self, Self) {
        let Self {
            data,
            base,
            first,
            layout,
            matrix,
            dense,
        } = self;
        let second = first + at;
        let cut = if second < layout.rows() {
            (start(&layout, matrix, second) - base).min(data.len())
        } else {
            data.len()
        };
        let (head, tail) = data.split_at_mut(cut);
        let part = |data, base, first| RowsMut {
            data,
            base,
            first,
            layout,
            matrix,
            dense,
        };
        (part(head, base, first), part(tail, base + cut, second))
    }
}
