//! A block: long skip, residual add, normalisation (modulated or not), mixer.
//!
//! The residual stream is separate from the hidden stream. A block adds its incoming hidden value
//! to the residual, normalises the sum, and passes on only the mixer's output. In the second half
//! of the network the stored output of an earlier block joins the hidden value before that add.

use dis_scan::ScanBackend;
use dis_tensor::{
    Accum, AddNorm, AddNormBackward, Backend, Norm, NormGrads, NormKind, Reals, Result, Tokens,
    TokensMut, View, ViewMut,
};

use crate::ctx::Ctx;
use crate::linear::Linear;
use crate::mixer::MixerInit;
use crate::mixing::{Mixing, MixingConfig, SavedMixing};
use crate::params::{Init, Param, ParamTable};
use crate::token_buf::TokenBuf;

/// How the output of a shallow block joins a deep one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SkipKind {
    /// A linear map over [hidden, skip].
    #[default]
    Concat,
    /// hidden + skip.
    Add,
    /// Not at all.
    None,
}

/// A normalisation and the parameters it uses.
#[derive(Clone, Copy, Debug)]
pub struct NormParams {
    /// RMSNorm or LayerNorm.
    pub kind: NormKind,
    /// Added to the mean square or variance.
    pub eps: f64,
    /// (channels).
    pub weight: Option<Param>,
    /// (channels).
    pub bias: Option<Param>,
}

impl NormParams {
    /// Adds `{name}.weight`, and `{name}.bias` for a LayerNorm.
    pub fn affine(table: &mut ParamTable, name: &str, kind: NormKind, channels: usize) -> Self {
        let weight = table.add(format!("{name}.weight"), &[channels], Init::Ones);
        let bias = (kind == NormKind::Layer)
            .then(|| table.add(format!("{name}.bias"), &[channels], Init::Zeros));
        Self {
            kind,
            eps: 1e-5,
            weight: Some(weight),
            bias,
        }
    }

    /// A normalisation without parameters.
    pub fn plain(kind: NormKind, eps: f64) -> Self {
        Self {
            kind,
            eps,
            weight: None,
            bias: None,
        }
    }

    /// Its description for the backend.
    pub fn with<'a, B: Backend>(
        &self,
        params: &'a Reals<B>,
        shift_scale: Option<View<'a, B>>,
    ) -> Norm<'a, Reals<B>> {
        Norm {
            kind: self.kind,
            eps: self.eps,
            weight: self.weight.map(|p| p.view(params)),
            bias: self.bias.map(|p| p.view(params)),
            shift_scale,
        }
    }

    /// Where its gradients go.
    pub fn grads<'a, Bf>(&self, arena: &'a mut Bf) -> NormGrads<'a, Bf> {
        NormGrads {
            arena,
            weight: self.weight.map(|p| p.offset),
            bias: self.bias.map(|p| p.offset),
        }
    }
}

/// What a block is made of.
#[derive(Clone, Copy, Debug)]
pub struct BlockConfig {
    /// The mixer.
    pub mixer: MixingConfig,
    /// Kind of normalisation.
    pub norm: NormKind,
    /// How a skip joins, if this block takes one.
    pub skip: Option<SkipKind>,
    /// Whether the norm has no parameters of its own and is modulated by shift and scale regressed
    /// from the condition.
    pub ada_ln: bool,
    /// Multiplies the initial weights of the mixer's last map.
    pub out_scale: f64,
    /// Choices at initialisation.
    pub init: MixerInit,
}

/// A block: which parameters of the arena it uses.
#[derive(Clone, Debug)]
pub struct Block {
    mixer: Mixing,
    norm: NormParams,
    modulation: Option<Linear>,
    skip: Option<SkipKind>,
    skip_linear: Option<Linear>,
}

/// What enters a block.
#[derive(Debug)]
pub struct BlockInput<'a, B: ScanBackend> {
    /// The residual stream before this block; none for the first, whose hidden value it is.
    pub residual: Option<View<'a, B>>,
    /// Output of the previous block, (batch, tokens, d_model).
    pub hidden: View<'a, B>,
    /// Stored output of the block that skips to this one.
    pub skip: Option<View<'a, B>>,
    /// Factor of each sample's hidden value, (batch, 1, 1): 0 or 1 / keep under drop path.
    pub drop: Option<View<'a, B>>,
    /// SiLU of the condition, (batch, 1, d_model), where norms are modulated.
    pub condition: Option<View<'a, B>>,
}

impl<B: ScanBackend> Clone for BlockInput<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B: ScanBackend> Copy for BlockInput<'_, B> {}

/// What a block keeps for the backward, beside its inputs and its residual sum.
#[derive(Debug)]
pub struct SavedBlock<B: ScanBackend> {
    stats: TokenBuf<B>,
    normed: TokenBuf<B>,
    shift_scale: Option<TokenBuf<B>>,
    mixer: SavedMixing<B>,
}

/// Gradients that a block's backward writes.
#[derive(Debug)]
pub struct BlockGrads<'a, B: ScanBackend> {
    /// In: gradient of the residual sum from later blocks. Out: gradient of the residual before
    /// this block (for the first block: of its hidden value).
    pub residual: ViewMut<'a, B>,
    /// Gradient of the hidden value; none for the first block.
    pub hidden: Option<ViewMut<'a, B>>,
    /// Whether it replaces `hidden` or is added to it.
    pub accum_hidden: Accum,
    /// Gradient of the skip, overwritten.
    pub skip: Option<ViewMut<'a, B>>,
    /// Gradient of `condition`, added to.
    pub condition: Option<ViewMut<'a, B>>,
    /// The gradient arena, added to.
    pub params: &'a mut Reals<B>,
}

impl Block {
    /// Adds the parameters `{prefix}mixer.*`, `{prefix}norm.*`, `{prefix}skip_linear.*` or
    /// `{prefix}adaLN_modulation.1.*`.
    pub fn new(table: &mut ParamTable, prefix: &str, config: &BlockConfig) -> Self {
        let d = config.mixer.d_model();
        let mixer = Mixing::new(
            table,
            &format!("{prefix}mixer."),
            &config.mixer,
            config.init,
            config.out_scale,
        );
        let (norm, modulation) = if config.ada_ln {
            let name = format!("{prefix}adaLN_modulation.1");
            let modulation = Linear::new(table, &name, d, 2 * d, true, Init::Zeros);
            (NormParams::plain(config.norm, 1e-5), Some(modulation))
        } else {
            (
                NormParams::affine(table, &format!("{prefix}norm"), config.norm, d),
                None,
            )
        };
        let skip_linear = (config.skip == Some(SkipKind::Concat)).then(|| {
            let name = format!("{prefix}skip_linear");
            Linear::new(table, &name, 2 * d, d, true, Init::fan_in(2 * d))
        });
        Self {
            mixer,
            norm,
            modulation,
            skip: config.skip,
            skip_linear,
        }
    }

    /// The mixer inside.
    pub fn mixer(&self) -> &Mixing {
        &self.mixer
    }

    /// How a skip joins, if this block takes one.
    pub fn skip(&self) -> Option<SkipKind> {
        self.skip
    }

    /// Runs the block: writes the new residual to `sum` (not for the first block, whose hidden
    /// value it is) and the mixer's output to `out`.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn forward<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: BlockInput<'_, B>,
        sum: Option<ViewMut<'_, B>>,
        out: ViewMut<'_, B>,
    ) -> Result<()> {
        let backend = ctx.backend;
        let mut own = self.own_sum(backend, &input, &sum);
        let mut sum = sum.or_else(|| own.as_mut().map(TokenBuf::view_mut));
        let target = sum.as_mut().map(ViewMut::<B>::reborrow);
        let (_, normed, _) = self.normalise(ctx, input, target, false)?;
        let sum = sum.as_ref().map_or(input.hidden, ViewMut::<B>::as_ref);
        self.mixer.forward(ctx, sum, normed.view(), out)
    }

    /// As [`Block::forward`], keeping what [`Block::backward`] needs.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn forward_saved<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: BlockInput<'_, B>,
        sum: Option<ViewMut<'_, B>>,
        out: ViewMut<'_, B>,
    ) -> Result<SavedBlock<B>> {
        let backend = ctx.backend;
        let mut own = self.own_sum(backend, &input, &sum);
        let mut sum = sum.or_else(|| own.as_mut().map(TokenBuf::view_mut));
        let target = sum.as_mut().map(ViewMut::<B>::reborrow);
        let (stats, normed, shift_scale) = self.normalise(ctx, input, target, true)?;
        let sum = sum.as_ref().map_or(input.hidden, ViewMut::<B>::as_ref);
        let mixer = self
            .mixer
            .forward_saved(ctx, sum, normed.view(), Some(out))?;
        Ok(SavedBlock {
            stats,
            normed,
            shift_scale,
            mixer,
        })
    }

    /// Recomputes what [`Block::forward_saved`] keeps, from the residual sum.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn recompute<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        sum: View<'_, B>,
        condition: Option<View<'_, B>>,
    ) -> Result<SavedBlock<B>> {
        let input = BlockInput {
            residual: None,
            hidden: sum,
            skip: None,
            drop: None,
            condition,
        };
        let (stats, normed, shift_scale) = self.norm_of_sum(ctx, input, sum, None, true)?;
        let mixer = self.mixer.forward_saved(ctx, sum, normed.view(), None)?;
        Ok(SavedBlock {
            stats,
            normed,
            shift_scale,
            mixer,
        })
    }

    /// Memory for the residual sum where the caller wants none but the mixer reads it, and it is
    /// more than the hidden value.
    fn own_sum<B: ScanBackend>(
        &self,
        backend: &B,
        input: &BlockInput<'_, B>,
        sum: &Option<ViewMut<'_, B>>,
    ) -> Option<TokenBuf<B>> {
        let differs = input.residual.is_some() || input.drop.is_some() || input.skip.is_some();
        let [batch, tokens, d] = input.hidden.shape();
        (sum.is_none() && differs && self.mixer.reads_sum())
            .then(|| TokenBuf::dense(backend, batch, tokens, d))
    }

    #[allow(clippy::type_complexity)]
    fn normalise<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: BlockInput<'_, B>,
        sum: Option<ViewMut<'_, B>>,
        save: bool,
    ) -> Result<(TokenBuf<B>, TokenBuf<B>, Option<TokenBuf<B>>)> {
        let joined = self.join_skip(ctx, input)?;
        let hidden = joined.as_ref().map_or(input.hidden, TokenBuf::view);
        self.norm_of_sum(ctx, input, hidden, sum, save)
    }

    /// The hidden value after the skip has joined; none if there is no skip.
    fn join_skip<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: BlockInput<'_, B>,
    ) -> Result<Option<TokenBuf<B>>> {
        let Ctx { backend, params } = ctx;
        let (Some(kind), Some(skip)) = (self.skip, input.skip) else {
            return Ok(None);
        };
        let [batch, tokens, d] = input.hidden.shape();
        let mut joined = TokenBuf::dense(backend, batch, tokens, d);
        match (kind, &self.skip_linear) {
            (SkipKind::Concat, Some(linear)) => {
                // Two products into one result: the concatenation is never formed.
                let [left, right] = concat_halves::<B>(linear, params, d);
                let bias = linear.bias.map(|b| b.view(params));
                let hidden = input.hidden;
                backend.gemm(hidden, left.t(), bias, Accum::Replace, joined.view_mut())?;
                backend.gemm(skip, right.t(), None, Accum::Add, joined.view_mut())?;
            }
            (SkipKind::None, _) => return Ok(None),
            _ => {
                backend.copy(input.hidden, joined.view_mut())?;
                backend.axpy(1.0, skip, joined.view_mut())?;
            }
        }
        Ok(Some(joined))
    }

    #[allow(clippy::type_complexity)]
    fn norm_of_sum<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: BlockInput<'_, B>,
        hidden: View<'_, B>,
        sum: Option<ViewMut<'_, B>>,
        save: bool,
    ) -> Result<(TokenBuf<B>, TokenBuf<B>, Option<TokenBuf<B>>)> {
        let Ctx { backend, params } = ctx;
        let [batch, tokens, d] = hidden.shape();
        let shift_scale = match (&self.modulation, input.condition) {
            (Some(linear), Some(condition)) => {
                let mut shift_scale = TokenBuf::dense(backend, batch, 1, 2 * d);
                linear.forward(ctx, condition, shift_scale.view_mut())?;
                Some(shift_scale)
            }
            _ => None,
        };
        let mut stats = TokenBuf::dense(backend, batch, tokens, 2);
        let mut normed = TokenBuf::dense(backend, batch, tokens, d);
        backend.add_norm(AddNorm {
            residual: input.residual,
            hidden,
            hidden_scale: input.drop,
            norm: self
                .norm
                .with::<B>(params, shift_scale.as_ref().map(TokenBuf::view)),
            sum,
            stats: save.then(|| stats.view_mut()),
            out: normed.view_mut(),
        })?;
        Ok((stats, normed, shift_scale))
    }

    /// Backward. `input` and `sum` are those of the forward (for the first block `sum` is its
    /// hidden value), `dout` the gradient of its output.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn backward<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        saved: SavedBlock<B>,
        input: BlockInput<'_, B>,
        sum: View<'_, B>,
        dout: View<'_, B>,
        mut grads: BlockGrads<'_, B>,
    ) -> Result<()> {
        let Ctx { backend, params } = ctx;
        let SavedBlock {
            stats,
            normed,
            shift_scale,
            mixer,
        } = saved;
        let [batch, tokens, d] = sum.shape();
        let mut dnormed = TokenBuf::dense(backend, batch, tokens, d);
        self.mixer.backward(
            ctx,
            mixer,
            normed.view(),
            dout,
            grads.residual.reborrow(),
            dnormed.view_mut(),
            grads.params,
        )?;
        let mut d_shift_scale = shift_scale
            .as_ref()
            .map(|s| TokenBuf::new(backend, s.layout));
        backend.add_norm_backward(AddNormBackward {
            x: sum,
            stats: stats.view(),
            norm: self
                .norm
                .with::<B>(params, shift_scale.as_ref().map(TokenBuf::view)),
            dout: dnormed.view(),
            accum: Accum::Add,
            dx: grads.residual.reborrow(),
            grads: Some(self.norm.grads(grads.params)),
            d_shift_scale: d_shift_scale.as_mut().map(TokenBuf::view_mut),
        })?;
        if let (Some(linear), Some(condition), Some(d_shift_scale)) =
            (&self.modulation, input.condition, &d_shift_scale)
        {
            linear.backward_params(backend, condition, d_shift_scale.view(), grads.params)?;
            if let Some(d_condition) = grads.condition.take() {
                linear.backward_input(ctx, d_shift_scale.view(), Accum::Add, d_condition)?;
            }
        }
        let Some(dhidden) = grads.hidden.take() else {
            return Ok(());
        };
        // The same gradient flows to both addends; drop path scales the hidden one.
        let mut dropped = None;
        if let Some(drop) = input.drop {
            let scaled = dropped.insert(TokenBuf::dense(backend, batch, tokens, d));
            backend.scale_samples(drop, grads.residual.as_ref(), scaled.view_mut())?;
        }
        let djoined = dropped
            .as_ref()
            .map_or(grads.residual.as_ref(), TokenBuf::view);
        self.backward_skip(
            ctx,
            input,
            djoined,
            grads.accum_hidden,
            dhidden,
            grads.skip,
            grads.params,
        )
    }

    fn backward_skip<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: BlockInput<'_, B>,
        djoined: View<'_, B>,
        accum: Accum,
        dhidden: ViewMut<'_, B>,
        dskip: Option<ViewMut<'_, B>>,
        grads: &mut Reals<B>,
    ) -> Result<()> {
        let Ctx { backend, params } = ctx;
        let d = djoined.layout.channels;
        if let (Some(linear), Some(skip)) = (&self.skip_linear, input.skip) {
            let [left, right] = concat_halves::<B>(linear, params, d);
            backend.gemm(djoined, left, None, accum, dhidden)?;
            if let Some(dskip) = dskip {
                backend.gemm(djoined, right, None, Accum::Replace, dskip)?;
            }
            for (start, x) in [(0, input.hidden), (d, skip)] {
                let half = linear.weight.layout().columns(start, d);
                let dweight = TokensMut::new(&mut *grads, half);
                backend.gemm(djoined.t(), x, None, Accum::Add, dweight)?;
            }
            if let Some(bias) = linear.bias {
                backend.add_column_sums(djoined, bias.view_mut(grads))?;
            }
            return Ok(());
        }
        match accum {
            Accum::Add => backend.axpy(1.0, djoined, dhidden)?,
            Accum::Replace => backend.copy(djoined, dhidden)?,
        }
        match dskip {
            Some(dskip) => backend.copy(djoined, dskip),
            None => Ok(()),
        }
    }
}

/// The two halves of a skip map's weight: for the hidden value and for the skip.
fn concat_halves<'a, B: Backend>(
    linear: &Linear,
    params: &'a Reals<B>,
    d: usize,
) -> [View<'a, B>; 2] {
    [0, d].map(|start| Tokens::new(params, linear.weight.layout().columns(start, d)))
}
