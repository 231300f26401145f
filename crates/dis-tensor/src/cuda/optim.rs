//! Global norm and AdamW.

use dis_kernels::optim::{self, NormFinish, SquareSums, norm_partials};
use dis_kernels::{Driver, Kernel};

use super::Cuda;
use super::buffer::DeviceBuf;
use crate::error::Result;
use crate::operands::{AdamState, AdamW};

impl<D: Driver> Cuda<D> {
    pub(super) fn norm_of(&self, x: &DeviceBuf<D, f32>, out: &mut DeviceBuf<D, f32>) -> Result<()> {
        const OP: &str = "global_norm";
        let count = norm_partials(x.ptr().len());
        let scratch = self.scratch::<f64>(OP, count)?;
        self.launch(OP, SquareSums::new(x.ptr(), scratch.ptr_mut()))?;
        self.launch(OP, NormFinish::new(scratch.ptr(), count, out.ptr_mut()))
    }

    pub(super) fn update(&self, state: AdamState<'_, DeviceBuf<D, f32>>, s: &AdamW) -> Result<()> {
        let t = s.step as f64;
        // libm: powf and the like differ between platforms.
        let correction1 = 1.0 - libm::pow(s.beta1, t);
        let correction2 = 1.0 - libm::pow(s.beta2, t);
        let kernel = optim::AdamW {
            params: state.params.ptr_mut(),
            grads: state.grads.ptr(),
            m: state.m.ptr_mut(),
            v: state.v.ptr_mut(),
            ema: state.ema.ptr_mut(),
            grad_norm: state.grad_norm.ptr(),
            grad_scale: s.grad_scale,
            max_norm: s.max_grad_norm,
            keep: (1.0 - s.lr * s.weight_decay) as f32,
            one_minus_beta1: (1.0 - s.beta1) as f32,
            beta2: s.beta2 as f32,
            one_minus_beta2: (1.0 - s.beta2) as f32,
            step: (s.lr / correction1) as f32,
            inverse_root: (1.0 / correction2.sqrt()) as f32,
            eps: s.eps as f32,
            ema_decay: s.ema_decay as f32,
            one_minus_ema: (1.0 - s.ema_decay) as f32,
        };
        self.launch("adamw", kernel.ready())
    }
}
