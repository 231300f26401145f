//! Why a `.pt` file is refused.

use std::io;

use crate::zip::ZipError;

/// What can be wrong with a `.pt` file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The zip archive is damaged, or of a kind that `torch.save` does not write.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// The pickle is damaged.
    #[error("pickle, byte {position}: {what}")]
    Pickle {
        /// Where in the pickle.
        position: usize,
        /// What is wrong there.
        what: String,
    },
    /// The pickle names something that is neither part of tensors nor a container of settings.
    #[error(
        "its pickle asks for {name}, which neither tensors nor plain settings need: refused (no \
         code of a file is ever run)"
    )]
    Global {
        /// Module and name.
        name: String,
    },
    /// A PyTorch file of another kind.
    #[error("{0}")]
    Unsupported(String),
    /// Tensors that do not fit the file.
    #[error("{0}")]
    Tensor(String),
    /// There is no such entry, or it is unclear which one is meant.
    #[error("{0}")]
    Entry(String),
}
