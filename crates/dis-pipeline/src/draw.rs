//! Drawing: from noise, between two noises or classes, or from images that are given.

use std::ops::ControlFlow;

use dis_diffusion::{
    Blended, Conditional, Guidance, Guided, OnDevice, Plan, Progress, SeededNoise, State,
    image_to_image, inpaint, invert, sample, slerp,
};
use dis_model::classes::Division;
use dis_model::{ConditionKind, DisModel, ModelBackend};
use dis_tensor::Reals;
use ndarray::{Array4, Axis};

use crate::ModelDenoiser;
use crate::error::{PipelineError, Result};

/// One image to draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Number of its noise: the image depends on the seed and this, not on its place in a batch.
    pub noise: u64,
    /// Another noise, and how much of the way to it the start is, 0 to 1. Draws of the steps are
    /// those of `noise`.
    pub noise_to: Option<(u64, f64)>,
    /// Its class; none for a model without classes.
    pub label: Option<u32>,
    /// Another class, and how much of the way to it the image is, 0 to 1.
    pub label_to: Option<(u32, f64)>,
    /// Which of the given images it comes from, for tasks that have them.
    pub image: usize,
}

impl Row {
    /// An image of a noise and a class.
    pub fn new(noise: u64, label: Option<u32>) -> Self {
        Self {
            noise,
            noise_to: None,
            label,
            label_to: None,
            image: 0,
        }
    }

    /// `num` images from the noises 0, 1, 2 and so on, divided evenly over `classes`, class by class;
    /// without a class where none is named.
    pub fn divided(num: usize, classes: &[u32]) -> Vec<Self> {
        let division = Division::new(num, classes.len());
        let label = |i: usize| classes.get(division.in_blocks(i)).copied();
        (0..num).map(|i| Self::new(i as u64, label(i))).collect()
    }
}

/// What is done. Images are (n, channels, height, width) in [-1, 1], or latents.
#[derive(Clone, Debug)]
pub enum Task {
    /// Images from noise.
    Generate,
    /// Given images changed: noised as far as `strength` says, and denoised.
    Change {
        /// The images.
        images: Array4<f32>,
        /// How much, above 0 to 1.
        strength: f64,
        /// 1 where new content is wanted, 0 where the image is kept; any of its lengths may be 1.
        repaint: Option<Array4<f32>>,
    },
    /// Given images taken back to the noise that leads to them, and drawn again from it.
    Reconstruct {
        /// The images.
        images: Array4<f32>,
        /// Improvements of each step back.
        refine: usize,
    },
}

impl Task {
    /// Steps that are done, and watched, for each batch.
    ///
    /// # Errors
    /// A strength that is no share.
    pub fn iterations(&self, plan: &Plan) -> Result<usize> {
        let (steps, levels) = (plan.iterations(), plan.grid().timesteps().len().max(1));
        Ok(match self {
            Self::Generate => steps,
            Self::Change { strength, .. } => {
                let skipped = plan.step_of_strength(*strength)?;
                (steps * (levels - skipped)).div_ceil(levels)
            }
            Self::Reconstruct { .. } => steps + levels,
        })
    }
}

/// A step that was done.
pub struct Watched<'a> {
    /// Its number, from 0.
    pub iteration: usize,
    /// Steps in the whole run.
    pub iterations: usize,
    /// Images that it was done for.
    pub images: usize,
    fetch: &'a dyn Fn() -> dis_diffusion::Result<Array4<f32>>,
}

impl Watched<'_> {
    /// The images after the step, copied from the device: to be asked for only where they are needed,
    /// since the device waits for it.
    ///
    /// # Errors
    /// If the device failed.
    pub fn sample(&self) -> Result<Array4<f32>> {
        Ok((self.fetch)()?)
    }
}

/// What is called after every step, and says whether to go on.
pub type Watch<'a> = &'a mut dyn FnMut(Watched<'_>) -> ControlFlow<()>;

/// Lets a drawing go on: for those that nobody watches.
pub fn unwatched(_: Watched<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A model ready to draw.
#[derive(Debug)]
pub struct Artist<'a, B: ModelBackend> {
    /// Device.
    pub backend: &'a B,
    /// Architecture.
    pub model: &'a DisModel,
    /// Weights.
    pub params: &'a Reals<B>,
    /// Sampler and its steps.
    pub plan: &'a Plan,
    /// Seed of all noise.
    pub seed: u64,
    /// Guidance; a model without classes has nothing to be guided by.
    pub guidance: Guidance,
}

impl<B: ModelBackend> Artist<'_, B> {
    /// Draws one batch, an image for each row. `watch` is called after every step, and may end it.
    ///
    /// # Errors
    /// Labels that are missing or one too many, images or masks that do not fit, and what sampling
    /// fails with. Of one that `watch` ended, [`PipelineError::is_ended`].
    pub fn draw(&self, rows: &[Row], task: &Task, watch: Watch<'_>) -> Result<Array4<f32>> {
        let classes = matches!(self.model.config().condition, ConditionKind::Classes { .. });
        if !classes {
            let network = ModelDenoiser::new(self.backend, self.model, self.params, &[]);
            return self.run(Guided::new(network, Guidance::new(1.0)), rows, task, watch);
        }
        let mut labels = rows
            .iter()
            .map(|row| row.label)
            .collect::<Option<Vec<u32>>>()
            .ok_or_else(|| PipelineError::config("an image of a model with classes has none"))?;
        let blended = rows.iter().any(|row| row.label_to.is_some());
        if !blended {
            let network = ModelDenoiser::new(self.backend, self.model, self.params, &labels);
            return self.run(
                Guided::new(network, self.guidance.clone()),
                rows,
                task,
                watch,
            );
        }
        // The network holds both classes of every row; pairs number what it holds.
        let (mut pairs, mut weights) = (Vec::new(), Vec::new());
        for (i, row) in rows.iter().enumerate() {
            let (to, weight) = row.label_to.unwrap_or((labels[i], 0.0));
            pairs.push((i, labels.len()));
            labels.push(to);
            weights.push(weight);
        }
        let network = ModelDenoiser::new(self.backend, self.model, self.params, &labels);
        let network = Blended::new(network, pairs, weights)?;
        self.run(
            Guided::new(network, self.guidance.clone()),
            rows,
            task,
            watch,
        )
    }

    /// Draws all rows, so many at a time: (rows, channels, height, width).
    ///
    /// # Errors
    /// As [`draw`](Self::draw).
    pub fn draw_all(
        &self,
        rows: &[Row],
        task: &Task,
        batch_size: usize,
        watch: Watch<'_>,
    ) -> Result<Array4<f32>> {
        let [channels, height, width] = self.model.config().image_shape();
        let mut images = Vec::new();
        for rows in rows.chunks(batch_size.max(1)) {
            images.extend(self.draw(rows, task, watch)?);
        }
        Array4::from_shape_vec((rows.len(), channels, height, width), images)
            .map_err(|e| PipelineError::config(e.to_string()))
    }

    fn run<C: Conditional<OnDevice<B>>>(
        &self,
        mut network: Guided<C>,
        rows: &[Row],
        task: &Task,
        watch: Watch<'_>,
    ) -> Result<Array4<f32>> {
        let mut noise = SeededNoise::new(self.seed, rows.iter().map(|row| row.noise));
        let put = |host| OnDevice::new(self.backend, host);
        let start = put(self.start(rows, &noise)?);
        let (plan, network) = (self.plan, &mut network);
        let mut watch = |at: Progress<'_, OnDevice<B>>| {
            watch(Watched {
                iteration: at.iteration,
                iterations: at.iterations,
                images: rows.len(),
                fetch: &|| at.sample.fetch(),
            })
        };
        let drawn = match task {
            Task::Generate => sample(plan, network, &mut noise, start, watch)?,
            Task::Change {
                images,
                strength,
                repaint: None,
            } => {
                let images = put(given(images, rows)?);
                let noise = &mut noise;
                image_to_image(plan, network, noise, &start, &images, *strength, watch)?
            }
            Task::Change {
                images,
                strength,
                repaint: Some(mask),
            } => {
                let images = put(given(images, rows)?);
                let noise = &mut noise;
                inpaint(
                    plan, network, noise, &start, &images, mask, *strength, watch,
                )?
            }
            Task::Reconstruct { images, refine } => {
                let images = put(given(images, rows)?);
                let found = invert(plan, network, &images, *refine, &mut watch)?;
                sample(plan, network, &mut noise, found, watch)?
            }
        };
        Ok(drawn.fetch()?)
    }

    /// Start noise of the rows.
    fn start(&self, rows: &[Row], noise: &SeededNoise) -> Result<Array4<f32>> {
        let shape = self.model.config().image_shape();
        let start = noise.start(shape);
        if rows.iter().all(|row| row.noise_to.is_none()) {
            return Ok(start);
        }
        let ends = rows
            .iter()
            .map(|row| row.noise_to.unwrap_or((row.noise, 0.0)));
        let (ends, weights): (Vec<u64>, Vec<f64>) = ends.unzip();
        let end = SeededNoise::new(self.seed, ends).start(shape);
        Ok(slerp(&start, &end, &weights)?)
    }
}

/// The images that the rows come from.
fn given(images: &Array4<f32>, rows: &[Row]) -> Result<Array4<f32>> {
    let wanted: Vec<usize> = rows.iter().map(|row| row.image).collect();
    let have = images.dim().0;
    if let Some(missing) = wanted.iter().find(|&&i| i >= have) {
        return Err(PipelineError::config(format!(
            "given image {missing} of {have}"
        )));
    }
    Ok(images.select(Axis(0), &wanted))
}
