//! A checkpoint and a device in, images out: the network that samplers see, and drawing, changing,
//! inverting and interpolating images with it.

mod denoiser;
pub mod error;
mod pipeline;
mod repeat;
mod samples;
mod settings;

pub use denoiser::ModelDenoiser;
pub use error::{PipelineError, Result};
pub use pipeline::{Artist, Row, Task, Watched};
pub use samples::{SampleSpec, diffusion_options, generate, plan_for};
pub use settings::DiffusionConfig;
