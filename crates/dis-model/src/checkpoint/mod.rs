//! Checkpoints: safetensors with the published parameter names, and one metadata key `dis` whose
//! sorted JSON holds everything needed to use them.

mod atomic;
mod config_json;
mod infer;
mod tensors;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::config::DisConfig;
use crate::error::{ModelError, Result};
use crate::model::DisModel;

pub use atomic::{write_atomic, write_atomic_with};
pub use config_json::{config_from_json, config_to_json};
pub use infer::{InferHints, infer_config};
pub use tensors::{NamedTensor, arena_from_tensors, read_tensors, serialize_arena};

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
    /// Reads a safetensors file. Without metadata the configuration is inferred from the shapes,
    /// with `hints` where they leave it open.
    pub fn load(path: &Path, hints: &InferHints) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| ModelError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        Self::from_bytes(&bytes, path, hints)
    }

    /// As [`Checkpoint::load`], from memory; `origin` names the source in errors.
    pub fn from_bytes(bytes: &[u8], origin: &Path, hints: &InferHints) -> Result<Self> {
        let refuse = |what: String| ModelError::Checkpoint {
            path: origin.to_path_buf(),
            what,
        };
        let (metadata, tensors) = read_tensors(bytes, origin)?;
        let metadata = match metadata {
            Some(text) => Metadata::from_json(&text).map_err(refuse)?,
            None => Metadata::new(infer_config(&tensors, hints).map_err(refuse)?),
        };
        let model = DisModel::new(metadata.model).map_err(|e| refuse(e.to_string()))?;
        let weights = arena_from_tensors(model.table(), &tensors, origin)?;
        Ok(Self {
            model,
            weights,
            metadata,
        })
    }

    /// Serialises to safetensors.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serialize_arena(self.model.table(), &self.weights, Some(&self.metadata))
    }

    /// Writes atomically: on any failure the old file, or none, is there.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_atomic(path, &self.to_bytes()?)
    }
}
