//! The variational bound on the likelihood, in bits per dimension (Ho et al., 2020, equation 5;
//! Nichol and Dhariwal, 2021, section 3.1).

use std::f64::consts::LN_2;

use dis_tensor::likelihood::kl;
use ndarray::{Array2, Array4, ArrayView4, Axis, Zip};

use crate::{Denoiser, Error, GaussianDiffusion, Noise, Result};

/// Terms of the bound at one step.
#[derive(Clone, Debug)]
pub struct BoundTerms {
    /// The term of each sample, bits per dimension.
    pub bits: Vec<f64>,
    /// The estimate of `x_0` that it used.
    pub pred_xstart: Array4<f32>,
}

/// The whole bound of a batch. Columns of the arrays follow the iterations: 0 is the noisiest
/// step.
#[derive(Clone, Debug)]
pub struct BitsPerDim {
    /// The bound of each sample: its prior and all of its `vb`.
    pub total: Vec<f64>,
    /// Divergence of `q(x_T | x_0)` from the standard normal.
    pub prior: Vec<f64>,
    /// Terms of the bound, (samples, iterations).
    pub vb: Array2<f64>,
    /// Mean square error of the estimate of `x_0`, (samples, iterations).
    pub xstart_mse: Array2<f64>,
    /// Mean square error of the noise that follows from that estimate, (samples, iterations).
    pub mse: Array2<f64>,
}

impl GaussianDiffusion {
    /// The bound's terms at steps `t` for images `x_start` noised to `x_t`, given the network's
    /// output at `x_t`.
    ///
    /// # Errors
    /// Shapes that do not fit, or a step that does not exist.
    pub fn bound_terms(
        &self,
        x_start: ArrayView4<'_, f32>,
        x_t: ArrayView4<'_, f32>,
        t: &[usize],
        output: ArrayView4<'_, f32>,
        clip_denoised: bool,
    ) -> Result<BoundTerms> {
        let (batch, channels, height, width) = x_start.dim();
        self.check_steps(t, batch)?;
        if x_t.dim() != x_start.dim() {
            return Err(Error::shape("x_t", x_t.shape(), x_start.shape()));
        }
        let expected = [batch, self.network_channels(channels), height, width];
        if output.shape() != expected {
            return Err(Error::shape("network output", output.shape(), &expected));
        }
        let mut pred_xstart = Array4::zeros(x_start.raw_dim());
        let mut bits = Vec::with_capacity(batch);
        for (row, mut image) in pred_xstart.axis_iter_mut(Axis(0)).enumerate() {
            let step = self.bound_step(t[row], 1.0);
            let (x_start, x_t) = (
                x_start.index_axis(Axis(0), row),
                x_t.index_axis(Axis(0), row),
            );
            let output = output.index_axis(Axis(0), row);
            let variances = output
                .iter()
                .skip(x_start.len())
                .map(|v| Some(f64::from(*v)));
            let predictions = output.iter().zip(variances.chain(std::iter::repeat(None)));
            let mut nats = 0.0;
            for (((estimate, x), x_t), (o, variance)) in
                image.iter_mut().zip(x_start).zip(x_t).zip(predictions)
            {
                let (x, x_t) = (f64::from(*x), f64::from(*x_t));
                let mut pred = step.estimate(f64::from(*o), x_t);
                if clip_denoised {
                    pred = pred.clamp(-1.0, 1.0);
                }
                nats += step.term(x, x_t, pred, variance).value;
                *estimate = pred as f32;
            }
            bits.push(nats / (x_start.len() as f64 * LN_2));
        }
        Ok(BoundTerms { bits, pred_xstart })
    }

    /// Divergence of `q(x_T | x_0)` from the standard normal for each image, bits per dimension.
    pub fn prior_bits(&self, x_start: ArrayView4<'_, f32>) -> Vec<f64> {
        let last = self.steps() - 1;
        let signal = self.tables().sqrt_alphas_cumprod[last];
        let log_variance = self.tables().log_one_minus_alphas_cumprod[last];
        x_start
            .axis_iter(Axis(0))
            .map(|image| {
                let nats: f64 = image
                    .iter()
                    .map(|x| kl(signal * f64::from(*x), log_variance, 0.0, 0.0).value)
                    .sum();
                nats / (image.len() as f64 * LN_2)
            })
            .collect()
    }

    /// The whole bound of images `x_start`, one network call for each step.
    ///
    /// # Errors
    /// What the network or the noise fail with.
    pub fn bits_per_dim(
        &self,
        network: &mut dyn Denoiser,
        x_start: &Array4<f32>,
        noise: &mut dyn Noise,
        clip_denoised: bool,
    ) -> Result<BitsPerDim> {
        let (batch, steps) = (x_start.dim().0, self.steps());
        let zeros = || Array2::zeros((batch, steps));
        let (mut vb, mut xstart_mse, mut mse) = (zeros(), zeros(), zeros());
        for iteration in 0..steps {
            let t = vec![steps - 1 - iteration; batch];
            let draw = noise.draw(iteration, x_start)?;
            let x_t = self.q_sample(x_start, &t, &draw)?;
            let output = network.predict(&x_t, &self.network_timesteps(&t)?)?;
            let terms =
                self.bound_terms(x_start.view(), x_t.view(), &t, output.view(), clip_denoised)?;
            let epsilon = self.pred_epsilon(&terms.pred_xstart, &x_t, &t)?;
            for row in 0..batch {
                vb[[row, iteration]] = terms.bits[row];
                xstart_mse[[row, iteration]] = mean_square(&terms.pred_xstart, x_start, row);
                mse[[row, iteration]] = mean_square(&epsilon, &draw, row);
            }
        }
        let prior = self.prior_bits(x_start.view());
        let total = prior
            .iter()
            .zip(vb.rows())
            .map(|(p, row)| p + row.sum())
            .collect();
        Ok(BitsPerDim {
            total,
            prior,
            vb,
            xstart_mse,
            mse,
        })
    }
}

fn mean_square(a: &Array4<f32>, b: &Array4<f32>, row: usize) -> f64 {
    let (a, b) = (a.index_axis(Axis(0), row), b.index_axis(Axis(0), row));
    let sum = Zip::from(a).and(b).fold(0.0, |sum, x, y| {
        let off = f64::from(*x) - f64::from(*y);
        sum + off * off
    });
    sum / a.len().max(1) as f64
}
