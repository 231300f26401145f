#![doc = include_str!("../README.md")]
//!
//! # What is where
//!
//! - [`Layout`], [`Tokens`], [`TokensMut`]: where a token matrix lies in a buffer. Columns, token ranges and samples
//!   are views.
//! - [`Backend`]: what a device must do. Every output buffer is the caller's; nothing allocates but [`Backend::alloc`],
//!   [`Backend::zeros`] and uploads, and those take from a pool. [`ImageOps`] adds a sampler's arithmetic, [`Recorder`]
//!   what repeats a sequence of launches.
//! - [`Cpu`]: vector code, chosen at run time ([`simd`]). The same bits on any number of threads, and for a sample alone
//!   or in a batch.
//! - [`Reference`]: the same operations as plain loops in float64, or on any [`Scalar`].
//! - [`random`]: draws addressed by (seed, purpose, sample, step), so that there is no generator to save.

pub mod backend;
mod block;
mod check;
pub mod cpu;
#[cfg(feature = "gpu")]
pub mod cuda;
pub mod error;
pub mod host;
mod image_size;
pub mod images;
pub mod layout;
mod learning_rate;
pub mod likelihood;
pub mod loss;
pub mod machine;
pub mod operands;
mod pool;
pub mod random;
pub mod record;
pub mod reference;
pub mod scalar;

pub use dis_simd as simd;

pub use backend::{Backend, Buffer, Element, Precision, Reals, View, ViewMut};
pub use cpu::Cpu;
#[cfg(feature = "gpu")]
pub use cuda::Cuda;
pub use error::{Result, TensorError};
pub use host::HostBuf;
pub use image_size::ImageSize;
pub use images::ImageOps;
pub use layout::{Layout, Tokens, TokensMut, same_shape};
pub use learning_rate::published_learning_rate;
pub use loss::{BoundStep, LossInputs, LossStep};
pub use operands::{
    Accum, AdamState, AdamW, AddNorm, AddNormBackward, Matrix, Norm, NormGrads, NormKind,
    PatchGrid, PatchOrder,
};
pub use pool::{PoolStats, pooled_bytes};
pub use record::Recorder;
pub use reference::Reference;
pub use scalar::Scalar;
