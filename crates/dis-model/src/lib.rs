//! The DiS diffusion backbone.
//!
//! Time, condition and noisy image patches are tokens of bidirectional Mamba blocks joined by long
//! skips; a linear decoder predicts noise and a diagonal covariance (arXiv 2402.05608, section 3).
//! [`DisModel`] is the architecture; its weights are a flat arena that the caller owns, on any
//! [`dis_scan::ScanBackend`].

mod backward;
pub mod checkpoint;
pub mod classes;
pub mod config;
pub mod cost;
mod embed;
pub mod error;
mod inputs;
mod memory;
pub mod model;
pub mod time;

pub use checkpoint::{Checkpoint, Metadata};
pub use classes::{ClassError, Classes};
pub use config::{
    AttentionOptions, ConditionKind, Conditioning, DisConfig, MixerKind, SsmConfig, ZOO,
};
pub use error::{ModelError, Result};
pub use inputs::ModelInputs;
pub use model::{Condition, DisModel, LABEL_TABLE, ModelInput, SavedModel};
