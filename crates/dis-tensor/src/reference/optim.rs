//! AdamW, from the definition.

use super::Buf;
use crate::operands::{AdamState, AdamW};
use crate::scalar::Scalar;

pub(super) fn adamw<S: Scalar>(state: AdamState<'_, Buf<S>>, s: &AdamW) {
    let norm = state.grad_norm[0];
    if !norm.value().is_finite() {
        return;
    }
    let of = S::from;
    let clip = match s.max_grad_norm {
        Some(max) => of(max) / (norm * of(s.grad_scale) + of(1e-6)),
        None => of(1.0),
    };
    let clip = if clip.value() < 1.0 { clip } else { of(1.0) };
    let t = s.step as f64;
    let correction1 = of(1.0 - s.beta1.powf(t));
    let correction2 = of(1.0 - s.beta2.powf(t));
    for i in 0..state.params.as_slice().len() {
        let g = state.grads[i] * of(s.grad_scale) * clip;
        let m = of(s.beta1) * state.m[i] + of(1.0 - s.beta1) * g;
        let v = of(s.beta2) * state.v[i] + of(1.0 - s.beta2) * g * g;
        let decayed = state.params[i] * of(1.0 - s.lr * s.weight_decay);
        let p = decayed - of(s.lr) * (m / correction1) / ((v / correction2).sqrt() + of(s.eps));
        state.m[i] = m;
        state.v[i] = v;
        state.params[i] = p;
        state.ema[i] = of(s.ema_decay) * state.ema[i] + of(1.0 - s.ema_decay) * p;
    }
}
