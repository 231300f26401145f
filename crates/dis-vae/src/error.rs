//! The one error type of the crate.

use std::path::{Path, PathBuf};

/// What can be wrong with an autoencoder's files, or with what it is asked to do. Every message is
/// one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaeError {
    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A configuration that is not one of an AutoencoderKL that this crate can run.
    #[error("{}: {what}", path.display())]
    Config {
        /// Where it came from.
        path: PathBuf,
        /// What is wrong, naming the key.
        what: String,
    },
    /// A file that is no safetensors file.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
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
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

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
