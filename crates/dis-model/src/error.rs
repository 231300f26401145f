//! What building, loading or running a model can refuse.

use std::path::{Path, PathBuf};

use dis_tensor::TensorError;

use crate::checkpoint::{Holds, InferError};
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
    Classes(Box<ClassError>),
    /// Classes that do not fit each other where they were compared.
    #[error("{what}: {source}")]
    Compared {
        /// What they were compared for, such as an option.
        what: &'static str,
        /// How they differ.
        source: Box<ClassError>,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A file could not be read or written, or is none of a known format.
    #[error(transparent)]
    File(#[from] dis_files::FileError),
    /// A file of the optimizer's moments where weights are wanted.
    #[error(
        "{}: holds the {} moments of the optimizer, not weights; give {} (the moving average) or {}",
        path.display(),
        if *holds == Holds::AdamM { "first" } else { "second" },
        beside(path, Holds::Ema),
        beside(path, Holds::Weights)
    )]
    Moments {
        /// The file.
        path: PathBuf,
        /// Which moments.
        holds: Holds,
    },
    /// A file without metadata whose shapes say no configuration.
    #[error("{}: {what}", path.display())]
    Infer {
        /// The file, or a description of where the bytes came from.
        path: PathBuf,
        /// What the shapes are not, or leave open.
        what: InferError,
    },
    /// A file is not a valid checkpoint.
    #[error("{}: {what}", path.display())]
    Checkpoint {
        /// The file, or a description of where the bytes came from.
        path: PathBuf,
        /// What is wrong, naming the tensor or key.
        what: String,
    },
}

/// The file of the same checkpoint that holds something else.
fn beside(path: &Path, holds: Holds) -> String {
    let file = path.with_file_name(format!("{}.safetensors", holds.name()));
    file.display().to_string()
}

impl ClassError {
    /// The error with what classes were compared for.
    pub fn compared_for(self, what: &'static str) -> ModelError {
        let source = Box::new(self);
        ModelError::Compared { what, source }
    }
}

impl From<ClassError> for ModelError {
    fn from(error: ClassError) -> Self {
        Self::Classes(Box::new(error))
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ModelError>;
