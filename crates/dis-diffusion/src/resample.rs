//! Weights and draws of training timesteps.

use dis_tensor::random::{Purpose, Stream};

use crate::{Error, GaussianDiffusion, Prediction, Result};

impl GaussianDiffusion {
    /// Min-SNR loss weights (Hang et al., "Efficient Diffusion Training via Min-SNR Weighting
    /// Strategy", 2023, section 3.3) for the samples' steps: with SNR the signal-to-noise ratio
    /// `alpha_bar / (1 - alpha_bar)`, the loss in `x_0` is weighted by `min(SNR, gamma)`, hence
    /// that in epsilon by `min(SNR, gamma) / SNR` and that in v by `min(SNR, gamma) / (SNR + 1)`.
    /// 5 is the usual gamma. The weights are for
    /// [`training_loss`](Self::training_loss), where they apply to all of a sample's loss.
    ///
    /// # Errors
    /// A gamma that is not positive, or a step that does not exist.
    pub fn min_snr_weights(&self, t: &[usize], gamma: f64) -> Result<Vec<f64>> {
        if !(gamma > 0.0 && gamma.is_finite()) {
            return Err(Error::Invalid(format!(
                "min-SNR's gamma {gamma} is not a positive number"
            )));
        }
        self.per_sample(t, t.len(), |t| {
            let bar = self.tables().alphas_cumprod[t];
            let snr = bar / (1.0 - bar);
            match self.prediction() {
                Prediction::Epsilon => (gamma / snr).min(1.0),
                Prediction::Start => snr.min(gamma),
                Prediction::Velocity => snr.min(gamma) / (snr + 1.0),
            }
        })
    }
}

/// Loss-aware draws of training timesteps (Nichol and Dhariwal, "Improved Denoising Diffusion
/// Probabilistic Models", 2021, section 3.3, equation 18): a step is drawn with probability
/// `sqrt(E[L^2])` of its last losses, mixed with a little of the uniform distribution, and its loss
/// is weighted by `1 / (steps * probability)`, so that the expected loss does not change. Until
/// every step has a full history, draws are uniform.
///
/// All state is in the public fields: storing and restoring them continues exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct SecondMomentSampler {
    /// Losses remembered for each step.
    pub history: usize,
    /// Share of the uniform distribution.
    pub uniform_probability: f64,
    /// Losses, `history` for each step, oldest first; those not seen yet are 0, at the end.
    pub losses: Vec<f64>,
    /// Losses seen of each step, at most `history`.
    pub counts: Vec<u32>,
}

impl SecondMomentSampler {
    /// No losses seen; the published history of 10 and uniform share of 0.001.
    pub fn new(steps: usize) -> Self {
        Self::with_history(steps, 10, 0.001)
    }

    /// No losses seen.
    pub fn with_history(steps: usize, history: usize, uniform_probability: f64) -> Self {
        Self {
            history,
            uniform_probability,
            losses: vec![0.0; steps * history],
            counts: vec![0; steps],
        }
    }

    /// Checks restored fields.
    ///
    /// # Errors
    /// Lengths that do not fit, a share outside [0, 1], losses that are not finite.
    pub fn validate(&self) -> Result<()> {
        let fits = self.losses.len() == self.counts.len() * self.history
            && !self.counts.is_empty()
            && self.history > 0
            && self.counts.iter().all(|c| *c as usize <= self.history);
        if !fits {
            return Err(Error::Invalid(format!(
                "a timestep sampler with {} losses for {} steps, {} each",
                self.losses.len(),
                self.counts.len(),
                self.history
            )));
        }
        let sound = (0.0..=1.0).contains(&self.uniform_probability)
            && self.losses.iter().all(|l| l.is_finite());
        if !sound {
            return Err(Error::Invalid(
                "a timestep sampler whose numbers are not finite".to_owned(),
            ));
        }
        Ok(())
    }

    /// Steps of the diffusion.
    pub fn steps(&self) -> usize {
        self.counts.len()
    }

    /// Whether every step has a full history.
    pub fn is_warm(&self) -> bool {
        self.counts.iter().all(|c| *c as usize == self.history)
    }

    /// The probability of each step.
    pub fn probabilities(&self) -> Vec<f64> {
        let steps = self.steps() as f64;
        if !self.is_warm() || self.history == 0 {
            return vec![1.0 / steps; self.steps()];
        }
        let roots: Vec<f64> = self
            .losses
            .chunks(self.history)
            .map(|losses| {
                let squares: f64 = losses.iter().map(|l| l * l).sum();
                (squares / losses.len() as f64).sqrt()
            })
            .collect();
        let sum: f64 = roots.iter().sum();
        if sum <= 0.0 {
            return vec![1.0 / steps; self.steps()];
        }
        let uniform = self.uniform_probability;
        roots
            .iter()
            .map(|root| root / sum * (1.0 - uniform) + uniform / steps)
            .collect()
    }

    /// A step and its loss weight for each training sample, keyed by (seed, sample, step of the
    /// training), as [`uniform_timesteps`](crate::uniform_timesteps) is.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn draw(&self, seed: u64, samples: &[u64], step: u64) -> Result<(Vec<usize>, Vec<f64>)> {
        self.validate()?;
        let probabilities = self.probabilities();
        let steps = self.steps();
        let cumulative: Vec<f64> = probabilities
            .iter()
            .scan(0.0, |sum, p| {
                *sum += p;
                Some(*sum)
            })
            .collect();
        let total = cumulative.last().copied().unwrap_or(1.0);
        let drawn: Vec<usize> = samples
            .iter()
            .map(|&sample| {
                let u = total * Stream::new(seed, Purpose::Timestep, sample, step).uniform();
                cumulative.partition_point(|sum| *sum <= u).min(steps - 1)
            })
            .collect();
        let weights = drawn
            .iter()
            .map(|t| 1.0 / (steps as f64 * probabilities[*t]))
            .collect();
        Ok((drawn, weights))
    }

    /// Remembers the losses of drawn steps, unweighted, in the order given. Losses that are not
    /// finite are left out.
    ///
    /// # Errors
    /// Not as many losses as steps, or a step that does not exist.
    pub fn update(&mut self, t: &[usize], losses: &[f64]) -> Result<()> {
        self.validate()?;
        if t.len() != losses.len() {
            return Err(Error::Count {
                what: "losses",
                got: losses.len(),
                expected: t.len(),
            });
        }
        if let Some(&index) = t.iter().find(|t| **t >= self.steps()) {
            return Err(Error::Timestep {
                index,
                steps: self.steps(),
            });
        }
        for (&t, &loss) in t.iter().zip(losses).filter(|(_, l)| l.is_finite()) {
            let row = &mut self.losses[t * self.history..(t + 1) * self.history];
            let seen = self.counts[t] as usize;
            if seen < row.len() {
                row[seen] = loss;
                self.counts[t] += 1;
            } else {
                row.rotate_left(1);
                row[seen - 1] = loss;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Schedule};

    #[test]
    fn min_snr_weighs_all_predictions_alike_in_x_start() {
        let of = |prediction| {
            GaussianDiffusion::new(&Options {
                prediction,
                ..Options::default()
            })
            .unwrap()
        };
        let t: Vec<usize> = (0..1000).step_by(37).collect();
        let start = of(Prediction::Start).min_snr_weights(&t, 5.0).unwrap();
        let epsilon = of(Prediction::Epsilon).min_snr_weights(&t, 5.0).unwrap();
        let velocity = of(Prediction::Velocity).min_snr_weights(&t, 5.0).unwrap();
        let tables = of(Prediction::Start).tables().clone();
        for (i, &t) in t.iter().enumerate() {
            let bar = tables.alphas_cumprod[t];
            let snr = bar / (1.0 - bar);
            // An error e in x_0 is an error sqrt(SNR) e in epsilon and e / sqrt(1 - bar) in v.
            assert!((epsilon[i] * snr - start[i]).abs() < 1e-9 * start[i]);
            assert!((velocity[i] / (1.0 - bar) - start[i]).abs() < 1e-9 * start[i]);
            assert!(start[i] <= 5.0 && epsilon[i] <= 1.0);
        }
        let zero = GaussianDiffusion::new(&Options {
            prediction: Prediction::Velocity,
            schedule: Schedule::LinearZeroSnr,
            ..Options::default()
        })
        .unwrap();
        assert_eq!(zero.min_snr_weights(&[999], 5.0).unwrap(), [0.0]);
        assert!(zero.min_snr_weights(&[1000], 5.0).is_err());
        assert!(zero.min_snr_weights(&[0], 0.0).is_err());
    }

    #[test]
    fn draws_follow_the_losses_and_weights_undo_them() {
        let mut sampler = SecondMomentSampler::with_history(4, 2, 0.1);
        let losses = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(sampler.probabilities(), [0.25; 4]);
        for _ in 0..3 {
            sampler.update(&[0, 1, 2, 3], &losses).unwrap();
        }
        assert!(sampler.is_warm());
        let p = sampler.probabilities();
        for (p, loss) in p.iter().zip(losses) {
            assert!((p - (0.9 * loss / 10.0 + 0.025)).abs() < 1e-12);
        }
        let samples: Vec<u64> = (0..20_000).collect();
        let (t, weights) = sampler.draw(3, &samples, 8).unwrap();
        let mean = t.iter().zip(&weights).map(|(t, w)| losses[*t] * w);
        let mean = mean.sum::<f64>() / samples.len() as f64;
        assert!((mean - 2.5).abs() < 0.03, "{mean}");
        let share = t.iter().filter(|t| **t == 3).count() as f64 / samples.len() as f64;
        assert!((share - p[3]).abs() < 0.02, "{share}");
        // The same draw for a sample in any batch.
        let (alone, _) = sampler.draw(3, &[77], 8).unwrap();
        assert_eq!(alone[0], t[77]);
    }

    #[test]
    fn only_the_last_losses_count() {
        let mut sampler = SecondMomentSampler::with_history(2, 3, 0.0);
        for loss in [9.0, 1.0, 2.0, 3.0] {
            sampler.update(&[1], &[loss]).unwrap();
        }
        sampler.update(&[0], &[f64::NAN]).unwrap();
        assert_eq!(sampler.losses, [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(sampler.counts, [0, 3]);
        assert!(sampler.update(&[2], &[1.0]).is_err());
        assert!(sampler.update(&[0, 1], &[1.0]).is_err());
        sampler.losses.pop();
        assert!(sampler.draw(0, &[0], 0).is_err());
    }
}
