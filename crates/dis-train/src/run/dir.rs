//! The run directory:
//!
//! ```text
//! config.toml                    the resolved configuration
//! init-from.json                 with `--init-from`: what the weights began with
//! metrics.jsonl                  one line every few steps, and one for each grid
//! pace.json                      of a run that keeps to a time: how many steps it decided on, and when
//! report.html                    all of it to look at
//! samples/step-00001000.png      grids drawn from the moving average
//! checkpoints/step-00001000/     weights, ema, adam_m, adam_v (.safetensors) and manifest.json
//! ```
//!
//! A checkpoint is written under a temporary name, synced and renamed: it is wholly there or not.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dis_files::{FileError, write_atomic, write_atomic_with};
use dis_model::checkpoint::{Entry, Holds, InferHints, WeightFile, write_arena};
use dis_model::{DisModel, Metadata};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::data::DataChange;
use super::found::{step_of, verify};
use super::pacing::Pacer;
use super::transfer::Transfer;
use crate::config::RunConfig;
use crate::error::{Result, TrainError};
use crate::trainer::TrainState;

/// What describes a checkpoint, in its folder.
pub(super) const MANIFEST: &str = "manifest.json";
/// Folder of the checkpoints in a run.
pub(super) const CHECKPOINTS: &str = "checkpoints";

/// `manifest.json` of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Steps done.
    pub step: u64,
    /// Updates applied.
    pub updates: u64,
    /// Seed of the run.
    pub seed: u64,
    /// What the data were, see [`dis_data::Dataset::identity`].
    pub data: String,
    /// Other data before, that were replaced on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_changes: Vec<DataChange>,
    /// Instruction set that computed it: another gives the same results only within rounding.
    pub instruction_set: String,
    /// SHA-256 of each file.
    pub sha256: std::collections::BTreeMap<String, String>,
}

/// The directory of a run.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes the directory of a new run. Refuses one that already holds a run.
    ///
    /// # Errors
    /// A directory that holds a run, or cannot be made.
    pub fn create(path: &Path, config: &RunConfig) -> Result<Self> {
        Self::refuse_another(path)?;
        let dir = Self {
            path: path.to_path_buf(),
        };
        for part in [dir.path.clone(), dir.checkpoints(), dir.samples()] {
            fs::create_dir_all(&part).map_err(FileError::io(&part, "create it"))?;
        }
        write_atomic(&dir.config_path(), config.to_toml()?.as_bytes())?;
        Ok(dir)
    }

    /// Refuses a directory in which there is a run already.
    ///
    /// # Errors
    /// If there is one.
    pub fn refuse_another(path: &Path) -> Result<()> {
        match Self::is_run(path) {
            false => Ok(()),
            true => Err(TrainError::RunDir {
                path: path.to_path_buf(),
                what: "there is a run in this directory; continue it with --resume, or choose \
                       another --out"
                    .into(),
            }),
        }
    }

    /// Opens the directory of a run.
    ///
    /// # Errors
    /// No run there, or a configuration that cannot be read.
    pub fn open(path: &Path) -> Result<(Self, RunConfig)> {
        let dir = Self {
            path: path.to_path_buf(),
        };
        if !dir.config_path().is_file() {
            return Err(TrainError::RunDir {
                path: path.to_path_buf(),
                what: "no run is here: there is no config.toml".into(),
            });
        }
        let config = RunConfig::load(&dir.config_path())?;
        Ok((dir, config))
    }

    /// Whether a path looks like a run directory.
    pub fn is_run(path: &Path) -> bool {
        path.join("config.toml").is_file()
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the configuration is.
    pub fn config_path(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// Where the metrics are.
    pub fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Where the report is.
    pub fn report_path(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// Where the decisions of a run that keeps to a time are.
    pub(super) fn pace_path(&self) -> PathBuf {
        self.path.join("pace.json")
    }

    /// The decisions of a run that goes on after `step`, and whether it is given another time than it had.
    pub(super) fn pacer(
        &self,
        config: &RunConfig,
        stored: &RunConfig,
        step: u64,
    ) -> Result<(Pacer, bool)> {
        let path = self.pace_path();
        if config.train.budget.is_none() && stored.train.budget.is_some() {
            Pacer::forget(&path);
        }
        let pacer = Pacer::resume(&config.train, path, step)?;
        let extends = config.train.budget.is_some() && config.train.budget != stored.train.budget;
        Ok((pacer, extends))
    }

    /// Records what the weights began with, in `init-from.json`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn record_transfer(&self, origin: &str, transfer: &Transfer) -> Result<()> {
        #[derive(Serialize)]
        struct Record<'a> {
            checkpoint: &'a str,
            #[serde(flatten)]
            transfer: &'a Transfer,
        }
        let checkpoint = origin;
        let record = Record {
            checkpoint,
            transfer,
        };
        let text = serde_json::to_string_pretty(&record).map_err(|e| {
            TrainError::config(format!("--init-from {origin}: cannot be recorded: {e}"))
        })?;
        write_atomic(&self.path.join("init-from.json"), text.as_bytes())?;
        Ok(())
    }

    /// Where sample grids are.
    pub fn samples(&self) -> PathBuf {
        self.path.join("samples")
    }

    /// Where checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }

    /// Where the checkpoint of a step is.
    pub fn step_path(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!("step-{step:08}"))
    }

    /// Finished checkpoints, oldest first.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        let folder = self.checkpoints();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(FileError::io(&folder, "list it")(e).into()),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(FileError::io(&folder, "list it"))?;
            if let Some(step) = step_of(&entry.path()) {
                found.push((step, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Writes a checkpoint, then removes all but the newest `keep` (0 keeps all).
    ///
    /// # Errors
    /// Files that cannot be written; what was begun is then removed.
    pub fn save(
        &self,
        model: &DisModel,
        metadata: &Metadata,
        state: &TrainState,
        mut manifest: Manifest,
        keep: usize,
    ) -> Result<PathBuf> {
        let folder = self.checkpoints();
        let target = self.step_path(state.step);
        if target.exists() {
            return Ok(target);
        }
        self.sweep()?;
        let temporary = folder.join(format!("{}step-{:08}", TEMPORARY, state.step));
        let result = self.write_checkpoint(&temporary, model, metadata, state, &mut manifest);
        let result = result.and_then(|()| {
            let renamed = fs::rename(&temporary, &target);
            Ok(renamed.map_err(FileError::io(&target, "rename to it"))?)
        });
        if let Err(error) = result {
            // Best effort: the failure that matters is already being reported.
            let _ = fs::remove_dir_all(&temporary);
            return Err(error);
        }
        sync_directory(&folder);
        if keep > 0 {
            let all = self.list()?;
            for (_, old) in all.iter().take(all.len().saturating_sub(keep)) {
                // Renamed first, so that a half-removed checkpoint is never taken for a whole one.
                let doomed = folder.join(format!("{TEMPORARY}old"));
                let _ = fs::remove_dir_all(&doomed);
                let removed = fs::rename(old, &doomed).and_then(|()| fs::remove_dir_all(&doomed));
                removed.map_err(FileError::io(old, "remove it"))?;
            }
        }
        Ok(target)
    }

    fn write_checkpoint(
        &self,
        folder: &Path,
        model: &DisModel,
        metadata: &Metadata,
        state: &TrainState,
        manifest: &mut Manifest,
    ) -> Result<()> {
        fs::create_dir_all(folder).map_err(FileError::io(folder, "create it"))?;
        let arenas = [&state.params, &state.ema, &state.m, &state.v];
        for (holds, arena) in Holds::FILES.into_iter().zip(arenas) {
            let mut sha256 = Sha256::new();
            let metadata = Metadata {
                holds: Some(holds),
                ..metadata.clone()
            };
            write_atomic_with(&file(folder, holds), |out| {
                let sha256 = &mut sha256;
                write_arena(
                    &mut Hashed { out, sha256 },
                    model.table(),
                    arena,
                    Some(&metadata),
                )
            })?;
            manifest
                .sha256
                .insert(holds.name().to_string(), hex(sha256));
        }
        let text = serde_json::to_string_pretty(manifest)
            .map_err(|e| TrainError::config(e.to_string()))?;
        write_atomic(&folder.join(MANIFEST), text.as_bytes())?;
        sync_directory(folder);
        Ok(())
    }

    /// Removes what an interrupted write left behind.
    ///
    /// # Errors
    /// A folder that cannot be removed.
    pub fn sweep(&self) -> Result<()> {
        let folder = self.checkpoints();
        let Ok(entries) = fs::read_dir(&folder) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(FileError::io(&path, "remove it"))?;
            }
        }
        Ok(())
    }

    /// Sets a checkpoint that cannot be read aside under the name `damaged-...`, so that the run can
    /// write it again.
    ///
    /// # Errors
    /// A folder that cannot be renamed.
    pub fn set_aside(&self, folder: &Path) -> Result<()> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let aside = folder.with_file_name(format!("damaged-{name}"));
        // An earlier one of the same step says no more than this one.
        let _ = fs::remove_dir_all(&aside);
        let renamed = fs::rename(folder, &aside);
        Ok(renamed.map_err(FileError::io(folder, "set it aside"))?)
    }

    /// The newest checkpoint whose files all have the hashes of its manifest, so that every command
    /// that is given a run takes the same one; `None` where there is no checkpoint yet. `passed` is
    /// told of those that are damaged or not whole.
    ///
    /// # Errors
    /// If the folder cannot be listed, or there are checkpoints and none is whole.
    pub fn newest_whole(
        &self,
        passed: &mut dyn FnMut(&Path, &TrainError),
    ) -> Result<Option<(PathBuf, Manifest)>> {
        let all = self.list()?;
        for (_, folder) in all.iter().rev() {
            match verify(folder) {
                Ok(manifest) => return Ok(Some((folder.clone(), manifest))),
                Err(error) => passed(folder, &error),
            }
        }
        match all.is_empty() {
            true => Ok(None),
            false => Err(TrainError::RunDir {
                path: self.checkpoints(),
                what: "no checkpoint can be read".into(),
            }),
        }
    }

    /// What a checkpoint says of its model.
    pub(super) fn metadata(&self, folder: &Path) -> Result<Metadata> {
        let file = WeightFile::open(&file(folder, Holds::Weights), &Entry::Auto)?;
        Ok(file.describe(&InferHints::default())?)
    }

    /// Reads a checkpoint of this model that was verified.
    ///
    /// # Errors
    /// If a file cannot be read or is of another model.
    pub fn load(&self, folder: &Path, manifest: &Manifest, model: &DisModel) -> Result<TrainState> {
        let arena = |holds| -> Result<Vec<f32>> {
            let mut weights = WeightFile::open(&file(folder, holds), &Entry::Auto)?;
            Ok(weights.read_arena(model.table())?)
        };
        Ok(TrainState {
            step: manifest.step,
            updates: manifest.updates,
            params: arena(Holds::Weights)?,
            ema: arena(Holds::Ema)?,
            m: arena(Holds::AdamM)?,
            v: arena(Holds::AdamV)?,
        })
    }
}

const TEMPORARY: &str = ".tmp-";

/// A file of a checkpoint.
pub(super) fn file(folder: &Path, holds: Holds) -> PathBuf {
    folder.join(format!("{}.safetensors", holds.name()))
}

/// Hashes what goes by.
struct Hashed<'a, W> {
    out: &'a mut W,
    sha256: &'a mut Sha256,
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sha256.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub(super) fn hex(sha256: Sha256) -> String {
    let digest = sha256.finalize();
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// Makes renames durable; not every platform can.
fn sync_directory(path: &Path) {
    if let Ok(directory) = File::open(path) {
        let _ = directory.sync_all();
    }
}
