#![doc = include_str!("../README.md")]
//!
//! # What is where
//!
//! [`selective_scan`], [`causal_conv1d`] and their gradients take `ndarray` views in (batch, length, channels)
//! order; [`selective_state_update`] and [`causal_conv1d_update`] go on, token by token, from a state that is kept.
//! B and C come in every form that models have ([`ScanMatrix`]).
//!
//! Models work on views of larger buffers through [`ScanBackend`]: [`ops`] has the operations with
//! their arguments, [`cpu`] the fast code on slices, [`oracle`] the same in float64 as plain loops. The
//! types of [`dis_tensor`] that their signatures name are exported from here too.
//!
//! # How it is fast
//!
//! Sixteen channels share a vector, so the recurrence needs no horizontal operation; their states
//! stay in registers, and B and C are broadcast. Tokens go in chunks of [`CHUNK`] through scratch in
//! first-level cache, in three passes: steps and inputs; the recurrence; the gate. The backward
//! recomputes states from checkpoints at every chunk. Samples and groups of channels run in
//! parallel; sums across them have a fixed order, so results do not depend on the number of
//! threads. A token's arithmetic does not depend on where in a chunk it stands, so a sequence in pieces has the
//! outputs of the whole, bit for bit; gradients of A, D and the bias of the steps are sums over tokens, and then differ in
//! the order of addition. `DIS_SIMD=portable|avx2|avx512` forces an instruction set.

mod arrays;
mod backend;
mod check;
pub mod cpu;
#[cfg(feature = "gpu")]
mod cuda;
pub mod ops;
pub mod oracle;

/// Arrays on the host.
pub use ndarray;

pub use arrays::{
    ConvGradients, ScanElement, ScanGradients, ScanMatrix, ScanOptions, ScanOutput, causal_conv1d,
    causal_conv1d_grad, causal_conv1d_update, selective_scan, selective_scan_grad,
    selective_state_update,
};
#[cfg(feature = "gpu")]
pub use dis_tensor::Cuda;
pub use dis_tensor::{
    Backend, Cpu, Layout, Reals, Reference, Result, Scalar, TensorError, Tokens, TokensMut, View,
    ViewMut,
};
pub use ops::{
    CHUNK, Conv, ConvGrads, Direction, Discretization, OneOfPair, Scan, ScanBackend, ScanGrads,
    ScanOut, ScanPair, ScanPairGrads, checkpoint_len,
};
