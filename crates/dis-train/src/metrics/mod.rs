//! How good samples are: distances between sets of points on the host. Points are rows of a matrix
//! (n, d): pixels, or the features of some network.

mod digits;
mod error;
mod frechet;
mod neighbours;

pub use digits::{DigitsLimits, DigitsReport, digits_check};
pub use error::{MetricError, Result};
pub use frechet::{Statistics, frechet_distance};
pub use neighbours::{
    copy_rate, copy_threshold, coverage, knn_accuracy, knn_classify, leave_one_out_accuracy,
    nearest_distances, nearest_other_distances, percentile,
};
