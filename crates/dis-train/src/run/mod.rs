//! A run: its directory, and the loop that fills it.

mod data;
mod dir;
mod found;
mod metadata;
mod metrics;
mod train;
mod transfer;

pub use data::{DataChange, DataPolicy};
pub use dir::{Manifest, RunDir};
pub use found::{Found, find_weights, is_checkpoint};
pub use metadata::extra_metadata;
pub use metrics::{MetricsLog, read_metrics};
pub use train::{Observer, Outcome, Start, Started, train};
pub use transfer::{KeptClasses, Transfer, transfer};
