//! Changing a given image: image to image (Meng et al., "SDEdit: Guided Image Synthesis and
//! Editing with Stochastic Differential Equations", 2022), inpainting (Lugmayr et al., "RePaint:
//! Inpainting using Denoising Diffusion Probabilistic Models", 2022, equation 8, without its
//! resampling), and inversion.

use ndarray::{Array4, IxDyn};

use crate::sampler::{At, GoOn, Level, Plan, Progress, Run, heed};
use crate::state::same_dims;
use crate::{Denoiser, Error, Noise, Result, State};

/// `image` with as much of `noise` as `level` has.
fn noised<S: State>(image: &S, noise: &S, level: Level) -> Result<S> {
    S::combine(&[(&[level.alpha], image), (&[level.sigma], noise)])
}

/// Changes an image: adds noise up to the level of the last `strength * steps` steps of the plan
/// and removes it again. `start` is standard normal noise; with strength 1 hardly anything is left
/// of the image.
///
/// # Errors
/// A strength outside (0, 1], shapes that differ, and as [`Run::finish`].
pub fn image_to_image<S: State, R: GoOn>(
    plan: &Plan,
    network: &mut dyn Denoiser<S>,
    noise: &mut dyn Noise<S>,
    start: &S,
    image: &S,
    strength: f64,
    on_iteration: impl FnMut(Progress<'_, S>) -> R,
) -> Result<S> {
    same_dims("start noise", start, image)?;
    let step = plan.step_of_strength(strength)?;
    let begin = noised(image, start, plan.grid().levels()[step])?;
    let run = Run::new(plan, network, noise, begin)?.skip_to(step)?;
    run.finish(on_iteration)
}

/// Paints a part of an image anew. `repaint` is 1 where new content is wanted and 0 where the image
/// is kept, or between; its shape is that of the image, and any of its lengths may be 1. After
/// every step what is kept is put back with fresh noise of the step's level, and exactly at the
/// end. Draw `iterations + i` of `noise` goes with iteration i of the plan, and draw `2 iterations`
/// with the beginning.
///
/// With strength 1 the repainted part begins as noise, with less it begins as the given image with
/// noise.
///
/// # Errors
/// As [`image_to_image`], or a mask whose shape does not fit.
pub fn inpaint<S: State, R: GoOn>(
    plan: &Plan,
    network: &mut dyn Denoiser<S>,
    noise: &mut dyn Noise<S>,
    start: &S,
    image: &S,
    repaint: &Array4<f32>,
    strength: f64,
    mut on_iteration: impl FnMut(Progress<'_, S>) -> R,
) -> Result<S> {
    same_dims("start noise", start, image)?;
    let mask = image.place(spread(repaint, image.dims())?)?;
    let step = plan.step_of_strength(strength)?;
    let iterations = plan.iterations();
    let level = plan.grid().levels()[step];
    let fresh = if step == 0 {
        start.clone()
    } else {
        noised(image, start, level)?
    };
    let kept = noised(image, &noise.draw(2 * iterations, image)?, level)?;
    let begin = fresh.mix(&kept, &mask)?;
    let mut run = Run::new(plan, network, noise, begin)?.skip_to(step)?;
    loop {
        let Some(progress) = run.advance()? else {
            return Ok(run.into_sample());
        };
        let iteration = progress.iteration;
        heed(on_iteration(progress), iteration)?;
        if run.settled() {
            let level = run.level();
            let kept = if level.sigma == 0.0 {
                image.clone()
            } else {
                let draw = run.noise().draw(iterations + iteration, image)?;
                noised(image, &draw, level)?
            };
            let mixed = run.sample().mix(&kept, &mask)?;
            run.replace(mixed)?;
        }
    }
}

/// A mask in the shape of the images.
fn spread(mask: &Array4<f32>, dims: [usize; 4]) -> Result<Array4<f32>> {
    if let Some(bad) = mask.iter().find(|w| !(0.0..=1.0).contains(*w)) {
        return Err(Error::Invalid(format!(
            "a mask value of {bad} is not in [0, 1]"
        )));
    }
    let spread = mask.view().into_dyn();
    spread
        .broadcast(IxDyn(&dims))
        .and_then(|view| view.to_owned().into_dimensionality().ok())
        .ok_or_else(|| Error::shape("mask", mask.shape(), &dims))
}

/// Goes from an image to the noise that leads to it, along the levels of a plan: DDIM's equation
/// backwards. Running the plan on the result (with `ddim`, `euler` or `dpmpp-1`) reconstructs the
/// image.
///
/// A step down from the noisier level with epsilon taken there is what sampling does, so the way up
/// is implicit: the noisier image is first taken with the network called at the cleaner one, and
/// then `refine` times with the network called at the last result (Pan et al., "Effective Real
/// Image Editing with Accelerated Iterative Diffusion Inversion", 2023). 0 is plain inversion; some
/// five make reconstruction nearly exact, at as many times the cost.
///
/// # Errors
/// What the network fails with, shapes that do not fit, a result that is not finite, [`Error::Ended`].
pub fn invert<S: State, R: GoOn>(
    plan: &Plan,
    network: &mut dyn Denoiser<S>,
    image: &S,
    refine: usize,
    mut on_iteration: impl FnMut(Progress<'_, S>) -> R,
) -> Result<S> {
    let (timesteps, levels) = (plan.grid().timesteps(), plan.grid().levels());
    let steps = timesteps.len();
    let mut x = image.clone();
    for (iteration, node) in (0..steps).rev().enumerate() {
        let (up, down) = (levels[node], levels[node + 1]);
        let at = At {
            diffusion: plan.diffusion(),
            limit: plan.limit(),
            iteration,
            node,
            steps,
            here: up,
            next: down,
        };
        let t = vec![timesteps[node]; image.dims()[0]];
        let shrink = up.alpha / down.alpha;
        let on_epsilon = up.sigma - down.sigma * shrink;
        let mut guess = x.clone();
        let mut pred_xstart = x.clone();
        for _ in 0..=refine {
            let output = network.predict(&guess, &t)?;
            let estimate = at.estimate(&guess, &output)?;
            let epsilon = at.epsilon(&guess, &estimate.prediction)?;
            guess = S::combine(&[(&[shrink], &x), (&[on_epsilon], &epsilon)])?;
            pred_xstart = estimate.x_start;
        }
        x = guess;
        let answer = on_iteration(Progress {
            iteration,
            iterations: steps,
            timestep: timesteps[node],
            level: up,
            sample: &x,
            pred_xstart: &pred_xstart,
        });
        heed(answer, iteration)?;
    }
    if !x.is_finite()? {
        return Err(Error::NotFinite {
            iteration: steps - 1,
            timestep: timesteps[0].round() as usize,
        });
    }
    Ok(x)
}
