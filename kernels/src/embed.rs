//! Launch contracts of `embed.ptx`.

use crate::contract::{Contract, ContractInfo, Geometry, Kernel, Param, contract};
use crate::error::Result;
use crate::mat::{Mat, MatMut, shapes};
use crate::pointer::Ptr;

contract! {
    /// `out(i, 0, c) = table(0, ids[i], c)`, with `table` (1, entries, channels) and `out` (ids, 1,
    /// channels).
    pub struct Gather: EMBED, "dis_gather" {
        table: Mat [row], entries: usize = |k| k.table.tokens,
        ids: Ptr<u32>,
        out: MatMut [batch],
        channels: usize = |k| k.out.channels,
    }
    pub fn new;
}
contract! {
    /// `table(0, ids[i], c) += dout(i, 0, c)`, in the order of i; shapes as in [`Gather`].
    pub struct ScatterAdd: EMBED, "dis_scatter_add" {
        dout: Mat [batch],
        ids: Ptr<u32>, count: usize = |k| k.dout.batch,
        table: MatMut [row], entries: usize = |k| k.table.tokens,
        channels: usize = |k| k.dout.channels,
    }
    pub fn new;
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[Gather::INFO, ScatterAdd::INFO];

impl Kernel for Gather {
    fn fit(&mut self) -> Result<Geometry> {
        let [count, _, channels] = self.out.shape();
        shapes(
            Self::NAME,
            &[
                ("table", &self.table, [1, self.table.tokens, channels]),
                ("out", &self.out, [count, 1, channels]),
            ],
        )?;
        self.ids.holds(Self::NAME, "ids", count as u64)?;
        count.check(Self::NAME, "the number of ids")?;
        let blocks = if channels == 0 { 0 } else { count as u32 };
        Ok(Geometry::new([blocks, 1, 1], [128, 1, 1]))
    }
}

impl Kernel for ScatterAdd {
    fn fit(&mut self) -> Result<Geometry> {
        let [count, _, channels] = self.dout.shape();
        shapes(
            Self::NAME,
            &[
                ("table", &self.table, [1, self.table.tokens, channels]),
                ("dout", &self.dout, [count, 1, channels]),
            ],
        )?;
        self.ids.holds(Self::NAME, "ids", count as u64)?;
        let blocks = if count == 0 {
            0
        } else {
            channels.div_ceil(128) as u32
        };
        Ok(Geometry::new([blocks, 1, 1], [128, 1, 1]))
    }
}
