//! The one error type of metrics.

/// What a metric can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// Two operands do not fit together.
    #[error("{metric}: {left_name} has {left} {unit} but {right_name} has {right}")]
    Mismatch {
        /// Metric that was asked for.
        metric: &'static str,
        /// What is counted.
        unit: &'static str,
        /// First operand.
        left_name: &'static str,
        /// Its count.
        left: usize,
        /// Second operand.
        right_name: &'static str,
        /// Its count.
        right: usize,
    },
    /// Not enough points for the metric to be defined.
    #[error("{metric}: needs at least {needed} {name}, not {found}")]
    TooFew {
        /// Metric that was asked for.
        metric: &'static str,
        /// Which points.
        name: &'static str,
        /// How many it takes.
        needed: usize,
        /// How many there are.
        found: usize,
    },
    /// A value that is infinite or not a number.
    #[error("{metric}: {name}: number {row} has a value that is not finite")]
    NotFinite {
        /// Metric that was asked for.
        metric: &'static str,
        /// Which points.
        name: &'static str,
        /// Which of them.
        row: usize,
    },
    /// An argument outside its domain.
    #[error("{metric}: {what}")]
    Invalid {
        /// Metric that was asked for.
        metric: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The embedded data could not be read.
    #[error(transparent)]
    Data(#[from] dis_data::DataError),
}

impl MetricError {
    /// The same of a side that the metric did not know the name of.
    pub(crate) fn of(self, side: &'static str) -> Self {
        match self {
            Self::TooFew {
                metric,
                needed,
                found,
                ..
            } => Self::TooFew {
                metric,
                name: side,
                needed,
                found,
            },
            Self::NotFinite { metric, row, .. } => Self::NotFinite {
                metric,
                name: side,
                row,
            },
            other => other,
        }
    }
}

/// Result of metrics.
pub type Result<T> = std::result::Result<T, MetricError>;
