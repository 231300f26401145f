//! [`DisConfig`] to and from flat JSON, for metadata and configuration files.

use dis_scan::Discretization;
use dis_ssm::SkipKind;
use dis_tensor::{ImageSize, NormKind};
use serde_json::{Map, Value, json};

use crate::config::{
    AttentionOptions, ConditionKind, Conditioning, DisConfig, MixerKind, SsmConfig,
};

const CONDITIONING: [(&str, Conditioning); 2] = [
    ("tokens", Conditioning::Tokens),
    ("adaln", Conditioning::AdaLn),
];
const SKIP: [(&str, SkipKind); 3] = [
    ("concat", SkipKind::Concat),
    ("add", SkipKind::Add),
    ("none", SkipKind::None),
];
const NORM: [(&str, NormKind); 2] = [("rms", NormKind::Rms), ("layer", NormKind::Layer)];
const MIXER: [(&str, bool); 2] = [("mamba", false), ("attention", true)];
const DISCRETIZATION: [(&str, Discretization); 2] = [
    ("mamba", Discretization::Mamba),
    ("zoh", Discretization::ZeroOrderHold),
];

fn word<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> Value {
    table
        .iter()
        .find(|(_, v)| v == value)
        .map_or(Value::Null, |(name, _)| json!(name))
}

/// A square as a number, as published; a rectangle as `[height, width]`.
fn image_size_to_json(size: ImageSize) -> Value {
    match size.side() {
        Some(side) => json!(side),
        None => json!([size.height, size.width]),
    }
}

/// Reads what [`image_size_to_json`] writes.
fn image_size_from_json(value: &Value) -> Option<ImageSize> {
    let whole = |value: &Value| value.as_u64().and_then(|x| usize::try_from(x).ok());
    match value {
        Value::Array(pair) => match pair.as_slice() {
            [height, width] => Some([whole(height)?, whole(width)?].into()),
            _ => None,
        },
        side => whole(side).map(ImageSize::square),
    }
}

/// All keys, defaults included. Those of the attention mixer are there only with it, so that files of
/// other models stay as they were.
pub fn config_to_json(config: &DisConfig) -> Map<String, Value> {
    let mut map = Map::new();
    let mut set = |key: &str, value: Value| {
        map.insert(key.to_string(), value);
    };
    set("image_size", image_size_to_json(config.image_size));
    set("patch_size", json!(config.patch_size));
    set("channels", json!(config.channels));
    set("embed_dim", json!(config.embed_dim));
    set("depth", json!(config.depth));
    set("conditioning", word(&CONDITIONING, &config.conditioning));
    match config.condition {
        ConditionKind::None => {}
        ConditionKind::Classes {
            num_classes,
            null_label,
        } => {
            set("num_classes", json!(num_classes));
            set("null_label", json!(null_label));
        }
        ConditionKind::Context {
            dim,
            tokens,
            null_context,
        } => {
            set("context_dim", json!(dim));
            set("context_tokens", json!(tokens));
            set("null_context", json!(null_context));
        }
    }
    set("learn_sigma", json!(config.learn_sigma));
    set("skip", word(&SKIP, &config.skip));
    set("norm", word(&NORM, &config.norm));
    set("mlp_time_embed", json!(config.mlp_time_embed));
    if let MixerKind::Attention(options) = config.mixer {
        set("mixer", json!("attention"));
        if let Some(heads) = options.heads {
            set("heads", json!(heads));
        }
        set("mlp_ratio", json!(options.mlp_ratio));
        set("qkv_bias", json!(options.qkv_bias));
    }
    set("d_state", json!(config.ssm.d_state));
    set("d_conv", json!(config.ssm.d_conv));
    set("expand", json!(config.ssm.expand));
    if let Some(rank) = config.ssm.dt_rank {
        set("dt_rank", json!(rank));
    }
    set("bias", json!(config.ssm.bias));
    set("conv_bias", json!(config.ssm.conv_bias));
    set(
        "discretization",
        word(&DISCRETIZATION, &config.ssm.discretization),
    );
    set("drop_path_rate", json!(config.drop_path_rate));
    map
}

/// All keys of a model.
pub const MODEL_KEYS: [&str; 27] = [
    "image_size",
    "patch_size",
    "channels",
    "embed_dim",
    "depth",
    "conditioning",
    "num_classes",
    "null_label",
    "context_dim",
    "context_tokens",
    "null_context",
    "learn_sigma",
    "skip",
    "norm",
    "mlp_time_embed",
    "mixer",
    "heads",
    "mlp_ratio",
    "qkv_bias",
    "d_state",
    "d_conv",
    "expand",
    "dt_rank",
    "bias",
    "conv_bias",
    "discretization",
    "drop_path_rate",
];

/// Reads keys one by one.
struct Fields<'a> {
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Unknown keys are refused before anything else: a missing key is often a misspelt one.
    fn new(map: &'a Map<String, Value>) -> Result<Self, String> {
        match map.keys().find(|key| !MODEL_KEYS.contains(&key.as_str())) {
            None => Ok(Self { map }),
            Some(key) => Err(format!(
                "unknown model key {key:?}; known are {}",
                MODEL_KEYS.join(", ")
            )),
        }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        debug_assert!(
            MODEL_KEYS.contains(&key),
            "{key} is not in the list of keys"
        );
        self.map.get(key)
    }

    fn maybe_size(&self, key: &'static str) -> Result<Option<usize>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .and_then(|x| usize::try_from(x).ok())
                .map(Some)
                .ok_or_else(|| format!("model key {key:?} is {value}, but must be a whole number")),
        }
    }

    fn size(&self, key: &'static str) -> Result<usize, String> {
        self.maybe_size(key)?
            .ok_or_else(|| format!("model key {key:?} is missing"))
    }

    fn image_size(&self) -> Result<ImageSize, String> {
        let key = "image_size";
        let value = self
            .get(key)
            .ok_or_else(|| format!("model key {key:?} is missing"))?;
        image_size_from_json(value).ok_or_else(|| {
            format!(
                "model key {key:?} is {value}, but must be a whole number (the side of a square) or \
                 [height, width]"
            )
        })
    }

    fn flag(&self, key: &'static str, default: bool) -> Result<bool, String> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| format!("model key {key:?} is {value}, but must be true or false")),
        }
    }

    fn number(&self, key: &'static str, default: f64) -> Result<f64, String> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .ok_or_else(|| format!("model key {key:?} is {value}, but must be a number")),
        }
    }

    fn word<T: Copy>(
        &self,
        key: &'static str,
        table: &[(&str, T)],
        default: T,
    ) -> Result<T, String> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let found = value
            .as_str()
            .and_then(|s| table.iter().find(|(name, _)| *name == s));
        found.map(|(_, v)| *v).ok_or_else(|| {
            let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
            format!(
                "model key {key:?} is {value}, but must be one of {}",
                names.join(", ")
            )
        })
    }
}

/// The keys of the attention mixer go with it alone.
fn mixer(f: &Fields<'_>) -> Result<MixerKind, String> {
    let default = AttentionOptions::default();
    let options = AttentionOptions {
        heads: f.maybe_size("heads")?,
        mlp_ratio: f.maybe_size("mlp_ratio")?.unwrap_or(default.mlp_ratio),
        qkv_bias: f.flag("qkv_bias", default.qkv_bias)?,
    };
    if f.word("mixer", &MIXER, false)? {
        return Ok(MixerKind::Attention(options));
    }
    match ["heads", "mlp_ratio", "qkv_bias"]
        .iter()
        .find(|key| f.get(key).is_some())
    {
        Some(key) => Err(format!(
            "model key {key:?} belongs to mixer = \"attention\""
        )),
        None => Ok(MixerKind::Mamba),
    }
}

/// Reads a configuration. Sizes are required, the rest has the published defaults; unknown keys
/// are refused. Errors name the key.
///
/// # Errors
/// A key that is unknown, missing or has a value that cannot be, in words.
pub fn config_from_json(map: &Map<String, Value>) -> Result<DisConfig, String> {
    let f = Fields::new(map)?;
    let default = DisConfig::new(1, 1, 1, 1, 0);
    let ssm = SsmConfig::default();
    let image_size = f.image_size()?;
    let patch_size = f.size("patch_size")?;
    let channels = f.size("channels")?;
    let embed_dim = f.size("embed_dim")?;
    let depth = f.size("depth")?;
    let conditioning = f.word("conditioning", &CONDITIONING, default.conditioning)?;
    let num_classes = f.maybe_size("num_classes")?;
    let null_label = f.flag("null_label", true)?;
    let context_dim = f.maybe_size("context_dim")?;
    let context_tokens = f.maybe_size("context_tokens")?;
    let null_context = f.flag("null_context", true)?;
    let condition = match (num_classes, context_dim, context_tokens) {
        (None, None, None) => ConditionKind::None,
        (Some(num_classes), None, None) => ConditionKind::Classes {
            num_classes,
            null_label,
        },
        (None, Some(dim), Some(tokens)) => ConditionKind::Context {
            dim,
            tokens,
            null_context,
        },
        (Some(_), ..) => return Err("a model has classes or a context, not both".into()),
        _ => return Err("model keys \"context_dim\" and \"context_tokens\" go together".into()),
    };
    let config = DisConfig {
        image_size,
        patch_size,
        channels,
        embed_dim,
        depth,
        conditioning,
        condition,
        learn_sigma: f.flag("learn_sigma", default.learn_sigma)?,
        skip: f.word("skip", &SKIP, default.skip)?,
        norm: f.word("norm", &NORM, default.norm)?,
        mlp_time_embed: f.flag("mlp_time_embed", default.mlp_time_embed)?,
        mixer: mixer(&f)?,
        ssm: SsmConfig {
            d_state: f.maybe_size("d_state")?.unwrap_or(ssm.d_state),
            d_conv: f.maybe_size("d_conv")?.unwrap_or(ssm.d_conv),
            expand: f.maybe_size("expand")?.unwrap_or(ssm.expand),
            dt_rank: f.maybe_size("dt_rank")?,
            bias: f.flag("bias", ssm.bias)?,
            conv_bias: f.flag("conv_bias", ssm.conv_bias)?,
            discretization: f.word("discretization", &DISCRETIZATION, ssm.discretization)?,
        },
        drop_path_rate: f.number("drop_path_rate", default.drop_path_rate)?,
    };
    config.validate().map_err(|e| e.to_string())?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_of_every_option() {
        let mut config = DisConfig::new(8, 2, 3, 16, 4);
        assert_eq!(config_from_json(&config_to_json(&config)), Ok(config));
        config.conditioning = Conditioning::AdaLn;
        config.condition = ConditionKind::Context {
            dim: 5,
            tokens: 3,
            null_context: false,
        };
        config.skip = SkipKind::Add;
        config.norm = NormKind::Layer;
        config.learn_sigma = false;
        config.mlp_time_embed = false;
        config.ssm = SsmConfig {
            d_state: 8,
            d_conv: 3,
            expand: 1,
            dt_rank: Some(3),
            bias: true,
            conv_bias: false,
            discretization: Discretization::ZeroOrderHold,
        };
        config.drop_path_rate = 0.25;
        assert_eq!(config_from_json(&config_to_json(&config)), Ok(config));
        config.mixer = MixerKind::Attention(AttentionOptions {
            heads: Some(2),
            mlp_ratio: 3,
            qkv_bias: true,
        });
        assert_eq!(config_from_json(&config_to_json(&config)), Ok(config));
        config.mixer = MixerKind::Attention(AttentionOptions::default());
        assert_eq!(config_from_json(&config_to_json(&config)), Ok(config));
    }

    /// Files of square models keep their bytes.
    #[test]
    fn a_square_is_a_number_and_a_rectangle_a_pair() {
        let mut config = DisConfig::new(8, 2, 3, 16, 4);
        let mut map = config_to_json(&config);
        assert_eq!(map["image_size"], json!(8));
        map.insert("image_size".into(), json!([8, 8]));
        assert_eq!(config_from_json(&map), Ok(config));
        config.image_size = [4, 10].into();
        let mut map = config_to_json(&config);
        assert_eq!(map["image_size"], json!([4, 10]));
        assert_eq!(config_from_json(&map), Ok(config));
        assert_eq!((config.grid(), config.patches()), ([2, 5], 10));
        for wrong in [json!([4]), json!([4, 10, 3]), json!([4, -10]), json!("8")] {
            map.insert("image_size".into(), wrong);
            let message = config_from_json(&map).unwrap_err();
            assert!(message.contains("[height, width]"), "{message}");
        }
    }

    /// Files of Mamba models, published ones too, have the bytes they had before there was a choice.
    #[test]
    fn a_mamba_model_says_nothing_of_mixers() {
        let map = config_to_json(&DisConfig::new(8, 2, 3, 16, 4));
        let keys: Vec<&str> = map.keys().map(String::as_str).collect();
        for key in ["mixer", "heads", "mlp_ratio", "qkv_bias"] {
            assert!(!keys.contains(&key), "{key}");
        }
    }

    #[test]
    fn refusals_name_the_key() {
        let mut map = config_to_json(&DisConfig::new(8, 2, 3, 16, 4));
        map.insert("dpeth".into(), json!(3));
        assert!(config_from_json(&map).unwrap_err().contains("dpeth"));
        map.remove("dpeth");
        map.insert("skip".into(), json!("sum"));
        assert!(
            config_from_json(&map)
                .unwrap_err()
                .contains("concat, add, none")
        );
        map.insert("skip".into(), json!("add"));
        map.insert("heads".into(), json!(2));
        let message = config_from_json(&map).unwrap_err();
        assert!(message.contains("heads") && message.contains("attention"));
        map.remove("heads");
        map.remove("depth");
        assert!(config_from_json(&map).unwrap_err().contains("depth"));
    }
}
