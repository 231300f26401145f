//! The one error type of the crate.

use std::path::{Path, PathBuf};

/// What can be wrong with an autoencoder's files, or with what it is asked to do. Every message is
/// one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaeError {
    /// A configuration that is not one of an AutoencoderKL that this crate can run.
    #[error("{}: {what}", path.display())]
    Config {
        /// Where it came from.
        path: PathBuf,
        /// What is wrong, naming the key.
        what: String,
    },
    /// A file that cannot be read, or is no safetensors file.
    #[error(transparent)]
    File(#[from] dis_files::FileError),
    /// A tensor that is missing, superfluous, or not what the configuration needs.
    #[error("{}: tensor {name:?} {what}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor, as in the file where it is there.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// Images or latents that the autoencoder cannot take.
    #[error("{op}: {what}")]
    Input {
        /// What was asked for.
        op: &'static str,
        /// What is wrong, with the shape.
        what: String,
    },
}

impl VaeError {
    pub(crate) fn tensor(path: &Path, name: &str, what: impl Into<String>) -> Self {
        Self::Tensor {
            path: path.to_path_buf(),
            name: name.to_string(),
            what: what.into(),
        }
    }

    pub(crate) fn input(op: &'static str, what: impl Into<String>) -> Self {
        Self::Input {
            op,
            what: what.into(),
        }
    }
}

/// Result of the crate's operations.
pub type Result<T> = std::result::Result<T, VaeError>;
