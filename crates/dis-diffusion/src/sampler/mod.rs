//! Samplers: from noise to images, one iteration at a time.

mod ancestral;
mod ddim;
mod dpm;
mod euler;
mod euler_ancestral;
mod grid;
mod grid_ddim;
mod heun;
mod level;
mod limit;
mod run;
mod solver;
mod spec;
mod tables;
mod unipc;

use ndarray::Array4;

pub use ancestral::{Ancestral, p_sample};
pub use ddim::{Ddim, DdimInverse, ddim_reverse_step, ddim_step};
pub use dpm::{Correction, DpmOptions, DpmSolver, ThirdOrder};
pub use euler::Euler;
pub use euler_ancestral::EulerAncestral;
pub use grid::{Grid, GridOptions, LastLevel, MIN_ALPHA_BAR, Ramp, Rounding, Stride};
pub(crate) use grid::{linspace, trailing};
pub use grid_ddim::GridDdim;
pub use heun::Heun;
pub use level::Level;
pub use limit::Limit;
pub use run::{Progress, Run, run_plan};
pub use solver::{At, Estimate, Solver};
pub use spec::{Plan, SamplerSpec, Spacing};
pub(crate) use tables::OnTables;
pub use unipc::{UniPc, UniPcKind, UniPcOptions};

use crate::{Denoiser, Error, GaussianDiffusion, Noise, Result, State};

/// What one iteration gives.
#[derive(Clone, Debug)]
pub struct Step<S = Array4<f32>> {
    /// The image after the iteration.
    pub sample: S,
    /// The estimate of the final image that the iteration used.
    pub pred_xstart: S,
}

/// Where in a run an iteration is.
#[derive(Clone, Copy, Debug)]
pub struct Position<'a> {
    /// The process being reversed.
    pub diffusion: &'a GaussianDiffusion,
    /// Number of the iteration, from 0.
    pub iteration: usize,
    /// Step of the diffusion: an index into its tables.
    pub index: usize,
}

impl Position<'_> {
    /// The step for every sample of a batch.
    pub fn steps<S: State>(&self, x: &S) -> Vec<usize> {
        vec![self.index; x.dims()[0]]
    }

    /// The network's output at `x` and this step.
    ///
    /// # Errors
    /// What the network fails with.
    pub fn evaluate<S: State>(&self, network: &mut dyn Denoiser<S>, x: &S) -> Result<S> {
        network.predict(x, &self.diffusion.network_timesteps(&self.steps(x))?)
    }
}

/// A rule for one iteration. It may keep history between iterations of one run.
pub trait Sampler<S: State = Array4<f32>> {
    /// Moves `x` by one iteration.
    ///
    /// # Errors
    /// What the network or the noise fail with, or shapes that do not fit.
    fn step(
        &mut self,
        at: Position<'_>,
        x: &S,
        network: &mut dyn Denoiser<S>,
        noise: &mut dyn Noise<S>,
    ) -> Result<Step<S>>;

    /// The step that an iteration works on; from the noisiest to the least noisy by default.
    fn index(&self, iteration: usize, steps: usize) -> usize {
        steps - 1 - iteration
    }

    /// Forgets what is known from another run.
    fn reset(&mut self) {}
}

/// One finished iteration, as a caller sees it.
#[derive(Clone, Copy, Debug)]
pub struct Iteration<'a, S = Array4<f32>> {
    /// Number of the iteration, from 0.
    pub iteration: usize,
    /// Iterations in the run.
    pub iterations: usize,
    /// Original timestep that the network was given.
    pub timestep: usize,
    /// The image after the iteration.
    pub sample: &'a S,
    /// The estimate of the final image that the iteration used.
    pub pred_xstart: &'a S,
}

/// A run of a sampler, advanced by the caller.
pub struct Sampling<'a, S: State = Array4<f32>> {
    diffusion: &'a GaussianDiffusion,
    sampler: &'a mut dyn Sampler<S>,
    network: &'a mut dyn Denoiser<S>,
    noise: &'a mut dyn Noise<S>,
    state: Step<S>,
    iteration: usize,
}

impl<'a, S: State> Sampling<'a, S> {
    /// A run from `start`, pure noise as a rule.
    pub fn new(
        diffusion: &'a GaussianDiffusion,
        sampler: &'a mut dyn Sampler<S>,
        network: &'a mut dyn Denoiser<S>,
        noise: &'a mut dyn Noise<S>,
        start: S,
    ) -> Self {
        sampler.reset();
        let state = Step {
            pred_xstart: start.clone(),
            sample: start,
        };
        Self {
            diffusion,
            sampler,
            network,
            noise,
            state,
            iteration: 0,
        }
    }

    /// Leaves out the iterations before `iteration`: the start image is then taken to be as noisy
    /// as that iteration expects.
    ///
    /// # Errors
    /// More iterations than the run has.
    pub fn skip_to(mut self, iteration: usize) -> Result<Self> {
        if iteration > self.diffusion.steps() {
            return Err(Error::Timestep {
                index: iteration,
                steps: self.diffusion.steps(),
            });
        }
        self.iteration = iteration;
        Ok(self)
    }

    /// Does the next iteration; `None` after the last.
    ///
    /// # Errors
    /// What the sampler fails with; a result that is not finite after the last iteration.
    pub fn advance(&mut self) -> Result<Option<Iteration<'_, S>>> {
        let iterations = self.diffusion.steps();
        if self.iteration >= iterations {
            return Ok(None);
        }
        let iteration = self.iteration;
        let index = self.sampler.index(iteration, iterations);
        let timestep = self.diffusion.network_timesteps(&[index])?[0] as usize;
        let at = Position {
            diffusion: self.diffusion,
            iteration,
            index,
        };
        self.state = self
            .sampler
            .step(at, &self.state.sample, self.network, self.noise)?;
        self.iteration += 1;
        if self.iteration == iterations && !self.state.sample.is_finite()? {
            return Err(Error::NotFinite {
                iteration,
                timestep,
            });
        }
        Ok(Some(Iteration {
            iteration,
            iterations,
            timestep,
            sample: &self.state.sample,
            pred_xstart: &self.state.pred_xstart,
        }))
    }

    /// The image as it stands.
    pub fn into_sample(self) -> S {
        self.state.sample
    }
}

/// Runs a sampler to its end and calls `on_iteration` after every iteration.
///
/// # Errors
/// As [`Sampling::advance`].
pub fn sample<S: State>(
    diffusion: &GaussianDiffusion,
    sampler: &mut dyn Sampler<S>,
    network: &mut dyn Denoiser<S>,
    noise: &mut dyn Noise<S>,
    start: S,
    mut on_iteration: impl FnMut(Iteration<'_, S>),
) -> Result<S> {
    let mut run = Sampling::new(diffusion, sampler, network, noise, start);
    while let Some(iteration) = run.advance()? {
        on_iteration(iteration);
    }
    Ok(run.into_sample())
}
