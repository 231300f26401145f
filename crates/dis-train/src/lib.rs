//! Configuration, trainer and exact resume of DiS models.
//!
//! ```
//! use dis_train::RunConfig;
//!
//! // A preset, or `RunConfig::load("run.toml")`; the model is completed from the data.
//! let mut config = RunConfig::preset("digits")?;
//! config.train.steps = 100;
//! let data = dis_train::open(&config.data.spec.parse()?)?;
//! let model = config.resolve(&*data)?;
//! assert_eq!((model.channels, data.len()), (1, 1500));
//! // What `config.toml` of a run says, and reads again.
//! assert_eq!(RunConfig::parse(&config.to_toml()?, "run.toml")?, config);
//! # Ok::<(), dis_train::TrainError>(())
//! ```
//!
//! * [`run::train`] is the whole of `dis train`: it takes a [`RunConfig`], fills a run directory and can be
//!   stopped and continued at any moment with the same result, bit for bit.
//! * [`plan::plan`] makes a configuration from the data and a time: it times models on this machine.
//! * [`Trainer`] makes one step of a batch: gradients, AdamW, moving average.
//! * [`run::RunDir`] is a run on disk: configuration, metrics, checkpoints with their hashes.

mod budget;
mod clock;
pub mod config;
pub mod error;
pub mod pace;
mod partial;
pub mod plan;
pub mod run;
pub mod schedule;
pub mod trainer;

pub use budget::{Budget, in_words};
pub use clock::{Clock, WallClock};
pub use config::RunConfig;
pub use dis_data::{Dataset, open};
pub use error::{ConfigError, Result, TrainError};
pub use partial::Partial;
pub use trainer::{StepReport, TrainState, Trainer};
