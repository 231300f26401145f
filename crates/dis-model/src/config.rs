//! Configuration of a DiS model and the published zoo.

use dis_scan::Discretization;
use dis_ssm::{AttentionConfig, MixerConfig, MixingConfig, SkipKind};
use dis_tensor::{ImageSize, NormKind};

use crate::error::{ModelError, Result};

/// How time and condition reach the blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conditioning {
    /// As tokens in front of the patches (published default).
    #[default]
    Tokens,
    /// As shift and scale of every norm, regressed from their sum; there are only patch tokens.
    AdaLn,
}

/// What a model is conditioned on beside time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConditionKind {
    /// Nothing.
    #[default]
    None,
    /// A class label.
    Classes {
        /// Number of real classes.
        num_classes: usize,
        /// Whether the table has one more row for "no label", id `num_classes`.
        null_label: bool,
    },
    /// A sequence of continuous embeddings, such as a text encoder's outputs.
    Context {
        /// Channels of each embedding.
        dim: usize,
        /// Embeddings in a sequence.
        tokens: usize,
        /// Whether there is a learned sequence for "no condition".
        null_context: bool,
    },
}

/// Widths of the state space inside every mixer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SsmConfig {
    /// States of each channel.
    pub d_state: usize,
    /// Width of the causal convolution, 2 to 4.
    pub d_conv: usize,
    /// `d_inner = expand * embed_dim`.
    pub expand: usize,
    /// Rank of the step's projection; `ceil(embed_dim / 16)` when absent.
    pub dt_rank: Option<usize>,
    /// Whether in_proj and out_proj have a bias.
    pub bias: bool,
    /// Whether the convolutions have a bias.
    pub conv_bias: bool,
    /// Discretisation of B.
    pub discretization: Discretization,
}

impl Default for SsmConfig {
    fn default() -> Self {
        Self {
            d_state: 16,
            d_conv: 4,
            expand: 2,
            dt_rank: None,
            bias: false,
            conv_bias: true,
            discretization: Discretization::Mamba,
        }
    }
}

/// What mixes the tokens of every block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MixerKind {
    /// The bidirectional Mamba mixer of DiS, as [`SsmConfig`] says.
    #[default]
    Mamba,
    /// Self-attention and a perceptron, for comparison: the blocks of a U-ViT of equal width.
    Attention(AttentionOptions),
}

/// Options of the attention mixer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionOptions {
    /// Heads; when absent the largest divisor of embed_dim that leaves at least 64 channels to
    /// each, or 1.
    pub heads: Option<usize>,
    /// Width of the perceptron, as a multiple of embed_dim. 4 is U-ViT's and makes 12 D^2
    /// weights a block; the Mamba mixer has about 6.5 D^2 + 128 D.
    pub mlp_ratio: usize,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
}

impl Default for AttentionOptions {
    fn default() -> Self {
        Self {
            heads: None,
            mlp_ratio: 4,
            qkv_bias: false,
        }
    }
}

/// Everything that decides the architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DisConfig {
    /// Height and width of the image or latent, in pixels.
    pub image_size: ImageSize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Image or latent channels.
    pub channels: usize,
    /// Width D of a token.
    pub embed_dim: usize,
    /// Nominal depth; `2 * (depth / 2) + 1` blocks are built.
    pub depth: usize,
    /// How time and condition reach the blocks.
    pub conditioning: Conditioning,
    /// What the model is conditioned on.
    pub condition: ConditionKind,
    /// Whether the decoder also predicts a diagonal covariance.
    pub learn_sigma: bool,
    /// How shallow blocks join deep ones.
    pub skip: SkipKind,
    /// Norm in the blocks and after the last.
    pub norm: NormKind,
    /// Whether the time embedding passes through an MLP.
    pub mlp_time_embed: bool,
    /// What mixes the tokens.
    pub mixer: MixerKind,
    /// The state space of the Mamba mixer.
    pub ssm: SsmConfig,
    /// Largest stochastic-depth rate in training.
    pub drop_path_rate: f64,
}

impl DisConfig {
    /// A model with the published defaults for everything but its sizes. `image_size` is the side of
    /// a square or `[height, width]`.
    pub fn new(
        image_size: impl Into<ImageSize>,
        patch_size: usize,
        channels: usize,
        embed_dim: usize,
        depth: usize,
    ) -> Self {
        Self {
            image_size: image_size.into(),
            patch_size,
            channels,
            embed_dim,
            depth,
            conditioning: Conditioning::Tokens,
            condition: ConditionKind::None,
            learn_sigma: true,
            skip: SkipKind::Concat,
            norm: NormKind::Rms,
            mlp_time_embed: true,
            mixer: MixerKind::default(),
            ssm: SsmConfig::default(),
            drop_path_rate: 0.1,
        }
    }

    /// A published entry such as `DiS-S/2`, for images or latents of this size: the side of a square
    /// or `[height, width]`.
    ///
    /// # Errors
    /// A name that is no published entry, a size that patches do not divide.
    pub fn zoo(name: &str, image_size: impl Into<ImageSize>, channels: usize) -> Result<Self> {
        let unknown = || {
            ModelError::Config(format!(
                "no model named {name:?}; there are {} with patches 2, 4 and 8, such as DiS-S/2",
                ZOO.map(|(size, ..)| format!("DiS-{size}")).join(", ")
            ))
        };
        let rest = name.strip_prefix("DiS-").ok_or_else(unknown)?;
        let (size, patch) = rest.split_once('/').ok_or_else(unknown)?;
        let (_, embed_dim, depth) = *ZOO.iter().find(|(s, ..)| *s == size).ok_or_else(unknown)?;
        let patch_size = match patch {
            "2" => 2,
            "4" => 4,
            "8" => 8,
            _ => return Err(unknown()),
        };
        let config = Self::new(image_size, patch_size, channels, embed_dim, depth);
        config.validate()?;
        Ok(config)
    }

    /// Refuses what cannot be built, naming the option at fault.
    ///
    /// # Errors
    /// Numbers that cannot be built, naming the key.
    pub fn validate(&self) -> Result<()> {
        let refuse = |what: String| Err(ModelError::Config(what));
        // Generous bounds that keep every product of sizes within 64 bits.
        let bounded = [
            ("image_size", self.image_size.height, ImageSize::LONGEST),
            ("image_size", self.image_size.width, ImageSize::LONGEST),
            ("patch_size", self.patch_size, 1 << 10),
            ("channels", self.channels, 1 << 16),
            ("embed_dim", self.embed_dim, 1 << 16),
            ("d_state", self.ssm.d_state, 256),
            ("expand", self.ssm.expand, 64),
            ("dt_rank", self.dt_rank(), 1 << 16),
        ];
        for (name, value, largest) in bounded {
            if value == 0 || value > largest {
                return refuse(format!("{name} is {value}, but must be 1 to {largest}"));
            }
        }
        let ImageSize { height, width } = self.image_size;
        for side in [height, width] {
            if !side.is_multiple_of(self.patch_size) {
                return refuse(format!(
                    "image_size {side} is not a multiple of patch_size {}",
                    self.patch_size
                ));
            }
        }
        if !(2..=4).contains(&self.ssm.d_conv) {
            return refuse(format!(
                "d_conv is {}, but must be 2, 3 or 4",
                self.ssm.d_conv
            ));
        }
        if let MixerKind::Attention(options) = self.mixer {
            if !(1..=64).contains(&options.mlp_ratio) {
                return refuse(format!(
                    "mlp_ratio is {}, but must be 1 to 64",
                    options.mlp_ratio
                ));
            }
            let heads = self.heads(&options);
            if heads == 0 || !self.embed_dim.is_multiple_of(heads) {
                return refuse(format!(
                    "embed_dim {} is not a multiple of heads {heads}",
                    self.embed_dim
                ));
            }
        }
        if self.depth > 10_000 {
            return refuse(format!(
                "depth is {}, but must be at most 10000",
                self.depth
            ));
        }
        if !(0.0..1.0).contains(&self.drop_path_rate) {
            return refuse(format!(
                "drop_path_rate is {}, but must be at least 0 and below 1",
                self.drop_path_rate
            ));
        }
        match self.condition {
            ConditionKind::Classes { num_classes: 0, .. } => {
                refuse("num_classes is 0; leave classes out for an unconditional model".into())
            }
            ConditionKind::Classes { num_classes, .. } if num_classes > 1 << 24 => refuse(format!(
                "num_classes is {num_classes}, but must be at most {}",
                1 << 24
            )),
            ConditionKind::Context { dim, tokens, .. }
                if dim == 0 || tokens == 0 || dim.max(tokens) > 1 << 16 =>
            {
                refuse(format!(
                    "a context of {tokens} embeddings of {dim} channels; both must be 1 to {}",
                    1 << 16
                ))
            }
            _ => Ok(()),
        }
    }

    /// Heads of the attention mixer.
    fn heads(&self, options: &AttentionOptions) -> usize {
        let d = self.embed_dim;
        let widest = || (1..=d / 64).rev().find(|&h| d.is_multiple_of(h));
        options.heads.unwrap_or_else(|| widest().unwrap_or(1))
    }

    /// Widths and options of what mixes the tokens.
    pub fn mixing(&self) -> MixingConfig {
        match self.mixer {
            MixerKind::Mamba => MixingConfig::Mamba(self.state_space()),
            MixerKind::Attention(options) => MixingConfig::Attention(AttentionConfig {
                d_model: self.embed_dim,
                heads: self.heads(&options),
                d_mlp: options.mlp_ratio * self.embed_dim,
                qkv_bias: options.qkv_bias,
                norm: self.norm,
            }),
        }
    }

    /// Widths and options of the Mamba mixer.
    pub fn state_space(&self) -> MixerConfig {
        MixerConfig {
            d_model: self.embed_dim,
            d_inner: self.ssm.expand * self.embed_dim,
            d_state: self.ssm.d_state,
            d_conv: self.ssm.d_conv,
            dt_rank: self.dt_rank(),
            bias: self.ssm.bias,
            conv_bias: self.ssm.conv_bias,
            discretization: self.ssm.discretization,
        }
    }

    /// Rank of the step's projection.
    pub fn dt_rank(&self) -> usize {
        self.ssm.dt_rank.unwrap_or(self.embed_dim.div_ceil(16))
    }

    /// Blocks before (and after) the middle one.
    pub fn half_depth(&self) -> usize {
        self.depth / 2
    }

    /// Blocks built.
    pub fn blocks(&self) -> usize {
        2 * self.half_depth() + 1
    }

    /// Channels, height and width of an image.
    pub fn image_shape(&self) -> [usize; 3] {
        let ImageSize { height, width } = self.image_size;
        [self.channels, height, width]
    }

    /// Rows and columns of the grid of patches.
    pub fn grid(&self) -> [usize; 2] {
        let ImageSize { height, width } = self.image_size;
        [height / self.patch_size, width / self.patch_size]
    }

    /// Patches of an image.
    pub fn patches(&self) -> usize {
        let [rows, columns] = self.grid();
        rows * columns
    }

    /// Condition tokens.
    pub fn condition_tokens(&self) -> usize {
        match (self.conditioning, self.condition) {
            (Conditioning::AdaLn, _) | (_, ConditionKind::None) => 0,
            (_, ConditionKind::Classes { .. }) => 1,
            (_, ConditionKind::Context { tokens, .. }) => tokens,
        }
    }

    /// Tokens in front of the patches: condition, then time.
    pub fn extra_tokens(&self) -> usize {
        match self.conditioning {
            Conditioning::Tokens => self.condition_tokens() + 1,
            Conditioning::AdaLn => 0,
        }
    }

    /// All tokens of a sample.
    pub fn tokens(&self) -> usize {
        self.extra_tokens() + self.patches()
    }

    /// Channels of the output: noise, and the covariance if learned.
    pub fn out_channels(&self) -> usize {
        self.channels * if self.learn_sigma { 2 } else { 1 }
    }

    /// Whether the decoder's norm is modulated by time and condition.
    pub fn modulated_decoder(&self) -> bool {
        self.conditioning == Conditioning::AdaLn || self.condition != ConditionKind::None
    }

    /// Stochastic-depth rate of every block, then of the site before the last norm: a zero, then a
    /// linear ramp from 0 to `drop_path_rate` over `depth` points; the last site has the full rate.
    pub fn drop_rates(&self) -> Vec<f64> {
        let ramp = |i: usize| {
            if i == 0 || self.depth < 2 {
                0.0
            } else {
                self.drop_path_rate * (i - 1) as f64 / (self.depth - 1) as f64
            }
        };
        (0..self.blocks())
            .map(ramp)
            .chain([self.drop_path_rate])
            .collect()
    }

    /// The label that stands for "none", if there is one.
    pub fn null_label(&self) -> Option<u32> {
        match self.condition {
            ConditionKind::Classes {
                num_classes,
                null_label: true,
            } => Some(num_classes as u32),
            _ => None,
        }
    }
}

/// Published sizes: name, embed_dim, depth (paper, table 1).
pub const ZOO: [(&str, usize, usize); 5] = [
    ("S", 368, 24),
    ("B", 768, 24),
    ("M", 768, 48),
    ("L", 1024, 48),
    ("H", 1536, 48),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_rates_as_published() {
        let mut config = DisConfig::new(8, 2, 3, 16, 4);
        config.drop_path_rate = 0.4;
        let expected = [0.0, 0.0, 0.4 / 3.0, 0.8 / 3.0, 0.4, 0.4];
        for (rate, expected) in config.drop_rates().iter().zip(expected) {
            assert!((rate - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn heads_are_64_wide_or_wider() {
        for (embed_dim, heads) in [(64, 1), (96, 1), (128, 2), (368, 4), (768, 12), (1024, 16)] {
            let mut config = DisConfig::new(8, 2, 3, embed_dim, 4);
            config.mixer = MixerKind::Attention(AttentionOptions::default());
            config.validate().unwrap();
            let MixingConfig::Attention(attention) = config.mixing() else {
                panic!("{:?}", config.mixing());
            };
            assert_eq!((attention.heads, attention.d_mlp), (heads, 4 * embed_dim));
        }
    }

    #[test]
    fn refusals_name_the_option() {
        let refused = |change: fn(&mut DisConfig), word: &str| {
            let mut config = DisConfig::new(8, 2, 3, 16, 4);
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        };
        refused(|c| c.patch_size = 3, "patch_size");
        refused(|c| c.image_size = [8, 5].into(), "image_size 5");
        refused(|c| c.image_size = [0, 8].into(), "image_size is 0");
        refused(|c| c.ssm.d_conv = 5, "d_conv");
        refused(|c| c.embed_dim = 0, "embed_dim");
        fn attention(c: &mut DisConfig, heads: Option<usize>, mlp_ratio: usize) {
            c.mixer = MixerKind::Attention(AttentionOptions {
                heads,
                mlp_ratio,
                qkv_bias: false,
            });
        }
        refused(|c| attention(c, Some(3), 4), "heads 3");
        refused(|c| attention(c, Some(0), 4), "heads 0");
        refused(|c| attention(c, None, 0), "mlp_ratio");
        refused(|c| c.drop_path_rate = 1.0, "drop_path_rate");
        refused(
            |c| {
                c.condition = ConditionKind::Classes {
                    num_classes: 0,
                    null_label: true,
                }
            },
            "num_classes",
        );
        assert!(DisConfig::zoo("DiS-X/2", 32, 3).is_err());
        assert!(DisConfig::zoo("DiS-S/3", 32, 3).is_err());
        assert!(DisConfig::zoo("DiS-S/2", 32, 3).is_ok());
    }
}
