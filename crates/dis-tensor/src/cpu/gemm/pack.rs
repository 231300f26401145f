//! Operands in the order that the kernel reads them.

use std::ops::Range;

use crate::cpu::{Cpu, Precision};
use crate::layout::{Layout, Tokens};
use crate::simd::pairs::{PairKernel, Pairs, dispatch_pairs, has_pairs, round_to_bf16};
use crate::simd::{Kernel, LANES, Level, Simd, Vector, dispatch};

/// An operand of a product: a matrix, or its transpose, as lines along the sum (rows of the left
/// operand, columns of the right).
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand<'a> {
    data: &'a [f32],
    /// How many lines.
    lines: usize,
    /// Elements between neighbouring lines.
    outer: usize,
    /// Elements between neighbours along the sum.
    inner: usize,
}

impl<'a> Operand<'a> {
    /// The left operand, `op(x)`.
    pub fn left(x: Tokens<'a, [f32]>, transpose: bool) -> Self {
        Self::new(x, transpose)
    }

    /// The right operand, `op(x)`.
    pub fn right(x: Tokens<'a, [f32]>, transpose: bool) -> Self {
        Self::new(x, !transpose)
    }

    /// Lines are the rows of x, or its columns.
    fn new(x: Tokens<'a, [f32]>, columns: bool) -> Self {
        let Layout {
            offset, row_stride, ..
        } = x.layout;
        let (lines, outer, inner) = if columns {
            (x.layout.channels, 1, row_stride)
        } else {
            (x.layout.rows(), row_stride, 1)
        };
        Self {
            lines,
            data: &x.buf[offset..x.layout.end()],
            outer,
            inner,
        }
    }

    /// How many lines there are.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// Packs `count` lines from `first`, at most sixteen of them, over the steps from `from` to
    /// `end` (or pairs of steps, the last one with zero if there is no other): the lines of step s
    /// become vector `s * stride` of `out`, as many steps as there is room for. Missing lines are
    /// zero.
    pub fn pack(
        &self,
        form: Form,
        [first, count]: [usize; 2],
        steps: Range<usize>,
        out: &mut [[f32; LANES]],
        stride: usize,
    ) {
        let job = Pack {
            source: self,
            first,
            count: count.min(LANES),
            steps,
            out,
            stride,
        };
        match form {
            Form::Single(level) => {
                dispatch(level, job);
            }
            // Vectors of others in between are rounded already, or will be once more.
            Form::Rounded(level) => round_to_bf16(dispatch(level, job).as_flattened_mut()),
            Form::Paired => {
                dispatch_pairs(job);
            }
        }
    }
}

/// What packed elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A float32.
    Single(Level),
    /// A float32 that is a bfloat16: products as of pairs, where there are no pairs.
    Rounded(Level),
    /// A pair of bfloat16.
    Paired,
}

impl Form {
    /// What this backend's products take.
    pub fn of(cpu: &Cpu) -> Self {
        let level = cpu.level();
        match cpu.precision() {
            Precision::Float32 => Self::Single(level),
            Precision::Bfloat16 if level == Level::Avx512 && has_pairs() => Self::Paired,
            Precision::Bfloat16 => Self::Rounded(level),
        }
    }

    /// Packed steps of so many steps of the sum.
    pub fn units(self, steps: usize) -> usize {
        match self {
            Self::Paired => steps.div_ceil(2),
            _ => steps,
        }
    }

    /// Steps of the sum in a packed one.
    pub fn steps(self) -> usize {
        match self {
            Self::Paired => 2,
            _ => 1,
        }
    }
}

struct Pack<'a, 'b> {
    source: &'a Operand<'a>,
    first: usize,
    count: usize,
    steps: Range<usize>,
    out: &'b mut [[f32; LANES]],
    stride: usize,
}

/// Where vectors of lines go.
trait Sink<S: Simd> {
    /// Takes up to sixteen consecutive steps.
    fn take(&mut self, simd: S, lines: &[S::V]);
    /// Takes sixteen, from registers.
    fn take_all(&mut self, simd: S, lines: [S::V; LANES]);
}

struct Singles<'a> {
    out: &'a mut [[f32; LANES]],
    stride: usize,
    at: usize,
}

impl<S: Simd> Sink<S> for Singles<'_> {
    #[inline(always)]
    fn take(&mut self, _: S, lines: &[S::V]) {
        for x in lines {
            x.store(&mut self.out[self.at]);
            self.at += self.stride;
        }
    }

    #[inline(always)]
    fn take_all(&mut self, _: S, lines: [S::V; LANES]) {
        for i in 0..LANES {
            lines[i].store(&mut self.out[self.at + i * self.stride]);
        }
        self.at += LANES * self.stride;
    }
}

struct Doubles<'a>(Singles<'a>);

impl<S: Pairs> Sink<S> for Doubles<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, lines: &[S::V]) {
        let Self(Singles { out, stride, at }) = self;
        for pair in lines.chunks(2) {
            let odd = pair.get(1).copied().unwrap_or(simd.splat(0.0));
            simd.pair(pair[0], odd).store(&mut out[*at]);
            *at += *stride;
        }
    }

    #[inline(always)]
    fn take_all(&mut self, simd: S, lines: [S::V; LANES]) {
        let Self(Singles { out, stride, at }) = self;
        for i in 0..LANES / 2 {
            let pair = simd.pair(lines[2 * i], lines[2 * i + 1]);
            pair.store(&mut out[*at + i * *stride]);
        }
        *at += LANES / 2 * *stride;
    }
}

impl<'b> Kernel for Pack<'_, 'b> {
    type Output = &'b mut [[f32; LANES]];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self {
            source,
            first,
            count,
            steps,
            out,
            stride,
        } = self;
        let mut sink = Singles {
            out: &mut *out,
            stride,
            at: 0,
        };
        source.vectors(simd, first, count, steps, &mut sink);
        out
    }
}

impl PairKernel for Pack<'_, '_> {
    #[inline(always)]
    fn run<S: Pairs>(self, simd: S) {
        let Self {
            source,
            first,
            count,
            steps,
            out,
            stride,
        } = self;
        let mut sink = Doubles(Singles { out, stride, at: 0 });
        source.vectors(simd, first, count, steps, &mut sink);
    }
}

impl Operand<'_> {
    #[inline(always)]
    fn vectors<S: Simd>(
        &self,
        simd: S,
        first: usize,
        count: usize,
        steps: Range<usize>,
        sink: &mut impl Sink<S>,
    ) {
        let Self {
            data, outer, inner, ..
        } = *self;
        let mut step = steps.start;
        if inner == 1 && count == LANES {
            // Whole squares without a detour through memory.
            while step + LANES <= steps.end {
                let mut square = [simd.splat(0.0); LANES];
                for i in 0..LANES {
                    let start = (first + i) * outer + step;
                    square[i] = simd.load_partial(&data[start..start + LANES]);
                }
                sink.take_all(simd, S::V::transpose(square, simd));
                step += LANES;
            }
        }
        while step < steps.end {
            let width = (steps.end - step).min(LANES);
            let mut square = [simd.splat(0.0); LANES];
            if inner == 1 {
                // Lines are contiguous along the sum: transpose squares of sixteen.
                for (i, x) in square.iter_mut().enumerate().take(count) {
                    let start = (first + i) * outer + step;
                    *x = simd.load_partial(&data[start..start + width]);
                }
                square = S::V::transpose(square, simd);
            } else if count > 0 {
                // Lines lie side by side.
                for (i, x) in square.iter_mut().enumerate().take(width) {
                    let start = first * outer + (step + i) * inner;
                    *x = simd.load_partial(&data[start..start + count]);
                }
            }
            sink.take(simd, &square[..width]);
            step += width;
        }
    }
}
