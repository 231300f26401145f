//! One suite for every backend: the float32 CPU backend, and with feature `sim` the GPU backend on
//! the simulator, against the float64 reference, and the reference's derivatives against finite
//! differences.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "sim")]
mod bf16;
mod draw;
mod elementwise;
mod errors;
mod gemm;
#[cfg(feature = "sim")]
mod gpu;
mod gradients;
mod images;
mod loss;
mod norm;
mod operation;
mod optim;
mod pool;
mod reduce;
mod tables;
