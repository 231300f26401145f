//! Gaussian diffusion for any network: noise schedules, respacing, losses with their gradient,
//! classifier-free guidance and samplers, on `ndarray` arrays of shape (batch, channels, height,
//! width).
//!
//! A network is anything that implements [`Denoiser`], a closure for instance. Here is one whose
//! images are all grey of value 0.25, so the noise it sees can be told exactly:
//!
//! ```
//! use dis_diffusion::{GaussianDiffusion, Options, SamplerSpec, SeededNoise, Spacing, Variance};
//! use dis_diffusion::{from_fn, ndarray::Array4, sample};
//!
//! let options = Options { variance: Variance::FixedSmall, ..Options::default() };
//! let full = GaussianDiffusion::new(&options)?;
//! let mut network = from_fn(|x: &Array4<f32>, t: &[f64]| {
//!     let alpha_bar = full.tables().alphas_cumprod[t[0] as usize];
//!     x.mapv(|x| (x - 0.25 * alpha_bar.sqrt() as f32) / (1.0 - alpha_bar).sqrt() as f32)
//! });
//!
//! // Which noise levels, which rule: `ddim`, `heun`, `dpmpp-2m`, `unipc-2`, ...
//! let sampler: SamplerSpec = "dpmpp-2m".parse()?;
//! let plan = sampler.plan(&options, 10, Spacing::Linspace)?;
//! // Noise is keyed by seed and sample: samples 0 to 3 are the same in any batch.
//! let mut noise = SeededNoise::new(7, 0..4);
//! let start = noise.start([3, 8, 8]);
//! let images = sample(&plan, &mut network, &mut noise, start, |at| {
//!     println!("{} of {}", at.iteration + 1, at.iterations);
//! })?;
//! assert!(images.iter().all(|x| (x - 0.25).abs() < 1e-3));
//! # Ok::<(), dis_diffusion::Error>(())
//! ```
//!
//! * [`GaussianDiffusion`] holds the float64 [`Tables`] and offers q_sample, posteriors, losses
//!   ([`training_loss`](GaussianDiffusion::training_loss)) and the bound in bits per dimension.
//! * [`SamplerSpec`] names all samplers; a [`Plan`] places their steps on a [`Grid`] of noise
//!   levels, a [`Run`] advances them one by one, [`sample`] to the end. Each is a [`Sampler`] in a
//!   file of its own with its source.
//! * [`image_to_image`], [`inpaint`], [`invert`], [`slerp`] and [`Blended`] change and mix images.
//! * [`Guided`] turns a [`Conditional`] network into a guided [`Denoiser`].
//! * Everything on the way from noise to image is written over [`State`], so that a device can
//!   implement it and keep images where they are.

pub mod blend;
pub mod bound;
pub mod denoiser;
pub mod device;
pub mod diffusion;
pub mod edit;
pub mod error;
pub mod guidance;
pub mod loss;
pub mod noise;
mod resample;
pub mod respacing;
pub mod sampler;
pub mod schedule;
pub mod state;
pub mod tables;

pub use blend::{Blended, slerp};
pub use bound::{BitsPerDim, BoundTerms};
pub use denoiser::{Conditional, Denoiser, FromFn, from_conditional_fn, from_fn};
pub use device::OnDevice;
pub use diffusion::{
    Gaussian, GaussianDiffusion, LogVariance, LossKind, Options, Prediction, Reverse, Variance,
};
pub use ndarray;

pub use dis_tensor::random::{Purpose, Stream};
pub use edit::{image_to_image, inpaint, invert};
pub use error::{Error, Result};
pub use guidance::{
    Guidance, Guided, GuidedChannels, PublishedGuidance, guide, published_guidance, rescale,
};
pub use loss::Loss;
pub use noise::{Noise, SeededNoise, SuppliedNoise, normals, uniform_timesteps};
pub use resample::SecondMomentSampler;
pub use respacing::Respacing;
pub use sampler::{
    Ancestral, At, Correction, Ddim, DpmOptions, DpmSolver, End, Estimate, Euler, EulerAncestral,
    GoOn, Grid, GridOptions, Heun, LastLevel, Level, Limit, MIN_ALPHA_BAR, Plan, Progress, Ramp,
    Rounding, Run, Sampler, SamplerSpec, Spacing, Step, Stride, ThirdOrder, UniPc, UniPcKind,
    UniPcOptions, ddim_reverse_step, ddim_step, p_sample, sample,
};
pub use schedule::Schedule;
pub use state::State;
pub use tables::Tables;
