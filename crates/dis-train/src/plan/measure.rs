//! How long a step takes.

use std::time::Instant;

use dis_data::{Dataset, LoaderOptions, load_batch};
use dis_diffusion::GaussianDiffusion;
use dis_model::{DisConfig, DisModel, ModelBackend};
use dis_tensor::machine::require_memory;

use crate::config::RunConfig;
use crate::error::Result;
use crate::trainer::{TrainState, Trainer};

/// Seconds after which nothing more is timed, and most steps that are.
const ENOUGH: (f64, usize) = (0.5, 8);

/// What was measured.
pub(super) struct Timed {
    /// Of a step.
    pub seconds: f64,
    /// Of the measurement.
    pub took: f64,
}

/// Times steps of a model on the first batch of the data.
pub(super) fn time_step<B: ModelBackend>(
    backend: &B,
    config: &RunConfig,
    model: &DisConfig,
    data: &dyn Dataset,
) -> Result<Timed> {
    let begun = Instant::now();
    let train = &config.train;
    let images = train.batch_size.saturating_mul(train.accumulation);
    let bytes = 4 * images as u128 * data.shape().len() as u128;
    require_memory(
        format!("train.batch_size (--batch-size) {}", train.batch_size),
        bytes,
    )?;
    let model = DisModel::new(*model)?;
    let diffusion = GaussianDiffusion::new(&config.diffusion.options()?)?;
    let batch = load_batch(data, &LoaderOptions::new(train.seed, images), 0)?;
    let state = TrainState::new(model.table().initial(train.seed));
    let mut trainer = Trainer::new(backend.clone(), model, diffusion, train.clone(), &state)?;
    // The first makes room and starts threads.
    trainer.step(&batch)?;
    let (first, mut steps) = (Instant::now(), 0);
    while steps == 0 || (steps < ENOUGH.1 && first.elapsed().as_secs_f64() < ENOUGH.0) {
        trainer.step(&batch)?;
        steps += 1;
    }
    Ok(Timed {
        seconds: (first.elapsed().as_secs_f64() / steps as f64).max(1e-6),
        took: begun.elapsed().as_secs_f64(),
    })
}
