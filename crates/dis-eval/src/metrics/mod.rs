//! How good samples are: distances between sets of points on the host. Points are rows of a matrix
//! (n, d): pixels, or the features of some network.

mod bootstrap;
mod copies;
mod digits;
mod error;
mod frechet;
mod inception;
mod kernel;
mod manifold;
mod moments;
mod neighbours;
#[cfg(test)]
mod recorded;

pub use bootstrap::{Bootstrap, Drawn, Interval};
pub use copies::CopyRule;
pub use digits::{DigitsLimits, DigitsReport, digits_check};
pub use error::{MetricError, Result};
pub use frechet::{Statistics, frechet_distance};
pub use inception::{InceptionScore, inception_score, softmax};
pub use kernel::{KernelDistance, KernelOptions, kernel_distance, squared_discrepancy};
pub use manifold::{
    BallOptions, Balls, DensityCoverage, PrecisionRecall, balls, density_coverage, mean,
    precision_recall,
};
pub use neighbours::{
    coverage, knn_accuracy, knn_classify, leave_one_out_accuracy, nearest_distances,
    nearest_other_distances, percentile,
};
