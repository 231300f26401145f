//! Images from a model, and the diffusion that its checkpoint describes.

use dis_diffusion::{Guidance, Limit, Options, Plan, SamplerSpec, Spacing, Variance};
use dis_model::ModelBackend;
use dis_model::{ConditionKind, DisModel, Metadata};
use dis_tensor::Reals;

use crate::error::{PipelineError, Result};
use crate::pipeline::{Artist, Row, Task};
use crate::settings::DiffusionConfig;

/// What to draw.
#[derive(Clone, Debug)]
pub struct SampleSpec {
    /// Number of images.
    pub count: usize,
    /// A class for each image; empty for a model without classes.
    pub labels: Vec<u32>,
    /// Seed: image i depends on (seed, `first` + i) alone, not on the batch size.
    pub seed: u64,
    /// Number of the first image.
    pub first: u64,
    /// Guidance.
    pub guidance: Guidance,
    /// Images at a time.
    pub batch_size: usize,
}

/// The diffusion that a checkpoint describes (published defaults where it says nothing).
///
/// # Errors
/// If its metadata describe none that there is.
pub fn diffusion_options(metadata: &Metadata) -> Result<Options> {
    match metadata.extra.get("diffusion") {
        Some(value) => {
            let config: DiffusionConfig = serde_json::from_value(value.clone()).map_err(|e| {
                PipelineError::config(format!("checkpoint metadata \"diffusion\": {e}"))
            })?;
            config.options()
        }
        None => Ok(Options {
            variance: if metadata.model.learn_sigma {
                Variance::LearnedRange
            } else {
                Variance::FixedLarge
            },
            ..Options::default()
        }),
    }
}

/// The steps of a sampler through the diffusion that a checkpoint describes.
///
/// # Errors
/// No such step of the diffusion, metadata that describe none.
pub fn plan_for(
    metadata: &Metadata,
    sampler: SamplerSpec,
    steps: usize,
    spacing: Spacing,
    limit: Option<Limit>,
) -> Result<Plan> {
    let options = diffusion_options(metadata)?;
    if steps == 0 || steps > options.steps {
        return Err(PipelineError::config(format!(
            "{steps} sampler steps, but the diffusion has 1 to {}",
            options.steps
        )));
    }
    Ok(sampler.plan(&options, steps, spacing)?.with_limit(limit))
}

/// Draws images: (count, channels, height, width) in [-1, 1] (not limited). `progress` is called after
/// every sampler step with the number of image steps done and in all.
///
/// # Errors
/// Labels of another number than images, and what sampling fails with.
pub fn generate<B: ModelBackend>(
    backend: &B,
    model: &DisModel,
    params: &Reals<B>,
    plan: &Plan,
    spec: &SampleSpec,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<f32>> {
    let classes = matches!(model.config().condition, ConditionKind::Classes { .. });
    if classes && spec.labels.len() != spec.count {
        return Err(PipelineError::config(format!(
            "{} labels for {} images",
            spec.labels.len(),
            spec.count
        )));
    }
    let rows: Vec<Row> = (0..spec.count)
        .map(|i| Row::new(spec.first + i as u64, spec.labels.get(i).copied()))
        .collect();
    let artist = Artist {
        backend,
        model,
        params,
        plan,
        seed: spec.seed,
        guidance: spec.guidance.clone(),
    };
    let total = spec.count as u64 * plan.iterations() as u64;
    let mut done = 0;
    let mut images = Vec::new();
    for rows in rows.chunks(spec.batch_size.max(1)) {
        let batch = artist.draw(rows, &Task::Generate, &mut |_| {
            done += rows.len() as u64;
            progress(done, total);
        })?;
        images.extend(batch.iter());
    }
    Ok(images)
}
