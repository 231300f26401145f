//! Training losses with their gradient with respect to the network output (Ho et al., 2020,
//! equation 14; the hybrid with learned variances: Nichol and Dhariwal, 2021, equation 16). Computed
//! where a backend computes ([`ImageOps::gaussian_loss`]), all in
//! float64; only inputs and the gradient are float32.

use std::f64::consts::LN_2;

use dis_tensor::{BoundStep, Cpu, ImageOps, LossInputs, LossStep};
use ndarray::{Array4, ArrayView4};

use crate::{Error, GaussianDiffusion, LossKind, OnDevice, Prediction, Result, State};

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
}

impl GaussianDiffusion {
    /// The training loss of a network's `output` at `x_t = q_sample(x_start, t, noise)`, and its
    /// gradient, on arrays. `t` holds a step for each sample; `weights`, if given, a factor for each.
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
    ) -> Result<(Loss, Array4<f32>)> {
        let cpu = Cpu::new();
        let put = |x: ArrayView4<'_, f32>| OnDevice::new(&cpu, x.to_owned());
        let mut sums = dis_tensor::Backend::alloc(&cpu, 2 * t.len());
        let (x_start, noise, output) = (put(x_start), put(noise), put(output));
        let gradient =
            self.training_loss_on(&x_start, &noise, t, &output, weights, (&mut sums, 0))?;
        Ok((self.loss_of_sums(&sums, weights)?, gradient.fetch()?))
    }

    /// The gradient of the training loss with respect to a network's `output` at
    /// `x_t = q_sample(x_start, t, noise)`, where the images are; nothing waits for the device. `t` holds
    /// a step for each sample; `weights`, if given, a factor for each. The sums that make up the loss go
    /// to `2 * batch` elements of a buffer from an offset on: what is read of them, any time later, makes
    /// the loss by [`loss_of_sums`](Self::loss_of_sums).
    ///
    /// Where the loss of a sample is not finite (or beyond the range of float32) some of its gradient is
    /// NaN.
    ///
    /// # Errors
    /// Shapes that do not fit, a step that does not exist, a wrong number of weights, a device that failed.
    pub fn training_loss_on<B: ImageOps>(
        &self,
        x_start: &OnDevice<B>,
        noise: &OnDevice<B>,
        t: &[usize],
        output: &OnDevice<B>,
        weights: Option<&[f64]>,
        (sums, at): (&mut B::Buf<f64>, usize),
    ) -> Result<OnDevice<B>> {
        let [batch, channels, height, width] = x_start.dims();
        self.check_steps(t, batch)?;
        if noise.dims() != x_start.dims() {
            return Err(Error::shape("noise", &noise.dims(), &x_start.dims()));
        }
        let expected = [batch, self.network_channels(channels), height, width];
        if output.dims() != expected {
            return Err(Error::shape("network output", &output.dims(), &expected));
        }
        check_weights(weights, batch)?;
        let values = channels * height * width;
        let steps: Vec<LossStep> = (0..batch)
            .map(|row| {
                let weight = weights.map_or(1.0, |w| w[row]);
                self.loss_step(t[row], values, weight / batch as f64)
            })
            .collect();
        let inputs = LossInputs {
            x_start: x_start.view(),
            noise: noise.view(),
            output: output.view(),
        };
        output.like(|backend, gradient| {
            Ok(backend.gaussian_loss(&steps, inputs, gradient, sums, at)?)
        })
    }

    /// The loss of a batch from the sums of its samples, two numbers each, that
    /// [`training_loss_on`](Self::training_loss_on) left; with the weights it was given.
    ///
    /// # Errors
    /// A wrong number of weights.
    pub fn loss_of_sums(&self, sums: &[f64], weights: Option<&[f64]>) -> Result<Loss> {
        let terms = sums.as_chunks::<2>().0;
        check_weights(weights, terms.len())?;
        let weight = |row: usize| weights.map_or(1.0, |w| w[row]);
        let total: Vec<f64> = terms.iter().map(|[mse, vb]| mse + vb).collect();
        let mean = total
            .iter()
            .enumerate()
            .map(|(row, x)| weight(row) * x)
            .sum::<f64>();
        let each = |k: usize| terms.iter().map(|term| term[k]).collect();
        Ok(Loss {
            mse: self.has_mse().then(|| each(0)),
            vb: self.has_bound().then(|| each(1)),
            mean: mean / total.len().max(1) as f64,
            total,
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

    /// The numbers of step `t` for images of `values`.
    fn loss_step(&self, t: usize, values: usize, weight: f64) -> LossStep {
        let bound = self.has_bound().then(|| {
            let bound = self.bound_step(t, self.bound_factor() / (values as f64 * LN_2));
            // In the hybrid loss the bound trains the variance alone: the mean is held.
            let through_mean = if self.has_mse() {
                0.0
            } else {
                bound.through_mean
            };
            BoundStep {
                through_mean,
                ..bound
            }
        });
        LossStep {
            signal: self.tables().sqrt_alphas_cumprod[t],
            spread: self.tables().sqrt_one_minus_alphas_cumprod[t],
            target: self.has_mse().then(|| self.target_coefficients(t)),
            bound,
            weight,
        }
    }

    /// The numbers of the bound's term at step `t`: at step 0 the negative log likelihood of the
    /// image, else the divergence from the posterior, multiplied by `scale`.
    pub(crate) fn bound_step(&self, t: usize, scale: f64) -> BoundStep {
        let tables = self.tables();
        let start = self.xstart_coefficients(t).into();
        let log_variance: [f64; 2] = self.log_variance_line(t).into();
        BoundStep {
            start,
            mean: [
                tables.posterior_mean_coef1[t],
                tables.posterior_mean_coef2[t],
            ],
            log_variance,
            true_log_variance: (t > 0).then(|| tables.posterior_log_variance_clipped[t]),
            scale,
            through_mean: scale * (tables.posterior_mean_coef1[t] * start[0]),
            through_variance: scale * log_variance[0],
        }
    }

    /// The regression target is first * noise + second * x_0.
    fn target_coefficients(&self, t: usize) -> [f64; 2] {
        match self.prediction() {
            Prediction::Epsilon => [1.0, 0.0],
            Prediction::Start => [0.0, 1.0],
            Prediction::Velocity => [
                self.tables().sqrt_alphas_cumprod[t],
                -self.tables().sqrt_one_minus_alphas_cumprod[t],
            ],
        }
    }
}

fn check_weights(weights: Option<&[f64]>, batch: usize) -> Result<()> {
    match weights.filter(|w| w.len() != batch) {
        Some(weights) => Err(Error::Count {
            what: "loss weights",
            got: weights.len(),
            expected: batch,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use dis_tensor::{Backend, Reference};
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

    /// Loss terms of one image of three values, and the gradient of their sum, in float64.
    fn loss(
        diffusion: &GaussianDiffusion,
        step: usize,
        [x_start, noise, output]: [&[f64]; 3],
    ) -> ([f64; 2], Vec<f64>) {
        let b = Reference::new();
        let put = |x: &[f64]| {
            let mut buf = b.alloc(x.len());
            b.write_f64(&mut buf, 0, x).unwrap();
            OnDevice::from_buf(&b, buf, [1, x.len(), 1, 1]).unwrap()
        };
        let (x_start, noise, output) = (put(x_start), put(noise), put(output));
        let mut sums = b.alloc(2);
        let gradient = diffusion
            .training_loss_on(&x_start, &noise, &[step], &output, None, (&mut sums, 0))
            .unwrap();
        ([sums[0], sums[1]], gradient.buf().to_vec())
    }

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
            let mut output = output[..diffusion.network_channels(count)].to_vec();
            // A prediction close to the truth: far away, the likelihood is at its floor.
            let [on_noise, on_start] = diffusion.target_coefficients(step);
            for i in 0..count {
                output[i] = on_noise * noise[i] + on_start * x_start[i] + 0.1 * output[i];
            }
            if variance == 1 {
                // A log variance as it would be learned.
                for v in &mut output[count..] {
                    *v += diffusion.tables().posterior_log_variance_clipped[step];
                }
            }
            let loss = |output: &[f64]| loss(&diffusion, step, [&x_start, noise, output]);
            let ([_, vb], gradient) = loss(&output);
            let hybrid = matches!(KINDS[kind], LossKind::Mse | LossKind::RescaledMse);
            for i in 0..output.len() {
                let h = 1e-5;
                let mut moved = output.clone();
                moved[i] = output[i] + h;
                let (up, _) = loss(&moved);
                moved[i] = output[i] - h;
                let (down, _) = loss(&moved);
                let mut numeric = (up[0] - down[0]) / (2.0 * h);
                if i >= count || !hybrid {
                    numeric += (up[1] - down[1]) / (2.0 * h);
                }
                let bound = 1e-5 * (1.0 + numeric.abs() + vb.abs());
                prop_assert!(
                    (gradient[i] - numeric).abs() <= bound,
                    "element {i}: {} against {numeric}", gradient[i]
                );
            }
        }
    }
}
