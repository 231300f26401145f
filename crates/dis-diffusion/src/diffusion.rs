//! Gaussian diffusion: the forward process q, its posterior, and the reverse process p that a
//! network output parametrises (Ho et al., "Denoising Diffusion Probabilistic Models", 2020;
//! learned variances: Nichol and Dhariwal, 2021).

use ndarray::{Array4, Axis};

use crate::state::{State, same_dims};
use crate::{Error, Limit, Respacing, Result, Schedule, Tables};

/// What the network's first channels estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prediction {
    /// The noise epsilon in `x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) epsilon`.
    #[default]
    Epsilon,
    /// The image `x_0` itself.
    Start,
    /// `v = sqrt(alpha_bar) epsilon - sqrt(1 - alpha_bar) x_0` (Salimans and Ho, "Progressive
    /// Distillation for Fast Sampling of Diffusion Models", 2022, appendix D).
    Velocity,
}

/// The variance of the reverse process. With a learned one the network has twice the channels of
/// the image, the second half describing the variance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variance {
    /// `ln variance = f ln beta + (1 - f) ln posterior_variance`, `f = (v + 1) / 2`, v not limited
    /// (Nichol and Dhariwal, 2021, equation 15).
    #[default]
    LearnedRange,
    /// `ln variance = v`.
    Learned,
    /// The posterior variance.
    FixedSmall,
    /// Beta, except at step 0, which has the posterior variance of step 1.
    FixedLarge,
}

impl Variance {
    /// Whether the network outputs it.
    pub fn is_learned(self) -> bool {
        matches!(self, Self::LearnedRange | Self::Learned)
    }
}

/// What training minimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossKind {
    /// Mean square error of the prediction; with learned variances plus the variational bound in
    /// bits per dimension, which then trains the variance only.
    #[default]
    Mse,
    /// The same, the bound multiplied by steps / 1000.
    RescaledMse,
    /// The variational bound alone, training prediction and variance.
    Kl,
    /// The bound times the number of steps, so that its mean over steps estimates the whole.
    RescaledKl,
}

/// Everything that defines a diffusion. The default is the published one: 1,000 linear steps,
/// epsilon prediction, learned-range variance, hybrid loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Noise schedule.
    pub schedule: Schedule,
    /// Steps of the schedule, before respacing.
    pub steps: usize,
    /// Steps to keep.
    pub respacing: Respacing,
    /// What the network predicts.
    pub prediction: Prediction,
    /// Variance of the reverse process.
    pub variance: Variance,
    /// Training loss.
    pub loss: LossKind,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schedule: Schedule::default(),
            steps: 1000,
            respacing: Respacing::default(),
            prediction: Prediction::default(),
            variance: Variance::default(),
            loss: LossKind::default(),
        }
    }
}

/// A Gaussian diffusion process. Steps are indices into its (respaced) tables: 0 is the least
/// noisy, `steps() - 1` the noisiest. Arguments named `t` hold one index for each sample.
#[derive(Clone, Debug)]
pub struct GaussianDiffusion {
    tables: Tables,
    prediction: Prediction,
    variance: Variance,
    loss: LossKind,
    limit: Limit,
}

/// A Gaussian with one variance for each sample.
#[derive(Clone, Debug)]
pub struct Gaussian<S> {
    /// Mean.
    pub mean: S,
    /// Variance, per sample.
    pub variance: Vec<f64>,
    /// Logarithm of the variance, per sample; where the published tables clip, this is clipped.
    pub log_variance: Vec<f64>,
}

/// Logarithm of the reverse process's variance.
#[derive(Clone, Debug)]
pub enum LogVariance<S> {
    /// One value for each sample.
    Fixed {
        /// The variance itself; 0 at step 0 if it is the posterior's.
        variance: Vec<f64>,
        /// Its logarithm, as clipped in the tables.
        log_variance: Vec<f64>,
    },
    /// `slope[sample] * values + offset[sample]`, elementwise.
    Learned {
        /// The network's variance channels.
        values: S,
        /// Slope per sample.
        slope: Vec<f64>,
        /// Offset per sample.
        offset: Vec<f64>,
    },
}

/// `p(x_(t-1) | x_t)` and the image that it leads to.
#[derive(Clone, Debug)]
pub struct Reverse<S> {
    /// Mean of the Gaussian.
    pub mean: S,
    /// Logarithm of its variance.
    pub log_variance: LogVariance<S>,
    /// Estimate of `x_0`, limited to [-1, 1] if that was asked for.
    pub pred_xstart: S,
}

impl Reverse<Array4<f32>> {
    /// The logarithm of the variance, elementwise.
    ///
    /// # Errors
    /// None for a value that this crate made.
    pub fn log_variance_array(&self) -> Result<Array4<f32>> {
        match &self.log_variance {
            LogVariance::Fixed { log_variance, .. } => Ok(self.spread(log_variance)),
            LogVariance::Learned {
                values,
                slope,
                offset,
            } => {
                let ones = Array4::ones(values.raw_dim());
                Array4::combine(&[(slope, values), (offset, &ones)])
            }
        }
    }

    /// The variance, elementwise.
    ///
    /// # Errors
    /// None for a value that this crate made.
    pub fn variance_array(&self) -> Result<Array4<f32>> {
        match &self.log_variance {
            LogVariance::Fixed { variance, .. } => Ok(self.spread(variance)),
            LogVariance::Learned { .. } => Ok(self
                .log_variance_array()?
                .mapv(|x| f64::from(x).exp() as f32)),
        }
    }

    fn spread(&self, per_sample: &[f64]) -> Array4<f32> {
        let mut out = Array4::zeros(self.mean.raw_dim());
        for (mut image, value) in out.axis_iter_mut(Axis(0)).zip(per_sample) {
            image.fill(*value as f32);
        }
        out
    }
}

impl GaussianDiffusion {
    /// Builds the tables of `options`.
    ///
    /// # Errors
    /// An impossible schedule or respacing; predicting epsilon where `alpha_bar` reaches 0.
    pub fn new(options: &Options) -> Result<Self> {
        let betas = options.schedule.betas(options.steps)?;
        let tables = Tables::new(&betas, &options.respacing)?;
        Self::from_tables(tables, options.prediction, options.variance, options.loss)
    }

    /// A diffusion with tables made elsewhere, for schedules of one's own.
    ///
    /// # Errors
    /// Tables that are empty or differ in length; predicting epsilon where `alpha_bar` reaches 0,
    /// since the image cannot be recovered from it.
    pub fn from_tables(
        tables: Tables,
        prediction: Prediction,
        variance: Variance,
        loss: LossKind,
    ) -> Result<Self> {
        let steps = tables.steps();
        let fits = |table: &str| {
            tables
                .by_name(table)
                .is_some_and(|table| table.len() == steps)
        };
        if steps == 0
            || tables.timestep_map.len() != steps
            || !Tables::NAMES.iter().all(|t| fits(t))
        {
            return Err(Error::Invalid(
                "diffusion tables of different lengths, or none".to_owned(),
            ));
        }
        if prediction == Prediction::Epsilon && tables.alphas_cumprod.contains(&0.0) {
            return Err(Error::Invalid(
                "epsilon prediction needs alpha_bar above 0 at every step".to_owned(),
            ));
        }
        Ok(Self {
            tables,
            prediction,
            variance,
            loss,
            limit: Limit::default(),
        })
    }

    /// Changes what `clip_denoised` limits estimates of `x_0` to; by default, they are cut off at
    /// plus and minus 1.
    #[must_use]
    pub fn with_limit(mut self, limit: Limit) -> Self {
        self.limit = limit;
        self
    }

    /// What `clip_denoised` limits estimates of `x_0` to.
    pub fn limit(&self) -> Limit {
        self.limit
    }

    /// Number of steps after respacing.
    pub fn steps(&self) -> usize {
        self.tables.steps()
    }

    /// The tables.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What the network predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// Variance of the reverse process.
    pub fn variance(&self) -> Variance {
        self.variance
    }

    /// Training loss.
    pub fn loss_kind(&self) -> LossKind {
        self.loss
    }

    /// Channels that the network must output for images of `channels` channels.
    pub fn network_channels(&self, channels: usize) -> usize {
        if self.variance.is_learned() {
            2 * channels
        } else {
            channels
        }
    }

    /// What the network is given for the steps `t`: the original, not respaced, step numbers.
    ///
    /// # Errors
    /// A step that does not exist.
    pub fn network_timesteps(&self, t: &[usize]) -> Result<Vec<f64>> {
        self.per_sample(t, t.len(), |t| self.tables.timestep_map[t] as f64)
    }

    /// A sample of `q(x_t | x_0)`: `sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise`.
    ///
    /// # Errors
    /// Shapes that differ, a wrong number of steps, a step that does not exist.
    pub fn q_sample<S: State>(&self, x_start: &S, t: &[usize], noise: &S) -> Result<S> {
        same_dims("noise", noise, x_start)?;
        let batch = x_start.dims()[0];
        let signal = self.per_sample(t, batch, |t| self.tables.sqrt_alphas_cumprod[t])?;
        let spread = self.per_sample(t, batch, |t| self.tables.sqrt_one_minus_alphas_cumprod[t])?;
        S::combine(&[(&signal, x_start), (&spread, noise)])
    }

    /// `q(x_t | x_0)`.
    ///
    /// # Errors
    /// As [`q_sample`](Self::q_sample).
    pub fn q_mean_variance<S: State>(&self, x_start: &S, t: &[usize]) -> Result<Gaussian<S>> {
        let batch = x_start.dims()[0];
        let signal = self.per_sample(t, batch, |t| self.tables.sqrt_alphas_cumprod[t])?;
        Ok(Gaussian {
            mean: S::combine(&[(&signal, x_start)])?,
            variance: self.per_sample(t, batch, |t| 1.0 - self.tables.alphas_cumprod[t])?,
            log_variance: self
                .per_sample(t, batch, |t| self.tables.log_one_minus_alphas_cumprod[t])?,
        })
    }

    /// `q(x_(t-1) | x_t, x_0)` (Ho et al., equations 6 and 7).
    ///
    /// # Errors
    /// As [`q_sample`](Self::q_sample).
    pub fn q_posterior<S: State>(&self, x_start: &S, x_t: &S, t: &[usize]) -> Result<Gaussian<S>> {
        let batch = x_start.dims()[0];
        Ok(Gaussian {
            mean: self.posterior_mean(x_start, x_t, t)?,
            variance: self.per_sample(t, batch, |t| self.tables.posterior_variance[t])?,
            log_variance: self
                .per_sample(t, batch, |t| self.tables.posterior_log_variance_clipped[t])?,
        })
    }

    fn posterior_mean<S: State>(&self, x_start: &S, x_t: &S, t: &[usize]) -> Result<S> {
        same_dims("x_t", x_t, x_start)?;
        let batch = x_start.dims()[0];
        let on_start = self.per_sample(t, batch, |t| self.tables.posterior_mean_coef1[t])?;
        let on_x = self.per_sample(t, batch, |t| self.tables.posterior_mean_coef2[t])?;
        S::combine(&[(&on_start, x_start), (&on_x, x_t)])
    }

    /// Splits a network output for images like `x` into prediction and variance channels.
    ///
    /// # Errors
    /// An output whose channels do not fit the kind of variance.
    pub fn split_output<S: State>(&self, x: &S, output: &S) -> Result<(S, Option<S>)> {
        let [batch, channels, height, width] = x.dims();
        let expected = [batch, self.network_channels(channels), height, width];
        if output.dims() != expected {
            return Err(Error::shape("network output", &output.dims(), &expected));
        }
        if self.variance.is_learned() {
            let values = output.channels(channels..2 * channels)?;
            Ok((output.channels(0..channels)?, Some(values)))
        } else {
            Ok((output.clone(), None))
        }
    }

    /// The estimate of `x_0` from the prediction channels at `x_t`, limited to [-1, 1] (or as
    /// [`with_limit`](Self::with_limit) says) with `clip_denoised`.
    ///
    /// # Errors
    /// As [`q_sample`](Self::q_sample).
    pub fn pred_xstart<S: State>(
        &self,
        prediction: &S,
        x_t: &S,
        t: &[usize],
        clip_denoised: bool,
    ) -> Result<S> {
        same_dims("prediction", prediction, x_t)?;
        let batch = x_t.dims()[0];
        let on_prediction = self.per_sample(t, batch, |t| self.xstart_coefficients(t).0)?;
        let on_x = self.per_sample(t, batch, |t| self.xstart_coefficients(t).1)?;
        let x_start = match self.prediction {
            Prediction::Start => prediction.clone(),
            _ => S::combine(&[(&on_prediction, prediction), (&on_x, x_t)])?,
        };
        if clip_denoised {
            return self.limit.apply(x_start);
        }
        Ok(x_start)
    }

    /// The noise that leads from an estimate of `x_0` to `x_t`.
    ///
    /// # Errors
    /// As [`q_sample`](Self::q_sample).
    pub fn pred_epsilon<S: State>(&self, pred_xstart: &S, x_t: &S, t: &[usize]) -> Result<S> {
        same_dims("x_t", x_t, pred_xstart)?;
        let batch = x_t.dims()[0];
        // Written with 1 / sqrt(1 - alpha_bar), which stays finite where alpha_bar is 0.
        let spread = &self.tables.sqrt_one_minus_alphas_cumprod;
        let on_x = self.per_sample(t, batch, |t| 1.0 / spread[t])?;
        let on_start = self.per_sample(t, batch, |t| {
            -self.tables.sqrt_alphas_cumprod[t] / spread[t]
        })?;
        S::combine(&[(&on_x, x_t), (&on_start, pred_xstart)])
    }

    /// `p(x_(t-1) | x_t)` from a network output.
    ///
    /// # Errors
    /// As [`q_sample`](Self::q_sample) and [`split_output`](Self::split_output).
    pub fn p_mean_variance<S: State>(
        &self,
        x_t: &S,
        output: &S,
        t: &[usize],
        clip_denoised: bool,
    ) -> Result<Reverse<S>> {
        let (prediction, values) = self.split_output(x_t, output)?;
        let pred_xstart = self.pred_xstart(&prediction, x_t, t, clip_denoised)?;
        let batch = x_t.dims()[0];
        let slope = self.per_sample(t, batch, |t| self.log_variance_line(t).0)?;
        let offset = self.per_sample(t, batch, |t| self.log_variance_line(t).1)?;
        Ok(Reverse {
            mean: self.posterior_mean(&pred_xstart, x_t, t)?,
            log_variance: match values {
                Some(values) => LogVariance::Learned {
                    values,
                    slope,
                    offset,
                },
                None => {
                    let variance = self.per_sample(t, batch, |t| self.fixed_variance(t))?;
                    LogVariance::Fixed {
                        variance,
                        log_variance: offset,
                    }
                }
            },
            pred_xstart,
        })
    }

    /// `x_0` = first * prediction + second * `x_t`.
    pub(crate) fn xstart_coefficients(&self, t: usize) -> (f64, f64) {
        match self.prediction {
            Prediction::Epsilon => (
                -self.tables.sqrt_recipm1_alphas_cumprod[t],
                self.tables.sqrt_recip_alphas_cumprod[t],
            ),
            Prediction::Start => (1.0, 0.0),
            Prediction::Velocity => (
                -self.tables.sqrt_one_minus_alphas_cumprod[t],
                self.tables.sqrt_alphas_cumprod[t],
            ),
        }
    }

    /// Log variance = first * (variance channel) + second; the first is 0 where it is fixed.
    pub(crate) fn log_variance_line(&self, t: usize) -> (f64, f64) {
        let small = self.tables.posterior_log_variance_clipped[t];
        let large = self.tables.betas[t].ln();
        match self.variance {
            Variance::LearnedRange => ((large - small) / 2.0, (large + small) / 2.0),
            Variance::Learned => (1.0, 0.0),
            Variance::FixedSmall => (0.0, small),
            Variance::FixedLarge => (0.0, if t == 0 { small } else { large }),
        }
    }

    fn fixed_variance(&self, t: usize) -> f64 {
        match self.variance {
            Variance::FixedSmall => self.tables.posterior_variance[t],
            _ => self.log_variance_line(t).1.exp(),
        }
    }

    /// One float64 value for each sample, after checking the steps.
    pub(crate) fn per_sample(
        &self,
        t: &[usize],
        batch: usize,
        value: impl Fn(usize) -> f64,
    ) -> Result<Vec<f64>> {
        self.check_steps(t, batch)?;
        Ok(t.iter().map(|&t| value(t)).collect())
    }

    pub(crate) fn check_steps(&self, t: &[usize], batch: usize) -> Result<()> {
        if t.len() != batch {
            return Err(Error::Count {
                what: "timesteps",
                got: t.len(),
                expected: batch,
            });
        }
        match t.iter().find(|t| **t >= self.steps()) {
            Some(&index) => Err(Error::Timestep {
                index,
                steps: self.steps(),
            }),
            None => Ok(()),
        }
    }
}
