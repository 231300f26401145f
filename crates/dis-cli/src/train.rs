//! `dis train`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use dis_train::RunConfig;
use dis_train::run::{Observer, RunDir, Start, train};

use crate::args::TrainArgs;
use crate::device::{self, with_backend};
use crate::{bundled, progress};

/// Exit code after Ctrl-C, as shells expect it.
const INTERRUPTED: u8 = 130;

struct Plan {
    config: RunConfig,
    out: PathBuf,
    start: Start,
}

/// Trains.
pub fn run(args: Box<TrainArgs>) -> Result<ExitCode> {
    let plan = plan(&args)?;
    let device = device::open(&args.device, args.precision)?;
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            // A second Ctrl-C does not wait: the last checkpoint is whole anyway.
            std::process::exit(i32::from(INTERRUPTED));
        }
        eprintln!("\nstopping after this step and writing a checkpoint (Ctrl-C again: at once)");
    })
    .context("cannot watch for Ctrl-C")?;

    let mut observer = progress::Training::default();
    let instruction_set = device.instruction_set();
    let outcome = device.cpu.install(|| {
        with_backend!(device, |backend| train(
            backend.clone(),
            plan.config,
            &plan.out,
            plan.start,
            &instruction_set,
            &mut observer,
            &stop,
        ))
    });
    observer.finish();
    let outcome = outcome?;
    let out = plan.out.display();
    if outcome.interrupted {
        eprintln!(
            "stopped after step {}; continue with: dis train --resume {out}",
            outcome.step
        );
        return Ok(ExitCode::from(INTERRUPTED));
    }
    observer.message("done");
    println!(
        "trained {} steps, mean loss {:.4}; draw from it with: dis sample --checkpoint {out}",
        outcome.step, outcome.mean_loss
    );
    Ok(ExitCode::SUCCESS)
}

fn plan(args: &TrainArgs) -> Result<Plan> {
    if let Some(dir) = &args.resume {
        let (_, mut config) = RunDir::open(dir)?;
        override_config(args, &mut config);
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
    let start = match &args.init_from {
        Some(path) => Start::From(Box::new(bundled::open(Some(path), false, None)?)),
        None => Start::New,
    };
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("runs").join(name));
    Ok(Plan { config, out, start })
}

fn override_config(args: &TrainArgs, config: &mut RunConfig) {
    fn set<T: Clone>(target: &mut T, value: &Option<T>) {
        if let Some(value) = value {
            *target = value.clone();
        }
    }
    set(&mut config.data.spec, &args.data);
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
