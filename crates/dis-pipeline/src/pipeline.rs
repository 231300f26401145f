//! A checkpoint on a device, ready to draw.

use std::path::Path;

use dis_diffusion::Plan;
use dis_model::checkpoint::{Entry, InferHints, WeightFile};
use dis_model::{Checkpoint, Classes, ConditionKind, DisModel, Metadata, ModelBackend};
use dis_tensor::Reals;
use ndarray::Array4;

use crate::draw::{Artist, Row, Task, unwatched};
use crate::error::{PipelineError, Result};
use crate::settings::{Settings, usual_guidance};

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
        let mut file = WeightFile::open(path.as_ref(), &Entry::Auto)?;
        let metadata = file.describe(&InferHints::default())?;
        let model = file.model(&metadata)?;
        let params = file.read_params(&backend, model.table())?;
        Self::with_params(model, metadata, params, backend)
    }

    /// Takes a checkpoint to a device.
    ///
    /// # Errors
    /// A device that failed.
    pub fn new(checkpoint: Checkpoint, backend: B) -> Result<Self> {
        let Checkpoint {
            model,
            weights,
            metadata,
        } = checkpoint;
        let params = backend.from_f32(&weights);
        Self::with_params(model, metadata, params, backend)
    }

    /// Takes weights that are on the device, laid out by `model.table()`.
    ///
    /// # Errors
    /// A device that failed.
    pub fn with_params(
        model: DisModel,
        metadata: Metadata,
        mut params: Reals<B>,
        backend: B,
    ) -> Result<Self> {
        backend.prepare_weights(&mut params, model.table().products())?;
        Ok(Self {
            backend,
            model,
            metadata,
            params,
        })
    }

    /// The architecture.
    pub fn model(&self) -> &DisModel {
        &self.model
    }

    /// The weights, prepared for forward passes.
    pub fn params(&self) -> &Reals<B> {
        &self.params
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

    /// [`Settings::plan`] for this checkpoint.
    ///
    /// # Errors
    /// As that.
    pub fn plan(&self, settings: &Settings) -> Result<Plan> {
        settings.plan(&self.metadata)
    }

    /// What draws batches by a plan, for tasks beyond [`draw`](Self::draw).
    pub fn artist<'a>(&'a self, plan: &'a Plan, settings: &Settings) -> Artist<'a, B> {
        let guidance = settings.guidance.clone();
        Artist {
            backend: &self.backend,
            model: &self.model,
            params: &self.params,
            plan,
            seed: settings.seed,
            guidance: guidance.unwrap_or_else(|| usual_guidance(self.model.config())),
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
        let rows = Row::divided(num, &classes);
        let plan = self.plan(settings)?;
        let artist = self.artist(&plan, settings);
        let batch_size = settings.batch_size;
        artist.draw_all(&rows, &Task::Generate, batch_size, &mut unwatched)
    }
}
