//! The selective scan and causal convolution of Mamba.
pub mod ops;
pub use ops::*;
