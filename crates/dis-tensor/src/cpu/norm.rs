//! Residual add and normalisation in one pass over each row, and its backward.

use super::Cpu;
use super::elementwise::{axpy, rows_per_block, scaled};
use super::reduce::{BLOCK, add_partials};
use super::rows::{Rows, RowsMut};
use super::threads::Pieces;
use crate::backend::NormKind;

/// Partial sums of a row.
const LANES: usize = 16;

/// Adds up lanes pairwise, in an order of its own.
fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Sum of `f(x, y)` over the pairs, in an order that depends on the length alone.
fn sum2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (x_rest, y_rest) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for i in 0..LANES {
            lanes[i] += f(x[i], y[i]);
        }
    }
    for (i, (&x, &y)) in x_rest.iter().zip(y_rest).enumerate() {
        lanes[i] += f(x, y);
    }
    fold(lanes)
}

/// A normalisation's parameters.
#[derive(Clone, Copy)]
pub(super) struct Params<'a> {
    pub(super) kind: NormKind,
    pub(super) eps: f32,
    pub(super) weight: Option<&'a [f32]>,
    pub(super) bias: Option<&'a [f32]>,
    /// Shift and scale, side by side, a row per sample.
    pub(super) shift_scale: Option<Rows<'a>>,
}

/// Mean and inverse deviation of a row.
fn statistics(kind: NormKind, eps: f32, x: &[f32]) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = match kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => sum2(x, x, |x, _| x) / n,
    };
    let variance = sum2(x, x, |x, _| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

pub(super) fn forward(
    cpu: &Cpu,
    residual: Option<Rows<'_>>,
    hidden: Rows<'_>,
    hidden_scale: Option<Rows<'_>>,
    norm: Params<'_>,
    sum: Option<RowsMut<'_>>,
    stats: Option<RowsMut<'_>>,
    out: RowsMut<'_>,
) {
    let (rows, channels, tokens) = (hidden.count(), hidden.channels(), hidden.tokens());
    let outputs = (sum, stats, out);
    let grain = rows_per_block(channels);
    cpu.threads
        .blocks(rows, grain, rows * channels, outputs, |range, outputs| {
            let (mut sum, mut stats, mut out) = outputs;
            for r in range {
                let out = out.row(r);
                let factor = hidden_scale.map_or(1.0, |s| s.row(r / tokens)[0]);
                match residual {
                    Some(residual) => {
                        let pairs = residual.row(r).iter().zip(hidden.row(r));
                        for (out, (&residual, &hidden)) in out.iter_mut().zip(pairs) {
                            *out = residual + factor * hidden;
                        }
                    }
                    None => scaled(factor, hidden.row(r), out),
                }
                if let Some(sum) = &mut sum {
                    sum.row(r).copy_from_slice(out);
                }
                let (mean, inverse) = statistics(norm.kind, norm.eps, out);
                if let Some(stats) = &mut stats {
                    stats.row(r).copy_from_slice(&[mean, inverse]);
                }
                normalise(&norm, mean, inverse, r / tokens, out);
            }
        });
}

/// `x = ((x - mean) * inverse * weight + bias) * (1 + scale) + shift`.
fn normalise(norm: &Params<'_>, mean: f32, inverse: f32, sample: usize, x: &mut [f32]) {
    match norm.weight {
        Some(weight) => {
            for (x, &weight) in x.iter_mut().zip(weight) {
                *x = (*x - mean) * inverse * weight;
            }
        }
        None => {
            for x in x.iter_mut() {
                *x = (*x - mean) * inverse;
            }
        }
    }
    if let Some(bias) = norm.bias {
        axpy(1.0, bias, x);
    }
    if let Some(both) = norm.shift_scale {
        let (shift, scale) = both.row(sample).split_at(x.len());
        for ((x, &shift), &scale) in x.iter_mut().zip(shift).zip(scale) {
            *x = *x * (1.0 + scale) + shift;
        }
    }
}

/// Where parameter gradients are added.
pub(super) struct Grads<'a> {
    pub(super) arena: &'a mut [f32],
    pub(super) weight: Option<usize>,
    pub(super) bias: Option<usize>,
}

/// With g the gradient of `xhat = (x - mean) * inverse`:
/// `dx = inverse * (g - mean(g) - xhat * mean(g * xhat))`, without `mean(g)` for RMS.
pub(super) fn backward(
    cpu: &Cpu,
    x: Rows<'_>,
    stats: Rows<'_>,
    norm: Params<'_>,
    dout: Rows<'_>,
    accumulate: bool,
    dx: RowsMut<'_>,
    grads: Option<Grads<'_>>,
) {
    let (rows, channels, tokens) = (x.count(), x.channels(), x.tokens());
    if rows == 0 || channels == 0 {
        return;
    }
    // Per block: sums of d weight and d bias, then the row's xhat and g.
    let width = 4 * channels;
    let mut scratch = cpu.scratch::<f32>(rows.div_ceil(BLOCK) * width);
    let pieces = Pieces {
        data: scratch.as_mut_slice(),
        width,
        units: BLOCK,
    };
    let want_grads = grads.is_some();
    let n = channels as f32;
    cpu.threads.blocks(
        rows,
        BLOCK,
        rows * channels,
        (pieces, dx),
        |range, (block, mut dx)| {
            let (sums, row) = block.data.split_at_mut(2 * channels);
            let (d_weight, d_bias) = sums.split_at_mut(channels);
            let (xhat, g) = row.split_at_mut(channels);
            d_weight.fill(0.0);
            d_bias.fill(0.0);
            for r in range {
                let (mean, inverse) = (stats.row(r)[0], stats.row(r)[1]);
                for (xhat, &x) in xhat.iter_mut().zip(x.row(r)) {
                    *xhat = (x - mean) * inverse;
                }
                match norm.shift_scale {
                    Some(both) => {
                        let scale = &both.row(r / tokens)[channels..];
                        for ((g, &dout), &scale) in g.iter_mut().zip(dout.row(r)).zip(scale) {
                            *g = dout * (1.0 + scale);
                        }
                    }
                    None => g.copy_from_slice(dout.row(r)),
                }
                if want_grads {
                    for ((d, &g), &xhat) in d_weight.iter_mut().zip(&*g).zip(&*xhat) {
                        *d += g * xhat;
                    }
                    axpy(1.0, g, d_bias);
                }
                if let Some(weight) = norm.weight {
                    for (g, &weight) in g.iter_mut().zip(weight) {
                        *g *= weight;
                    }
                }
                let mean_g = match norm.kind {
                    NormKind::Rms => 0.0,
                    NormKind::Layer => sum2(g, g, |g, _| g) / n,
                };
                let mean_gx = sum2(g, xhat, |g, x| g * x) / n;
                let values = g
                    .iter()
                    .zip(&*xhat)
                    .map(|(&g, &x)| inverse * (g - mean_g - x * mean_gx));
                let dx = dx.row(r).iter_mut().zip(values);
                if accumulate {
                    dx.for_each(|(dx, value)| *dx += value);
                } else {
                    dx.for_each(|(dx, value)| *dx = value);
                }
            }
        },
    );
    if let Some(grads) = grads {
        for (offset, first) in [(grads.weight, 0), (grads.bias, channels)] {
            if let Some(offset) = offset {
                add_partials(
                    cpu,
                    &scratch,
                    width,
                    first,
                    &mut grads.arena[offset..][..channels],
                );
            }
        }
    }
}

/// Gradients of shift and scale: the sums over a sample's tokens of `dout` and of
/// `dout * (xhat * weight + bias)`.
pub(super) fn backward_shift_scale(
    cpu: &Cpu,
    x: Rows<'_>,
    stats: Rows<'_>,
    norm: Params<'_>,
    dout: Rows<'_>,
    out: RowsMut<'_>,
) {
    let (tokens, channels) = (x.tokens(), x.channels());
    let ones = cpu.filled(if norm.weight.is_none() { channels } else { 0 }, 1.0);
    let zeros = cpu.filled(if norm.bias.is_none() { channels } else { 0 }, 0.0);
    let weight = norm.weight.unwrap_or(&ones);
    let bias = norm.bias.unwrap_or(&zeros);
    let work = x.count() * channels;
    cpu.threads
        .blocks(out.count(), 1, work, out, |range, mut out| {
            let sample = range.start;
            let (d_shift, d_scale) = out.row(sample).split_at_mut(channels);
            d_shift.fill(0.0);
            d_scale.fill(0.0);
            for r in sample * tokens..(sample + 1) * tokens {
                let (mean, inverse) = (stats.row(r)[0], stats.row(r)[1]);
                let (x, dout) = (x.row(r), dout.row(r));
                axpy(1.0, dout, d_shift);
                for c in 0..channels {
                    d_scale[c] += dout[c] * ((x[c] - mean) * inverse * weight[c] + bias[c]);
                }
            }
        });
}
