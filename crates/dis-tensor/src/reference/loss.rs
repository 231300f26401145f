//! The training loss, from the formulas, in float64: what scalars carry besides ends here.

use std::f64::consts::PI;

use super::{Buf, Reference, at, at_mut};
use crate::backend::ViewMut;
use crate::error::Result;
use crate::host::HostBuf;
use crate::loss::{BoundStep, LossInputs, LossStep, spoilt};
use crate::scalar::Scalar;

impl<S: Scalar> Reference<S> {
    pub(super) fn loss(
        &self,
        steps: &[LossStep],
        inputs: LossInputs<'_, Buf<S>>,
        mut gradient: ViewMut<'_, Self>,
        sums: &mut HostBuf<f64>,
        first: usize,
    ) -> Result<()> {
        let learned = inputs.learned();
        let n = inputs.x_start.layout.channels;
        for (b, step) in steps.iter().enumerate() {
            let mut total = [0.0; 2];
            for i in 0..n {
                let [x, z, o] = [&inputs.x_start, &inputs.noise, &inputs.output]
                    .map(|x| at(x, b, 0, i).value());
                let (mut d_output, mut d_variance) = (0.0, 0.0);
                if let Some([on_noise, on_start]) = step.target {
                    let off = o - on_noise * z - on_start * x;
                    total[0] += off * off / n as f64;
                    d_output += 2.0 * off / n as f64;
                }
                if let Some(bound) = &step.bound {
                    let x_t = step.signal * x + step.spread * z;
                    let [slope, offset] = bound.log_variance;
                    let log_variance = if learned {
                        slope * at(&inputs.output, b, 0, n + i).value() + offset
                    } else {
                        offset
                    };
                    let [value, d_mean, d_log] = term(bound, [x, x_t, o], log_variance);
                    total[1] += bound.scale * value;
                    d_output += bound.through_mean * d_mean;
                    d_variance = bound.through_variance * d_log;
                }
                *at_mut(&mut gradient, b, 0, i) = (step.weight * d_output).into();
                if learned {
                    *at_mut(&mut gradient, b, 0, n + i) = (step.weight * d_variance).into();
                }
            }
            if n > 0 && spoilt(total) {
                *at_mut(&mut gradient, b, 0, 0) = f64::NAN.into();
            }
            sums.as_mut_slice()[first + 2 * b..][..2].copy_from_slice(&total);
        }
        Ok(())
    }
}

/// A term of the bound, its derivative by the mean and that by the log variance.
fn term(bound: &BoundStep, [x, x_t, o]: [f64; 3], log_variance: f64) -> [f64; 3] {
    let mut start = bound.start[0] * o;
    if bound.start[1] != 0.0 {
        start += bound.start[1] * x_t;
    }
    let mean = bound.mean[0] * start + bound.mean[1] * x_t;
    let Some(truth) = bound.true_log_variance else {
        return likelihood(x, mean, (-0.5 * log_variance).exp());
    };
    let apart = mean - (bound.mean[0] * x + bound.mean[1] * x_t);
    let squares = (truth - log_variance).exp() + apart * apart / log_variance.exp();
    [
        (log_variance - truth + squares - 1.0) / 2.0,
        apart / log_variance.exp(),
        (1.0 - squares) / 2.0,
    ]
}

/// Minus the logarithm of the probability of a grey value's bin, no less than 1e-12, under the tanh
/// approximation of the normal distribution function; the outermost bins are open.
fn likelihood(x: f64, mean: f64, inverse: f64) -> [f64; 3] {
    const CUBIC: f64 = 0.044715;
    let steep = 2.0 * (2.0 / PI).sqrt();
    let below = |z: f64| 1.0 / (1.0 + (-steep * (z + CUBIC * z.powi(3))).exp());
    let density = |z: f64| below(z) * below(-z) * steep * (1.0 + 3.0 * CUBIC * z * z);
    let (upper, lower) = (
        inverse * (x - mean + 1.0 / 255.0),
        inverse * (x - mean - 1.0 / 255.0),
    );
    let (no_upper, no_lower) = (x > 0.999, x < -0.999);
    let probability = match (no_lower, no_upper) {
        (true, _) => below(upper),
        (_, true) => below(-lower),
        // Of the two tails the one whose values are small.
        _ if lower > 0.0 => below(-lower) - below(-upper),
        _ => below(upper) - below(lower),
    };
    if probability < 1e-12 {
        return [-(1e-12f64).ln(), 0.0, 0.0];
    }
    let d_upper = if no_upper { 0.0 } else { density(upper) };
    let d_lower = if no_lower { 0.0 } else { density(lower) };
    let times = |slope: f64, z: f64| if slope == 0.0 { 0.0 } else { slope * z };
    [
        -probability.ln(),
        inverse * (d_upper - d_lower) / probability,
        (times(d_upper, upper) - times(d_lower, lower)) / (2.0 * probability),
    ]
}
