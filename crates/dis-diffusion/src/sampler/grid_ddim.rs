//! DDIM (Song et al., "Denoising Diffusion Implicit Models", 2021, equations 12 and 16) between
//! any two noise levels:
//! `x' = alpha' x_0 + sqrt(sigma'^2 - s^2) epsilon + s z`,
//! `s = eta sigma' / sigma sqrt(1 - alpha^2 / alpha'^2)`.

use super::{At, Solver, Step};
use crate::{Error, Noise, Result, State};

/// DDIM on a grid of noise levels, which unlike that of [`Ddim`](super::Ddim) need not be the
/// steps of a schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GridDdim {
    /// Amount of noise, in [0, 1]. With 0, no noise is asked for.
    pub eta: f64,
    /// Takes epsilon from the network as it is, rather than from the estimate of `x_0` after it
    /// was limited.
    pub raw_epsilon: bool,
}

impl<S: State> Solver<S> for GridDdim {
    fn step(
        &mut self,
        at: &At<'_>,
        x: &S,
        output: &S,
        noise: &mut dyn Noise<S>,
    ) -> Result<Step<S>> {
        if !(0.0..=1.0).contains(&self.eta) {
            return Err(Error::Invalid(format!(
                "DDIM's eta {} is not in [0, 1]",
                self.eta
            )));
        }
        let estimate = at.estimate(x, output)?;
        let (here, next) = (at.here, at.next);
        let shrink = 1.0 - (here.alpha / next.alpha).powi(2);
        let spread = self.eta * next.sigma / here.sigma * shrink.max(0.0).sqrt();
        let on_epsilon = (next.sigma.powi(2) - spread.powi(2)).max(0.0).sqrt();
        let epsilon = if self.raw_epsilon {
            at.epsilon(x, &estimate.prediction)?
        } else {
            S::combine(&[
                (&[1.0 / here.sigma], x),
                (&[-here.alpha / here.sigma], &estimate.x_start),
            ])?
        };
        let on_start = [next.alpha];
        let on_epsilon = [on_epsilon];
        let mut terms: Vec<(&[f64], &S)> =
            vec![(&on_start, &estimate.x_start), (&on_epsilon, &epsilon)];
        let on_noise = [spread];
        let draw = if spread > 0.0 {
            Some(noise.draw(at.iteration, x)?)
        } else {
            None
        };
        terms.extend(draw.as_ref().map(|z| (&on_noise[..], z)));
        Ok(Step {
            sample: S::combine(&terms)?,
            pred_xstart: estimate.x_start,
        })
    }
}
