//! One suite for every host backend: the float32 CPU backend against the float64 reference, and
//! the reference's derivatives against finite differences.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod draw;
mod elementwise;
mod errors;
mod gemm;
mod gradients;
mod norm;
mod operation;
mod optim;
mod pool;
mod reduce;
mod tables;
