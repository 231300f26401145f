//! The bidirectional mixer.

use anyhow::{Context, Result, ensure};
use dis_scan::{Discretization, ScanBackend};
use dis_ssm::{Ctx, Mixer, MixerConfig, MixerInit, ParamTable, TokenBuf};
use dis_tensor::Layout;

use super::case::{Case, Rule, flag, whole};
use super::network::{buffer_values, expect_arena, own_weights, values};
use super::scan::transpose;

/// "mixer".
pub fn mixer<B: ScanBackend>(case: &Case, backend: &B) -> Result<()> {
    let json = case.key("config").context("has no \"config\"")?;
    let rule = Rule::OfLargest(case.tolerance(&["rtol"])?);
    let config = MixerConfig {
        d_model: whole(json, "d_model")?,
        d_inner: whole(json, "d_inner")?,
        d_state: whole(json, "d_state")?,
        d_conv: whole(json, "d_conv")?,
        dt_rank: whole(json, "dt_rank")?,
        bias: flag(json, "bias")?,
        conv_bias: flag(json, "conv_bias")?,
        discretization: Discretization::Mamba,
    };
    let (batch, tokens) = (whole(json, "B")?, whole(json, "L")?);
    let expand = whole(json, "expand")?;
    ensure!(
        config.d_inner == expand * config.d_model,
        "d_inner is not expand * d_model"
    );

    let mut table = ParamTable::new();
    let mixer = Mixer::new(&mut table, "", config, MixerInit::default(), 1.0);
    let params = backend.from_f32(&own_weights(case, "param.", &table)?);
    let layout = Layout::dense(batch, tokens, config.d_model);
    let stored = |name: &str| -> Result<TokenBuf<B>> {
        let data = case.tensor(name)?.f32();
        ensure!(
            data.len() == layout.elements(),
            "{name} has {} elements",
            data.len()
        );
        Ok(TokenBuf::from_f32(backend, layout, &data))
    };
    let (input, w) = (stored("input")?, stored("w")?);

    let branches = mixer.gated_branches(Ctx::new(backend, &params), input.view())?;
    for (name, branch) in ["mid_forward", "mid_backward_flipped_back"]
        .iter()
        .zip(&branches)
    {
        let ours = transpose(&values(backend, branch)?, batch, tokens, config.d_inner);
        case.expect(name, &ours, rule)?;
    }

    let mut out = TokenBuf::new(backend, layout);
    mixer.forward(Ctx::new(backend, &params), input.view(), out.view_mut())?;
    case.expect("out", &values(backend, &out)?, rule)?;

    let saved = mixer.forward_saved(
        Ctx::new(backend, &params),
        input.view(),
        Some(out.view_mut()),
    )?;
    let mut dinput = TokenBuf::new(backend, layout);
    let mut grads = backend.zeros(table.len());
    mixer.backward(
        Ctx::new(backend, &params),
        saved,
        input.view(),
        w.view(),
        dinput.view_mut(),
        &mut grads,
    )?;
    case.expect("grad_input", &values(backend, &dinput)?, rule)?;
    expect_arena(
        case,
        &table,
        "grad.",
        &buffer_values(backend, &grads)?,
        rule,
    )
}
