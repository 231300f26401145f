//! A run of a [`Plan`].

use std::ops::ControlFlow;

use super::{At, Grid, Level, Limit, Plan, Sampler, Step};
use crate::{Denoiser, Error, GaussianDiffusion, Noise, Result, State};

/// One finished iteration of a plan: one call of the network.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a, S = ndarray::Array4<f32>> {
    /// Number of the iteration, from 0; a run that begins late begins with a larger one.
    pub iteration: usize,
    /// Iterations in the whole run.
    pub iterations: usize,
    /// What the network was told; it may lie between the steps of the diffusion.
    pub timestep: f64,
    /// Noise level of the image after the iteration.
    pub level: Level,
    /// The image after the iteration.
    pub sample: &'a S,
    /// The estimate of the final image that the iteration used.
    pub pred_xstart: &'a S,
}

/// What is called after an iteration says whether to go on: by a [`ControlFlow`], or always, by nothing.
pub trait GoOn {
    /// The answer.
    fn go_on(self) -> ControlFlow<()>;
}

impl GoOn for () {
    fn go_on(self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl GoOn for ControlFlow<()> {
    fn go_on(self) -> ControlFlow<()> {
        self
    }
}

/// The answer of what was called after an iteration, as a result.
pub(crate) fn heed(answer: impl GoOn, iteration: usize) -> Result<()> {
    match answer.go_on() {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Ended { iteration }),
    }
}

/// A run, advanced by the caller.
pub struct Run<'a, S: State = ndarray::Array4<f32>> {
    diffusion: &'a GaussianDiffusion,
    grid: &'a Grid,
    limit: Option<Limit>,
    sampler: Box<dyn Sampler<S> + 'a>,
    network: &'a mut dyn Denoiser<S>,
    noise: &'a mut dyn Noise<S>,
    state: Step<S>,
    level: Level,
    call: usize,
    calls: usize,
}

impl<'a, S: State> Run<'a, S> {
    /// A run from `start`: standard normal noise.
    ///
    /// # Errors
    /// None for a plan that could be made.
    pub fn new(
        plan: &'a Plan,
        network: &'a mut dyn Denoiser<S>,
        noise: &'a mut dyn Noise<S>,
        start: S,
    ) -> Result<Self>
    where
        S: 'a,
    {
        let sampler = plan.sampler()?;
        let (diffusion, grid) = (plan.diffusion(), plan.grid());
        Ok(
            Self::with_sampler(diffusion, grid, sampler, network, noise, start)
                .limited(plan.limit()),
        )
    }

    /// A run of a sampler of one's own.
    pub fn with_sampler(
        diffusion: &'a GaussianDiffusion,
        grid: &'a Grid,
        mut sampler: Box<dyn Sampler<S> + 'a>,
        network: &'a mut dyn Denoiser<S>,
        noise: &'a mut dyn Noise<S>,
        start: S,
    ) -> Self {
        sampler.reset();
        Self {
            diffusion,
            grid,
            limit: None,
            calls: sampler.calls(grid.steps()),
            sampler,
            network,
            noise,
            state: Step {
                pred_xstart: start.clone(),
                sample: start,
            },
            level: grid.levels()[0],
            call: 0,
        }
    }

    fn limited(mut self, limit: Option<Limit>) -> Self {
        self.limit = limit;
        self
    }

    /// Leaves out the steps before `step`: the start is then an image of that step's level.
    ///
    /// # Errors
    /// More steps than the run has.
    pub fn skip_to(mut self, step: usize) -> Result<Self> {
        if step >= self.grid.steps() {
            return Err(Error::Timestep {
                index: step,
                steps: self.grid.steps(),
            });
        }
        self.call = self.sampler.first_call(step);
        self.level = self.grid.levels()[step];
        Ok(self)
    }

    /// The image as it stands.
    pub fn sample(&self) -> &S {
        &self.state.sample
    }

    /// Its noise level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The noise of the run.
    pub fn noise(&mut self) -> &mut dyn Noise<S> {
        self.noise
    }

    /// Whether the image may be [replaced](Self::replace): not between the parts of a step.
    pub fn settled(&self) -> bool {
        self.call >= self.calls || self.sampler.settled()
    }

    /// Takes another image of the same noise level in place of the one as it stands.
    ///
    /// # Errors
    /// An image of another shape, or a step of which a part is done.
    pub fn replace(&mut self, sample: S) -> Result<()> {
        crate::state::same_dims("replacement", &sample, &self.state.sample)?;
        if !self.settled() {
            return Err(Error::Invalid(
                "the image cannot be replaced in the middle of a step".to_owned(),
            ));
        }
        self.state.sample = sample;
        self.sampler.replaced();
        Ok(())
    }

    /// Does the next iteration; `None` after the last.
    ///
    /// # Errors
    /// What the sampler, the network or the noise fail with; a result that is not finite after the
    /// last iteration.
    pub fn advance(&mut self) -> Result<Option<Progress<'_, S>>> {
        if self.call >= self.calls {
            return Ok(None);
        }
        let iteration = self.call;
        let (node, next) = self.sampler.nodes(iteration);
        let timestep = self.grid.timesteps()[node];
        let at = At {
            diffusion: self.diffusion,
            limit: self.limit,
            iteration,
            node,
            steps: self.grid.steps(),
            here: self.grid.levels()[node],
            next: self.grid.levels()[next],
        };
        let x = &self.state.sample;
        let output = self.network.predict(x, &vec![timestep; x.dims()[0]])?;
        self.state = self.sampler.step(&at, x, &output, self.noise)?;
        self.level = at.next;
        self.call += 1;
        if self.call == self.calls && !self.state.sample.is_finite()? {
            return Err(Error::NotFinite {
                iteration,
                timestep: timestep.round() as usize,
            });
        }
        Ok(Some(Progress {
            iteration,
            iterations: self.calls,
            timestep,
            level: self.level,
            sample: &self.state.sample,
            pred_xstart: &self.state.pred_xstart,
        }))
    }

    /// Does all iterations that are left, and calls `on_iteration` after each.
    ///
    /// # Errors
    /// As [`advance`](Self::advance); [`Error::Ended`] if it says so.
    pub fn finish<R: GoOn>(
        mut self,
        mut on_iteration: impl FnMut(Progress<'_, S>) -> R,
    ) -> Result<S> {
        while let Some(progress) = self.advance()? {
            let iteration = progress.iteration;
            heed(on_iteration(progress), iteration)?;
        }
        Ok(self.state.sample)
    }

    /// The image as it stands.
    pub fn into_sample(self) -> S {
        self.state.sample
    }
}

/// Runs a plan to its end from standard normal noise and calls `on_iteration` after every
/// iteration, which may end it.
///
/// # Errors
/// As [`Run::finish`].
pub fn sample<S: State, R: GoOn>(
    plan: &Plan,
    network: &mut dyn Denoiser<S>,
    noise: &mut dyn Noise<S>,
    start: S,
    on_iteration: impl FnMut(Progress<'_, S>) -> R,
) -> Result<S> {
    Run::new(plan, network, noise, start)?.finish(on_iteration)
}
