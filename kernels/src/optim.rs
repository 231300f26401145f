//! Launch contracts of `optim.ptx`.

use crate::contract::{Contract, ContractInfo, Geometry, Kernel, contract};
use crate::error::Result;
use crate::pointer::{Ptr, PtrMut};

contract! {
    /// Sums of squares of stretches, in float64; `partial` has room for [`norm_partials`].
    pub struct SquareSums: OPTIM, "dis_square_sums" {
        x: Ptr<f32>,
        n: u64 = |k| k.x.len(),
        stretch: u64 = |k| k.x.len().div_ceil((norm_partials(k.x.len()) as u64).max(1)),
        partial: PtrMut<f64>,
    }
    pub fn new;
}
contract! {
    /// The root of the sum of `count` partial sums.
    pub struct NormFinish: OPTIM, "dis_norm_finish" {
        partial: Ptr<f64>, count: usize,
        out: PtrMut<f32>,
    }
    pub fn new;
}
contract! {
    /// AdamW, clipping and moving average in one pass, over arenas of as many elements as `params`.
    pub struct AdamW: OPTIM, "dis_adamw" {
        /// Parameters.
        pub params: PtrMut<f32>,
        /// Gradients.
        pub grads: Ptr<f32>,
        /// First moments.
        pub m: PtrMut<f32>,
        /// Second moments.
        pub v: PtrMut<f32>,
        /// Moving average.
        pub ema: PtrMut<f32>,
        /// One element: the norm of the gradients.
        pub grad_norm: Ptr<f32>,
        n: u64 = |k| k.params.len(),
        /// Multiplies gradients.
        pub grad_scale: f64,
        /// Largest norm, if there is one.
        pub max_norm: Option<f64>,
        clips: bool = |k| k.max_norm.is_some(),
        /// 1 - lr * weight decay.
        pub keep: f32,
        /// 1 - beta1.
        pub one_minus_beta1: f32,
        /// beta2.
        pub beta2: f32,
        /// 1 - beta2.
        pub one_minus_beta2: f32,
        /// lr / (1 - beta1^t).
        pub step: f32,
        /// 1 / sqrt(1 - beta2^t).
        pub inverse_root: f32,
        /// Added to the root.
        pub eps: f32,
        /// Decay of the moving average.
        pub ema_decay: f32,
        /// 1 - that.
        pub one_minus_ema: f32,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[SquareSums::INFO, NormFinish::INFO, AdamW::INFO];

/// Most stretches of a global norm.
const STRETCHES: u64 = 1024;

/// Fewest elements of a stretch, unless there are fewer altogether.
const STRETCH: u64 = 4096;

/// Number of partial sums that the norm of `n` elements takes.
pub fn norm_partials(n: u64) -> usize {
    n.div_ceil(STRETCH).min(STRETCHES) as usize
}

impl Kernel for SquareSums {
    fn fit(&mut self) -> Result<Geometry> {
        let count = norm_partials(self.x.len()) as u64;
        self.partial.holds(Self::NAME, "partial", count)?;
        Ok(Geometry::new([count as u32, 1, 1], [256, 1, 1]))
    }
}

impl Kernel for NormFinish {
    fn fit(&mut self) -> Result<Geometry> {
        self.partial
            .holds(Self::NAME, "partial", self.count as u64)?;
        self.out.holds(Self::NAME, "out", 1)?;
        Ok(Geometry::new([1, 1, 1], [256, 1, 1]))
    }
}

impl Kernel for AdamW {
    fn fit(&mut self) -> Result<Geometry> {
        let n = self.params.len();
        self.grads.holds(Self::NAME, "grads", n)?;
        for (name, arena) in [("m", self.m), ("v", self.v), ("ema", self.ema)] {
            arena.holds(Self::NAME, name, n)?;
        }
        self.grad_norm.holds(Self::NAME, "grad_norm", 1)?;
        // Enough blocks to fill any GPU several times; each then walks the arenas.
        let blocks = n.div_ceil(256).min(4096) as u32;
        Ok(Geometry::new([blocks, 1, 1], [256, 1, 1]))
    }
}
