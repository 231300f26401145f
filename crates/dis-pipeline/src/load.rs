//! A checkpoint on a device, ready to draw.

use std::path::Path;

use dis_diffusion::{Guidance, Limit, Plan, SamplerSpec, Spacing};
use dis_model::ModelBackend;
use dis_model::checkpoint::InferHints;
use dis_model::classes::Division;
use dis_model::{Checkpoint, Classes, ConditionKind, DisModel, Metadata};
use dis_tensor::Reals;
use ndarray::{Array4, Axis, concatenate};

use crate::error::{PipelineError, Result};
use crate::pipeline::{Artist, Row, Task};
use crate::samples::plan_for;

/// How images are drawn.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The sampler.
    pub sampler: SamplerSpec,
    /// Its steps, 1 to those of the diffusion.
    pub steps: usize,
    /// How the steps are spread over time.
    pub spacing: Spacing,
    /// What the estimate of the image is limited to in every step.
    pub limit: Option<Limit>,
    /// Guidance scale; 1 is none. 1.5 by default for models that can be guided.
    pub cfg_scale: Option<f64>,
    /// Seed: image i depends on (seed, i) alone.
    pub seed: u64,
    /// Images at a time; decides speed and memory, not the images.
    pub batch_size: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sampler: SamplerSpec::Ddim { eta: 0.0 },
            steps: 50,
            spacing: Spacing::Default,
            limit: None,
            cfg_scale: None,
            seed: 0,
            batch_size: 16,
        }
    }
}

/// A model with its weights on a device.
#[derive(Debug)]
pub struct Pipeline<B: ModelBackend> {
    backend: B,
    model: DisModel,
    metadata: Metadata,
    params: Reals<B>,
}

impl<B: ModelBackend> Pipeline<B> {
    /// Reads a checkpoint, `.safetensors` or `.pt`: of a `.pt` file the moving average, where it has
    /// one.
    ///
    /// # Errors
    /// A file that cannot be read or is no checkpoint, in words; a device that failed.
    pub fn open(path: impl AsRef<Path>, backend: B) -> Result<Self> {
        Self::new(
            Checkpoint::load(path.as_ref(), &InferHints::default())?,
            backend,
        )
    }

    /// Takes a checkpoint to a device.
    ///
    /// # Errors
    /// A device that failed.
    pub fn new(checkpoint: Checkpoint, backend: B) -> Result<Self> {
        let mut params = backend.from_f32(&checkpoint.weights);
        backend.prepare_weights(&mut params, checkpoint.model.table().products())?;
        Ok(Self {
            backend,
            model: checkpoint.model,
            metadata: checkpoint.metadata,
            params,
        })
    }

    /// The architecture.
    pub fn model(&self) -> &DisModel {
        &self.model
    }

    /// What the checkpoint says of itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The classes, with their names where they have some; none for a model without classes.
    ///
    /// # Errors
    /// Metadata that say no such thing.
    pub fn classes(&self) -> Result<Option<Classes>> {
        Ok(Classes::of(&self.metadata)?)
    }

    /// The levels and the rule of a run.
    ///
    /// # Errors
    /// Steps that the diffusion does not have, metadata that describe no diffusion.
    pub fn plan(&self, settings: &Settings) -> Result<Plan> {
        let (sampler, steps) = (settings.sampler, settings.steps);
        plan_for(
            &self.metadata,
            sampler,
            steps,
            settings.spacing,
            settings.limit,
        )
    }

    /// What draws batches by a plan, for tasks beyond [`draw`](Self::draw).
    pub fn artist<'a>(&'a self, plan: &'a Plan, settings: &Settings) -> Artist<'a, B> {
        let guided = self.model.config().null_label().is_some();
        let usual = if guided { 1.5 } else { 1.0 };
        Artist {
            backend: &self.backend,
            model: &self.model,
            params: &self.params,
            plan,
            seed: settings.seed,
            guidance: Guidance::new(settings.cfg_scale.unwrap_or(usual)),
        }
    }

    /// `num` images divided evenly over `classes`, class by class; over all classes that the model
    /// has seen where none is named. Shape (num, channels, height, width), values in [-1, 1] up to
    /// what the sampler overshoots; latents for a model of latents.
    ///
    /// # Errors
    /// Classes of a model that has none, a model of continuous conditions, and what sampling fails
    /// with.
    pub fn draw(&self, num: usize, classes: &[u32], settings: &Settings) -> Result<Array4<f32>> {
        let classes = match (self.model.config().condition, classes) {
            (ConditionKind::Classes { .. }, []) => {
                let all = self.classes()?;
                all.map_or_else(Vec::new, |all| all.occupied())
            }
            (ConditionKind::Classes { .. }, asked) => asked.to_vec(),
            (ConditionKind::None, []) => Vec::new(),
            (ConditionKind::None, _) => {
                return Err(PipelineError::config("this model has no classes"));
            }
            (ConditionKind::Context { .. }, _) => {
                return Err(PipelineError::config(
                    "this model needs a sequence of embeddings for every image: use ModelDenoiser",
                ));
            }
        };
        let division = Division::new(num, classes.len());
        let label = |i: usize| classes.get(division.in_blocks(i)).copied();
        let rows: Vec<Row> = (0..num).map(|i| Row::new(i as u64, label(i))).collect();
        let plan = self.plan(settings)?;
        let artist = self.artist(&plan, settings);
        let batches = rows
            .chunks(settings.batch_size.max(1))
            .map(|rows| artist.draw(rows, &Task::Generate, &mut |_| {}))
            .collect::<Result<Vec<_>>>()?;
        let views: Vec<_> = batches.iter().map(|batch| batch.view()).collect();
        concatenate(Axis(0), &views).map_err(|e| PipelineError::config(e.to_string()))
    }
}
