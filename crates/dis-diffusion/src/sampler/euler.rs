//! Euler's method on the probability-flow equation in the ratio r of noise to image (Karras et
//! al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, algorithm 1
//! without its second order): with `y = x / alpha`, `dy/dr = (y - x_0) / r`.

use super::{At, Sampler, Step};
use crate::{Noise, Result, State};

/// Euler's method; order 1. On the same grid it is DDIM with eta 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Euler;

impl<S: State> Sampler<S> for Euler {
    fn step(&mut self, at: &At<'_>, x: &S, output: &S, _: &mut dyn Noise<S>) -> Result<Step<S>> {
        let x_start = at.estimate(x, output)?.x_start;
        // y' = y + (r' - r) (y - x_0) / r, and x' = alpha' y'.
        let kept = at.next.ratio() / at.here.ratio();
        let sample = S::combine(&[
            (&[at.next.alpha * kept / at.here.alpha], x),
            (&[at.next.alpha * (1.0 - kept)], &x_start),
        ])?;
        Ok(Step {
            sample,
            pred_xstart: x_start,
        })
    }
}
