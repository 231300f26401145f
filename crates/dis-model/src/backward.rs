//! Backward pass of the model.

use crate::ModelBackend;
use dis_ssm::{BlockGrads, Ctx, TokenBuf};
use dis_tensor::{Accum, AddNormBackward, Buffer, Layout, PatchOrder, Reals};

use crate::error::{ModelError, Result};
use crate::model::{DisModel, SavedHead, SavedModel, stream};

impl DisModel {
    /// From the gradient of the output (batch, out_channels, height, width) to those of
    /// all parameters, which are added to `grads`, and of the image, which overwrites `dimage`.
    /// `params` must be those of the forward.
    ///
    /// # Errors
    /// A gradient or an input whose shape does not fit the model, a device that failed.
    pub fn backward<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        saved: SavedModel<B>,
        dout: &Reals<B>,
        grads: &mut Reals<B>,
        dimage: Option<&mut Reals<B>>,
    ) -> Result<()> {
        let backend = ctx.backend;
        let SavedModel {
            embedding,
            sums,
            outs,
            mut blocks,
            drops,
            head,
        } = saved;
        let n = self.blocks.len();
        let layout = stream(&sums[n - 1])?.layout;
        let [batch, _, d] = layout.shape();
        let condition = embedding.condition_act.as_ref();
        let mut dcondition = condition.map(|_| TokenBuf::zeros(backend, batch, 1, d));

        // Gradient of the residual sum, updated in place from block to block.
        let mut dresidual = TokenBuf::zeros(backend, batch, layout.tokens, d);
        self.decode_backward(
            ctx,
            head,
            dout,
            condition,
            dcondition.as_mut(),
            &mut dresidual,
            grads,
        )?;
        let mut dhidden = TokenBuf::new(backend, layout);
        match drops.get(n).and_then(Option::as_ref) {
            Some(drop) => {
                backend.scale_samples(drop.view(), dresidual.view(), dhidden.view_mut())?;
            }
            None => backend.copy(dresidual.view(), dhidden.view_mut())?,
        }

        // Gradients of outputs that were skipped to later blocks; the next block's joins them.
        let mut dskips: Vec<Option<TokenBuf<B>>> = (0..n).map(|_| None).collect();
        for i in (0..n).rev() {
            let sum = stream(&sums[i])?;
            let condition = condition.map(TokenBuf::view);
            let saved = match blocks[i].take() {
                Some(saved) => saved,
                None => self.blocks[i].recompute(ctx, sum.view(), condition)?,
            };
            let input = self.block_input(i, &sums, &outs, &drops, condition)?;
            let pending = if i > 0 { dskips[i - 1].take() } else { None };
            let accum_hidden = match pending {
                Some(_) => Accum::Add,
                None => Accum::Replace,
            };
            let mut target =
                (i > 0).then(|| pending.unwrap_or_else(|| TokenBuf::new(backend, layout)));
            let source = self.skip_source(i);
            let mut dskip = source.map(|_| TokenBuf::new(backend, layout));
            self.blocks[i].backward(
                ctx,
                saved,
                input,
                sum.view(),
                dhidden.view(),
                BlockGrads {
                    residual: dresidual.view_mut(),
                    hidden: target.as_mut().map(TokenBuf::view_mut),
                    accum_hidden,
                    skip: dskip.as_mut().map(TokenBuf::view_mut),
                    condition: dcondition.as_mut().map(TokenBuf::view_mut),
                    params: grads,
                },
            )?;
            if let Some(source) = source {
                dskips[source] = dskip;
            }
            if let Some(target) = target {
                dhidden = target;
            }
        }
        self.embed_backward(ctx, embedding, &dresidual, dcondition, grads, dimage)
    }

    fn decode_backward<B: ModelBackend>(
        &self,
        ctx: Ctx<'_, B>,
        saved: SavedHead<B>,
        dout: &Reals<B>,
        condition: Option<&TokenBuf<B>>,
        dcondition: Option<&mut TokenBuf<B>>,
        dresidual: &mut TokenBuf<B>,
        grads: &mut Reals<B>,
    ) -> Result<()> {
        let Ctx { backend, params } = ctx;
        let SavedHead {
            sum,
            sum_stats,
            normed,
            normed_stats,
            modulated,
            shift_scale,
        } = saved;
        let [batch, patches, d] = sum.view().shape();
        let grid = self.grid(batch, self.config.out_channels(), PatchOrder::ChannelLast);
        if dout.len() != grid.elements() {
            return Err(ModelError::Input(format!(
                "a gradient of {} values for an output of {}",
                dout.len(),
                grid.elements()
            )));
        }
        let mut dpixels = TokenBuf::dense(backend, batch, patches, grid.patch_len());
        backend.patchify(dout, grid, dpixels.view_mut())?;
        self.head
            .backward_params(backend, modulated.view(), dpixels.view(), grads)?;
        let mut dmodulated = modulated;
        self.head
            .backward_input(ctx, dpixels.view(), Accum::Replace, dmodulated.view_mut())?;

        let mut dshift_scale = shift_scale
            .as_ref()
            .map(|s| TokenBuf::new(backend, s.layout));
        let mut dnormed = TokenBuf::new(backend, normed.layout);
        backend.add_norm_backward(AddNormBackward {
            x: normed.view(),
            stats: normed_stats.view(),
            norm: self
                .head_norm
                .with::<B>(params, shift_scale.as_ref().map(TokenBuf::view)),
            dout: dmodulated.view(),
            accum: Accum::Replace,
            dx: dnormed.view_mut(),
            grads: None,
            d_shift_scale: dshift_scale.as_mut().map(TokenBuf::view_mut),
        })?;
        if let (Some(linear), Some(condition), Some(dshift_scale)) =
            (&self.head_modulation, condition, &dshift_scale)
        {
            linear.backward_params(backend, condition.view(), dshift_scale.view(), grads)?;
            if let Some(dcondition) = dcondition {
                linear.backward_input(
                    ctx,
                    dshift_scale.view(),
                    Accum::Add,
                    dcondition.view_mut(),
                )?;
            }
        }
        let start = self.config.extra_tokens();
        debug_assert_eq!(
            dresidual.layout,
            Layout::dense(batch, self.config.tokens(), d)
        );
        backend.add_norm_backward(AddNormBackward {
            x: sum.view(),
            stats: sum_stats.view(),
            norm: self.norm_f.with::<B>(params, None),
            dout: dnormed.view(),
            accum: Accum::Replace,
            dx: dresidual.tokens_mut(start, patches),
            grads: Some(self.norm_f.grads(grads)),
            d_shift_scale: None,
        })?;
        Ok(())
    }
}
