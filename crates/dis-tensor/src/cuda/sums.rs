//! Sums over rows: trees whose shape depends on the number of rows alone.

use dis_kernels::reduce::{CHUNK, SumRows};
use dis_kernels::{Driver, Mat, MatMut};

use super::Cuda;
use crate::error::Result;

/// Rows that one thread adds up before partial sums are formed.
const DIRECT: usize = 128;

impl<D: Driver> Cuda<D> {
    /// `dst(b, 0, c) = alpha * sum over t of src(b, t, c)`, or added to it.
    pub(super) fn sum_tokens(
        &self,
        op: &'static str,
        src: Mat,
        dst: MatMut,
        alpha: f32,
        accumulate: bool,
    ) -> Result<()> {
        if src.tokens <= DIRECT {
            let chunk = src.tokens.max(1);
            return self.launch(op, SumRows::new(src, dst, alpha, accumulate, chunk));
        }
        let chunks = src.tokens.div_ceil(CHUNK);
        let scratch = self.scratch::<f32>(op, src.batch * chunks * src.channels)?;
        let partial = MatMut::dense(scratch.ptr_mut(), src.batch, chunks, src.channels);
        self.launch(op, SumRows::new(src, partial, 1.0, false, CHUNK))?;
        self.sum_tokens(op, partial.read(), dst, alpha, accumulate)
    }

    /// `dst(0, 0, c) += sum over b, t of src(b, t, c)`.
    pub(super) fn add_all_rows(&self, op: &'static str, src: Mat, dst: MatMut) -> Result<()> {
        if src.elements() == 0 {
            return Ok(());
        }
        if src.is_matrix() {
            return self.sum_tokens(op, src.as_matrix(), dst, 1.0, true);
        }
        let chunks = src.tokens.div_ceil(CHUNK);
        let scratch = self.scratch::<f32>(op, src.batch * chunks * src.channels)?;
        let partial = MatMut::dense(scratch.ptr_mut(), src.batch, chunks, src.channels);
        self.launch(op, SumRows::new(src, partial, 1.0, false, CHUNK))?;
        self.sum_tokens(op, partial.as_matrix().read(), dst, 1.0, true)
    }

    /// `dst(0, t, c) += sum over b of src(b, t, c)`: tokens and samples change places.
    pub(super) fn add_over_samples(&self, op: &'static str, src: Mat, dst: MatMut) -> Result<()> {
        if src.elements() == 0 {
            return Ok(());
        }
        let turned = Mat {
            batch: src.tokens,
            tokens: src.batch,
            row_stride: src.batch_stride,
            batch_stride: src.row_stride,
            ..src
        };
        let rows = MatMut {
            batch: dst.tokens,
            tokens: 1,
            batch_stride: dst.row_stride,
            ..dst
        };
        self.sum_tokens(op, turned, rows, 1.0, true)
    }
}
