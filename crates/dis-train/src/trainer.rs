//! One training step after another.
//!
//! Everything random is keyed by (seed, purpose, position in the batch, step), and the state is the
//! five arenas and two counters: so a run that is stopped and continued gives the same bits.

mod validate;

use dis_diffusion::{GaussianDiffusion, OnDevice, normals, uniform_timesteps};
use dis_model::ModelBackend;
use dis_model::{Condition, ConditionKind, Ctx, DisModel, ModelInput};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{AdamState, AdamW, Layout, Reals, TensorError, TokensMut};
use ndarray::Array4;

use crate::config::TrainConfig;
use crate::error::{Result, TrainError};
use crate::pace::Pace;
use crate::schedule::{average_over, ema_decay, learning_rate};
use dis_data::Batch;

/// Failures in a row after which training gives up.
pub const MAX_NOT_FINITE: u32 = 10;

/// The state of a run, on the host: arenas of one layout, and counters.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// Steps done.
    pub step: u64,
    /// Updates applied: steps less those whose loss or gradient was not finite.
    pub updates: u64,
    /// Weights.
    pub params: Vec<f32>,
    /// Moving average of the weights.
    pub ema: Vec<f32>,
    /// First moments.
    pub m: Vec<f32>,
    /// Second moments.
    pub v: Vec<f32>,
}

impl TrainState {
    /// The start of a run from these weights.
    pub fn new(params: Vec<f32>) -> Self {
        let zeros = vec![0.0; params.len()];
        Self {
            step: 0,
            updates: 0,
            ema: params.clone(),
            m: zeros.clone(),
            v: zeros,
            params,
        }
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The step, counted from 1.
    pub step: u64,
    /// Mean loss over the batch.
    pub loss: f64,
    /// Its mean square part, if there is one.
    pub mse: Option<f64>,
    /// Its variational part, if there is one.
    pub vb: Option<f64>,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Whether the update was left out because something was not finite.
    pub skipped: bool,
}

/// A model in training on a backend.
#[derive(Debug)]
pub struct Trainer<B: ModelBackend> {
    backend: B,
    model: DisModel,
    diffusion: GaussianDiffusion,
    config: TrainConfig,
    params: Reals<B>,
    ema: Reals<B>,
    m: Reals<B>,
    v: Reals<B>,
    grads: Reals<B>,
    grad_norm: Reals<B>,
    /// Mean square error and bound of each sample of a step.
    sums: B::Buf<f64>,
    pace: Pace,
    step: u64,
    updates: u64,
    not_finite: u32,
}

/// Loss terms summed over micro-batches.
#[derive(Default)]
struct Sums {
    loss: f64,
    mse: Option<f64>,
    vb: Option<f64>,
}

impl<B: ModelBackend> Trainer<B> {
    /// Takes up a run at `state`.
    ///
    /// # Errors
    /// Settings or a state that do not fit the model, a device that failed.
    pub fn new(
        backend: B,
        model: DisModel,
        diffusion: GaussianDiffusion,
        config: TrainConfig,
        state: &TrainState,
    ) -> Result<Self> {
        let len = model.table().len();
        for (name, arena) in [
            ("weights", &state.params),
            ("ema", &state.ema),
            ("m", &state.m),
            ("v", &state.v),
        ] {
            if arena.len() != len {
                return Err(TrainError::config(format!(
                    "{name}: an arena of {} elements for a model of {len}",
                    arena.len()
                )));
            }
        }
        Ok(Self {
            params: backend.from_f32(&state.params),
            ema: backend.from_f32(&state.ema),
            m: backend.from_f32(&state.m),
            v: backend.from_f32(&state.v),
            grads: backend.zeros(len),
            grad_norm: backend.zeros(1),
            sums: backend.zeros(2 * config.batch_size * config.accumulation),
            pace: Pace::new(config.steps),
            step: state.step,
            updates: state.updates,
            not_finite: 0,
            backend,
            model,
            diffusion,
            config,
        })
    }

    /// The state, copied to the host.
    pub fn state(&self) -> TrainState {
        TrainState {
            step: self.step,
            updates: self.updates,
            params: self.backend.to_f32(&self.params),
            ema: self.backend.to_f32(&self.ema),
            m: self.backend.to_f32(&self.m),
            v: self.backend.to_f32(&self.v),
        }
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// Where each step is in the schedule; that of the configuration unless it is set.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Goes on in another place of the schedule, or towards another number of steps.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// The model.
    pub fn model(&self) -> &DisModel {
        &self.model
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The moving average of the weights.
    pub fn ema(&self) -> &Reals<B> {
        &self.ema
    }

    /// Does one step on `batch`, which must hold `batch_size * accumulation` images. All of it is queued
    /// on the device before anything waits: for the loss terms and the norm, a few numbers, at the end.
    ///
    /// # Errors
    /// A batch that does not fit, too many steps in a row that were not finite, a device that failed.
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport> {
        let micro = self.config.batch_size;
        let count = self.config.accumulation;
        let image = batch.shape.len();
        if batch.images.len() != micro * count * image {
            return Err(TrainError::config(format!(
                "a batch of {} images for steps of {}",
                batch.images.len() / image.max(1),
                micro * count
            )));
        }
        let len = self.model.table().len();
        self.backend
            .fill(TokensMut::new(&mut self.grads, Layout::vector(len)), 0.0)?;
        for k in 0..count {
            self.accumulate(batch, k * micro, micro)?;
        }
        let scale = 1.0 / count as f64;
        let lr = self.learning_rate();
        let updates = self.update(lr, scale)?;
        let sums = self.losses()?;
        let mut norm = [0.0];
        self.backend.read_f64(&self.grad_norm, 0, &mut norm)?;
        let [grad_norm] = norm;
        // A loss that is not finite has a gradient that is not: the norm alone tells.
        let skipped = !grad_norm.is_finite();
        if !skipped {
            self.updates = updates;
        }
        self.step += 1;
        self.not_finite = if skipped { self.not_finite + 1 } else { 0 };
        if self.not_finite >= MAX_NOT_FINITE {
            return Err(TrainError::NotFinite {
                step: self.step,
                in_a_row: self.not_finite,
            });
        }
        Ok(StepReport {
            step: self.step,
            loss: sums.loss * scale,
            mse: sums.mse.map(|x| x * scale),
            vb: sums.vb.map(|x| x * scale),
            grad_norm: grad_norm * scale,
            lr,
            skipped,
        })
    }

    fn learning_rate(&self) -> f64 {
        let c = &self.config;
        learning_rate(
            self.pace.position(self.step),
            c.lr,
            c.lowest_lr(),
            c.warmup_steps,
            self.pace.planned(),
            c.decay,
        )
    }

    /// Decay of the moving average after its warm-up.
    fn longest_average(&self) -> f64 {
        match self.config.ema_share {
            Some(share) => average_over(share, self.pace.steps(self.step)),
            None => self.config.ema_decay,
        }
    }

    /// Forward and backward of images `start .. start + count` of the batch.
    fn accumulate(&mut self, batch: &Batch, start: usize, count: usize) -> Result<()> {
        let shape = batch.shape;
        let image = shape.len();
        let seed = self.config.seed;
        let positions: Vec<u64> = (start..start + count).map(|p| p as u64).collect();
        let dims = (count, shape.channels, shape.height, shape.width);
        let values = &batch.images[start * image..(start + count) * image];
        let x_start = Array4::from_shape_vec(dims, values.to_vec())
            .map_err(|e| TrainError::config(format!("batch of images: {e}")))?;

        let t = uniform_timesteps(seed, &positions, self.step, self.diffusion.steps());
        let noise = normals(
            seed,
            Purpose::TrainNoise,
            &positions,
            self.step,
            [shape.channels, shape.height, shape.width],
        );
        let x_start = OnDevice::new(&self.backend, x_start);
        let noise = OnDevice::new(&self.backend, noise);
        let x_t = self.diffusion.q_sample(&x_start, &t, &noise)?;
        let labels = self.labels(batch, &positions)?;
        let condition = labels
            .as_deref()
            .map_or(Condition::None, Condition::Classes);
        let drop_path = self.drop_path(&positions);
        let input = ModelInput {
            image: x_t.buf(),
            t: &self.diffusion.network_timesteps(&t)?,
            condition,
            drop_path: drop_path.as_deref(),
        };
        let (out, saved) = self.model.forward_saved(
            Ctx::new(&self.backend, &self.params),
            &input,
            self.config.recompute,
        )?;

        let channels = self.model.config().out_channels();
        let out_dims = [count, channels, shape.height, shape.width];
        let out = OnDevice::from_buf(&self.backend, out, out_dims)?;
        let sums = (&mut self.sums, 2 * start);
        let gradient = self
            .diffusion
            .training_loss_on(&x_start, &noise, &t, &out, None, sums)?;
        self.model.backward(
            Ctx::new(&self.backend, &self.params),
            saved,
            gradient.buf(),
            &mut self.grads,
            None,
        )?;
        Ok(())
    }

    /// The loss terms that the step left on the device, summed over micro-batches.
    fn losses(&self) -> Result<Sums> {
        let terms = self.backend.download(&self.sums);
        if let Some(what) = self.backend.failure() {
            return Err(TensorError::Device { op: "read", what }.into());
        }
        let mean = |terms: &[f64]| terms.iter().sum::<f64>() / terms.len().max(1) as f64;
        let mut sums = Sums::default();
        for micro in terms.chunks(2 * self.config.batch_size.max(1)) {
            let loss = self.diffusion.loss_of_sums(micro, None)?;
            let add = |sum: Option<f64>, terms: Option<Vec<f64>>| {
                terms.map(|t| mean(&t) + sum.unwrap_or(0.0))
            };
            sums.loss += loss.mean;
            sums.mse = add(sums.mse, loss.mse);
            sums.vb = add(sums.vb, loss.vb);
        }
        Ok(sums)
    }

    /// Queues the update, which a norm of the summed gradients that is not finite leaves out; what the
    /// count of updates is if it is not.
    fn update(&mut self, lr: f64, scale: f64) -> Result<u64> {
        let c = &self.config;
        self.backend.global_norm(&self.grads, &mut self.grad_norm)?;
        let update = self.updates + 1;
        let step = AdamW {
            lr,
            beta1: c.beta1,
            beta2: c.beta2,
            eps: c.eps,
            weight_decay: c.weight_decay,
            step: update,
            grad_scale: scale,
            max_grad_norm: (c.max_grad_norm > 0.0).then_some(c.max_grad_norm),
            ema_decay: ema_decay(update, self.longest_average(), c.ema_warmup),
        };
        let state = AdamState {
            params: &mut self.params,
            grads: &self.grads,
            m: &mut self.m,
            v: &mut self.v,
            ema: &mut self.ema,
            grad_norm: &self.grad_norm,
        };
        self.backend.adamw(state, step)?;
        Ok(update)
    }

    /// Labels of the samples, some replaced by the null label.
    fn labels(&self, batch: &Batch, positions: &[u64]) -> Result<Option<Vec<u32>>> {
        let ConditionKind::Classes { num_classes, .. } = self.model.config().condition else {
            return Ok(None);
        };
        let labels = batch
            .labels
            .as_ref()
            .ok_or_else(|| TrainError::config("the model has classes, but the data have none"))?;
        let null = self.model.config().null_label();
        let dropped = |p: u64| {
            let mut stream = Stream::new(self.config.seed, Purpose::LabelDrop, p, self.step);
            stream.uniform() < self.config.label_dropout
        };
        positions
            .iter()
            .map(|&p| {
                let label = labels.get(p as usize).copied().unwrap_or(u32::MAX);
                if label as usize >= num_classes {
                    return Err(TrainError::config(format!(
                        "label {label} in the data, but the model has {num_classes} classes"
                    )));
                }
                Ok(null.filter(|_| dropped(p)).unwrap_or(label))
            })
            .collect::<Result<Vec<u32>>>()
            .map(Some)
    }

    /// Stochastic-depth factors of each site, or none at all.
    fn drop_path(&self, positions: &[u64]) -> Option<Vec<Vec<f32>>> {
        let rates = self.model.config().drop_rates();
        if rates.iter().all(|&rate| rate == 0.0) {
            return None;
        }
        let mut streams: Vec<Stream> = positions
            .iter()
            .map(|&p| Stream::new(self.config.seed, Purpose::DropPath, p, self.step))
            .collect();
        let site = |&rate: &f64| {
            let keep = 1.0 - rate;
            let factor = |s: &mut Stream| {
                if s.uniform() < keep {
                    (1.0 / keep) as f32
                } else {
                    0.0
                }
            };
            let factors: Vec<f32> = streams.iter_mut().map(factor).collect();
            if rate == 0.0 { Vec::new() } else { factors }
        };
        Some(rates.iter().map(site).collect())
    }
}
