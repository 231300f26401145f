//! Arrays on a device for DiS: the token-matrix layout, the [`Backend`] trait, its CPU
//! implementation and a naive float64 one that serves as oracle, and counter-based random numbers.

pub mod backend;
pub mod error;
pub mod layout;
pub mod random;

pub use backend::{
    AdamState, AdamW, Backend, Buffer, Element, Norm, NormGrads, NormKind, PatchGrid, PatchOrder,
    Reals, View, ViewMut,
};
pub use error::{Result, TensorError};
pub use layout::{Layout, Tokens, TokensMut, same_shape};
