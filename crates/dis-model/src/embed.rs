//! From image, time and condition to tokens, and back for gradients.

use std::sync::Arc;

use crate::ModelBackend;
use dis_ssm::{Ctx, TokenBuf};
use dis_tensor::{Accum, Buffer, Layout, PatchOrder, Reals, Tokens, TokensMut};

use crate::config::{ConditionKind, Conditioning};
use crate::error::{ModelError, Result};
use crate::inputs::{ContextInputs, ModelInputs};
use crate::model::DisModel;

/// What the embedding keeps for the backward.
#[derive(Debug)]
pub(crate) struct SavedEmbedding<B: ModelBackend> {
    patches: TokenBuf<B>,
    inputs: Arc<ModelInputs<B>>,
    /// Before and after the SiLU of the time MLP.
    mlp: Option<[TokenBuf<B>; 2]>,
    /// Time + condition before SiLU, (batch, 1, D), where norms are modulated.
    condition: Option<TokenBuf<B>>,
    /// SiLU of it.
    pub(crate) condition_act: Option<TokenBuf<B>>,
}

impl DisModel {
    /// Tokens (batch, tokens, D), with positions.
    pub(crate) fn embed<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        image: &Reals<B>,
        inputs: Arc<ModelInputs<B>>,
    ) -> Result<(TokenBuf<B>, SavedEmbedding<B>)> {
        let Ctx { backend, params } = ctx;
        let config = &self.config;
        let (batch, d) = (inputs.batch(), config.embed_dim);
        let grid = self.grid(batch, config.channels, PatchOrder::ChannelFirst);
        if image.len() != grid.elements() {
            let [channels, height, width] = config.image_shape();
            return Err(ModelError::Input(format!(
                "an image batch of {} values does not hold {batch} images of \
                 {channels}x{height}x{width}",
                image.len()
            )));
        }
        let mut tokens = TokenBuf::dense(backend, batch, config.tokens(), d);

        let mut patches = TokenBuf::dense(backend, batch, grid.tokens(), grid.patch_len());
        backend.patchify(image, grid, patches.view_mut())?;
        let mut embedded = TokenBuf::dense(backend, batch, grid.tokens(), d);
        self.patch_embed
            .forward(ctx, patches.view(), embedded.view_mut())?;
        let extra = config.extra_tokens();
        backend.copy(embedded.view(), tokens.tokens_mut(extra, grid.tokens()))?;

        let (time, mlp) = self.embed_time(ctx, &inputs.sinusoid)?;
        let condition_tokens = self.embed_condition(ctx, &inputs)?;
        if config.conditioning == Conditioning::Tokens {
            if let Some(condition) = &condition_tokens {
                let count = condition.layout.tokens;
                backend.copy(condition.view(), tokens.tokens_mut(0, count))?;
            }
            backend.copy(time.view(), tokens.tokens_mut(extra - 1, 1))?;
        }
        let positions = Layout::dense(1, config.tokens(), d).at(self.pos_embed.offset);
        backend.add_to_samples(1.0, Tokens::new(params, positions), tokens.view_mut())?;

        let (mut condition, mut condition_act) = (None, None);
        if config.modulated_decoder() {
            let mut sum = time;
            if let Some(tokens) = &condition_tokens {
                let mean = 1.0 / tokens.layout.tokens as f64;
                backend.token_sums(mean, Accum::Add, tokens.view(), sum.view_mut())?;
            }
            let mut act = TokenBuf::dense(backend, batch, 1, d);
            backend.silu(sum.view(), act.view_mut())?;
            condition = Some(sum);
            condition_act = Some(act);
        }
        let saved = SavedEmbedding {
            patches,
            inputs,
            mlp,
            condition,
            condition_act,
        };
        Ok((tokens, saved))
    }

    #[allow(clippy::type_complexity)]
    fn embed_time<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        sinusoid: &TokenBuf<B>,
    ) -> Result<(TokenBuf<B>, Option<[TokenBuf<B>; 2]>)> {
        let backend = ctx.backend;
        let [batch, _, d] = sinusoid.view().shape();
        let mut time = TokenBuf::dense(backend, batch, 1, d);
        let Some([first, second]) = &self.time_mlp else {
            backend.copy(sinusoid.view(), time.view_mut())?;
            return Ok((time, None));
        };
        let mut before = TokenBuf::dense(backend, batch, 1, 4 * d);
        first.forward(ctx, sinusoid.view(), before.view_mut())?;
        let mut after = TokenBuf::dense(backend, batch, 1, 4 * d);
        backend.silu(before.view(), after.view_mut())?;
        second.forward(ctx, after.view(), time.view_mut())?;
        Ok((time, Some([before, after])))
    }

    /// Condition tokens (batch, n, D) before positions.
    fn embed_condition<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        inputs: &ModelInputs<B>,
    ) -> Result<Option<TokenBuf<B>>> {
        let Ctx { backend, params } = ctx;
        if let Some(ids) = &inputs.labels {
            let table = self.label_table.ok_or_else(missing_table)?;
            let mut out = TokenBuf::dense(backend, inputs.batch(), 1, self.config.embed_dim);
            backend.gather(table.view(params), ids, out.view_mut())?;
            return Ok(Some(out));
        }
        match &inputs.context {
            Some(context) => self.embed_context(ctx, context).map(Some),
            None => Ok(None),
        }
    }

    fn embed_context<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        context: &ContextInputs<B>,
    ) -> Result<TokenBuf<B>> {
        let Ctx { backend, params } = ctx;
        let [batch, tokens, _] = context.embeddings.view().shape();
        let d = self.config.embed_dim;
        let linear = self.context_embed.as_ref().ok_or_else(missing_table)?;
        let mut projected = TokenBuf::dense(backend, batch, tokens, d);
        linear.forward(ctx, context.embeddings.view(), projected.view_mut())?;
        let (Some(table), Some(masks)) = (self.null_context, &context.masks) else {
            return Ok(projected);
        };
        let mut nulls = TokenBuf::<B>::zeros(backend, batch, tokens, d);
        let table = Tokens::new(params, Layout::dense(1, tokens, d).at(table.offset));
        backend.add_to_samples(1.0, table, nulls.view_mut())?;
        let (mut kept, mut replaced) = (
            TokenBuf::new(backend, projected.layout),
            TokenBuf::new(backend, projected.layout),
        );
        backend.scale_samples(masks[0].view(), projected.view(), kept.view_mut())?;
        backend.scale_samples(masks[1].view(), nulls.view(), replaced.view_mut())?;
        backend.axpy(1.0, replaced.view(), kept.view_mut())?;
        Ok(kept)
    }

    /// Backward of the embedding. `dtokens` is the gradient of the tokens, `dact` that of SiLU of
    /// the condition. Overwrites `dimage` if given.
    pub(crate) fn embed_backward<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        saved: SavedEmbedding<B>,
        dtokens: &TokenBuf<B>,
        dact: Option<TokenBuf<B>>,
        grads: &mut Reals<B>,
        dimage: Option<&mut Reals<B>>,
    ) -> Result<()> {
        let backend = ctx.backend;
        let config = &self.config;
        let [batch, tokens, d] = dtokens.view().shape();
        let positions = Layout::dense(1, tokens, d).at(self.pos_embed.offset);
        backend.add_batch_sums(dtokens.view(), TokensMut::new(&mut *grads, positions))?;

        let (extra, patches) = (config.extra_tokens(), config.patches());
        let mut dembedded = TokenBuf::dense(backend, batch, patches, d);
        backend.copy(dtokens.tokens(extra, patches), dembedded.view_mut())?;
        self.patch_embed
            .backward_params(backend, saved.patches.view(), dembedded.view(), grads)?;
        if let Some(dimage) = dimage {
            let mut dpatches = TokenBuf::new(backend, saved.patches.layout);
            self.patch_embed.backward_input(
                ctx,
                dembedded.view(),
                Accum::Replace,
                dpatches.view_mut(),
            )?;
            let grid = self.grid(batch, config.channels, PatchOrder::ChannelFirst);
            backend.unpatchify(dpatches.view(), grid, dimage)?;
        }

        let mut dtime = TokenBuf::<B>::zeros(backend, batch, 1, d);
        let mut dsum = None;
        if let (Some(condition), Some(dact)) = (&saved.condition, &dact) {
            let dcondition = dsum.insert(TokenBuf::dense(backend, batch, 1, d));
            backend.silu_backward(condition.view(), dact.view(), dcondition.view_mut())?;
            backend.axpy(1.0, dcondition.view(), dtime.view_mut())?;
        }
        if config.conditioning == Conditioning::Tokens {
            backend.axpy(1.0, dtokens.tokens(extra - 1, 1), dtime.view_mut())?;
        }
        self.time_backward(ctx, &saved, &dtime, grads)?;
        self.condition_backward(backend, &saved, dtokens, dsum, grads)
    }

    fn time_backward<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        saved: &SavedEmbedding<B>,
        dtime: &TokenBuf<B>,
        grads: &mut Reals<B>,
    ) -> Result<()> {
        let backend = ctx.backend;
        let (Some([first, second]), Some([before, after])) = (&self.time_mlp, &saved.mlp) else {
            return Ok(());
        };
        second.backward_params(backend, after.view(), dtime.view(), grads)?;
        let mut dafter = TokenBuf::new(backend, after.layout);
        second.backward_input(ctx, dtime.view(), Accum::Replace, dafter.view_mut())?;
        let mut dbefore = TokenBuf::new(backend, before.layout);
        backend.silu_backward(before.view(), dafter.view(), dbefore.view_mut())?;
        first.backward_params(backend, saved.inputs.sinusoid.view(), dbefore.view(), grads)?;
        Ok(())
    }

    fn condition_backward<B: ModelBackend>(
        &self,
        backend: &B,
        saved: &SavedEmbedding<B>,
        dtokens: &TokenBuf<B>,
        dsum: Option<TokenBuf<B>>,
        grads: &mut Reals<B>,
    ) -> Result<()> {
        let [batch, _, d] = dtokens.view().shape();
        let count = match self.config.condition {
            ConditionKind::None => return Ok(()),
            ConditionKind::Classes { .. } => 1,
            ConditionKind::Context { tokens, .. } => tokens,
        };
        let mut dcondition = TokenBuf::<B>::zeros(backend, batch, count, d);
        if self.config.conditioning == Conditioning::Tokens {
            backend.copy(dtokens.tokens(0, count), dcondition.view_mut())?;
        }
        if let Some(dsum) = &dsum {
            backend.add_to_tokens(1.0 / count as f64, dsum.view(), dcondition.view_mut())?;
        }
        if let (Some(table), Some(ids)) = (self.label_table, &saved.inputs.labels) {
            backend.scatter_add(dcondition.view(), ids, table.view_mut(grads))?;
        }
        if let (Some(linear), Some(context)) = (&self.context_embed, &saved.inputs.context) {
            if let (Some(null), Some([kept, replaced])) = (self.null_context, &context.masks) {
                let mut masked = TokenBuf::new(backend, dcondition.layout);
                backend.scale_samples(replaced.view(), dcondition.view(), masked.view_mut())?;
                let table = Layout::dense(1, count, d).at(null.offset);
                backend.add_batch_sums(masked.view(), TokensMut::new(&mut *grads, table))?;
                backend.scale_samples(kept.view(), dcondition.view(), masked.view_mut())?;
                dcondition = masked;
            }
            linear.backward_params(backend, context.embeddings.view(), dcondition.view(), grads)?;
        }
        Ok(())
    }
}

fn missing_table() -> ModelError {
    ModelError::Config("the model has no table for its condition".into())
}
