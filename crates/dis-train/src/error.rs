//! What training can refuse.

use std::path::PathBuf;

use dis_data::DataError;

/// Errors of training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A configuration file or option that cannot be used.
    #[error("{}{what}", origin.as_ref().map(|o| format!("{o}: ")).unwrap_or_default())]
    Config {
        /// The file, if it came from one.
        origin: Option<String>,
        /// What is wrong, naming the key.
        what: String,
    },
    /// Data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] dis_files::FileError),
    /// The model could not be built, run, read or written.
    #[error(transparent)]
    Model(#[from] dis_model::ModelError),
    /// The diffusion could not be set up or run.
    #[error(transparent)]
    Diffusion(#[from] dis_diffusion::Error),
    /// Samples could not be drawn.
    #[error(transparent)]
    Pipeline(#[from] dis_pipeline::PipelineError),
    /// Classes that do not fit each other.
    #[error("{what}: {source}")]
    Classes {
        /// What they were compared for.
        what: &'static str,
        /// How they differ.
        source: Box<dis_model::ClassError>,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] dis_tensor::TensorError),
    /// Another process has the run.
    #[error(transparent)]
    Lock(#[from] dis_files::LockError),
    /// More memory than there is.
    #[error(transparent)]
    Memory(#[from] dis_tensor::machine::MemoryError),
    /// A file or folder of the run could not be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A run directory that cannot be used.
    #[error("{}: {what}", path.display())]
    RunDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// Training does not converge any more.
    #[error(
        "stopped at step {step}: the loss or gradient was not finite {in_a_row} times in a row; \
         the last checkpoint is intact, try a lower --lr"
    )]
    NotFinite {
        /// Step of the last failure.
        step: u64,
        /// How many there were.
        in_a_row: u32,
    },
}

impl TrainError {
    /// Whether values became infinite or no numbers: the run diverged, and would again.
    pub fn is_divergence(&self) -> bool {
        use dis_pipeline::PipelineError;
        matches!(
            self,
            Self::NotFinite { .. }
                | Self::Diffusion(dis_diffusion::Error::NotFinite { .. })
                | Self::Pipeline(PipelineError::Diffusion(
                    dis_diffusion::Error::NotFinite { .. }
                ))
        )
    }

    pub(crate) fn config(what: impl Into<String>) -> Self {
        Self::Config {
            origin: None,
            what: what.into(),
        }
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

/// Result of training.
pub type Result<T> = std::result::Result<T, TrainError>;
