//! Launch contract of `reduce.ptx`.

use crate::contract;
use crate::contract::{ContractInfo, Geometry, Params, Ptr, PtrMut, Ready};
use crate::error::Result;
use crate::mat::{Mat, MatMut, grid_limit, shape};

contract! {
    /// `dst(o, k, c) = alpha * sum over rows of chunk k of src(o, r, c)`, or added to `dst`.
    pub struct SumRows: REDUCE, "dis_sum_rows" {
        src: Ptr<f32>, src_outer: u32, src_row: u32,
        dst: PtrMut<f32>, dst_outer: u32, dst_chunk: u32,
        alpha: f32,
        accumulate: u32,
        rows: u32,
        chunk: u32,
        channels: u32,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[SumRows::INFO];

impl SumRows {
    /// Checks the operands. Batches of `src` and `dst` are the outer index, the tokens of `src` the
    /// rows, and the tokens of `dst` the chunks of `chunk` rows each.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(
        src: Mat,
        dst: MatMut,
        chunk: usize,
        alpha: f32,
        accumulate: bool,
    ) -> Result<Ready<Self>> {
        const NAME: &str = "dis_sum_rows";
        src.check(NAME, "src")?;
        let chunks = if src.tokens == 0 {
            1
        } else {
            src.tokens.div_ceil(chunk.max(1))
        };
        if chunk == 0 || chunk > i32::MAX as usize {
            return Err(shape(NAME, format!("chunks of {chunk} rows")));
        }
        dst.check_shape(NAME, "dst", [src.batch, chunks, src.channels])?;
        let width = src.channels.next_multiple_of(32).clamp(32, 128);
        let geometry = Geometry::new(
            [
                src.channels.div_ceil(width) as u32,
                grid_limit(NAME, "the number of chunks", chunks)?,
                grid_limit(NAME, "the number of samples", src.batch)?,
            ],
            [width as u32, 1, 1],
        );
        let kernel = Self {
            src: src.ptr,
            src_outer: src.batch_stride as u32,
            src_row: src.row_stride as u32,
            dst: dst.ptr,
            dst_outer: dst.batch_stride as u32,
            dst_chunk: dst.row_stride as u32,
            alpha,
            accumulate: accumulate.into(),
            rows: src.tokens as u32,
            chunk: chunk as u32,
            channels: src.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}
