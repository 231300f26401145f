//! Which weights a path means, and whether they are as they were written.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use dis_files::FileError;
use dis_model::checkpoint::{Entry, Holds, InferHints};
use dis_model::{Checkpoint, ModelError};
use sha2::{Digest, Sha256};

use super::dir::{CHECKPOINTS, MANIFEST, Manifest, RunDir, file, hex};
use crate::error::{Result, TrainError};

/// Where the weights are that a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A file, whatever it holds.
    File(PathBuf),
    /// The folder of a whole checkpoint, which has both weights and their moving average.
    Checkpoint(PathBuf),
}

impl Found {
    /// The file to read: of a checkpoint the moving average, or the weights themselves when `raw`.
    pub fn file(&self, raw: bool) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Checkpoint(folder) => file(folder, if raw { Holds::Weights } else { Holds::Ema }),
        }
    }

    /// Loads what [`Found::file`] names; of a `.pt` file the moving average where it has one, or the weights
    /// themselves when `raw`.
    ///
    /// # Errors
    /// If it cannot be read, is no checkpoint, or leaves its configuration open.
    pub fn load(&self, raw: bool) -> Result<Checkpoint> {
        let entry = if raw { Entry::Raw } else { Entry::Auto };
        let hints = InferHints::default();
        Ok(Checkpoint::load_entry(&self.file(raw), &entry, &hints)?)
    }
}

/// Whether a folder is one that [`find_weights`] takes: a run, its checkpoints or one of them.
pub fn is_checkpoint(folder: &Path) -> bool {
    RunDir::is_run(run_of(folder)) || folder.join(MANIFEST).is_file() || step_of(folder).is_some()
}

/// The run itself where its folder of checkpoints is given.
fn run_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if path.ends_with(CHECKPOINTS) && RunDir::is_run(parent) => parent,
        _ => path,
    }
}

/// Finds the weights that a path means: a file, the folder of a checkpoint, or a run, of which it is
/// the newest checkpoint whose files have the hashes of its manifest. `warn` is told of checkpoints
/// that are passed over, and of a single file that does not have its hash.
///
/// # Errors
/// If nothing is there, the folder is neither, no checkpoint is whole, or the file holds moments of
/// the optimizer.
pub fn find_weights(path: &Path, warn: &mut dyn FnMut(&str)) -> Result<Found> {
    if !path.is_dir() {
        check_file(path, warn)?;
        return Ok(Found::File(path.to_path_buf()));
    }
    let run = run_of(path);
    if RunDir::is_run(run) {
        let (dir, _) = RunDir::open(run)?;
        let newest = dir.newest_whole(&mut |_, error| {
            warn(&format!("{error}; trying an older checkpoint"));
        })?;
        return match newest {
            Some((folder, _)) => Ok(Found::Checkpoint(folder)),
            None => Err(TrainError::RunDir {
                path: run.to_path_buf(),
                what: "the run has no checkpoint yet".into(),
            }),
        };
    }
    if is_checkpoint(path) {
        verify(path)?;
        return Ok(Found::Checkpoint(path.to_path_buf()));
    }
    Err(TrainError::RunDir {
        path: path.to_path_buf(),
        what: "neither a checkpoint nor the directory of a run".into(),
    })
}

/// The step in the name of a checkpoint's folder.
pub(super) fn step_of(folder: &Path) -> Option<u64> {
    let name = folder.file_name()?.to_str()?;
    name.strip_prefix("step-")?.parse().ok()
}

/// What is known of a single file from what lies beside it, if it is part of a checkpoint.
fn check_file(path: &Path, warn: &mut dyn FnMut(&str)) -> Result<()> {
    let name = path.file_stem().and_then(|name| name.to_str());
    let (Some(holds), Some(folder)) = (name.and_then(Holds::from_name), path.parent()) else {
        return Ok(());
    };
    if !folder.join(MANIFEST).is_file() {
        return Ok(());
    }
    if !holds.is_weights() {
        return Err(ModelError::Moments {
            path: path.to_path_buf(),
            holds,
        }
        .into());
    }
    let checked = read_manifest(folder).and_then(|manifest| check_hash(folder, holds, &manifest));
    if let Err(error) = checked {
        warn(&error.to_string());
    }
    Ok(())
}

/// Reads the manifest of a checkpoint.
fn read_manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join(MANIFEST);
    let text = dis_files::read_json(&path, "the manifest of a checkpoint")?;
    serde_json::from_str(&text).map_err(|e| TrainError::RunDir {
        path,
        what: e.to_string(),
    })
}

/// Reads the manifest of a checkpoint, and checks that all its files have the hashes that it says.
///
/// # Errors
/// If one is missing or damaged.
pub(super) fn verify(folder: &Path) -> Result<Manifest> {
    let manifest = read_manifest(folder)?;
    // Each file by a thread of its own: hashing takes longer than reading.
    let checked = std::thread::scope(|scope| {
        let check = |holds| {
            let manifest = &manifest;
            scope.spawn(move || check_hash(folder, holds, manifest))
        };
        let threads = Holds::FILES.map(check);
        threads.map(std::thread::ScopedJoinHandle::join)
    });
    for outcome in checked {
        outcome.map_err(|_| TrainError::RunDir {
            path: folder.to_path_buf(),
            what: "a thread that checks it stopped unexpectedly".into(),
        })??;
    }
    Ok(manifest)
}

fn check_hash(folder: &Path, holds: Holds, manifest: &Manifest) -> Result<()> {
    let path = file(folder, holds);
    let mut sha256 = Sha256::new();
    File::open(&path)
        .and_then(|mut file| io::copy(&mut file, &mut sha256))
        .map_err(FileError::io(&path, "read it"))?;
    if manifest.sha256.get(holds.name()) == Some(&hex(sha256)) {
        return Ok(());
    }
    Err(TrainError::RunDir {
        path,
        what: "does not have the hash that its manifest says: the file is damaged".into(),
    })
}
