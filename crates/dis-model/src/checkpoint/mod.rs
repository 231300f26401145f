//! Checkpoints: safetensors with the published parameter names, and one metadata key `dis` whose
//! sorted JSON holds everything needed to use them; and the `.pt` files of the published code, read
//! without running any of what is in them, and written so that PyTorch loads them.
//!
//! Files are read tensor by tensor, straight into the arena, rather than mapped into memory. Weights
//! are then in memory once and never twice, nothing breaks if another program shortens the file
//! meanwhile, and no `unsafe` is needed.

mod arguments;
mod atomic;
mod config_json;
mod element;
mod file;
mod infer;
mod stored;
mod tensors;
mod torch;
pub mod zip;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use serde_json::Value;

use crate::config::DisConfig;
use crate::error::Result;
use crate::model::DisModel;

pub use atomic::{write_atomic, write_atomic_with};
pub use config_json::{config_from_json, config_to_json};
pub use element::ElementType;
pub use file::{Format, WeightFile};
pub use infer::{InferHints, infer_config};
pub use stored::StoredTensor;
pub use tensors::{
    NamedTensor, arena_from_tensors, read_tensors, save_arena, serialize_arena, write_arena,
};
pub use torch::{Entry, TorchError, TorchFile, save_torch, write_torch};

/// Key of the metadata in a safetensors file.
pub const METADATA_KEY: &str = "dis";

/// What travels with the weights: the model, and what upper layers add (schedule, prediction,
/// variance, value range, latent scale, class names). No time and no path, so that equal runs give
/// equal bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// The architecture.
    pub model: DisConfig,
    /// Everything else, by key.
    pub extra: BTreeMap<String, Value>,
}

impl Metadata {
    /// Only an architecture.
    pub fn new(model: DisConfig) -> Self {
        Self {
            model,
            extra: BTreeMap::new(),
        }
    }

    /// Sorted JSON.
    pub fn to_json(&self) -> String {
        let mut map: BTreeMap<&str, Value> = self
            .extra
            .iter()
            .map(|(k, v)| (k.as_str(), v.clone()))
            .collect();
        map.insert("model", Value::Object(config_to_json(&self.model)));
        // A map of JSON values with string keys always serialises.
        serde_json::to_string(&map).unwrap_or_default()
    }

    /// Parses what [`Metadata::to_json`] wrote. Errors name the key.
    pub fn from_json(text: &str) -> std::result::Result<Self, String> {
        let value: Value =
            serde_json::from_str(text).map_err(|e| format!("metadata {METADATA_KEY:?}: {e}"))?;
        let Value::Object(map) = value else {
            return Err(format!("metadata {METADATA_KEY:?} is not an object"));
        };
        let mut extra: BTreeMap<String, Value> = map.into_iter().collect();
        let Some(Value::Object(model)) = extra.remove("model") else {
            return Err(format!("metadata {METADATA_KEY:?} has no object \"model\""));
        };
        let model = config_from_json(&model)?;
        Ok(Self { model, extra })
    }
}

/// A model with its weights.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The architecture.
    pub model: DisModel,
    /// The parameter arena, laid out by `model.table()`.
    pub weights: Vec<f32>,
    /// What travelled with it.
    pub metadata: Metadata,
}

impl Checkpoint {
    /// Reads a safetensors or `.pt` file; the content says which. Without metadata the
    /// configuration is inferred from the shapes, with `hints` where they leave it open. Of a `.pt`
    /// file with a moving average, that is what is read.
    pub fn load(path: &Path, hints: &InferHints) -> Result<Self> {
        Self::load_entry(path, &Entry::Auto, hints)
    }

    /// As [`Checkpoint::load`], with a choice of the weights of a `.pt` file.
    pub fn load_entry(path: &Path, entry: &Entry, hints: &InferHints) -> Result<Self> {
        WeightFile::open(path, entry)?.load(hints)
    }

    /// As [`Checkpoint::load`], from memory; `origin` names the source in errors.
    pub fn from_bytes(bytes: &[u8], origin: &Path, hints: &InferHints) -> Result<Self> {
        WeightFile::new(Cursor::new(bytes), origin, &Entry::Auto)?.load(hints)
    }

    /// Serialises to safetensors.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serialize_arena(self.model.table(), &self.weights, Some(&self.metadata))
    }

    /// Writes safetensors atomically: on any failure the old file, or none, is there.
    pub fn save(&self, path: &Path) -> Result<()> {
        save_arena(
            path,
            self.model.table(),
            &self.weights,
            Some(&self.metadata),
        )
    }

    /// Writes a `.pt` file atomically, with the weights as entries `model` and `ema`, as the
    /// published code expects; they are stored once.
    pub fn save_torch(&self, path: &Path) -> Result<()> {
        let weights = self.weights.as_slice();
        save_torch(
            path,
            self.model.table(),
            &[("model", weights), ("ema", weights)],
            Some(&self.metadata),
        )
    }
}
