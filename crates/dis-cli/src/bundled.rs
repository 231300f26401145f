//! Checkpoints from where the user says, or the bundled one.

use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dis_data::ImageShape;
use dis_eval::sha256_hex;
use dis_model::checkpoint::{Entry, InferError, InferHints, WeightFile};
use dis_model::{Checkpoint, Classes, DisModel, Metadata, ModelBackend, ModelError};
use dis_pipeline::Pipeline;
use dis_train::run::{Found, find_weights};

use crate::warning;

/// A digits model made by `dis train --preset digits`; its run is described in docs/digits/.
static DIGITS: &[u8] = include_bytes!("../assets/digits.safetensors");

/// What a checkpoint is read from.
pub trait Source: Read + Seek + Send {}

impl<T: Read + Seek + Send> Source for T {}

/// A file of weights that was opened but not read.
pub struct Weights {
    /// The file.
    pub file: WeightFile<Box<dyn Source>>,
    /// What it says.
    pub metadata: Metadata,
    /// Its model.
    pub model: DisModel,
    /// Where it is; none for the bundled model.
    path: Option<PathBuf>,
}

/// What the model in the program is called.
const BUNDLED_NAME: &str = "bundled digits model";

/// The word for the model in the program.
pub const BUNDLED: &str = "bundled";

/// The weights that a path means; warnings go to standard error.
pub fn find(path: &Path) -> Result<Found> {
    Ok(find_weights(path, &mut |text| {
        warning!("{text}");
    })?)
}

/// A file, a checkpoint of a run, a run, or without a path the bundled model: what it holds.
pub fn describe(path: Option<&Path>, raw: bool, null_label: Option<bool>) -> Result<Weights> {
    let named = path.map(find).transpose()?.map(|found| found.file(raw));
    let entry = if raw { Entry::Raw } else { Entry::Auto };
    let (source, origin): (Box<dyn Source>, PathBuf) = match named.clone() {
        Some(path) => {
            let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()));
            (Box::new(file?), path)
        }
        None => (Box::new(Cursor::new(DIGITS)), BUNDLED_NAME.into()),
    };
    let file = WeightFile::new(source, &origin, &entry)?;
    let hints = InferHints {
        null_label,
        ..InferHints::default()
    };
    let metadata = file.describe(&hints).map_err(add_hint)?;
    let model = file.model(&metadata)?;
    Ok(Weights {
        file,
        metadata,
        model,
        path: named,
    })
}

/// As [`describe`], with the weights read.
pub fn open(path: Option<&Path>, raw: bool, null_label: Option<bool>) -> Result<Checkpoint> {
    let mut weights = describe(path, raw, null_label)?;
    Ok(Checkpoint {
        weights: weights.file.read_arena(weights.model.table())?,
        model: weights.model,
        metadata: weights.metadata,
    })
}

impl Weights {
    /// The model on a device.
    pub fn load<B: ModelBackend>(mut self, backend: &B) -> Result<Pipeline<B>> {
        let params = self.file.read_params(backend, self.model.table())?;
        let backend = backend.clone();
        Ok(Pipeline::with_params(
            self.model,
            self.metadata,
            params,
            backend,
        )?)
    }

    /// What it is, in a line; `shape` is that of the pictures that come of it.
    pub fn describe(&self, shape: ImageShape) -> Result<String> {
        let name = match &self.path {
            Some(path) => path.display().to_string(),
            None => BUNDLED_NAME.into(),
        };
        let latents = match shape == ImageShape::from(self.model.config().image_shape()) {
            true => "",
            false => " by way of latents",
        };
        let classes = match Classes::of(&self.metadata)? {
            Some(classes) => format!(", {} classes", classes.count()),
            None => String::new(),
        };
        let parameters = self.model.table().parameters();
        let colours = match shape.channels {
            1 => "grey".to_string(),
            3 => "colour".to_string(),
            n => format!("{n} channels"),
        };
        let size = format!("{}x{} in {colours}", shape.width, shape.height);
        Ok(format!(
            "{name}: {parameters} parameters, images of {size}{latents}{classes}"
        ))
    }

    /// The SHA-256 of the file.
    pub fn sha256(&self) -> Result<String> {
        let Some(path) = &self.path else {
            return Ok(sha256_hex(DIGITS)?);
        };
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        sha256_hex(file).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// Says which option answers a question that shapes leave open.
pub fn add_hint(error: ModelError) -> anyhow::Error {
    let option = match &error {
        ModelError::Infer { what, .. } => match what {
            InferError::NullLabel { .. } => "--null-label true or false",
            InferError::ImageSize { .. } => "dis convert IN OUT --image-size WIDTHxHEIGHT",
            _ => return error.into(),
        },
        _ => return error.into(),
    };
    anyhow::anyhow!("{error} ({option})")
}
