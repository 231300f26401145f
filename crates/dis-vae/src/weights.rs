//! Tensors of a safetensors file, read one at a time, so that loading needs no more memory than
//! the weights themselves.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use dis_files::{ElementType, FileError, SafetensorsFile, StoredTensor};

use crate::error::{Result, VaeError};
use crate::names::{canonical_names, is_foreign};

/// Named tensors, in a file or in memory, under the names of the diffusers library.
#[derive(Debug)]
pub struct Weights {
    origin: PathBuf,
    file: Option<File>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Name in the file.
    name: String,
    shape: Vec<usize>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    File(StoredTensor),
    Memory(Vec<f32>),
}

impl Weights {
    /// Reads the header of a safetensors file and checks that every tensor lies in it.
    ///
    /// # Errors
    /// If the file cannot be read, is of another kind, or its header does not describe its content.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, tensors) = SafetensorsFile::open(path)?.into_parts();
        let found = tensors.into_iter().map(|tensor| Entry {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            place: Place::File(tensor),
        });
        Self::named(path, Some(file), found.collect())
    }

    /// Tensors in memory: name, shape and values.
    ///
    /// # Errors
    /// If a shape does not fit its values, or two names mean the same tensor.
    pub fn from_tensors(
        tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>,
    ) -> Result<Self> {
        let origin = Path::new("memory");
        let mut found = Vec::new();
        for (name, shape, data) in tensors {
            if elements(&shape) != Some(data.len()) {
                let what = format!("has shape {shape:?} but {} values", data.len());
                return Err(VaeError::tensor(origin, &name, what));
            }
            found.push(Entry {
                name,
                shape,
                place: Place::Memory(data),
            });
        }
        Self::named(origin, None, found)
    }

    fn named(origin: &Path, file: Option<File>, found: Vec<Entry>) -> Result<Self> {
        let names = canonical_names(found.iter().map(|e| e.name.as_str()));
        let mut entries = BTreeMap::new();
        for (canonical, entry) in names.into_iter().zip(found) {
            if is_foreign(&canonical) {
                continue;
            }
            let name = entry.name.clone();
            if entries.insert(canonical, entry).is_some() {
                let what = "is there a second time under another name";
                return Err(VaeError::tensor(origin, &name, what));
            }
        }
        Ok(Self {
            origin: origin.to_path_buf(),
            file,
            entries,
        })
    }

    /// Where they came from.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    /// An error about a tensor, under the name it has in the file.
    pub(crate) fn error(&self, name: &str, what: impl Into<String>) -> VaeError {
        let name = self.entries.get(name).map_or(name, |e| e.name.as_str());
        VaeError::tensor(&self.origin, name, what)
    }

    /// Values of a tensor, row-major.
    ///
    /// # Errors
    /// If it is missing, cannot be read, is of another type than F32, F64, F16 and BF16, or holds
    /// a value that is not finite.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| self.error(name, "is missing"))?;
        let data = match (&entry.place, &self.file) {
            (Place::Memory(data), _) => data.clone(),
            (Place::File(tensor), _) if !is_float(tensor.element()) => {
                let what = format!(
                    "has type {:?}, expected F32, F64, F16 or BF16",
                    tensor.element()
                );
                return Err(self.error(name, what));
            }
            (Place::File(tensor), Some(file)) => {
                let mut file: &File = file;
                tensor
                    .read(&mut file)
                    .map_err(FileError::io(&self.origin, "read it"))?
            }
            (Place::File(_), None) => return Err(self.error(name, "has no file")),
        };
        match data.iter().position(|x| !x.is_finite()) {
            Some(i) => Err(self.error(name, format!("holds {} at element {i}", data[i]))),
            None => Ok(data),
        }
    }

    /// Checks that exactly `expected` (names and shapes) is there. Maps that are 1x1 convolutions
    /// may have the shape of a matrix, and the other way round.
    pub(crate) fn check(&self, expected: &[(String, Vec<usize>)]) -> Result<()> {
        for (name, shape) in expected {
            match self.shape(name) {
                None => return Err(self.error(name, format!("of shape {shape:?} is missing"))),
                Some(found) if !same_map(found, shape) => {
                    let what = format!("has shape {found:?}, but the model needs {shape:?}");
                    return Err(self.error(name, what));
                }
                Some(_) => {}
            }
        }
        let known: std::collections::BTreeSet<&str> =
            expected.iter().map(|(name, _)| name.as_str()).collect();
        match self.names().find(|name| !known.contains(name)) {
            Some(extra) => Err(self.error(extra, "is not one of this configuration")),
            None => Ok(()),
        }
    }
}

fn same_map(found: &[usize], needed: &[usize]) -> bool {
    fn core(shape: &[usize]) -> &[usize] {
        match shape {
            [rows @ .., 1, 1] if rows.len() == 2 => rows,
            other => other,
        }
    }
    found == needed || core(found) == core(needed)
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

fn is_float(element: ElementType) -> bool {
    use ElementType::{BF16, F16, F32, F64};
    matches!(element, F32 | F64 | F16 | BF16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_and_convolutions_of_one_pixel_are_the_same_map() {
        assert!(same_map(&[3, 4], &[3, 4, 1, 1]) && same_map(&[3, 4, 1, 1], &[3, 4]));
        assert!(!same_map(&[3, 4, 3, 3], &[3, 4]) && !same_map(&[4, 3], &[3, 4]));
        assert!(!same_map(&[3], &[3, 1, 1]));
    }

    #[test]
    fn damaged_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let refused = |header: &str, data: &[u8], part: &str| {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.extend(data);
            std::fs::write(&path, bytes).unwrap();
            let e = Weights::open(&path)
                .and_then(|w| w.read("a"))
                .unwrap_err()
                .to_string();
            assert!(e.contains(part) && e.contains("x.safetensors"), "{e}");
        };
        refused("{", b"", "not a valid safetensors file");
        refused(r#"{"a": 1}"#, b"", "not a valid safetensors file");
        let a = |dtype: &str, shape: &str, offsets: &str| {
            format!(
                r#"{{"a": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}"#
            )
        };
        refused(&a("F32", "[1]", "[0, 4]"), b"123", "4 bytes, but 3");
        refused(
            &a("F32", "[1]", "[4, 0]"),
            b"1234",
            "not a valid safetensors file",
        );
        refused(
            &a("F32", "[2]", "[0, 4]"),
            b"1234",
            "not a valid safetensors file",
        );
        std::fs::write(&path, "<html>").unwrap();
        let page = Weights::open(&path).unwrap_err().to_string();
        assert!(page.contains("is a web page (HTML)"), "{page}");
        refused(&a("I32", "[1]", "[0, 4]"), b"1234", "type I32");
        refused(&a("F32", "[1]", "[0, 4]"), &f32::NAN.to_le_bytes(), "NaN");
        refused(
            r#"{"b": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}}"#,
            b"",
            "missing",
        );
        std::fs::write(&path, [255; 20]).unwrap();
        assert!(Weights::open(&path).is_err());
        std::fs::write(&path, [1; 3]).unwrap();
        assert!(Weights::open(&path).is_err());
        assert!(Weights::open(dir.path()).is_err());
    }
}
