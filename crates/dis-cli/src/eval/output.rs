//! What is written: everything that the figures depend on, and nothing else.

use std::path::Path;

use anyhow::Result;
use dis_data::{Dataset, ImageShape};
use dis_eval::{FeatureNetwork, MeasureOptions, Report, SavedStatistics};
use serde_json::{Map, Value, json};

use super::args::{EvalArgs, FeatureSpec};
use crate::{drawing, json};

/// What a side was.
pub struct SideInfo {
    /// For people.
    pub about: String,
    /// What makes figures of it doubtful.
    pub warning: Option<String>,
    json: Map<String, Value>,
}

impl SideInfo {
    fn new(kind: &str, text: &str, about: String) -> Self {
        let mut json = Map::new();
        json.insert("kind".into(), json!(kind));
        json.insert("given".into(), json!(text));
        Self {
            about,
            warning: None,
            json,
        }
    }

    fn set(&mut self, key: &str, value: Value) {
        self.json.insert(key.into(), value);
    }

    /// Saved statistics.
    pub fn statistics(text: &str, sha256: &str, saved: &SavedStatistics) -> Self {
        let d = saved.features.mu.len();
        let mut info = Self::new(
            "statistics",
            text,
            format!("{text}: statistics of {d} features"),
        );
        info.set("sha256", json!(sha256));
        info
    }

    /// A model, with how images were drawn from it.
    pub fn model(text: &str, sha256: &str, args: &EvalArgs) -> Self {
        let mut info = Self::new("model", text, format!("drawn from {text}"));
        info.set("sha256", json!(sha256));
        info.set("sampling", sampling(args));
        info
    }

    /// Images that were there.
    pub fn data(text: &str, data: &dyn Dataset) -> Self {
        let mut info = Self::new("images", text, text.to_string());
        info.set("identity", json!(data.identity()));
        info
    }

    /// What was taken.
    pub fn images(&mut self, count: usize, shape: ImageShape, sha256: &str) {
        self.about = format!("{count} images of {shape}, {}", self.about);
        self.set("images", json!(count));
        self.set("shape", json!([shape.channels, shape.height, shape.width]));
        self.set("images_sha256", json!(sha256));
    }
}

/// Every option that decides what a model draws.
pub fn sampling(args: &EvalArgs) -> Value {
    let how = &args.how;
    let named = drawing::named(how, false);
    json!({
        "sampler": named.sampler.to_string(),
        "steps": named.steps,
        "spacing": named.spacing.to_string(),
        "eta": how.eta,
        "cfg": how.cfg,
        "cfg_interval": how.cfg_interval,
        "cfg_rescale": how.cfg_rescale,
        "cfg_published": how.cfg_published || how.published,
        "clip": how.clip,
        "clip_quantile": how.clip_quantile,
        "seed": args.seed,
        "raw_weights": args.raw,
        "precision": format!("{:?}", args.precision).to_lowercase(),
        "vae": args.vae,
    })
}

/// The network that features are of.
pub fn features(args: &EvalArgs, network: &dyn FeatureNetwork) -> Value {
    let mut features = json!({ "name": network.name(), "identity": network.identity() });
    if let FeatureSpec::Onnx(_) = args.features {
        features["onnx"] = json!({
            "size": args.onnx_size,
            "range": args.onnx_range,
            "normalize": args.onnx_normalize,
            "features": args.onnx_features,
            "logits": args.onnx_logits,
            "spatial": args.onnx_spatial,
        });
    }
    features
}

/// What a file says beside the figures.
pub struct Parts<'a> {
    /// What was judged.
    pub samples: &'a SideInfo,
    /// What it was compared with.
    pub reference: &'a SideInfo,
    /// By what.
    pub features: Value,
    /// What results depend on in their last bits.
    pub instructions: String,
}

/// Writes the file. Equal runs write equal bytes: no time, no name of the machine.
pub fn write(
    path: &Path,
    parts: &Parts<'_>,
    options: &MeasureOptions,
    report: &Report,
) -> Result<()> {
    json::save(
        path,
        &json!({
            "dis": env!("CARGO_PKG_VERSION"),
            "instructions": parts.instructions,
            "samples": parts.samples.json,
            "reference": parts.reference.json,
            "features": parts.features,
            "settings": options,
            "results": report,
        }),
    )
}
