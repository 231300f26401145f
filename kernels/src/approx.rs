//! Launch contract of `approx.ptx`: what a GPU gives for approximate instructions, to be recorded.

use crate::contract;
use crate::contract::{ContractInfo, Geometry, Params, Ptr, PtrMut, Ready};
use crate::error::{KernelError, Result};

contract! {
    /// `ex2[i] = ex2.approx.ftz.f32(x[i])`, and `rcp` likewise, as bits.
    pub struct Approx: APPROX, "dis_approx" {
        x: Ptr<u32>,
        ex2: PtrMut<u32>,
        rcp: PtrMut<u32>,
        n: u32,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[Approx::INFO];

/// The instructions, in the order of the outputs.
pub const INSTRUCTIONS: [&str; 2] = ["ex2.approx.ftz.f32", "rcp.approx.ftz.f32"];

impl Approx {
    /// Checks the operands: a result of each instruction for every element of `x`.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(x: Ptr<u32>, ex2: PtrMut<u32>, rcp: PtrMut<u32>) -> Result<Ready<Self>> {
        const NAME: &str = "dis_approx";
        for (name, out) in [("ex2", ex2), ("rcp", rcp)] {
            if out.len() < x.len() {
                return Err(KernelError::OutOfBounds {
                    kernel: NAME,
                    name,
                    needed: x.len(),
                    len: out.len(),
                });
            }
        }
        let n = u32::try_from(x.len())
            .map_err(|_| crate::mat::shape(NAME, format!("{} elements", x.len())))?;
        let kernel = Self { x, ex2, rcp, n };
        let geometry = Geometry::new([n.div_ceil(256), 1, 1], [256, 1, 1]);
        Ok(Ready::new(kernel, geometry))
    }
}
