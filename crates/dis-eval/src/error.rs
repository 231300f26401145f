//! What judging can refuse.

use std::path::PathBuf;

/// Errors of evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Images, features, settings or files that do not fit together.
    #[error("{0}")]
    Invalid(String),
    /// Data could not be read.
    #[error(transparent)]
    Data(#[from] dis_data::DataError),
    /// A file could not be read or written, or is none of a known format.
    #[error(transparent)]
    File(#[from] dis_files::FileError),
    /// A metric could not be computed.
    #[error(transparent)]
    Metric(#[from] crate::metrics::MetricError),
    /// A network could not be built, run, read or written.
    #[error(transparent)]
    Model(#[from] dis_model::ModelError),
    /// Classes that do not fit each other.
    #[error("{what}: {source}")]
    Classes {
        /// What they were compared for.
        what: &'static str,
        /// How they differ.
        source: Box<dis_model::ClassError>,
    },
    /// A likelihood could not be computed.
    #[error(transparent)]
    Diffusion(#[from] dis_diffusion::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] dis_tensor::TensorError),
    /// A file could not be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl EvalError {
    /// Something that does not fit, in words.
    pub fn config(what: impl Into<String>) -> Self {
        Self::Invalid(what.into())
    }

    pub(crate) fn io(
        path: impl Into<PathBuf>,
        action: &'static str,
        source: std::io::Error,
    ) -> Self {
        Self::Io {
            path: path.into(),
            action,
            source,
        }
    }
}

/// Result of evaluation.
pub type Result<T> = std::result::Result<T, EvalError>;
