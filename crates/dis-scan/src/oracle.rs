//! The oracle: convolution and scan in float64, or another [`Scalar`], as scalar loops written from the
//! formulas, forward and backward by hand. It shares nothing with the fast code but the checks of arguments.

use crate::check;
use crate::ops::{Conv, ConvGrads, Direction, Discretization, Scan, ScanGrads, ScanOut};
use dis_tensor::{Layout, Result, Scalar, Tokens, TokensMut};

type View<'a, S> = Tokens<'a, [S]>;
type ViewMut<'a, S> = TokensMut<'a, [S]>;

/// Where `(e^x - 1) / A` loses digits in its derivative by A, which then is a series.
const SERIES: f64 = 0.33;

/// softplus, the identity above 20.
pub fn softplus<S: Scalar>(x: S) -> S {
    if x.value() > 20.0 {
        return x;
    }
    let positive = if x.value() > 0.0 { x } else { S::default() };
    positive + (-x.abs()).exp().ln_1p()
}

/// Derivative of [`softplus`].
pub fn softplus_derivative<S: Scalar>(x: S) -> S {
    if x.value() > 20.0 {
        S::from(1.0)
    } else {
        x.sigmoid()
    }
}

/// x / (1 + e^-x).
pub fn silu<S: Scalar>(x: S) -> S {
    x * x.sigmoid()
}

/// Derivative of [`silu`].
pub fn silu_derivative<S: Scalar>(x: S) -> S {
    x.sigmoid() * (S::from(1.0) + x * (-x).sigmoid())
}

/// The input gain `g` of `B_bar = g B`, with its derivatives by delta and by A.
fn gain<S: Scalar>(discretization: Discretization, delta: S, a: S) -> [S; 3] {
    let (none, one) = (S::default(), S::from(1.0));
    match discretization {
        Discretization::Mamba => [delta, one, none],
        Discretization::ZeroOrderHold => {
            let x = delta * a;
            if x.value() == 0.0 {
                return [delta, one, S::from(0.5) * delta * delta];
            }
            let gain = x.exp_m1() / a;
            // (x e^x - (e^x - 1)) / x^2 from its series near 0, where the difference cancels.
            let by_a = if x.value().abs() < SERIES {
                let (mut term, mut sum) = (S::from(0.5), none);
                for k in 0..14 {
                    sum += term * S::from(f64::from(k + 1));
                    term = term * x * S::from(1.0 / f64::from(k + 3));
                }
                delta * delta * sum
            } else {
                (delta * x.exp() - gain) / a
            };
            [gain, x.exp(), by_a]
        }
    }
}

fn at<S: Scalar>(x: &View<'_, S>, b: usize, t: usize, c: usize) -> S {
    x.buf[x.layout.row(b, t) + c]
}

fn at_mut<'a, S: Scalar>(x: &'a mut ViewMut<'_, S>, b: usize, t: usize, c: usize) -> &'a mut S {
    &mut x.buf[x.layout.row(b, t) + c]
}

/// Element c of a vector, or 0 where there is none.
fn of<S: Scalar>(x: &Option<View<'_, S>>, c: usize) -> S {
    x.as_ref().map_or(S::default(), |x| at(x, 0, 0, c))
}

fn put<S: Scalar>(value: S, accumulate: bool, to: &mut S) {
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
fn convolved<S: Scalar>(conv: &Conv<'_, [S]>, b: usize, position: usize, c: usize) -> S {
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
pub fn conv1d<S: Scalar>(conv: Conv<'_, [S]>, mut out: ViewMut<'_, S>) -> Result<()> {
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
pub fn conv1d_backward<S: Scalar>(
    conv: Conv<'_, [S]>,
    dout: View<'_, S>,
    accumulate: bool,
    mut dx: ViewMut<'_, S>,
    grads: ConvGrads<'_, [S]>,
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
            let mut column = vec![S::default(); shape.tokens];
            for p in 0..shape.tokens {
                let t = token(conv.direction, shape.tokens, p);
                let mut dsum = at(&dout, b, t, c);
                if conv.silu {
                    dsum = dsum * silu_derivative(convolved(&conv, b, p, c));
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
fn step<S: Scalar>(scan: &Scan<'_, [S]>, b: usize, t: usize, c: usize) -> [S; 2] {
    let raw = at(&scan.delta, b, t, c) + of(&scan.delta_bias, c);
    if scan.delta_softplus {
        [softplus(raw), softplus_derivative(raw)]
    } else {
        [raw, 1.0.into()]
    }
}

/// The states of one channel at an end of the walk; zeros where they are not given.
fn state_at<S: Scalar>(x: &Option<View<'_, S>>, b: usize, c: usize, n: usize) -> Vec<S> {
    let state = |i| x.as_ref().map_or(S::default(), |x| at(x, b, c, i));
    (0..n).map(state).collect()
}

/// All states of one channel: before the first token, then after each token of the walk.
fn states<S: Scalar>(scan: &Scan<'_, [S]>, b: usize, c: usize) -> Vec<Vec<S>> {
    let (tokens, n) = (scan.u.layout.tokens, scan.a.layout.channels);
    let mut all = vec![state_at(&scan.initial_state, b, c, n)];
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
fn output<S: Scalar>(scan: &Scan<'_, [S]>, b: usize, t: usize, c: usize, state: &[S]) -> S {
    let n = state.len();
    let sum = S::sum((0..n).map(|i| at(&scan.bc, b, t, n + i) * state[i]));
    sum + of(&scan.d, c) * at(&scan.u, b, t, c)
}

/// The selective scan; see [`Scan`] and [`ScanOut`]. Checkpoints are left alone: the oracle's
/// backward does not use them.
///
/// # Errors
/// If shapes do not fit or a view leaves its buffer.
pub fn scan<S: Scalar>(scan: Scan<'_, [S]>, mut out: ScanOut<'_, [S]>) -> Result<()> {
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
                    y = y * silu(at(z, b, t, c));
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
pub fn scan_backward<S: Scalar>(
    scan: Scan<'_, [S]>,
    dout: View<'_, S>,
    mut grads: ScanGrads<'_, [S]>,
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
            let mut carry = state_at(&grads.dlast_state, b, c, n);
            for p in (0..shape.tokens).rev() {
                let t = token(scan.direction, shape.tokens, p);
                let ([delta, by_raw], u) = (step(&scan, b, t, c), at(&scan.u, b, t, c));
                let mut dy = at(&dout, b, t, c);
                if let (Some(z), Some(dz)) = (&scan.z, &mut grads.dz) {
                    let gate = at(z, b, t, c);
                    let y = output(&scan, b, t, c, &states[p + 1]);
                    let value = dy * y * silu_derivative(gate);
                    put(value, grads.accumulate_dz, at_mut(dz, b, t, c));
                    dy = dy * silu(gate);
                }
                let (mut du, mut ddelta) = (of(&scan.d, c) * dy, S::default());
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
                ddelta = ddelta * by_raw;
                *at_mut(&mut grads.du, b, t, c) = du;
                *at_mut(&mut grads.ddelta, b, t, c) = ddelta;
                if let (Some(_), Some(bias)) = (&scan.delta_bias, grads.delta_bias) {
                    grads.arena[bias + c] += ddelta;
                }
            }
            if let Some(to) = &mut grads.dinitial_state {
                for (i, value) in carry.into_iter().enumerate() {
                    *at_mut(to, b, c, i) = value;
                }
            }
        }
    }
    Ok(())
}

fn zero<S: Scalar>(x: &mut ViewMut<'_, S>) {
    let Layout {
        batch,
        tokens,
        channels,
        ..
    } = x.layout;
    for b in 0..batch {
        for t in 0..tokens {
            let start = x.layout.row(b, t);
            x.buf[start..start + channels].fill(S::default());
        }
    }
}
