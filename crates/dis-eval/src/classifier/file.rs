//! A trained classifier and its file.

use std::collections::HashMap;
use std::path::Path;

use dis_files::{ElementType, FileError, View, le_bytes, write_atomic, write_safetensors};
use dis_model::ModelError;
use dis_model::checkpoint::{METADATA_KEY, arena_from_tensors, read_tensors};
use dis_ssm::Ctx;
use dis_tensor::{Backend, Reals};
use serde::{Deserialize, Serialize};

use super::network::{ClassifierConfig, ClassifierNet};
use super::training::ClassifierOptions;
use crate::error::{EvalError, Result};

/// What a file says beside its weights. No time, no path: equal trainings write equal bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassifierInfo {
    /// Network.
    pub config: ClassifierConfig,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// Share of the test images that it labels right, to six places.
    pub test_accuracy: f64,
    /// Number of test images.
    pub test_images: usize,
    /// Identity of the training images.
    pub data: String,
    /// Identity of the test images.
    pub test_data: String,
    /// How it was trained.
    pub training: ClassifierOptions,
}

#[derive(Serialize, Deserialize)]
struct Text {
    classifier: ClassifierInfo,
}

/// A network with its weights, on the host.
#[derive(Debug)]
pub struct Classifier {
    /// The network.
    pub net: ClassifierNet,
    /// Its arena.
    pub params: Vec<f32>,
    /// What is known of it.
    pub info: ClassifierInfo,
}

/// What a classifier says of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// (batch, features).
    pub features: Vec<f32>,
    /// (batch, classes).
    pub logits: Vec<f32>,
    /// (batch, pixels of the last map times 16 channels).
    pub spatial: Vec<f32>,
}

impl Classifier {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or holds no classifier.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(FileError::io(path, "read it"))?;
        Self::from_bytes(&bytes, path)
    }

    /// As [`Classifier::load`], from bytes; `origin` names them in errors.
    ///
    /// # Errors
    /// As [`Classifier::load`].
    pub fn from_bytes(bytes: &[u8], origin: &Path) -> Result<Self> {
        let refuse = |what: String| ModelError::Checkpoint {
            path: origin.to_path_buf(),
            what,
        };
        let (text, tensors) = read_tensors(bytes, origin)?;
        let text = text.filter(|t| t.contains("\"classifier\""));
        let text = text.ok_or_else(|| {
            refuse("holds no classifier (dis train-classifier makes them)".into())
        })?;
        let Text { classifier: info } = serde_json::from_str(&text)
            .map_err(|e| refuse(format!("metadata of the classifier: {e}")))?;
        let net = ClassifierNet::new(info.config.clone())?;
        let params = arena_from_tensors(net.table(), &tensors, origin)?;
        Ok(Self { net, params, info })
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// If the arena is not that of the network.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let failed = |what: String| EvalError::config(format!("classifier to write: {what}"));
        let mut views = Vec::new();
        for spec in self.net.table().specs() {
            let values = self.params.get(spec.offset..spec.offset + spec.len());
            let values = values.ok_or_else(|| failed("too few weights".into()))?;
            views.push(View {
                name: &spec.name,
                shape: &spec.shape,
                element: ElementType::F32,
                data: le_bytes(values),
            });
        }
        let text = Text {
            classifier: self.info.clone(),
        };
        let text = serde_json::to_string(&text).map_err(|e| failed(e.to_string()))?;
        let metadata = HashMap::from([(METADATA_KEY.to_string(), text)]);
        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, &views, Some(metadata)).map_err(|e| failed(e.to_string()))?;
        Ok(bytes)
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        Ok(write_atomic(path, &self.to_bytes()?)?)
    }

    /// Its weights on a device.
    pub fn upload<B: Backend>(&self, backend: &B) -> Reals<B> {
        backend.from_f32(&self.params)
    }

    /// Runs it on `images` (batch, channels, height, width) in [-1, 1].
    ///
    /// # Errors
    /// If `images` are not whole, or an operation fails.
    pub fn run<B: Backend>(&self, ctx: Ctx<'_, B>, images: &[f32]) -> Result<Outputs> {
        let backend = ctx.backend;
        let out = self.net.forward(ctx, images)?;
        Ok(Outputs {
            features: out.features(backend),
            logits: out.logits(backend),
            spatial: out.spatial(backend),
        })
    }
}
