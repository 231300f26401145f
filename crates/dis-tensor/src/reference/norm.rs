//! Normalisation and its backward, from the definitions.

use super::{Buf, at, at_mut};
use crate::operands::{AddNorm, AddNormBackward, Norm, NormKind};
use crate::scalar::Scalar;

/// `x` normalised: what the affine part starts from.
struct Row<S> {
    mean: S,
    inverse: S,
}

fn statistics<S: Scalar>(kind: NormKind, eps: f64, x: &[S]) -> Row<S> {
    let n = S::from(x.len() as f64);
    let mean = match kind {
        NormKind::Rms => S::default(),
        NormKind::Layer => S::sum(x.iter().copied()) / n,
    };
    let variance = S::sum(x.iter().map(|&x| (x - mean) * (x - mean))) / n;
    Row {
        mean,
        inverse: S::from(1.0) / (variance + eps.into()).sqrt(),
    }
}

/// The channel's weight, or 1.
fn weight<S: Scalar>(norm: &Norm<'_, Buf<S>>, c: usize) -> S {
    norm.weight.map_or(1.0.into(), |w| at(&w, 0, 0, c))
}

/// The channel's bias, or 0.
fn bias<S: Scalar>(norm: &Norm<'_, Buf<S>>, c: usize) -> S {
    norm.bias.map_or(S::default(), |w| at(&w, 0, 0, c))
}

/// The sample's shift and scale of a channel, or 0.
fn shift_scale<S: Scalar>(norm: &Norm<'_, Buf<S>>, b: usize, c: usize, channels: usize) -> (S, S) {
    norm.shift_scale.map_or((S::default(), S::default()), |s| {
        (at(&s, b, 0, c), at(&s, b, 0, channels + c))
    })
}

pub(super) fn forward<S: Scalar>(call: AddNorm<'_, Buf<S>>) {
    let AddNorm {
        residual,
        hidden,
        hidden_scale,
        norm,
        mut sum,
        mut stats,
        mut out,
    } = call;
    let [batch, tokens, channels] = hidden.shape();
    for b in 0..batch {
        let factor = hidden_scale.map_or(1.0.into(), |s| at(&s, b, 0, 0));
        for t in 0..tokens {
            let before = |c| residual.map_or(S::default(), |r| at(&r, b, t, c));
            let x: Vec<S> = (0..channels)
                .map(|c| before(c) + factor * at(&hidden, b, t, c))
                .collect();
            let row = statistics(norm.kind, norm.eps, &x);
            for c in 0..channels {
                let y = (x[c] - row.mean) * row.inverse * weight(&norm, c) + bias(&norm, c);
                let (shift, scale) = shift_scale(&norm, b, c, channels);
                *at_mut(&mut out, b, t, c) = y * (S::from(1.0) + scale) + shift;
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
pub(super) fn backward<S: Scalar>(call: AddNormBackward<'_, Buf<S>>) {
    let AddNormBackward {
        x,
        stats,
        norm,
        dout,
        accum,
        mut dx,
        mut grads,
        mut d_shift_scale,
    } = call;
    let [batch, tokens, channels] = x.shape();
    if let Some(d) = &mut d_shift_scale {
        for b in 0..batch {
            for c in 0..2 * channels {
                *at_mut(d, b, 0, c) = S::default();
            }
        }
    }
    for b in 0..batch {
        for t in 0..tokens {
            let (mean, inverse) = (at(&stats, b, t, 0), at(&stats, b, t, 1));
            let xhat: Vec<S> = (0..channels)
                .map(|c| (at(&x, b, t, c) - mean) * inverse)
                .collect();
            let mut g = vec![S::default(); channels];
            for c in 0..channels {
                let (_, scale) = shift_scale(&norm, b, c, channels);
                let d = at(&dout, b, t, c);
                let dy = d * (S::from(1.0) + scale);
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
            let n = S::from(channels as f64);
            let mean_g = match norm.kind {
                NormKind::Rms => S::default(),
                NormKind::Layer => S::sum(g.iter().copied()) / n,
            };
            let mean_gx = S::sum(g.iter().zip(&xhat).map(|(&g, &x)| g * x)) / n;
            for c in 0..channels {
                let value = inverse * (g[c] - mean_g - xhat[c] * mean_gx);
                let place = at_mut(&mut dx, b, t, c);
                *place = if accum.adds() { *place + value } else { value };
            }
        }
    }
}
