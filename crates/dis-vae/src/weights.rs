//! Tensors of a safetensors file, read one at a time, so that loading needs no more memory than
//! the weights themselves.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Result, VaeError};
use crate::names::{canonical_names, is_foreign};

/// Largest header that is read, as in the safetensors library.
const LARGEST_HEADER: u64 = 100_000_000;

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
    File {
        dtype: String,
        offset: u64,
        bytes: usize,
    },
    Memory(Vec<f32>),
}

impl Weights {
    /// Reads the header of a safetensors file and checks that every tensor lies in it.
    ///
    /// # Errors
    /// If the file cannot be read or its header does not describe its content.
    pub fn open(path: &Path) -> Result<Self> {
        let refuse = |what: String| VaeError::File {
            path: path.to_path_buf(),
            what: format!("not a valid safetensors file: {what}"),
        };
        let mut file = File::open(path).map_err(VaeError::io(path))?;
        let length = file.metadata().map_err(VaeError::io(path))?.len();
        let mut size = [0; 8];
        if length < 8 {
            return Err(refuse(format!("it has {length} bytes")));
        }
        file.read_exact(&mut size).map_err(VaeError::io(path))?;
        let size = u64::from_le_bytes(size);
        if size > length - 8 || size > LARGEST_HEADER {
            return Err(refuse(format!(
                "a header of {size} bytes in a file of {length}"
            )));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(VaeError::io(path))?;
        let header: Value =
            serde_json::from_slice(&header).map_err(|e| refuse(format!("its header: {e}")))?;
        let Value::Object(header) = header else {
            return Err(refuse("its header is no JSON object".into()));
        };
        let start = 8 + size;
        let mut found = Vec::with_capacity(header.len());
        for (name, value) in header.iter().filter(|(name, _)| *name != "__metadata__") {
            let entry = parse_entry(name, value, start, length)
                .map_err(|what| VaeError::tensor(path, name, what))?;
            found.push(entry);
        }
        Self::named(path, Some(file), found)
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
            (
                Place::File {
                    dtype,
                    offset,
                    bytes,
                },
                Some(file),
            ) => {
                let mut file: &File = file;
                let mut buffer = vec![0; *bytes];
                file.seek(SeekFrom::Start(*offset))
                    .and_then(|_| file.read_exact(&mut buffer))
                    .map_err(VaeError::io(&self.origin))?;
                decode(dtype, &buffer)
                    .ok_or_else(|| self.error(name, format!("has type {dtype}, {TYPES}")))?
            }
            (Place::File { .. }, None) => return Err(self.error(name, "has no file")),
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

const TYPES: &str = "expected F32, F64, F16 or BF16";

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

fn width(dtype: &str) -> Option<usize> {
    match dtype {
        "F32" => Some(4),
        "F64" => Some(8),
        "F16" | "BF16" => Some(2),
        _ => None,
    }
}

fn parse_entry(
    name: &str,
    value: &Value,
    start: u64,
    length: u64,
) -> std::result::Result<Entry, String> {
    let numbers = |key: &str| -> Option<Vec<u64>> {
        value
            .get(key)?
            .as_array()?
            .iter()
            .map(Value::as_u64)
            .collect()
    };
    let dtype = value.get("dtype").and_then(Value::as_str);
    let dtype = dtype.ok_or("has no dtype")?.to_string();
    let shape = numbers("shape").ok_or("has no shape")?;
    let shape: Option<Vec<usize>> = shape.iter().map(|&d| usize::try_from(d).ok()).collect();
    let shape = shape.ok_or("has too large a shape")?;
    let [begin, end] = numbers("data_offsets").unwrap_or_default()[..] else {
        return Err("has no data_offsets".into());
    };
    if begin > end || end > length - start {
        return Err(format!(
            "lies at {begin} to {end}, but the file holds {} bytes of data",
            length - start
        ));
    }
    let bytes = usize::try_from(end - begin).map_err(|_| "is too large")?;
    if let Some(width) = width(&dtype)
        && elements(&shape).and_then(|n| n.checked_mul(width)) != Some(bytes)
    {
        return Err(format!(
            "has shape {shape:?} of {dtype}, which is not {bytes} bytes"
        ));
    }
    Ok(Entry {
        name: name.to_string(),
        shape,
        place: Place::File {
            dtype,
            offset: start + begin,
            bytes,
        },
    })
}

fn decode(dtype: &str, bytes: &[u8]) -> Option<Vec<f32>> {
    fn words<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks::<N>().0.iter().map(|b| f(*b)).collect()
    }
    Some(match dtype {
        "F32" => words(bytes, f32::from_le_bytes),
        "F64" => words(bytes, |b| f64::from_le_bytes(b) as f32),
        "BF16" => words(bytes, |b| {
            f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)
        }),
        "F16" => words(bytes, |b| half(u16::from_le_bytes(b))),
        _ => return None,
    })
}

/// IEEE half precision, exactly.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, bits >> 10 & 31, u32::from(bits & 1023));
    let magnitude = match exponent {
        // Denormal: the fraction counts in units of 2^-24.
        0 => fraction as f32 * (1.0 / 16_777_216.0),
        31 => f32::from_bits(0x7f80_0000 | fraction << 13),
        e => f32::from_bits((u32::from(e) + 112) << 23 | fraction << 13),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_exact() {
        let known = [
            (0x0000u16, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
        ];
        for (bits, value) in known {
            assert_eq!(half(bits), value, "{bits:#x}");
        }
        assert!(half(0x7e00).is_nan() && half(0x8000).is_sign_negative());
    }

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
        refused("{", b"", "header");
        refused("[]", b"", "JSON object");
        refused(r#"{"a": 1}"#, b"", "dtype");
        refused(r#"{"a": {"dtype": "F32"}}"#, b"", "shape");
        refused(
            r#"{"a": {"dtype": "F32", "shape": [1]}}"#,
            b"",
            "data_offsets",
        );
        let a = |dtype: &str, shape: &str, offsets: &str| {
            format!(
                r#"{{"a": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}"#
            )
        };
        refused(&a("F32", "[1]", "[0, 4]"), b"123", "bytes of data");
        refused(&a("F32", "[1]", "[4, 0]"), b"1234", "bytes of data");
        refused(&a("F32", "[2]", "[0, 4]"), b"1234", "not 4 bytes");
        refused(
            &a("F32", "[4294967296, 4294967296]", "[0, 4]"),
            b"1234",
            "not 4 bytes",
        );
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
