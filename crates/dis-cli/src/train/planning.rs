//! Makes a plan of what was said and of the data.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use dis_data::{Check, DataKind, DataSpec, Dataset, ImageSize, open_checked, survey};
use dis_train::plan::{Ask, Length, plan, recipe};
use dis_train::run::Observer;
use dis_train::{Budget, Partial, RunConfig};

use super::override_config;
use crate::args::TrainArgs;
use crate::device::{Device, with_backend};
use crate::{note, progress};

/// Seconds of a run of which nothing else is said.
const USUAL: u64 = 3600;

/// What a plan is to be made of.
pub struct Wish {
    /// What a file or preset says.
    pub said: Partial,
    /// How long the run is to be.
    pub length: Length,
}

/// How long a run is to be that is to be planned; none where nothing has to be.
pub fn length(args: &TrainArgs, said: &Partial, config: &RunConfig) -> Option<Length> {
    if let Some(budget) = args.budget {
        return Some(Length::Time(budget));
    }
    if said.is_whole() {
        return None;
    }
    if let Some(steps) = args.steps {
        return Some(Length::Steps(steps));
    }
    let usual = Budget::of_seconds(USUAL).filter(|_| !said.says("train", "steps"));
    let budget = config.train.budget.or(usual);
    Some(budget.map_or(Length::Steps(config.train.steps), Length::Time))
}

/// What a run on data is called: the last part of their path.
pub fn name_of(spec: &str) -> String {
    let kind = spec.parse::<DataSpec>().map(|spec| spec.kind);
    let path = match kind {
        Ok(
            DataKind::Idx(path)
            | DataKind::Fashion(path)
            | DataKind::Cifar10(path)
            | DataKind::Folder(path)
            | DataKind::Latents(path)
            | DataKind::Npz(path),
        ) => std::path::absolute(&path).unwrap_or(path),
        Ok(DataKind::DigitsTrain) => PathBuf::from("digits-train"),
        Ok(DataKind::DigitsHeldOut) => PathBuf::from("digits-held-out"),
        Ok(DataKind::Digits) => PathBuf::from("digits"),
        // Whoever opens the data says what is wrong.
        Err(_) => PathBuf::from("run"),
    };
    let name = path
        .file_stem()
        .map(|name| name.to_string_lossy().into_owned());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "run".into())
}

/// The configuration of a run: planned where there is a wish, and resolved against its data.
///
/// # Errors
/// Data that cannot be opened, settings that do not fit them, a request to stop.
pub fn settle(
    args: &TrainArgs,
    mut config: RunConfig,
    wish: Option<Wish>,
    device: &Device,
    observer: &mut progress::Training,
    stop: &AtomicBool,
) -> Result<RunConfig> {
    let spec = match &wish {
        Some(wish) => sized(config.data.spec.parse()?, wish.length, observer, stop)?,
        None => config.data.spec.parse()?,
    };
    let spec = spec.absolute();
    let check = Check {
        skip: config.data.skip.clone(),
        skip_bad: args.skip_bad,
        samples: false,
    };
    let (data, checked) = device.cpu.install(|| {
        open_checked(&spec, &check, &mut |done, all| {
            at(observer, stop, done, all)
        })
    })?;
    let mut source = std::mem::take(&mut config.data);
    source.spec = spec.to_string();
    for bad in checked.bad {
        note!("warning: left out: {bad}");
        source.skip.push(bad.file);
    }
    let mut config = match wish {
        Some(wish) => planned(args, &wish, &*data, device)?,
        None => {
            config.resolve(&*data)?;
            config
        }
    };
    config.data = source;
    Ok(config)
}

fn planned(
    args: &TrainArgs,
    wish: &Wish,
    data: &dyn Dataset,
    device: &Device,
) -> Result<RunConfig> {
    if args.print_config {
        // Training says it itself.
        note!("data: {}", data.describe());
    }
    let said = match wish.length {
        Length::Time(_) => wish.said.clone().without("train", "steps"),
        Length::Steps(_) => wish.said.clone(),
    };
    let change = |config: &mut RunConfig| {
        override_config(args, config);
        if args.lr.is_some() && !said.says("train", "min_lr") {
            config.train.min_lr = None;
        }
    };
    let ask = Ask {
        length: wish.length,
        said: &said,
        change: &change,
    };
    let plan = device
        .cpu
        .install(|| with_backend!(device, |backend| plan(backend, data, &ask)))
        .context("no plan can be made")?;
    note!("{}", plan.to_string().trim_end());
    Ok(plan.config)
}

/// A folder of pictures with a size that suits them and the time there is, if none is said.
fn sized(
    mut spec: DataSpec,
    length: Length,
    observer: &mut progress::Training,
    stop: &AtomicBool,
) -> Result<DataSpec> {
    if spec.size.is_some() || !matches!(spec.kind, DataKind::Folder(_)) {
        return Ok(spec);
    }
    let found = survey(&spec, &mut |done, all| at(observer, stop, done, all))?;
    let Some(sizes) = found.checked.sizes else {
        return Ok(spec);
    };
    let seconds = match length {
        Length::Time(budget) => budget.seconds(),
        Length::Steps(_) => 0.0,
    };
    let shortest = usize::try_from(sizes.shortest_side).unwrap_or(usize::MAX);
    let side = recipe::picture_side(shortest, seconds);
    let text = |(width, height): (u32, u32)| format!("{width}x{height}");
    let (smallest, largest) = (text(sizes.smallest), text(sizes.largest));
    let span = match smallest == largest {
        true => smallest,
        false => format!("{smallest} to {largest}"),
    };
    if span != format!("{side}x{side}") {
        note!("pictures of {span} are cropped to {side}x{side}; to choose, add ,size=N to --data");
    }
    spec.size = Some(ImageSize::from(side));
    Ok(spec)
}

/// Tells how many files were looked at; breaks off where that is asked for.
fn at(
    observer: &mut progress::Training,
    stop: &AtomicBool,
    done: usize,
    all: usize,
) -> ControlFlow<()> {
    observer.checking(done, all);
    match stop.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}
