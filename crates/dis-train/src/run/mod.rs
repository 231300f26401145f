//! A run: its directory, and the loop that fills it.

mod dir;
mod draw;
mod metrics;
mod samples;
mod train;

pub use dir::{Manifest, RunDir};
pub use draw::{Artist, Row, Task, Watched};
pub use metrics::{MetricsLog, read_metrics};
pub use samples::{SampleSpec, diffusion_options, extra_metadata, generate, plan_for};
pub use train::{Observer, Outcome, Start, Started, train};
