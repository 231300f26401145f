//! The published numbers that code is held to: a safetensors file of tensors, and a manifest beside it
//! that says what they are. The one reader of both, for `cargo xtask golden` and for tests.

mod tensors;

use std::path::{Path, PathBuf};

use serde_json::Value;
pub use tensors::{Data, Manifest, Tensor, read_tensors, shape_of};

/// A file in `tests/golden/`.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(name)
}

/// A set of `tests/golden/`, for tests: what is not there fails them.
#[derive(Debug)]
pub struct Golden {
    /// The manifest.
    pub manifest: Value,
    set: Manifest,
}

#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot read its numbers has failed"
)]
impl Golden {
    /// The set of this name.
    pub fn open(name: &str) -> Self {
        let path = path(&format!("{name}.json"));
        let (kind, json) = Manifest::read_json(&path).unwrap();
        Self {
            manifest: json.clone(),
            set: Manifest::with_tensors(&path, kind, json).unwrap(),
        }
    }

    /// A tensor, if the set has it.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.set.tensors.get(name)
    }

    /// Shape and values of a tensor.
    pub fn f64(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let tensor = self.get(name);
        let tensor = tensor.unwrap_or_else(|| panic!("no tensor {name}"));
        (tensor.shape.clone(), tensor.f64())
    }

    /// Shape and values of a tensor of integers that are not negative.
    pub fn indices(&self, name: &str) -> (Vec<usize>, Vec<usize>) {
        let (shape, _) = self.f64(name);
        (shape, self.get(name).unwrap().indices().unwrap())
    }

    /// Shape and bytes of a tensor of bytes.
    pub fn bytes(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let (shape, _) = self.f64(name);
        match &self.get(name).unwrap().data {
            Data::U8(bytes) => (shape, bytes.clone()),
            other => panic!("{name} is no tensor of bytes: {other:?}"),
        }
    }
}
