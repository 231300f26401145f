//! The error of everything that reads or writes a file.

use std::io;
use std::path::{Path, PathBuf};

use crate::sniff::FileKind;
use crate::torch::TorchError;

/// Why a file could not be read or written. Every message is one line and names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, such as "open it".
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of another kind than is wanted here.
    #[error("{}: is {found}, not {wanted}{}", path.display(), found.advice())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: FileKind,
        /// What would have been right, such as "a checkpoint".
        wanted: &'static str,
    },
    /// The index of a checkpoint that was split into several files.
    #[error(
        "{}: is the index of a sharded checkpoint, and these are not read: join its {} ({}) into \
         one file",
        path.display(),
        count(shards.len(), "shard"),
        few(shards)
    )]
    Sharded {
        /// The index.
        path: PathBuf,
        /// Names of the files that it lists.
        shards: Vec<String>,
    },
    /// A file that is damaged, or whose content does not fit its format.
    #[error("{}: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, naming the part.
        what: String,
    },
    /// A `.pt` file that cannot be used.
    #[error("{}: {source}", path.display())]
    Torch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TorchError,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, FileError>;

impl FileError {
    /// Attaches a file, and what was tried with it, to an error of the system.
    pub fn io(path: &Path, action: &'static str) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io {
            path: path.clone(),
            action,
            source,
        }
    }

    /// A file whose content is not what its format says.
    pub fn format(path: &Path, what: impl Into<String>) -> Self {
        Self::Format {
            path: path.to_path_buf(),
            what: what.into(),
        }
    }
}

fn count(n: usize, thing: &str) -> String {
    match n {
        1 => format!("1 {thing}"),
        n => format!("{n} {thing}s"),
    }
}

/// A list cut to what fits a line.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(|name| name.escape_debug().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text.push_str(", ...");
    }
    text
}
