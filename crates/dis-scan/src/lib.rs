//! The selective scan and causal convolution of Mamba.
mod backend;
mod check;
pub mod cpu;
pub mod ops;
pub mod oracle;
pub use ops::*;
