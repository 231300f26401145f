//! Judging samples against a reference: features of both, metrics with intervals, likelihoods.
//!
//! ```
//! use dis_eval::{MeasureOptions, Metric, PixelFeatures, Side, extract, measure, open};
//!
//! // Any two data sets: folders, npz files, or as here embedded digits, held out and trained on.
//! let features = |spec: &str| -> dis_eval::Result<Side> {
//!     let data = open(&spec.parse()?)?;
//!     Ok(Side::Points(Box::new(extract(&PixelFeatures, &*data, 64, &mut |_| {})?)))
//! };
//! let (samples, reference) = (features("digits-held-out")?, features("digits-train")?);
//! let options = MeasureOptions { metrics: vec![Metric::Fid, Metric::Pr], ..Default::default() };
//! let report = measure(&samples, &reference, None, &options, &mut |_| {});
//! for figure in &report.figures {
//!     println!("{}: {:.3} {:?}", figure.name, figure.value, figure.interval);
//! }
//! assert_eq!(report.figures.len(), 3);
//! # Ok::<(), dis_eval::EvalError>(())
//! ```
//!
//! A [`FeatureNetwork`] turns images into [`Features`]; [`measure`] compares two [`Side`]s, points
//! or saved statistics, and gives a [`Report`]. [`plot`] draws lines as SVG.

mod bits;
pub mod classifier;
pub mod error;
mod features;
mod measure;
pub mod metrics;
pub mod plot;
mod report;
mod statistics;
#[cfg(test)]
mod tests;

pub use bits::{BitsOptions, BitsReport, BitsTerm, bits_per_dim};
pub use dis_data::{Dataset, open};
pub use error::{EvalError, Result};
pub use features::{
    ClassifierFeatures, FeatureBatch, FeatureNetwork, Features, PixelFeatures, extract,
    pixel_points, points, sha256_hex,
};
pub use measure::{MeasureOptions, Metric, Side, measure};
pub use report::{Figure, LeftOut, Report};
pub use statistics::SavedStatistics;
