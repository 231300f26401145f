//! Euler's method that removes more noise than the step asks for and adds fresh noise instead, as
//! ancestral sampling does (Song et al., "Score-Based Generative Modeling through Stochastic
//! Differential Equations", 2021, appendix F, in the ratios r of noise to image of Karras et al.,
//! 2022): `up^2 = r'^2 (r^2 - r'^2) / r^2`, `down^2 = r'^2 - up^2`; a step of Euler's method to
//! `down`, then noise of deviation `up`.

use super::{At, Sampler, Step};
use crate::{Noise, Result, State};

/// Euler's method with fresh noise in every step; no noise is asked for where none is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EulerAncestral;

impl<S: State> Sampler<S> for EulerAncestral {
    fn step(
        &mut self,
        at: &At<'_>,
        x: &S,
        output: &S,
        noise: &mut dyn Noise<S>,
    ) -> Result<Step<S>> {
        let x_start = at.estimate(x, output)?.x_start;
        let (here, next) = (at.here.ratio(), at.next.ratio());
        let up = next * (1.0 - (next / here).powi(2)).max(0.0).sqrt();
        // sqrt(r'^2 - up^2) = r'^2 / r.
        let kept = (next / here).powi(2);
        let on_x = [at.next.alpha * kept / at.here.alpha];
        let on_start = [at.next.alpha * (1.0 - kept)];
        let sample = if up > 0.0 {
            let draw = noise.draw(at.iteration, x)?;
            S::combine(&[
                (&on_x, x),
                (&on_start, &x_start),
                (&[at.next.alpha * up], &draw),
            ])?
        } else {
            S::combine(&[(&on_x, x), (&on_start, &x_start)])?
        };
        Ok(Step {
            sample,
            pred_xstart: x_start,
        })
    }
}
