//! Studies: one file describes a grid of runs, which are trained and judged one after another, and
//! reported together.
//!
//! ```
//! use dis_study::{StudyConfig, expand};
//!
//! let study = StudyConfig::parse(
//!     r#"
//!     title = "Does width help?"
//!     design = "one_factor"
//!     seeds = [0, 1, 2]
//!     [evaluate]
//!     every = 20
//!     samples = 60
//!     [base.model]
//!     patch_size = 4
//!     embed_dim = 16
//!     depth = 2
//!     [base.data]
//!     spec = "digits-train"
//!     [base.train]
//!     steps = 40
//!     [[axis]]
//!     name = "width"
//!     key = "model.embed_dim"
//!     values = [16, 32]
//!     "#,
//!     "width.toml",
//! )?;
//! let names: Vec<String> = expand(&study)?.variants.into_iter().map(|v| v.name).collect();
//! assert_eq!(names.len(), 2, "{names:?}");
//! # Ok::<(), dis_study::StudyError>(())
//! ```
//!
//! [`run_study`] trains and judges, [`write_report`] makes tables, plots and pictures of:
//!
//! ```text
//! study.toml                     the description, as it was read
//! runs/VARIANT/seed-0/           an ordinary run directory, and beside its checkpoints
//!     eval/step-00000250.json    figures of samples at that step
//!     samples/step-00000250.png  some of them
//!     ending.json                why it came to no result, where it did not
//! REPORT.md, plots/*.svg, samples/*.png
//! ```
//!
//! A study may be killed at any time: the same command goes on, and no finished run is repeated.
//! A run that diverges or fails is reported and leaves the others alone.
//! The same description gives the same report, byte for byte.

mod config;
mod cost;
mod ending;
pub mod error;
mod evaluate;
mod execute;
mod expand;
mod plots;
mod report;
mod results;
mod statistics;

pub use config::{Axis, Case, Design, Evaluate, StudyConfig};
pub use cost::{CostPoint, cost_by_tokens};
pub use ending::Ending;
pub use error::{Result, StudyError};
pub use evaluate::{Evaluation, Judge};
pub use execute::{Failure, StudyEnd, StudyObserver, run_dir, run_study};
pub use expand::{Grid, GridAxis, Variant, expand};
pub use report::{Written, write_report};
pub use statistics::{Summary, Verdict, verdict};
