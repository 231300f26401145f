//! Tensors of a safetensors file, and the manifest beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Values as they are stored.
#[derive(Clone, Debug)]
pub enum Data {
    /// "float32".
    F32(Vec<f32>),
    /// "float64".
    F64(Vec<f64>),
    /// "int64".
    I64(Vec<i64>),
    /// "uint8".
    U8(Vec<u8>),
}

/// A stored tensor, row-major.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its values.
    pub data: Data,
}

impl Tensor {
    fn read(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<Self> {
        let data = match dtype {
            Dtype::F32 => Data::F32(words(bytes, f32::from_le_bytes)),
            Dtype::F64 => Data::F64(words(bytes, f64::from_le_bytes)),
            Dtype::I64 => Data::I64(words(bytes, i64::from_le_bytes)),
            Dtype::U8 => Data::U8(bytes.to_vec()),
            other => bail!("type {other:?} is not one that golden files use"),
        };
        Ok(Self {
            shape: shape.to_vec(),
            data,
        })
    }

    /// The manifest's word for its type.
    pub fn dtype(&self) -> &'static str {
        match self.data {
            Data::F32(_) => "float32",
            Data::F64(_) => "float64",
            Data::I64(_) => "int64",
            Data::U8(_) => "uint8",
        }
    }

    /// All values as float64. Integers of these files are far below 2^53.
    pub fn f64(&self) -> Vec<f64> {
        match &self.data {
            Data::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::F64(v) => v.clone(),
            Data::I64(v) => v.iter().map(|&x| x as f64).collect(),
            Data::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
        }
    }

    /// All values as float32: exact for what golden files feed in.
    pub fn f32(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(v) => v.clone(),
            _ => self.f64().into_iter().map(|x| x as f32).collect(),
        }
    }

    /// All values as indices; fails on fractions and negative numbers.
    ///
    /// # Errors
    /// A value that is no index.
    pub fn indices(&self) -> Result<Vec<usize>> {
        let index = |x: f64| {
            ensure!(x >= 0.0 && x.fract() == 0.0, "{x} is not an index");
            Ok(x as usize)
        };
        self.f64().into_iter().map(index).collect()
    }

    /// Rows `row` of the first dimension.
    ///
    /// # Errors
    /// A row that is not there.
    pub fn row(&self, row: usize) -> Result<Self> {
        let (&rows, rest) = self.shape.split_first().context("a scalar has no rows")?;
        ensure!(row < rows, "row {row} of {rows}");
        let len: usize = rest.iter().product();
        let range = row * len..(row + 1) * len;
        let data = match &self.data {
            Data::F32(v) => Data::F32(v[range].to_vec()),
            Data::F64(v) => Data::F64(v[range].to_vec()),
            Data::I64(v) => Data::I64(v[range].to_vec()),
            Data::U8(v) => Data::U8(v[range].to_vec()),
        };
        Ok(Self {
            shape: rest.to_vec(),
            data,
        })
    }
}

fn words<const N: usize, T>(bytes: &[u8], word: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|b| word(*b)).collect()
}

/// All tensors of a file.
///
/// # Errors
/// A file that cannot be read.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| anyhow!("{}: not a valid safetensors file: {e}", path.display()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let tensor = Tensor::read(view.dtype(), view.shape(), view.data())
            .with_context(|| format!("{}: tensor {name:?}", path.display()))?;
        tensors.insert(name.to_string(), tensor);
    }
    Ok(tensors)
}

/// A manifest and its own tensors.
#[derive(Debug)]
pub struct Manifest {
    /// The folder that file names in it are relative to.
    pub dir: PathBuf,
    /// What has to be recomputed.
    pub kind: String,
    /// All of it.
    pub json: Value,
    /// Tensors of its "file", if it names one.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Manifest {
    /// Only the text: what is needed to decide whether a manifest is asked for.
    ///
    /// # Errors
    /// A file that cannot be read, or names no kind.
    pub fn read_json(path: &Path) -> Result<(String, Value)> {
        let text = std::fs::read_to_string(path)?;
        let json: Value = serde_json::from_str(&quote_words(&text)).context("not valid JSON")?;
        let kind = json
            .get("kind")
            .and_then(Value::as_str)
            .context("has no \"kind\"")?;
        Ok((kind.to_string(), json))
    }

    /// Reads the tensors that a manifest of this text names, and holds them against its list.
    ///
    /// # Errors
    /// Tensors that are not those of the list.
    pub fn with_tensors(path: &Path, kind: String, json: Value) -> Result<Self> {
        let dir = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        let tensors = match json.get("file").and_then(Value::as_str) {
            Some(file) => read_tensors(&dir.join(file))?,
            None => BTreeMap::new(),
        };
        for entry in json
            .get("tensors")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let name = entry
                .get("name")
                .and_then(Value::as_str)
                .context("a tensor without name")?;
            let tensor = tensors
                .get(name)
                .with_context(|| format!("tensor {name:?} is listed but not in the file"))?;
            let shape: Option<Vec<usize>> = entry.get("shape").and_then(shape_of);
            ensure!(
                shape.as_ref() == Some(&tensor.shape),
                "tensor {name:?} has shape {:?}, listed as {shape:?}",
                tensor.shape
            );
            if let Some(dtype) = entry.get("dtype").and_then(Value::as_str) {
                let ours = tensor.dtype();
                ensure!(
                    ours == dtype,
                    "tensor {name:?} is {ours}, listed as {dtype}"
                );
            }
        }
        Ok(Self {
            dir,
            kind,
            json,
            tensors,
        })
    }
}

/// Puts the words for numbers that JSON does not have (NaN, Infinity, -Infinity, which Python
/// writes) in quotes.
fn quote_words(text: &str) -> String {
    const WORDS: [&str; 3] = ["NaN", "-Infinity", "Infinity"];
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut quoted) = (text, false);
    while let Some(next) = rest.chars().next() {
        let word = WORDS
            .into_iter()
            .find(|word| !quoted && rest.starts_with(word));
        let taken = match word {
            Some(word) => word.len(),
            // An escaped character ends no string.
            None if quoted && next == '\\' => rest.chars().take(2).map(char::len_utf8).sum(),
            None => next.len_utf8(),
        };
        if next == '"' {
            quoted = !quoted;
        }
        let quote = if word.is_some() { "\"" } else { "" };
        let (head, tail) = rest.split_at(taken);
        out.extend([quote, head, quote]);
        rest = tail;
    }
    out
}

/// A shape from a JSON list.
pub fn shape_of(value: &Value) -> Option<Vec<usize>> {
    value
        .as_array()?
        .iter()
        .map(|x| x.as_u64().map(|x| x as usize))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_json_lacks_become_texts() {
        let text = r#"{"NaN \" NaN": [NaN, -Infinity, Infinity, -1, "Infinity", "é\\"], "b": NaN}"#;
        let json: Value = serde_json::from_str(&quote_words(text)).unwrap();
        assert_eq!(json["NaN \" NaN"][1], "-Infinity");
        assert_eq!(json["NaN \" NaN"][3], -1);
        assert_eq!(json["NaN \" NaN"][5], "é\\");
        assert_eq!(json["b"], "NaN");
    }

    #[test]
    fn rows_are_cut_along_the_first_dimension() {
        let tensor = Tensor {
            shape: vec![2, 3],
            data: Data::I64(vec![0, 1, 2, 3, 4, 5]),
        };
        let row = tensor.row(1).unwrap();
        assert_eq!(
            (row.shape.as_slice(), row.indices().unwrap()),
            (&[3][..], vec![3, 4, 5])
        );
        assert!(tensor.row(2).is_err());
        assert!(
            Tensor {
                shape: vec![1],
                data: Data::F32(vec![0.5])
            }
            .indices()
            .is_err()
        );
    }
}
