//! Checkpoints from where the user says, or the bundled one.

use std::path::Path;

use anyhow::Result;
use dis_model::Checkpoint;
use dis_model::checkpoint::{Entry, InferHints};
use dis_train::run::RunDir;

/// A digits model made by `dis train --preset digits`; its run is described in docs/digits/.
static DIGITS: &[u8] = include_bytes!("../assets/digits.safetensors");

/// The bundled digits model.
pub fn digits() -> Result<Checkpoint> {
    Ok(Checkpoint::from_bytes(
        DIGITS,
        Path::new("bundled digits model"),
        &InferHints::default(),
    )?)
}

/// A file, a run directory, or without a path the bundled model.
pub fn open(path: Option<&Path>, raw: bool, null_label: Option<bool>) -> Result<Checkpoint> {
    let Some(path) = path else { return digits() };
    if RunDir::is_run(path) {
        return Ok(RunDir::open(path)?.0.checkpoint(raw)?);
    }
    if path.is_dir() {
        anyhow::bail!(
            "{}: neither a checkpoint nor the directory of a run",
            path.display()
        );
    }
    let hints = InferHints {
        null_label,
        ..InferHints::default()
    };
    let entry = if raw { Entry::Raw } else { Entry::Auto };
    Checkpoint::load_entry(path, &entry, &hints).map_err(|e| add_hint(e.into()))
}

/// Says which option answers a question that shapes leave open.
pub fn add_hint(error: anyhow::Error) -> anyhow::Error {
    if error.to_string().contains("say which") {
        anyhow::anyhow!("{error} (--null-label true or false)")
    } else {
        error
    }
}
