//! What every part of a network runs on.

use dis_tensor::{Backend, Reals};

/// A backend, and the arena of parameters in its memory.
#[derive(Debug)]
pub struct Ctx<'a, B: Backend> {
    /// The device.
    pub backend: &'a B,
    /// All parameters of the network, as its [`ParamTable`](crate::ParamTable) lays them out.
    pub params: &'a Reals<B>,
}

impl<'a, B: Backend> Ctx<'a, B> {
    /// Both.
    pub fn new(backend: &'a B, params: &'a Reals<B>) -> Self {
        Self { backend, params }
    }
}

impl<B: Backend> Clone for Ctx<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B: Backend> Copy for Ctx<'_, B> {}
