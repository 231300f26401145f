//! Heun's method on the probability-flow equation in the ratio r of noise to image (Karras et al.,
//! "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, algorithm 1): with
//! `y = x / alpha` and `d = (y - x_0) / r`, a step of Euler's method gives `y_1`, and
//! `y' = y + (r' - r) (d(y) + d(y_1)) / 2`. The last step is Euler's.

use super::{At, Level, Sampler, Step};
use crate::{Error, Noise, Result, State};

/// Heun's method; order 2. It calls the network twice a step, but once in the last: every call is
/// one iteration, of which the first of a step gives Euler's image and the second corrects it.
#[derive(Clone, Debug)]
pub struct Heun<S> {
    begun: Option<Begun<S>>,
}

/// The first half of a step.
#[derive(Clone, Debug)]
struct Begun<S> {
    level: Level,
    x: S,
    x_start: S,
}

impl<S> Default for Heun<S> {
    fn default() -> Self {
        Self { begun: None }
    }
}

impl<S: State> Sampler<S> for Heun<S> {
    fn step(
        &mut self,
        at: &At<'_>,
        x: &S,
        output: &S,
        noise: &mut dyn Noise<S>,
    ) -> Result<Step<S>> {
        if at.iteration.is_multiple_of(2) {
            let step = super::Euler.step(at, x, output, noise)?;
            self.begun = Some(Begun {
                level: at.here,
                x: x.clone(),
                x_start: step.pred_xstart.clone(),
            });
            return Ok(step);
        }
        let Some(begun) = self.begun.take() else {
            return Err(Error::Invalid(
                "the second half of a step of Heun's method has no first".to_owned(),
            ));
        };
        let x_start = at.estimate(x, output)?.x_start;
        let (from, to) = (begun.level.ratio(), at.here.ratio());
        let half = (to - from) / 2.0;
        let alpha = at.here.alpha;
        let sample = S::combine(&[
            (&[alpha / begun.level.alpha * (1.0 + half / from)], &begun.x),
            (&[-alpha * half / from], &begun.x_start),
            (&[half / to], x),
            (&[-alpha * half / to], &x_start),
        ])?;
        Ok(Step {
            sample,
            pred_xstart: x_start,
        })
    }

    fn calls(&self, steps: usize) -> usize {
        (2 * steps).saturating_sub(1)
    }

    fn nodes(&self, call: usize) -> (usize, usize) {
        (call.div_ceil(2), call / 2 + 1)
    }

    fn first_call(&self, step: usize) -> usize {
        2 * step
    }

    fn settled(&self) -> bool {
        self.begun.is_none()
    }

    fn reset(&mut self) {
        self.begun = None;
    }
}
