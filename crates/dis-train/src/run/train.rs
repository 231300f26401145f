//! The training loop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dis_diffusion::GaussianDiffusion;
use dis_files::DirLock;
use dis_files::write_atomic;
use dis_model::ModelBackend;
use dis_model::cost::Memory;
use dis_model::{Checkpoint, DisConfig, DisModel, Metadata, cost::Cost};
use dis_tensor::machine::require_memory;

use super::data::{DataChange, DataPolicy, compare, open_data, same_classes};
use super::dir::{Manifest, RunDir};
use super::metadata::extra_metadata;
use super::metrics::MetricsLog;
use super::pacing::Pacer;
use super::samples::PAGE;
use super::steps::Run;
use super::transfer::transfer;
use crate::clock::Clock;
use crate::config::RunConfig;
use crate::error::{Result, TrainError};
use crate::trainer::{StepReport, TrainState, Trainer};
use dis_data::{Dataset, ImageShape, Loader, LoaderOptions, Subset, describe_unoccupied};
use dis_eval::FeatureNetwork;

/// Batches that are in memory at once: the one that is trained on, two that are ready, one in the making.
const READ_AHEAD: u128 = 4;

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

/// What a call of [`train`] has beside the configuration of its run.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    /// What is done about data that are not as they should be.
    pub policy: DataPolicy,
    /// What results depend on, bit for bit: an instruction set, or a device.
    pub instruction_set: &'a str,
    /// The time; it is 0 where the command began.
    pub clock: &'a dyn Clock,
    /// What samples are compared with the data by; small pictures where there is none.
    pub features: Option<&'a dyn FeatureNetwork>,
}

impl<'a> Session<'a> {
    /// With the usual policy, comparing small pictures.
    pub fn new(instruction_set: &'a str, clock: &'a dyn Clock) -> Self {
        Self {
            policy: DataPolicy::default(),
            instruction_set,
            clock,
            features: None,
        }
    }
}

/// Where a run stands after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Steps in all, as it looks.
    pub steps: u64,
    /// Mean loss over the last hundred steps that were no failures; not a number if there is none.
    pub mean_loss: f64,
    /// Speed of the last steps.
    pub images_per_second: f64,
    /// Time that the run has taken, in all its sessions, in seconds.
    pub seconds: f64,
    /// Time that it will still take, in seconds.
    pub left: f64,
}

/// Watches a run. All methods may do nothing.
pub trait Observer {
    /// Pictures are looked at before the run starts: how many are done, and how many there are.
    fn checking(&mut self, _done: usize, _all: usize) {}
    /// The run starts.
    fn started(&mut self, _start: &Started) {}
    /// A step is done.
    fn step(&mut self, _report: &StepReport, _standing: &Standing) {}
    /// Samples are drawn: how much of the work is done, from 0 to 1; 1 is always told.
    fn drawing(&mut self, _share: f64) {}
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
    session: Session<'_>,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let Session {
        policy,
        instruction_set,
        ..
    } = session;
    let stored = match start {
        Start::Resume => Some(RunDir::open(out)?.1),
        Start::New | Start::From { .. } => None,
    };
    let (spec, data) = open_data(&mut config, stored.as_ref(), out, policy, observer, stop)?;
    let model_config = config.resolve(&*data)?;
    let model = DisModel::with_init(model_config, &config.train.init())?;
    check_memory(backend.on_host(), &config, &model_config, data.shape())?;
    if let Some(network) = session.features {
        network.check(data.shape())?;
    }
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
    let (dir, state, pacer, log) = match (start, begun) {
        (Start::New | Start::From { .. }, begun) => {
            let dir = RunDir::create(out, &config)?;
            let weights = match begun {
                None => model.table().initial(config.train.seed),
                Some((weights, origin, transfer)) => {
                    dir.record_transfer(&origin, &transfer)?;
                    weights
                }
            };
            let pacer = Pacer::new(&config.train, dir.pace_path());
            let log = MetricsLog::open(&dir.metrics_path(), 0)?;
            (dir, TrainState::new(weights), pacer, log)
        }
        (Start::Resume, _) => {
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
            let (mut pacer, extends) = dir.pacer(&config, &found, state.step)?;
            let done = state.step >= pacer.pace().steps(state.step);
            if done && !extends {
                return Ok(Outcome {
                    step: state.step,
                    steps: match config.train.budget {
                        Some(_) => state.step,
                        None => found.train.steps,
                    },
                    interrupted: false,
                    checkpoint: dir.step_path(state.step),
                    mean_loss: None,
                    nothing_to_do: true,
                });
            }
            let log = MetricsLog::open(&dir.metrics_path(), state.step)?;
            if extends {
                pacer.extend(state.step, log.seconds())?;
            }
            write_atomic(&dir.config_path(), config.to_toml()?.as_bytes())?;
            (dir, state, pacer, log)
        }
    };
    let images_per_step = config.train.batch_size * config.train.accumulation;
    observer.started(&Started {
        backend: backend.describe(),
        data: data.describe(),
        parameters: model.table().parameters(),
        memory: Cost::of(&model_config, config.train.batch_size)?.memory,
        step: state.step,
        steps: pacer.pace().steps(state.step),
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
    let (trained_on, held_out) = hold_out(&data, config.train.held_out, config.train.seed)?;
    let loader = Loader::new(
        Arc::clone(&trained_on),
        LoaderOptions {
            seed: config.train.seed,
            batch_size: images_per_step,
            flip: spec.flip,
            start_step: state.step,
            ..LoaderOptions::new(config.train.seed, images_per_step)
        },
    )?;
    let mut trainer = Trainer::new(backend, model, diffusion, config.train.clone(), &state)?;
    trainer.set_pace(pacer.pace().clone());
    Run {
        dir,
        config,
        data: trained_on,
        held_out,
        metadata,
        manifest,
        trainer,
        pacer,
        log,
        clock: session.clock,
        features: session.features,
    }
    .finish(loader, observer, stop)
}

/// The images to train on, and those that are held out.
type Parts = (Arc<dyn Dataset>, Option<Arc<dyn Dataset>>);

/// Holds `count` images out, drawn by the seed.
fn hold_out(data: &Arc<dyn Dataset>, count: usize, seed: u64) -> Result<Parts> {
    if count == 0 {
        return Ok((Arc::clone(data), None));
    }
    let (trained_on, held_out) = Subset::split(data, data.len().saturating_sub(count), seed)?;
    Ok((Arc::new(trained_on), Some(Arc::new(held_out))))
}

/// Refuses a run that needs more memory than the machine has, before any of it is taken. On another
/// device only the batches that are read ahead lie in this memory.
pub(crate) fn check_memory(
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
