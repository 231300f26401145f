//! A linear map `y = x W^T + b`.

use dis_tensor::{Backend, Layout, Reals, Result, Tokens, TokensMut, View, ViewMut};

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
        backend: &B,
        params: &Reals<B>,
        x: View<'_, B>,
        y: ViewMut<'_, B>,
    ) -> Result<()> {
        let bias = self.bias.map(|b| b.view(params));
        backend.gemm(x, false, self.weight.view(params), true, bias, false, y)
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
        backend.gemm(dy, true, x, false, None, true, self.weight.view_mut(grads))?;
        if let Some(bias) = self.bias {
            backend.add_column_sums(dy, bias.view_mut(grads))?;
        }
        Ok(())
    }

    /// `dx = dy W`, or `dx += dy W` when `accumulate`.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn backward_input<B: Backend>(
        &self,
        backend: &B,
        params: &Reals<B>,
        dy: View<'_, B>,
        accumulate: bool,
        dx: ViewMut<'_, B>,
    ) -> Result<()> {
        backend.gemm(
            dy,
            false,
            self.weight.view(params),
            false,
            None,
            accumulate,
            dx,
        )
    }
}

/// A buffer from the backend's pool with the layout it is used in.
#[derive(Debug)]
pub struct Scratch<B: Backend> {
    /// The memory.
    pub buf: Reals<B>,
    /// How it is laid out.
    pub layout: Layout,
}

impl<B: Backend> Scratch<B> {
    /// Memory for `layout`, contents unspecified.
    pub fn new(backend: &B, layout: Layout) -> Self {
        let len = layout.offset + layout.batch * layout.batch_stride;
        Self {
            buf: backend.alloc(len),
            layout,
        }
    }

    /// Dense memory of (batch, tokens, channels).
    pub fn dense(backend: &B, batch: usize, tokens: usize, channels: usize) -> Self {
        Self::new(backend, Layout::dense(batch, tokens, channels))
    }

    /// Dense memory of (batch, tokens, channels), zeroed.
    pub fn zeros(backend: &B, batch: usize, tokens: usize, channels: usize) -> Self {
        let layout = Layout::dense(batch, tokens, channels);
        Self {
            buf: backend.zeros(layout.elements()),
            layout,
        }
    }

    /// Dense memory of (batch, tokens, channels) with these values.
    pub fn from_f32(backend: &B, layout: Layout, data: &[f32]) -> Self {
        Self {
            buf: backend.from_f32(data),
            layout,
        }
    }

    /// The whole, to read.
    pub fn view(&self) -> View<'_, B> {
        Tokens::new(&self.buf, self.layout)
    }

    /// The whole, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_, B> {
        TokensMut::new(&mut self.buf, self.layout)
    }

    /// Columns `start .. start + count`, to read.
    pub fn columns(&self, start: usize, count: usize) -> View<'_, B> {
        Tokens::new(&self.buf, self.layout.columns(start, count))
    }

    /// Columns `start .. start + count`, to write.
    pub fn columns_mut(&mut self, start: usize, count: usize) -> ViewMut<'_, B> {
        TokensMut::new(&mut self.buf, self.layout.columns(start, count))
    }

    /// Tokens `start .. start + count` of every sample, to read.
    pub fn tokens(&self, start: usize, count: usize) -> View<'_, B> {
        Tokens::new(&self.buf, self.layout.token_range(start, count))
    }

    /// Tokens `start .. start + count` of every sample, to write.
    pub fn tokens_mut(&mut self, start: usize, count: usize) -> ViewMut<'_, B> {
        TokensMut::new(&mut self.buf, self.layout.token_range(start, count))
    }
}
