//! DDIM (Song et al., "Denoising Diffusion Implicit Models", 2021, equations 12 and 16):
//! `x_prev = sqrt(alpha_bar_prev) x_0 + sqrt(1 - alpha_bar_prev - sigma^2) epsilon + sigma z`,
//! `sigma = eta sqrt((1 - alpha_bar_prev) / (1 - alpha_bar)) sqrt(1 - alpha_bar / alpha_bar_prev)`,
//! where epsilon follows from the (possibly limited) estimate of `x_0`; and its inversion, which
//! goes from an image to the noise that leads to it.

use super::{Position, Sampler, Step};
use crate::{Denoiser, Error, GaussianDiffusion, Noise, Result, State};

/// DDIM: deterministic for eta 0, as noisy as ancestral sampling with posterior variances for
/// eta 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ddim {
    /// Amount of noise, in [0, 1]. With 0, no noise is asked for.
    pub eta: f64,
    /// Limits the estimate of `x_0` to [-1, 1].
    pub clip_denoised: bool,
}

impl<S: State> Sampler<S> for Ddim {
    fn step(
        &mut self,
        at: Position<'_>,
        x: &S,
        network: &mut dyn Denoiser<S>,
        noise: &mut dyn Noise<S>,
    ) -> Result<Step<S>> {
        let output = at.evaluate(network, x)?;
        let draw = if self.eta == 0.0 {
            None
        } else {
            Some(noise.draw(at.iteration, x)?)
        };
        ddim_step(
            at.diffusion,
            x,
            &output,
            &at.steps(x),
            draw.as_ref(),
            self.eta,
            self.clip_denoised,
        )
    }
}

/// One DDIM step from a network output; `t` holds a step for each sample. `noise` may be absent
/// if eta is 0.
///
/// # Errors
/// Shapes that do not fit, a step that does not exist, eta outside [0, 1], or eta without noise.
pub fn ddim_step<S: State>(
    diffusion: &GaussianDiffusion,
    x: &S,
    output: &S,
    t: &[usize],
    noise: Option<&S>,
    eta: f64,
    clip_denoised: bool,
) -> Result<Step<S>> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(Error::Invalid(format!("DDIM's eta {eta} is not in [0, 1]")));
    }
    let (prediction, _) = diffusion.split_output(x, output)?;
    let pred_xstart = diffusion.pred_xstart(&prediction, x, t, clip_denoised)?;
    let epsilon = diffusion.pred_epsilon(&pred_xstart, x, t)?;
    let tables = diffusion.tables();
    let bar = |t: usize| (tables.alphas_cumprod[t], tables.alphas_cumprod_prev[t]);
    // Step 0 has alpha_bar_prev = 1 and with it sigma = 0: its noise is masked by itself.
    let sigma = |t: usize| {
        let (now, prev) = bar(t);
        eta * ((1.0 - prev) / (1.0 - now)).sqrt() * (1.0 - now / prev).sqrt()
    };
    let batch = t.len();
    let on_start = diffusion.per_sample(t, batch, |t| bar(t).1.sqrt())?;
    // Rounding must not make the root's argument negative.
    let on_epsilon = diffusion.per_sample(t, batch, |t| {
        (1.0 - bar(t).1 - sigma(t).powi(2)).max(0.0).sqrt()
    })?;
    let on_noise = diffusion.per_sample(t, batch, sigma)?;
    let sample = match noise {
        Some(z) => S::combine(&[
            (&on_start, &pred_xstart),
            (&on_epsilon, &epsilon),
            (&on_noise, z),
        ])?,
        None if eta == 0.0 => S::combine(&[(&on_start, &pred_xstart), (&on_epsilon, &epsilon)])?,
        None => return Err(Error::Invalid(format!("DDIM with eta {eta} needs noise"))),
    };
    Ok(Step {
        sample,
        pred_xstart,
    })
}

/// DDIM backwards in its deterministic form: from an image to the noise that leads to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DdimInverse {
    /// Limits the estimate of `x_0` to [-1, 1].
    pub clip_denoised: bool,
}

impl<S: State> Sampler<S> for DdimInverse {
    fn step(
        &mut self,
        at: Position<'_>,
        x: &S,
        network: &mut dyn Denoiser<S>,
        _: &mut dyn Noise<S>,
    ) -> Result<Step<S>> {
        let output = at.evaluate(network, x)?;
        ddim_reverse_step(at.diffusion, x, &output, &at.steps(x), self.clip_denoised)
    }

    fn index(&self, iteration: usize, _: usize) -> usize {
        iteration
    }
}

/// One step of DDIM's ordinary differential equation towards noise.
///
/// # Errors
/// Shapes that do not fit, or a step that does not exist.
pub fn ddim_reverse_step<S: State>(
    diffusion: &GaussianDiffusion,
    x: &S,
    output: &S,
    t: &[usize],
    clip_denoised: bool,
) -> Result<Step<S>> {
    let (prediction, _) = diffusion.split_output(x, output)?;
    let pred_xstart = diffusion.pred_xstart(&prediction, x, t, clip_denoised)?;
    let epsilon = diffusion.pred_epsilon(&pred_xstart, x, t)?;
    let next = &diffusion.tables().alphas_cumprod_next;
    let on_start = diffusion.per_sample(t, t.len(), |t| next[t].sqrt())?;
    let on_epsilon = diffusion.per_sample(t, t.len(), |t| (1.0 - next[t]).sqrt())?;
    let sample = S::combine(&[(&on_start, &pred_xstart), (&on_epsilon, &epsilon)])?;
    Ok(Step {
        sample,
        pred_xstart,
    })
}
