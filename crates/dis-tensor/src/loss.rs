//! The training loss of a Gaussian diffusion for [`ImageOps::gaussian_loss`](crate::ImageOps): its
//! numbers, and what its arguments must satisfy.
//!
//! For one sample of n values with clean image x, noise z and network output o (n values, and n more
//! where the variance is learned, v):
//!
//! ```text
//! x_t      = signal x + spread z
//! target   = target[0] z + target[1] x                 (Ho et al., 2020, equation 14)
//! mse      = sum of (o - target)^2 / n
//! start    = start[0] o + start[1] x_t                 the model's estimate of x
//! mean     = mean[0] start + mean[1] x_t               of p(x_(t-1) | x_t)
//! log v_p  = log_variance[0] v + log_variance[1]
//! bound    = sum of scale * term
//! term     = KL(N(mean[0] x + mean[1] x_t, exp(true_log_variance)) || N(mean, exp(log v_p)))
//!            or, without a true variance, the negative log likelihood of x under
//!            N(mean, exp(log v_p)), discretised to 256 grey values (Ho et al., equation 13)
//! do       = weight * (2 (o - target) / n + through_mean * d term / d mean)
//! dv       = weight * through_variance * d term / d log v_p
//! ```
//!
//! The hybrid loss with learned variances (Nichol and Dhariwal, 2021, equation 16) holds the mean in the
//! bound: then `through_mean` is 0.

use crate::backend::{Backend, Buffer, Reals, ViewMut};
use crate::check::{self, dst, src};
use crate::error::Result;
use crate::layout::Tokens;
use crate::likelihood::{Term, discretised_nll, kl};

/// The numbers of one sample, as the module names them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossStep {
    /// Coefficient of x in x_t.
    pub signal: f64,
    /// Coefficient of z in x_t.
    pub spread: f64,
    /// Coefficients of z and x in the target, if the loss has a mean square error.
    pub target: Option<[f64; 2]>,
    /// The bound's numbers, if the loss has a term of the variational bound.
    pub bound: Option<BoundStep>,
    /// Factor of the gradient.
    pub weight: f64,
}

/// The numbers of a sample's term of the variational bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundStep {
    /// Coefficients of o and x_t in the estimate of x.
    pub start: [f64; 2],
    /// Coefficients of an x and x_t in the posterior's mean.
    pub mean: [f64; 2],
    /// Slope and offset of the model's log variance.
    pub log_variance: [f64; 2],
    /// Log variance of the posterior; none at the last step, whose term is a likelihood.
    pub true_log_variance: Option<f64>,
    /// Factor of each element's term in the sum.
    pub scale: f64,
    /// Factor of the term's derivative by the mean in the gradient.
    pub through_mean: f64,
    /// Factor of the term's derivative by the log variance in the gradient.
    pub through_variance: f64,
}

impl BoundStep {
    /// The estimate of x for an output `o` at `x_t`.
    pub fn estimate(&self, o: f64, x_t: f64) -> f64 {
        let start = self.start[0] * o;
        if self.start[1] == 0.0 {
            start
        } else {
            start + self.start[1] * x_t
        }
    }

    /// The term of one element in nats, from the estimate of x (see [`BoundStep::estimate`]) and the
    /// value of its variance channel, if it has one.
    pub fn term(&self, x: f64, x_t: f64, estimate: f64, variance: Option<f64>) -> Term {
        let of = |x: f64| self.mean[0] * x + self.mean[1] * x_t;
        let [slope, offset] = self.log_variance;
        let log_variance = variance.map_or(offset, |v| slope * v + offset);
        let mean = of(estimate);
        match self.true_log_variance {
            Some(truth) => kl(of(x), truth, mean, log_variance),
            None => discretised_nll(x, mean, log_variance),
        }
    }
}

/// What a loss is computed from: batches of images, (batch, 1, n).
#[derive(Debug)]
pub struct LossInputs<'a, Bf: ?Sized> {
    /// Clean images.
    pub x_start: Tokens<'a, Bf>,
    /// The noise that was added.
    pub noise: Tokens<'a, Bf>,
    /// The network's output, (batch, 1, n), or (batch, 1, 2 n) where the variance is learned.
    pub output: Tokens<'a, Bf>,
}

impl<Bf: ?Sized> Clone for LossInputs<'_, Bf> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<Bf: ?Sized> Copy for LossInputs<'_, Bf> {}

impl<Bf: ?Sized> LossInputs<'_, Bf> {
    /// Whether the variance is learned.
    pub(crate) fn learned(&self) -> bool {
        let values = self.x_start.layout.channels;
        self.output.layout.channels == 2 * values && values > 0
    }
}

/// The largest loss of a sample whose gradient counts: the largest float32.
pub(crate) const LARGEST: f64 = f32::MAX as f64;

/// Whether the gradient of a sample with these sums is to be not-a-number.
pub(crate) fn spoilt(sums: [f64; 2]) -> bool {
    let total = (sums[0] + sums[1]).abs();
    total.is_nan() || total > LARGEST
}

/// The arguments of [`ImageOps::gaussian_loss`](crate::ImageOps::gaussian_loss).
pub(crate) fn check_loss<B: Backend>(
    steps: &[LossStep],
    inputs: &LossInputs<'_, Reals<B>>,
    gradient: &ViewMut<'_, B>,
    sums: &B::Buf<f64>,
    at: usize,
) -> Result<()> {
    const OP: &str = "gaussian_loss";
    let (x, output) = (
        src("x_start", &inputs.x_start),
        src("output", &inputs.output),
    );
    check::images(OP, &[x, src("noise", &inputs.noise)])?;
    check::images(OP, &[dst("gradient", gradient), output])?;
    let [batch, _, values] = inputs.x_start.layout.shape();
    let learned = inputs.learned();
    let width = if learned { 2 * values } else { values };
    check::shaped(
        OP,
        output,
        "images with or without variances",
        [batch, 1, width],
    )?;
    if steps.len() != batch {
        let what = format!("{} steps for {batch} samples", steps.len());
        return Err(check::invalid(OP, what));
    }
    if at.saturating_add(2 * batch) > sums.len() {
        let what = format!(
            "sums of {batch} samples from {at} on in {} elements",
            sums.len()
        );
        return Err(check::invalid(OP, what));
    }
    Ok(())
}
