//! How a run of a study ended that came to no result: `ending.json` in its directory.

use std::fs;
use std::path::{Path, PathBuf};

use dis_files::{FileError, write_atomic};
use serde::{Deserialize, Serialize};

use crate::error::{Result, StudyError};

/// The end of a run without a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    /// Whether values became infinite or no numbers. Such a run would do so again, and is not repeated;
    /// any other is, when the study is.
    pub diverged: bool,
    /// What it ended with, with its directory.
    pub what: String,
}

impl Ending {
    /// The end of a run that did not diverge.
    pub(super) fn failed(what: impl Into<String>) -> Self {
        Self {
            diverged: false,
            what: what.into(),
        }
    }

    /// The end that an error makes of the run in `dir`.
    pub(super) fn of(error: &StudyError, dir: &Path) -> Self {
        let what = error.to_string().replace('\n', " ");
        let place = dir.display().to_string();
        Self {
            diverged: error.is_divergence(),
            what: match what.contains(&place) {
                true => what,
                false => format!("{place}: {what}"),
            },
        }
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("ending.json")
    }

    /// What the run in `dir` ended with, if it did.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = Self::path(dir);
        match fs::read_to_string(&path) {
            Ok(text) => match serde_json::from_str(&text) {
                Ok(ending) => Ok(Some(ending)),
                // Nothing is lost: a run that did not diverge is tried again.
                Err(e) => Ok(Some(Self::failed(format!(
                    "{}: damaged: {e}",
                    path.display()
                )))),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(FileError::io(&path, "read it")(e).into()),
        }
    }

    /// Writes it into the directory of the run.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).map_err(FileError::io(dir, "create it"))?;
        let text =
            serde_json::to_string_pretty(self).map_err(|e| StudyError::config(e.to_string()))?;
        Ok(write_atomic(
            &Self::path(dir),
            format!("{text}\n").as_bytes(),
        )?)
    }

    /// Forgets it, since the run is tried again.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(super) fn forget(dir: &Path) -> Result<()> {
        let path = Self::path(dir);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(FileError::io(&path, "remove it")(e).into())
            }
            _ => Ok(()),
        }
    }
}
