//! Launch contract of `partials.ptx`.

use crate::contract::{Contract, Geometry, Kernel, contract};
use crate::error::Result;
use crate::mat::{MatMut, grid_limit};
use crate::pointer::Ptr;

contract! {
    /// `out(b, r, c) = [out(b, r, c) +] sum over k of parts(b, k, r, c)`, in one order: `parts` is dense,
    /// (batch, count, rows, columns), where `out` is (batch, rows, columns).
    pub struct SumPartials: PARTIALS, "dis_sum_partials" {
        parts: Ptr<f32>,
        out: MatMut,
        count: usize,
        rows: usize = |k| k.out.tokens,
        columns: usize = |k| k.out.channels,
        accumulate: bool,
    }
    pub fn new;
}

impl Kernel for SumPartials {
    fn fit(&mut self) -> Result<Geometry> {
        let needed = (self.out.elements() * self.count) as u64;
        self.parts.holds(Self::NAME, "parts", needed)?;
        // Contiguous rows are one row: more columns to share out.
        let [batch, rows, columns] = self.out.shape();
        if batch == 1 && (rows == 1 || self.out.row_stride == columns) {
            self.out = self.out.as_row();
        }
        let grid = [
            self.out.channels.div_ceil(32) as u32,
            grid_limit(Self::NAME, "the number of rows", self.out.tokens)?,
            grid_limit(Self::NAME, "the number of samples", batch)?,
        ];
        Ok(Geometry::new(grid, [256, 1, 1]))
    }
}
