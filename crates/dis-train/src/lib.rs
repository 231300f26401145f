//! Configuration, trainer and exact resume of DiS models.
//!
//! [`run::train`] is the whole of `dis train`: it reads a [`config::RunConfig`], fills a run
//! directory and can be stopped and continued at any moment with the same result, bit for bit.

pub mod config;
pub mod error;
pub mod run;
pub mod schedule;
pub mod trainer;

pub use config::RunConfig;
pub use error::{Result, TrainError};
pub use trainer::{StepReport, TrainState, Trainer};
