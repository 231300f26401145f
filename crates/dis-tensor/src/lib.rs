//! Arrays on a device for DiS: the token-matrix layout, the [`Backend`] trait, its CPU
//! implementation and a naive float64 one that serves as oracle, and counter-based random numbers.

pub mod backend;
mod block;
mod check;
pub mod cpu;
#[cfg(feature = "gpu")]
pub mod cuda;
pub mod error;
pub mod host;
pub mod images;
pub mod layout;
mod learning_rate;
pub mod likelihood;
pub mod loss;
mod pool;
pub mod random;
pub mod record;
pub mod reference;
pub mod scalar;
pub mod simd;

pub use backend::{
    AdamState, AdamW, Backend, Buffer, Element, Norm, NormGrads, NormKind, PatchGrid, PatchOrder,
    Precision, Reals, View, ViewMut,
};
pub use cpu::Cpu;
#[cfg(feature = "gpu")]
pub use cuda::Cuda;
pub use error::{Result, TensorError};
pub use host::HostBuf;
pub use images::ImageOps;
pub use layout::{Layout, Tokens, TokensMut, same_shape};
pub use learning_rate::published_learning_rate;
pub use loss::{BoundStep, LossInputs, LossStep};
pub use pool::{PoolStats, pooled_bytes};
pub use record::Recorder;
pub use reference::Reference;
pub use scalar::Scalar;
