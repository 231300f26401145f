//! A linear map `y = x W^T + b`.

use dis_tensor::{Accum, Backend, Reals, Result, View, ViewMut};

use crate::ctx::Ctx;
use crate::params::{Init, Param, ParamTable};

/// Weight (out, in) and optional bias (out) of a linear map.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// (out, in).
    pub weight: Param,
    /// (out).
    pub bias: Option<Param>,
}

impl Linear {
    /// Adds `{name}.weight` and, if asked for, `{name}.bias` (starting at zero).
    pub fn new(
        table: &mut ParamTable,
        name: &str,
        inputs: usize,
        outputs: usize,
        bias: bool,
        init: Init,
    ) -> Self {
        let weight = table.add_weight(format!("{name}.weight"), [outputs, inputs], init);
        let bias = bias.then(|| table.add(format!("{name}.bias"), &[outputs], Init::Zeros));
        Self { weight, bias }
    }

    /// `y = x W^T + b`.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn forward<B: Backend>(
        &self,
        ctx: Ctx<'_, B>,
        x: View<'_, B>,
        y: ViewMut<'_, B>,
    ) -> Result<()> {
        let Ctx { backend, params } = ctx;
        let bias = self.bias.map(|b| b.view(params));
        let weight = self.weight.view(params);
        backend.gemm(x, weight.t(), bias, Accum::Replace, y)
    }

    /// Adds the gradients of weight and bias to `grads`.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn backward_params<B: Backend>(
        &self,
        backend: &B,
        x: View<'_, B>,
        dy: View<'_, B>,
        grads: &mut Reals<B>,
    ) -> Result<()> {
        backend.gemm(dy.t(), x, None, Accum::Add, self.weight.view_mut(grads))?;
        if let Some(bias) = self.bias {
            backend.add_column_sums(dy, bias.view_mut(grads))?;
        }
        Ok(())
    }

    /// `dx = dy W`, or `dx += dy W`.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn backward_input<B: Backend>(
        &self,
        ctx: Ctx<'_, B>,
        dy: View<'_, B>,
        accum: Accum,
        dx: ViewMut<'_, B>,
    ) -> Result<()> {
        let Ctx { backend, params } = ctx;
        backend.gemm(dy, self.weight.view(params), None, accum, dx)
    }
}
