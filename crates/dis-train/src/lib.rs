//! Datasets, trainer, exact resume and sample metrics for DiS.
//!
//! [`run::train`] is the whole of `dis train`: it reads a [`config::RunConfig`], fills a run
//! directory and can be stopped and continued at any moment with the same result, bit for bit.

pub mod classifier;
pub mod config;
pub mod data;
pub mod error;
pub mod eval;
pub mod metrics;
pub mod plot;
pub mod run;
pub mod schedule;
pub mod study;
pub mod trainer;

pub use config::RunConfig;
pub use error::{Result, TrainError};
pub use trainer::{StepReport, TrainState, Trainer};
