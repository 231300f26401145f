//! Ancestral sampling and DDIM on a respaced diffusion's tables, as rules for one network call.

use super::{Ancestral, At, Ddim, Solver, Step, ddim_step, p_sample};
use crate::{Noise, Result, State};

/// A sampler whose node i is step `steps - 1 - i` of the diffusion's own tables.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OnTables {
    Ancestral(Ancestral),
    Ddim(Ddim),
}

impl<S: State> Solver<S> for OnTables {
    fn step(
        &mut self,
        at: &At<'_>,
        x: &S,
        output: &S,
        noise: &mut dyn Noise<S>,
    ) -> Result<Step<S>> {
        let t = vec![at.steps - 1 - at.node; x.dims()[0]];
        let clip = at.limit.is_some();
        match self {
            Self::Ancestral(sampler) => {
                let draw = noise.draw(at.iteration, x)?;
                let clip = clip || sampler.clip_denoised;
                p_sample(at.diffusion, x, output, &t, &draw, clip)
            }
            Self::Ddim(sampler) => {
                let draw = if sampler.eta == 0.0 {
                    None
                } else {
                    Some(noise.draw(at.iteration, x)?)
                };
                let clip = clip || sampler.clip_denoised;
                ddim_step(
                    at.diffusion,
                    x,
                    output,
                    &t,
                    draw.as_ref(),
                    sampler.eta,
                    clip,
                )
            }
        }
    }
}
