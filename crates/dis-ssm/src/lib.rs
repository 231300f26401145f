#![doc = include_str!("../README.md")]
//!
//! # What is where
//!
//! [`Mixer`] and [`Attention`] mix tokens; [`Block`] puts a long skip, the residual stream and a norm around either;
//! [`CausalMixer`] is Mamba's own, which goes on from a state that is kept. Each only knows which parameters of an
//! arena it uses: a [`ParamTable`] lays them out, and weights, gradients and moments are arenas of that layout. A
//! [`Ctx`] is a backend with the arena of parameters, a [`TokenBuf`] an activation.
//! `forward_saved` returns what `backward` needs, by value; `backward` consumes it. The types of dis-scan and
//! dis-tensor that signatures name are exported from here too.

pub mod attention;
pub mod block;
mod branch;
pub mod causal;
mod config;
mod ctx;
pub mod linear;
pub mod mixer;
mod mixing;
pub mod params;
mod token_buf;

pub use attention::{Attention, AttentionConfig, SavedAttention};
pub use block::{Block, BlockConfig, BlockGrads, BlockInput, NormParams, SavedBlock, SkipKind};
pub use causal::{CausalMixer, MixerState};
pub use config::{MixerConfig, MixerInit};
pub use ctx::Ctx;
pub use linear::Linear;
pub use mixer::{Mixer, SavedMixer};
pub use mixing::{Mixing, MixingConfig};
pub use params::{Init, Param, ParamSpec, ParamTable};
pub use token_buf::TokenBuf;

pub use dis_scan::{Discretization, ScanBackend};
pub use dis_tensor::{
    Accum, Backend, Cpu, Layout, Norm, NormGrads, NormKind, Reals, Reference, Result, TensorError,
    Tokens, TokensMut, View, ViewMut,
};
