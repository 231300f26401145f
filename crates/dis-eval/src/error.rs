//! What judging can refuse.

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
    /// A likelihood could not be computed.
    #[error(transparent)]
    Diffusion(#[from] dis_diffusion::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] dis_tensor::TensorError),
}

impl EvalError {
    /// Something that does not fit, in words.
    pub fn config(what: impl Into<String>) -> Self {
        Self::Invalid(what.into())
    }
}

/// Result of evaluation.
pub type Result<T> = std::result::Result<T, EvalError>;
