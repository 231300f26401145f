//! AdamW, from the definition.

use super::Buf;
use crate::backend::{AdamState, AdamW};

pub(super) fn adamw(state: AdamState<'_, Buf>, s: &AdamW) {
    let norm = state.grad_norm[0];
    if !norm.is_finite() {
        return;
    }
    let clip = match s.max_grad_norm {
        Some(max) => (max / (norm * s.grad_scale + 1e-6)).min(1.0),
        None => 1.0,
    };
    let t = s.step as f64;
    let correction1 = 1.0 - s.beta1.powf(t);
    let correction2 = 1.0 - s.beta2.powf(t);
    for i in 0..state.params.as_slice().len() {
        let g = state.grads[i] * s.grad_scale * clip;
        let m = s.beta1 * state.m[i] + (1.0 - s.beta1) * g;
        let v = s.beta2 * state.v[i] + (1.0 - s.beta2) * g * g;
        let decayed = state.params[i] * (1.0 - s.lr * s.weight_decay);
        let p = decayed - s.lr * (m / correction1) / ((v / correction2).sqrt() + s.eps);
        state.m[i] = m;
        state.v[i] = v;
        state.params[i] = p;
        state.ema[i] = s.ema_decay * state.ema[i] + (1.0 - s.ema_decay) * p;
    }
}
