//! The selective scan and the causal convolution of Mamba (Gu and Dao, arXiv 2312.00752) on a CPU:
//! forward and backward, both directions, both discretisations.
//!
//! With `ndarray` arrays in (batch, length, channels) order, and nothing else of the workspace:
//!
//! ```
//! use dis_scan::{Direction, ScanOptions, causal_conv1d, selective_scan, selective_scan_grad};
//! use ndarray::{Array1, Array2, Array3};
//!
//! let (batch, length, channels, states) = (2, 50, 24, 16);
//! let wave = |n, k: f32| Array3::from_shape_fn((batch, length, n), |(b, l, c)| {
//!     (k * (1 + b + l + 3 * c) as f32).sin()
//! });
//! let (x, delta, z) = (wave(channels, 0.3), wave(channels, 0.7), wave(channels, 1.1));
//! let (b, c) = (wave(states, 0.2), wave(states, 0.5));
//! // A is negative: the states decay.
//! let a = Array2::from_shape_fn((channels, states), |(_, n)| -(1.0 + n as f32));
//! let (d, delta_bias) = (Array1::ones(channels), Array1::from_elem(channels, -2.0));
//!
//! let taps = Array2::from_elem((channels, 4), 0.25);
//! let u = causal_conv1d(x.view(), taps.view(), None, true, Direction::Forward)?;
//! let options = ScanOptions {
//!     d: Some(d.view()),
//!     z: Some(z.view()),
//!     delta_bias: Some(delta_bias.view()),
//!     delta_softplus: true,
//!     ..ScanOptions::default()
//! };
//! let y = selective_scan(u.view(), delta.view(), a.view(), b.view(), c.view(), &options)?;
//! assert_eq!(y.dim(), (batch, length, channels));
//!
//! // Gradients of sum(y^2) / 2, whose derivative by y is y.
//! let grads = selective_scan_grad(
//!     u.view(), delta.view(), a.view(), b.view(), c.view(), &options, y.view(),
//! )?;
//! assert_eq!(grads.a.dim(), (channels, states));
//! # Ok::<(), dis_tensor::TensorError>(())
//! ```
//!
//! Models work on views of larger buffers through [`ScanBackend`]: [`ops`] has the operations with
//! their arguments, [`cpu`] the fast code on slices, [`oracle`] the same in float64 as plain loops.
//!
//! # How it is fast
//!
//! Sixteen channels share a vector, so the recurrence needs no horizontal operation; their states
//! stay in registers, and B and C are broadcast. Tokens go in chunks of [`CHUNK`] through scratch in
//! first-level cache, in three passes: steps and inputs; the recurrence; the gate. The backward
//! recomputes states from checkpoints at every chunk. Samples and groups of channels run in
//! parallel; sums across them have a fixed order, so results do not depend on the number of
//! threads. `DIS_SIMD=portable|avx2|avx512` forces an instruction set.

mod arrays;
mod backend;
mod check;
pub mod cpu;
#[cfg(feature = "gpu")]
mod cuda;
pub mod ops;
pub mod oracle;

pub use arrays::{
    ConvGradients, ScanGradients, ScanOptions, causal_conv1d, causal_conv1d_grad, selective_scan,
    selective_scan_grad,
};
pub use ops::{
    CHUNK, Conv, ConvGrads, Direction, Discretization, OneOfPair, Scan, ScanBackend, ScanGrads,
    ScanOut, ScanPair, ScanPairGrads, checkpoint_len,
};
