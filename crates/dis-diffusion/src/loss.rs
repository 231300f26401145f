//! Training losses with their gradient with respect to the network output (Ho et al., 2020,
//! equation 14; the hybrid with learned variances: Nichol and Dhariwal, 2021, equation 16). All
//! in float64; only inputs and the gradient are float32.

use std::f64::consts::LN_2;

use ndarray::{Array4, ArrayView3, ArrayView4, Axis};
use rayon::prelude::*;

use crate::likelihood::{Term, discretised_nll, kl};
use crate::{Error, GaussianDiffusion, LossKind, Prediction, Result};

/// The loss of a batch.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Mean square error of the prediction, per sample; absent for losses that are a bound only.
    pub mse: Option<Vec<f64>>,
    /// Term of the variational bound in bits per dimension, per sample, scaled as it enters the
    /// loss; absent where the loss has no such term.
    pub vb: Option<Vec<f64>>,
    /// Loss per sample, before weighting.
    pub total: Vec<f64>,
    /// Mean over the batch of weight times loss: what the gradient belongs to.
    pub mean: f64,
    /// Gradient of `mean` with respect to the network output.
    pub gradient: Array4<f32>,
}

/// One sample in float64.
pub(crate) struct Inputs<'a> {
    pub x_start: &'a [f64],
    pub x_t: &'a [f64],
    pub noise: &'a [f64],
    /// Prediction channels, then variance channels if learned.
    pub output: &'a [f64],
}

/// Loss terms of one sample and the gradient of their sum.
pub(crate) struct SampleLoss {
    pub mse: f64,
    pub vb: f64,
    pub gradient: Vec<f64>,
}

impl GaussianDiffusion {
    /// The training loss of a network's `output` at `x_t = q_sample(x_start, t, noise)`, and its
    /// gradient. `t` holds a step for each sample; `weights`, if given, a factor for each.
    /// A sample's part of the sum does not depend on threads.
    ///
    /// # Errors
    /// Shapes that do not fit, a step that does not exist, a wrong number of weights.
    pub fn training_loss(
        &self,
        x_start: ArrayView4<'_, f32>,
        noise: ArrayView4<'_, f32>,
        t: &[usize],
        output: ArrayView4<'_, f32>,
        weights: Option<&[f64]>,
    ) -> Result<Loss> {
        let (batch, channels, height, width) = x_start.dim();
        self.check_steps(t, batch)?;
        if noise.dim() != x_start.dim() {
            return Err(Error::shape("noise", noise.shape(), x_start.shape()));
        }
        let expected = [batch, self.network_channels(channels), height, width];
        if output.shape() != expected {
            return Err(Error::shape("network output", output.shape(), &expected));
        }
        if let Some(weights) = weights.filter(|w| w.len() != batch) {
            return Err(Error::Count {
                what: "loss weights",
                got: weights.len(),
                expected: batch,
            });
        }
        let weight = |row: usize| weights.map_or(1.0, |w| w[row]);
        let mut gradient = Array4::zeros(output.raw_dim());
        let rows: Vec<_> = gradient.axis_iter_mut(Axis(0)).collect();
        let terms: Vec<(f64, f64)> = rows
            .into_par_iter()
            .enumerate()
            .map(|(row, mut gradient)| {
                let (x_start, noise) = (
                    wide(x_start.index_axis(Axis(0), row)),
                    wide(noise.index_axis(Axis(0), row)),
                );
                let output = wide(output.index_axis(Axis(0), row));
                let signal = self.tables().sqrt_alphas_cumprod[t[row]];
                let spread = self.tables().sqrt_one_minus_alphas_cumprod[t[row]];
                let x_t: Vec<f64> = x_start
                    .iter()
                    .zip(&noise)
                    .map(|(x, z)| signal * x + spread * z)
                    .collect();
                let inputs = Inputs {
                    x_start: &x_start,
                    x_t: &x_t,
                    noise: &noise,
                    output: &output,
                };
                let loss = self.sample_loss(t[row], &inputs);
                let scale = weight(row) / batch as f64;
                gradient
                    .iter_mut()
                    .zip(&loss.gradient)
                    .for_each(|(out, g)| *out = (scale * g) as f32);
                (loss.mse, loss.vb)
            })
            .collect();
        let total: Vec<f64> = terms.iter().map(|(mse, vb)| mse + vb).collect();
        let mean = total
            .iter()
            .enumerate()
            .map(|(row, x)| weight(row) * x)
            .sum::<f64>();
        Ok(Loss {
            mse: self
                .has_mse()
                .then(|| terms.iter().map(|term| term.0).collect()),
            vb: self
                .has_bound()
                .then(|| terms.iter().map(|term| term.1).collect()),
            total,
            mean: mean / batch.max(1) as f64,
            gradient,
        })
    }

    fn has_mse(&self) -> bool {
        matches!(self.loss_kind(), LossKind::Mse | LossKind::RescaledMse)
    }

    fn has_bound(&self) -> bool {
        !self.has_mse() || self.variance().is_learned()
    }

    /// Factor of the bound term in the loss.
    fn bound_factor(&self) -> f64 {
        match self.loss_kind() {
            LossKind::Mse | LossKind::Kl => 1.0,
            LossKind::RescaledMse => self.steps() as f64 / 1000.0,
            LossKind::RescaledKl => self.steps() as f64,
        }
    }

    pub(crate) fn sample_loss(&self, t: usize, inputs: &Inputs<'_>) -> SampleLoss {
        let count = inputs.x_start.len();
        let mut loss = SampleLoss {
            mse: 0.0,
            vb: 0.0,
            gradient: vec![0.0; inputs.output.len()],
        };
        if self.has_mse() {
            let (on_noise, on_start) = self.target_coefficients(t);
            for i in 0..count {
                let target = on_noise * inputs.noise[i] + on_start * inputs.x_start[i];
                let off = inputs.output[i] - target;
                loss.mse += off * off / count as f64;
                loss.gradient[i] = 2.0 * off / count as f64;
            }
        }
        if self.has_bound() {
            let scale = self.bound_factor() / (count as f64 * LN_2);
            // In the hybrid loss the bound trains the variance alone: the mean is held.
            let through_mean = if self.has_mse() {
                0.0
            } else {
                scale * self.mean_slope(t)
            };
            let through_variance = scale * self.log_variance_line(t).0;
            for i in 0..count {
                let (term, _) = self.bound_element(t, inputs, i, false);
                loss.vb += scale * term.value;
                loss.gradient[i] += through_mean * term.d_mean;
                if self.variance().is_learned() {
                    loss.gradient[count + i] = through_variance * term.d_log_variance;
                }
            }
        }
        loss
    }

    /// The regression target is first * noise + second * x_0.
    fn target_coefficients(&self, t: usize) -> (f64, f64) {
        match self.prediction() {
            Prediction::Epsilon => (1.0, 0.0),
            Prediction::Start => (0.0, 1.0),
            Prediction::Velocity => (
                self.tables().sqrt_alphas_cumprod[t],
                -self.tables().sqrt_one_minus_alphas_cumprod[t],
            ),
        }
    }

    /// d mean of p / d prediction.
    fn mean_slope(&self, t: usize) -> f64 {
        self.tables().posterior_mean_coef1[t] * self.xstart_coefficients(t).0
    }

    /// The bound's term for element `i` at step `t`: at step 0 the negative log likelihood of the
    /// image, else the divergence from the posterior. Also the estimate of `x_0`.
    pub(crate) fn bound_element(
        &self,
        t: usize,
        inputs: &Inputs<'_>,
        i: usize,
        clip_denoised: bool,
    ) -> (Term, f64) {
        let (x_start, x_t) = (inputs.x_start[i], inputs.x_t[i]);
        let (on_prediction, on_x) = self.xstart_coefficients(t);
        let mut pred_xstart = on_prediction * inputs.output[i];
        if on_x != 0.0 {
            pred_xstart += on_x * x_t;
        }
        if clip_denoised {
            pred_xstart = pred_xstart.clamp(-1.0, 1.0);
        }
        let tables = self.tables();
        let (coef1, coef2) = (
            tables.posterior_mean_coef1[t],
            tables.posterior_mean_coef2[t],
        );
        let mean = coef1 * pred_xstart + coef2 * x_t;
        let (slope, offset) = self.log_variance_line(t);
        let log_variance = match inputs.output.get(x_start_len(inputs) + i) {
            Some(value) => slope * value + offset,
            None => offset,
        };
        let term = if t == 0 {
            discretised_nll(x_start, mean, log_variance)
        } else {
            let true_mean = coef1 * x_start + coef2 * x_t;
            kl(
                true_mean,
                tables.posterior_log_variance_clipped[t],
                mean,
                log_variance,
            )
        };
        (term, pred_xstart)
    }
}

fn x_start_len(inputs: &Inputs<'_>) -> usize {
    inputs.x_start.len()
}

/// An image as float64, channels first.
pub(crate) fn wide(image: ArrayView3<'_, f32>) -> Vec<f64> {
    image.iter().map(|x| f64::from(*x)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Options, Respacing, Schedule, Variance};

    const VARIANCES: [Variance; 4] = [
        Variance::LearnedRange,
        Variance::Learned,
        Variance::FixedSmall,
        Variance::FixedLarge,
    ];
    const PREDICTIONS: [Prediction; 3] =
        [Prediction::Epsilon, Prediction::Start, Prediction::Velocity];
    const KINDS: [LossKind; 4] = [
        LossKind::Mse,
        LossKind::RescaledMse,
        LossKind::Kl,
        LossKind::RescaledKl,
    ];

    proptest! {
        /// Central differences in float64 against the analytic gradient. In the hybrid loss the
        /// mean is detached in the bound, so its prediction half is compared with the mse alone.
        #[test]
        fn gradient_is_the_derivative(
            variance in 0..4usize, prediction in 0..3usize, kind in 0..4usize,
            step in prop_oneof![Just(0usize), Just(1), Just(9), 0..10usize],
            values in prop::collection::vec(-1.0..1.0f64, 12),
        ) {
            let diffusion = GaussianDiffusion::new(&Options {
                schedule: Schedule::Cosine,
                steps: 40,
                respacing: Respacing::Sections(vec![10]),
                prediction: PREDICTIONS[prediction],
                variance: VARIANCES[variance],
                loss: KINDS[kind],
            }).unwrap();
            let count = 3;
            let (x_start, rest) = values.split_at(count);
            let (noise, output) = rest.split_at(count);
            // Grey values in the open bins too.
            let x_start = [x_start[0], 1.0, -1.0];
            let signal = diffusion.tables().sqrt_alphas_cumprod[step];
            let spread = diffusion.tables().sqrt_one_minus_alphas_cumprod[step];
            let x_t: Vec<f64> = (0..count).map(|i| signal * x_start[i] + spread * noise[i]).collect();
            let mut output = output[..diffusion.network_channels(count)].to_vec();
            // A prediction close to the truth: far away, the likelihood is at its floor.
            let (on_noise, on_start) = diffusion.target_coefficients(step);
            for i in 0..count {
                output[i] = on_noise * noise[i] + on_start * x_start[i] + 0.1 * output[i];
            }
            if variance == 1 {
                // A log variance as it would be learned.
                for v in &mut output[count..] {
                    *v += diffusion.tables().posterior_log_variance_clipped[step];
                }
            }
            let loss = |output: &[f64]| {
                diffusion.sample_loss(step, &Inputs { x_start: &x_start, x_t: &x_t, noise, output })
            };
            let here = loss(&output);
            let hybrid = matches!(KINDS[kind], LossKind::Mse | LossKind::RescaledMse);
            for i in 0..output.len() {
                let h = 1e-5;
                let mut moved = output.clone();
                moved[i] = output[i] + h;
                let up = loss(&moved);
                moved[i] = output[i] - h;
                let down = loss(&moved);
                let mut numeric = (up.mse - down.mse) / (2.0 * h);
                if i >= count || !hybrid {
                    numeric += (up.vb - down.vb) / (2.0 * h);
                }
                let bound = 1e-5 * (1.0 + numeric.abs() + here.vb.abs());
                prop_assert!(
                    (here.gradient[i] - numeric).abs() <= bound,
                    "element {i}: {} against {numeric}", here.gradient[i]
                );
            }
        }
    }
}
