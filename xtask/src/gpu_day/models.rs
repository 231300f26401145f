//! Step "models": what a training step and sampling cost.

use std::time::Instant;

use anyhow::{Result, ensure};
use dis_data::{Batch, ImageShape};
use dis_diffusion::{
    GaussianDiffusion, OnDevice, Options, SamplerSpec, SeededNoise, Spacing, State,
};
use dis_kernels::Driver;
use dis_model::cost::Cost;
use dis_model::{ConditionKind, DisConfig, DisModel};
use dis_pipeline::ModelDenoiser;
use dis_tensor::{Backend, Cuda, Precision};
use dis_train::config::TrainConfig;
use dis_train::{TrainState, Trainer};
use serde_json::json;

use super::Day;
use super::device::Facts;
use super::section::{Section, Table};

/// Steps of DDIM that sampling speeds are told for.
const TOLD_STEPS: f64 = 50.0;
/// Share of the free memory that the cost model may fill.
const FILL: f64 = 0.9;

/// A model of the table.
struct Entry {
    name: String,
    config: DisConfig,
    /// Batches to train with.
    training: Vec<usize>,
    /// Batches to sample.
    sampling: Vec<usize>,
}

fn entries(quick: bool) -> Result<Vec<Entry>> {
    let classes = |config: DisConfig, num_classes| DisConfig {
        condition: ConditionKind::Classes {
            num_classes,
            null_label: true,
        },
        ..config
    };
    if quick {
        return Ok(vec![Entry {
            name: "tiny".into(),
            config: classes(DisConfig::new(4, 2, 4, 6, 2), 3),
            training: vec![2],
            sampling: vec![2],
        }]);
    }
    ["DiS-S/2", "DiS-B/2", "DiS-H/2"]
        .iter()
        .map(|name| {
            Ok(Entry {
                name: (*name).into(),
                config: classes(DisConfig::zoo(name, 32, 4)?, 1000),
                training: vec![16, 64, 256],
                sampling: vec![1, 16, 64],
            })
        })
        .collect()
}

/// What a run took.
struct Speed {
    seconds: f64,
    repetitions: usize,
    held: usize,
}

fn images(config: &DisConfig, count: usize, seed: u64) -> Batch {
    let noise = SeededNoise::new(seed, 0..count as u64);
    let start = noise.start(config.image_shape());
    let labels = match config.condition {
        ConditionKind::Classes { num_classes, .. } => {
            Some((0..count).map(|i| (i % num_classes) as u32).collect())
        }
        _ => None,
    };
    Batch {
        step: 0,
        shape: ImageShape::from(config.image_shape()),
        images: start.into_raw_vec_and_offset().0,
        labels,
        draws: Vec::new(),
    }
}

/// Training steps: everything that `dis train` does in one but reading data.
fn train<D: Driver>(
    day: &Day,
    driver: &D,
    config: DisConfig,
    batch: usize,
    recompute: bool,
    precision: Precision,
) -> Result<Speed> {
    let backend = Cuda::new(driver.clone()).with_precision(precision);
    let model = DisModel::new(config)?;
    let state = TrainState::new(model.table().initial(day.seed));
    let options = TrainConfig {
        batch_size: batch,
        recompute,
        seed: day.seed,
        ..TrainConfig::default()
    };
    let diffusion = GaussianDiffusion::new(&Options::default())?;
    let mut trainer = Trainer::new(backend.clone(), model, diffusion, options, &state)?;
    drop(state);
    let batch = images(&config, batch, day.seed);
    let (warm_up, steps) = if day.quick { (0, 1) } else { (2, 5) };
    for _ in 0..warm_up {
        trainer.step(&batch)?;
    }
    driver.synchronise()?;
    let start = Instant::now();
    for _ in 0..steps {
        let report = trainer.step(&batch)?;
        ensure!(!report.skipped, "a step was not finite: {report:?}");
    }
    driver.synchronise()?;
    let seconds = start.elapsed().as_secs_f64() / steps as f64;
    ok(&backend)?;
    Ok(Speed {
        seconds,
        repetitions: steps,
        held: backend.pool_stats().bytes_held,
    })
}

/// Steps of DDIM with guidance left out: one evaluation of the network each.
fn sample<D: Driver>(
    day: &Day,
    driver: &D,
    config: DisConfig,
    batch: usize,
    precision: Precision,
) -> Result<Speed> {
    let backend = Cuda::new(driver.clone()).with_precision(precision);
    let model = DisModel::new(config)?;
    let mut params = backend.from_f32(&model.table().initial(day.seed));
    backend.prepare_weights(&mut params, model.table().products())?;
    let labels = images(&config, batch, day.seed).labels.unwrap_or_default();
    let sampler: SamplerSpec = "ddim".parse()?;
    let steps = if day.quick { 2 } else { 10 };
    let plan = sampler.plan(&Options::default(), steps, Spacing::Default)?;
    let once = || -> Result<f64> {
        let mut noise = SeededNoise::new(day.seed, 0..batch as u64);
        let from = OnDevice::new(&backend, noise.start(config.image_shape()));
        let mut network = ModelDenoiser::new(&backend, &model, &params, &labels);
        driver.synchronise()?;
        let start = Instant::now();
        let image = dis_diffusion::sample(&plan, &mut network, &mut noise, from, |_| {})?;
        driver.synchronise()?;
        let seconds = start.elapsed().as_secs_f64() / steps as f64;
        ensure!(image.is_finite()?, "samples are not finite");
        Ok(seconds)
    };
    if !day.quick {
        once()?;
    }
    let seconds = once()?;
    ok(&backend)?;
    Ok(Speed {
        seconds,
        repetitions: steps,
        held: backend.pool_stats().bytes_held,
    })
}

fn ok<D: Driver>(backend: &Cuda<D>) -> Result<()> {
    match backend.failure() {
        Some(what) => anyhow::bail!("{what}"),
        None => Ok(()),
    }
}

/// Runs the step.
pub fn run<D: Driver>(day: &Day, driver: &D, facts: &Facts) -> Result<Section> {
    let mut training = Table::new(&[
        "model",
        "batch",
        "products",
        "recompute",
        "ms a step",
        "images/s",
        "GiB held",
    ]);
    let mut sampling = Table::new(&[
        "model",
        "batch",
        "products",
        "ms a network step",
        "images/s at 50 steps",
        "GiB held",
    ]);
    let (mut data, mut failures, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    let gib = |bytes: f64| format!("{:.2}", bytes / f64::from(1 << 30));
    let limit = FILL * facts.free_bytes as f64;
    for entry in entries(day.quick)? {
        let (full, half) = (Precision::Float32, Precision::Bfloat16);
        let mut cases: Vec<(usize, Option<bool>, Precision)> = Vec::new();
        for &batch in &entry.training {
            cases.extend(
                [(Some(false), full), (Some(true), full), (Some(false), half)]
                    .map(|(recompute, precision)| (batch, recompute, precision)),
            );
        }
        for &batch in &entry.sampling {
            cases.extend([full, half].map(|precision| (batch, None, precision)));
        }
        for (batch, recompute, precision) in cases {
            let memory = Cost::of(&entry.config, batch)?.memory;
            let need = memory.weights
                + match recompute {
                    Some(false) => memory.optimizer + memory.training,
                    Some(true) => memory.optimizer + memory.training_recompute,
                    None => memory.inference,
                }
                + match (recompute, precision) {
                    // Beside the weights lie those that are rounded.
                    (None, Precision::Bfloat16) => memory.weights / 2,
                    _ => 0,
                };
            let products = match precision {
                Precision::Float32 => "float32",
                Precision::Bfloat16 => "bfloat16",
            };
            let what = match recompute {
                Some(false) => "training",
                Some(true) => "training with recompute",
                None => "sampling",
            };
            let name = format!("{} {what}, batch {batch}, {products}", entry.name);
            if need as f64 > limit {
                skipped.push(format!("{name} ({} GiB)", gib(need as f64)));
                continue;
            }
            eprintln!("{name}");
            let speed = match recompute {
                Some(recompute) => train(day, driver, entry.config, batch, recompute, precision),
                None => sample(day, driver, entry.config, batch, precision),
            };
            let speed = match speed {
                Ok(speed) => speed,
                Err(error) => {
                    failures.push(format!("{name}: {error:#}"));
                    continue;
                }
            };
            let (ms, rate) = (1e3 * speed.seconds, batch as f64 / speed.seconds);
            let held = gib(speed.held as f64);
            match recompute {
                Some(recompute) => training.push([
                    entry.name.clone(),
                    batch.to_string(),
                    products.into(),
                    if recompute { "yes" } else { "no" }.into(),
                    format!("{ms:.2}"),
                    format!("{rate:.1}"),
                    held,
                ]),
                None => sampling.push([
                    entry.name.clone(),
                    batch.to_string(),
                    products.into(),
                    format!("{ms:.2}"),
                    format!("{:.2}", rate / TOLD_STEPS),
                    held,
                ]),
            }
            data.push(json!({
                "model": entry.name, "what": what, "batch": batch, "products": products, "seconds": speed.seconds,
                "repetitions": speed.repetitions, "bytes_held": speed.held,
                "bytes_by_cost_model": need,
            }));
        }
    }
    let mut notes = vec![
        "Latents of 32 x 32 x 4, 1000 classes, random weights. A training step is all of what \
         `dis train` does but reading data: noise and loss on the host, forward, backward, clipping, \
         AdamW, moving average. A network step is one evaluation and one DDIM update, without \
         guidance, which would double it."
            .to_string(),
    ];
    if !skipped.is_empty() {
        notes.push(format!("Too large for the memory: {}.", skipped.join("; ")));
    }
    Ok(Section {
        notes,
        tables: vec![training, sampling],
        data: json!({ "runs": data, "skipped": skipped }),
        failures,
    })
}
