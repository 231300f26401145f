//! Stable Diffusion's image autoencoder (the diffusers library's `AutoencoderKL`) for inference on
//! the CPU: images to latents and back.
//!
//! ```no_run
//! use dis_vae::{Cpu, Tiling, Vae, ndarray::Array4};
//!
//! let vae = Vae::open("sd-vae-ft-mse".as_ref())?;
//! let cpu = Cpu::new();
//! let images = Array4::zeros((1, 3, 256, 256));
//! let posterior = vae.encode(&cpu, images.view())?;
//! assert_eq!(posterior.mean.dim(), (1, 4, 32, 32));
//! let images = vae.decode(&cpu, posterior.mean.view())?;
//! assert_eq!(images.dim(), (1, 3, 256, 256));
//! // Large images are decoded in overlapping tiles, in bounded memory.
//! let tiling = Tiling::of(vae.config());
//! let large = vae.decode_tiled(&cpu, Array4::zeros((1, 4, 256, 256)).view(), tiling)?;
//! assert_eq!(large.dim(), (1, 3, 2048, 2048));
//! # Ok::<(), dis_vae::VaeError>(())
//! ```
//!
//! Results are the same bits for any number of threads and any batch size.

mod attention;
mod config;
mod error;
mod features;
mod kernel;
mod layout;
mod names;
mod network;
mod norm;
pub mod oracle;
mod posterior;
#[cfg(test)]
mod tests;
mod tiling;
mod vae;
mod weights;

pub use dis_tensor::Cpu;
pub use ndarray;

pub use config::{Activation, LatentScale, VaeConfig};
pub use error::{Result, VaeError};
pub use posterior::Posterior;
pub use tiling::Tiling;
pub use vae::Vae;
pub use weights::Weights;
