//! How work is shared out: over fixed blocks, so that who computes a block never matters.

use std::ops::Range;
use std::sync::Arc;

/// Something to write that is divided among threads, counted in units (rows, elements, blocks).
pub trait Split: Send + Sized {
    /// Units `0 .. at`, and the rest.
    fn split(self, at: usize) -> (Self, Self);
}

impl Split for () {
    fn split(self, _: usize) -> (Self, Self) {
        ((), ())
    }
}

impl<S: Split> Split for Option<S> {
    fn split(self, at: usize) -> (Self, Self) {
        match self {
            Some(whole) => {
                let (head, tail) = whole.split(at);
                (Some(head), Some(tail))
            }
            None => (None, None),
        }
    }
}

impl<A: Split, B: Split> Split for (A, B) {
    fn split(self, at: usize) -> (Self, Self) {
        let ((a, a_tail), (b, b_tail)) = (self.0.split(at), self.1.split(at));
        ((a, b), (a_tail, b_tail))
    }
}

impl<A: Split, B: Split, C: Split> Split for (A, B, C) {
    fn split(self, at: usize) -> (Self, Self) {
        let ((a, b), (a_tail, b_tail)) = (self.0, self.1).split(at);
        let (c, c_tail) = self.2.split(at);
        ((a, b, c), (a_tail, b_tail, c_tail))
    }
}

impl<A: Split, B: Split, C: Split, D: Split> Split for (A, B, C, D) {
    fn split(self, at: usize) -> (Self, Self) {
        let ((a, b, c), (a_tail, b_tail, c_tail)) = (self.0, self.1, self.2).split(at);
        let (d, d_tail) = self.3.split(at);
        ((a, b, c, d), (a_tail, b_tail, c_tail, d_tail))
    }
}

/// Plain elements; a unit is one of them.
impl<T: Send> Split for &mut [T] {
    fn split(self, at: usize) -> (Self, Self) {
        self.split_at_mut(at.min(self.len()))
    }
}

/// Equal pieces of a slice, each of which belongs to `units` consecutive units.
#[derive(Debug)]
pub struct Pieces<'a, T> {
    /// The pieces that are left, one after another.
    pub data: &'a mut [T],
    /// Elements of a piece.
    pub width: usize,
    /// Units of a piece. Splits must be at multiples of it.
    pub units: usize,
}

impl<T: Send> Split for Pieces<'_, T> {
    fn split(self, at: usize) -> (Self, Self) {
        let Self { data, width, units } = self;
        let at = (at.div_ceil(units.max(1)) * width).min(data.len());
        let (head, tail) = data.split_at_mut(at);
        (
            Self {
                data: head,
                width,
                units,
            },
            Self {
                data: tail,
                width,
                units,
            },
        )
    }
}

/// Below this many elements a call runs where it is: handing work to another thread takes longer.
pub const INLINE: usize = 16 * 1024;

/// Elements of a block of elementwise work.
pub const GRAIN: usize = 16 * 1024;

/// The threads of a [`Cpu`](super::Cpu).
#[derive(Clone, Debug)]
pub(super) enum Threads {
    /// Whatever rayon pool the caller is in.
    Current,
    /// A pool of its own.
    Own(Arc<rayon::ThreadPool>),
}

impl Threads {
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Current => rayon::current_num_threads(),
            Self::Own(pool) => pool.current_num_threads(),
        }
    }

    pub(super) fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::Current => f(),
            Self::Own(pool) => pool.install(f),
        }
    }

    /// Calls `f(units of a block, their part of out)` for blocks of `grain` units out of `units`,
    /// on all threads when the work (in elements) is worth it.
    pub(super) fn blocks<S: Split>(
        &self,
        units: usize,
        grain: usize,
        work: usize,
        out: S,
        f: impl Fn(Range<usize>, S) + Sync,
    ) {
        let grain = grain.max(1);
        if work < INLINE || units <= grain || self.count() == 1 {
            serial(0..units, grain, out, &f);
        } else {
            self.install(|| parallel(0..units, grain, out, &f));
        }
    }
}

fn serial<S: Split>(units: Range<usize>, grain: usize, out: S, f: &impl Fn(Range<usize>, S)) {
    let (mut start, mut rest) = (units.start, out);
    while start < units.end {
        let end = (start + grain).min(units.end);
        let (head, tail) = rest.split(end - start);
        f(start..end, head);
        (start, rest) = (end, tail);
    }
}

/// Halves the range at a block boundary until one block is left. Allocates nothing.
fn parallel<S: Split>(
    units: Range<usize>,
    grain: usize,
    out: S,
    f: &(impl Fn(Range<usize>, S) + Sync),
) {
    if units.len() <= grain {
        if !units.is_empty() {
            f(units, out);
        }
        return;
    }
    let half = units.len().div_ceil(grain) / 2 * grain;
    let (head, tail) = out.split(half);
    let middle = units.start + half;
    rayon::join(
        || parallel(units.start..middle, grain, head, f),
        || parallel(middle..units.end, grain, tail, f),
    );
}
