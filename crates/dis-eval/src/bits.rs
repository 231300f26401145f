//! Bits per dimension of images under a model, with the parts of the bound over time.

use dis_diffusion::{Denoiser, GaussianDiffusion, SeededNoise};
use dis_model::ModelBackend;
use dis_model::classes::ClassMap;
use dis_model::{ConditionKind, DisModel};
use dis_pipeline::ModelDenoiser;
use dis_tensor::Reals;
use ndarray::Array4;
use serde::Serialize;

use crate::error::{EvalError, Result};
use crate::metrics::{Bootstrap, Drawn, Interval, mean};
use dis_data::{Dataset, ImageShape};

/// How likelihoods are measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BitsOptions {
    /// Images at a time.
    pub batch_size: usize,
    /// Seed of the noise; image i has noise of its own, whatever the batch.
    pub seed: u64,
    /// Whether estimates of the image are limited to [-1, 1], as the published code does.
    pub clip: bool,
    /// For the intervals.
    pub bootstrap: Bootstrap,
}

/// One step of the bound, means over images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BitsTerm {
    /// Step of the process, 0 being the one that makes the image.
    pub step: usize,
    /// Original timestep that the network saw.
    pub timestep: f64,
    /// Term of the bound, bits per dimension.
    pub bits: f64,
    /// Standard error of its mean.
    pub error: f64,
    /// Mean square error of the estimate of the image.
    pub xstart_mse: f64,
    /// Mean square error of the noise.
    pub mse: f64,
}

/// The bound of a set of images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BitsReport {
    /// Images.
    pub images: usize,
    /// Values of an image.
    pub dimensions: usize,
    /// Mean bound, bits per dimension: prior and all terms.
    pub total: f64,
    /// Interval of the mean.
    pub interval: Option<Interval>,
    /// What the last noise tells of the image.
    pub prior: f64,
    /// The sum of the terms but that of step 0.
    pub diffusion: f64,
    /// The term of step 0: the likelihood of the pixels given the least noisy image.
    pub decoder: f64,
    /// The terms, step 0 first.
    pub terms: Vec<BitsTerm>,
}

/// Counts the calls of a network.
struct Counted<'a, D> {
    network: D,
    called: &'a mut dyn FnMut(usize),
}

impl<D: Denoiser> Denoiser for Counted<'_, D> {
    fn predict(&mut self, x: &Array4<f32>, t: &[f64]) -> dis_diffusion::Result<Array4<f32>> {
        let out = self.network.predict(x, t);
        (self.called)(t.len());
        out
    }
}

/// The bound of all images of `data` under the model, whose classes `map` takes to the model's; none
/// if they are the same. `progress` is called with the number of images after every call of the
/// network, of which an image takes one for each step.
///
/// # Errors
/// Data of another size or without classes that the model needs, and what the network fails with.
pub fn bits_per_dim<B: ModelBackend>(
    backend: &B,
    model: &DisModel,
    params: &Reals<B>,
    diffusion: &GaussianDiffusion,
    data: &dyn Dataset,
    map: Option<&ClassMap>,
    options: &BitsOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<BitsReport> {
    let (config, shape) = (model.config(), data.shape());
    let takes = ImageShape::from(config.image_shape());
    if shape != takes {
        return Err(EvalError::config(format!(
            "the model is of images {takes}, the data are {shape}"
        )));
    }
    let classes = match config.condition {
        ConditionKind::Classes { num_classes, .. } => Some(num_classes),
        ConditionKind::None => None,
        ConditionKind::Context { .. } => {
            return Err(EvalError::config(
                "a model of sequences of embeddings needs data that have them",
            ));
        }
    };
    let steps = diffusion.steps();
    let (n, batch_size) = (data.len(), options.batch_size.max(1));
    let (mut totals, mut priors) = (Vec::with_capacity(n), Vec::with_capacity(n));
    // Sums over images of: term, its square, both errors.
    let mut sums = vec![[0.0f64; 4]; steps];
    for start in (0..n).step_by(batch_size) {
        let rows = start..start.saturating_add(batch_size).min(n);
        let mut images = vec![0.0; rows.len() * shape.len()];
        let mut labels = Vec::new();
        for (i, image) in rows.clone().zip(images.chunks_exact_mut(shape.len())) {
            data.read(i, false, image)?;
            if let Some(classes) = classes {
                labels.push(label(data, map, i, classes)?);
            }
        }
        let dims = (rows.len(), shape.channels, shape.height, shape.width);
        let images = Array4::from_shape_vec(dims, images)
            .map_err(|e| EvalError::config(format!("images: {e}")))?;
        let mut network = Counted {
            network: ModelDenoiser::new(backend, model, params, &labels),
            called: &mut *progress,
        };
        let mut noise = SeededNoise::new(options.seed, rows.map(|i| i as u64));
        let bound = diffusion.bits_per_dim(&mut network, &images, &mut noise, options.clip)?;
        for (step, sum) in sums.iter_mut().enumerate() {
            let column = steps - 1 - step;
            for row in 0..images.dim().0 {
                let bits = bound.vb[[row, column]];
                sum[0] += bits;
                sum[1] += bits * bits;
                sum[2] += bound.xstart_mse[[row, column]];
                sum[3] += bound.mse[[row, column]];
            }
        }
        totals.extend(bound.total);
        priors.extend(bound.prior);
    }
    let count = n.max(1) as f64;
    let timesteps = diffusion.network_timesteps(&(0..steps).collect::<Vec<_>>())?;
    let terms: Vec<BitsTerm> = sums
        .iter()
        .zip(timesteps)
        .enumerate()
        .map(|(step, (sum, timestep))| {
            let bits = sum[0] / count;
            let variance = (sum[1] / count - bits * bits).max(0.0);
            BitsTerm {
                step,
                timestep,
                bits,
                error: (variance / count).sqrt(),
                xstart_mse: sum[2] / count,
                mse: sum[3] / count,
            }
        })
        .collect();
    Ok(BitsReport {
        images: n,
        dimensions: shape.len(),
        total: mean(&totals),
        interval: options.bootstrap.of_mean(Drawn::Samples, &totals),
        prior: mean(&priors),
        diffusion: terms.iter().skip(1).map(|t| t.bits).sum(),
        decoder: terms.first().map_or(0.0, |t| t.bits),
        terms,
    })
}

fn label(data: &dyn Dataset, map: Option<&ClassMap>, index: usize, classes: usize) -> Result<u32> {
    let label = data.label(index);
    let label = map.map_or(label, |map| map.get(label?)).ok_or_else(|| {
        EvalError::config(format!(
            "{}: image {index} has no class, which the model needs",
            data.describe()
        ))
    })?;
    match (label as usize) < classes {
        true => Ok(label),
        false => Err(EvalError::config(format!(
            "image {index} has class {label}, but the model {classes} classes"
        ))),
    }
}
