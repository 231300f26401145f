//! Operands in the order that the kernel reads them.

use crate::layout::{Layout, Tokens};
use crate::simd::{Kernel, LANES, Level, Simd, Vector, dispatch};

/// An operand of a product: a matrix, or its transpose, as lines along the sum (rows of the left
/// operand, columns of the right).
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand<'a> {
    data: &'a [f32],
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
        let (outer, inner) = if columns {
            (1, row_stride)
        } else {
            (row_stride, 1)
        };
        Self {
            data: &x.buf[offset..x.layout.end()],
            outer,
            inner,
        }
    }

    /// Packs `count` lines from `first`, at most sixteen of them, over the steps from `from`: the
    /// lines of step s become vector `s * stride` of `out`, as many steps as there is room for.
    /// Missing lines are zero.
    pub fn pack(
        &self,
        level: Level,
        [first, count]: [usize; 2],
        from: usize,
        out: &mut [[f32; LANES]],
        stride: usize,
    ) {
        let job = Pack {
            source: self,
            first,
            count: count.min(LANES),
            from,
            out,
            stride,
        };
        dispatch(level, job);
    }
}

struct Pack<'a, 'b> {
    source: &'a Operand<'a>,
    first: usize,
    count: usize,
    from: usize,
    out: &'b mut [[f32; LANES]],
    stride: usize,
}

impl Kernel for Pack<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Operand { data, outer, inner } = *self.source;
        let steps = self.out.len().div_ceil(self.stride);
        if self.count == 0 {
            // Vectors of a panel beyond the last column.
            for step in 0..steps {
                self.out[step * self.stride] = [0.0; LANES];
            }
            return;
        }
        if inner != 1 {
            // Lines lie side by side.
            for step in 0..steps {
                let start = self.first * outer + (self.from + step) * inner;
                let line = simd.load_partial(&data[start..start + self.count]);
                line.store(&mut self.out[step * self.stride]);
            }
            return;
        }
        // Lines are contiguous along the sum: transpose squares of sixteen.
        let mut lines: [&[f32]; LANES] = [&[]; LANES];
        for (i, line) in lines.iter_mut().enumerate().take(self.count) {
            let start = (self.first + i) * outer + self.from;
            *line = &data[start..start + steps];
        }
        let mut step = 0;
        while step < steps {
            let width = (steps - step).min(LANES);
            let mut square = [simd.splat(0.0); LANES];
            for (x, line) in square.iter_mut().zip(&lines) {
                if let Some(line) = line.get(step..step + width) {
                    *x = simd.load_partial(line);
                }
            }
            let square = S::V::transpose(square, simd);
            for (i, x) in square.into_iter().enumerate().take(width) {
                x.store(&mut self.out[(step + i) * self.stride]);
            }
            step += width;
        }
    }
}
