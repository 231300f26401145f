//! Ancestral sampling (Ho et al., "Denoising Diffusion Probabilistic Models", 2020, algorithm 2):
//! `x_(t-1) = mean + exp(ln variance / 2) z`, with no noise at step 0.

use super::{At, Sampler, Step};
use crate::{Error, GaussianDiffusion, LogVariance, Noise, Result, State};

/// Draws every step from `p(x_(t-1) | x_t)`, on the steps of the diffusion's own tables: elsewhere
/// there is no learned variance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ancestral;

impl<S: State> Sampler<S> for Ancestral {
    fn step(
        &mut self,
        at: &At<'_>,
        x: &S,
        output: &S,
        noise: &mut dyn Noise<S>,
    ) -> Result<Step<S>> {
        let index = at.index().ok_or_else(|| {
            Error::Invalid("ancestral sampling runs on the steps of a diffusion only".into())
        })?;
        let draw = noise.draw(at.iteration, x)?;
        let (t, clip) = (vec![index; x.dims()[0]], at.limit.is_some());
        p_sample(at.diffusion, x, output, &t, &draw, clip)
    }
}

/// One ancestral step from a network output; `t` holds a step for each sample.
///
/// # Errors
/// Shapes that do not fit, or a step that does not exist.
pub fn p_sample<S: State>(
    diffusion: &GaussianDiffusion,
    x: &S,
    output: &S,
    t: &[usize],
    noise: &S,
    clip_denoised: bool,
) -> Result<Step<S>> {
    let reverse = diffusion.p_mean_variance(x, output, t, clip_denoised)?;
    // Step 0 is masked by a scale of exp(-inf) = 0.
    let masked = |t: usize, log_scale: f64| if t == 0 { f64::NEG_INFINITY } else { log_scale };
    let sample = match reverse.log_variance {
        LogVariance::Fixed { log_variance, .. } => {
            let scale: Vec<f64> = t
                .iter()
                .zip(&log_variance)
                .map(|(&t, v)| masked(t, v / 2.0).exp())
                .collect();
            let one = vec![1.0; t.len()];
            S::combine(&[(&one, &reverse.mean), (&scale, noise)])?
        }
        LogVariance::Learned {
            values,
            slope,
            offset,
        } => {
            let slope: Vec<f64> = slope.iter().map(|s| s / 2.0).collect();
            let offset: Vec<f64> = t
                .iter()
                .zip(&offset)
                .map(|(&t, o)| masked(t, o / 2.0))
                .collect();
            let mut sample = reverse.mean;
            sample.add_noise(noise, &values, &slope, &offset)?;
            sample
        }
    };
    Ok(Step {
        sample,
        pred_xstart: reverse.pred_xstart,
    })
}
