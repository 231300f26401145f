//! A checkpoint file of either format: opened first, read when it is known to fit.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use dis_ssm::ParamTable;
use dis_tensor::{Backend, Reals};
use serde_json::{Map, Value};

use super::infer::{InferHints, infer_from_shapes};
use super::stored::StoredTensor;
use super::tensors::{check_shapes, read_header};
use super::torch::{Entry, TorchFile};
use super::{Checkpoint, Metadata};
use crate::error::{ModelError, Result};
use crate::model::DisModel;

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
    tensors: Vec<StoredTensor>,
    metadata: Option<String>,
    arguments: Map<String, Value>,
}

impl WeightFile<File> {
    /// Opens a file. `entry` says which weights of a PyTorch file; safetensors have one set.
    pub fn open(path: &Path, entry: &Entry) -> Result<Self> {
        let file = File::open(path).map_err(|source| ModelError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        Self::new(file, path, entry)
    }
}

impl<R: Read + Seek> WeightFile<R> {
    /// As [`WeightFile::open`], from anything that can be read at any place; `origin` names it in
    /// errors.
    pub fn new(mut source: R, origin: &Path, entry: &Entry) -> Result<Self> {
        let failed = |source| ModelError::Io {
            path: origin.to_path_buf(),
            source,
        };
        let mut magic = [0; 4];
        let read = read_up_to(&mut source, &mut magic).map_err(failed)?;
        source.seek(SeekFrom::Start(0)).map_err(failed)?;
        if &magic == b"PK\x03\x04" {
            let mut torch = TorchFile::new(source, origin)?;
            let (entry, tensors) = torch.choose(entry)?;
            return Ok(Self {
                origin: origin.to_path_buf(),
                format: Format::Torch,
                entry,
                tensors,
                metadata: torch.metadata().map(str::to_string),
                arguments: torch.arguments(),
                source: torch.into_source(),
            });
        }
        if read == magic.len() && magic[..2] == [0x80, 2] {
            return Err(ModelError::Checkpoint {
                path: origin.to_path_buf(),
                what: "a bare pickle, such as PyTorch before 1.6 wrote: load it with a newer \
                       PyTorch and torch.save its state_dict again"
                    .into(),
            });
        }
        let (metadata, tensors) = read_header(&mut source, origin)?;
        Ok(Self {
            source,
            origin: origin.to_path_buf(),
            format: Format::Safetensors,
            entry: String::new(),
            tensors,
            metadata,
            arguments: Map::new(),
        })
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Which entry of a `.pt` file it is; empty if the tensors are at the top.
    pub fn entry(&self) -> &str {
        &self.entry
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
    pub fn describe(&self, hints: &InferHints) -> Result<Metadata> {
        let metadata = match &self.metadata {
            Some(text) => Metadata::from_json(text).map_err(|e| self.refuse(e))?,
            None => {
                let shapes = self.tensors.iter();
                let shapes = shapes.map(|t| (t.name.as_str(), t.shape.as_slice()));
                let config = infer_from_shapes(shapes, hints, &self.arguments);
                Metadata::new(config.map_err(|e| self.refuse(e))?)
            }
        };
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

    /// Reads the weights into a fresh arena, tensor by tensor and piece by piece, so that they are
    /// in memory once. Every parameter must be there with its exact shape and finite values, and
    /// nothing else may be.
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
            .read(&mut self.source, out, &mut finite)
            .map_err(|fault| fault.at(&self.origin))
    }

    /// Reads all tensors in the order of the file, whatever they are.
    pub(super) fn read_all(&mut self, mut each: impl FnMut(&StoredTensor, Vec<f32>)) -> Result<()> {
        for tensor in &self.tensors {
            let mut data = vec![0.0; tensor.len()];
            tensor
                .read::<_, Fault>(&mut self.source, &mut data, &mut |_, _| Ok(()))
                .map_err(|fault| fault.at(&self.origin))?;
            each(tensor, data);
        }
        Ok(())
    }

    /// Loads the model.
    pub fn load(mut self, hints: &InferHints) -> Result<Checkpoint> {
        let metadata = self.describe(hints)?;
        let model = DisModel::new(metadata.model).map_err(|e| self.refuse(e.to_string()))?;
        let weights = self.read_arena(model.table())?;
        Ok(Checkpoint {
            model,
            weights,
            metadata,
        })
    }
}

/// Refuses values that are not numbers, and infinite ones. The largest magnitude, which compilers
/// find with vector instructions, says first whether there are any.
pub(super) fn finite(name: &str, first: usize, piece: &[f32]) -> std::result::Result<(), String> {
    let magnitude = |x: &f32| x.to_bits() & !(1 << 31);
    let largest = piece.iter().map(magnitude).fold(0, u32::max);
    if largest < f32::INFINITY.to_bits() {
        return Ok(());
    }
    let at = piece.iter().position(|x| !x.is_finite()).unwrap_or(0);
    let (index, value) = (first + at, piece[at]);
    Err(format!("tensor {name:?} holds {value} at element {index}"))
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
        let path = path.to_path_buf();
        match self {
            Self::Io(source) => ModelError::Io { path, source },
            Self::Content(what) => ModelError::Checkpoint { path, what },
        }
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_up_to<R: Read>(source: &mut R, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match source.read(&mut buffer[read..]) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(read)
}
