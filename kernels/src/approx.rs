//! Launch contract of `approx.ptx`: what a GPU gives for approximate instructions, to be recorded.

use crate::contract::{Contract, ContractInfo, Geometry, Kernel, contract};
use crate::error::Result;
use crate::pointer::{Ptr, PtrMut};

contract! {
    /// `ex2[i] = ex2.approx.ftz.f32(x[i])`, and `rcp` likewise, as bits.
    pub struct Approx: APPROX, "dis_approx" {
        x: Ptr<u32>,
        ex2: PtrMut<u32>,
        rcp: PtrMut<u32>,
        n: usize = |k| k.x.len() as usize,
    }
    pub fn new;
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[Approx::INFO];

/// The instructions, in the order of the outputs.
pub const INSTRUCTIONS: [&str; 2] = ["ex2.approx.ftz.f32", "rcp.approx.ftz.f32"];

impl Kernel for Approx {
    fn fit(&mut self) -> Result<Geometry> {
        let n = self.x.len();
        self.ex2.holds(Self::NAME, "ex2", n)?;
        self.rcp.holds(Self::NAME, "rcp", n)?;
        Ok(Geometry::new([n.div_ceil(256) as u32, 1, 1], [256, 1, 1]))
    }
}
