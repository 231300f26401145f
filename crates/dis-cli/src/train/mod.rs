//! `dis train`.

mod planning;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use dis_data::DataError;
use dis_eval::ClassifierFeatures;
use dis_eval::classifier::Classifier;
use dis_train::run::{DataPolicy, Observer, RunDir, Session, Start, train};
use dis_train::{Partial, RunConfig, TrainError, WallClock};
use serde_json::json;

use crate::args::TrainArgs;
use crate::device::{self, with_backend};
use crate::interrupt::{self, INTERRUPTED};
use crate::places::Places;
use crate::{bundled, json, note, progress, say};
use planning::{Wish, length};

/// What is to be done, as far as it can be told without the data.
struct Draft {
    config: RunConfig,
    /// Where a plan is to be made of it.
    wish: Option<Wish>,
    out: PathBuf,
    start: Start,
}

/// Trains.
pub fn run(args: Box<TrainArgs>) -> Result<ExitCode> {
    let clock = WallClock::default();
    json::prepare(args.json.as_deref())?;
    let draft = draft(&args)?;
    let classifier = args
        .classifier
        .as_deref()
        .map(Classifier::load)
        .transpose()?;
    let device = device::open(&args.device, args.precision)?;
    let stop = interrupt::watch("this step and a checkpoint")?;
    let mut observer = progress::Training::default();
    let Draft {
        mut config,
        wish,
        out,
        start,
    } = draft;
    if wish.is_some() || args.print_config {
        match planning::settle(&args, config, wish, &device, &mut observer, &stop) {
            Ok(settled) => config = settled,
            Err(error) => match error.downcast_ref() {
                Some(error @ DataError::Stopped) => return Ok(stopped(error)),
                _ => return Err(error),
            },
        }
    }
    if args.print_config {
        say!("{}", config.to_toml()?.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let policy = DataPolicy {
        skip_bad: args.skip_bad,
        accept_changed: args.accept_changed_data,
    };
    let instruction_set = device.instruction_set();
    let outcome = device
        .cpu
        .install(|| -> std::result::Result<_, TrainError> {
            let classifier = classifier.as_ref();
            let features = classifier
                .map(|c| ClassifierFeatures::new(c, &device.cpu))
                .transpose()?;
            let session = Session {
                policy,
                features: features.as_ref().map(|features| features as _),
                ..Session::new(&instruction_set, &clock)
            };
            with_backend!(device, |backend| train(
                backend.clone(),
                config,
                &out,
                start,
                session,
                &mut observer,
                &stop,
            ))
        });
    observer.finish();
    if let Err(TrainError::Data(error @ DataError::Stopped)) = &outcome {
        // Nothing was written but the index.
        return Ok(stopped(error));
    }
    let out = out.display();
    let outcome = match outcome {
        Err(error) if error.is_divergence() => Err(error).with_context(|| out.to_string()),
        outcome => Ok(outcome?),
    }?;
    if let Some(place) = &args.json {
        let summary = json!({
            "run": out.to_string(),
            "step": outcome.step,
            "steps": outcome.steps,
            "mean_loss": outcome.mean_loss,
            "interrupted": outcome.interrupted,
        });
        json::save(place, &summary)?;
    }
    if outcome.interrupted {
        note!(
            "stopped after step {}; continue with: dis train --resume {out}",
            outcome.step
        );
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if outcome.nothing_to_do {
        say!(
            "nothing to do: step {} of {} is done",
            outcome.step,
            outcome.steps
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    observer.message("done");
    let loss = match outcome.mean_loss {
        Some(loss) => format!(", mean loss {loss:.4}"),
        None => String::new(),
    };
    say!(
        "trained {} steps{loss}; draw from it with: dis sample --checkpoint {out}",
        outcome.step
    )?;
    Ok(ExitCode::SUCCESS)
}

/// The exit code after a request to stop before the first step.
fn stopped(error: &DataError) -> ExitCode {
    note!("{error}");
    ExitCode::from(INTERRUPTED)
}

fn draft(args: &TrainArgs) -> Result<Draft> {
    if args.accept_changed_data && args.resume.is_none() {
        bail!("--accept-changed-data is for --resume: a new run takes the data as they are");
    }
    if let Some(dir) = &args.resume {
        let (_, mut config) = RunDir::open(dir)?;
        override_config(args, &mut config);
        match (args.budget, args.steps) {
            (Some(budget), _) => config.train.budget = Some(budget),
            (None, Some(_)) => config.train.budget = None,
            (None, None) => {}
        }
        if let Some(spec) = &args.data {
            config.data.given_anew(spec)?;
        }
        return Ok(Draft {
            config,
            wish: None,
            out: dir.clone(),
            start: Start::Resume,
        });
    }
    let (mut said, name) = match (&args.preset, &args.config) {
        (Some(preset), _) => (Partial::preset(preset)?, Some(preset.clone())),
        (None, Some(path)) => {
            let stem = path.file_stem().unwrap_or_default();
            (
                Partial::load(path)?,
                Some(stem.to_string_lossy().into_owned()),
            )
        }
        (None, None) => (Partial::default(), None),
    };
    let checkpoint = match &args.init_from {
        Some(path) => Some((bundled::open(Some(path), false, None)?, path)),
        None => None,
    };
    if let Some((checkpoint, _)) = &checkpoint
        && !said.is_whole()
    {
        said = said.or_of(&checkpoint.metadata)?;
    }
    let mut config = said.config()?;
    if let Some(spec) = &args.data {
        config.data.spec.clone_from(spec);
    }
    if config.data.spec.is_empty() {
        let without = match &args.config {
            Some(path) => format!("{} has no [data]: ", path.display()),
            None => String::new(),
        };
        bail!(
            "{without}say what to train on: --data photos/ (a folder of pictures, or of folders of them, one a \
             class), --data digits, or idx:DIR, fashion:DIR, cifar10:DIR, npz:FILE, latents:DIR; or begin \
             with --preset digits, --config run.toml, or continue with --resume DIR (see dis train --help)"
        );
    }
    let name = name.unwrap_or_else(|| planning::name_of(&config.data.spec));
    let wish = length(args, &said, &config).map(|length| Wish { said, length });
    override_config(args, &mut config);
    // Of a preset the user cannot set the least rate, so it follows.
    if args.preset.is_some() && config.train.min_lr > args.lr && args.lr.is_some() {
        config.train.min_lr = args.lr;
    }
    let start = match checkpoint {
        Some((checkpoint, path)) => Start::From {
            checkpoint: Box::new(checkpoint),
            origin: path.display().to_string(),
        },
        None => Start::New,
    };
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("runs").join(name));
    Places::default()
        .reads("--config", args.config.as_deref())
        .reads("--classifier", args.classifier.as_deref())
        .reads_data("--data", Some(&config.data.spec))
        .reads("--init-from", args.init_from.as_deref())
        .writes("--out", Some(&out))
        .check()?;
    if wish.is_some() && !args.print_config {
        // Before anything is timed.
        RunDir::refuse_another(&out)?;
    }
    Ok(Draft {
        config,
        wish,
        out,
        start,
    })
}

fn override_config(args: &TrainArgs, config: &mut RunConfig) {
    fn set<T: Clone>(target: &mut T, value: &Option<T>) {
        if let Some(value) = value {
            *target = value.clone();
        }
    }
    let train = &mut config.train;
    set(&mut train.steps, &args.steps);
    set(&mut train.checkpoint_every, &args.checkpoint_every);
    set(&mut train.sample_every, &args.sample_every);
    set(&mut train.batch_size, &args.batch_size);
    set(&mut train.lr, &args.lr);
    set(&mut train.seed, &args.seed);
    set(&mut train.keep, &args.keep);
    train.recompute |= args.recompute;
}
