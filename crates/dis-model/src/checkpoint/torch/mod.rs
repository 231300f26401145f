//! Checkpoints of PyTorch: the zip files that `torch.save` writes, read without running anything.
//!
//! Such a file is a zip archive of a pickle (`data.pkl`), which describes the objects, and one
//! stored entry for each storage (`data/0`, `data/1`, ...). The pickle is read by a small machine
//! that knows only what tensors and plain settings need ([`pickle`]); it builds a description, from
//! which tensors are read where they lie.
//!
//! What a file can make this use: its pickle is read whole (at most [`MAX_PICKLE`]), its
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

use super::stored::{Place, StoredTensor};
use super::tensors::NamedTensor;
use super::zip::Archive;
use crate::error::{ModelError, Result};
use value::{Node, Pickle, Tensor, Value};

pub use error::TorchError;
pub use write::{save_torch, write_torch};

/// Longest pickle that is read: hundreds of thousands of tensors.
const MAX_PICKLE: u64 = 32 << 20;

/// Key under which our own metadata travel.
pub(super) const METADATA_ENTRY: &str = super::METADATA_KEY;

/// Where weights usually are, in the order of preference, averaged ones first.
const EMA: [&str; 3] = ["ema", "ema_state_dict", "model_ema"];
const RAW: [&str; 4] = ["model", "state_dict", "model_state_dict", "module"];

/// Prefixes that wrappers put before every name.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

/// Which weights of a file that holds several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// The moving average if there is one, else the weights, else the only tensors there are.
    #[default]
    Auto,
    /// The moving average.
    Ema,
    /// The weights as they were trained.
    Raw,
    /// The entry of this name; `/` goes into nested dictionaries.
    Named(String),
}

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
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| ModelError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        Self::new(file, path)
    }
}

impl<R: Read + Seek> TorchFile<R> {
    /// Reads the description of a file; `origin` names it in errors.
    pub fn new(mut source: R, origin: &Path) -> Result<Self> {
        let content = Content::read(&mut source).map_err(|e| torch_error(origin, e))?;
        Ok(Self {
            source,
            origin: origin.to_path_buf(),
            content,
        })
    }

    /// Entries at the top that hold tensors, each with their number. An entry of dictionaries has
    /// those of its own entries.
    pub fn entries(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        for (key, value) in self.content.pickle.pairs(self.content.pickle.root) {
            let Some(key) = self.content.pickle.text(*key) else {
                continue;
            };
            let own = self.count(*value);
            if own > 0 {
                found.push((key.to_string(), own));
                continue;
            }
            for (inner, value) in self.content.pickle.pairs(*value) {
                let own = self.count(*value);
                if let Some(inner) = self.content.pickle.text(*inner)
                    && own > 0
                {
                    found.push((format!("{key}/{inner}"), own));
                }
            }
        }
        found
    }

    /// Tensors directly in a dictionary.
    fn count(&self, dict: Value) -> usize {
        let pairs = self.content.pickle.pairs(dict).iter();
        pairs
            .filter(|(_, v)| self.content.pickle.tensor(*v).is_some())
            .count()
    }

    /// The names and places of an entry's tensors, in the order of the file, without the prefixes
    /// of wrappers. Other values beside them are left out.
    pub fn tensors(&mut self, entry: &Entry) -> Result<Vec<StoredTensor>> {
        self.choose(entry).map(|(_, tensors)| tensors)
    }

    /// As [`TorchFile::tensors`], with the name of the entry.
    pub(super) fn choose(&mut self, entry: &Entry) -> Result<(String, Vec<StoredTensor>)> {
        let found = self.find(entry).and_then(|(path, dict)| {
            let tensors = places(&mut self.source, &self.content, dict)?;
            Ok((path, tensors))
        });
        found.map_err(|e| torch_error(&self.origin, e))
    }

    /// Reads a tensor that [`TorchFile::tensors`] found.
    pub fn read(&mut self, tensor: &StoredTensor) -> Result<NamedTensor> {
        let mut data = vec![0.0; tensor.len()];
        tensor
            .read::<_, TorchError>(&mut self.source, &mut data, &mut |_, _| Ok(()))
            .map_err(|e| torch_error(&self.origin, e))?;
        Ok(NamedTensor {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            data,
        })
    }

    /// Reads one tensor of any place, such as `opt/state/0/exp_avg`.
    pub fn tensor(&mut self, path: &str) -> Result<NamedTensor> {
        let found =
            walk(&self.content.pickle, path).and_then(|value| self.content.pickle.tensor(value));
        let stored = match found {
            None => Err(TorchError::Entry(format!("there is no tensor {path:?}"))),
            Some(tensor) => place(&mut self.source, &self.content, path.to_string(), tensor),
        };
        let stored = stored.and_then(|stored| {
            bounded(stored.len() as u64, &self.content.archive)?;
            Ok(stored)
        });
        let stored = stored.map_err(|e| torch_error(&self.origin, e))?;
        self.read(&stored)
    }

    /// The plain values (numbers, texts, truth values, nothing) of the training script's arguments.
    pub fn arguments(&self) -> Map<String, Json> {
        let args = ["args", "config", "hparams"];
        let args = args
            .iter()
            .find_map(|k| self.content.pickle.get(self.content.pickle.root, k));
        let mut map = Map::new();
        for (key, value) in args.map_or(&[][..], |args| self.content.pickle.pairs(args)) {
            let value = match *value {
                Value::None => Json::Null,
                Value::Bool(x) => json!(x),
                Value::Int(x) => json!(x),
                Value::Float(x) => json!(x),
                value => match self.content.pickle.text(value) {
                    Some(text) => json!(text),
                    None => continue,
                },
            };
            if let Some(key) = self.content.pickle.text(*key) {
                map.insert(key.to_string(), value);
            }
        }
        map
    }

    /// The metadata of a file that we wrote.
    pub(super) fn metadata(&self) -> Option<&str> {
        let value = self
            .content
            .pickle
            .get(self.content.pickle.root, METADATA_ENTRY)?;
        self.content.pickle.text(value)
    }

    /// Gives the source back.
    pub(super) fn into_source(self) -> R {
        self.source
    }

    fn find(&self, entry: &Entry) -> std::result::Result<(String, Value), TorchError> {
        let root = self.content.pickle.root;
        let known = match entry {
            Entry::Auto => [&EMA[..], &RAW[..]].concat(),
            Entry::Ema => EMA.to_vec(),
            Entry::Raw => RAW.to_vec(),
            Entry::Named(name) => vec![name.as_str()],
        };
        let found = known.iter().find_map(|name| {
            let value = walk(&self.content.pickle, name)?;
            self.descend(name, value)
        });
        if let Some(found) = found {
            return Ok(found);
        }
        let entries = self.entries();
        if matches!(entry, Entry::Auto | Entry::Raw) && self.count(root) > 0 {
            return Ok((String::new(), root));
        }
        if let (Entry::Auto, [(only, _)]) = (entry, &entries[..])
            && let Some(dict) = walk(&self.content.pickle, only)
        {
            return Ok((only.clone(), dict));
        }
        let list: Vec<String> = entries
            .iter()
            .take(12)
            .map(|(name, n)| format!("{name:?} ({n})"))
            .collect();
        let list = match (list.is_empty(), self.count(root)) {
            (true, 0) => "no entry of the file holds tensors by name".to_string(),
            (true, n) => format!("the file has {n} tensors and no entries"),
            _ => format!("entries with tensors are {}", list.join(", ")),
        };
        Err(TorchError::Entry(match entry {
            Entry::Auto => format!("it is unclear where the weights are; {list}"),
            Entry::Ema => format!("there is no moving average (ema); {list}"),
            Entry::Raw => format!("there are no weights (model, state_dict); {list}"),
            Entry::Named(name) => format!("there are no tensors in entry {name:?}; {list}"),
        }))
    }

    /// The dictionary itself if tensors are in it, or the one in it that usually has them.
    fn descend(&self, name: &str, mut value: Value) -> Option<(String, Value)> {
        let mut path = name.to_string();
        for _ in 0..4 {
            if self.count(value) > 0 {
                return Some((path, value));
            }
            let inner = RAW.iter().find_map(|key| {
                let inner = self.content.pickle.get(value, key)?;
                Some((key, inner))
            });
            let (key, inner) = inner?;
            path = format!("{path}/{key}");
            value = inner;
        }
        None
    }
}

fn torch_error(origin: &Path, source: TorchError) -> ModelError {
    ModelError::Torch {
        path: origin.to_path_buf(),
        source,
    }
}

fn walk(pickle: &Pickle, path: &str) -> Option<Value> {
    let mut value = pickle.root;
    for key in path.split('/') {
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
    let mut prefix = 0;
    while let Some(more) = PREFIXES.iter().find(|p| {
        let rest = |name: &str| name.get(prefix..).is_some_and(|n| n.starts_with(**p));
        !chosen.is_empty() && chosen.iter().all(|(name, _)| rest(name))
    }) {
        prefix += more.len();
    }
    let mut tensors = Vec::new();
    let mut elements = 0u64;
    for (name, tensor) in chosen {
        let name = name.get(prefix..).unwrap_or_default().to_string();
        let stored = place(source, content, name, tensor)?;
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
