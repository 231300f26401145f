//! The DiS diffusion backbone.
//!
//! Time, condition and noisy image patches are tokens of bidirectional Mamba blocks joined by long
//! skips; a linear decoder predicts noise and a diagonal covariance (arXiv 2402.05608, section 3).
//!
//! ```
//! use dis_model::{Backend, Condition, Cpu, Ctx, DisConfig, DisModel, ModelInput};
//!
//! // Images of 8 x 8 in grey, patches of 2, width 16, two blocks; `DisConfig::zoo("DiS-S/2", 32, 3)` is published.
//! let model = DisModel::new(DisConfig::new(8, 2, 1, 16, 2))?;
//! let cpu = Cpu::new();
//! let params = cpu.from_f32(&model.table().initial(0));
//! let image = cpu.from_f32(&[0.5; 64]);
//! let input = ModelInput { image: &image, t: &[500.0], condition: Condition::None, drop_path: None };
//! let out = cpu.to_f32(&model.forward(Ctx::new(&cpu, &params), &input)?);
//! // Noise and what the variance is made of, a channel each.
//! assert_eq!(out.len(), 2 * 64);
//! # Ok::<(), dis_model::ModelError>(())
//! ```
//!
//! * [`DisModel`] is an architecture, [`DisConfig`] its numbers; weights are a flat arena that the caller
//!   owns, on any [`ModelBackend`], laid out by [`DisModel::table`] under the published names.
//! * [`DisModel::forward_saved`] and [`DisModel::backward`] give gradients.
//! * [`Checkpoint`] reads and writes `.safetensors` and the `.pt` files of the published code.
//! * [`Classes`] are the names of a model's classes; [`cost`] counts multiply-adds and memory.

mod backend;
mod backward;
pub mod checkpoint;
pub mod classes;
pub mod config;
pub mod cost;
mod embed;
pub mod error;
mod init;
mod inputs;
mod memory;
pub mod model;
pub mod positions;
pub mod time;

pub use backend::ModelBackend;
pub use checkpoint::{Checkpoint, Metadata};
pub use classes::{ClassError, Classes};
pub use config::{
    AttentionOptions, ConditionKind, Conditioning, DisConfig, MixerKind, SsmConfig, ZOO,
};
pub use dis_ssm::Ctx;
pub use dis_tensor::ImageSize;
pub use dis_tensor::{Backend, Cpu, Reals, TensorError};
pub use error::{ModelError, Result};
pub use init::ModelInit;
pub use inputs::ModelInputs;
pub use model::{Condition, DisModel, LABEL_TABLE, ModelInput, SavedModel};
