//! The global gradient norm and the optimizer step.

use super::threads::{GRAIN, Pieces};
use super::{Cpu, lanes};
use crate::operands::AdamW;
use crate::simd::{Kernel, Simd, dispatch};

struct Squares<'a>(&'a [f32]);

impl Kernel for Squares<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        lanes::sum_squares_f64(self.0)
    }
}

/// `sqrt(sum of squares)`.
pub(super) fn global_norm(cpu: &Cpu, x: &[f32]) -> f64 {
    let level = cpu.level();
    let mut scratch = cpu.scratch::<f64>(x.len().div_ceil(GRAIN));
    let partial = Pieces {
        data: scratch.as_mut_slice(),
        width: 1,
        units: GRAIN,
    };
    cpu.threads
        .blocks(x.len(), GRAIN, x.len(), partial, |range, partial| {
            partial.data[0] = dispatch(level, Squares(&x[range]));
        });
    scratch.iter().sum::<f64>().sqrt()
}

/// The arenas, as slices of one length.
pub(super) struct Arenas<'a> {
    pub(super) params: &'a mut [f32],
    pub(super) grads: &'a [f32],
    pub(super) m: &'a mut [f32],
    pub(super) v: &'a mut [f32],
    pub(super) ema: &'a mut [f32],
}

/// What one step multiplies with, formed in float64 and rounded once.
struct Factors {
    /// Of the gradient: accumulation and clipping.
    grad: f32,
    /// 1 - lr * weight_decay.
    keep: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    /// lr / (1 - beta1^t).
    step: f32,
    /// 1 / sqrt(1 - beta2^t).
    inverse_root: f32,
    eps: f32,
    ema: f32,
    one_minus_ema: f32,
}

/// One AdamW step; nothing changes unless `norm` (of the unscaled gradients) is finite.
pub(super) fn adamw(cpu: &Cpu, arenas: Arenas<'_>, norm: f32, s: &AdamW) {
    if !norm.is_finite() {
        return;
    }
    let clip = match s.max_grad_norm {
        Some(max) => (max / (f64::from(norm) * s.grad_scale + 1e-6)).min(1.0),
        None => 1.0,
    };
    let t = s.step as f64;
    // libm: powf and the like differ between platforms.
    let correction1 = 1.0 - libm::pow(s.beta1, t);
    let correction2 = 1.0 - libm::pow(s.beta2, t);
    let f = Factors {
        grad: (s.grad_scale * clip) as f32,
        keep: (1.0 - s.lr * s.weight_decay) as f32,
        one_minus_beta1: (1.0 - s.beta1) as f32,
        beta2: s.beta2 as f32,
        one_minus_beta2: (1.0 - s.beta2) as f32,
        step: (s.lr / correction1) as f32,
        inverse_root: (1.0 / correction2.sqrt()) as f32,
        eps: s.eps as f32,
        ema: s.ema_decay as f32,
        one_minus_ema: (1.0 - s.ema_decay) as f32,
    };
    let level = cpu.level();
    let Arenas {
        params,
        grads,
        m,
        v,
        ema,
    } = arenas;
    let n = params.len();
    cpu.threads.blocks(
        n,
        GRAIN,
        n,
        (params, m, v, ema),
        |range, (params, m, v, ema)| {
            dispatch(
                level,
                Update(
                    &f,
                    Arenas {
                        params,
                        grads: &grads[range],
                        m,
                        v,
                        ema,
                    },
                ),
            );
        },
    );
}

struct Update<'a, 'b>(&'a Factors, Arenas<'b>);

impl Kernel for Update<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self(
            f,
            Arenas {
                params,
                grads,
                m,
                v,
                ema,
            },
        ) = self;
        let n = grads.len();
        // Equal lengths, stated so that the loop needs no bounds checks.
        let (p, m, v, ema) = (&mut params[..n], &mut m[..n], &mut v[..n], &mut ema[..n]);
        for i in 0..n {
            let g = grads[i] * f.grad;
            let moment = m[i] + f.one_minus_beta1 * (g - m[i]);
            let square = f.beta2 * v[i] + f.one_minus_beta2 * g * g;
            let denominator = square.sqrt() * f.inverse_root + f.eps;
            let value = p[i] * f.keep - f.step * moment / denominator;
            m[i] = moment;
            v[i] = square;
            p[i] = value;
            ema[i] = f.ema * ema[i] + f.one_minus_ema * value;
        }
    }
}
