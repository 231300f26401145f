//! The bidirectional Mamba mixer (and self-attention beside it, for comparison), the block around
//! it, and parameters by name.
//!
//! Forward and backward passes are written by hand over any [`dis_scan::ScanBackend`]; weights and
//! gradients live in flat arenas laid out by a [`ParamTable`].

pub mod attention;
pub mod block;
mod config;
pub mod linear;
pub mod mixer;
mod mixing;
pub mod params;

pub use attention::{Attention, AttentionConfig, SavedAttention};
pub use block::{Block, BlockConfig, BlockGrads, BlockInput, NormParams, SavedBlock, SkipKind};
pub use config::{MixerConfig, MixerInit};
pub use linear::{Linear, Scratch};
pub use mixer::{Mixer, SavedMixer};
pub use mixing::{Mixing, MixingConfig};
pub use params::{Init, Param, ParamSpec, ParamTable};
