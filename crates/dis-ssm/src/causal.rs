//! The mixer of Mamba itself, which walks one way: token by token too, from a state that is kept.
//!
//! DiS has no use for it, since images are read both ways; it is for those who build on Mamba.

use dis_scan::{Direction, ScanBackend, ScanOut};
use dis_tensor::{Result, View, ViewMut};

use crate::branch::{Branch, StateParams};
use crate::config::MixerConfig;
use crate::ctx::Ctx;
use crate::linear::Linear;
use crate::params::{Init, ParamTable};
use crate::token_buf::TokenBuf;

/// A mixer of one direction: which parameters of the arena it uses. Forward only.
#[derive(Clone, Debug)]
pub struct CausalMixer {
    in_proj: Linear,
    out_proj: Linear,
    branch: Branch,
}

/// What a mixer knows of the tokens that went before.
#[derive(Debug)]
pub struct MixerState<B: ScanBackend> {
    /// The last inputs of the convolution, newest last: (batch, d_conv, d_inner).
    pub conv: TokenBuf<B>,
    /// The state of the scan: (batch, d_inner, d_state).
    pub ssm: TokenBuf<B>,
}

impl CausalMixer {
    /// Adds the parameters `{prefix}A_log`, ... under the published names. `out_scale` multiplies the
    /// initial `out_proj.weight`.
    pub fn new(table: &mut ParamTable, prefix: &str, config: MixerConfig, out_scale: f64) -> Self {
        let MixerConfig {
            d_model,
            d_inner,
            bias,
            ..
        } = config;
        let states = StateParams::new(table, prefix, &config, ["A_log", "D"]);
        let linear = |table: &mut ParamTable, name: &str, inputs, outputs, init| {
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
        let in_proj = linear(table, "in_proj", d_model, 2 * d_inner, first);
        let (forward, step) = (Direction::Forward, Init::StepBias);
        let branch = Branch::new(table, prefix, "", &config, forward, states, step);
        let last = Init::Uniform {
            bound: out_scale / (d_inner as f64).sqrt(),
        };
        let out_proj = linear(table, "out_proj", d_inner, d_model, last);
        Self {
            in_proj,
            out_proj,
            branch,
        }
    }

    /// Its widths and options.
    pub fn config(&self) -> &MixerConfig {
        &self.branch.config
    }

    /// The state before the first token: zeros.
    pub fn start<B: ScanBackend>(&self, backend: &B, batch: usize) -> MixerState<B> {
        let MixerConfig {
            d_inner,
            d_state,
            d_conv,
            ..
        } = *self.config();
        MixerState {
            conv: TokenBuf::zeros(backend, batch, d_conv, d_inner),
            ssm: TokenBuf::zeros(backend, batch, d_inner, d_state),
        }
    }

    /// Advances `state` by the tokens of `input` (batch, tokens, d_model), one or many, and writes their
    /// outputs to `out` of the same shape.
    ///
    /// # Errors
    /// If shapes do not fit, or the device's scan has no initial state, as GPUs have not.
    pub fn advance<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        state: &mut MixerState<B>,
        input: View<'_, B>,
        out: ViewMut<'_, B>,
    ) -> Result<()> {
        let Ctx { backend, params } = ctx;
        let [batch, tokens, _] = input.shape();
        let MixerConfig {
            d_inner,
            d_state,
            d_conv,
            ..
        } = *self.config();
        let mut xz = TokenBuf::dense(backend, batch, tokens, 2 * d_inner);
        self.in_proj.forward(ctx, input, xz.view_mut())?;

        // The inputs that went before stand in front of the new ones.
        let mut x = TokenBuf::dense(backend, batch, d_conv + tokens, d_inner);
        backend.copy(state.conv.view(), x.tokens_mut(0, d_conv))?;
        backend.copy(xz.columns(0, d_inner), x.tokens_mut(d_conv, tokens))?;
        let mut convolved = TokenBuf::new(backend, x.layout);
        backend.conv1d(
            self.branch.conv::<B>(params, x.view()),
            convolved.view_mut(),
        )?;
        let mut u = TokenBuf::dense(backend, batch, tokens, d_inner);
        backend.copy(convolved.tokens(d_conv, tokens), u.view_mut())?;

        let projected = self.branch.project(ctx, u)?;
        let a = self.branch.state_matrix(ctx)?;
        let z = Some(xz.columns(d_inner, d_inner));
        let mut scan = self.branch.scan(params, &projected, &a, z);
        scan.initial_state = Some(state.ssm.view());
        let mut y = TokenBuf::dense(backend, batch, tokens, d_inner);
        let mut last = TokenBuf::dense(backend, batch, d_inner, d_state);
        backend.scan(
            scan,
            ScanOut {
                y: y.view_mut(),
                accumulate: false,
                checkpoints: None,
                last_state: Some(last.view_mut()),
            },
        )?;
        self.out_proj.forward(ctx, y.view(), out)?;
        backend.copy(x.tokens(tokens, d_conv), state.conv.view_mut())?;
        state.ssm = last;
        Ok(())
    }
}
