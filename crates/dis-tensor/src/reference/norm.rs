//! Normalisation and its backward, from the definitions.

use super::{Buf, at, at_mut};
use crate::backend::{Norm, NormGrads, NormKind};
use crate::layout::{Tokens, TokensMut};

/// `x` normalised: what the affine part starts from.
struct Row {
    mean: f64,
    inverse: f64,
}

fn statistics(kind: NormKind, eps: f64, x: &[f64]) -> Row {
    let n = x.len() as f64;
    let mean = match kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => x.iter().sum::<f64>() / n,
    };
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    Row {
        mean,
        inverse: 1.0 / (variance + eps).sqrt(),
    }
}

/// The channel's weight, or 1.
fn weight(norm: &Norm<'_, Buf>, c: usize) -> f64 {
    norm.weight.map_or(1.0, |w| at(&w, 0, 0, c))
}

/// The channel's bias, or 0.
fn bias(norm: &Norm<'_, Buf>, c: usize) -> f64 {
    norm.bias.map_or(0.0, |w| at(&w, 0, 0, c))
}

/// The sample's shift and scale of a channel, or 0.
fn shift_scale(norm: &Norm<'_, Buf>, b: usize, c: usize, channels: usize) -> (f64, f64) {
    norm.shift_scale.map_or((0.0, 0.0), |s| {
        (at(&s, b, 0, c), at(&s, b, 0, channels + c))
    })
}

pub(super) fn forward(
    residual: Option<Tokens<'_, Buf>>,
    hidden: Tokens<'_, Buf>,
    hidden_scale: Option<Tokens<'_, Buf>>,
    norm: Norm<'_, Buf>,
    mut sum: Option<TokensMut<'_, Buf>>,
    mut stats: Option<TokensMut<'_, Buf>>,
    mut out: TokensMut<'_, Buf>,
) {
    let [batch, tokens, channels] = hidden.shape();
    for b in 0..batch {
        let factor = hidden_scale.map_or(1.0, |s| at(&s, b, 0, 0));
        for t in 0..tokens {
            let x: Vec<f64> = (0..channels)
                .map(|c| residual.map_or(0.0, |r| at(&r, b, t, c)) + factor * at(&hidden, b, t, c))
                .collect();
            let row = statistics(norm.kind, norm.eps, &x);
            for c in 0..channels {
                let y = (x[c] - row.mean) * row.inverse * weight(&norm, c) + bias(&norm, c);
                let (shift, scale) = shift_scale(&norm, b, c, channels);
                *at_mut(&mut out, b, t, c) = y * (1.0 + scale) + shift;
                if let Some(sum) = &mut sum {
                    *at_mut(sum, b, t, c) = x[c];
                }
            }
            if let Some(stats) = &mut stats {
                *at_mut(stats, b, t, 0) = row.mean;
                *at_mut(stats, b, t, 1) = row.inverse;
            }
        }
    }
}

/// With `xhat = (x - mean) * inverse` and g the gradient of xhat,
/// `dx = inverse * (g - mean(g) - xhat * mean(g * xhat))`; RMS has no `mean(g)` term, since its
/// mean does not depend on x.
pub(super) fn backward(
    x: Tokens<'_, Buf>,
    stats: Tokens<'_, Buf>,
    norm: Norm<'_, Buf>,
    dout: Tokens<'_, Buf>,
    accumulate: bool,
    mut dx: TokensMut<'_, Buf>,
    mut grads: Option<NormGrads<'_, Buf>>,
    mut d_shift_scale: Option<TokensMut<'_, Buf>>,
) {
    let [batch, tokens, channels] = x.shape();
    if let Some(d) = &mut d_shift_scale {
        for b in 0..batch {
            for c in 0..2 * channels {
                *at_mut(d, b, 0, c) = 0.0;
            }
        }
    }
    for b in 0..batch {
        for t in 0..tokens {
            let (mean, inverse) = (at(&stats, b, t, 0), at(&stats, b, t, 1));
            let xhat: Vec<f64> = (0..channels)
                .map(|c| (at(&x, b, t, c) - mean) * inverse)
                .collect();
            let mut g = vec![0.0; channels];
            for c in 0..channels {
                let (_, scale) = shift_scale(&norm, b, c, channels);
                let d = at(&dout, b, t, c);
                let dy = d * (1.0 + scale);
                g[c] = dy * weight(&norm, c);
                if let Some(grads) = &mut grads {
                    if let Some(offset) = grads.weight {
                        grads.arena[offset + c] += dy * xhat[c];
                    }
                    if let Some(offset) = grads.bias {
                        grads.arena[offset + c] += dy;
                    }
                }
                if let Some(both) = &mut d_shift_scale {
                    *at_mut(both, b, 0, c) += d;
                    *at_mut(both, b, 0, channels + c) +=
                        d * (xhat[c] * weight(&norm, c) + bias(&norm, c));
                }
            }
            let n = channels as f64;
            let mean_g = match norm.kind {
                NormKind::Rms => 0.0,
                NormKind::Layer => g.iter().sum::<f64>() / n,
            };
            let mean_gx = g.iter().zip(&xhat).map(|(g, x)| g * x).sum::<f64>() / n;
            for c in 0..channels {
                let value = inverse * (g[c] - mean_g - xhat[c] * mean_gx);
                let place = at_mut(&mut dx, b, t, c);
                *place = if accumulate { *place + value } else { value };
            }
        }
    }
}
