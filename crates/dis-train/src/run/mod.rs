//! A run: its directory, and the loop that fills it.

mod data;
mod dir;
mod found;
mod looks;
mod metadata;
mod metrics;
mod pacing;
mod reference;
mod report;
mod samples;
mod steps;
mod train;
mod transfer;

pub use data::{DataChange, DataPolicy};
pub use dir::{Manifest, RunDir};
pub use found::{Found, find_weights, is_checkpoint};
pub use metadata::extra_metadata;
pub use metrics::{Distance, Look, MetricsLog, When, read_metrics};
pub(crate) use train::check_memory;
pub use train::{Observer, Outcome, Session, Standing, Start, Started, train};
pub use transfer::{KeptClasses, Transfer, transfer};
