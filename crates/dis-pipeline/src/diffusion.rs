//! The diffusion that a checkpoint was trained with, as in its metadata and in a run's `config.toml`.

use dis_diffusion::{LossKind, Options, Prediction, Variance};
use dis_model::Metadata;
use serde::{Deserialize, Serialize};

use crate::error::{PipelineError, Result};

/// `[diffusion]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiffusionConfig {
    /// `linear` or `squaredcos_cap_v2` (`cosine`).
    pub noise_schedule: String,
    /// Steps.
    pub steps: usize,
    /// `epsilon`, `x0` or `v`.
    pub prediction: String,
    /// `learned_range`, `learned`, `fixed_small` or `fixed_large`. The first two need a model with
    /// `learn_sigma`.
    pub variance: String,
    /// `mse` (with learned variances plus the bound), `rescaled_mse`, `kl` or `rescaled_kl`.
    pub loss: String,
}

impl Default for DiffusionConfig {
    fn default() -> Self {
        Self {
            noise_schedule: "linear".into(),
            steps: 1000,
            prediction: "epsilon".into(),
            variance: "learned_range".into(),
            loss: "mse".into(),
        }
    }
}

const PREDICTIONS: [(&str, Prediction); 3] = [
    ("epsilon", Prediction::Epsilon),
    ("x0", Prediction::Start),
    ("v", Prediction::Velocity),
];
const VARIANCES: [(&str, Variance); 4] = [
    ("learned_range", Variance::LearnedRange),
    ("learned", Variance::Learned),
    ("fixed_small", Variance::FixedSmall),
    ("fixed_large", Variance::FixedLarge),
];
const LOSSES: [(&str, LossKind); 4] = [
    ("mse", LossKind::Mse),
    ("rescaled_mse", LossKind::RescaledMse),
    ("kl", LossKind::Kl),
    ("rescaled_kl", LossKind::RescaledKl),
];

fn choice<T: Copy>(key: &str, word: &str, table: &[(&str, T)]) -> Result<T> {
    table
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, v)| *v)
        .ok_or_else(|| {
            let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
            PipelineError::config(format!(
                "{key} is {word:?}, but must be one of {}",
                names.join(", ")
            ))
        })
}

impl DiffusionConfig {
    /// For dis-diffusion, without respacing.
    ///
    /// # Errors
    /// A word that names no schedule, prediction, variance or loss.
    pub fn options(&self) -> Result<Options> {
        Ok(Options {
            schedule: self.noise_schedule.parse()?,
            steps: self.steps,
            prediction: choice("diffusion.prediction", &self.prediction, &PREDICTIONS)?,
            variance: choice("diffusion.variance", &self.variance, &VARIANCES)?,
            loss: choice("diffusion.loss", &self.loss, &LOSSES)?,
            ..Options::default()
        })
    }
}

/// The diffusion that a checkpoint describes (published defaults where it says nothing).
///
/// # Errors
/// If its metadata describe none that there is.
pub fn diffusion_options(metadata: &Metadata) -> Result<Options> {
    match metadata.extra.get("diffusion") {
        Some(value) => {
            let config: DiffusionConfig = serde_json::from_value(value.clone()).map_err(|e| {
                PipelineError::config(format!("checkpoint metadata \"diffusion\": {e}"))
            })?;
            config.options()
        }
        None => Ok(Options {
            variance: if metadata.model.learn_sigma {
                Variance::LearnedRange
            } else {
                Variance::FixedLarge
            },
            ..Options::default()
        }),
    }
}
