//! Reads the published numbers in `tests/golden/` that tests are held to.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read its numbers has failed"
)]

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

/// Path of a golden file.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(name)
}

/// One golden safetensors file with its manifest.
pub struct Golden {
    bytes: Vec<u8>,
    /// The manifest.
    pub manifest: serde_json::Value,
}

impl Golden {
    /// The set of this name: its tensors and its manifest.
    pub fn open(name: &str) -> Self {
        let bytes = std::fs::read(path(&format!("{name}.safetensors"))).unwrap();
        let text = std::fs::read_to_string(path(&format!("{name}.json"))).unwrap();
        Self {
            bytes,
            manifest: serde_json::from_str(&text).unwrap(),
        }
    }

    /// Shape and bytes of a tensor.
    pub fn raw(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        (view.shape().to_vec(), view.data().to_vec())
    }

    /// Shape and values of a tensor of float64.
    pub fn f64(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let (shape, bytes) = self.raw(name);
        (
            shape,
            bytes
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
                .collect(),
        )
    }

    /// Shape and values of a tensor of 64-bit integers.
    pub fn i64(&self, name: &str) -> (Vec<usize>, Vec<i64>) {
        let (shape, bytes) = self.raw(name);
        (
            shape,
            bytes
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
                .collect(),
        )
    }
}
