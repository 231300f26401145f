//! What travels with weights: the architecture, and what the numbers of a file are.

use std::collections::BTreeMap;

use serde_json::Value;

use super::config_json::{config_from_json, config_to_json};
use crate::config::DisConfig;

/// Key of the metadata in a safetensors file.
pub const METADATA_KEY: &str = "dis";

/// Key of [`Holds`] in the metadata.
const HOLDS: &str = "holds";

/// What the numbers of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Weights as they were trained.
    Weights,
    /// Their moving average.
    Ema,
    /// First moments of the optimizer.
    AdamM,
    /// Second moments of the optimizer.
    AdamV,
    /// Weights and their moving average, in entries of their own.
    Both,
}

impl Holds {
    /// Those that have a file of their own in a checkpoint of a run.
    pub const FILES: [Self; 4] = [Self::Weights, Self::Ema, Self::AdamM, Self::AdamV];

    /// The word for it in metadata, which is also the name of its file in a run.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Ema => "ema",
            Self::AdamM => "adam_m",
            Self::AdamV => "adam_v",
            Self::Both => "both",
        }
    }

    /// By its word.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut known = Self::FILES.into_iter().chain([Self::Both]);
        known.find(|holds| holds.name() == name)
    }

    /// Whether a model can run on it.
    pub fn is_weights(self) -> bool {
        !matches!(self, Self::AdamM | Self::AdamV)
    }
}

/// What travels with the weights: the model, and what upper layers add (schedule, prediction,
/// variance, value range, latent scale, class names). No time and no path, so that equal runs give
/// equal bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// The architecture.
    pub model: DisConfig,
    /// What the numbers are, where the file says so.
    pub holds: Option<Holds>,
    /// Everything else, by key.
    pub extra: BTreeMap<String, Value>,
}

impl Metadata {
    /// Only an architecture.
    pub fn new(model: DisConfig) -> Self {
        Self {
            model,
            holds: None,
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
        if let Some(holds) = self.holds {
            map.insert(HOLDS, holds.name().into());
        }
        map.insert("model", Value::Object(config_to_json(&self.model)));
        // A map of JSON values with string keys always serialises.
        serde_json::to_string(&map).unwrap_or_default()
    }

    /// Parses what [`Metadata::to_json`] wrote.
    ///
    /// # Errors
    /// Naming the key that is missing or not understood.
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
        let holds = match extra.remove(HOLDS) {
            None => None,
            Some(value) => {
                let known = value.as_str().and_then(Holds::from_name);
                Some(known.ok_or_else(|| format!("metadata {HOLDS:?}: {value} is unknown"))?)
            }
        };
        Ok(Self {
            model,
            holds,
            extra,
        })
    }
}
