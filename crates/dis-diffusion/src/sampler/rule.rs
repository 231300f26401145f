//! What samplers share: a rule from one network output to the next image.

use super::{Level, Limit, Step};
use crate::{GaussianDiffusion, Noise, Prediction, Result, State};

/// Where in a run a network call is.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// Says what the network predicts and whether it outputs a variance.
    pub diffusion: &'a GaussianDiffusion,
    /// What the estimate of the image is limited to.
    pub limit: Option<Limit>,
    /// Number of the network call, from 0.
    pub iteration: usize,
    /// Number of the node that the network sees.
    pub node: usize,
    /// Steps of the grid.
    pub steps: usize,
    /// Level of the image that the network sees.
    pub here: Level,
    /// Level of the image that the call gives.
    pub next: Level,
}

/// What a network output says about the image.
#[derive(Clone, Debug)]
pub struct Estimate<S> {
    /// Estimate of `x_0`, limited.
    pub x_start: S,
    /// The network's prediction channels.
    pub prediction: S,
}

impl At<'_> {
    /// The step of the diffusion's own tables that the node is, if node i of the grid is step
    /// `steps - 1 - i` of them.
    pub fn index(&self) -> Option<usize> {
        let bars = &self.diffusion.tables().alphas_cumprod;
        let index = self.steps.checked_sub(1 + self.node)?;
        let level = |index: usize| Level::from_alpha_bar(bars[index]);
        let next = index.checked_sub(1).map_or(Level::CLEAN, level);
        let own = self.steps == bars.len() && (self.here, self.next) == (level(index), next);
        own.then_some(index)
    }

    /// The estimate of the image from a network output at `x`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn estimate<S: State>(&self, x: &S, output: &S) -> Result<Estimate<S>> {
        let (prediction, _) = self.diffusion.split_output(x, output)?;
        let Level { alpha, sigma } = self.here;
        let x_start = match self.diffusion.prediction() {
            Prediction::Epsilon => {
                S::combine(&[(&[1.0 / alpha], x), (&[-sigma / alpha], &prediction)])?
            }
            Prediction::Start => prediction.clone(),
            Prediction::Velocity => S::combine(&[(&[alpha], x), (&[-sigma], &prediction)])?,
        };
        let x_start = match self.limit {
            Some(limit) => limit.apply(x_start)?,
            None => x_start,
        };
        Ok(Estimate {
            x_start,
            prediction,
        })
    }

    /// The noise that a network's prediction stands for, whatever the image is limited to.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn epsilon<S: State>(&self, x: &S, prediction: &S) -> Result<S> {
        let Level { alpha, sigma } = self.here;
        match self.diffusion.prediction() {
            Prediction::Epsilon => Ok(prediction.clone()),
            Prediction::Start => {
                S::combine(&[(&[1.0 / sigma], x), (&[-alpha / sigma], prediction)])
            }
            Prediction::Velocity => S::combine(&[(&[alpha], prediction), (&[sigma], x)]),
        }
    }
}

/// A rule for one network call. It keeps history between the calls of one run.
pub trait Sampler<S: State> {
    /// Moves `x` from [`At::here`] to [`At::next`], given the network's output at `x`.
    ///
    /// # Errors
    /// Shapes that do not fit, noise that fails, settings that make no sense.
    fn step(&mut self, at: &At<'_>, x: &S, output: &S, noise: &mut dyn Noise<S>)
    -> Result<Step<S>>;

    /// Network calls for a number of steps.
    fn calls(&self, steps: usize) -> usize {
        steps
    }

    /// The node that a call sees and the node of the image that it gives.
    fn nodes(&self, call: usize) -> (usize, usize) {
        (call, call + 1)
    }

    /// The call with which a step begins.
    fn first_call(&self, step: usize) -> usize {
        step
    }

    /// Whether the image is one that may be changed from outside: not between the parts of a step.
    fn settled(&self) -> bool {
        true
    }

    /// The image was changed from outside: forgets what was derived from the one before.
    fn replaced(&mut self) {}

    /// Forgets what is known from another run.
    fn reset(&mut self) {}
}
