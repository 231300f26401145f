//! Launch contract of `partials.ptx`.

use crate::contract;
use crate::contract::{Geometry, Ptr, PtrMut, Ready};
use crate::error::{KernelError, Result};
use crate::mat::{MatMut, grid_limit, to_u32};

contract! {
    /// `out(b, r, c) = [out(b, r, c) +] sum over k of parts(b, k, r, c)`, in one order.
    pub struct SumPartials: PARTIALS, "dis_sum_partials" {
        parts: Ptr<f32>,
        out: PtrMut<f32>, out_row: u32, out_batch: u32,
        count: u32,
        rows: u32, columns: u32,
        accumulate: u32,
    }
}

impl SumPartials {
    /// Checks the operands: `parts` is dense, (batch, count, rows, columns), where `out` is (batch,
    /// rows, columns).
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(
        parts: Ptr<f32>,
        count: usize,
        out: MatMut,
        accumulate: bool,
    ) -> Result<Ready<Self>> {
        const NAME: &str = "dis_sum_partials";
        out.check(NAME, "out")?;
        let needed = (out.elements() * count) as u64;
        if parts.len() < needed {
            return Err(KernelError::OutOfBounds {
                kernel: NAME,
                name: "parts",
                needed,
                len: parts.len(),
            });
        }
        // Contiguous rows are one row: more columns to share out.
        let dense = out.batch == 1 && (out.tokens == 1 || out.row_stride == out.channels);
        let out = if dense { out.as_row() } else { out };
        let geometry = Geometry::new(
            [
                out.channels.div_ceil(32) as u32,
                grid_limit(NAME, "the number of rows", out.tokens)?,
                grid_limit(NAME, "the number of samples", out.batch)?,
            ],
            [256, 1, 1],
        );
        let kernel = Self {
            parts,
            out: out.ptr,
            out_row: out.row_stride as u32,
            out_batch: out.batch_stride as u32,
            count: to_u32(NAME, "the number of partial sums", count)?,
            rows: out.tokens as u32,
            columns: out.channels as u32,
            accumulate: accumulate.into(),
        };
        Ok(Ready::new(kernel, geometry))
    }
}
