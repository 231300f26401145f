//! A model and its weights in memory.

use std::io::{Cursor, Read, Seek};
use std::path::Path;

use super::entry::Entry;
use super::file::WeightFile;
use super::infer::InferHints;
use super::metadata::Metadata;
use super::write::{save_arena, save_torch, serialize_arena};
use crate::error::Result;
use crate::model::DisModel;

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
    ///
    /// # Errors
    /// If the file cannot be read, is no checkpoint, or leaves its configuration open.
    pub fn load(path: &Path, hints: &InferHints) -> Result<Self> {
        Self::load_entry(path, &Entry::Auto, hints)
    }

    /// As [`Checkpoint::load`], with a choice of the weights of a file that has several.
    ///
    /// # Errors
    /// As [`Checkpoint::load`], or if the choice is not there.
    pub fn load_entry(path: &Path, entry: &Entry, hints: &InferHints) -> Result<Self> {
        Self::read(WeightFile::open(path, entry)?, hints)
    }

    /// Reads the weights of a file that was opened.
    ///
    /// # Errors
    /// If it is no checkpoint, or leaves its configuration open.
    pub fn read<R: Read + Seek>(mut file: WeightFile<R>, hints: &InferHints) -> Result<Self> {
        let metadata = file.describe(hints)?;
        let model = file.model(&metadata)?;
        let weights = file.read_arena(model.table())?;
        Ok(Self {
            model,
            weights,
            metadata,
        })
    }

    /// As [`Checkpoint::load`], from memory; `origin` names the source in errors.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn from_bytes(bytes: &[u8], origin: &Path, hints: &InferHints) -> Result<Self> {
        let file = WeightFile::new(Cursor::new(bytes), origin, &Entry::Auto)?;
        Self::read(file, hints)
    }

    /// Serialises to safetensors.
    ///
    /// # Errors
    /// If there are not as many weights as the model has.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serialize_arena(self.model.table(), &self.weights, Some(&self.metadata))
    }

    /// Writes safetensors atomically: on any failure the old file, or none, is there.
    ///
    /// # Errors
    /// If the file cannot be written.
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
    ///
    /// # Errors
    /// If the file cannot be written.
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
