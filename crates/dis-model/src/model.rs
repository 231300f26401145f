//! The model: which parameters of the arena each part uses, and its forward pass.
//!
//! Token order is condition, time, patches. Learned positions are added to all of them. `depth / 2`
//! blocks, a middle block and `depth / 2` blocks follow; the outputs of the first half join the
//! second half, last in first out. The decoder normalises twice (the blocks' norm, then a plain
//! LayerNorm, modulated where there is a condition) and maps each patch token to its pixels.

use std::sync::Arc;

use crate::ModelBackend;
use dis_ssm::{
    Block, BlockConfig, BlockInput, Ctx, Init, Linear, NormParams, Param, ParamTable, SavedBlock,
    SkipKind, TokenBuf,
};
use dis_tensor::{AddNorm, Layout, NormKind, PatchGrid, PatchOrder, Reals};

use crate::config::{ConditionKind, Conditioning, DisConfig};
use crate::embed::SavedEmbedding;
use crate::error::{ModelError, Result};
use crate::init::ModelInit;
use crate::inputs::ModelInputs;

/// Name of the table of labels: (classes, width), with a last row for the null label if there is one.
pub const LABEL_TABLE: &str = "label_emb.embedding_table.weight";

/// The condition of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Condition<'a> {
    /// None: for unconditional models.
    None,
    /// Class ids, one a sample; `num_classes` is the null label where the table has one.
    Classes(&'a [u32]),
    /// Embeddings (batch, tokens, dim), and per sample whether the learned null sequence replaces
    /// them.
    Context {
        /// (batch, tokens, dim).
        embeddings: &'a [f32],
        /// One a sample.
        null: &'a [bool],
    },
}

/// A batch to run through the model.
#[derive(Debug)]
pub struct ModelInput<'a, B: ModelBackend> {
    /// Noisy images (batch, channels, height, width), dense.
    pub image: &'a Reals<B>,
    /// Diffusion time of each sample, in steps of the original schedule; may be fractional.
    pub t: &'a [f64],
    /// Condition of each sample.
    pub condition: Condition<'a>,
    /// For training: factors of each sample (0, or 1 / keep) for each block and for the site before
    /// the last norm, in the order of [`DisConfig::drop_rates`]. An empty list drops nothing there.
    pub drop_path: Option<&'a [Vec<f32>]>,
}

/// Sees the number of a block, its output and its residual sum.
pub type Observe<'a, B> = &'a mut dyn FnMut(usize, &TokenBuf<B>, &TokenBuf<B>);

/// What a forward pass keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: sampling.
    #[default]
    Nothing,
    /// Only the streams between blocks; blocks are run again in the backward (activation
    /// checkpointing). Same results, bit for bit.
    Streams,
    /// Everything the backward needs.
    All,
}

/// A DiS model: an architecture over a parameter arena that the caller owns.
#[derive(Clone, Debug)]
pub struct DisModel {
    pub(crate) config: DisConfig,
    pub(crate) table: ParamTable,
    pub(crate) pos_embed: Param,
    pub(crate) patch_embed: Linear,
    pub(crate) time_mlp: Option<[Linear; 2]>,
    pub(crate) label_table: Option<Param>,
    pub(crate) context_embed: Option<Linear>,
    pub(crate) null_context: Option<Param>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) norm_f: NormParams,
    pub(crate) head_norm: NormParams,
    pub(crate) head: Linear,
    pub(crate) head_modulation: Option<Linear>,
}

/// What the decoder keeps.
#[derive(Debug)]
pub(crate) struct SavedHead<B: ModelBackend> {
    pub(crate) sum: TokenBuf<B>,
    pub(crate) sum_stats: TokenBuf<B>,
    pub(crate) normed: TokenBuf<B>,
    pub(crate) normed_stats: TokenBuf<B>,
    pub(crate) modulated: TokenBuf<B>,
    pub(crate) shift_scale: Option<TokenBuf<B>>,
}

/// What [`DisModel::forward_saved`] keeps for [`DisModel::backward`].
#[derive(Debug)]
pub struct SavedModel<B: ModelBackend> {
    pub(crate) embedding: SavedEmbedding<B>,
    /// Residual sums; the first block's is the token sequence itself.
    pub(crate) sums: Vec<Option<TokenBuf<B>>>,
    /// Outputs of the blocks.
    pub(crate) outs: Vec<Option<TokenBuf<B>>>,
    pub(crate) blocks: Vec<Option<SavedBlock<B>>>,
    pub(crate) drops: Vec<Option<TokenBuf<B>>>,
    pub(crate) head: SavedHead<B>,
}

impl DisModel {
    /// Lays out the parameters of this configuration, initialised as published.
    ///
    /// # Errors
    /// A configuration that cannot be built.
    pub fn new(config: DisConfig) -> Result<Self> {
        Self::with_init(config, &ModelInit::default())
    }

    /// As [`DisModel::new`], with choices at initialisation.
    ///
    /// # Errors
    /// A configuration that cannot be built.
    pub fn with_init(config: DisConfig, init: &ModelInit) -> Result<Self> {
        config.validate()?;
        let d = config.embed_dim;
        let p = config.patch_size;
        let mut table = ParamTable::new();
        let t = &mut table;

        let positions = match init.position_std {
            0.0 => Init::Zeros,
            std => Init::Normal { std },
        };
        let pos_embed = t.add("pos_embed", &[1, config.tokens(), d], positions);
        let fan_in = config.channels * p * p;
        let weight = t.add(
            "patch_embed.proj.weight",
            &[d, config.channels, p, p],
            Init::fan_in(fan_in),
        );
        let bias = t.add("patch_embed.proj.bias", &[d], Init::fan_in(fan_in));
        let patch_embed = Linear {
            weight,
            bias: Some(bias),
        };
        let time_mlp = config.mlp_time_embed.then(|| {
            [
                Linear::new(t, "time_embed.0", d, 4 * d, true, Init::fan_in(d)),
                Linear::new(t, "time_embed.2", 4 * d, d, true, Init::fan_in(4 * d)),
            ]
        });
        let (mut label_table, mut context_embed, mut null_context) = (None, None, None);
        match config.condition {
            ConditionKind::None => {}
            ConditionKind::Classes {
                num_classes,
                null_label,
            } => {
                let rows = num_classes + usize::from(null_label);
                let labels = Init::Normal {
                    std: init.label_std,
                };
                label_table = Some(t.add(LABEL_TABLE, &[rows, d], labels));
            }
            ConditionKind::Context {
                dim,
                tokens,
                null_context: null,
            } => {
                context_embed = Some(Linear::new(
                    t,
                    "context_embed",
                    dim,
                    d,
                    true,
                    Init::fan_in(dim),
                ));
                null_context = null
                    .then(|| t.add("null_context", &[1, tokens, d], Init::Normal { std: 0.02 }));
            }
        }

        let half = config.half_depth();
        let block = |t: &mut ParamTable, prefix: &str, skip| {
            let config = BlockConfig {
                mixer: config.mixing(),
                norm: config.norm,
                skip,
                ada_ln: config.conditioning == Conditioning::AdaLn,
                out_scale: 1.0 / (config.depth.max(1) as f64).sqrt(),
                init: init.mixer,
            };
            Block::new(t, prefix, &config)
        };
        let mut blocks = Vec::with_capacity(config.blocks());
        for i in 0..half {
            blocks.push(block(t, &format!("in_blocks.{i}."), None));
        }
        blocks.push(block(t, "mid_block.", None));
        let skip = (config.skip != SkipKind::None).then_some(config.skip);
        for i in 0..half {
            blocks.push(block(t, &format!("out_blocks.{i}."), skip));
        }

        let norm_f = NormParams::affine(t, "norm_f", config.norm, d);
        let outputs = p * p * config.out_channels();
        let decoder = if init.zero_decoder {
            Init::Zeros
        } else {
            Init::fan_in(d)
        };
        let head = Linear::new(t, "final_layer.linear", d, outputs, true, decoder);
        let head_modulation = config.modulated_decoder().then(|| {
            // Zero-initialised with AdaLN; the published token model draws it.
            let init = match config.conditioning {
                Conditioning::Tokens => Init::fan_in(d),
                Conditioning::AdaLn => Init::Zeros,
            };
            Linear::new(t, "final_layer.adaLN_modulation.1", d, 2 * d, true, init)
        });
        Ok(Self {
            config,
            pos_embed,
            patch_embed,
            time_mlp,
            label_table,
            context_embed,
            null_context,
            blocks,
            norm_f,
            head_norm: NormParams::plain(NormKind::Layer, 1e-6),
            head,
            head_modulation,
            table,
        })
    }

    /// Its configuration.
    pub fn config(&self) -> &DisConfig {
        &self.config
    }

    /// Names, shapes and places of its parameters.
    pub fn table(&self) -> &ParamTable {
        &self.table
    }

    /// The block that skips to block `i`, if any: last in, first out.
    pub(crate) fn skip_source(&self, i: usize) -> Option<usize> {
        let half = self.config.half_depth();
        (i > half && self.blocks[i].skip().is_some()).then(|| 2 * half - i)
    }

    pub(crate) fn grid(&self, batch: usize, channels: usize, order: PatchOrder) -> PatchGrid {
        PatchGrid {
            batch,
            channels,
            height: self.config.image_size.height,
            width: self.config.image_size.width,
            patch: self.config.patch_size,
            order,
        }
    }

    /// Predicts noise and covariance: (batch, out_channels, height, width), dense.
    ///
    /// # Errors
    /// What a block refuses: inputs that do not fit the model, a device that failed.
    pub fn forward<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: &ModelInput<'_, B>,
    ) -> Result<Reals<B>> {
        let (out, _) = self.run_input(ctx, input, Keep::Nothing, &mut |_, _, _| {})?;
        Ok(out)
    }

    /// As [`DisModel::forward`], showing each block's output and residual sum to `observe`.
    ///
    /// # Errors
    /// What a block refuses: inputs that do not fit the model, a device that failed.
    pub fn forward_observed<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: &ModelInput<'_, B>,
        observe: Observe<'_, B>,
    ) -> Result<Reals<B>> {
        let (out, _) = self.run_input(ctx, input, Keep::Nothing, observe)?;
        Ok(out)
    }

    /// As [`DisModel::forward`], keeping what [`DisModel::backward`] needs. `recompute` keeps only
    /// the streams between blocks and runs the blocks again in the backward.
    ///
    /// # Errors
    /// What a block refuses: inputs that do not fit the model, a device that failed.
    pub fn forward_saved<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: &ModelInput<'_, B>,
        recompute: bool,
    ) -> Result<(Reals<B>, SavedModel<B>)> {
        let keep = if recompute { Keep::Streams } else { Keep::All };
        self.run_input(ctx, input, keep, &mut |_, _, _| {})
    }

    /// As [`DisModel::forward`], with times and conditions that are on the device already: nothing
    /// comes from the host, so that a device can record it.
    ///
    /// # Errors
    /// What a block refuses: inputs that do not fit the model, a device that failed.
    pub fn forward_inputs<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        image: &Reals<B>,
        inputs: Arc<ModelInputs<B>>,
    ) -> Result<Reals<B>> {
        let backend = ctx.backend;
        let (keep, see) = (Keep::Nothing, &mut |_: usize, _: &_, _: &_| {});
        let drops = self.drop_factors(backend, None, inputs.batch())?;
        let (out, _) = self.run(ctx, image, inputs, drops, keep, see)?;
        Ok(out)
    }

    fn run_input<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: &ModelInput<'_, B>,
        keep: Keep,
        observe: Observe<'_, B>,
    ) -> Result<(Reals<B>, SavedModel<B>)> {
        let backend = ctx.backend;
        let inputs = Arc::new(self.inputs(backend, input.t, input.condition)?);
        let drops = self.drop_factors(backend, input.drop_path, input.t.len())?;
        self.run(ctx, input.image, inputs, drops, keep, observe)
    }

    fn run<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        image: &Reals<B>,
        inputs: Arc<ModelInputs<B>>,
        drops: Vec<Option<TokenBuf<B>>>,
        keep: Keep,
        observe: Observe<'_, B>,
    ) -> Result<(Reals<B>, SavedModel<B>)> {
        let backend = ctx.backend;
        let n = self.blocks.len();
        let (tokens, embedding) = self.embed(ctx, image, inputs)?;
        let layout = tokens.layout;
        let condition = embedding.condition_act.as_ref().map(TokenBuf::view);

        let mut sums: Vec<Option<TokenBuf<B>>> = (0..n).map(|_| None).collect();
        let mut outs: Vec<Option<TokenBuf<B>>> = (0..n).map(|_| None).collect();
        let mut blocks: Vec<Option<SavedBlock<B>>> = (0..n).map(|_| None).collect();
        sums[0] = Some(tokens);
        for i in 0..n {
            let mut out = TokenBuf::new(backend, layout);
            let mut sum = (i > 0).then(|| TokenBuf::new(backend, layout));
            let block = &self.blocks[i];
            let block_input = self.block_input(i, &sums, &outs, &drops, condition)?;
            let sum_view = sum.as_mut().map(TokenBuf::view_mut);
            if keep == Keep::All {
                let saved = block.forward_saved(ctx, block_input, sum_view, out.view_mut())?;
                blocks[i] = Some(saved);
            } else {
                block.forward(ctx, block_input, sum_view, out.view_mut())?;
            }
            if let Some(sum) = sum {
                sums[i] = Some(sum);
            }
            outs[i] = Some(out);
            if let (Some(out), Some(sum)) = (&outs[i], &sums[i]) {
                observe(i, out, sum);
            }
            if keep == Keep::Nothing && i > 0 {
                self.release(i, &mut sums, &mut outs);
            }
        }
        let (image, head) = self.decode(ctx, &embedding, &sums, &outs, &drops)?;
        Ok((
            image,
            SavedModel {
                embedding,
                sums,
                outs,
                blocks,
                drops,
                head,
            },
        ))
    }

    /// Gives back the streams that no later block reads.
    fn release<B: ModelBackend>(
        &self,
        i: usize,
        sums: &mut [Option<TokenBuf<B>>],
        outs: &mut [Option<TokenBuf<B>>],
    ) {
        sums[i - 1] = None;
        let half = self.config.half_depth();
        let skipped_to_later = i - 1 < half && self.config.skip != SkipKind::None;
        if !skipped_to_later {
            outs[i - 1] = None;
        }
        if let Some(source) = self.skip_source(i) {
            outs[source] = None;
        }
    }

    /// What block `i` reads.
    pub(crate) fn block_input<'a, B: ModelBackend>(
        &self,
        i: usize,
        sums: &'a [Option<TokenBuf<B>>],
        outs: &'a [Option<TokenBuf<B>>],
        drops: &'a [Option<TokenBuf<B>>],
        condition: Option<dis_tensor::View<'a, B>>,
    ) -> Result<BlockInput<'a, B>> {
        let drop = drops.get(i).and_then(Option::as_ref).map(TokenBuf::view);
        if i == 0 {
            let hidden = stream(&sums[0])?.view();
            return Ok(BlockInput {
                residual: None,
                hidden,
                skip: None,
                drop,
                condition,
            });
        }
        let skip = match self.skip_source(i) {
            Some(source) => Some(stream(&outs[source])?.view()),
            None => None,
        };
        Ok(BlockInput {
            residual: Some(stream(&sums[i - 1])?.view()),
            hidden: stream(&outs[i - 1])?.view(),
            skip,
            drop,
            condition,
        })
    }

    fn drop_factors<B: ModelBackend>(
        &self,
        backend: &B,
        factors: Option<&[Vec<f32>]>,
        batch: usize,
    ) -> Result<Vec<Option<TokenBuf<B>>>> {
        let sites = self.blocks.len() + 1;
        let Some(factors) = factors else {
            return Ok((0..sites).map(|_| None).collect());
        };
        if factors.len() != sites || factors.iter().any(|f| !f.is_empty() && f.len() != batch) {
            return Err(ModelError::Input(format!(
                "drop path needs {sites} lists, each empty or of {batch} factors"
            )));
        }
        if !factors[0].is_empty() {
            return Err(ModelError::Input("the first block never drops".into()));
        }
        let upload = |f: &Vec<f32>| {
            (!f.is_empty()).then(|| TokenBuf::from_f32(backend, Layout::dense(batch, 1, 1), f))
        };
        Ok(factors.iter().map(upload).collect())
    }

    /// From the last streams to the image. Only patch tokens are decoded: those of time and
    /// condition would be dropped.
    fn decode<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        embedding: &SavedEmbedding<B>,
        sums: &[Option<TokenBuf<B>>],
        outs: &[Option<TokenBuf<B>>],
        drops: &[Option<TokenBuf<B>>],
    ) -> Result<(Reals<B>, SavedHead<B>)> {
        let Ctx { backend, params } = ctx;
        let last = self.blocks.len() - 1;
        let (residual, hidden) = (stream(&sums[last])?, stream(&outs[last])?);
        let [batch, _, d] = residual.view().shape();
        let (start, patches) = (self.config.extra_tokens(), self.config.patches());
        let tokens = || TokenBuf::dense(backend, batch, patches, d);
        let stats = || TokenBuf::dense(backend, batch, patches, 2);

        let (mut sum, mut sum_stats, mut normed) = (tokens(), stats(), tokens());
        let drop = drops.get(last + 1).and_then(Option::as_ref);
        backend.add_norm(AddNorm {
            residual: Some(residual.tokens(start, patches)),
            hidden: hidden.tokens(start, patches),
            hidden_scale: drop.map(TokenBuf::view),
            norm: self.norm_f.with::<B>(params, None),
            sum: Some(sum.view_mut()),
            stats: Some(sum_stats.view_mut()),
            out: normed.view_mut(),
        })?;
        let shift_scale = match (&self.head_modulation, &embedding.condition_act) {
            (Some(linear), Some(condition)) => {
                let mut shift_scale = TokenBuf::dense(backend, batch, 1, 2 * d);
                linear.forward(ctx, condition.view(), shift_scale.view_mut())?;
                Some(shift_scale)
            }
            _ => None,
        };
        let (mut normed_stats, mut modulated) = (stats(), tokens());
        backend.add_norm(AddNorm {
            residual: None,
            hidden: normed.view(),
            hidden_scale: None,
            norm: self
                .head_norm
                .with::<B>(params, shift_scale.as_ref().map(TokenBuf::view)),
            sum: None,
            stats: Some(normed_stats.view_mut()),
            out: modulated.view_mut(),
        })?;
        let grid = self.grid(batch, self.config.out_channels(), PatchOrder::ChannelLast);
        let mut pixels = TokenBuf::dense(backend, batch, patches, grid.patch_len());
        self.head
            .forward(ctx, modulated.view(), pixels.view_mut())?;
        let mut image = backend.alloc(grid.elements());
        backend.unpatchify(pixels.view(), grid, &mut image)?;
        let saved = SavedHead {
            sum,
            sum_stats,
            normed,
            normed_stats,
            modulated,
            shift_scale,
        };
        Ok((image, saved))
    }
}

/// A stream that must still be there.
pub(crate) fn stream<B: ModelBackend>(slot: &Option<TokenBuf<B>>) -> Result<&TokenBuf<B>> {
    slot.as_ref()
        .ok_or_else(|| ModelError::Input("a stream between blocks was released early".into()))
}
