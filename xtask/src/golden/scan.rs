//! The two operations of a state space model, as a backend offers them.

use anyhow::{Context, Result, ensure};
use dis_scan::{
    Conv, ConvGrads, Direction, Discretization, Scan, ScanBackend, ScanGrads, ScanOut,
    checkpoint_len,
};
use dis_ssm::TokenBuf;
use dis_tensor::{Layout, Tokens, TokensMut};

use super::case::{Case, Rule, flag, string, whole};
use super::network::{buffer_values, values};

/// (batch, channels, tokens), as stored, to and from (batch, tokens, channels).
pub fn transpose<T: Copy>(data: &[T], batch: usize, rows: usize, columns: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(data.len());
    for b in 0..batch {
        for column in 0..columns {
            out.extend((0..rows).map(|row| data[(b * rows + row) * columns + column]));
        }
    }
    out
}

/// Sizes of a scan.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    channels: usize,
    tokens: usize,
    states: usize,
}

impl Sizes {
    fn activations(&self) -> Layout {
        Layout::dense(self.batch, self.tokens, self.channels)
    }
}

/// The inputs of a scan on a backend.
struct Inputs<B: ScanBackend> {
    u: TokenBuf<B>,
    delta: TokenBuf<B>,
    a: TokenBuf<B>,
    bc: TokenBuf<B>,
    d: Option<TokenBuf<B>>,
    z: Option<TokenBuf<B>>,
    delta_bias: Option<TokenBuf<B>>,
    dout: TokenBuf<B>,
    delta_softplus: bool,
}

/// "selective_scan".
pub fn selective_scan<B: ScanBackend>(case: &Case, backend: &B) -> Result<()> {
    let config = case.key("config").context("has no \"config\"")?;
    let sizes = Sizes {
        batch: whole(config, "B")?,
        channels: whole(config, "D")?,
        tokens: whole(config, "L")?,
        states: whole(config, "N")?,
    };
    let rule = Rule::OfLargest(case.tolerance(&["rtol"])?);
    let activation = |name: &str| -> Result<TokenBuf<B>> {
        let stored = case.tensor(name)?.f32();
        ensure!(
            stored.len() == sizes.activations().elements(),
            "{name} has another size"
        );
        let data = transpose(&stored, sizes.batch, sizes.channels, sizes.tokens);
        Ok(TokenBuf::from_f32(backend, sizes.activations(), &data))
    };
    let vector = |name: &str| -> Result<TokenBuf<B>> {
        let layout = Layout::vector(sizes.channels);
        Ok(TokenBuf::from_f32(
            backend,
            layout,
            &case.tensor(name)?.f32(),
        ))
    };
    let inputs = Inputs {
        u: activation("u")?,
        delta: activation("delta")?,
        a: TokenBuf::from_f32(
            backend,
            Layout::matrix(sizes.channels, sizes.states),
            &case.tensor("A")?.f32(),
        ),
        bc: joined_bc(case, backend, sizes)?,
        d: flag(config, "D_skip")?.then(|| vector("D")).transpose()?,
        z: flag(config, "z")?.then(|| activation("z")).transpose()?,
        delta_bias: flag(config, "delta_bias")?
            .then(|| vector("delta_bias"))
            .transpose()?,
        dout: activation("dout")?,
        delta_softplus: flag(config, "delta_softplus")?,
    };
    for (direction, prefix) in [(Direction::Forward, ""), (Direction::Reverse, "rev_")] {
        run_scan(case, backend, sizes, &inputs, direction, prefix, rule)?;
    }
    Ok(())
}

/// B and C, (batch, states, tokens) each, as columns of one matrix.
fn joined_bc<B: ScanBackend>(case: &Case, backend: &B, sizes: Sizes) -> Result<TokenBuf<B>> {
    let Sizes {
        batch,
        tokens,
        states,
        ..
    } = sizes;
    let (b, c) = (case.tensor("B")?.f32(), case.tensor("C")?.f32());
    let mut joined = Vec::with_capacity(b.len() + c.len());
    let (b, c) = (
        transpose(&b, batch, states, tokens),
        transpose(&c, batch, states, tokens),
    );
    for (b, c) in b.chunks_exact(states).zip(c.chunks_exact(states)) {
        joined.extend_from_slice(b);
        joined.extend_from_slice(c);
    }
    Ok(TokenBuf::from_f32(
        backend,
        Layout::dense(batch, tokens, 2 * states),
        &joined,
    ))
}

fn run_scan<B: ScanBackend>(
    case: &Case,
    backend: &B,
    sizes: Sizes,
    inputs: &Inputs<B>,
    direction: Direction,
    prefix: &str,
    rule: Rule,
) -> Result<()> {
    let Sizes {
        batch,
        channels,
        tokens,
        states,
    } = sizes;
    let scan = Scan {
        u: inputs.u.view(),
        delta: inputs.delta.view(),
        a: inputs.a.view(),
        bc: inputs.bc.view(),
        d: inputs.d.as_ref().map(TokenBuf::view),
        z: inputs.z.as_ref().map(TokenBuf::view),
        delta_bias: inputs.delta_bias.as_ref().map(TokenBuf::view),
        initial_state: None,
        delta_softplus: inputs.delta_softplus,
        discretization: Discretization::Mamba,
        direction,
    };
    let activations = sizes.activations();
    let mut y = TokenBuf::new(backend, activations);
    let mut last_state = TokenBuf::dense(backend, batch, channels, states);
    let mut checkpoints = backend.alloc(checkpoint_len(batch, tokens, channels, states));
    backend.scan(
        scan,
        ScanOut {
            y: y.view_mut(),
            accumulate: false,
            checkpoints: Some(&mut checkpoints),
            last_state: Some(last_state.view_mut()),
        },
    )?;
    let by_channel = |x: &TokenBuf<B>| -> Result<Vec<f64>> {
        Ok(transpose(&values(backend, x)?, batch, tokens, channels))
    };
    case.expect(&format!("{prefix}out"), &by_channel(&y)?, rule)?;
    case.expect(
        &format!("{prefix}last_state"),
        &values(backend, &last_state)?,
        rule,
    )?;

    // Gradients are not stored for every direction and length.
    if case.names(&format!("{prefix}grad_")).is_empty() {
        return Ok(());
    }
    let mut du = TokenBuf::new(backend, activations);
    let mut ddelta = TokenBuf::new(backend, activations);
    let mut dbc = TokenBuf::dense(backend, batch, tokens, 2 * states);
    let mut dz = inputs
        .z
        .as_ref()
        .map(|_| TokenBuf::new(backend, activations));
    let mut da = TokenBuf::dense(backend, 1, channels, states);
    let mut arena = backend.zeros(2 * channels);
    backend.scan_backward(
        scan,
        &checkpoints,
        inputs.dout.view(),
        ScanGrads {
            du: du.view_mut(),
            ddelta: ddelta.view_mut(),
            dbc: dbc.view_mut(),
            dz: dz.as_mut().map(TokenBuf::view_mut),
            accumulate_dz: false,
            da: da.view_mut(),
            arena: &mut arena,
            d: inputs.d.as_ref().map(|_| 0),
            delta_bias: inputs.delta_bias.as_ref().map(|_| channels),
            dlast_state: None,
            dinitial_state: None,
        },
    )?;
    let grad = |name: &str, ours: &[f64]| case.expect(&format!("{prefix}grad_{name}"), ours, rule);
    grad("u", &by_channel(&du)?)?;
    grad("delta", &by_channel(&ddelta)?)?;
    grad("A", &values(backend, &da)?)?;
    let dbc = values(backend, &dbc)?;
    let half = |start: usize| -> Vec<f64> {
        let rows = dbc.chunks_exact(2 * states);
        let half: Vec<f64> = rows
            .flat_map(|row| &row[start..start + states])
            .copied()
            .collect();
        transpose(&half, batch, tokens, states)
    };
    grad("B", &half(0))?;
    grad("C", &half(states))?;
    if let Some(dz) = &dz {
        grad("z", &by_channel(dz)?)?;
    }
    let arena = buffer_values(backend, &arena)?;
    if inputs.d.is_some() {
        grad("D", &arena[..channels])?;
    }
    if inputs.delta_bias.is_some() {
        grad("delta_bias", &arena[channels..])?;
    }
    Ok(())
}

/// "causal_conv1d".
pub fn causal_conv1d<B: ScanBackend>(case: &Case, backend: &B) -> Result<()> {
    let rule = Rule::OfLargest(case.tolerance(&["rtol"])?);
    for entry in case.list("cases")? {
        let label = string(entry, "case")?;
        let (batch, channels) = (whole(entry, "B")?, whole(entry, "D")?);
        let (tokens, width) = (whole(entry, "L")?, whole(entry, "width")?);
        let (has_bias, silu) = (flag(entry, "bias")?, flag(entry, "silu")?);
        let name = |part: &str| format!("{label}.{part}");
        let layout = Layout::dense(batch, tokens, channels);
        let stored = |part: &str| -> Result<Vec<f32>> { Ok(case.tensor(&name(part))?.f32()) };
        let activation = |part: &str| -> Result<TokenBuf<B>> {
            let data = transpose(&stored(part)?, batch, channels, tokens);
            Ok(TokenBuf::from_f32(backend, layout, &data))
        };
        let (x, dout) = (activation("x")?, activation("dout")?);
        let weight = backend.from_f32(&stored("weight")?);
        let bias = has_bias.then(|| stored("bias")).transpose()?;
        let bias = bias.map(|b| backend.from_f32(&b));
        let conv = Conv {
            x: x.view(),
            weight: Tokens::new(&weight, Layout::matrix(channels, width)),
            bias: bias
                .as_ref()
                .map(|b| Tokens::new(b, Layout::vector(channels))),
            silu,
            direction: Direction::Forward,
        };
        let by_channel = |x: &TokenBuf<B>| -> Result<Vec<f64>> {
            Ok(transpose(&values(backend, x)?, batch, tokens, channels))
        };
        let mut out = TokenBuf::new(backend, layout);
        backend.conv1d(conv, out.view_mut())?;
        case.expect(&name("out"), &by_channel(&out)?, rule)?;

        let mut dx = TokenBuf::new(backend, layout);
        let weights = channels * width;
        let mut arena = backend.zeros(weights + channels);
        let target = TokensMut::new(&mut dx.buf, dx.layout);
        backend.conv1d_backward(
            conv,
            dout.view(),
            false,
            target,
            ConvGrads {
                arena: &mut arena,
                weight: 0,
                bias: has_bias.then_some(weights),
            },
        )?;
        case.expect(&name("grad_x"), &by_channel(&dx)?, rule)?;
        let arena = buffer_values(backend, &arena)?;
        case.expect(&name("grad_weight"), &arena[..weights], rule)?;
        if has_bias {
            case.expect(&name("grad_bias"), &arena[weights..], rule)?;
        }
    }
    Ok(())
}
