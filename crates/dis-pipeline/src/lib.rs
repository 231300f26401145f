//! A checkpoint and a device in, images out.
//!
//! ```
//! use dis_pipeline::{Checkpoint, Cpu, DisConfig, DisModel, Metadata, Pipeline, Settings};
//!
//! // `Pipeline::open("model.safetensors", Cpu::new())` reads a file; here is a model that was never
//! // trained: grey images of 8 x 8, patches of 2, width 16, two blocks.
//! let config = DisConfig::new(8, 2, 1, 16, 2);
//! let model = DisModel::new(config)?;
//! let weights = model.table().initial(0);
//! let checkpoint = Checkpoint { weights, metadata: Metadata::new(config), model };
//!
//! let pipeline = Pipeline::new(checkpoint, Cpu::new())?;
//! let settings = Settings { sampler: "dpmpp-2m".parse()?, steps: 4, ..Settings::default() };
//! let images = pipeline.draw(3, &[], &settings)?;
//! assert_eq!(images.dim(), (3, 1, 8, 8));
//! // Image i depends on (seed, i) alone, not on the batch.
//! let alone = Settings { batch_size: 1, ..settings };
//! assert_eq!(pipeline.draw(3, &[], &alone)?, images);
//! # Ok::<(), dis_pipeline::PipelineError>(())
//! ```
//!
//! * [`Pipeline`] holds a model's weights on a device and draws with [`Settings`].
//! * [`Artist`] draws batches: a [`Row`] for each image, and a [`Task`]: from noise, from given
//!   images (image to image, inpainting), or their inversion; rows may go between two noises or classes.
//! * [`ModelDenoiser`] is the network that samplers of dis-diffusion see; what it launches on a device is
//!   recorded once and repeated.
//! * [`diffusion_options`] reads from a checkpoint's metadata how it was trained, [`Settings::plan`] makes
//!   the steps of a sampler of it.

mod denoiser;
mod diffusion;
mod draw;
pub mod error;
mod pipeline;
mod repeat;
mod settings;

pub use denoiser::ModelDenoiser;
pub use diffusion::{DiffusionConfig, diffusion_options};
pub use dis_diffusion::{Guidance, Limit, Plan, SamplerSpec, Spacing};
pub use dis_model::{Checkpoint, Classes, DisConfig, DisModel, Metadata};
pub use dis_tensor::Cpu;
pub use draw::{Artist, Row, Task, Watch, Watched, unwatched};
pub use error::{PipelineError, Result};
pub use pipeline::Pipeline;
pub use settings::{Settings, usual_guidance};
