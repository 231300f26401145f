//! The bidirectional Mamba mixer.
//!
//! `in_proj` gives x and the gate z. Each direction has its own causal convolution with SiLU,
//! `x_proj` to (dt, B, C), `dt_proj` to the step, A, D and scan over x. The two results are summed,
//! gated once by SiLU(z), and projected by `out_proj`. (The published code gates each direction by
//! the same z before the sum, which is the same value.)

use dis_scan::{
    ConvGrads, Direction, OneOfPair, ScanBackend, ScanOut, ScanPair, ScanPairGrads, checkpoint_len,
};
use dis_tensor::{Accum, Reals, Result, View, ViewMut};

use crate::branch::{Branch, Projected, StateParams};
pub use crate::config::{MixerConfig, MixerInit};
use crate::ctx::Ctx;
use crate::linear::Linear;
use crate::params::{Init, ParamTable};
use crate::token_buf::TokenBuf;

/// A mixer: which parameters of the arena it uses.
#[derive(Clone, Debug)]
pub struct Mixer {
    config: MixerConfig,
    in_proj: Linear,
    out_proj: Linear,
    branches: [Branch; 2],
}

/// Gradients that one direction's scan gives.
struct ScanGradients<B: ScanBackend> {
    du: TokenBuf<B>,
    ddelta: TokenBuf<B>,
    dbc: TokenBuf<B>,
    da: TokenBuf<B>,
}

impl<B: ScanBackend> ScanGradients<B> {
    fn new(backend: &B, config: &MixerConfig, saved: &Projected<B>) -> Self {
        let [batch, tokens, channels] = saved.u.view().shape();
        Self {
            du: TokenBuf::dense(backend, batch, tokens, channels),
            ddelta: TokenBuf::dense(backend, batch, tokens, channels),
            dbc: TokenBuf::new(backend, saved.dbc.layout),
            da: TokenBuf::dense(backend, 1, channels, config.d_state),
        }
    }

    fn parts(&mut self, config: &MixerConfig, branch: &Branch) -> OneOfPair<'_, Reals<B>> {
        OneOfPair {
            du: self.du.view_mut(),
            ddelta: self.ddelta.view_mut(),
            dbc: self.dbc.columns_mut(config.dt_rank, 2 * config.d_state),
            da: self.da.view_mut(),
            d: Some(branch.states.d.offset),
            delta_bias: Some(branch.dt_bias.offset),
        }
    }
}

/// What a mixer keeps for the backward.
#[derive(Debug)]
pub struct SavedMixer<B: ScanBackend> {
    xz: TokenBuf<B>,
    branches: [Projected<B>; 2],
    /// Of each direction's scan; empty where they were not asked for.
    checkpoints: [Reals<B>; 2],
    gated: TokenBuf<B>,
}

impl Mixer {
    /// Adds the parameters `{prefix}A_log`, ... in the published order. `out_scale` multiplies the
    /// initial `out_proj.weight` (published: 1 / sqrt(depth)).
    pub fn new(
        table: &mut ParamTable,
        prefix: &str,
        config: MixerConfig,
        init: MixerInit,
        out_scale: f64,
    ) -> Self {
        let MixerConfig {
            d_model,
            d_inner,
            bias,
            ..
        } = config;
        let forward = StateParams::new(table, prefix, &config, ["A_log", "D"]);
        let reverse = StateParams::new(table, prefix, &config, ["A_b_log", "D_b"]);
        let in_proj = Linear::new(
            table,
            &format!("{prefix}in_proj"),
            d_model,
            2 * d_inner,
            bias,
            Init::fan_in(d_model),
        );
        let mut branch = |direction, suffix, states, step_bias| {
            Branch::new(table, prefix, suffix, &config, direction, states, step_bias)
        };
        let forward = branch(Direction::Forward, "", forward, Init::StepBias);
        let reverse_bias = if init.repaired_reverse_step {
            Init::StepBias
        } else {
            Init::Zeros
        };
        let reverse = branch(Direction::Reverse, "_b", reverse, reverse_bias);
        let out_init = Init::Uniform {
            bound: out_scale / (d_inner as f64).sqrt(),
        };
        let out_proj = Linear::new(
            table,
            &format!("{prefix}out_proj"),
            d_inner,
            d_model,
            bias,
            out_init,
        );
        Self {
            config,
            in_proj,
            out_proj,
            branches: [forward, reverse],
        }
    }

    /// Its widths and options.
    pub fn config(&self) -> &MixerConfig {
        &self.config
    }

    /// Runs the mixer: `input` (batch, tokens, d_model) to `out` of the same shape, overwritten.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn forward<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: View<'_, B>,
        out: ViewMut<'_, B>,
    ) -> Result<()> {
        self.run(ctx, input, Some(out), false).map(|_| ())
    }

    /// As [`Mixer::forward`], keeping what [`Mixer::backward`] needs. Without `out` the last
    /// projection is left out: enough where the output is known and only the rest is recomputed.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn forward_saved<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: View<'_, B>,
        out: Option<ViewMut<'_, B>>,
    ) -> Result<SavedMixer<B>> {
        self.run(ctx, input, out, true)
    }

    /// The two branches before `out_proj`, each gated by SiLU(z): (batch, tokens, d_inner) each.
    /// For tests and for looking inside; `forward` never forms them separately.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn gated_branches<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: View<'_, B>,
    ) -> Result<[TokenBuf<B>; 2]> {
        let backend = ctx.backend;
        let [batch, tokens, _] = input.shape();
        let xz = self.project_in(ctx, input)?;
        let z = xz.columns(self.config.d_inner, self.config.d_inner);
        let gated = |branch: &Branch| -> Result<TokenBuf<B>> {
            let mut y = TokenBuf::dense(backend, batch, tokens, self.config.d_inner);
            self.run_branch(ctx, branch, &xz, z, y.view_mut())?;
            Ok(y)
        };
        Ok([gated(&self.branches[0])?, gated(&self.branches[1])?])
    }

    fn project_in<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: View<'_, B>,
    ) -> Result<TokenBuf<B>> {
        let backend = ctx.backend;
        let [batch, tokens, _] = input.shape();
        let mut xz = TokenBuf::dense(backend, batch, tokens, 2 * self.config.d_inner);
        self.in_proj.forward(ctx, input, xz.view_mut())?;
        Ok(xz)
    }

    fn run<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        input: View<'_, B>,
        out: Option<ViewMut<'_, B>>,
        save: bool,
    ) -> Result<SavedMixer<B>> {
        let Ctx { backend, params } = ctx;
        let [batch, tokens, _] = input.shape();
        let d_inner = self.config.d_inner;
        let xz = self.project_in(ctx, input)?;
        let (x, z) = (xz.columns(0, d_inner), xz.columns(d_inner, d_inner));
        let mut gated = TokenBuf::dense(backend, batch, tokens, d_inner);
        let [first, second] = &self.branches;
        let inside = || TokenBuf::dense(backend, batch, tokens, d_inner);
        let (mut u, mut u_back) = (inside(), inside());
        backend.conv1d_pair(
            first.conv::<B>(params, x),
            second.conv::<B>(params, x),
            u.view_mut(),
            u_back.view_mut(),
        )?;
        let forward = first.project(ctx, u)?;
        let reverse = second.project(ctx, u_back)?;
        let a = first.state_matrix(ctx)?;
        let a_back = second.state_matrix(ctx)?;
        let len = if save {
            checkpoint_len(batch, tokens, d_inner, self.config.d_state)
        } else {
            0
        };
        let mut checkpoints = [backend.alloc(len), backend.alloc(len)];
        let [stored, stored_back] = &mut checkpoints;
        // One gate for the sum of both, in one pass.
        backend.scan_pair(ScanPair {
            scans: [
                first.scan(params, &forward, &a, None),
                second.scan(params, &reverse, &a_back, None),
            ],
            z: Some(z),
            y: gated.view_mut(),
            checkpoints: save.then_some([stored, stored_back]),
        })?;
        if let Some(out) = out {
            self.out_proj.forward(ctx, gated.view(), out)?;
        }
        Ok(SavedMixer {
            xz,
            branches: [forward, reverse],
            checkpoints,
            gated,
        })
    }

    /// One direction alone, gated: for [`Mixer::gated_branches`].
    fn run_branch<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        branch: &Branch,
        xz: &TokenBuf<B>,
        z: View<'_, B>,
        y: ViewMut<'_, B>,
    ) -> Result<()> {
        let Ctx { backend, params } = ctx;
        let [batch, tokens, _] = xz.view().shape();
        let d_inner = self.config.d_inner;
        let mut u = TokenBuf::dense(backend, batch, tokens, d_inner);
        let x = xz.columns(0, d_inner);
        backend.conv1d(branch.conv::<B>(params, x), u.view_mut())?;
        let projected = branch.project(ctx, u)?;
        let a = branch.state_matrix(ctx)?;
        backend.scan(
            branch.scan(params, &projected, &a, Some(z)),
            ScanOut {
                y,
                accumulate: false,
                checkpoints: None,
                last_state: None,
            },
        )
    }

    /// Backward: from `dout` to `dinput` (overwritten); adds parameter gradients to `grads`.
    /// `input` and `params` are those of the forward.
    ///
    /// # Errors
    /// If the input's shape or the arena's length does not fit, or the device fails.
    pub fn backward<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        saved: SavedMixer<B>,
        input: View<'_, B>,
        dout: View<'_, B>,
        dinput: ViewMut<'_, B>,
        grads: &mut Reals<B>,
    ) -> Result<()> {
        let Ctx { backend, params } = ctx;
        let [batch, tokens, _] = input.shape();
        let d_inner = self.config.d_inner;
        let SavedMixer {
            xz,
            branches,
            checkpoints: [stored, stored_back],
            gated,
        } = saved;

        self.out_proj
            .backward_params(backend, gated.view(), dout, grads)?;
        let mut dgated = gated;
        self.out_proj
            .backward_input(ctx, dout, Accum::Replace, dgated.view_mut())?;

        let mut dxz = TokenBuf::dense(backend, batch, tokens, 2 * d_inner);
        let [first, second] = &self.branches;
        let [saved, saved_back] = &branches;
        let mut own = ScanGradients::new(backend, &self.config, saved);
        let mut own_back = ScanGradients::new(backend, &self.config, saved_back);
        let a = first.state_matrix(ctx)?;
        let a_back = second.state_matrix(ctx)?;
        backend.scan_backward_pair(
            [
                first.scan(params, saved, &a, None),
                second.scan(params, saved_back, &a_back, None),
            ],
            Some(xz.columns(d_inner, d_inner)),
            [&stored, &stored_back],
            dgated.view(),
            ScanPairGrads {
                each: [
                    own.parts(&self.config, first),
                    own_back.parts(&self.config, second),
                ],
                dz: Some(dxz.columns_mut(d_inner, d_inner)),
                arena: grads,
            },
        )?;
        for (branch, saved, own, a, accumulate) in [
            (first, saved, own, a, false),
            (second, saved_back, own_back, a_back, true),
        ] {
            self.backward_branch(
                ctx, branch, saved, own, &a, &xz, accumulate, &mut dxz, grads,
            )?;
        }
        self.in_proj
            .backward_params(backend, input, dxz.view(), grads)?;
        self.in_proj
            .backward_input(ctx, dxz.view(), Accum::Replace, dinput)
    }

    /// One direction's backward after its scan's.
    fn backward_branch<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        branch: &Branch,
        saved: &Projected<B>,
        own: ScanGradients<B>,
        a: &TokenBuf<B>,
        xz: &TokenBuf<B>,
        accumulate: bool,
        dxz: &mut TokenBuf<B>,
        grads: &mut Reals<B>,
    ) -> Result<()> {
        let Ctx { backend, params } = ctx;
        let MixerConfig {
            d_inner, dt_rank, ..
        } = self.config;
        let Projected { u, dbc, .. } = saved;
        let ScanGradients {
            mut du,
            ddelta,
            dbc: mut ddbc,
            da,
        } = own;
        backend.add_product(a.view(), da.view(), branch.states.a_log.view_mut(grads))?;
        // delta = dt dt_proj^T.
        let (ddelta, dt) = (ddelta.view(), dbc.columns(0, dt_rank));
        let dweight = branch.dt_proj.view_mut(grads);
        backend.gemm(ddelta.t(), dt, None, Accum::Add, dweight)?;
        let (weight, ddt) = (branch.dt_proj.view(params), ddbc.columns_mut(0, dt_rank));
        backend.gemm(ddelta, weight, None, Accum::Replace, ddt)?;
        // (dt, B, C) = u x_proj^T; u also enters the scan itself, hence the addition.
        branch
            .x_proj
            .backward_params(backend, u.view(), ddbc.view(), grads)?;
        branch
            .x_proj
            .backward_input(ctx, ddbc.view(), Accum::Add, du.view_mut())?;
        backend.conv1d_backward(
            branch.conv::<B>(params, xz.columns(0, d_inner)),
            du.view(),
            accumulate,
            dxz.columns_mut(0, d_inner),
            ConvGrads {
                arena: grads,
                weight: branch.conv_weight.offset,
                bias: branch.conv_bias.map(|b| b.offset),
            },
        )
    }
}
