//! Judging samples against a reference: features of both, metrics with intervals, likelihoods.
//!
//! A [`FeatureNetwork`] turns images into [`Features`]; [`measure`] compares two [`Side`]s, points
//! or saved statistics, and gives a [`Report`].

mod bits;
pub mod classifier;
pub mod error;
mod features;
mod measure;
pub mod metrics;
mod report;
mod statistics;
#[cfg(test)]
mod tests;

pub use bits::{BitsOptions, BitsReport, BitsTerm, bits_per_dim};
pub use error::{EvalError, Result};
pub use features::{
    ClassifierFeatures, FeatureBatch, FeatureNetwork, Features, PixelFeatures, extract,
    pixel_points, sha256_hex,
};
pub use measure::{MeasureOptions, Metric, Side, measure};
pub use report::{Figure, LeftOut, Report};
pub use statistics::SavedStatistics;
