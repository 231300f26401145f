//! Launch contract of `reduce.ptx`.

use crate::contract::{Contract, ContractInfo, Geometry, Kernel, contract};
use crate::error::Result;
use crate::mat::{Mat, MatMut, grid_limit, not_zero, shapes};

contract! {
    /// `dst(o, k, c) = alpha * sum over rows of chunk k of src(o, r, c)`, or added to `dst`. The outer
    /// index is that of samples, rows are the tokens of `src`, and chunks of `chunk` rows those of `dst`.
    pub struct SumRows: REDUCE, "dis_sum_rows" {
        src: Mat [batch as outer, row],
        dst: MatMut [batch as outer, row as chunk],
        alpha: f32,
        accumulate: bool,
        rows: usize = |k| k.src.tokens,
        chunk: usize,
        channels: usize = |k| k.src.channels,
    }
    pub fn new;
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[SumRows::INFO];

/// Rows that a thread adds up where there are many, by those who launch.
pub const CHUNK: usize = 64;

impl Kernel for SumRows {
    fn fit(&mut self) -> Result<Geometry> {
        let [batch, rows, channels] = self.src.shape();
        not_zero(Self::NAME, "the number of rows of a chunk", self.chunk)?;
        let chunks = rows.div_ceil(self.chunk).max(1);
        shapes(Self::NAME, &[("dst", &self.dst, [batch, chunks, channels])])?;
        let width = channels.next_multiple_of(32).clamp(32, 128);
        let grid = [
            channels.div_ceil(width) as u32,
            grid_limit(Self::NAME, "the number of chunks", chunks)?,
            grid_limit(Self::NAME, "the number of samples", batch)?,
        ];
        Ok(Geometry::new(grid, [width as u32, 1, 1]))
    }
}
