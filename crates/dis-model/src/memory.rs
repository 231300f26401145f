//! Bytes that a configuration takes, counted buffer by buffer.
//!
//! Memory comes from a pool whose free blocks serve requests of the same size class only, so what is
//! held at the end is, for each class, the most that was in use at once.

use std::collections::BTreeMap;

use dis_scan::checkpoint_len;
use dis_ssm::{AttentionConfig, MixerConfig, MixingConfig, ParamTable, SkipKind};
use dis_tensor::pooled_bytes;

use crate::config::DisConfig;

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

/// Buffers in use, by class.
#[derive(Clone, Default)]
struct Held(BTreeMap<usize, usize>);

impl Held {
    fn add(&mut self, count: usize, elements: usize) {
        *self.0.entry(pooled_bytes(4 * elements)).or_default() += count;
    }

    fn all(&mut self, times: usize, buffers: &[(usize, usize)]) {
        for &(count, elements) in buffers {
            self.add(times * count, elements);
        }
    }

    /// One of each: scratch of calls that do not overlap.
    fn one_of(&mut self, sizes: &[usize]) {
        let mut scratch = Self::default();
        for &elements in sizes {
            scratch.0.insert(pooled_bytes(4 * elements), 1);
        }
        for (class, count) in scratch.0 {
            *self.0.entry(class).or_default() += count;
        }
    }

    fn bytes(&self) -> u64 {
        self.0
            .iter()
            .map(|(class, count)| (class * count) as u64)
            .sum()
    }
}

/// Buffers of a mixer as (count, elements), and sizes of packed right operands of its products.
struct Mixing {
    /// Beside the norm, in a forward pass.
    work: Vec<(usize, usize)>,
    /// Kept for the backward.
    saved: Vec<(usize, usize)>,
    /// Gradients.
    backward: Vec<(usize, usize)>,
    /// Packed columns of products in a training step.
    packed: Vec<usize>,
}

/// Elements of a packed right operand of so many columns.
fn packed(columns: usize, steps: usize) -> usize {
    columns.next_multiple_of(16) * steps
}

/// Both products of a linear map's backward, and that of its forward.
fn linear(rows: usize, inputs: usize, outputs: usize) -> [usize; 3] {
    [
        packed(outputs, inputs),
        packed(inputs, outputs),
        packed(inputs, rows),
    ]
}

fn state_space(mixer: &MixerConfig, batch: usize, tokens: usize) -> Mixing {
    let rows = batch * tokens;
    let (d, d_inner) = (mixer.d_model, mixer.d_inner);
    let dbc = (mixer.dt_rank.next_multiple_of(16) + 2 * mixer.d_state).next_multiple_of(16);
    let states = d_inner * mixer.d_state;
    // Of each direction: u, the step, (dt, B, C), A. Of both: x and z, the gated sum.
    let work = vec![
        (5, rows * d_inner),
        (2, rows * dbc),
        (2, states),
        (1, rows * 2 * d_inner),
    ];
    let checkpoints = checkpoint_len(batch, tokens, d_inner, mixer.d_state);
    let saved = vec![
        (5, rows * d_inner),
        (2, rows * dbc),
        (2, checkpoints),
        (1, rows * 2 * d_inner),
    ];
    let backward = vec![
        (4, rows * d_inner),
        (2, rows * dbc),
        (4, states),
        (1, rows * 2 * d_inner),
    ];
    let packed = [
        linear(rows, d, 2 * d_inner),
        linear(rows, d_inner, mixer.x_proj_width()),
        linear(rows, mixer.dt_rank, d_inner),
        linear(rows, d_inner, d),
    ]
    .concat();
    Mixing {
        work,
        saved,
        backward,
        packed,
    }
}

fn attention(mixer: &AttentionConfig, batch: usize, tokens: usize) -> Mixing {
    let (d, rows) = (mixer.d_model, batch * tokens);
    let weights = rows * mixer.heads * tokens;
    // Queries, keys and values; scores and weights; context, attended, sum and its norm; the
    // perceptron's inside before and after its activation.
    let work = vec![
        (1, 3 * rows * d),
        (2, weights),
        (4, rows * d),
        (2, rows * mixer.d_mlp),
    ];
    let saved = vec![
        (1, 3 * rows * d),
        (1, weights),
        (3, rows * d),
        (1, rows * mixer.d_mlp),
    ];
    let backward = vec![
        (1, 3 * rows * d),
        (2, weights),
        (3, rows * d),
        (2, rows * mixer.d_mlp),
    ];
    let packed = [
        linear(rows, d, 3 * d),
        linear(rows, d, d),
        linear(rows, d, mixer.d_mlp),
        linear(rows, mixer.d_mlp, d),
    ]
    .concat();
    Mixing {
        work,
        saved,
        backward,
        packed,
    }
}

/// Memory of a configuration with these parameters.
pub(crate) fn memory(config: &DisConfig, table: &ParamTable, batch: usize) -> Memory {
    let (tokens, d, blocks) = (config.tokens(), config.embed_dim, config.blocks());
    let rows = batch * tokens;
    let mixing = match config.mixing() {
        MixingConfig::Mamba(mixer) => state_space(&mixer, batch, tokens),
        MixingConfig::Attention(mixer) => attention(&mixer, batch, tokens),
    };
    let skips = match config.skip {
        SkipKind::None => 0,
        _ => config.half_depth(),
    };
    let (stream, stats) = (rows * d, rows * 2);
    let patches = batch * config.patches();
    let image = patches * config.patch_size * config.patch_size;
    let images = [
        (2, image * config.channels),
        (2, image * config.out_channels()),
    ];
    let head = [(3, patches * d), (2, patches * 2)];

    // The middle: all skips, residual and hidden before and after, norm.
    let mut inference = Held::default();
    inference.add(skips + 5, stream);
    inference.add(1, stats);
    inference.all(1, &mixing.work);
    inference.all(1, &head);
    inference.all(1, &images);
    // What fills no panel of packed columns lies beside the weights.
    for weight in table.products() {
        let left = (weight.rows() % 32).next_multiple_of(16);
        inference.add(1, left * weight.channels);
    }

    let training = |saved_blocks: usize| {
        let mut held = Held::default();
        // Residual and hidden of all blocks; gradients of streams and of pending skips.
        held.add(2 * blocks + skips + 4, stream);
        held.add(saved_blocks, stream);
        held.add(saved_blocks, stats);
        held.all(saved_blocks, &mixing.saved);
        held.all(1, &mixing.backward);
        held.all(1, &head);
        held.all(1, &images);
        // Clean images and their noise, for the loss.
        held.add(2, image * config.channels);
        let skip = [packed(d, d), packed(d, rows)];
        held.one_of(&[&mixing.packed[..], &skip].concat());
        held.bytes()
    };
    let arena = pooled_bytes(4 * table.len()) as u64;
    Memory {
        weights: arena,
        inference: inference.bytes(),
        optimizer: 4 * arena,
        training: training(blocks),
        training_recompute: training(1),
    }
}
