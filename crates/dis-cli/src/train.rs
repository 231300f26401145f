//! `dis train`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use dis_data::DataError;
use dis_train::run::{DataPolicy, Observer, RunDir, Start, train};
use dis_train::{RunConfig, TrainError};

use crate::args::TrainArgs;
use crate::device::{self, with_backend};
use crate::interrupt::{self, INTERRUPTED};
use crate::places::Places;
use crate::{bundled, note, progress, say};

struct Plan {
    config: RunConfig,
    out: PathBuf,
    start: Start,
}

/// Trains.
pub fn run(args: Box<TrainArgs>) -> Result<ExitCode> {
    let plan = plan(&args)?;
    let device = device::open(&args.device, args.precision)?;
    let stop = interrupt::watch("this step and a checkpoint")?;
    let policy = DataPolicy {
        skip_bad: args.skip_bad,
        accept_changed: args.accept_changed_data,
    };
    let mut observer = progress::Training::default();
    let instruction_set = device.instruction_set();
    let outcome = device.cpu.install(|| {
        with_backend!(device, |backend| train(
            backend.clone(),
            plan.config,
            &plan.out,
            plan.start,
            policy,
            &instruction_set,
            &mut observer,
            &stop,
        ))
    });
    observer.finish();
    if let Err(TrainError::Data(error @ DataError::Stopped)) = &outcome {
        // Nothing was written but the index.
        note!("{error}");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let out = plan.out.display();
    let outcome = match outcome {
        Err(error) if error.is_divergence() => Err(error).with_context(|| out.to_string()),
        outcome => Ok(outcome?),
    }?;
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

fn plan(args: &TrainArgs) -> Result<Plan> {
    if args.accept_changed_data && args.resume.is_none() {
        bail!("--accept-changed-data is for --resume: a new run takes the data as they are");
    }
    if let Some(dir) = &args.resume {
        let (_, mut config) = RunDir::open(dir)?;
        override_config(args, &mut config);
        if let Some(spec) = &args.data {
            config.data.given_anew(spec)?;
        }
        return Ok(Plan {
            config,
            out: dir.clone(),
            start: Start::Resume,
        });
    }
    let (mut config, name) = match (&args.preset, &args.config) {
        (Some(preset), _) => (RunConfig::preset(preset)?, preset.clone()),
        (None, Some(path)) => {
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            (RunConfig::load(path)?, name)
        }
        (None, None) => bail!(
            "say what to train: --preset digits, --config run.toml, or --resume DIR (see dis train --help)"
        ),
    };
    override_config(args, &mut config);
    // Of a preset the user cannot set the least rate, so it follows.
    if args.preset.is_some() && config.train.min_lr > args.lr && args.lr.is_some() {
        config.train.min_lr = args.lr;
    }
    if let Some(spec) = &args.data {
        config.data.spec.clone_from(spec);
    }
    let start = match &args.init_from {
        Some(path) => Start::From {
            checkpoint: Box::new(bundled::open(Some(path), false, None)?),
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
        .reads_data("--data", Some(&config.data.spec))
        .reads("--init-from", args.init_from.as_deref())
        .writes("--out", Some(&out))
        .check()?;
    Ok(Plan { config, out, start })
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
