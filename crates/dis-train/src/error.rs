//! What training can refuse.

use std::path::PathBuf;

use dis_data::DataError;
use serde::de::DeserializeOwned;

/// What is wrong with a configuration, naming the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{what}", origin.as_ref().map(|o| format!("{o}: ")).unwrap_or_default())]
pub struct ConfigError {
    /// The file, if it came from one.
    pub origin: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl ConfigError {
    /// Of a configuration that came from no file.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            origin: None,
            what: what.into(),
        }
    }

    /// Reads a TOML text, whose file `origin` names in errors.
    ///
    /// # Errors
    /// What is wrong, with the line and key.
    pub fn parse<T: DeserializeOwned>(text: &str, origin: &str) -> std::result::Result<T, Self> {
        toml::from_str(text).map_err(|e| {
            let message = e.message().replace('\n', " ");
            match e.span() {
                Some(span) => Self::at(text, origin, span.start, &message),
                None => Self {
                    origin: Some(origin.to_string()),
                    what: message,
                },
            }
        })
    }

    /// Of the place at byte `start` of a text.
    pub(crate) fn at(text: &str, origin: &str, start: usize, what: &str) -> Self {
        let before = text.as_bytes().iter().take(start);
        let line = before.filter(|&&byte| byte == b'\n').count() + 1;
        Self {
            origin: Some(origin.to_string()),
            what: format!("line {line}: {what}"),
        }
    }
}

/// Errors of training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A configuration file or option that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
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
    /// Samples could not be judged.
    #[error(transparent)]
    Eval(Box<dis_eval::EvalError>),
    /// A distance could not be computed.
    #[error(transparent)]
    Metric(#[from] dis_eval::metrics::MetricError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] dis_tensor::TensorError),
    /// Another process has the run.
    #[error(transparent)]
    Lock(#[from] dis_files::LockError),
    /// More memory than there is.
    #[error(transparent)]
    Memory(#[from] dis_tensor::machine::MemoryError),
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

impl From<dis_eval::EvalError> for TrainError {
    fn from(error: dis_eval::EvalError) -> Self {
        Self::Eval(Box::new(error))
    }
}

impl TrainError {
    /// Whether values became infinite or no numbers: the run diverged, and would again.
    pub fn is_divergence(&self) -> bool {
        match self {
            Self::NotFinite { .. } | Self::Diffusion(dis_diffusion::Error::NotFinite { .. }) => {
                true
            }
            Self::Pipeline(error) => error.is_divergence(),
            _ => false,
        }
    }

    pub(crate) fn config(what: impl Into<String>) -> Self {
        Self::Config(ConfigError::new(what))
    }
}

/// Result of training.
pub type Result<T> = std::result::Result<T, TrainError>;
