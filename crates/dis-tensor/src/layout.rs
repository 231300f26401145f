//! The one data layout: a token matrix, batch x tokens x channels, channels contiguous.

use crate::error::{Result, TensorError};

/// Where a token matrix lies in its buffer. Element (b, t, c) is at
/// `offset + b * batch_stride + t * row_stride + c`.
///
/// A plain matrix is a layout with `batch == 1`; a vector one with `batch == tokens == 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Index of the first element.
    pub offset: usize,
    /// Samples.
    pub batch: usize,
    /// Tokens (rows) of each sample.
    pub tokens: usize,
    /// Channels (contiguous columns) of each token.
    pub channels: usize,
    /// Distance between consecutive tokens of a sample.
    pub row_stride: usize,
    /// Distance between consecutive samples.
    pub batch_stride: usize,
}

impl Layout {
    /// A dense token matrix at the start of its buffer.
    pub const fn dense(batch: usize, tokens: usize, channels: usize) -> Self {
        Self {
            offset: 0,
            batch,
            tokens,
            channels,
            row_stride: channels,
            batch_stride: tokens * channels,
        }
    }

    /// A dense matrix of `rows` x `cols`.
    pub const fn matrix(rows: usize, cols: usize) -> Self {
        Self::dense(1, rows, cols)
    }

    /// A vector of `len` elements.
    pub const fn vector(len: usize) -> Self {
        Self::dense(1, 1, len)
    }

    /// A token matrix whose rows are `row_stride` apart and whose samples follow one another.
    pub const fn padded(batch: usize, tokens: usize, channels: usize, row_stride: usize) -> Self {
        Self {
            offset: 0,
            batch,
            tokens,
            channels,
            row_stride,
            batch_stride: tokens * row_stride,
        }
    }

    /// The same layout moved by `offset` elements.
    pub const fn at(mut self, offset: usize) -> Self {
        self.offset += offset;
        self
    }

    /// Columns `start .. start + count` of every token.
    ///
    /// # Panics
    /// If the columns do not exist: that is a mistake in the calling code, never in its input.
    pub const fn columns(mut self, start: usize, count: usize) -> Self {
        assert!(
            start + count <= self.channels,
            "columns outside the token matrix"
        );
        self.offset += start;
        self.channels = count;
        self
    }

    /// Tokens `start .. start + count` of every sample.
    ///
    /// # Panics
    /// If the tokens do not exist: that is a mistake in the calling code, never in its input.
    pub const fn token_range(mut self, start: usize, count: usize) -> Self {
        assert!(
            start + count <= self.tokens,
            "tokens outside the token matrix"
        );
        self.offset += start * self.row_stride;
        self.tokens = count;
        self
    }

    /// Samples `start .. start + count`.
    ///
    /// # Panics
    /// If the samples do not exist: that is a mistake in the calling code, never in its input.
    pub const fn sample_range(mut self, start: usize, count: usize) -> Self {
        assert!(
            start + count <= self.batch,
            "samples outside the token matrix"
        );
        self.offset += start * self.batch_stride;
        self.batch = count;
        self
    }

    /// (batch, tokens, channels).
    pub const fn shape(&self) -> [usize; 3] {
        [self.batch, self.tokens, self.channels]
    }

    /// batch * tokens.
    pub const fn rows(&self) -> usize {
        self.batch * self.tokens
    }

    /// batch * tokens * channels.
    pub const fn elements(&self) -> usize {
        self.batch * self.tokens * self.channels
    }

    /// Whether all rows of all samples lie at one stride, so that the whole is one matrix.
    pub const fn is_matrix(&self) -> bool {
        self.batch <= 1 || self.batch_stride == self.tokens * self.row_stride
    }

    /// Whether the elements are contiguous.
    pub const fn is_dense(&self) -> bool {
        self.is_matrix() && (self.rows() <= 1 || self.row_stride == self.channels)
    }

    /// Index of the first element of token `t` of sample `b`.
    pub const fn row(&self, b: usize, t: usize) -> usize {
        self.offset + b * self.batch_stride + t * self.row_stride
    }

    /// One past the last element, counted from the start of the buffer; 0 when empty.
    pub const fn end(&self) -> usize {
        if self.elements() == 0 {
            0
        } else {
            self.row(self.batch - 1, self.tokens - 1) + self.channels
        }
    }

    /// Checks that the view lies inside a buffer of `len` elements and that its rows do not
    /// overlap.
    ///
    /// # Errors
    /// If it does not, or they do.
    pub fn check(&self, op: &'static str, len: usize) -> Result<()> {
        if self.elements() == 0 {
            return Ok(());
        }
        let overlapping = (self.tokens > 1 && self.row_stride < self.channels)
            || (self.batch > 1
                && self.batch_stride < (self.tokens - 1) * self.row_stride + self.channels);
        if overlapping {
            return Err(TensorError::Invalid {
                op,
                what: format!("rows of {self:?} overlap"),
            });
        }
        if self.end() > len {
            return Err(TensorError::OutOfBounds {
                op,
                layout: *self,
                needed: self.end(),
                len,
            });
        }
        Ok(())
    }
}

/// A token matrix to read: a buffer (or slice) and where in it.
#[derive(Debug)]
pub struct Tokens<'a, Bf: ?Sized> {
    /// The memory.
    pub buf: &'a Bf,
    /// The part of it that is meant.
    pub layout: Layout,
}

impl<Bf: ?Sized> Clone for Tokens<'_, Bf> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Bf: ?Sized> Copy for Tokens<'_, Bf> {}

impl<'a, Bf: ?Sized> Tokens<'a, Bf> {
    /// Views `buf` through `layout`.
    pub fn new(buf: &'a Bf, layout: Layout) -> Self {
        Self { buf, layout }
    }

    /// (batch, tokens, channels).
    pub fn shape(&self) -> [usize; 3] {
        self.layout.shape()
    }

    /// The same layout over another form of the same memory.
    pub fn map<T: ?Sized>(self, f: impl FnOnce(&'a Bf) -> &'a T) -> Tokens<'a, T> {
        Tokens {
            buf: f(self.buf),
            layout: self.layout,
        }
    }
}

/// A token matrix to write.
#[derive(Debug)]
pub struct TokensMut<'a, Bf: ?Sized> {
    /// The memory.
    pub buf: &'a mut Bf,
    /// The part of it that is meant.
    pub layout: Layout,
}

impl<'a, Bf: ?Sized> TokensMut<'a, Bf> {
    /// Views `buf` through `layout`.
    pub fn new(buf: &'a mut Bf, layout: Layout) -> Self {
        Self { buf, layout }
    }

    /// (batch, tokens, channels).
    pub fn shape(&self) -> [usize; 3] {
        self.layout.shape()
    }

    /// A shorter borrow of the same view.
    pub fn reborrow(&mut self) -> TokensMut<'_, Bf> {
        TokensMut {
            buf: self.buf,
            layout: self.layout,
        }
    }

    /// The view, to read.
    pub fn as_ref(&self) -> Tokens<'_, Bf> {
        Tokens {
            buf: self.buf,
            layout: self.layout,
        }
    }

    /// The same layout over another form of the same memory.
    pub fn map<T: ?Sized>(self, f: impl FnOnce(&'a mut Bf) -> &'a mut T) -> TokensMut<'a, T> {
        TokensMut {
            buf: f(self.buf),
            layout: self.layout,
        }
    }
}

/// Fails unless two shapes are equal.
///
/// # Errors
/// If they are not; the message has both names and shapes.
pub fn same_shape(
    op: &'static str,
    left_name: &'static str,
    left: [usize; 3],
    right_name: &'static str,
    right: [usize; 3],
) -> Result<()> {
    if left == right {
        Ok(())
    } else {
        Err(TensorError::Mismatch {
            op,
            left_name,
            left,
            right_name,
            right,
        })
    }
}
