//! The training loop.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dis_diffusion::{GaussianDiffusion, Guidance};
use dis_files::DirLock;
use dis_files::write_atomic;
use dis_model::ModelBackend;
use dis_model::cost::Memory;
use dis_model::{Checkpoint, Classes, DisConfig, DisModel, Metadata, cost::Cost};
use dis_pipeline::{Artist, Row, SamplerSpec, Settings, Task, unwatched};
use dis_tensor::machine::require_memory;

use super::data::{DataChange, DataPolicy, compare, open_data, same_classes};
use super::dir::{Manifest, RunDir};
use super::metadata::extra_metadata;
use super::metrics::MetricsLog;
use super::transfer::transfer;
use crate::config::RunConfig;
use crate::error::{Result, TrainError};
use crate::trainer::{StepReport, TrainState, Trainer};
use dis_data::{Dataset, ImageShape, Loader, LoaderOptions, describe_unoccupied, grid};

/// Batches that are in memory at once: the one that is trained on, two that are ready, one in the making.
const READ_AHEAD: u128 = 4;

/// Classes in a grid of samples.
const PAGE: usize = 16;

/// Where a run begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// A new run, with weights drawn by the seed.
    New,
    /// A new run from the weights of a checkpoint, fitted as [`transfer`] says.
    From {
        /// Its model and weights.
        checkpoint: Box<Checkpoint>,
        /// Where it came from, for the record.
        origin: String,
    },
    /// The newest checkpoint of the run in the directory, or step 0 if there is none.
    Resume,
}

/// What is known when a run starts.
#[derive(Clone, Debug)]
pub struct Started {
    /// What computes.
    pub backend: String,
    /// What is trained on.
    pub data: String,
    /// Parameters of the model.
    pub parameters: usize,
    /// Memory that training will need.
    pub memory: Memory,
    /// Step that the run continues after; 0 for a new one.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Images in a step.
    pub images_per_step: usize,
    /// With the weights of a checkpoint: which, and what was taken from it.
    pub from: Option<String>,
}

/// Watches a run. All methods may do nothing.
pub trait Observer {
    /// Pictures are looked at before the run starts: how many are done, and how many there are.
    fn checking(&mut self, _done: usize, _all: usize) {}
    /// The run starts.
    fn started(&mut self, _start: &Started) {}
    /// A step is done; `mean_loss` is over the last hundred that were no failures, not a number if there
    /// is none.
    fn step(&mut self, _report: &StepReport, _mean_loss: f64) {}
    /// Something worth telling, such as a file written.
    fn message(&mut self, _text: &str) {}
    /// Something worth warning of.
    fn warning(&mut self, _text: &str) {}
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Steps done.
    pub step: u64,
    /// Steps that its configuration asks for.
    pub steps: u64,
    /// Whether it was asked to stop before its last step.
    pub interrupted: bool,
    /// The checkpoint that was written last.
    pub checkpoint: PathBuf,
    /// Mean loss over the last hundred steps of this session; none if it made no update.
    pub mean_loss: Option<f64>,
    /// Whether all steps were done already: then nothing was written.
    pub nothing_to_do: bool,
}

/// Trains in the run directory `out` until the last step, or until `stop` is set: then a checkpoint
/// is written first. A run that is resumed with no more steps than it has done stays as it is.
///
/// # Errors
/// Settings, data and checkpoints that do not fit together, more memory than there is, what reading
/// and writing fails with, and a loss that stays infinite.
pub fn train<B: ModelBackend>(
    backend: B,
    mut config: RunConfig,
    out: &Path,
    start: Start,
    policy: DataPolicy,
    instruction_set: &str,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let stored = match start {
        Start::Resume => Some(RunDir::open(out)?.1),
        Start::New | Start::From { .. } => None,
    };
    let (spec, data) = open_data(&mut config, stored.as_ref(), out, policy, observer, stop)?;
    let model_config = config.resolve(&*data)?;
    let model = DisModel::with_init(model_config, &config.train.init())?;
    check_memory(backend.on_host(), &config, &model_config, data.shape())?;
    let diffusion = GaussianDiffusion::new(&config.diffusion.options()?)?;
    let mut metadata = Metadata::new(model_config);
    metadata
        .extra
        .extend(extra_metadata(&config.diffusion, &*data));

    let begun = match &start {
        // Before the lock too: of what is refused nothing is left.
        Start::From { checkpoint, origin } => {
            let seed = config.train.seed;
            let (weights, transfer) = transfer(checkpoint, &model, &metadata, seed)?;
            Some((weights, origin.clone(), transfer))
        }
        _ => None,
    };
    let taken = begun.as_ref();
    let taken = taken.map(|(_, origin, transfer)| format!("{origin}: {transfer}"));
    // Held until the run ends, however it ends.
    let _lock = DirLock::acquire(out, "dis train")?;
    let mut data_changes = Vec::new();
    let (dir, state) = match (start, begun) {
        (Start::New | Start::From { .. }, None) => {
            let state = TrainState::new(model.table().initial(config.train.seed));
            (RunDir::create(out, &config)?, state)
        }
        (_, Some((weights, origin, transfer))) => {
            let dir = RunDir::create(out, &config)?;
            dir.record_transfer(&origin, &transfer)?;
            (dir, TrainState::new(weights))
        }
        (Start::Resume, None) => {
            let (dir, found) = RunDir::open(out)?;
            let accept = policy.accept_changed;
            let resumed = resume(
                &dir,
                &model,
                &config,
                &*data,
                accept,
                instruction_set,
                observer,
            )?;
            let state;
            (state, data_changes) = resumed;
            if state.step >= config.train.steps {
                return Ok(Outcome {
                    step: state.step,
                    steps: found.train.steps,
                    interrupted: false,
                    checkpoint: dir.step_path(state.step),
                    mean_loss: None,
                    nothing_to_do: true,
                });
            }
            write_atomic(&dir.config_path(), config.to_toml()?.as_bytes())?;
            (dir, state)
        }
    };
    let images_per_step = config.train.batch_size * config.train.accumulation;
    observer.started(&Started {
        backend: backend.describe(),
        data: data.describe(),
        parameters: model.table().parameters(),
        memory: Cost::of(&model_config, config.train.batch_size)?.memory,
        step: state.step,
        steps: config.train.steps,
        images_per_step,
        from: taken,
    });
    if let Some(text) = describe_unoccupied(&*data) {
        observer.warning(&format!(
            "{text}; the model does not learn what is not there"
        ));
    }
    let manifest = Manifest {
        step: 0,
        updates: 0,
        seed: config.train.seed,
        data: data.identity(),
        data_changes,
        instruction_set: instruction_set.to_string(),
        sha256: BTreeMap::new(),
    };
    let loader = Loader::new(
        Arc::clone(&data),
        LoaderOptions {
            seed: config.train.seed,
            batch_size: images_per_step,
            flip: spec.flip,
            start_step: state.step,
            ..LoaderOptions::new(config.train.seed, images_per_step)
        },
    )?;
    let log = MetricsLog::open(&dir.metrics_path(), state.step)?;
    let trainer = Trainer::new(backend, model, diffusion, config.train.clone(), &state)?;
    Run {
        dir,
        config,
        data,
        metadata,
        manifest,
        trainer,
        log,
    }
    .finish(loader, observer, stop)
}

/// Refuses a run that needs more memory than the machine has, before any of it is taken. On another
/// device only the batches that are read ahead lie in this memory.
fn check_memory(
    on_host: bool,
    config: &RunConfig,
    model: &DisConfig,
    shape: ImageShape,
) -> Result<()> {
    let train = &config.train;
    let bytes = |count: u128| count * 4 * shape.len() as u128;
    if on_host {
        let one = Cost::of(model, 1)?.memory.whole_training(train.recompute);
        require_memory("training this [model] with one image at a time", one.into())?;
        let batch = Cost::of(model, train.batch_size)?.memory;
        let hint = if train.recompute {
            ""
        } else {
            " without --recompute"
        };
        require_memory(
            format!("train.batch_size (--batch-size) {}{hint}", train.batch_size),
            batch.whole_training(train.recompute).into(),
        )?;
    }
    let images = train.batch_size as u128 * train.accumulation as u128;
    require_memory(
        format!(
            "train.batch_size (--batch-size) {} with train.accumulation {}",
            train.batch_size, train.accumulation
        ),
        READ_AHEAD * bytes(images),
    )?;
    if train.sample_every > 0 {
        let drawn = config.sample.per_class as u128 * PAGE as u128;
        let what = format!("sample.per_class {}", config.sample.per_class);
        require_memory(what, 2 * bytes(drawn))?;
    }
    Ok(())
}

/// The newest whole checkpoint, with the changes of data up to it; the start of the run if there is
/// none.
fn resume(
    dir: &RunDir,
    model: &DisModel,
    config: &RunConfig,
    data: &dyn Dataset,
    accept_changed: bool,
    instruction_set: &str,
    observer: &mut dyn Observer,
) -> Result<(TrainState, Vec<DataChange>)> {
    dir.sweep()?;
    let mut unreadable = Vec::new();
    let newest = dir.newest_whole(&mut |folder, error| {
        observer.warning(&format!(
            "{error}; the checkpoint is set aside, trying an older one"
        ));
        unreadable.push(folder.to_path_buf());
    })?;
    let Some((folder, manifest)) = newest else {
        let start = TrainState::new(model.table().initial(config.train.seed));
        return Ok((start, Vec::new()));
    };
    let state = dir.load(&folder, &manifest, model)?;
    let mut changes = manifest.data_changes;
    let (was, step) = (&manifest.data, manifest.step);
    if let Some(change) = compare(&folder, was, step, data, accept_changed)? {
        same_classes(&folder, &dir.metadata(&folder)?, data)?;
        observer.warning(&format!(
            "the data are others than those of the first {step} steps: {} in place of {}",
            change.now, change.was
        ));
        changes.push(change);
    }
    if manifest.seed != config.train.seed {
        return Err(TrainError::RunDir {
            path: folder.clone(),
            what: format!(
                "the checkpoint's seed is {}, the configuration's {}",
                manifest.seed, config.train.seed
            ),
        });
    }
    if manifest.instruction_set != instruction_set {
        observer.warning(&format!(
            "the checkpoint was computed with {}, this command uses {instruction_set}: the run \
             continues, but equal to an uninterrupted one only within rounding",
            manifest.instruction_set
        ));
    }
    for folder in unreadable {
        dir.set_aside(&folder)?;
    }
    Ok((state, changes))
}

struct Run<B: ModelBackend> {
    dir: RunDir,
    config: RunConfig,
    data: Arc<dyn Dataset>,
    metadata: Metadata,
    manifest: Manifest,
    trainer: Trainer<B>,
    log: MetricsLog,
}

impl<B: ModelBackend> Run<B> {
    fn finish(
        mut self,
        mut loader: Loader,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Outcome> {
        let train = self.config.train.clone();
        let images = (train.batch_size * train.accumulation) as f64;
        let mut recent: VecDeque<f64> = VecDeque::new();
        let mut busy = Duration::ZERO;
        let mut steps = 0u32;
        // Not a number before the first update.
        let mean = |recent: &VecDeque<f64>| match recent.len() {
            0 => f64::NAN,
            n => recent.iter().sum::<f64>() / n as f64,
        };
        while self.trainer.steps_done() < train.steps && !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let batch = match loader.next_batch() {
                Ok(batch) => batch,
                Err(error) => {
                    // Nothing is lost but the time to mend the data. The error that matters is theirs.
                    let _ = self.save();
                    return Err(error.into());
                }
            };
            let report = self.trainer.step(&batch)?;
            busy += begun.elapsed();
            steps += 1;
            if report.skipped {
                observer.warning(&format!(
                    "step {}: loss or gradient not finite, the update was left out",
                    report.step
                ));
            } else {
                recent.push_back(report.loss);
                if recent.len() > 100 {
                    recent.pop_front();
                }
            }
            observer.step(&report, mean(&recent));
            let last = report.step == train.steps;
            if report.step.is_multiple_of(train.log_every) || last || report.skipped {
                let rate = images * f64::from(steps) / busy.as_secs_f64().max(1e-9);
                self.log.write(&report, mean(&recent), rate)?;
                (busy, steps) = (Duration::ZERO, 0);
            }
            if report.step.is_multiple_of(train.checkpoint_every) && !last {
                self.save()?;
            }
            if train.sample_every > 0 && (report.step.is_multiple_of(train.sample_every) || last) {
                match self.draw() {
                    Ok((path, omitted)) => {
                        observer.message(&format!("samples: {}{omitted}", path.display()));
                    }
                    // Weights may recover from what a sampler does not.
                    Err(error) if error.is_divergence() => {
                        observer.warning(&format!("step {}: no samples: {error}", report.step));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let step = self.trainer.steps_done();
        Ok(Outcome {
            step,
            steps: train.steps,
            interrupted: step < train.steps,
            checkpoint: self.save()?,
            mean_loss: Some(mean(&recent)).filter(|mean| mean.is_finite()),
            nothing_to_do: false,
        })
    }

    fn save(&self) -> Result<PathBuf> {
        let state = self.trainer.state();
        let manifest = Manifest {
            step: state.step,
            updates: state.updates,
            ..self.manifest.clone()
        };
        let keep = self.config.train.keep;
        self.dir
            .save(self.trainer.model(), &self.metadata, &state, manifest, keep)
    }

    /// A grid from the moving average, classes in rows, always from the same noise. Returns its path
    /// and what it does not show.
    fn draw(&self) -> Result<(PathBuf, String)> {
        let sample = &self.config.sample;
        let classes = Classes::of(&self.metadata)?;
        let all = match classes {
            Some(classes) => classes.occupied(),
            None => (0..self.data.num_classes().unwrap_or(1) as u32).collect(),
        };
        // More than a page of classes says no more than a page.
        let shown = &all[..all.len().min(PAGE)];
        let omitted = match all.len() - shown.len() {
            0 => String::new(),
            _ => format!(" (the first {PAGE} of {} classes)", all.len()),
        };
        let rows = Row::divided(shown.len() * sample.per_class, shown);
        let ddim = SamplerSpec::Ddim { eta: 0.0 };
        let settings = Settings::of(Some(ddim), Some(sample.steps), None);
        let trainer = &self.trainer;
        let guided = trainer.model().config().null_label().is_some();
        let artist = Artist {
            backend: trainer.backend(),
            model: trainer.model(),
            params: trainer.ema(),
            plan: &settings.plan(&self.metadata)?,
            seed: self.config.train.seed,
            guidance: Guidance::new(if guided { sample.cfg_scale } else { 1.0 }),
        };
        let batch_size = self.config.train.batch_size;
        let images = artist.draw_all(&rows, &Task::Generate, batch_size, &mut unwatched)?;
        let images = images.as_slice().unwrap_or_default();
        let (images, shape) = grid::preview(images, self.data.shape());
        let layout = grid::GridLayout::new(sample.per_class.max(1)).enlarged(shape, 32);
        let picture = grid::render(&images, shape, layout)?;
        let path = self
            .dir
            .samples()
            .join(format!("step-{:08}.png", trainer.steps_done()));
        grid::write_png(&path, &picture)?;
        Ok((path, omitted))
    }
}
