//! Exact parameters, multiply-adds and memory of a configuration.
//!
//! One multiply-add is one operation; exponentials, norms and gates are not counted. Published
//! figures for DiS leave out the mixer's scan and convolution (a profiler that saw linear layers
//! only), so they are lower than these.

use dis_scan::checkpoint_len;

use crate::config::{ConditionKind, Conditioning, DisConfig};
use crate::error::Result;
use crate::model::DisModel;
use dis_ssm::SkipKind;

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
        self.linear() + self.conv + self.scan()
    }
}

/// Bytes of float32 buffers, for a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Weights.
    pub weights: u64,
    /// Buffers of a forward pass without gradients.
    pub inference: u64,
    /// Gradients, both Adam moments and the moving average.
    pub optimizer: u64,
    /// What a training step keeps and works in.
    pub training: u64,
    /// The same when blocks are recomputed in the backward.
    pub training_recompute: u64,
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

impl Cost {
    /// Computes the cost; memory is for `batch` samples.
    pub fn of(config: &DisConfig, batch: usize) -> Result<Self> {
        let model = DisModel::new(*config)?;
        let macs = multiply_adds(config);
        Ok(Self {
            parameters: model.table().parameters() as u64,
            tokens: config.tokens() as u64,
            macs,
            memory: memory(config, model.table().len(), batch),
        })
    }
}

fn multiply_adds(config: &DisConfig) -> MultiplyAdds {
    let u = |x: usize| x as u64;
    let mixer = config.mixer();
    let (tokens, patches, d) = (u(config.tokens()), u(config.patches()), u(config.embed_dim));
    let (d_inner, states) = (u(mixer.d_inner), u(mixer.d_state));
    let blocks = u(config.blocks());
    let patch = u(config.patch_size * config.patch_size);
    let both = 2 * blocks * tokens;
    let head = |tokens: u64| tokens * d * patch * u(config.out_channels());
    let modulations = u64::from(config.modulated_decoder())
        + if config.conditioning == Conditioning::AdaLn {
            blocks
        } else {
            0
        };
    MultiplyAdds {
        patch_embed: patches * patch * u(config.channels) * d,
        time_mlp: if config.mlp_time_embed { 8 * d * d } else { 0 },
        context_embed: match config.condition {
            ConditionKind::Context { dim, tokens, .. } => u(dim) * u(tokens) * d,
            _ => 0,
        },
        in_proj: blocks * tokens * d * 2 * d_inner,
        x_proj: both * d_inner * u(mixer.x_proj_width()),
        dt_proj: both * d_inner * u(mixer.dt_rank),
        out_proj: blocks * tokens * d_inner * d,
        skip_linear: if config.skip == SkipKind::Concat {
            u(config.half_depth()) * tokens * 2 * d * d
        } else {
            0
        },
        head: head(patches),
        head_all_tokens: head(tokens),
        ada_ln: modulations * 2 * d * d,
        conv: both * d_inner * u(mixer.d_conv),
        scan_state_update: both * d_inner * states,
        scan_readout: both * d_inner * states,
        scan_skip: both * d_inner,
        scan_delta_a: both * d_inner * states,
        scan_delta_u_b: both * d_inner * (states + 1),
    }
}

fn memory(config: &DisConfig, arena: usize, batch: usize) -> Memory {
    let mixer = config.mixer();
    let (d, d_inner) = (config.embed_dim, mixer.d_inner);
    let tokens = config.tokens();
    let rows = batch * tokens;
    let dbc = (mixer.dt_rank.next_multiple_of(16) + 2 * mixer.d_state).next_multiple_of(16);
    let checkpoints = checkpoint_len(batch, tokens, d_inner, mixer.d_state);

    let streams = rows * d;
    let branch = rows * (2 * d_inner + dbc);
    let normed = rows * (d + 2);
    // One block at work: norm, x and z, the gated sum, one direction.
    let block = normed + rows * 3 * d_inner + branch;
    let skips = if config.skip == SkipKind::None {
        0
    } else {
        config.half_depth()
    };
    let saved_block = normed + rows * 3 * d_inner + 2 * (branch + checkpoints);
    // Backward of one block: gradients of x and z, of u and the step, of (dt, B, C), of streams.
    let backward = rows * (4 * d_inner + dbc + 5 * d);
    let head = batch * config.patches() * (3 * d + 4);
    let bytes = |elements: usize| 4 * elements as u64;
    Memory {
        weights: bytes(arena),
        inference: bytes((skips + 4) * streams + block.max(head)),
        optimizer: bytes(4 * arena),
        training: bytes(config.blocks() * (2 * streams + saved_block) + backward + head),
        training_recompute: bytes(config.blocks() * 2 * streams + saved_block + backward + head),
    }
}
