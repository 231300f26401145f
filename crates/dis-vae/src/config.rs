//! The configuration of an autoencoder, in the words of the diffusers library's `config.json`.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Result, VaeError};

/// Activation between normalisations and convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x sigmoid(x); "silu" or "swish".
    Silu,
    /// max(x, 0).
    Relu,
    /// x Phi(x), with the exact normal distribution function.
    Gelu,
    /// x tanh(log(1 + e^x)).
    Mish,
}

/// Shape and scaling of an AutoencoderKL.
///
/// Keys that say how the library should compute (`force_upcast`) or that only label
/// (`_diffusers_version`) are ignored; absent keys have the library's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of images to encode.
    pub in_channels: usize,
    /// Channels of decoded images.
    pub out_channels: usize,
    /// Channels of each level, finest first. Between levels the resolution halves.
    pub block_out_channels: Vec<usize>,
    /// Residual layers of an encoder level; a decoder level has one more.
    pub layers_per_block: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of every group normalisation.
    pub norm_num_groups: usize,
    /// Activation of the residual layers; the last one of each half is SiLU.
    pub act_fn: Activation,
    /// Encoder levels, finest first, that have attention after each residual layer.
    pub down_attention: Vec<bool>,
    /// Decoder levels, coarsest first, that have attention after each residual layer.
    pub up_attention: Vec<bool>,
    /// Whether the middle, at the coarsest level, has attention.
    pub mid_block_add_attention: bool,
    /// Whether a 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Side of the images it was trained on; tiles have this size.
    pub sample_size: usize,
    /// Factor between latents and what a diffusion model sees.
    pub scaling_factor: f64,
    /// Subtracted from latents before they are scaled.
    pub shift_factor: Option<f64>,
    /// Per channel, subtracted from latents before they are scaled.
    pub latents_mean: Option<Vec<f64>>,
    /// Per channel, a divisor of the scale.
    pub latents_std: Option<Vec<f64>>,
}

impl Default for VaeConfig {
    /// The first stage of Stable Diffusion: 83 million parameters, 8-fold reduction, 4 channels.
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 4,
            norm_num_groups: 32,
            act_fn: Activation::Silu,
            down_attention: vec![false; 4],
            up_attention: vec![false; 4],
            mid_block_add_attention: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            sample_size: 256,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
        }
    }
}

/// What a diffusion model sees of a latent: `(z - shift[c]) * scale[c]` for channel c.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentScale {
    /// Per channel.
    pub scale: Vec<f64>,
    /// Per channel.
    pub shift: Vec<f64>,
}

/// Most channels of any layer, and most levels: far above any known model, far below what
/// overflows an index.
const MOST_CHANNELS: usize = 1 << 16;
const MOST_LEVELS: usize = 12;
const MOST_LAYERS: usize = 256;

impl VaeConfig {
    /// Parses the text of a `config.json`; `origin` names it in errors.
    ///
    /// # Errors
    /// If it is not valid JSON, not of an AutoencoderKL, or a key has a value this crate cannot run.
    pub fn from_json(text: &str, origin: &Path) -> Result<Self> {
        let refuse = |what: String| VaeError::Config {
            path: origin.to_path_buf(),
            what,
        };
        let value: Value =
            serde_json::from_str(text).map_err(|e| refuse(format!("not valid JSON: {e}")))?;
        let map = value
            .as_object()
            .ok_or_else(|| refuse("not a JSON object".into()))?;
        Self::from_map(map).map_err(refuse)
    }

    /// As [`VaeConfig::from_json`], from a parsed object; the error names the key.
    ///
    /// # Errors
    /// A configuration that is none of an autoencoder this crate has, naming the key.
    pub fn from_map(map: &Map<String, Value>) -> std::result::Result<Self, String> {
        let keys = Keys(map);
        if let Some(class) = keys.get("_class_name")
            && class.as_str() != Some("AutoencoderKL")
        {
            return Err(format!("_class_name is {class}, expected AutoencoderKL"));
        }
        let block_out_channels = keys.sizes("block_out_channels")?.unwrap_or(vec![64]);
        let levels = block_out_channels.len();
        let act_fn = match keys.text("act_fn")?.unwrap_or("silu") {
            "silu" | "swish" => Activation::Silu,
            "relu" => Activation::Relu,
            "gelu" => Activation::Gelu,
            "mish" => Activation::Mish,
            other => return Err(format!("act_fn {other:?} is not silu, relu, gelu or mish")),
        };
        let config = Self {
            in_channels: keys.size("in_channels", 3)?,
            out_channels: keys.size("out_channels", 3)?,
            layers_per_block: keys.size("layers_per_block", 1)?,
            latent_channels: keys.size("latent_channels", 4)?,
            norm_num_groups: keys.size("norm_num_groups", 32)?,
            act_fn,
            down_attention: keys.attention(
                "down_block_types",
                levels,
                ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
            )?,
            up_attention: keys.attention(
                "up_block_types",
                levels,
                ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"],
            )?,
            mid_block_add_attention: keys.flag("mid_block_add_attention")?,
            use_quant_conv: keys.flag("use_quant_conv")?,
            use_post_quant_conv: keys.flag("use_post_quant_conv")?,
            sample_size: keys.sample_size()?,
            scaling_factor: keys.number("scaling_factor")?.unwrap_or(0.18215),
            shift_factor: keys.number("shift_factor")?,
            latents_mean: keys.numbers("latents_mean")?,
            latents_std: keys.numbers("latents_std")?,
            block_out_channels,
        };
        config.check()?;
        Ok(config)
    }

    /// Refuses what cannot be built; the error names the key.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        let levels = self.block_out_channels.len();
        if levels == 0 || levels > MOST_LEVELS {
            return Err(format!(
                "block_out_channels has {levels} levels, not 1 to {MOST_LEVELS}"
            ));
        }
        let sizes = [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
            ("norm_num_groups", self.norm_num_groups),
        ];
        let channels = self
            .block_out_channels
            .iter()
            .map(|&c| ("block_out_channels", c));
        for (key, size) in sizes.into_iter().chain(channels) {
            if size == 0 || size > MOST_CHANNELS {
                return Err(format!("{key} is {size}, not 1 to {MOST_CHANNELS}"));
            }
        }
        if !(1..=MOST_LAYERS).contains(&self.layers_per_block) {
            return Err(format!(
                "layers_per_block is {}, not 1 to {MOST_LAYERS}",
                self.layers_per_block
            ));
        }
        for &channels in &self.block_out_channels {
            if !channels.is_multiple_of(self.norm_num_groups) {
                return Err(format!(
                    "block_out_channels holds {channels}, which norm_num_groups {} does not divide",
                    self.norm_num_groups
                ));
            }
        }
        for (key, flags) in [
            ("down_block_types", &self.down_attention),
            ("up_block_types", &self.up_attention),
        ] {
            if flags.len() != levels {
                return Err(format!(
                    "{key} has {} entries, but block_out_channels {levels}",
                    flags.len()
                ));
            }
        }
        if !self.scaling_factor.is_finite() || self.scaling_factor == 0.0 {
            return Err(format!("scaling_factor is {}", self.scaling_factor));
        }
        for (key, list) in [
            ("latents_mean", &self.latents_mean),
            ("latents_std", &self.latents_std),
        ] {
            if let Some(list) = list
                && list.len() != self.latent_channels
            {
                return Err(format!(
                    "{key} has {} entries, but there are {} latent_channels",
                    list.len(),
                    self.latent_channels
                ));
            }
        }
        if let Some(bad) = self.latents_std.iter().flatten().find(|&&s| s <= 0.0) {
            return Err(format!("latents_std holds {bad}"));
        }
        Ok(())
    }

    /// Pixels along a side for each latent: 8 for Stable Diffusion.
    pub fn reduction(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// How a diffusion model sees the latents. The mean and the standard deviation per channel, or
    /// the shift, where the configuration has them.
    pub fn latent_scale(&self) -> LatentScale {
        let shift = self.shift_factor.unwrap_or(0.0);
        let channels = 0..self.latent_channels;
        let at = |list: &Option<Vec<f64>>, c: usize| list.as_ref().and_then(|l| l.get(c)).copied();
        LatentScale {
            scale: channels
                .clone()
                .map(|c| self.scaling_factor / at(&self.latents_std, c).unwrap_or(1.0))
                .collect(),
            shift: channels
                .map(|c| at(&self.latents_mean, c).unwrap_or(shift))
                .collect(),
        }
    }
}

impl LatentScale {
    /// Latents (..., channels, height, width) of one size as a diffusion model sees them.
    pub fn apply(&self, latents: &mut [f32], pixels: usize) {
        self.each(latents, pixels, |z, scale, shift| (z - shift) * scale);
    }

    /// The inverse of [`LatentScale::apply`].
    pub fn undo(&self, latents: &mut [f32], pixels: usize) {
        self.each(latents, pixels, |z, scale, shift| z / scale + shift);
    }

    fn each(&self, latents: &mut [f32], pixels: usize, f: impl Fn(f64, f64, f64) -> f64) {
        let channels = self.scale.iter().zip(&self.shift).cycle();
        for (plane, (&scale, &shift)) in latents.chunks_mut(pixels.max(1)).zip(channels) {
            for z in plane {
                *z = f(f64::from(*z), scale, shift) as f32;
            }
        }
    }
}

/// Typed access to the keys of a configuration. `null` counts as absent, as in the library.
struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        what: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> std::result::Result<Option<T>, String> {
        let value = self.get(key);
        value
            .map(|v| convert(v).ok_or_else(|| format!("{key} is {}, not {what}", brief(v))))
            .transpose()
    }

    fn text(&self, key: &str) -> std::result::Result<Option<&str>, String> {
        self.typed(key, "a text", Value::as_str)
    }

    fn size(&self, key: &str, default: usize) -> std::result::Result<usize, String> {
        Ok(self.typed(key, "a whole number", size)?.unwrap_or(default))
    }

    fn flag(&self, key: &str) -> std::result::Result<bool, String> {
        Ok(self
            .typed(key, "true or false", Value::as_bool)?
            .unwrap_or(true))
    }

    fn number(&self, key: &str) -> std::result::Result<Option<f64>, String> {
        self.typed(key, "a number", Value::as_f64)
    }

    fn sizes(&self, key: &str) -> std::result::Result<Option<Vec<usize>>, String> {
        self.typed(key, "a list of whole numbers", |v| {
            v.as_array()?.iter().map(size).collect()
        })
    }

    fn numbers(&self, key: &str) -> std::result::Result<Option<Vec<f64>>, String> {
        self.typed(key, "a list of numbers", |v| {
            v.as_array()?.iter().map(Value::as_f64).collect()
        })
    }

    /// One number, or height and width, of which the larger is taken.
    fn sample_size(&self) -> std::result::Result<usize, String> {
        let found = self.typed("sample_size", "a whole number", |v| match v {
            Value::Array(sides) => sides.iter().map(size).collect::<Option<Vec<_>>>(),
            other => size(other).map(|side| vec![side]),
        })?;
        Ok(found.into_iter().flatten().max().unwrap_or(32))
    }

    /// Block types without and with attention, as flags.
    fn attention(
        &self,
        key: &str,
        levels: usize,
        [plain, attention]: [&str; 2],
    ) -> std::result::Result<Vec<bool>, String> {
        let Some(types) = self.typed(key, "a list", Value::as_array)? else {
            // The library's default is a list of one, which only fits one level.
            return Ok(vec![false; levels]);
        };
        types
            .iter()
            .map(|t| match t.as_str() {
                Some(t) if t == plain => Ok(false),
                Some(t) if t == attention => Ok(true),
                _ => Err(format!(
                    "{key} holds {}, expected {plain} or {attention}",
                    brief(t)
                )),
            })
            .collect()
    }
}

fn size(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|x| usize::try_from(x).ok())
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<VaeConfig> {
        VaeConfig::from_json(text, Path::new("config.json"))
    }

    #[test]
    fn absent_keys_have_the_librarys_defaults() {
        let config = parse("{}").unwrap();
        assert_eq!(config.block_out_channels, [64]);
        assert_eq!((config.layers_per_block, config.sample_size), (1, 32));
        assert_eq!((config.reduction(), config.norm_num_groups), (1, 32));
        assert!(config.use_quant_conv && config.mid_block_add_attention);
        assert_eq!(config.latent_scale().scale, [0.18215; 4]);
    }

    #[test]
    fn refusals_name_the_key() {
        for (text, part) in [
            ("{", "not valid JSON"),
            ("[]", "not a JSON object"),
            (r#"{"_class_name": "VQModel"}"#, "_class_name"),
            (r#"{"block_out_channels": []}"#, "0 levels"),
            (r#"{"block_out_channels": [48]}"#, "norm_num_groups"),
            (r#"{"block_out_channels": [64, -1]}"#, "block_out_channels"),
            (
                r#"{"block_out_channels": [18446744073709551615]}"#,
                "block_out_channels",
            ),
            (r#"{"latent_channels": 0}"#, "latent_channels"),
            (r#"{"act_fn": "tanh"}"#, "act_fn"),
            (r#"{"use_quant_conv": 1}"#, "use_quant_conv"),
            (r#"{"down_block_types": ["CrossAttnDownBlock2D"]}"#, "Cross"),
            (
                r#"{"block_out_channels": [64, 64], "up_block_types": ["UpDecoderBlock2D"]}"#,
                "up_block",
            ),
            (r#"{"scaling_factor": 0}"#, "scaling_factor"),
            (r#"{"latents_std": [1, 1, 1]}"#, "latents_std"),
            (r#"{"latents_std": [1, 1, 1, 0]}"#, "latents_std"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
            assert!(message.starts_with("config.json: ") && !message.contains('\n'));
        }
    }

    #[test]
    fn scaling_goes_both_ways_per_channel() {
        let text = r#"{"scaling_factor": 0.5, "latent_channels": 2, "latents_mean": [1, 2],
            "latents_std": [0.25, 4], "shift_factor": 9, "sample_size": [48, 64]}"#;
        let config = parse(text).unwrap();
        assert_eq!(config.sample_size, 64);
        let scale = config.latent_scale();
        let mut z = [1.0, 2.0, 10.0, 2.0, 1.5, 1.0, 2.0, 6.0];
        scale.apply(&mut z, 2);
        assert_eq!(z, [0.0, 2.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.5]);
        scale.undo(&mut z, 2);
        assert_eq!(z, [1.0, 2.0, 10.0, 2.0, 1.5, 1.0, 2.0, 6.0]);
        let shifted = parse(r#"{"shift_factor": 0.1, "latent_channels": 16}"#).unwrap();
        assert_eq!(shifted.latent_scale().shift, [0.1; 16]);
    }
}
