//! Token matrices that own their memory.

use dis_tensor::{Backend, Layout, Reals, Tokens, TokensMut, View, ViewMut};

/// A token matrix in memory of its own, from the backend's pool: what [`Tokens`] views. Activations are such.
#[derive(Debug)]
pub struct TokenBuf<B: Backend> {
    /// The memory.
    pub buf: Reals<B>,
    /// How it is laid out.
    pub layout: Layout,
}

impl<B: Backend> TokenBuf<B> {
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
