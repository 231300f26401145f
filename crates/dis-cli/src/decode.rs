//! Pictures of the latents that a model draws, and latents of pictures.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dis_data::{ImageShape, grid};
use dis_model::Metadata;
use dis_tensor::Cpu;
use dis_vae::{LatentScale, Tiling, Vae};
use ndarray::ArrayView4;
use serde_json::Value;

use crate::warning;

/// Latents whose sides are up to this are decoded whole, unless the user says otherwise.
const WHOLE: usize = 64;

/// An autoencoder and how the latents of a model are scaled.
pub struct Decoder {
    vae: Vae,
    scale: LatentScale,
    tiling: Option<Tiling>,
    /// Of what the model draws.
    latent: ImageShape,
}

impl Decoder {
    /// What `--vae` asks for; refuses it for a model of pictures, and pictures of latents without
    /// it.
    pub fn open(
        vae: Option<&Path>,
        tile: Option<usize>,
        metadata: &Metadata,
    ) -> Result<Option<Self>> {
        let latent = ImageShape::from(metadata.model.image_shape());
        let channels = latent.channels;
        let known = metadata.extra.contains_key("latent_scale");
        let Some(path) = vae else {
            if known || !matches!(channels, 1 | 3) {
                bail!(
                    "this is a model of latents ({channels} channels): give the autoencoder that \
                     makes pictures of them with --vae DIR"
                );
            }
            return Ok(None);
        };
        let vae = Vae::open(path)?;
        ensure!(
            vae.config().latent_channels == channels,
            "--vae {}: has latents of {} channels, but the model draws {channels}",
            path.display(),
            vae.config().latent_channels
        );
        ensure!(
            matches!(vae.config().out_channels, 1 | 3),
            "--vae {}: makes images of {} channels, which are no pictures",
            path.display(),
            vae.config().out_channels
        );
        let trained = metadata.extra.get("autoencoder");
        if trained.is_some_and(|print| print.as_str() != Some(&vae.fingerprint())) {
            warning!("the model was trained on latents of another autoencoder");
        }
        let tiling = match tile {
            Some(0) => None,
            Some(size) => Some(Tiling::new(size)),
            None => (latent.height.max(latent.width) > WHOLE).then_some(Tiling::new(WHOLE)),
        };
        Ok(Some(Self {
            scale: scale(metadata, &vae)?,
            vae,
            tiling,
            latent,
        }))
    }

    /// Size of the pictures.
    pub fn shape(&self) -> ImageShape {
        let factor = self.vae.config().reduction();
        ImageShape {
            channels: self.vae.config().out_channels,
            height: self.latent.height * factor,
            width: self.latent.width * factor,
        }
    }

    /// Size of the latents.
    pub fn latent(&self) -> ImageShape {
        self.latent
    }

    /// What the model sees of a picture in [-1, 1]: its mean latent, scaled.
    pub fn encode(&self, cpu: &Cpu, picture: Vec<f32>) -> Result<Vec<f32>> {
        let ImageShape {
            channels,
            height,
            width,
        } = self.shape();
        let takes = self.vae.config().in_channels;
        ensure!(
            takes == channels,
            "--vae: takes pictures of {takes} channels but makes ones of {channels}"
        );
        let picture = ArrayView4::from_shape((1, channels, height, width), &picture)?;
        let mean = self.vae.encode(cpu, picture)?.mean;
        let mut latent: Vec<f32> = mean.iter().copied().collect();
        let Self { scale, .. } = self;
        scale.apply(&mut latent, self.latent.height * self.latent.width);
        Ok(latent)
    }

    /// Bytes of pictures, one after the other. `done` is called after each.
    pub fn decode(&self, cpu: &Cpu, mut latents: Vec<f32>, done: &dyn Fn()) -> Result<Vec<u8>> {
        let ImageShape {
            channels,
            height,
            width,
        } = self.latent;
        self.scale.undo(&mut latents, height * width);
        let mut bytes = Vec::new();
        for latent in latents.chunks_exact(self.latent.len()) {
            let z = ArrayView4::from_shape((1, channels, height, width), latent)?;
            let image = match self.tiling {
                Some(tiling) => self.vae.decode_tiled(cpu, z, tiling)?,
                None => self.vae.decode(cpu, z)?,
            };
            bytes.extend(grid::to_bytes(image.as_slice().unwrap_or_default()));
            done();
        }
        Ok(bytes)
    }
}

/// The scale that a model was trained with; the autoencoder's own where the checkpoint says none.
fn scale(metadata: &Metadata, vae: &Vae) -> Result<LatentScale> {
    let channels = vae.config().latent_channels;
    let list = |key: &str| -> Result<Option<Vec<f64>>> {
        let Some(value) = metadata.extra.get(key) else {
            return Ok(None);
        };
        let list = match value {
            Value::Array(list) => list.iter().map(Value::as_f64).collect(),
            one => one.as_f64().map(|x| vec![x; channels]),
        };
        let list = list.filter(|l: &Vec<f64>| l.len() == channels);
        list.map(Some)
            .with_context(|| format!("checkpoint metadata {key:?} is {value}"))
    };
    let Some(scale) = list("latent_scale")? else {
        return Ok(vae.config().latent_scale());
    };
    ensure!(
        !scale.contains(&0.0),
        "checkpoint metadata \"latent_scale\" holds a zero"
    );
    Ok(LatentScale {
        shift: list("latent_shift")?.unwrap_or(vec![0.0; channels]),
        scale,
    })
}
