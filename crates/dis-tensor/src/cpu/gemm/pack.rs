//! Operands in the order that the kernel reads them.

use std::ops::Range;

use crate::backend::Precision;
use crate::cpu::Cpu;
use crate::layout::Layout;
use crate::operands::Matrix;
use crate::simd::pairs::{PairKernel, Pairs, dispatch_pairs, round_to_bf16};
use crate::simd::{Kernel, LANES, Level, Simd, Vector, dispatch, prefetch};

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
    /// The left operand: its rows.
    pub fn left(x: Matrix<'a, [f32]>) -> Self {
        let ((lines, _), (outer, inner)) = (x.extent(), x.strides());
        Self::new(x, lines, outer, inner)
    }

    /// The right operand: its columns.
    pub fn right(x: Matrix<'a, [f32]>) -> Self {
        let ((_, lines), (inner, outer)) = (x.extent(), x.strides());
        Self::new(x, lines, outer, inner)
    }

    fn new(x: Matrix<'a, [f32]>, lines: usize, outer: usize, inner: usize) -> Self {
        let Layout { offset, .. } = x.view.layout;
        Self {
            lines,
            data: &x.view.buf[offset..x.view.layout.end()],
            outer,
            inner,
        }
    }

    /// The lines, and elements from one to the next, if each is contiguous.
    pub fn contiguous(&self) -> Option<(&'a [f32], usize)> {
        (self.inner == 1).then_some((self.data, self.outer))
    }

    /// Packs groups of up to sixteen lines over the steps from `steps.start` to `steps.end`, or pairs of
    /// steps, the last one with zero if there is no other. A group's lines at one step are one vector;
    /// lines that do not exist are zero.
    /// Of a group's sixteen lanes the first `W` are kept.
    pub fn pack<const W: usize>(
        &self,
        form: Form,
        groups: Groups,
        steps: Range<usize>,
        out: &mut [[f32; W]],
    ) {
        let units = form.units(steps.len());
        let out = &mut out[..groups.count * units];
        let job = Pack {
            source: self,
            groups,
            steps,
            out,
        };
        match form {
            Form::Single(level) => {
                dispatch(level, job);
            }
            Form::Rounded(level) => round_to_bf16(dispatch(level, job).as_flattened_mut()),
            Form::Paired => {
                dispatch_pairs(job);
            }
        }
    }
}

/// Groups of neighbouring lines, and where their vectors go: `[group / vectors][step][group % vectors]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    /// The first line.
    pub first: usize,
    /// From the first line of a group to that of the next.
    pub height: usize,
    /// How many, a multiple of `vectors`.
    pub count: usize,
    /// Groups side by side.
    pub vectors: usize,
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
            Precision::Bfloat16 if cpu.multiplies_bfloat16() => Self::Paired,
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

struct Pack<'a, 'b, const W: usize> {
    source: &'a Operand<'a>,
    groups: Groups,
    steps: Range<usize>,
    out: &'b mut [[f32; W]],
}

/// Writes the first `W` lanes.
#[inline(always)]
fn put<V: Vector, const W: usize>(x: V, to: &mut [f32; W]) {
    if let Some(to) = to.first_chunk_mut::<LANES>() {
        x.store(to);
    } else if let Some(to) = to.first_chunk_mut() {
        x.store_low(to);
    }
}

/// Where vectors of lines go.
trait Sink<S: Simd> {
    /// Takes up to sixteen consecutive steps.
    fn take(&mut self, simd: S, lines: &[S::V]);
    /// Takes sixteen, from registers.
    fn take_all(&mut self, simd: S, lines: [S::V; LANES]);
}

struct Singles<'a, const W: usize> {
    out: &'a mut [[f32; W]],
    stride: usize,
    at: usize,
}

impl<S: Simd, const W: usize> Sink<S> for Singles<'_, W> {
    #[inline(always)]
    fn take(&mut self, _: S, lines: &[S::V]) {
        for x in lines {
            put(*x, &mut self.out[self.at]);
            self.at += self.stride;
        }
    }

    #[inline(always)]
    fn take_all(&mut self, _: S, lines: [S::V; LANES]) {
        for i in 0..LANES {
            put(lines[i], &mut self.out[self.at + i * self.stride]);
        }
        self.at += LANES * self.stride;
    }
}

struct Doubles<'a, const W: usize>(Singles<'a, W>);

impl<S: Pairs, const W: usize> Sink<S> for Doubles<'_, W> {
    #[inline(always)]
    fn take(&mut self, simd: S, lines: &[S::V]) {
        let Self(Singles { out, stride, at }) = self;
        for pair in lines.chunks(2) {
            let odd = pair.get(1).copied().unwrap_or(simd.splat(0.0));
            put(simd.pair(pair[0], odd), &mut out[*at]);
            *at += *stride;
        }
    }

    #[inline(always)]
    fn take_all(&mut self, simd: S, lines: [S::V; LANES]) {
        let Self(Singles { out, stride, at }) = self;
        for i in 0..LANES / 2 {
            let pair = simd.pair(lines[2 * i], lines[2 * i + 1]);
            put(pair, &mut out[*at + i * *stride]);
        }
        *at += LANES / 2 * *stride;
    }
}

impl<'b, const W: usize> Kernel for Pack<'_, 'b, W> {
    type Output = &'b mut [[f32; W]];

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) -> Self::Output {
        self.each(1, |source, lines, steps, sink| {
            source.vectors(simd, lines, steps, sink);
        });
        self.out
    }
}

impl<const W: usize> PairKernel for Pack<'_, '_, W> {
    #[inline(always)]
    fn run<S: Pairs>(mut self, simd: S) {
        self.each(2, |source, lines, steps, sink| {
            source.vectors(simd, lines, steps, Doubles(sink));
        });
    }
}

/// Steps of lines that lie side by side that are packed for all groups before the next ones: so many rows
/// are read from end to end while they are in first-level cache.
const ROWS: usize = 16;

impl<const W: usize> Pack<'_, '_, W> {
    /// Calls `f` for every group and some steps, with where their vectors go; `each` steps make one.
    #[inline(always)]
    fn each(
        &mut self,
        each: usize,
        mut f: impl FnMut(&Operand<'_>, [usize; 2], Range<usize>, Singles<'_, W>),
    ) {
        let Groups {
            first,
            height,
            count,
            vectors,
        } = self.groups;
        let Range { start, end } = self.steps;
        let units = (end - start).div_ceil(each);
        let chunk = match self.source.inner {
            1 => (end - start).max(1),
            _ => ROWS,
        };
        for from in (start..end).step_by(chunk) {
            let steps = from..end.min(from + chunk);
            for group in 0..count {
                let line = first + group * height;
                let lines = self.source.lines.saturating_sub(line).min(LANES);
                let panel = group / vectors * units + (from - start) / each;
                let sink = Singles {
                    out: &mut *self.out,
                    stride: vectors,
                    at: panel * vectors + group % vectors,
                };
                f(self.source, [line, lines], steps.clone(), sink);
            }
        }
    }
}

impl Operand<'_> {
    /// Vectors of `count` lines from `first` on.
    #[inline(always)]
    fn vectors<S: Simd>(
        &self,
        simd: S,
        [first, count]: [usize; 2],
        steps: Range<usize>,
        mut sink: impl Sink<S>,
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
                    prefetch(data, start + ROWS * inner);
                    *x = simd.load_partial(&data[start..start + count]);
                }
            }
            sink.take(simd, &square[..width]);
            step += width;
        }
    }
}
