//! The configuration of a run, as in its `config.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use dis_files::FileError;
use dis_model::checkpoint::{MODEL_KEYS, config_from_json, config_to_json};
use dis_model::{DisConfig, ModelInit};
use dis_pipeline::{DiffusionConfig, SamplerSpec, Spacing};
use dis_ssm::MixerInit;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::budget::Budget;
use crate::error::{ConfigError, Result, TrainError};
use crate::partial::Partial;
use crate::schedule::Decay;
use dis_data::{Dataset, ImageShape};

/// Names of built-in configurations and their texts.
pub const PRESETS: [(&str, &str); 2] = [
    ("digits", include_str!("../presets/digits.toml")),
    ("small", include_str!("../presets/small.toml")),
];

/// A run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The model: the keys of its metadata, or `zoo = "DiS-S/2"` for a published entry. Image size,
    /// channels and classes default to those of the data.
    #[serde(default)]
    pub model: Map<String, Value>,
    /// The data.
    #[serde(default)]
    pub data: DataConfig,
    /// The diffusion.
    #[serde(default)]
    pub diffusion: DiffusionConfig,
    /// Training.
    #[serde(default)]
    pub train: TrainConfig,
    /// Sample grids during training.
    #[serde(default)]
    pub sample: SampleConfig,
}

/// `[data]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// What to train on; see [`dis_data::DataSpec`]. Empty where it is said elsewhere.
    #[serde(default)]
    pub spec: String,
    /// Pictures of a folder to leave out, by their names relative to it. Those that do not decode are
    /// listed here when a run begins without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<String>,
}

/// `[train]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Updates; with `for`, as many as were planned.
    pub steps: u64,
    /// How long the run may take: the number of its steps then follows the speed of the machine.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Images that are kept out of training, drawn by the seed, to tell a loss by that is not of them.
    #[serde(skip_serializing_if = "is_zero")]
    pub held_out: usize,
    /// Images in one forward and backward.
    pub batch_size: usize,
    /// Forward and backward passes whose gradients are averaged in one update.
    pub accumulation: usize,
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Learning rate at the end; at most 1e-6 and never above `lr` where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr: Option<f64>,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: u64,
    /// What follows the warm-up.
    pub decay: Decay,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// AdamW's decay of the first moment.
    pub beta1: f64,
    /// AdamW's decay of the second moment.
    pub beta2: f64,
    /// AdamW's epsilon.
    pub eps: f64,
    /// Largest global gradient norm; 0 turns clipping off.
    pub max_grad_norm: f64,
    /// Decay of the moving average of the weights.
    pub ema_decay: f64,
    /// In place of `ema_decay`: over what share of the run the average reaches back, as long as the run
    /// turns out to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema_share: Option<f64>,
    /// Whether the moving average forgets faster at the start.
    pub ema_warmup: bool,
    /// Probability of training a sample without its label (for guidance).
    pub label_dropout: f64,
    /// Draw the reverse direction's step bias like the forward one's, instead of zero as published.
    pub repaired_reverse_step: bool,
    /// Standard deviation of the label table at the start; 0.02 as published.
    pub label_std: f64,
    /// Standard deviation of the positions at the start; 0 as published.
    pub position_std: f64,
    /// Whether the decoder starts at zero; drawn as published.
    pub zero_decoder: bool,
    /// Whether blocks are run again in the backward: less memory, same results.
    pub recompute: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// Steps between lines of metrics.jsonl.
    pub log_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Checkpoints to keep; 0 keeps all.
    pub keep: usize,
    /// Steps between sample grids; 0 makes none.
    pub sample_every: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 100_000,
            budget: None,
            held_out: 0,
            batch_size: 64,
            accumulation: 1,
            lr: 1e-4,
            min_lr: None,
            warmup_steps: 1000,
            decay: Decay::Cosine,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            max_grad_norm: 1.0,
            ema_decay: 0.9999,
            ema_share: None,
            ema_warmup: true,
            label_dropout: 0.1,
            repaired_reverse_step: false,
            label_std: 0.02,
            position_std: 0.0,
            zero_decoder: false,
            recompute: false,
            seed: 0,
            log_every: 10,
            checkpoint_every: 1000,
            keep: 3,
            sample_every: 1000,
        }
    }
}

impl TrainConfig {
    /// What weights begin as.
    pub fn init(&self) -> ModelInit {
        ModelInit {
            mixer: MixerInit {
                repaired_reverse_step: self.repaired_reverse_step,
            },
            label_std: self.label_std,
            position_std: self.position_std,
            zero_decoder: self.zero_decoder,
        }
    }
}

/// `[sample]`: how sample grids are drawn during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// Images of each class, or images in all for a model without classes.
    pub per_class: usize,
    /// Sampler, as `dis sample --sampler` names it.
    pub sampler: String,
    /// How its steps are spread.
    pub spacing: String,
    /// Its steps.
    pub steps: usize,
    /// Guidance scale; 1 is none.
    pub cfg_scale: f64,
    /// Images that a Frechet distance to the data is taken of at each grid; 0 takes none.
    #[serde(skip_serializing_if = "is_zero")]
    pub frechet: usize,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self {
            per_class: 4,
            sampler: "ddim".into(),
            spacing: "default".into(),
            steps: 50,
            cfg_scale: 1.5,
            frechet: 0,
        }
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl TrainConfig {
    /// Learning rate at the end.
    pub fn lowest_lr(&self) -> f64 {
        self.min_lr.unwrap_or_else(|| self.lr.min(1e-6))
    }
}

impl RunConfig {
    /// Parses a file's text; `origin` names it in errors.
    ///
    /// # Errors
    /// What is wrong, with the line and key.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let config: Self = ConfigError::parse(text, origin)?;
        check_model_keys(text, origin)?;
        Ok(config)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, and as [`RunConfig::parse`].
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(FileError::io(path, "read it"))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// A built-in configuration.
    ///
    /// # Errors
    /// No preset of this name.
    pub fn preset(name: &str) -> Result<Self> {
        Partial::preset(name)?.config()
    }

    /// As TOML.
    ///
    /// # Errors
    /// A value that TOML cannot say.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| TrainError::config(e.to_string()))
    }

    /// Fills in from the data what the model section leaves open, writes the full model back, and
    /// checks that everything fits together.
    ///
    /// # Errors
    /// Sections that do not fit the data or each other, naming the key.
    pub fn resolve(&mut self, data: &dyn Dataset) -> Result<DisConfig> {
        let shape = data.shape();
        let mut map = self.model.clone();
        let unconditional = map.get("num_classes") == Some(&json!(0));
        if unconditional {
            map.remove("num_classes");
        }
        let mut default = |key: &str, value: Value| {
            map.entry(key.to_string()).or_insert(value);
        };
        default("image_size", json!([shape.height, shape.width]));
        default("channels", json!(shape.channels));
        if let Some(classes) = data.num_classes().filter(|_| !unconditional) {
            default("num_classes", json!(classes));
            default("null_label", json!(self.train.label_dropout > 0.0));
        }
        if let Some(zoo) = map.remove("zoo") {
            let name = zoo.as_str().unwrap_or_default();
            let entry = DisConfig::zoo(name, 8, 1)?;
            let mut default = |key: &str, value: usize| {
                map.entry(key.to_string()).or_insert(json!(value));
            };
            default("patch_size", entry.patch_size);
            default("embed_dim", entry.embed_dim);
            default("depth", entry.depth);
        }
        let config = config_from_json(&map)
            .map_err(|what| TrainError::config(format!("[model]: {what}")))?;
        self.model = config_to_json(&config);
        self.check(&config, data)?;
        self.train.min_lr = Some(self.train.lowest_lr());
        Ok(config)
    }

    fn check(&self, model: &DisConfig, data: &dyn Dataset) -> Result<()> {
        use dis_model::ConditionKind;
        let refuse = |what: String| Err(TrainError::config(what));
        let shape = data.shape();
        let takes = ImageShape::from(model.image_shape());
        if takes != shape {
            return refuse(format!(
                "the model is for {takes}, but the images are {shape} (channels, height, width)"
            ));
        }
        match (model.condition, data.num_classes()) {
            (ConditionKind::Classes { num_classes, .. }, Some(n)) if n > num_classes => {
                return refuse(format!(
                    "the model has {num_classes} classes, but the data {n}"
                ));
            }
            (ConditionKind::Classes { .. }, None) => {
                return refuse("the model has classes, but the data have none".into());
            }
            (ConditionKind::Context { .. }, _) => {
                return refuse(
                    "training on continuous contexts needs a data set that has them".into(),
                );
            }
            _ => {}
        }
        let train = &self.train;
        let rate = |key: &str, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            let bounds = match high {
                f64::MAX => format!("at least {low}"),
                high => format!("{low} to {high}"),
            };
            Err(TrainError::config(format!(
                "{key} is {value}, but must be {bounds}"
            )))
        };
        let below_one = |key: &str, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(TrainError::config(format!(
                "{key} is {value}, but must be at least 0 and below 1"
            ))),
        };
        if train.batch_size == 0 || train.accumulation == 0 || train.steps == 0 {
            return refuse(format!(
                "train.batch_size is {}, train.accumulation {} and train.steps {}; all must be at least 1",
                train.batch_size, train.accumulation, train.steps
            ));
        }
        if train.log_every == 0 || train.checkpoint_every == 0 {
            return refuse("train.log_every and train.checkpoint_every must be at least 1".into());
        }
        rate("train.lr", train.lr, 0.0, 1e3)?;
        let lowest = train.lowest_lr();
        rate("train.min_lr", lowest, 0.0, f64::MAX)?;
        if lowest > train.lr {
            return refuse(format!(
                "train.min_lr is {lowest}, but must be at most train.lr (--lr), which is {}",
                train.lr
            ));
        }
        rate("train.label_dropout", train.label_dropout, 0.0, 1.0)?;
        rate("train.ema_decay", train.ema_decay, 0.0, 1.0)?;
        rate("train.ema_share", train.ema_share.unwrap_or(0.0), 0.0, 1.0)?;
        if train.held_out >= data.len().max(1) {
            return refuse(format!(
                "train.held_out is {}, but there are only {} images",
                train.held_out,
                data.len()
            ));
        }
        below_one("train.beta1", train.beta1)?;
        below_one("train.beta2", train.beta2)?;
        rate("train.max_grad_norm", train.max_grad_norm, 0.0, f64::MAX)?;
        rate("train.weight_decay", train.weight_decay, 0.0, 1e3)?;
        let labelled = matches!(model.condition, ConditionKind::Classes { .. });
        if labelled && train.label_dropout > 0.0 && model.null_label().is_none() {
            return refuse("train.label_dropout needs a model with null_label = true".into());
        }
        self.sample.sampler.parse::<SamplerSpec>()?;
        self.sample.spacing.parse::<Spacing>()?;
        let learned = self.diffusion.options()?.variance.is_learned();
        if learned != model.learn_sigma {
            return refuse(format!(
                "diffusion.variance is {:?}, but model.learn_sigma is {}",
                self.diffusion.variance, model.learn_sigma
            ));
        }
        Ok(())
    }
}

/// Refuses keys of `[model]` that there are none of, with their line: they are kept as they are until the
/// data are known, which may take long.
fn check_model_keys(text: &str, origin: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Keys {
        #[serde(default)]
        model: BTreeMap<toml::Spanned<String>, toml::Value>,
    }
    let keys: Keys = ConfigError::parse(text, origin)?;
    let known = |key: &str| key == "zoo" || MODEL_KEYS.contains(&key);
    match keys.model.keys().find(|key| !known(key.get_ref())) {
        None => Ok(()),
        Some(key) => Err(ConfigError::at(
            text,
            origin,
            key.span().start,
            &format!(
                "unknown model key {:?}; known are zoo, {}",
                key.get_ref(),
                MODEL_KEYS.join(", ")
            ),
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_parse_and_round_trip() {
        let digits = dis_data::open(&"digits".parse().unwrap()).unwrap();
        for (name, _) in PRESETS {
            let mut config = RunConfig::preset(name).unwrap();
            config.resolve(&*digits).unwrap();
            let again = RunConfig::parse(&config.to_toml().unwrap(), "again").unwrap();
            assert_eq!(config, again);
        }
    }

    #[test]
    fn bounds_are_ones_that_the_user_can_see() {
        let digits = dis_data::open(&"digits".parse().unwrap()).unwrap();
        let refused = |change: &dyn Fn(&mut TrainConfig)| {
            let mut config = RunConfig::preset("digits").unwrap();
            change(&mut config.train);
            config.resolve(&*digits).unwrap_err().to_string()
        };
        // The least rate, left out, follows the rate.
        let mut config = RunConfig::preset("digits").unwrap();
        (config.train.lr, config.train.min_lr) = (5e-7, None);
        config.resolve(&*digits).unwrap();
        assert_eq!(config.train.min_lr, Some(5e-7));
        (config.train.lr, config.train.min_lr) = (1e-3, None);
        config.resolve(&*digits).unwrap();
        assert_eq!(config.train.min_lr, Some(1e-6));
        for (change, text) in [
            (
                &(|t: &mut TrainConfig| (t.lr, t.min_lr) = (5e-7, Some(1e-5)))
                    as &dyn Fn(&mut TrainConfig),
                "at most train.lr (--lr), which is 0.0000005",
            ),
            (&|t| t.max_grad_norm = -1.0, "must be at least 0"),
            (&|t| t.max_grad_norm = f64::NAN, "must be at least 0"),
            (&|t| t.beta2 = 1.0, "at least 0 and below 1"),
            (&|t| t.label_dropout = -0.5, "must be 0 to 1"),
        ] {
            let message = refused(change);
            assert!(message.ends_with(text), "{message}");
        }
    }

    #[test]
    fn refusals_name_the_key_and_line() {
        let text = "[model]\npatch_size = 2\n[data]\nspec = \"digits\"\n[train]\nsteps = 5\nbatchsize = 3\n";
        let message = RunConfig::parse(text, "run.toml").unwrap_err().to_string();
        assert!(
            message.contains("run.toml: line 7") && message.contains("batchsize"),
            "{message}"
        );
        let digits = dis_data::open(&"digits".parse().unwrap()).unwrap();
        let mut config = RunConfig::preset("digits").unwrap();
        config.model.insert("dpeth".into(), json!(2));
        let message = config.resolve(&*digits).unwrap_err().to_string();
        assert!(message.contains("dpeth"), "{message}");
        let text = "[train]\nlr = 1\n[model]\nembed_dim = 8\n  dpeth = 2\n";
        let message = RunConfig::parse(text, "run.toml").unwrap_err().to_string();
        assert!(
            message.contains("run.toml: line 5") && message.contains("dpeth"),
            "{message}"
        );
        let mut config = RunConfig::preset("digits").unwrap();
        config.diffusion.variance = "fixed_small".into();
        assert!(
            config
                .resolve(&*digits)
                .unwrap_err()
                .to_string()
                .contains("learn_sigma")
        );
    }
}
