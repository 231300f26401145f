//! Checkpoints of PyTorch: the zip files that `torch.save` writes, read without running anything.
//!
//! Such a file is a zip archive of a pickle (`data.pkl`), which describes the objects, and one
//! stored entry for each storage (`data/0`, `data/1`, ...). The pickle is read by a small machine
//! that knows only what tensors and plain settings need (`pickle`); it builds a description, from
//! which tensors are read where they lie.
//!
//! What a file can make this use: its pickle is read whole (at most `MAX_PICKLE`), its
//! description takes a small multiple of that, and tensors together never have more elements than
//! the file has bytes.

mod error;
mod objects;
mod pickle;
#[cfg(test)]
mod tests;
mod value;
mod write;

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use crate::error::{FileError, Result};
use crate::sniff::{FileKind, expect_kind};
use crate::stored::{Place, StoredTensor};
use crate::zip::Archive;
use value::{Node, Pickle, Tensor, Value};

pub use error::TorchError;
pub use write::{Dict, write_torch};

/// Longest pickle that is read: hundreds of thousands of tensors.
const MAX_PICKLE: u64 = 32 << 20;

/// A `.pt` file, opened: its description is read, its tensors are not.
#[derive(Debug)]
pub struct TorchFile<R = File> {
    source: R,
    origin: PathBuf,
    content: Content,
}

/// What a file says of its tensors.
#[derive(Debug)]
struct Content {
    archive: Archive,
    /// Folder of the archive that everything is in, with its `/`.
    folder: String,
    pickle: Pickle,
}

impl TorchFile<File> {
    /// Opens a file.
    ///
    /// # Errors
    /// If it cannot be read, is a file of another kind, or its description is damaged or names
    /// what tensors and plain settings do not need.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(FileError::io(path, "open it"))?;
        Self::new(file, path)
    }

    /// Whether a zip archive is one of `torch.save`: whether a folder of it has a pickle.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn is_archive(path: &Path) -> Result<bool> {
        let mut file = File::open(path).map_err(FileError::io(path, "open it"))?;
        let archive = Archive::read(&mut file).map_err(|e| torch_error(path)(e.into()))?;
        let found = archive.names().any(|name| name.ends_with("data.pkl"));
        Ok(found)
    }
}

impl<R: Read + Seek> TorchFile<R> {
    /// Reads the description of a file; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`TorchFile::open`].
    pub fn new(mut source: R, origin: &Path) -> Result<Self> {
        expect_kind(&mut source, origin, &[FileKind::Zip], "a .pt file")?;
        let content = Content::read(&mut source).map_err(torch_error(origin))?;
        Ok(Self {
            source,
            origin: origin.to_path_buf(),
            content,
        })
    }

    /// Entries at the top that hold tensors, each with their number. An entry of dictionaries has
    /// those of its own entries.
    pub fn entries(&self) -> Vec<(String, usize)> {
        let pickle = &self.content.pickle;
        let mut found = Vec::new();
        for (key, value) in pickle.pairs(pickle.root) {
            let Some(key) = pickle.text(*key) else {
                continue;
            };
            let own = pickle.tensors_in(*value);
            if own > 0 {
                found.push((key.to_string(), own));
                continue;
            }
            for (inner, value) in pickle.pairs(*value) {
                let own = pickle.tensors_in(*value);
                if let Some(inner) = pickle.text(*inner)
                    && own > 0
                {
                    found.push((format!("{key}/{inner}"), own));
                }
            }
        }
        found
    }

    /// Whether there is anything at a path.
    pub fn contains(&self, path: &str) -> bool {
        walk(&self.content.pickle, path).is_some()
    }

    /// How many tensors are directly in the dictionary at a path; 0 if there is none. `/` goes into
    /// nested dictionaries, and nothing is the whole file.
    pub fn count(&self, path: &str) -> usize {
        let dict = walk(&self.content.pickle, path);
        dict.map_or(0, |dict| self.content.pickle.tensors_in(dict))
    }

    /// Names of the tensors directly in the dictionary at a path, in the order of the file.
    pub fn names(&self, path: &str) -> Vec<&str> {
        let pickle = &self.content.pickle;
        let dict = walk(pickle, path);
        let pairs = dict.map_or(&[][..], |dict| pickle.pairs(dict));
        let tensors = pairs.iter().filter(|(_, v)| pickle.tensor(*v).is_some());
        tensors.filter_map(|(name, _)| pickle.text(*name)).collect()
    }

    /// The names and places of the tensors directly in the dictionary at a path, in the order of
    /// the file. Other values beside them are left out.
    ///
    /// # Errors
    /// If there are none, or one leaves its storage or the file.
    pub fn tensors(&mut self, path: &str) -> Result<Vec<StoredTensor>> {
        let dict = walk(&self.content.pickle, path);
        let dict = dict.filter(|dict| self.content.pickle.tensors_in(*dict) > 0);
        let dict =
            dict.ok_or_else(|| TorchError::Entry(format!("there are no tensors in {path:?}")));
        dict.and_then(|dict| places(&mut self.source, &self.content, dict))
            .map_err(torch_error(&self.origin))
    }

    /// Reads a tensor that [`TorchFile::tensors`] found, row-major, as float32.
    ///
    /// # Errors
    /// If reading fails.
    pub fn read(&mut self, tensor: &StoredTensor) -> Result<Vec<f32>> {
        tensor
            .read(&mut self.source)
            .map_err(FileError::io(&self.origin, "read it"))
    }

    /// The place of one tensor of any path, such as `opt/state/0/exp_avg`.
    ///
    /// # Errors
    /// If there is none, or it leaves its storage or the file.
    pub fn tensor(&mut self, path: &str) -> Result<StoredTensor> {
        let pickle = &self.content.pickle;
        let found = walk(pickle, path).and_then(|value| pickle.tensor(value));
        let stored = match found {
            None => Err(TorchError::Entry(format!("there is no tensor {path:?}"))),
            Some(tensor) => place(&mut self.source, &self.content, path.to_string(), tensor),
        };
        let stored = stored.and_then(|stored| {
            bounded(stored.len() as u64, &self.content.archive)?;
            Ok(stored)
        });
        stored.map_err(torch_error(&self.origin))
    }

    /// The plain values (numbers, texts, truth values, nothing) directly in the dictionary or the
    /// namespace at a path; empty if there is none.
    pub fn values(&self, path: &str) -> Map<String, Json> {
        let pickle = &self.content.pickle;
        let mut map = Map::new();
        for (key, value) in walk(pickle, path).map_or(&[][..], |dict| pickle.pairs(dict)) {
            let value = match *value {
                Value::None => Json::Null,
                Value::Bool(x) => json!(x),
                Value::Int(x) => json!(x),
                Value::Float(x) => json!(x),
                value => match pickle.text(value) {
                    Some(text) => json!(text),
                    None => continue,
                },
            };
            if let Some(key) = pickle.text(*key) {
                map.insert(key.to_string(), value);
            }
        }
        map
    }

    /// The text at a path, if there is one.
    pub fn text(&self, path: &str) -> Option<&str> {
        let pickle = &self.content.pickle;
        walk(pickle, path).and_then(|value| pickle.text(value))
    }

    /// Gives the source back.
    pub fn into_source(self) -> R {
        self.source
    }
}

fn torch_error(origin: &Path) -> impl Fn(TorchError) -> FileError + use<> {
    let path = origin.to_path_buf();
    move |source| FileError::Torch {
        path: path.clone(),
        source,
    }
}

fn walk(pickle: &Pickle, path: &str) -> Option<Value> {
    let mut value = pickle.root;
    for key in path.split('/').filter(|key| !key.is_empty()) {
        value = pickle.get(value, key)?;
    }
    Some(value)
}

/// The one folder of the archive that has the pickle.
fn folder(archive: &Archive) -> std::result::Result<String, TorchError> {
    let folders = archive.names().filter_map(|n| n.strip_suffix("data.pkl"));
    let folders: Vec<&str> = folders
        .filter(|f| f.is_empty() || f.ends_with('/') && f.matches('/').count() == 1)
        .collect();
    match folders[..] {
        [folder] => Ok(folder.to_string()),
        [] if archive.names().any(|n| n.ends_with(".npy")) => Err(TorchError::Unsupported(
            "an .npz file of arrays, not a checkpoint of torch.save".into(),
        )),
        [] => Err(TorchError::Unsupported(
            "a zip archive, but not one of torch.save: it has no data.pkl".into(),
        )),
        _ => Err(TorchError::Unsupported(
            "a zip archive of more than one data.pkl".into(),
        )),
    }
}

impl Content {
    fn read<R: Read + Seek>(source: &mut R) -> std::result::Result<Self, TorchError> {
        let archive = Archive::read(source)?;
        let folder = folder(&archive)?;
        if archive.contains(&format!("{folder}constants.pkl")) {
            return Err(TorchError::Unsupported(
                "a TorchScript program, not a checkpoint: save its state_dict() with torch.save"
                    .into(),
            ));
        }
        let order = format!("{folder}byteorder");
        if archive.contains(&order) {
            let order = archive.bytes(source, &order, 16)?;
            if order.trim_ascii() != b"little" {
                return Err(TorchError::Unsupported(format!(
                    "its byte order is {:?}; only little is understood",
                    String::from_utf8_lossy(&order)
                )));
            }
        }
        let bytes = archive.bytes(source, &format!("{folder}data.pkl"), MAX_PICKLE)?;
        let pickle = pickle::read(bytes)?;
        if !matches!(pickle.node(pickle.root), Some(Node::Dict(_))) {
            return Err(TorchError::Unsupported(
                "it holds no dictionary, so no weights by name".into(),
            ));
        }
        Ok(Self {
            archive,
            folder,
            pickle,
        })
    }
}

/// Views can repeat elements without end; honest ones take at least a byte of the file each.
fn bounded(elements: u64, archive: &Archive) -> std::result::Result<(), TorchError> {
    if elements <= archive.file_len() {
        return Ok(());
    }
    Err(TorchError::Tensor(format!(
        "its tensors have {elements} elements, more than the file has bytes"
    )))
}

/// Where all tensors of a dictionary are.
fn places<R: Read + Seek>(
    source: &mut R,
    content: &Content,
    dict: Value,
) -> std::result::Result<Vec<StoredTensor>, TorchError> {
    let mut chosen = Vec::new();
    for (key, value) in content.pickle.pairs(dict) {
        if let (Some(name), Some(tensor)) =
            (content.pickle.text(*key), content.pickle.tensor(*value))
        {
            chosen.push((name, tensor));
        }
    }
    let mut tensors = Vec::new();
    let mut elements = 0u64;
    for (name, tensor) in chosen {
        let stored = place(source, content, name.to_string(), tensor)?;
        elements = elements.saturating_add(stored.len() as u64);
        bounded(elements, &content.archive)?;
        tensors.push(stored);
    }
    Ok(tensors)
}

/// Where a tensor's elements are.
fn place<R: Read + Seek>(
    source: &mut R,
    content: &Content,
    name: String,
    tensor: &Tensor,
) -> std::result::Result<StoredTensor, TorchError> {
    let key = String::from_utf8_lossy(tensor.storage.key.of(&content.pickle.bytes));
    let entry = format!("{}data/{key}", content.folder);
    let (start, size) = content.archive.locate(source, &entry)?;
    let unit = tensor.storage.element.map_or(1, |e| e.size() as u64);
    let bytes = tensor.storage.len.checked_mul(unit);
    let bytes = bytes.filter(|&bytes| bytes <= size).ok_or_else(|| {
        TorchError::Tensor(format!(
            "the storage of tensor {name:?} should have {} elements, but the file has {size} bytes \
             of it",
            tensor.storage.len
        ))
    })?;
    let place = Place {
        start,
        bytes,
        offset: tensor.offset,
    };
    let strides = Some(tensor.strides.as_slice());
    StoredTensor::new(name, tensor.shape.clone(), tensor.element, place, strides)
        .map_err(TorchError::Tensor)
}
