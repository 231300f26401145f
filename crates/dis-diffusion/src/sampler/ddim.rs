//! DDIM (Song et al., "Denoising Diffusion Implicit Models", 2021, equations 12 and 16):
//! `x_prev = sqrt(alpha_bar_prev) x_0 + sqrt(1 - alpha_bar_prev - s^2) epsilon + s z`,
//! `s = eta sqrt((1 - alpha_bar_prev) / (1 - alpha_bar)) sqrt(1 - alpha_bar / alpha_bar_prev)`,
//! where epsilon follows from the (possibly limited) estimate of `x_0`; and one step of it towards
//! noise.

use super::{At, Sampler, Step};
use crate::{Error, GaussianDiffusion, Noise, Result, State};

/// DDIM: deterministic for eta 0, as noisy as ancestral sampling with posterior variances for
/// eta 1. It runs between any two noise levels; where these are steps of the diffusion's own
/// tables, coefficients come from there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ddim {
    /// Amount of noise, in [0, 1]. With 0, no noise is asked for.
    pub eta: f64,
    /// Takes epsilon from the network as it is, rather than from the estimate of `x_0` after it
    /// was limited.
    pub raw_epsilon: bool,
}

impl<S: State> Sampler<S> for Ddim {
    fn step(
        &mut self,
        at: &At<'_>,
        x: &S,
        output: &S,
        noise: &mut dyn Noise<S>,
    ) -> Result<Step<S>> {
        match at.index() {
            Some(index) if !self.raw_epsilon => {
                let draw = if self.eta == 0.0 {
                    None
                } else {
                    Some(noise.draw(at.iteration, x)?)
                };
                let (t, clip) = (vec![index; x.dims()[0]], at.limit.is_some());
                ddim_step(at.diffusion, x, output, &t, draw.as_ref(), self.eta, clip)
            }
            _ => self.between_levels(at, x, output, noise),
        }
    }
}

impl Ddim {
    /// With alpha and sigma of any two levels for the roots of `alpha_bar` and `1 - alpha_bar`.
    fn between_levels<S: State>(
        self,
        at: &At<'_>,
        x: &S,
        output: &S,
        noise: &mut dyn Noise<S>,
    ) -> Result<Step<S>> {
        check_eta(self.eta)?;
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

fn check_eta(eta: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(Error::Invalid(format!("DDIM's eta {eta} is not in [0, 1]")));
    }
    Ok(())
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
    check_eta(eta)?;
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
