//! The oracle: convolution and scan in float64, as scalar loops written from the formulas, forward
//! and backward by hand. It shares nothing with the fast code but the checks of arguments.

use crate::check;
use crate::ops::{Conv, ConvGrads, Direction, Discretization, Scan, ScanGrads, ScanOut};
use dis_tensor::{Layout, Result, Tokens, TokensMut};

type View<'a> = Tokens<'a, [f64]>;
type ViewMut<'a> = TokensMut<'a, [f64]>;

/// softplus, the identity above 20.
pub fn softplus(x: f64) -> f64 {
    if x > 20.0 {
        x
    } else {
        x.max(0.0) + (-x.abs()).exp().ln_1p()
    }
}

/// Derivative of [`softplus`].
pub fn softplus_derivative(x: f64) -> f64 {
    if x > 20.0 { 1.0 } else { sigmoid(x) }
}

/// 1 / (1 + e^-x).
pub fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x < 0.0 {
        e / (1.0 + e)
    } else {
        1.0 / (1.0 + e)
    }
}

/// x / (1 + e^-x).
pub fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

/// Derivative of [`silu`].
pub fn silu_derivative(x: f64) -> f64 {
    let s = sigmoid(x);
    s * (1.0 + x * sigmoid(-x))
}

/// The input gain `g` of `B_bar = g B`, with its derivatives by delta and by A.
fn gain(discretization: Discretization, delta: f64, a: f64) -> [f64; 3] {
    match discretization {
        Discretization::Mamba => [delta, 1.0, 0.0],
        Discretization::ZeroOrderHold => {
            let x = delta * a;
            if x == 0.0 {
                return [delta, 1.0, 0.5 * delta * delta];
            }
            let gain = x.exp_m1() / a;
            // (x e^x - (e^x - 1)) / x^2 from its series near 0, where the difference cancels.
            let by_a = if x.abs() < 0.05 {
                let mut term = 0.5;
                let mut sum = 0.0;
                for k in 0..12 {
                    sum += term * f64::from(k + 1);
                    term *= x / f64::from(k + 3);
                }
                delta * delta * sum
            } else {
                (delta * x.exp() - gain) / a
            };
            [gain, x.exp(), by_a]
        }
    }
}

fn at(x: &View<'_>, b: usize, t: usize, c: usize) -> f64 {
    x.buf[x.layout.row(b, t) + c]
}

fn at_mut<'a>(x: &'a mut ViewMut<'_>, b: usize, t: usize, c: usize) -> &'a mut f64 {
    &mut x.buf[x.layout.row(b, t) + c]
}

/// Element c of a vector, or 0 where there is none.
fn of(x: &Option<View<'_>>, c: usize) -> f64 {
    x.as_ref().map_or(0.0, |x| at(x, 0, 0, c))
}

fn put(value: f64, accumulate: bool, to: &mut f64) {
    if accumulate {
        *to += value;
    } else {
        *to = value;
    }
}

/// The token at a position of the walk.
fn token(direction: Direction, tokens: usize, position: usize) -> usize {
    match direction {
        Direction::Forward => position,
        Direction::Reverse => tokens - 1 - position,
    }
}

/// The convolution before SiLU at a position of the walk.
fn convolved(conv: &Conv<'_, [f64]>, b: usize, position: usize, c: usize) -> f64 {
    let (tokens, width) = (conv.x.layout.tokens, conv.weight.layout.channels);
    let mut sum = of(&conv.bias, c);
    for k in 0..width {
        let back = width - 1 - k;
        if position >= back {
            let t = token(conv.direction, tokens, position - back);
            sum += at(&conv.weight, 0, c, k) * at(&conv.x, b, t, c);
        }
    }
    sum
}

/// Causal depthwise convolution, then SiLU if asked; see [`Conv`].
///
/// # Errors
/// If shapes do not fit or a view leaves its buffer.
pub fn conv1d(conv: Conv<'_, [f64]>, mut out: ViewMut<'_>) -> Result<()> {
    const OP: &str = "conv1d";
    let shape = check::conv(OP, &conv)?;
    check::like(OP, "out", &out.layout, out.buf.len(), "x", conv.x.shape())?;
    for b in 0..shape.batch {
        for p in 0..shape.tokens {
            for c in 0..shape.channels {
                let sum = convolved(&conv, b, p, c);
                let t = token(conv.direction, shape.tokens, p);
                *at_mut(&mut out, b, t, c) = if conv.silu { silu(sum) } else { sum };
            }
        }
    }
    Ok(())
}

/// Backward of [`conv1d`].
///
/// # Errors
/// If shapes do not fit, a view leaves its buffer, or an offset is missing.
pub fn conv1d_backward(
    conv: Conv<'_, [f64]>,
    dout: View<'_>,
    accumulate: bool,
    mut dx: ViewMut<'_>,
    grads: ConvGrads<'_, [f64]>,
) -> Result<()> {
    const OP: &str = "conv1d_backward";
    let shape = check::conv(OP, &conv)?;
    check::like(
        OP,
        "dout",
        &dout.layout,
        dout.buf.len(),
        "x",
        conv.x.shape(),
    )?;
    check::like(OP, "dx", &dx.layout, dx.buf.len(), "x", conv.x.shape())?;
    check::conv_grads(OP, &shape, conv.bias.is_some(), &grads)?;
    for b in 0..shape.batch {
        for c in 0..shape.channels {
            let mut column = vec![0.0; shape.tokens];
            for p in 0..shape.tokens {
                let t = token(conv.direction, shape.tokens, p);
                let mut dsum = at(&dout, b, t, c);
                if conv.silu {
                    dsum *= silu_derivative(convolved(&conv, b, p, c));
                }
                for k in 0..shape.width {
                    let back = shape.width - 1 - k;
                    if p >= back {
                        let from = token(conv.direction, shape.tokens, p - back);
                        column[from] += dsum * at(&conv.weight, 0, c, k);
                        grads.arena[grads.weight + c * shape.width + k] +=
                            dsum * at(&conv.x, b, from, c);
                    }
                }
                if let (Some(_), Some(bias)) = (&conv.bias, grads.bias) {
                    grads.arena[bias + c] += dsum;
                }
            }
            for (t, value) in column.into_iter().enumerate() {
                put(value, accumulate, at_mut(&mut dx, b, t, c));
            }
        }
    }
    Ok(())
}

/// The effective step at a token, with its derivative by the raw one.
fn step(scan: &Scan<'_, [f64]>, b: usize, t: usize, c: usize) -> [f64; 2] {
    let raw = at(&scan.delta, b, t, c) + of(&scan.delta_bias, c);
    if scan.delta_softplus {
        [softplus(raw), softplus_derivative(raw)]
    } else {
        [raw, 1.0]
    }
}

/// All states of one channel: before the first token, then after each token of the walk.
fn states(scan: &Scan<'_, [f64]>, b: usize, c: usize) -> Vec<Vec<f64>> {
    let (tokens, n) = (scan.u.layout.tokens, scan.a.layout.channels);
    let mut all = vec![vec![0.0; n]];
    for p in 0..tokens {
        let t = token(scan.direction, tokens, p);
        let ([delta, _], u) = (step(scan, b, t, c), at(&scan.u, b, t, c));
        let next = (0..n)
            .map(|i| {
                let a = at(&scan.a, 0, c, i);
                let [gain, ..] = gain(scan.discretization, delta, a);
                (delta * a).exp() * all[p][i] + gain * at(&scan.bc, b, t, i) * u
            })
            .collect();
        all.push(next);
    }
    all
}

/// The output before the gate at a token, from the state after it.
fn output(scan: &Scan<'_, [f64]>, b: usize, t: usize, c: usize, state: &[f64]) -> f64 {
    let n = state.len();
    let sum: f64 = (0..n).map(|i| at(&scan.bc, b, t, n + i) * state[i]).sum();
    sum + of(&scan.d, c) * at(&scan.u, b, t, c)
}

/// The selective scan; see [`Scan`] and [`ScanOut`]. Checkpoints are left alone: the oracle's
/// backward does not use them.
///
/// # Errors
/// If shapes do not fit or a view leaves its buffer.
pub fn scan(scan: Scan<'_, [f64]>, mut out: ScanOut<'_, [f64]>) -> Result<()> {
    const OP: &str = "scan";
    let shape = check::scan(OP, &scan)?;
    check::scan_out(OP, &shape, &out)?;
    for b in 0..shape.batch {
        for c in 0..shape.channels {
            let states = states(&scan, b, c);
            for p in 0..shape.tokens {
                let t = token(scan.direction, shape.tokens, p);
                let mut y = output(&scan, b, t, c, &states[p + 1]);
                if out.accumulate {
                    y += at(&out.y.as_ref(), b, t, c);
                }
                if let Some(z) = &scan.z {
                    y *= silu(at(z, b, t, c));
                }
                *at_mut(&mut out.y, b, t, c) = y;
            }
            if let Some(last) = &mut out.last_state {
                for i in 0..shape.states {
                    *at_mut(last, b, c, i) = states[shape.tokens][i];
                }
            }
        }
    }
    Ok(())
}

/// Backward of [`scan`]; see [`ScanGrads`].
///
/// # Errors
/// If shapes do not fit, a view leaves its buffer, or an offset or dz is missing.
pub fn scan_backward(
    scan: Scan<'_, [f64]>,
    dout: View<'_>,
    mut grads: ScanGrads<'_, [f64]>,
) -> Result<()> {
    const OP: &str = "scan_backward";
    let shape = check::scan(OP, &scan)?;
    check::scan_grads(OP, &scan, &shape, &dout, &grads)?;
    let n = shape.states;
    zero(&mut grads.dbc);
    zero(&mut grads.da);
    for b in 0..shape.batch {
        for c in 0..shape.channels {
            let states = states(&scan, b, c);
            let mut carry = vec![0.0; n];
            for p in (0..shape.tokens).rev() {
                let t = token(scan.direction, shape.tokens, p);
                let ([delta, by_raw], u) = (step(&scan, b, t, c), at(&scan.u, b, t, c));
                let mut dy = at(&dout, b, t, c);
                if let (Some(z), Some(dz)) = (&scan.z, &mut grads.dz) {
                    let gate = at(z, b, t, c);
                    let y = output(&scan, b, t, c, &states[p + 1]);
                    let value = dy * y * silu_derivative(gate);
                    put(value, grads.accumulate_dz, at_mut(dz, b, t, c));
                    dy *= silu(gate);
                }
                let (mut du, mut ddelta) = (of(&scan.d, c) * dy, 0.0);
                if let (Some(_), Some(d)) = (&scan.d, grads.d) {
                    grads.arena[d + c] += dy * u;
                }
                for i in 0..n {
                    let (a, before) = (at(&scan.a, 0, c, i), states[p][i]);
                    let (input, read) = (at(&scan.bc, b, t, i), at(&scan.bc, b, t, n + i));
                    let decay = (delta * a).exp();
                    let [gain, gain_by_delta, gain_by_a] = gain(scan.discretization, delta, a);
                    *at_mut(&mut grads.dbc, b, t, n + i) += dy * states[p + 1][i];
                    let dh = dy * read + carry[i];
                    let (ddecay, dgain) = (dh * before, dh * input * u);
                    *at_mut(&mut grads.dbc, b, t, i) += dh * gain * u;
                    *at_mut(&mut grads.da, 0, c, i) += ddecay * decay * delta + dgain * gain_by_a;
                    ddelta += ddecay * decay * a + dgain * gain_by_delta;
                    du += dh * gain * input;
                    carry[i] = dh * decay;
                }
                ddelta *= by_raw;
                *at_mut(&mut grads.du, b, t, c) = du;
                *at_mut(&mut grads.ddelta, b, t, c) = ddelta;
                if let (Some(_), Some(bias)) = (&scan.delta_bias, grads.delta_bias) {
                    grads.arena[bias + c] += ddelta;
                }
            }
        }
    }
    Ok(())
}

fn zero(x: &mut ViewMut<'_>) {
    let Layout {
        batch,
        tokens,
        channels,
        ..
    } = x.layout;
    for b in 0..batch {
        for t in 0..tokens {
            let start = x.layout.row(b, t);
            x.buf[start..start + channels].fill(0.0);
        }
    }
}
