//! One direction of a mixer: its parameters, and the operations between `in_proj` and the gate.

use dis_scan::{Conv, Direction, Scan, ScanBackend};
use dis_tensor::{Accum, Reals, Result, View};

use crate::config::MixerConfig;
use crate::ctx::Ctx;
use crate::linear::Linear;
use crate::params::{Init, Param, ParamTable};
use crate::token_buf::TokenBuf;

/// The parameters of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Branch {
    pub config: MixerConfig,
    pub direction: Direction,
    pub conv_weight: Param,
    pub conv_bias: Option<Param>,
    pub x_proj: Linear,
    pub dt_proj: Param,
    pub dt_bias: Param,
    pub states: StateParams,
}

/// A's logarithm and the skip D of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateParams {
    pub a_log: Param,
    pub d: Param,
}

impl StateParams {
    /// Adds the two under their names.
    pub fn new(
        table: &mut ParamTable,
        prefix: &str,
        config: &MixerConfig,
        [a_log, d]: [&str; 2],
    ) -> Self {
        let shape = [config.d_inner, config.d_state];
        Self {
            a_log: table.add(format!("{prefix}{a_log}"), &shape, Init::StateLog),
            d: table.add(format!("{prefix}{d}"), &[config.d_inner], Init::Ones),
        }
    }
}

/// What one direction scans.
#[derive(Debug)]
pub(crate) struct Projected<B: ScanBackend> {
    /// The convolved input.
    pub u: TokenBuf<B>,
    /// The step before its projection, B and C.
    pub dbc: TokenBuf<B>,
    pub delta: TokenBuf<B>,
}

impl Branch {
    /// Adds the parameters of a direction, whose names end in `suffix`, but for `states`.
    pub fn new(
        table: &mut ParamTable,
        prefix: &str,
        suffix: &str,
        config: &MixerConfig,
        direction: Direction,
        states: StateParams,
        step_bias: Init,
    ) -> Self {
        let MixerConfig {
            d_inner,
            d_conv,
            dt_rank,
            conv_bias,
            ..
        } = *config;
        let conv = format!("{prefix}conv1d{suffix}");
        let taps = [d_inner, 1, d_conv];
        let conv_weight = table.add(format!("{conv}.weight"), &taps, Init::fan_in(d_conv));
        let conv_bias =
            conv_bias.then(|| table.add(format!("{conv}.bias"), &[d_inner], Init::fan_in(d_conv)));
        let x_proj = Linear::new(
            table,
            &format!("{prefix}x_proj{suffix}"),
            d_inner,
            config.x_proj_width(),
            false,
            Init::fan_in(d_inner),
        );
        let dt = format!("{prefix}dt_proj{suffix}");
        let step = Init::fan_in(dt_rank);
        let dt_proj = table.add_weight(format!("{dt}.weight"), [d_inner, dt_rank], step);
        let dt_bias = table.add(format!("{dt}.bias"), &[d_inner], step_bias);
        Self {
            config: *config,
            direction,
            conv_weight,
            conv_bias,
            x_proj,
            dt_proj,
            dt_bias,
            states,
        }
    }

    /// The convolution of `x` (batch, tokens, d_inner).
    pub fn conv<'a, B: ScanBackend>(
        &self,
        params: &'a Reals<B>,
        x: View<'a, B>,
    ) -> Conv<'a, Reals<B>> {
        Conv {
            x,
            weight: self.conv_weight.view(params),
            bias: self.conv_bias.map(|b| b.view(params)),
            silu: true,
            direction: self.direction,
        }
    }

    /// The scan of what was projected, with the state matrix and a gate.
    pub fn scan<'a, B: ScanBackend>(
        &self,
        params: &'a Reals<B>,
        from: &'a Projected<B>,
        a: &'a TokenBuf<B>,
        z: Option<View<'a, B>>,
    ) -> Scan<'a, Reals<B>> {
        Scan {
            u: from.u.view(),
            delta: from.delta.view(),
            a: a.view(),
            bc: from
                .dbc
                .columns(self.config.dt_rank, 2 * self.config.d_state),
            d: Some(self.states.d.view(params)),
            z,
            delta_bias: Some(self.dt_bias.view(params)),
            initial_state: None,
            delta_softplus: true,
            discretization: self.config.discretization,
            direction: self.direction,
        }
    }

    /// The state matrix A, (d_inner, d_state).
    pub fn state_matrix<B: ScanBackend>(&self, ctx: Ctx<'_, B>) -> Result<TokenBuf<B>> {
        let Ctx { backend, params } = ctx;
        let mut a = TokenBuf::dense(backend, 1, self.config.d_inner, self.config.d_state);
        backend.neg_exp(self.states.a_log.view(params), a.view_mut())?;
        Ok(a)
    }

    /// From the convolved input to the step, B and C.
    pub fn project<B: ScanBackend>(&self, ctx: Ctx<'_, B>, u: TokenBuf<B>) -> Result<Projected<B>> {
        let Ctx { backend, params } = ctx;
        let MixerConfig {
            d_inner, dt_rank, ..
        } = self.config;
        let [batch, tokens, _] = u.view().shape();
        let mut dbc = TokenBuf::new(backend, self.config.x_proj_layout(batch, tokens));
        self.x_proj.forward(ctx, u.view(), dbc.view_mut())?;
        let mut delta = TokenBuf::dense(backend, batch, tokens, d_inner);
        // The step's bias is added inside the scan, before softplus.
        let (dt, weight) = (dbc.columns(0, dt_rank), self.dt_proj.view(params).t());
        backend.gemm(dt, weight, None, Accum::Replace, delta.view_mut())?;
        Ok(Projected { u, dbc, delta })
    }
}
