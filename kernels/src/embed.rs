//! Launch contracts of `embed.ptx`.

use crate::contract;
use crate::contract::{ContractInfo, Geometry, Params, Ptr, PtrMut, Ready};
use crate::error::{KernelError, Result};
use crate::mat::{Mat, MatMut, to_u32};

contract! {
    /// `out(i, 0, c) = table(0, ids[i], c)`.
    pub struct Gather: EMBED, "dis_gather" {
        table: Ptr<f32>, table_row: u32, entries: u32,
        ids: Ptr<u32>,
        out: PtrMut<f32>, out_batch: u32,
        channels: u32,
    }
}
contract! {
    /// `table(0, ids[i], c) += dout(i, 0, c)`, in the order of i.
    pub struct ScatterAdd: EMBED, "dis_scatter_add" {
        dout: Ptr<f32>, dout_batch: u32,
        ids: Ptr<u32>, count: u32,
        table: PtrMut<f32>, table_row: u32, entries: u32,
        channels: u32,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[Gather::INFO, ScatterAdd::INFO];

fn check_ids(kernel: &'static str, ids: Ptr<u32>, count: usize) -> Result<()> {
    if ids.len() < count as u64 {
        return Err(KernelError::OutOfBounds {
            kernel,
            name: "ids",
            needed: count as u64,
            len: ids.len(),
        });
    }
    Ok(())
}

impl Gather {
    /// Checks the operands; `table` is (1, entries, channels), `out` (ids, 1, channels).
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(table: Mat, ids: Ptr<u32>, out: MatMut) -> Result<Ready<Self>> {
        const NAME: &str = "dis_gather";
        table.check_shape(NAME, "table", [1, table.tokens, out.channels])?;
        out.check_shape(NAME, "out", [out.batch, 1, out.channels])?;
        check_ids(NAME, ids, out.batch)?;
        let kernel = Self {
            table: table.ptr,
            table_row: table.row_stride as u32,
            entries: to_u32(NAME, "the number of entries", table.tokens)?,
            ids,
            out: out.ptr,
            out_batch: out.batch_stride as u32,
            channels: out.channels as u32,
        };
        let grid = [
            if out.elements() == 0 {
                0
            } else {
                out.batch as u32
            },
            1,
            1,
        ];
        Ok(Ready::new(kernel, Geometry::new(grid, [128, 1, 1])))
    }
}

impl ScatterAdd {
    /// Checks the operands; `dout` is (ids, 1, channels), `table` (1, entries, channels).
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(dout: Mat, ids: Ptr<u32>, table: MatMut) -> Result<Ready<Self>> {
        const NAME: &str = "dis_scatter_add";
        table.check_shape(NAME, "table", [1, table.tokens, dout.channels])?;
        dout.check_shape(NAME, "dout", [dout.batch, 1, dout.channels])?;
        check_ids(NAME, ids, dout.batch)?;
        let kernel = Self {
            dout: dout.ptr,
            dout_batch: dout.batch_stride as u32,
            ids,
            count: to_u32(NAME, "the number of ids", dout.batch)?,
            table: table.ptr,
            table_row: table.row_stride as u32,
            entries: to_u32(NAME, "the number of entries", table.tokens)?,
            channels: dout.channels as u32,
        };
        let groups = if dout.elements() == 0 {
            0
        } else {
            dout.channels.div_ceil(128) as u32
        };
        Ok(Ready::new(
            kernel,
            Geometry::new([groups, 1, 1], [128, 1, 1]),
        ))
    }
}
