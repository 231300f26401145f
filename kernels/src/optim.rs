//! Launch contracts of `optim.ptx`.

use crate::contract;
use crate::contract::{ContractInfo, Geometry, Params, Ptr, PtrMut, Ready};
use crate::error::{KernelError, Result};

contract! {
    /// Sums of squares of stretches, in float64.
    pub struct SquareSums: OPTIM, "dis_square_sums" {
        x: Ptr<f32>, n: u64, stretch: u64,
        partial: PtrMut<f64>,
    }
}
contract! {
    /// The root of the sum of the partial sums.
    pub struct NormFinish: OPTIM, "dis_norm_finish" {
        partial: Ptr<f64>, count: u32,
        out: PtrMut<f32>,
    }
}
contract! {
    /// AdamW, clipping and moving average in one pass.
    pub struct AdamW: OPTIM, "dis_adamw" {
        params: PtrMut<f32>, grads: Ptr<f32>, m: PtrMut<f32>, v: PtrMut<f32>, ema: PtrMut<f32>,
        grad_norm: Ptr<f32>,
        n: u64,
        grad_scale: f64, max_norm: f64, clips: u32,
        keep: f32, one_minus_beta1: f32, beta2: f32, one_minus_beta2: f32,
        step: f32, inverse_root: f32, eps: f32, ema_decay: f32, one_minus_ema: f32,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[SquareSums::INFO, NormFinish::INFO, AdamW::INFO];

/// Most stretches of a global norm.
const STRETCHES: u64 = 1024;

/// Fewest elements of a stretch, unless there are fewer altogether.
const STRETCH: u64 = 4096;

fn bounds(kernel: &'static str, name: &'static str, needed: u64, len: u64) -> Result<()> {
    if needed > len {
        return Err(KernelError::OutOfBounds {
            kernel,
            name,
            needed,
            len,
        });
    }
    Ok(())
}

/// Number of partial sums that the norm of `n` elements takes.
pub fn norm_partials(n: u64) -> usize {
    n.div_ceil(STRETCH).min(STRETCHES) as usize
}

impl SquareSums {
    /// Checks the operands; `partial` has room for [`norm_partials`].
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(x: Ptr<f32>, partial: PtrMut<f64>) -> Result<Ready<Self>> {
        let n = x.len();
        let count = norm_partials(n) as u64;
        bounds("dis_square_sums", "partial", count, partial.len())?;
        let kernel = Self {
            x,
            n,
            stretch: n.div_ceil(count.max(1)),
            partial,
        };
        Ok(Ready::new(
            kernel,
            Geometry::new([count as u32, 1, 1], [256, 1, 1]),
        ))
    }
}

impl NormFinish {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(partial: Ptr<f64>, count: usize, out: PtrMut<f32>) -> Result<Ready<Self>> {
        const NAME: &str = "dis_norm_finish";
        bounds(NAME, "partial", count as u64, partial.len())?;
        bounds(NAME, "out", 1, out.len())?;
        let kernel = Self {
            partial,
            count: count.min(STRETCHES as usize) as u32,
            out,
        };
        Ok(Ready::new(kernel, Geometry::new([1, 1, 1], [256, 1, 1])))
    }
}

/// The arenas of an optimizer.
#[derive(Clone, Copy, Debug)]
pub struct Arenas {
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
}

/// The numbers of an update, as `optim.ptx` names them.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// Multiplies gradients.
    pub grad_scale: f64,
    /// Largest norm, if there is one.
    pub max_norm: Option<f64>,
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

impl AdamW {
    /// Checks the operands: `n` elements in every arena.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(a: Arenas, x: Numbers) -> Result<Ready<Self>> {
        const NAME: &str = "dis_adamw";
        let n = a.params.len();
        bounds(NAME, "grads", n, a.grads.len())?;
        bounds(NAME, "m", n, a.m.len())?;
        bounds(NAME, "v", n, a.v.len())?;
        bounds(NAME, "ema", n, a.ema.len())?;
        bounds(NAME, "grad_norm", 1, a.grad_norm.len())?;
        let kernel = Self {
            params: a.params,
            grads: a.grads,
            m: a.m,
            v: a.v,
            ema: a.ema,
            grad_norm: a.grad_norm,
            n,
            grad_scale: x.grad_scale,
            max_norm: x.max_norm.unwrap_or(0.0),
            clips: x.max_norm.is_some().into(),
            keep: x.keep,
            one_minus_beta1: x.one_minus_beta1,
            beta2: x.beta2,
            one_minus_beta2: x.one_minus_beta2,
            step: x.step,
            inverse_root: x.inverse_root,
            eps: x.eps,
            ema_decay: x.ema_decay,
            one_minus_ema: x.one_minus_ema,
        };
        // Enough blocks to fill any GPU several times; each then walks the arenas.
        let blocks = n.div_ceil(256).min(4096) as u32;
        Ok(Ready::new(
            kernel,
            Geometry::new([blocks, 1, 1], [256, 1, 1]),
        ))
    }
}
