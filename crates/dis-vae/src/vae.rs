//! The autoencoder.

use std::path::{Path, PathBuf};

use dis_files::FileError;
use dis_tensor::Cpu;
use dis_tensor::cpu::threads::Pieces;
use ndarray::{Array4, ArrayView4};
use sha2::{Digest, Sha256};

use crate::config::VaeConfig;
use crate::error::{Result, VaeError};
use crate::features::Features;
use crate::layout::infer_config;
use crate::network::Network;
use crate::posterior::Posterior;
use crate::weights::Weights;

/// Images of at most this many pixels are spread over threads whole; larger ones one by one, each
/// over all threads, so that memory does not grow with the number of threads.
const SMALL: usize = 128 * 128;

/// Names of weights in a folder of the diffusers library, best first.
const FILES: [&str; 2] = [
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
];

/// An AutoencoderKL with its weights, ready to run on the CPU.
#[derive(Clone, Debug)]
pub struct Vae {
    config: VaeConfig,
    encoder: Network,
    decoder: Network,
}

impl Vae {
    /// Opens a folder of the diffusers library (`config.json` and
    /// `diffusion_pytorch_model.safetensors`, or a folder whose subfolder `vae` holds them), or a
    /// safetensors file alone, whose configuration is then told from its shapes.
    ///
    /// # Errors
    /// With the file, and the key or tensor that is wrong.
    pub fn open(path: &Path) -> Result<Self> {
        let (config, file) = locate(path)?;
        let weights = Weights::open(&file)?;
        let config = match config {
            Some(path) => {
                let text = dis_files::read_json(&path, "the configuration of an autoencoder")?;
                VaeConfig::from_json(&text, &path)?
            }
            None => infer_config(&weights, &file)?,
        };
        Self::new(config, &weights)
    }

    /// From weights and a configuration.
    ///
    /// # Errors
    /// If the configuration cannot be built, or a tensor is missing, superfluous, of another shape,
    /// or holds a value that is not finite.
    pub fn new(config: VaeConfig, weights: &Weights) -> Result<Self> {
        config.check().map_err(|what| VaeError::Config {
            path: weights.origin().to_path_buf(),
            what,
        })?;
        // Before anything is allocated: a small file must not ask for a huge model.
        weights.check(&config.parameters())?;
        Ok(Self {
            encoder: Network::encoder(weights, &config)?,
            decoder: Network::decoder(weights, &config)?,
            config,
        })
    }

    /// Its configuration.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// A hash of configuration and weights, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}", self.config));
        for network in [&self.encoder, &self.decoder] {
            network.visit(&mut |numbers| hash.update(bytemuck::cast_slice::<f32, u8>(numbers)));
        }
        let digest = hash.finalize();
        digest.iter().take(16).map(|b| format!("{b:02x}")).collect()
    }

    /// Latents of images (batch, in_channels, height, width) in [-1, 1]. Sides that the reduction
    /// does not divide lose what is left over.
    ///
    /// # Errors
    /// If the images have other channels or are smaller than one latent.
    pub fn encode(&self, cpu: &Cpu, images: ArrayView4<'_, f32>) -> Result<Posterior> {
        Ok(Posterior::from_moments(self.moments(cpu, images)?.view()))
    }

    /// Means and unclamped log variances, (batch, 2 * latent_channels, height, width).
    ///
    /// # Errors
    /// As [`Vae::encode`].
    pub fn moments(&self, cpu: &Cpu, images: ArrayView4<'_, f32>) -> Result<Array4<f32>> {
        self.encoded(cpu, images, true)
    }

    /// What the encoder gives before the 1x1 map that makes it moments.
    ///
    /// # Errors
    /// As [`Vae::encode`].
    pub fn encoder_output(&self, cpu: &Cpu, images: ArrayView4<'_, f32>) -> Result<Array4<f32>> {
        self.encoded(cpu, images, false)
    }

    fn encoded(&self, cpu: &Cpu, images: ArrayView4<'_, f32>, quant: bool) -> Result<Array4<f32>> {
        let (_, channels, height, width) = images.dim();
        let least = self.config.reduction();
        if channels != self.config.in_channels || height < least || width < least {
            return Err(VaeError::input(
                "encode",
                format!(
                    "images of {channels} x {height} x {width}, but the autoencoder takes {} \
                     channels and at least {least} pixels a side",
                    self.config.in_channels
                ),
            ));
        }
        let mut to = [2 * self.config.latent_channels, height, width];
        for _ in 1..self.config.block_out_channels.len() {
            to = [to[0], to[1] / 2, to[2] / 2];
        }
        each(
            cpu,
            "encode",
            images,
            to,
            height.saturating_mul(width),
            |x| {
                let x = self.encoder.run(cpu, x);
                match &self.encoder.quant {
                    Some(conv) if quant => conv.apply(cpu, &x),
                    _ => x,
                }
            },
        )
    }

    /// Images (batch, out_channels, height, width), in [-1, 1] but not limited to it, of latents
    /// (batch, latent_channels, height, width) as the encoder gives them, unscaled.
    ///
    /// # Errors
    /// If the latents have other channels or no pixels.
    pub fn decode(&self, cpu: &Cpu, latents: ArrayView4<'_, f32>) -> Result<Array4<f32>> {
        let (_, channels, height, width) = latents.dim();
        if channels != self.config.latent_channels || height == 0 || width == 0 {
            return Err(VaeError::input(
                "decode",
                format!(
                    "latents of {channels} x {height} x {width}, but the autoencoder has {} \
                     channels of at least one pixel",
                    self.config.latent_channels
                ),
            ));
        }
        let factor = self.config.reduction();
        let side = |n: usize| n.checked_mul(factor).filter(|&n| n < 1 << 20);
        let (Some(h), Some(w)) = (side(height), side(width)) else {
            let what = format!("latents of {height} x {width} are too large");
            return Err(VaeError::input("decode", what));
        };
        let to = [self.config.out_channels, h, w];
        each(cpu, "decode", latents, to, h.saturating_mul(w), |z| {
            let z = match &self.decoder.quant {
                Some(conv) => conv.apply(cpu, &z),
                None => z,
            };
            self.decoder.run(cpu, z)
        })
    }
}

/// Runs `f` on every image of a batch. `pixels` is the size at the finest level.
fn each(
    cpu: &Cpu,
    op: &'static str,
    images: ArrayView4<'_, f32>,
    to: [usize; 3],
    pixels: usize,
    f: impl Fn(Features) -> Features + Sync,
) -> Result<Array4<f32>> {
    let (batch, c, h, w) = images.dim();
    let (from, size) = (c * h * w, to.iter().product::<usize>());
    let images = images.as_standard_layout();
    let images = images.as_slice().unwrap_or_default();
    let mut out = vec![0.0f32; batch * size];
    let one = |i: usize, out: &mut [f32]| {
        let x = Features::from_planes(cpu, &images[i * from..(i + 1) * from], [c, h, w]);
        f(x).to_planes(out);
    };
    if pixels <= SMALL && batch > 1 {
        let pieces = Pieces {
            data: &mut out[..],
            width: size,
            units: 1,
        };
        cpu.blocks(batch, 1, usize::MAX, pieces, |range, pieces| {
            for (i, out) in range.zip(pieces.data.chunks_exact_mut(size)) {
                one(i, out);
            }
        });
    } else {
        for (i, out) in out.chunks_exact_mut(size).enumerate() {
            one(i, out);
        }
    }
    Array4::from_shape_vec((batch, to[0], to[1], to[2]), out)
        .map_err(|e| VaeError::input(op, e.to_string()))
}

/// The configuration, if there is one, and the weights at a path.
fn locate(path: &Path) -> Result<(Option<PathBuf>, PathBuf)> {
    if !path.is_dir() {
        // A file of the library's own name belongs to the configuration beside it; another is
        // taken to stand alone.
        let named = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("diffusion_pytorch_model"));
        let config = path.with_file_name("config.json");
        return Ok((
            Some(config).filter(|c| named && c.is_file()),
            path.to_path_buf(),
        ));
    }
    let inner = path.join("vae");
    let folder = match path.join("config.json").is_file() || !inner.is_dir() {
        true => path.to_path_buf(),
        false => inner,
    };
    let refuse = |what: &str| FileError::format(&folder, what).into();
    let config = folder.join("config.json");
    if !config.is_file() {
        return Err(refuse("no autoencoder is here: there is no config.json"));
    }
    let files = FILES.map(|name| folder.join(name));
    match files.into_iter().find(|file| file.is_file()) {
        Some(file) => Ok((Some(config), file)),
        None if folder.join("diffusion_pytorch_model.bin").is_file() => Err(refuse(
            "the weights are a pickle (.bin); get or convert them to \
             diffusion_pytorch_model.safetensors",
        )),
        None => Err(refuse("there is no diffusion_pytorch_model.safetensors")),
    }
}
