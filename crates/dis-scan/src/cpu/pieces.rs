//! Parallel tasks that write interleaved parts of the same token matrices: the one place where
//! that is proven disjoint.
//!
//! A task owns block k of sample b: some columns of every token, or some tokens of the sample.
//! Which task has which block is fixed by the shapes, never by the threads.

use dis_tensor::{Layout, Result, TensorError, TokensMut};
use rayon::prelude::*;
use std::marker::PhantomData;

/// How an output is divided among the blocks of a sample.
#[derive(Clone, Copy, Debug)]
enum Split {
    /// This many consecutive columns of every token each.
    Columns(usize),
    /// This many consecutive tokens each.
    Tokens(usize),
}

/// A token matrix to be written in pieces; or nothing, whose pieces are empty.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    pointer: *mut f32,
    layout: Layout,
    split: Split,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: an `Output` is an exclusive borrow of a `[f32]`, taken apart; such a borrow may be
// shared and sent, and what is shared gives access only through `piece`, which is unsafe.
unsafe impl Sync for Output<'_> {}

/// Whether all elements have different indices below `len`: [`Layout::check`] in arithmetic that
/// cannot wrap, since memory safety hangs on it.
fn is_disjoint_within(layout: &Layout, len: usize) -> bool {
    let [offset, batch, tokens, channels, row, sample] = [
        layout.offset,
        layout.batch,
        layout.tokens,
        layout.channels,
        layout.row_stride,
        layout.batch_stride,
    ]
    .map(|x| x as u128);
    if batch == 0 || tokens == 0 || channels == 0 {
        return true;
    }
    // Products of two 64-bit numbers fit in 128 bits; their sum saturates, to be refused.
    let one_sample = ((tokens - 1) * row).saturating_add(channels);
    let all = ((batch - 1) * sample)
        .saturating_add(one_sample)
        .saturating_add(offset);
    (tokens == 1 || row >= channels) && (batch == 1 || sample >= one_sample) && all <= len as u128
}

impl<'a> Output<'a> {
    fn new(op: &'static str, view: TokensMut<'a, [f32]>, split: Split) -> Result<Self> {
        view.layout.check(op, view.buf.len())?;
        if !is_disjoint_within(&view.layout, view.buf.len()) {
            let what = format!(
                "{:?} does not fit in {} elements",
                view.layout,
                view.buf.len()
            );
            return Err(TensorError::Invalid { op, what });
        }
        Ok(Self {
            pointer: view.buf.as_mut_ptr(),
            layout: view.layout,
            split,
            lifetime: PhantomData,
        })
    }

    /// Block k owns columns `width k .. width (k + 1)` of every token of its sample.
    pub(crate) fn columns(
        op: &'static str,
        view: TokensMut<'a, [f32]>,
        width: usize,
    ) -> Result<Self> {
        Self::new(op, view, Split::Columns(width))
    }

    /// Block k owns tokens `count k .. count (k + 1)` of its sample.
    pub(crate) fn tokens(
        op: &'static str,
        view: TokensMut<'a, [f32]>,
        count: usize,
    ) -> Result<Self> {
        Self::new(op, view, Split::Tokens(count))
    }

    /// Nothing to write.
    pub(crate) fn none() -> Self {
        Self {
            pointer: std::ptr::NonNull::dangling().as_ptr(),
            layout: Layout::dense(0, 0, 0),
            split: Split::Tokens(0),
            lifetime: PhantomData,
        }
    }

    /// [`Output::columns`] of a view that may be absent.
    pub(crate) fn columns_if(
        op: &'static str,
        view: Option<TokensMut<'a, [f32]>>,
        width: usize,
    ) -> Result<Self> {
        view.map_or_else(|| Ok(Self::none()), |view| Self::columns(op, view, width))
    }

    /// [`Output::tokens`] of a view that may be absent.
    pub(crate) fn tokens_if(
        op: &'static str,
        view: Option<TokensMut<'a, [f32]>>,
        count: usize,
    ) -> Result<Self> {
        view.map_or_else(|| Ok(Self::none()), |view| Self::tokens(op, view, count))
    }

    /// Block `k` of sample `b`, cut off where the matrix ends.
    ///
    /// # Safety
    /// No other piece of the same block may be alive.
    unsafe fn piece(&self, b: usize, k: usize) -> Piece<'a> {
        let Layout {
            batch,
            tokens,
            channels,
            row_stride,
            ..
        } = self.layout;
        if b >= batch {
            return Piece::EMPTY;
        }
        let (first_row, rows, first_column, columns) = match self.split {
            Split::Columns(width) => {
                let start = (k * width).min(channels);
                (0, tokens, start, width.min(channels - start))
            }
            Split::Tokens(count) => {
                let start = (k * count).min(tokens);
                (start, count.min(tokens - start), 0, channels)
            }
        };
        if rows == 0 || columns == 0 {
            return Piece::EMPTY;
        }
        let start = self.layout.row(b, first_row) + first_column;
        Piece {
            // Wrapping only in form: element (b, first_row, first_column) exists and lies inside.
            pointer: self.pointer.wrapping_add(start),
            rows,
            columns,
            stride: row_stride,
            lifetime: PhantomData,
        }
    }
}

/// A task's own part of an output.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    pointer: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

impl Piece<'_> {
    const EMPTY: Self = Piece {
        pointer: std::ptr::NonNull::dangling().as_ptr(),
        rows: 0,
        columns: 0,
        stride: 0,
        lifetime: PhantomData,
    };

    /// Tokens in it.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Its columns of its `row`-th token.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row outside a piece");
        // Wrapping only in form: `Output::new` checked that the whole matrix lies in its buffer.
        let start = self.pointer.wrapping_add(row * self.stride);
        // SAFETY: `start` and the `columns` elements from it belong to this block: inside the
        // buffer and disjoint from every other block's rows (`is_disjoint_within`); the block has
        // one piece (`Output::piece`), borrowed mutably here, of a buffer borrowed for longer.
        unsafe { std::slice::from_raw_parts_mut(start, self.columns) }
    }
}

/// Work, in rough nanoseconds, below which threads cost more than they give.
const SERIAL: usize = 40_000;

/// Calls `f(b, k, pieces)` once for each of `blocks` blocks of each of `batch` samples, in any
/// order and on all threads, or on this one alone if `work` (nanoseconds, roughly) is small.
pub(crate) fn for_each_block<const K: usize>(
    batch: usize,
    blocks: usize,
    work: usize,
    outputs: [Output<'_>; K],
    f: impl Fn(usize, usize, [Piece<'_>; K]) + Sync,
) {
    let run = |index: usize| {
        let (b, k) = (index / blocks, index % blocks);
        // SAFETY: every index below batch * blocks is run once, so every (b, k) has its pieces
        // once; `outputs` are exclusive borrows, and blocks of one output are disjoint.
        let pieces = outputs
            .each_ref()
            .map(|output| unsafe { output.piece(b, k) });
        f(b, k, pieces);
    };
    let tasks = batch * blocks;
    if work < SERIAL || tasks == 1 {
        (0..tasks).for_each(run);
    } else {
        (0..tasks).into_par_iter().for_each(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_written_once() {
        let layout = Layout {
            offset: 3,
            batch: 2,
            tokens: 5,
            channels: 7,
            row_stride: 9,
            batch_stride: 50,
        };
        for columns in [true, false] {
            for size in 1..9 {
                let mut buf = vec![0.0f32; 100];
                let view = TokensMut::new(&mut buf[..], layout);
                let output = if columns {
                    Output::columns("test", view, size)
                } else {
                    Output::tokens("test", view, size)
                };
                for_each_block(
                    2,
                    7,
                    SERIAL,
                    [output.unwrap(), Output::none()],
                    |b, k, [mut piece, none]| {
                        assert_eq!(none.rows(), 0);
                        for row in 0..piece.rows() {
                            for x in piece.row(row) {
                                *x += (1 + b * 7 + k) as f32;
                            }
                        }
                    },
                );
                let mut want = vec![0.0f32; 100];
                for b in 0..2 {
                    for t in 0..5 {
                        for c in 0..7 {
                            let k = if columns { c / size } else { t / size };
                            want[layout.row(b, t) + c] = (1 + b * 7 + k) as f32;
                        }
                    }
                }
                assert_eq!(buf, want);
            }
        }
    }

    #[test]
    fn layouts_that_wrap_are_refused() {
        let mut buf = [0.0f32; 16];
        let half = usize::MAX / 2 + 1;
        for (row_stride, batch_stride) in [(4, half), (half, 8), (4, usize::MAX - 3)] {
            let layout = Layout {
                offset: 0,
                batch: 3,
                tokens: 2,
                channels: 4,
                row_stride,
                batch_stride,
            };
            assert!(!is_disjoint_within(&layout, buf.len()), "{layout:?}");
        }
        let overlap = Layout {
            offset: 0,
            batch: 1,
            tokens: 2,
            channels: 4,
            row_stride: 3,
            batch_stride: 8,
        };
        assert!(!is_disjoint_within(&overlap, buf.len()));
        assert!(Output::columns("test", TokensMut::new(&mut buf[..], overlap), 2).is_err());
        let outside = Layout::dense(1, 5, 4);
        assert!(Output::columns("test", TokensMut::new(&mut buf[..], outside), 2).is_err());
    }

    #[test]
    #[should_panic(expected = "row outside a piece")]
    fn rows_are_checked() {
        let mut buf = [0.0f32; 16];
        let output = Output::columns(
            "test",
            TokensMut::new(&mut buf[..], Layout::dense(1, 4, 4)),
            2,
        );
        for_each_block(1, 2, 0, [output.unwrap()], |_, _, [mut piece]| {
            piece.row(4);
        });
    }
}
