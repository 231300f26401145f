//! What building, loading or running a model can refuse.

use std::path::PathBuf;

use dis_tensor::TensorError;

use crate::classes::ClassError;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A configuration that cannot be built.
    #[error("model configuration: {0}")]
    Config(String),
    /// An input that does not fit the model.
    #[error("model input: {0}")]
    Input(String),
    /// Classes that do not fit each other, or metadata that do not say what they are.
    #[error(transparent)]
    Classes(#[from] ClassError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A file could not be read or written, or is none of a known format.
    #[error(transparent)]
    File(#[from] dis_files::FileError),
    /// A file is not a valid checkpoint.
    #[error("{}: {what}", path.display())]
    Checkpoint {
        /// The file, or a description of where the bytes came from.
        path: PathBuf,
        /// What is wrong, naming the tensor or key.
        what: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ModelError>;
