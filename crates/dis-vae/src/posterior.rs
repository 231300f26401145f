//! What the encoder says of an image: a Gaussian over latents.

use ndarray::{Array4, ArrayView4, Axis, Zip, s};

use crate::error::{Result, VaeError};

/// Bounds of the log variance, as in the published code.
const LOG_VAR: [f32; 2] = [-30.0, 20.0];

/// Independent Gaussians over latents, (batch, channels, height, width).
#[derive(Clone, Debug, PartialEq)]
pub struct Posterior {
    /// Means.
    pub mean: Array4<f32>,
    /// Logarithms of the variances, in [-30, 20].
    pub log_var: Array4<f32>,
}

impl Posterior {
    /// From moments: means in the first half of the channels, log variances in the second, which
    /// are clamped.
    pub fn from_moments(moments: ArrayView4<'_, f32>) -> Self {
        let half = moments.len_of(Axis(1)) / 2;
        let [low, high] = LOG_VAR;
        Self {
            mean: moments.slice(s![.., ..half, .., ..]).to_owned(),
            log_var: moments
                .slice(s![.., half.., .., ..])
                .mapv(|x| x.clamp(low, high)),
        }
    }

    /// `mean + exp(log_var / 2) * noise`.
    ///
    /// # Errors
    /// If `noise` does not have the shape of the means.
    pub fn sample(&self, noise: ArrayView4<'_, f32>) -> Result<Array4<f32>> {
        if noise.shape() != self.mean.shape() {
            return Err(VaeError::input(
                "sample",
                format!(
                    "noise of {:?} for latents of {:?}",
                    noise.shape(),
                    self.mean.shape()
                ),
            ));
        }
        let mut latents = self.mean.clone();
        Zip::from(&mut latents)
            .and(&self.log_var)
            .and(noise)
            .for_each(|z, &log_var, &noise| *z += (0.5 * log_var).exp() * noise);
        Ok(latents)
    }
}
