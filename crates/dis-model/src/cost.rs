//! Exact parameters, multiply-adds and memory of a configuration.
//!
//! One multiply-add is one operation; exponentials, norms and gates are not counted. Published
//! figures for DiS leave out the mixer's scan and convolution (a profiler that saw linear layers
//! only), so they are lower than these.

use crate::config::{ConditionKind, Conditioning, DisConfig};
use crate::error::Result;
use crate::memory;
use crate::model::DisModel;
use dis_ssm::{MixingConfig, SkipKind};

pub use crate::memory::Memory;

/// Multiply-adds of one forward pass of one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MultiplyAdds {
    /// Patch embedding.
    pub patch_embed: u64,
    /// MLP of the time embedding.
    pub time_mlp: u64,
    /// Linear map of context embeddings.
    pub context_embed: u64,
    /// in_proj of all blocks.
    pub in_proj: u64,
    /// x_proj, both directions.
    pub x_proj: u64,
    /// dt_proj, both directions.
    pub dt_proj: u64,
    /// out_proj.
    pub out_proj: u64,
    /// Linear maps of concatenated skips.
    pub skip_linear: u64,
    /// Decoder, on patch tokens (what is computed here).
    pub head: u64,
    /// Decoder, on all tokens (what the published code computes, and then drops a part of).
    pub head_all_tokens: u64,
    /// Modulations from the condition.
    pub ada_ln: u64,
    /// Causal convolutions, both directions.
    pub conv: u64,
    /// `A_bar h`, both directions.
    pub scan_state_update: u64,
    /// `C h`, both directions.
    pub scan_readout: u64,
    /// `D u`, both directions.
    pub scan_skip: u64,
    /// `delta A`, both directions.
    pub scan_delta_a: u64,
    /// `delta u` and its product with B, both directions.
    pub scan_delta_u_b: u64,
    /// Queries, keys, values and the map after attention: `4 J D^2` a block.
    pub attention_linear: u64,
    /// Scores and weighted values: `2 J^2 D` a block.
    pub attention: u64,
    /// The perceptron after attention.
    pub mlp: u64,
}

impl MultiplyAdds {
    /// Of linear layers.
    pub fn linear(&self) -> u64 {
        self.patch_embed
            + self.time_mlp
            + self.context_embed
            + self.in_proj
            + self.x_proj
            + self.dt_proj
            + self.out_proj
            + self.attention_linear
            + self.mlp
            + self.skip_linear
            + self.head
            + self.ada_ln
    }

    /// Of scans.
    pub fn scan(&self) -> u64 {
        self.scan_state_update
            + self.scan_readout
            + self.scan_skip
            + self.scan_delta_a
            + self.scan_delta_u_b
    }

    /// All.
    pub fn total(&self) -> u64 {
        self.linear() + self.conv + self.scan() + self.attention
    }
}

/// The cost of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Exact number of parameters.
    pub parameters: u64,
    /// Tokens of a sample.
    pub tokens: u64,
    /// Multiply-adds of one forward pass of one sample.
    pub macs: MultiplyAdds,
    /// Bytes at the batch size asked for.
    pub memory: Memory,
}

/// The paper's form for a layer of self-attention over J tokens of width D: `4 J D^2 + 2 J^2 D`.
pub fn attention_macs(tokens: u64, width: u64) -> u64 {
    4 * tokens * width * width + 2 * tokens * tokens * width
}

/// The paper's form for a state space layer with expansion 2: `3 J (2D) N + J (2D) N^2`.
pub fn ssm_macs(tokens: u64, width: u64, states: u64) -> u64 {
    3 * tokens * 2 * width * states + tokens * 2 * width * states * states
}

/// Largest batch whose buffers are counted one by one; those of larger ones are so many times as large.
const COUNTED: usize = 1 << 12;

impl Cost {
    /// Computes the cost; memory is for `batch` samples.
    ///
    /// # Errors
    /// A configuration that cannot be built.
    pub fn of(config: &DisConfig, batch: usize) -> Result<Self> {
        let model = DisModel::new(*config)?;
        let macs = multiply_adds(config);
        Ok(Self {
            parameters: model.table().parameters() as u64,
            tokens: config.tokens() as u64,
            macs,
            memory: memory::memory(config, model.table(), batch.min(COUNTED)).scaled(batch),
        })
    }
}

impl Memory {
    /// That of `batch` samples, where it is counted for [`COUNTED`] or fewer.
    fn scaled(self, batch: usize) -> Self {
        if batch <= COUNTED {
            return self;
        }
        let times = |bytes: u64| {
            let bytes = u128::from(bytes) * batch as u128 / COUNTED as u128;
            u64::try_from(bytes).unwrap_or(u64::MAX)
        };
        Self {
            inference: times(self.inference),
            training: times(self.training),
            training_recompute: times(self.training_recompute),
            ..self
        }
    }

    /// Bytes of training: weights, optimizer, and a step that recomputes blocks or not.
    pub fn whole_training(&self, recompute: bool) -> u64 {
        let step = match recompute {
            true => self.training_recompute,
            false => self.training,
        };
        (self.weights.saturating_add(self.optimizer)).saturating_add(step)
    }
}

fn multiply_adds(config: &DisConfig) -> MultiplyAdds {
    let u = |x: usize| x as u64;
    let (tokens, patches, d) = (u(config.tokens()), u(config.patches()), u(config.embed_dim));
    let blocks = u(config.blocks());
    let patch = u(config.patch_size * config.patch_size);
    let head = |tokens: u64| tokens * d * patch * u(config.out_channels());
    let modulations = u64::from(config.modulated_decoder())
        + if config.conditioning == Conditioning::AdaLn {
            blocks
        } else {
            0
        };
    let around = MultiplyAdds {
        patch_embed: patches * patch * u(config.channels) * d,
        time_mlp: if config.mlp_time_embed { 8 * d * d } else { 0 },
        context_embed: match config.condition {
            ConditionKind::Context { dim, tokens, .. } => u(dim) * u(tokens) * d,
            _ => 0,
        },
        skip_linear: if config.skip == SkipKind::Concat {
            u(config.half_depth()) * tokens * 2 * d * d
        } else {
            0
        },
        head: head(patches),
        head_all_tokens: head(tokens),
        ada_ln: modulations * 2 * d * d,
        ..MultiplyAdds::default()
    };
    let rows = blocks * tokens;
    match config.mixing() {
        MixingConfig::Mamba(mixer) => {
            let (d_inner, states) = (u(mixer.d_inner), u(mixer.d_state));
            let both = 2 * rows;
            MultiplyAdds {
                in_proj: rows * d * 2 * d_inner,
                x_proj: both * d_inner * u(mixer.x_proj_width()),
                dt_proj: both * d_inner * u(mixer.dt_rank),
                out_proj: rows * d_inner * d,
                conv: both * d_inner * u(mixer.d_conv),
                scan_state_update: both * d_inner * states,
                scan_readout: both * d_inner * states,
                scan_skip: both * d_inner,
                scan_delta_a: both * d_inner * states,
                scan_delta_u_b: both * d_inner * (states + 1),
                ..around
            }
        }
        MixingConfig::Attention(mixer) => MultiplyAdds {
            attention_linear: rows * 4 * d * d,
            attention: rows * 2 * tokens * d,
            mlp: rows * 2 * d * u(mixer.d_mlp),
            ..around
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AttentionOptions, MixerKind};

    #[test]
    fn memory_of_batches_that_no_machine_has_is_a_number() {
        let config = DisConfig::new(16, 2, 3, 48, 5);
        let training = |batch| Cost::of(&config, batch).unwrap().memory.training;
        assert!(training(usize::MAX) > 1 << 63);
        let ratio = training(COUNTED * 1000) as f64 / training(COUNTED) as f64;
        assert!((ratio - 1000.0).abs() < 1e-3);
    }

    /// Attention's own products are what the paper's form counts, whatever the heads.
    #[test]
    fn attention_costs_what_the_papers_form_says() {
        let mut config = DisConfig::new(16, 2, 3, 48, 5);
        for heads in [1, 6] {
            config.mixer = MixerKind::Attention(AttentionOptions {
                heads: Some(heads),
                ..AttentionOptions::default()
            });
            let macs = Cost::of(&config, 1).unwrap().macs;
            let layers = config.blocks() as u64;
            let form = attention_macs(config.tokens() as u64, 48);
            assert_eq!(macs.attention_linear + macs.attention, layers * form);
            assert_eq!(macs.mlp, layers * config.tokens() as u64 * 8 * 48 * 48);
            assert_eq!((macs.in_proj, macs.scan(), macs.conv), (0, 0, 0));
        }
    }
}
