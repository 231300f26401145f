//! The bidirectional Mamba mixer.
//!
//! `in_proj` gives x and the gate z. Each direction has its own causal convolution with SiLU,
//! `x_proj` to (dt, B, C), `dt_proj` to the step, A, D and scan over x. The two results are summed,
//! gated once by SiLU(z), and projected by `out_proj`. (The published code gates each direction by
//! the same z before the sum, which is the same value.)

use dis_scan::{
    Conv, ConvGrads, Direction, OneOfPair, Scan, ScanBackend, ScanOut, ScanPair, ScanPairGrads,
    checkpoint_len,
};
use dis_tensor::{Reals, Result, View, ViewMut};

pub use crate::config::{MixerConfig, MixerInit};
use crate::linear::{Linear, Scratch};
use crate::params::{Init, Param, ParamTable};

/// The parameters of one direction.
#[derive(Clone, Copy, Debug)]
struct Branch {
    direction: Direction,
    conv_weight: Param,
    conv_bias: Option<Param>,
    x_proj: Linear,
    dt_proj: Param,
    dt_bias: Param,
    a_log: Param,
    d: Param,
}

/// A mixer: which parameters of the arena it uses.
#[derive(Clone, Debug)]
pub struct Mixer {
    config: MixerConfig,
    in_proj: Linear,
    out_proj: Linear,
    branches: [Branch; 2],
}

/// What one direction keeps for the backward.
#[derive(Debug)]
struct SavedBranch<B: ScanBackend> {
    u: Scratch<B>,
    dbc: Scratch<B>,
    delta: Scratch<B>,
    checkpoints: Reals<B>,
}

/// Gradients that one direction's scan gives.
struct ScanGradients<B: ScanBackend> {
    du: Scratch<B>,
    ddelta: Scratch<B>,
    dbc: Scratch<B>,
    da: Scratch<B>,
}

impl<B: ScanBackend> ScanGradients<B> {
    fn new(backend: &B, config: &MixerConfig, saved: &SavedBranch<B>) -> Self {
        let [batch, tokens, channels] = saved.u.view().shape();
        Self {
            du: Scratch::dense(backend, batch, tokens, channels),
            ddelta: Scratch::dense(backend, batch, tokens, channels),
            dbc: Scratch::new(backend, saved.dbc.layout),
            da: Scratch::dense(backend, 1, channels, config.d_state),
        }
    }

    fn parts(&mut self, config: &MixerConfig, branch: &Branch) -> OneOfPair<'_, Reals<B>> {
        OneOfPair {
            du: self.du.view_mut(),
            ddelta: self.ddelta.view_mut(),
            dbc: self.dbc.columns_mut(config.dt_rank, 2 * config.d_state),
            da: self.da.view_mut(),
            d: Some(branch.d.offset),
            delta_bias: Some(branch.dt_bias.offset),
        }
    }
}

/// What a mixer keeps for the backward.
#[derive(Debug)]
pub struct SavedMixer<B: ScanBackend> {
    xz: Scratch<B>,
    branches: [SavedBranch<B>; 2],
    gated: Scratch<B>,
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
            d_state,
            d_conv,
            dt_rank,
            bias,
            conv_bias,
            ..
        } = config;
        let states = |table: &mut ParamTable, a: &str, d: &str| {
            (
                table.add(format!("{prefix}{a}"), &[d_inner, d_state], Init::StateLog),
                table.add(format!("{prefix}{d}"), &[d_inner], Init::Ones),
            )
        };
        let (a_log, d) = states(table, "A_log", "D");
        let (a_b_log, d_b) = states(table, "A_b_log", "D_b");
        let in_proj = Linear::new(
            table,
            &format!("{prefix}in_proj"),
            d_model,
            2 * d_inner,
            bias,
            Init::fan_in(d_model),
        );
        let branch = |table: &mut ParamTable, direction, suffix: &str, a_log, d, step_bias| {
            let conv = format!("{prefix}conv1d{suffix}");
            let conv_weight = table.add(
                format!("{conv}.weight"),
                &[d_inner, 1, d_conv],
                Init::fan_in(d_conv),
            );
            let conv_bias = conv_bias
                .then(|| table.add(format!("{conv}.bias"), &[d_inner], Init::fan_in(d_conv)));
            let x_proj = Linear::new(
                table,
                &format!("{prefix}x_proj{suffix}"),
                d_inner,
                config.x_proj_width(),
                false,
                Init::fan_in(d_inner),
            );
            let dt = format!("{prefix}dt_proj{suffix}");
            let dt_proj = table.add_weight(
                format!("{dt}.weight"),
                [d_inner, dt_rank],
                Init::fan_in(dt_rank),
            );
            let dt_bias = table.add(format!("{dt}.bias"), &[d_inner], step_bias);
            Branch {
                direction,
                conv_weight,
                conv_bias,
                x_proj,
                dt_proj,
                dt_bias,
                a_log,
                d,
            }
        };
        let forward = branch(table, Direction::Forward, "", a_log, d, Init::StepBias);
        let reverse_bias = if init.repaired_reverse_step {
            Init::StepBias
        } else {
            Init::Zeros
        };
        let reverse = branch(table, Direction::Reverse, "_b", a_b_log, d_b, reverse_bias);
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
    pub fn forward<B: ScanBackend>(
        &self,
        backend: &B,
        params: &Reals<B>,
        input: View<'_, B>,
        out: ViewMut<'_, B>,
    ) -> Result<()> {
        self.run(backend, params, input, Some(out), false)
            .map(|_| ())
    }

    /// As [`Mixer::forward`], keeping what [`Mixer::backward`] needs. Without `out` the last
    /// projection is left out: enough where the output is known and only the rest is recomputed.
    pub fn forward_saved<B: ScanBackend>(
        &self,
        backend: &B,
        params: &Reals<B>,
        input: View<'_, B>,
        out: Option<ViewMut<'_, B>>,
    ) -> Result<SavedMixer<B>> {
        let (xz, branches, gated) = self.run(backend, params, input, out, true)?;
        Ok(SavedMixer {
            xz,
            branches,
            gated,
        })
    }

    /// The two branches before `out_proj`, each gated by SiLU(z): (batch, tokens, d_inner) each.
    /// For tests and for looking inside; `forward` never forms them separately.
    pub fn gated_branches<B: ScanBackend>(
        &self,
        backend: &B,
        params: &Reals<B>,
        input: View<'_, B>,
    ) -> Result<[Scratch<B>; 2]> {
        let [batch, tokens, _] = input.shape();
        let xz = self.project_in(backend, params, input)?;
        let z = xz.columns(self.config.d_inner, self.config.d_inner);
        let gated = |branch: &Branch| -> Result<Scratch<B>> {
            let mut y = Scratch::dense(backend, batch, tokens, self.config.d_inner);
            self.run_branch(backend, params, branch, &xz, z, y.view_mut())?;
            Ok(y)
        };
        Ok([gated(&self.branches[0])?, gated(&self.branches[1])?])
    }

    fn project_in<B: ScanBackend>(
        &self,
        backend: &B,
        params: &Reals<B>,
        input: View<'_, B>,
    ) -> Result<Scratch<B>> {
        let [batch, tokens, _] = input.shape();
        let mut xz = Scratch::dense(backend, batch, tokens, 2 * self.config.d_inner);
        self.in_proj
            .forward(backend, params, input, xz.view_mut())?;
        Ok(xz)
    }

    #[allow(clippy::type_complexity)]
    fn run<B: ScanBackend>(
        &self,
        backend: &B,
        params: &Reals<B>,
        input: View<'_, B>,
        out: Option<ViewMut<'_, B>>,
        save: bool,
    ) -> Result<(Scratch<B>, [SavedBranch<B>; 2], Scratch<B>)> {
        let [batch, tokens, _] = input.shape();
        let d_inner = self.config.d_inner;
        let xz = self.project_in(backend, params, input)?;
        let z = xz.columns(d_inner, d_inner);
        let mut gated = Scratch::dense(backend, batch, tokens, d_inner);
        let [first, second] = &self.branches;
        let inside = || Scratch::dense(backend, batch, tokens, d_inner);
        let (mut u, mut u_back) = (inside(), inside());
        backend.conv1d_pair(
            self.conv::<B>(params, first, &xz),
            self.conv::<B>(params, second, &xz),
            u.view_mut(),
            u_back.view_mut(),
        )?;
        let mut forward = self.project_branch(backend, params, first, u, save)?;
        let mut reverse = self.project_branch(backend, params, second, u_back, save)?;
        let a = self.state_matrix(backend, params, first)?;
        let a_back = self.state_matrix(backend, params, second)?;
        // One gate for the sum of both, in one pass.
        backend.scan_pair(ScanPair {
            scans: [
                self.scan::<B>(
                    params,
                    first,
                    &forward.u,
                    &forward.delta,
                    &forward.dbc,
                    &a,
                    None,
                ),
                self.scan::<B>(
                    params,
                    second,
                    &reverse.u,
                    &reverse.delta,
                    &reverse.dbc,
                    &a_back,
                    None,
                ),
            ],
            z: Some(z),
            y: gated.view_mut(),
            checkpoints: save.then_some([&mut forward.checkpoints, &mut reverse.checkpoints]),
        })?;
        if let Some(out) = out {
            self.out_proj.forward(backend, params, gated.view(), out)?;
        }
        Ok((xz, [forward, reverse], gated))
    }

    fn conv<'a, B: ScanBackend>(
        &self,
        params: &'a Reals<B>,
        branch: &Branch,
        xz: &'a Scratch<B>,
    ) -> Conv<'a, Reals<B>> {
        Conv {
            x: xz.columns(0, self.config.d_inner),
            weight: branch.conv_weight.view(params),
            bias: branch.conv_bias.map(|b| b.view(params)),
            silu: true,
            direction: branch.direction,
        }
    }

    fn scan<'a, B: ScanBackend>(
        &self,
        params: &'a Reals<B>,
        branch: &Branch,
        u: &'a Scratch<B>,
        delta: &'a Scratch<B>,
        dbc: &'a Scratch<B>,
        a: &'a Scratch<B>,
        z: Option<View<'a, B>>,
    ) -> Scan<'a, Reals<B>> {
        Scan {
            u: u.view(),
            delta: delta.view(),
            a: a.view(),
            bc: dbc.columns(self.config.dt_rank, 2 * self.config.d_state),
            d: Some(branch.d.view(params)),
            z,
            delta_bias: Some(branch.dt_bias.view(params)),
            delta_softplus: true,
            discretization: self.config.discretization,
            direction: branch.direction,
        }
    }

    fn state_matrix<B: ScanBackend>(
        &self,
        backend: &B,
        params: &Reals<B>,
        branch: &Branch,
    ) -> Result<Scratch<B>> {
        let mut a = Scratch::dense(backend, 1, self.config.d_inner, self.config.d_state);
        backend.neg_exp(branch.a_log.view(params), a.view_mut())?;
        Ok(a)
    }

    /// What one direction scans: the convolved input `u`, the step, B and C.
    fn project_branch<B: ScanBackend>(
        &self,
        backend: &B,
        params: &Reals<B>,
        branch: &Branch,
        u: Scratch<B>,
        save: bool,
    ) -> Result<SavedBranch<B>> {
        let MixerConfig {
            d_inner,
            d_state,
            dt_rank,
            ..
        } = self.config;
        let [batch, tokens, _] = u.view().shape();
        let mut dbc = Scratch::new(backend, self.config.x_proj_layout(batch, tokens));
        branch
            .x_proj
            .forward(backend, params, u.view(), dbc.view_mut())?;
        let mut delta = Scratch::dense(backend, batch, tokens, d_inner);
        // The step's bias is added inside the scan, before softplus.
        backend.gemm(
            dbc.columns(0, dt_rank),
            false,
            branch.dt_proj.view(params),
            true,
            None,
            false,
            delta.view_mut(),
        )?;
        let len = if save {
            checkpoint_len(batch, tokens, d_inner, d_state)
        } else {
            0
        };
        Ok(SavedBranch {
            u,
            dbc,
            delta,
            checkpoints: backend.alloc(len),
        })
    }

    /// One direction alone, gated: for [`Mixer::gated_branches`].
    fn run_branch<B: ScanBackend>(
        &self,
        backend: &B,
        params: &Reals<B>,
        branch: &Branch,
        xz: &Scratch<B>,
        z: View<'_, B>,
        y: ViewMut<'_, B>,
    ) -> Result<()> {
        let [batch, tokens, _] = xz.view().shape();
        let mut u = Scratch::dense(backend, batch, tokens, self.config.d_inner);
        backend.conv1d(self.conv::<B>(params, branch, xz), u.view_mut())?;
        let SavedBranch { u, dbc, delta, .. } =
            self.project_branch(backend, params, branch, u, false)?;
        let a = self.state_matrix(backend, params, branch)?;
        backend.scan(
            self.scan::<B>(params, branch, &u, &delta, &dbc, &a, Some(z)),
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
    pub fn backward<B: ScanBackend>(
        &self,
        backend: &B,
        params: &Reals<B>,
        saved: SavedMixer<B>,
        input: View<'_, B>,
        dout: View<'_, B>,
        dinput: ViewMut<'_, B>,
        grads: &mut Reals<B>,
    ) -> Result<()> {
        let [batch, tokens, _] = input.shape();
        let d_inner = self.config.d_inner;
        let SavedMixer {
            xz,
            branches,
            gated,
        } = saved;

        self.out_proj
            .backward_params(backend, gated.view(), dout, grads)?;
        let mut dgated = gated;
        self.out_proj
            .backward_input(backend, params, dout, false, dgated.view_mut())?;

        let mut dxz = Scratch::dense(backend, batch, tokens, 2 * d_inner);
        let [first, second] = &self.branches;
        let [saved, saved_back] = &branches;
        let mut own = ScanGradients::new(backend, &self.config, saved);
        let mut own_back = ScanGradients::new(backend, &self.config, saved_back);
        let a = self.state_matrix(backend, params, first)?;
        let a_back = self.state_matrix(backend, params, second)?;
        backend.scan_backward_pair(
            [
                self.scan::<B>(params, first, &saved.u, &saved.delta, &saved.dbc, &a, None),
                self.scan::<B>(
                    params,
                    second,
                    &saved_back.u,
                    &saved_back.delta,
                    &saved_back.dbc,
                    &a_back,
                    None,
                ),
            ],
            Some(xz.columns(d_inner, d_inner)),
            [&saved.checkpoints, &saved_back.checkpoints],
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
                backend, params, branch, saved, own, &a, &xz, accumulate, &mut dxz, grads,
            )?;
        }
        self.in_proj
            .backward_params(backend, input, dxz.view(), grads)?;
        self.in_proj
            .backward_input(backend, params, dxz.view(), false, dinput)
    }

    /// One direction's backward after its scan's.
    fn backward_branch<B: ScanBackend>(
        &self,
        backend: &B,
        params: &Reals<B>,
        branch: &Branch,
        saved: &SavedBranch<B>,
        own: ScanGradients<B>,
        a: &Scratch<B>,
        xz: &Scratch<B>,
        accumulate: bool,
        dxz: &mut Scratch<B>,
        grads: &mut Reals<B>,
    ) -> Result<()> {
        let MixerConfig {
            d_inner, dt_rank, ..
        } = self.config;
        let SavedBranch { u, dbc, .. } = saved;
        let ScanGradients {
            mut du,
            ddelta,
            dbc: mut ddbc,
            da,
        } = own;
        backend.add_product(a.view(), da.view(), branch.a_log.view_mut(grads))?;
        // delta = dt dt_proj^T.
        backend.gemm(
            ddelta.view(),
            true,
            dbc.columns(0, dt_rank),
            false,
            None,
            true,
            branch.dt_proj.view_mut(grads),
        )?;
        backend.gemm(
            ddelta.view(),
            false,
            branch.dt_proj.view(params),
            false,
            None,
            false,
            ddbc.columns_mut(0, dt_rank),
        )?;
        // (dt, B, C) = u x_proj^T; u also enters the scan itself, hence the addition.
        branch
            .x_proj
            .backward_params(backend, u.view(), ddbc.view(), grads)?;
        branch
            .x_proj
            .backward_input(backend, params, ddbc.view(), true, du.view_mut())?;
        backend.conv1d_backward(
            self.conv::<B>(params, branch, xz),
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
