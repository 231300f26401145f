//! What a study can refuse.

use std::path::PathBuf;

use dis_train::ConfigError;

/// Errors of studies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StudyError {
    /// A description that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A run could not be trained.
    #[error(transparent)]
    Train(#[from] dis_train::TrainError),
    /// A sampler or its steps are not among those that there are.
    #[error(transparent)]
    Diffusion(#[from] dis_diffusion::Error),
    /// Samples could not be drawn.
    #[error(transparent)]
    Pipeline(#[from] dis_pipeline::PipelineError),
    /// Samples could not be judged.
    #[error(transparent)]
    Eval(#[from] dis_eval::EvalError),
    /// Data could not be read.
    #[error(transparent)]
    Data(#[from] dis_data::DataError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] dis_files::FileError),
    /// A model could not be built, read or written.
    #[error(transparent)]
    Model(#[from] dis_model::ModelError),
    /// A metric could not be computed.
    #[error(transparent)]
    Metric(#[from] dis_eval::metrics::MetricError),
    /// Another process has the study.
    #[error(transparent)]
    Lock(#[from] dis_files::LockError),
    /// More memory than there is.
    #[error(transparent)]
    Memory(#[from] dis_tensor::machine::MemoryError),
    /// A file or folder of the study that cannot be used.
    #[error("{}: {what}", path.display())]
    Place {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
}

impl StudyError {
    /// Whether values became infinite or no numbers: the run diverged, and would again.
    pub(crate) fn is_divergence(&self) -> bool {
        use dis_diffusion::Error;
        use dis_eval::{EvalError, metrics::MetricError};
        match self {
            Self::Train(error) => error.is_divergence(),
            Self::Pipeline(error) => error.is_divergence(),
            Self::Diffusion(Error::NotFinite { .. })
            | Self::Metric(MetricError::NotFinite { .. })
            | Self::Eval(EvalError::Metric(MetricError::NotFinite { .. })) => true,
            _ => false,
        }
    }

    pub(crate) fn config(what: impl Into<String>) -> Self {
        Self::Config(ConfigError::new(what))
    }
}

/// Result of studies.
pub type Result<T> = std::result::Result<T, StudyError>;
