//! Self-attention of equal width, for comparison with the Mamba mixer: what a block of a U-ViT
//! (arXiv 2209.12152) does between its norms.
//!
//! Multi-head attention, `softmax(q k^T / sqrt(width)) v` for each head (arXiv 1706.03762, equation
//! 1), then a two-layer perceptron behind a norm of its own, each added to the residual stream. The
//! stream itself is the block's; so the mixer is given the sum, and puts out what is to be added:
//!
//! ```text
//! a = proj(attention(qkv(normed)))
//! out = a + mlp(norm(sum + a))
//! ```
//!
//! The perceptron's activation is SiLU (GELU there), which every device has.

use dis_tensor::{
    Accum, AddNorm, AddNormBackward, Backend, NormKind, Reals, Result, Tokens, View, ViewMut,
};

use crate::block::NormParams;
use crate::ctx::Ctx;
use crate::linear::Linear;
use crate::params::{Init, ParamTable};
use crate::token_buf::TokenBuf;

/// Widths and options of an attention mixer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionConfig {
    /// Channels in and out.
    pub d_model: usize,
    /// Heads; divides `d_model`.
    pub heads: usize,
    /// Channels inside the perceptron.
    pub d_mlp: usize,
    /// Whether the map to queries, keys and values has a bias.
    pub qkv_bias: bool,
    /// Norm in front of the perceptron.
    pub norm: NormKind,
}

impl AttentionConfig {
    /// Channels of a head.
    pub fn head_width(&self) -> usize {
        self.d_model / self.heads.max(1)
    }

    fn scale(&self) -> f64 {
        1.0 / (self.head_width() as f64).sqrt()
    }
}

/// An attention mixer: which parameters of the arena it uses.
#[derive(Clone, Debug)]
pub struct Attention {
    config: AttentionConfig,
    qkv: Linear,
    proj: Linear,
    norm: NormParams,
    mlp: [Linear; 2],
}

/// What an attention mixer keeps for the backward.
#[derive(Debug)]
pub struct SavedAttention<B: Backend> {
    qkv: TokenBuf<B>,
    /// (batch * heads, tokens, tokens).
    weights: TokenBuf<B>,
    context: TokenBuf<B>,
    /// The residual stream with the attention's output.
    sum: TokenBuf<B>,
    stats: TokenBuf<B>,
    normed: TokenBuf<B>,
    hidden: TokenBuf<B>,
}

impl Attention {
    /// Adds the parameters `{prefix}qkv.*`, `proj.*`, `norm.*`, `mlp.0.*` and `mlp.2.*`.
    /// `out_scale` multiplies the initial weights of the two maps that end a branch.
    pub fn new(
        table: &mut ParamTable,
        prefix: &str,
        config: AttentionConfig,
        out_scale: f64,
    ) -> Self {
        let AttentionConfig { d_model, d_mlp, .. } = config;
        let last = |inputs: usize| Init::Uniform {
            bound: out_scale / (inputs.max(1) as f64).sqrt(),
        };
        let mut linear = |name: &str, inputs, outputs, bias, init| {
            Linear::new(
                table,
                &format!("{prefix}{name}"),
                inputs,
                outputs,
                bias,
                init,
            )
        };
        let first = Init::fan_in(d_model);
        let qkv = linear("qkv", d_model, 3 * d_model, config.qkv_bias, first);
        let proj = linear("proj", d_model, d_model, true, last(d_model));
        let mlp = [
            linear("mlp.0", d_model, d_mlp, true, first),
            linear("mlp.2", d_mlp, d_model, true, last(d_mlp)),
        ];
        let norm = NormParams::affine(table, &format!("{prefix}norm"), config.norm, d_model);
        Self {
            config,
            qkv,
            proj,
            norm,
            mlp,
        }
    }

    /// Its widths and options.
    pub fn config(&self) -> &AttentionConfig {
        &self.config
    }

    /// Runs the mixer. `sum` is the residual stream and `normed` its norm, (batch, tokens, d_model);
    /// `out` of the same shape is overwritten with what is to be added to the stream. Without `out`
    /// the last map is left out. Returns what [`Attention::backward`] needs.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn forward<B: Backend>(
        &self,
        ctx: Ctx<'_, B>,
        sum: View<'_, B>,
        normed: View<'_, B>,
        out: Option<ViewMut<'_, B>>,
    ) -> Result<SavedAttention<B>> {
        let Ctx { backend, params } = ctx;
        let [batch, tokens, d] = normed.shape();
        let [inner, outer] = &self.mlp;
        let dense = |channels| TokenBuf::dense(backend, batch, tokens, channels);

        let mut qkv = dense(3 * d);
        self.qkv.forward(ctx, normed, qkv.view_mut())?;
        let (weights, context) = self.attend(backend, &qkv)?;
        let mut attended = dense(d);
        self.proj
            .forward(ctx, context.view(), attended.view_mut())?;

        let mut added = dense(d);
        let (mut stats, mut mlp_in) = (dense(2), dense(d));
        backend.add_norm(AddNorm {
            residual: Some(sum),
            hidden: attended.view(),
            hidden_scale: None,
            norm: self.norm.with::<B>(params, None),
            sum: Some(added.view_mut()),
            stats: Some(stats.view_mut()),
            out: mlp_in.view_mut(),
        })?;
        let mut hidden = dense(self.config.d_mlp);
        inner.forward(ctx, mlp_in.view(), hidden.view_mut())?;
        if let Some(mut out) = out {
            let mut active = dense(self.config.d_mlp);
            backend.silu(hidden.view(), active.view_mut())?;
            outer.forward(ctx, active.view(), out.reborrow())?;
            backend.axpy(1.0, attended.view(), out)?;
        }
        Ok(SavedAttention {
            qkv,
            weights,
            context,
            sum: added,
            stats,
            normed: mlp_in,
            hidden,
        })
    }

    /// The weights of every head, and the values weighted by them.
    fn attend<B: Backend>(
        &self,
        backend: &B,
        qkv: &TokenBuf<B>,
    ) -> Result<(TokenBuf<B>, TokenBuf<B>)> {
        let [batch, tokens, _] = qkv.view().shape();
        let AttentionConfig { d_model, heads, .. } = self.config;
        let mut scores = TokenBuf::dense(backend, batch * heads, tokens, tokens);
        for (i, [q, k, _]) in self.heads(qkv) {
            let out = ViewMut::<B>::new(&mut scores.buf, scores.layout.sample_range(i, 1));
            backend.gemm(q, k.t(), None, Accum::Replace, out)?;
        }
        let mut weights = TokenBuf::new(backend, scores.layout);
        backend.softmax(self.config.scale(), scores.view(), weights.view_mut())?;
        let mut context = TokenBuf::dense(backend, batch, tokens, d_model);
        for (i, [_, _, v]) in self.heads(qkv) {
            let own = sample(&weights, i);
            let layout = self.head_layout(context.layout, i, 0);
            let out = ViewMut::<B>::new(&mut context.buf, layout);
            backend.gemm(own, v, None, Accum::Replace, out)?;
        }
        Ok((weights, context))
    }

    /// Head `i % heads` of sample `i / heads`, in part `part` of the columns of a layout.
    fn head_layout(&self, layout: dis_tensor::Layout, i: usize, part: usize) -> dis_tensor::Layout {
        let AttentionConfig { d_model, heads, .. } = self.config;
        let width = self.config.head_width();
        layout
            .sample_range(i / heads, 1)
            .columns(part * d_model + (i % heads) * width, width)
    }

    /// Query, key and value of every head of every sample: each a matrix (tokens, head width).
    fn heads<'a, B: Backend>(
        &'a self,
        qkv: &'a TokenBuf<B>,
    ) -> impl Iterator<Item = (usize, [View<'a, B>; 3])> {
        (0..qkv.layout.batch * self.config.heads).map(move |i| {
            let part = |part| Tokens::new(&qkv.buf, self.head_layout(qkv.layout, i, part));
            (i, [part(0), part(1), part(2)])
        })
    }

    /// Backward: from `dout` to `dnormed` (overwritten) and to the residual stream, whose gradient
    /// is added to `dsum`; adds parameter gradients to `grads`. `normed` and `params` are those of
    /// the forward.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn backward<B: Backend>(
        &self,
        ctx: Ctx<'_, B>,
        saved: SavedAttention<B>,
        normed: View<'_, B>,
        dout: View<'_, B>,
        dsum: ViewMut<'_, B>,
        dnormed: ViewMut<'_, B>,
        grads: &mut Reals<B>,
    ) -> Result<()> {
        let backend = ctx.backend;
        let [batch, tokens, d] = normed.shape();
        let dense = |channels| TokenBuf::dense(backend, batch, tokens, channels);
        // `dout` reaches the attention's output directly and through the perceptron.
        let mut dattended = dense(d);
        backend.copy(dout, dattended.view_mut())?;
        let mut through = dense(d);
        self.backward_mlp(ctx, &saved, dout, &mut through, grads)?;
        backend.axpy(1.0, through.view(), dattended.view_mut())?;
        backend.axpy(1.0, through.view(), dsum)?;

        let SavedAttention {
            qkv,
            weights,
            context,
            ..
        } = saved;
        self.proj
            .backward_params(backend, context.view(), dattended.view(), grads)?;
        let mut dcontext = context;
        self.proj
            .backward_input(ctx, dattended.view(), Accum::Replace, dcontext.view_mut())?;
        let dqkv = self.backward_attend(backend, &qkv, &weights, &dcontext)?;
        self.qkv
            .backward_params(backend, normed, dqkv.view(), grads)?;
        self.qkv
            .backward_input(ctx, dqkv.view(), Accum::Replace, dnormed)
    }

    /// To `dsum`, the gradient of the stream that enters the perceptron's norm (overwritten).
    fn backward_mlp<B: Backend>(
        &self,
        ctx: Ctx<'_, B>,
        saved: &SavedAttention<B>,
        dout: View<'_, B>,
        dsum: &mut TokenBuf<B>,
        grads: &mut Reals<B>,
    ) -> Result<()> {
        let Ctx { backend, params } = ctx;
        let [inner, outer] = &self.mlp;
        let hidden = &saved.hidden;
        let mut active = TokenBuf::new(backend, hidden.layout);
        backend.silu(hidden.view(), active.view_mut())?;
        outer.backward_params(backend, active.view(), dout, grads)?;
        let mut dactive = active;
        outer.backward_input(ctx, dout, Accum::Replace, dactive.view_mut())?;
        let mut dhidden = TokenBuf::new(backend, hidden.layout);
        backend.silu_backward(hidden.view(), dactive.view(), dhidden.view_mut())?;
        inner.backward_params(backend, saved.normed.view(), dhidden.view(), grads)?;
        let mut dmlp_in = TokenBuf::new(backend, saved.normed.layout);
        inner.backward_input(ctx, dhidden.view(), Accum::Replace, dmlp_in.view_mut())?;
        backend.add_norm_backward(AddNormBackward {
            x: saved.sum.view(),
            stats: saved.stats.view(),
            norm: self.norm.with::<B>(params, None),
            dout: dmlp_in.view(),
            accum: Accum::Replace,
            dx: dsum.view_mut(),
            grads: Some(self.norm.grads(grads)),
            d_shift_scale: None,
        })
    }

    /// Gradient of queries, keys and values.
    fn backward_attend<B: Backend>(
        &self,
        backend: &B,
        qkv: &TokenBuf<B>,
        weights: &TokenBuf<B>,
        dcontext: &TokenBuf<B>,
    ) -> Result<TokenBuf<B>> {
        let mut dqkv = TokenBuf::new(backend, qkv.layout);
        let mut dweights = TokenBuf::new(backend, weights.layout);
        for (i, [_, _, v]) in self.heads(qkv) {
            let dout = Tokens::new(&dcontext.buf, self.head_layout(dcontext.layout, i, 0));
            let dv = ViewMut::<B>::new(&mut dqkv.buf, self.head_layout(qkv.layout, i, 2));
            backend.gemm(sample(weights, i).t(), dout, None, Accum::Replace, dv)?;
            let layout = dweights.layout.sample_range(i, 1);
            let dw = ViewMut::<B>::new(&mut dweights.buf, layout);
            backend.gemm(dout, v.t(), None, Accum::Replace, dw)?;
        }
        let mut dscores = TokenBuf::new(backend, weights.layout);
        backend.softmax_backward(
            self.config.scale(),
            weights.view(),
            dweights.view(),
            dscores.view_mut(),
        )?;
        for (i, [q, k, _]) in self.heads(qkv) {
            let ds = sample(&dscores, i);
            let dq = ViewMut::<B>::new(&mut dqkv.buf, self.head_layout(qkv.layout, i, 0));
            backend.gemm(ds, k, None, Accum::Replace, dq)?;
            let dk = ViewMut::<B>::new(&mut dqkv.buf, self.head_layout(qkv.layout, i, 1));
            backend.gemm(ds.t(), q, None, Accum::Replace, dk)?;
        }
        Ok(dqkv)
    }
}

/// Sample `i` of a buffer.
fn sample<B: Backend>(x: &TokenBuf<B>, i: usize) -> View<'_, B> {
    Tokens::new(&x.buf, x.layout.sample_range(i, 1))
}
