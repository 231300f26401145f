//! The run directory:
//!
//! ```text
//! config.toml                    the resolved configuration
//! metrics.jsonl                  one line every few steps
//! samples/step-00001000.png      grids drawn from the moving average
//! checkpoints/step-00001000/     weights, ema, adam_m, adam_v (.safetensors) and manifest.json
//! ```
//!
//! A checkpoint is written under a temporary name, synced and renamed: it is wholly there or not.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dis_files::{write_atomic, write_atomic_with};
use dis_model::checkpoint::{Entry, InferHints, WeightFile, write_arena};
use dis_model::{Checkpoint, DisModel, Metadata};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::RunConfig;
use crate::error::{Result, TrainError};
use crate::trainer::TrainState;

/// Names of a checkpoint's arenas, in the order of [`TrainState`].
const FILES: [&str; 4] = ["weights", "ema", "adam_m", "adam_v"];
const MANIFEST: &str = "manifest.json";

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
    pub fn create(path: &Path, config: &RunConfig) -> Result<Self> {
        let dir = Self {
            path: path.to_path_buf(),
        };
        if dir.config_path().exists() {
            return Err(TrainError::RunDir {
                path: path.to_path_buf(),
                what: "there is a run in this directory; continue it with --resume, or choose \
                       another --out"
                    .into(),
            });
        }
        for part in [dir.path.clone(), dir.checkpoints(), dir.samples()] {
            fs::create_dir_all(&part).map_err(|e| TrainError::io(part, "create it", e))?;
        }
        write_atomic(&dir.config_path(), config.to_toml()?.as_bytes())?;
        Ok(dir)
    }

    /// Opens the directory of a run.
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

    /// Where sample grids are.
    pub fn samples(&self) -> PathBuf {
        self.path.join("samples")
    }

    /// Where checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Where the checkpoint of a step is.
    pub fn step_path(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!("step-{step:08}"))
    }

    /// Finished checkpoints, oldest first.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        let folder = self.checkpoints();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(TrainError::io(folder, "list it", e)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| TrainError::io(&folder, "list it", e))?;
            let name = entry.file_name();
            let step = name
                .to_str()
                .and_then(|n| n.strip_prefix("step-")?.parse().ok());
            if let Some(step) = step {
                found.push((step, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Writes a checkpoint, then removes all but the newest `keep` (0 keeps all).
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
            fs::rename(&temporary, &target).map_err(|e| TrainError::io(&target, "rename to it", e))
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
                removed.map_err(|e| TrainError::io(old, "remove it", e))?;
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
        fs::create_dir_all(folder).map_err(|e| TrainError::io(folder, "create it", e))?;
        let arenas = [&state.params, &state.ema, &state.m, &state.v];
        for (name, arena) in FILES.into_iter().zip(arenas) {
            let mut sha256 = Sha256::new();
            write_atomic_with(&file(folder, name), |out| {
                let sha256 = &mut sha256;
                write_arena(
                    &mut Hashed { out, sha256 },
                    model.table(),
                    arena,
                    Some(metadata),
                )
            })?;
            manifest.sha256.insert(name.to_string(), hex(sha256));
        }
        let text = serde_json::to_string_pretty(manifest)
            .map_err(|e| TrainError::config(e.to_string()))?;
        write_atomic(&folder.join(MANIFEST), text.as_bytes())?;
        sync_directory(folder);
        Ok(())
    }

    /// Removes what an interrupted write left behind.
    pub fn sweep(&self) -> Result<()> {
        let folder = self.checkpoints();
        let Ok(entries) = fs::read_dir(&folder) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(|e| TrainError::io(path, "remove it", e))?;
            }
        }
        Ok(())
    }

    /// Sets a checkpoint that cannot be read aside under the name `damaged-...`, so that the run can
    /// write it again.
    pub fn set_aside(&self, folder: &Path) -> Result<()> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let aside = folder.with_file_name(format!("damaged-{name}"));
        // An earlier one of the same step says no more than this one.
        let _ = fs::remove_dir_all(&aside);
        fs::rename(folder, &aside).map_err(|e| TrainError::io(folder, "set it aside", e))
    }

    /// Reads and verifies a checkpoint of this model.
    pub fn load(&self, folder: &Path, model: &DisModel) -> Result<(Manifest, TrainState)> {
        let path = folder.join(MANIFEST);
        let text = fs::read_to_string(&path).map_err(|e| TrainError::io(&path, "read it", e))?;
        let manifest: Manifest = serde_json::from_str(&text).map_err(|e| TrainError::RunDir {
            path,
            what: e.to_string(),
        })?;
        let arena = |name: &str| -> Result<Vec<f32>> {
            let path = file(folder, name);
            let mut sha256 = Sha256::new();
            File::open(&path)
                .and_then(|mut file| io::copy(&mut file, &mut sha256))
                .map_err(|e| TrainError::io(&path, "read it", e))?;
            if manifest.sha256.get(name) != Some(&hex(sha256)) {
                return Err(TrainError::RunDir {
                    path,
                    what: "does not have the hash that its manifest says: the file is damaged"
                        .into(),
                });
            }
            Ok(WeightFile::open(&path, &Entry::Auto)?.read_arena(model.table())?)
        };
        let state = TrainState {
            step: manifest.step,
            updates: manifest.updates,
            params: arena(FILES[0])?,
            ema: arena(FILES[1])?,
            m: arena(FILES[2])?,
            v: arena(FILES[3])?,
        };
        Ok((manifest, state))
    }

    /// The weights to sample from: the moving average of the newest checkpoint, or the weights
    /// themselves when `raw`.
    pub fn weights_file(&self, raw: bool) -> Result<PathBuf> {
        match self.list()?.last() {
            Some((_, folder)) => Ok(file(folder, FILES[usize::from(!raw)])),
            None => Err(TrainError::RunDir {
                path: self.path.clone(),
                what: "the run has no checkpoint yet".into(),
            }),
        }
    }

    /// Loads what [`RunDir::weights_file`] names.
    pub fn checkpoint(&self, raw: bool) -> Result<Checkpoint> {
        Ok(Checkpoint::load(
            &self.weights_file(raw)?,
            &InferHints::default(),
        )?)
    }
}

const TEMPORARY: &str = ".tmp-";

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.safetensors"))
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

fn hex(sha256: Sha256) -> String {
    let digest = sha256.finalize();
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// Makes renames durable; not every platform can.
fn sync_directory(path: &Path) {
    if let Ok(directory) = File::open(path) {
        let _ = directory.sync_all();
    }
}
