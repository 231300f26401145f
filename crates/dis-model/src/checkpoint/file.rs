//! A checkpoint file of either format: opened first, read when it is known to fit.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use dis_files::torch::TorchFile;
use dis_files::{FileError, FileKind, SafetensorsFile, StoredTensor, expect_kind};
use dis_ssm::ParamTable;
use dis_tensor::{Backend, Reals};
use serde_json::{Map, Value};

use super::dictionary::{dictionary, is_average};
use super::entry::Entry;
use super::infer::{InferHints, infer_from_shapes};
use super::metadata::{Holds, METADATA_KEY, Metadata};
use super::names::{choose, own, sets};
use super::tensors::{NamedTensor, check_shapes, finite};
use crate::error::{ModelError, Result};
use crate::model::DisModel;

/// Where training scripts keep their arguments in a `.pt` file.
const ARGUMENTS: [&str; 3] = ["args", "config", "hparams"];

/// Formats that are read. The content decides, not the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Safetensors.
    Safetensors,
    /// A zip file of PyTorch.
    Torch,
}

/// A checkpoint that was opened: its tensors' names, shapes and places are known, their values
/// still in the file.
#[derive(Debug)]
pub struct WeightFile<R = File> {
    source: R,
    origin: PathBuf,
    format: Format,
    entry: String,
    sets: usize,
    /// Whether these are a moving average, by the names in the file.
    average: bool,
    tensors: Vec<StoredTensor>,
    metadata: Option<String>,
    arguments: Map<String, Value>,
}

impl WeightFile<File> {
    /// Opens a file. `entry` says which weights, if it holds several.
    ///
    /// # Errors
    /// If it cannot be read, is a file of another kind, or does not have such weights.
    pub fn open(path: &Path, entry: &Entry) -> Result<Self> {
        let file = File::open(path).map_err(FileError::io(path, "open it"))?;
        Self::new(file, path, entry)
    }
}

impl<R: Read + Seek> WeightFile<R> {
    /// As [`WeightFile::open`], from anything that can be read at any place; `origin` names it in
    /// errors.
    ///
    /// # Errors
    /// As [`WeightFile::open`].
    pub fn new(mut source: R, origin: &Path, entry: &Entry) -> Result<Self> {
        let right = [FileKind::Zip, FileKind::Safetensors];
        let kind = expect_kind(&mut source, origin, &right, "a checkpoint")?;
        let refuse = |what: String| ModelError::Checkpoint {
            path: origin.to_path_buf(),
            what,
        };
        let mut file = if kind == FileKind::Zip {
            let mut torch = TorchFile::new(source, origin)?;
            let path = dictionary(&torch, entry).map_err(refuse)?;
            let tensors = torch.tensors(&path)?;
            let arguments = ARGUMENTS.iter().find(|key| torch.contains(key));
            Self {
                origin: origin.to_path_buf(),
                format: Format::Torch,
                average: is_average(&path),
                entry: path,
                sets: 1,
                tensors,
                metadata: torch.text(METADATA_KEY).map(str::to_string),
                arguments: arguments.map(|key| torch.values(key)).unwrap_or_default(),
                source: torch.into_source(),
            }
        } else {
            let file = SafetensorsFile::new(source, origin)?;
            let metadata = file.metadata(METADATA_KEY).map(str::to_string);
            let (source, tensors) = file.into_parts();
            Self {
                source,
                origin: origin.to_path_buf(),
                format: Format::Safetensors,
                entry: String::new(),
                sets: 1,
                average: false,
                tensors,
                metadata,
                arguments: Map::new(),
            }
        };
        file.take_set(entry).map_err(refuse)?;
        Ok(file)
    }

    /// Keeps the tensors of one model under the names that they have without wrappers.
    fn take_set(&mut self, entry: &Entry) -> std::result::Result<(), String> {
        let names: Vec<&str> = self.tensors.iter().map(|t| t.name.as_str()).collect();
        let sets = sets(&names);
        // What an entry's name says of a `.pt` file was about dictionaries.
        let by_path = self.format == Format::Torch && matches!(entry, Entry::Named(_));
        let entry = if by_path { &Entry::Auto } else { entry };
        let set = choose(&sets, entry)?;
        self.sets = sets.len();
        self.average |= set.average;
        if sets.len() > 1 && !set.prefix.is_empty() {
            let name = set.prefix.trim_end_matches('.');
            self.entry = match self.entry.as_str() {
                "" => name.to_string(),
                path => format!("{path}/{name}"),
            };
        }
        self.tensors.retain_mut(|tensor| {
            let own = own(&tensor.name, set, &sets).map(str::to_string);
            own.map(|name| tensor.name = name).is_some()
        });
        Ok(())
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Which of a file's weights these are: the path of their dictionary in a `.pt` file, and of
    /// several models in one dictionary the prefix of their names; empty if there was no choice.
    pub fn entry(&self) -> &str {
        &self.entry
    }

    /// How many models the names told apart.
    pub fn models(&self) -> usize {
        self.sets
    }

    /// What is known of the tensors.
    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    /// The text of our metadata, if it is there.
    pub fn metadata_text(&self) -> Option<&str> {
        self.metadata.as_deref()
    }

    /// Plain values of the arguments that a published training script stored.
    pub fn arguments(&self) -> &Map<String, Value> {
        &self.arguments
    }

    fn refuse(&self, what: String) -> ModelError {
        ModelError::Checkpoint {
            path: self.origin.clone(),
            what,
        }
    }

    /// The metadata, or a configuration inferred from the shapes, with `hints` and the stored
    /// arguments where shapes leave it open.
    ///
    /// # Errors
    /// If the metadata are damaged, the file holds no weights but the optimizer's moments, or the
    /// shapes are not those of a model or leave its configuration open.
    pub fn describe(&self, hints: &InferHints) -> Result<Metadata> {
        let mut metadata = match &self.metadata {
            Some(text) => Metadata::from_json(text).map_err(|e| self.refuse(e))?,
            None => {
                let shapes = self.tensors.iter();
                let shapes = shapes.map(|t| (t.name.as_str(), t.shape.as_slice()));
                let path = self.origin.clone();
                let config = infer_from_shapes(shapes, hints, &self.arguments)
                    .map_err(|what| ModelError::Infer { path, what })?;
                Metadata::new(config)
            }
        };
        if metadata.holds == Some(Holds::Both) {
            let (average, weights) = (Holds::Ema, Holds::Weights);
            metadata.holds = Some(if self.average { average } else { weights });
        }
        if let Some(holds) = metadata.holds.filter(|holds| !holds.is_weights()) {
            return Err(ModelError::Moments {
                path: self.origin.clone(),
                holds,
            });
        }
        // A few bytes of text must not ask for a table of thousands of blocks.
        let blocks = metadata.model.blocks();
        if blocks > self.tensors.len() {
            return Err(self.refuse(format!(
                "its metadata say {blocks} blocks, but it holds only {} tensors",
                self.tensors.len()
            )));
        }
        Ok(metadata)
    }

    /// The model that metadata describe.
    ///
    /// # Errors
    /// If there is no such model.
    pub fn model(&self, metadata: &Metadata) -> Result<DisModel> {
        DisModel::new(metadata.model).map_err(|e| self.refuse(format!("its configuration: {e}")))
    }

    /// Reads the weights into a fresh arena, tensor by tensor and piece by piece, so that they are
    /// in memory once. Every parameter must be there with its exact shape and finite values, and
    /// nothing else may be.
    ///
    /// # Errors
    /// If a parameter is missing, superfluous or no finite number, or reading fails.
    pub fn read_arena(&mut self, table: &ParamTable) -> Result<Vec<f32>> {
        let by_name = self.match_table(table)?;
        let mut arena = vec![0.0; table.len()];
        for (spec, index) in table.specs().iter().zip(by_name) {
            let out = &mut arena[spec.offset..spec.offset + spec.len()];
            self.read_finite(index, &spec.name, out)?;
        }
        Ok(arena)
    }

    /// As [`WeightFile::read_arena`], into memory of a device; beside it, the largest tensor is in
    /// host memory.
    ///
    /// # Errors
    /// As [`WeightFile::read_arena`].
    pub fn read_params<B: Backend>(&mut self, backend: &B, table: &ParamTable) -> Result<Reals<B>> {
        let by_name = self.match_table(table)?;
        let mut params = backend.alloc(table.len());
        let mut tensor = Vec::new();
        for (spec, index) in table.specs().iter().zip(by_name) {
            tensor.resize(spec.len(), 0.0);
            self.read_finite(index, &spec.name, &mut tensor)?;
            backend.write_f32(&mut params, spec.offset, &tensor)?;
        }
        Ok(params)
    }

    /// For every parameter the number of its tensor; all must be there and no other.
    fn match_table(&self, table: &ParamTable) -> Result<Vec<usize>> {
        let shapes = self.tensors.iter();
        let shapes = shapes.map(|t| (t.name.as_str(), t.shape.as_slice()));
        check_shapes(table, shapes, &self.origin)
    }

    fn read_finite(&mut self, index: usize, name: &str, out: &mut [f32]) -> Result<()> {
        let mut finite =
            |first: usize, piece: &[f32]| finite(name, first, piece).map_err(Fault::Content);
        self.tensors[index]
            .read_into(&mut self.source, out, &mut finite)
            .map_err(|fault| fault.at(&self.origin))
    }
}

/// Reads all tensors, by name, and, if there is one, the metadata text. Either format, every
/// float and integer type.
///
/// # Errors
/// If the bytes are neither, or damaged.
pub fn read_tensors(bytes: &[u8], origin: &Path) -> Result<(Option<String>, Vec<NamedTensor>)> {
    let mut file = WeightFile::new(Cursor::new(bytes), origin, &Entry::Auto)?;
    let mut tensors = Vec::with_capacity(file.tensors.len());
    for tensor in &file.tensors {
        let data = tensor
            .read(&mut file.source)
            .map_err(FileError::io(origin, "read it"))?;
        tensors.push(NamedTensor {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            data,
        });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((file.metadata, tensors))
}

enum Fault {
    Io(io::Error),
    Content(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Fault {
    fn at(self, path: &Path) -> ModelError {
        match self {
            Self::Io(source) => FileError::io(path, "read it")(source).into(),
            Self::Content(what) => ModelError::Checkpoint {
                path: path.to_path_buf(),
                what,
            },
        }
    }
}
