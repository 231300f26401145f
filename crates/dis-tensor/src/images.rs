//! Operations on batches of images, for what a sampler does between two calls of a network, and a trainer
//! behind one.

use crate::backend::{Backend, Reals, View, ViewMut};
use crate::check::{self, Operand, dst, src};
use crate::error::Result;
use crate::loss::{LossInputs, LossStep, check_loss};

/// A device that can do a sampler's arithmetic, and compute a training loss.
///
/// A batch of images is a token matrix with one token a sample, (batch, 1, values): so some channels
/// of larger images are one too. Per-sample numbers are float64 lists of one entry a sample, or of one
/// for all. Between loading and storing everything is float64, in the order that is written here, so
/// that all devices of one precision give the same bits where no exponential is involved.
pub trait ImageOps: Backend {
    /// `dst(b) = sum over k of coefficient_k(b) * x_k(b)`: products and sums rounded to float64 each,
    /// in the order of k from zero, and the total to what is stored. At least one term.
    ///
    /// # Errors
    /// No term, shapes or counts that do not fit, or a device that failed.
    fn combine(&self, terms: &[(&[f64], View<'_, Self>)], out: ViewMut<'_, Self>) -> Result<()> {
        const OP: &str = "combine";
        let first = dst("dst", &out);
        let mut operands: Vec<Operand> = vec![first];
        operands.extend(terms.iter().map(|(_, x)| src("a term", x)));
        check::images(OP, &operands)?;
        check::count(OP, "terms", terms.len(), 1)?;
        for (coefficients, _) in terms {
            check::sample_list(OP, "coefficients", coefficients.len(), first)?;
        }
        self.run_combine(terms, out)
    }

    /// Limits every value to `[low, high]`; not-a-number stays.
    ///
    /// # Errors
    /// A view that does not fit, or a device that failed.
    fn clamp(&self, low: f64, high: f64, x: ViewMut<'_, Self>) -> Result<()> {
        check::images("clamp", &[dst("x", &x)])?;
        self.run_clamp(low, high, x)
    }

    /// `dst(b) += exp(slope(b) * log_scale(b) + offset(b)) * noise(b)`. An offset of minus infinity
    /// adds nothing, whatever `log_scale` holds.
    ///
    /// # Errors
    /// Shapes or counts that do not fit, or a device that failed.
    fn add_noise(
        &self,
        noise: View<'_, Self>,
        log_scale: View<'_, Self>,
        slope: &[f64],
        offset: &[f64],
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "add_noise";
        let first = dst("dst", &out);
        let operands = [first, src("noise", &noise), src("log_scale", &log_scale)];
        check::images(OP, &operands)?;
        check::sample_list(OP, "slopes", slope.len(), first)?;
        check::sample_list(OP, "offsets", offset.len(), first)?;
        self.run_add_noise(noise, log_scale, slope, offset, out)
    }

    /// `dst = weight * a + (1 - weight) * b`, and exactly `a` where the weight is 1, `b` where it is 0.
    ///
    /// # Errors
    /// Shapes that do not fit, or a device that failed.
    fn mix(
        &self,
        weight: View<'_, Self>,
        a: View<'_, Self>,
        b: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        let inputs = [src("weight", &weight), src("a", &a), src("b", &b)];
        check::images("mix", &[dst("dst", &out), inputs[0], inputs[1], inputs[2]])?;
        self.run_mix(weight, a, b, out)
    }

    /// Scales every sample of `x` towards the standard deviation of the same sample of `like`:
    /// `x *= strength * deviation(like) / deviation(x) + 1 - strength`. One without deviation stays. Sums are
    /// float64, in an order that is the device's.
    ///
    /// # Errors
    /// Shapes that do not fit, or a device that failed.
    fn rescale(&self, strength: f64, like: View<'_, Self>, x: ViewMut<'_, Self>) -> Result<()> {
        check::images("rescale", &[dst("x", &x), src("like", &like)])?;
        self.run_rescale(strength, like, x)
    }

    /// Limits every sample to plus or minus s, and divides it by s: the quantile `ratio` of its absolute values, linear
    /// between two of them, but at least 1 and at most `most`. Not-a-number stays, and is the largest.
    ///
    /// # Errors
    /// A ratio outside [0, 1], a view that does not fit, or a device that failed.
    fn threshold(&self, ratio: f64, most: f64, x: ViewMut<'_, Self>) -> Result<()> {
        const OP: &str = "threshold";
        if !(0.0..=1.0).contains(&ratio) {
            let what = format!("a quantile of {ratio}: not in [0, 1]");
            return Err(check::invalid(OP, what));
        }
        check::images(OP, &[dst("x", &x)])?;
        self.run_threshold(ratio, most, x)
    }

    /// The training loss of a Gaussian diffusion (formulas: [`loss`](crate::loss)), one step of numbers a
    /// sample. Overwrites `gradient`, which has the shape of the output, with that of
    /// `sum over b of weight(b) * (mse(b) + bound(b))` by the output, and writes mse(b) and bound(b) to
    /// elements `at + 2 b` and `at + 2 b + 1` of `sums`. Sums are float64, in an order that depends on
    /// the number of values alone: on all devices each sample has the same bits in any batch.
    ///
    /// Where mse(b) + bound(b) is not a number, or beyond the range of float32, the first gradient of the
    /// sample is not a number: so no finite norm of gradients goes with a loss that is not finite.
    ///
    /// # Errors
    /// Shapes or counts that do not fit, or a device that failed.
    fn gaussian_loss(
        &self,
        steps: &[LossStep],
        inputs: LossInputs<'_, Reals<Self>>,
        gradient: ViewMut<'_, Self>,
        sums: &mut Self::Buf<f64>,
        at: usize,
    ) -> Result<()> {
        check_loss::<Self>(steps, &inputs, &gradient, sums, at)?;
        self.run_gaussian_loss(steps, inputs, gradient, sums, at)
    }

    /// [`ImageOps::combine`], of arguments that fit, as all that follow.
    ///
    /// # Errors
    /// If the device fails.
    fn run_combine(&self, terms: &[(&[f64], View<'_, Self>)], out: ViewMut<'_, Self>)
    -> Result<()>;
    /// [`ImageOps::clamp`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_clamp(&self, low: f64, high: f64, x: ViewMut<'_, Self>) -> Result<()>;
    /// [`ImageOps::add_noise`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_add_noise(
        &self,
        noise: View<'_, Self>,
        log_scale: View<'_, Self>,
        slope: &[f64],
        offset: &[f64],
        out: ViewMut<'_, Self>,
    ) -> Result<()>;
    /// [`ImageOps::mix`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_mix(
        &self,
        weight: View<'_, Self>,
        a: View<'_, Self>,
        b: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()>;
    /// [`ImageOps::rescale`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_rescale(&self, strength: f64, like: View<'_, Self>, x: ViewMut<'_, Self>) -> Result<()>;
    /// [`ImageOps::threshold`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_threshold(&self, ratio: f64, most: f64, x: ViewMut<'_, Self>) -> Result<()>;
    /// [`ImageOps::gaussian_loss`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_gaussian_loss(
        &self,
        steps: &[LossStep],
        inputs: LossInputs<'_, Reals<Self>>,
        gradient: ViewMut<'_, Self>,
        sums: &mut Self::Buf<f64>,
        at: usize,
    ) -> Result<()>;
}

/// The standard deviation of float32 values about their mean, 0 of none.
pub fn deviation(x: impl Iterator<Item = f32> + Clone) -> f64 {
    let (mut count, mut sum) = (0usize, 0.0);
    for x in x.clone() {
        count += 1;
        sum += f64::from(x);
    }
    let count = count.max(1) as f64;
    let mean = sum / count;
    let squares = x.map(|x| (f64::from(x) - mean) * (f64::from(x) - mean));
    (squares.sum::<f64>() / count).sqrt()
}

/// What [`ImageOps::rescale`] multiplies a sample of deviation `had` by.
pub fn rescale_factor(strength: f64, wanted: f64, had: f64) -> f64 {
    let ratio = if had > 0.0 { wanted / had } else { 1.0 };
    strength * ratio + 1.0 - strength
}

/// What [`ImageOps::threshold`] limits a sample of these values to.
pub fn threshold_bound(x: impl Iterator<Item = f32>, ratio: f64, most: f64) -> f64 {
    let mut sorted: Vec<f32> = x.map(f32::abs).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return 1.0;
    };
    let position = ratio.clamp(0.0, 1.0) * last as f64;
    // On a value the next does not count, even if it is infinite or no number.
    let ranks = [position.floor() as usize, position.ceil() as usize];
    let [low, high] = ranks.map(|i| f64::from(sorted[i]));
    (low + (position - position.floor()) * (high - low))
        .max(1.0)
        .min(most)
}

/// A value limited to plus or minus `bound`, and divided by it; not-a-number stays.
pub fn thresholded(x: f32, bound: f64) -> f32 {
    let limit = bound as f32;
    let x = if x.abs() > limit {
        limit.copysign(x)
    } else {
        x
    };
    (1.0 / bound * f64::from(x)) as f32
}

/// The entry of a per-sample list that belongs to a sample.
pub(crate) fn of_sample(list: &[f64], sample: usize) -> f64 {
    list[if list.len() == 1 { 0 } else { sample }]
}
