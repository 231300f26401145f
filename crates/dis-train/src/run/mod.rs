//! A run: its directory, and the loop that fills it.

mod dir;
mod metadata;
mod metrics;
mod train;

pub use dir::{Manifest, RunDir};
pub use metadata::extra_metadata;
pub use metrics::{MetricsLog, read_metrics};
pub use train::{Observer, Outcome, Start, Started, train};
