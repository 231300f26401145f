//! `dis eval`.

pub mod args;
mod bits;
mod draw;
mod network;
#[cfg(feature = "onnx")]
mod onnx;
mod output;
mod source;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use dis_data::{Dataset, ImageShape, Subset};
use dis_eval::metrics::{BallOptions, Bootstrap, KernelOptions};
use dis_eval::{
    FeatureNetwork, LeftOut, MeasureOptions, Metric, SavedStatistics, Side, extract, measure,
    pixel_points,
};
use ndarray::Array2;

use crate::device::{self, Device};
use crate::places::Places;
use crate::places::parent_exists;
use crate::{json, memory, progress, say};
use args::{EvalArgs, FeatureSpec};
use network::Network;
use output::SideInfo;
use source::{Role, Source};

/// Images drawn from a model that is not told otherwise.
const DRAWN: usize = 1000;
/// Most pixels of a side that are held for copies, 1 GiB.
const MOST_PIXELS: usize = 1 << 28;

/// Judges samples.
pub fn run(args: &EvalArgs) -> Result<()> {
    check(args)?;
    if args.bpd {
        return bits::run(args);
    }
    let network = Network::open(args)?;
    let device = device::open(&args.device, args.precision)?;
    device.cpu.install(|| {
        let (samples, reference) = sides(args, network.shape())?;
        let network = network.build(args, &device.cpu)?;
        let network = &*network;
        let num = args.num;
        let (side, info, data) = take(samples, num.unwrap_or(DRAWN), num, args, network, &device)?;
        // What cannot be saved does not keep the figures from being shown.
        let saved = match &args.save_statistics {
            Some(path) => save_statistics(path, &side, &info),
            None => Ok(()),
        };
        let Some(reference) = reference else {
            return saved;
        };
        let drawn = args
            .num_reference
            .unwrap_or_else(|| data.as_ref().map_or(DRAWN, |d| d.len()));
        let (ref_side, ref_info, ref_data) =
            take(reference, drawn, args.num_reference, args, network, &device)?;
        let options = options(args);
        let pixels = match options.metrics.contains(&Metric::Copies) {
            true => pixels(data.as_deref(), ref_data.as_deref())?,
            false => None,
        };
        let views = pixels.as_ref().map(|(a, b)| (a.view(), b.view()));
        let spinner = progress::measuring(options.metrics.len() as u64);
        let mut begun = 0;
        let mut report = measure(&side, &ref_side, views, &options, &mut |metric| {
            spinner.set_message(metric.name());
            spinner.set_position(begun);
            begun += 1;
        });
        spinner.finish_and_clear();
        let warnings = [&info, &ref_info].map(|info| info.warning.clone());
        report.warnings.extend(warnings.into_iter().flatten());
        if let Some(path) = &args.json {
            let features = output::features(args, network);
            let parts = output::Parts {
                samples: &info,
                reference: &ref_info,
                features,
                instructions: device.instruction_set(),
            };
            output::write(path, &parts, &options, &report)?;
        }
        say!("samples:   {}", info.about)?;
        say!("reference: {}", ref_info.about)?;
        say!("features:  {}", network.name())?;
        say!("{}", report.to_string().trim_end())?;
        saved?;
        match (report.figures.is_empty(), report.left_out.first()) {
            (true, Some(LeftOut { metric, why })) => {
                bail!("none of the metrics can be had; {metric}: {why}")
            }
            _ => Ok(()),
        }
    })
}

/// Both sides, the first of them to be judged.
fn sides(args: &EvalArgs, hint: Option<ImageShape>) -> Result<(Source, Option<Source>)> {
    let reference = |shape| match &args.reference {
        Some(text) => Source::open(Role::Reference, text, shape, args).map(Some),
        None => Ok(None),
    };
    let found = reference(hint)?;
    let shape = found.as_ref().and_then(Source::shape).or(hint);
    let samples = Source::open(Role::Samples, &args.samples, shape, args)?;
    // A folder without a size takes that of the other side, whichever this is.
    let found = match found {
        Some(Source::Unsized) => reference(samples.shape())?,
        found => found,
    };
    if let Some(found) = &found {
        fit(&samples, found)?;
    }
    Ok((samples, found))
}

fn save_statistics(path: &Path, side: &Side, info: &SideInfo) -> Result<()> {
    let saved = match side {
        Side::Points(features) => SavedStatistics::of(features)
            .with_context(|| format!("--save-statistics {}", path.display()))?,
        Side::Statistics(saved) => (**saved).clone(),
    };
    saved.save(path)?;
    say!("statistics of {} in {}", info.about, path.display())
}

fn check(args: &EvalArgs) -> Result<()> {
    ensure!(args.batch_size > 0, "--batch-size must be at least 1");
    for (name, num) in [("--num", args.num), ("--num-reference", args.num_reference)] {
        ensure!(num != Some(0), "{name} must be at least 1");
    }
    json::prepare(args.json.as_deref())?;
    for path in [&args.save_statistics, &args.plot].into_iter().flatten() {
        parent_exists(path)?;
    }
    let numbers = size_of::<f64>() as u128;
    for (option, n) in [
        ("--bootstrap", args.bootstrap),
        ("--kid-subsets", args.kid_subsets),
    ] {
        memory::check(option, n, 2 * numbers * n as u128)?;
    }
    let features = match &args.features {
        FeatureSpec::Classifier(path) | FeatureSpec::Onnx(path) => Some(path.as_path()),
        FeatureSpec::Pixels => None,
    };
    Places::default()
        .reads_data("SAMPLES", Some(&args.samples))
        .reads_data("--reference", args.reference.as_deref())
        .reads("--features", features)
        .reads("--vae", args.vae.as_deref())
        .writes("--json", json::file(args.json.as_deref()))
        .writes("--save-statistics", args.save_statistics.as_deref())
        .writes("--plot", args.plot.as_deref())
        .check()
}

/// Refuses sides of different images before anything is computed.
fn fit(samples: &Source, reference: &Source) -> Result<()> {
    if let (Some(a), Some(b)) = (samples.shape(), reference.shape()) {
        ensure!(
            a == b,
            "SAMPLES are images of {a}, but --reference has {b}; pictures of a folder are cropped \
             to a size with ,size=N and made grey with ,grey"
        );
    }
    Ok(())
}

fn options(args: &EvalArgs) -> MeasureOptions {
    let seed = args.seed;
    MeasureOptions {
        metrics: match args.metrics.is_empty() {
            true => Metric::ALL.to_vec(),
            false => args.metrics.clone(),
        },
        bootstrap: Bootstrap {
            resamples: args.bootstrap,
            seed,
            ..Bootstrap::default()
        },
        splits: args.splits,
        kernel: KernelOptions {
            subsets: args.kid_subsets,
            size: args.kid_size,
            seed,
        },
        balls: BallOptions {
            precision_k: args.pr_k,
            density_k: args.dc_k,
        },
    }
}

type Taken = (Side, SideInfo, Option<Arc<dyn Dataset>>);

/// Features of what a source names: `drawn` images of a model, or `chosen` of those that are there.
fn take(
    source: Source,
    drawn: usize,
    chosen: Option<usize>,
    args: &EvalArgs,
    network: &dyn FeatureNetwork,
    device: &Device,
) -> Result<Taken> {
    let (data, mut info): (Arc<dyn Dataset>, SideInfo) = match source {
        Source::Statistics {
            saved,
            text,
            sha256,
        } => {
            let info = SideInfo::statistics(&text, &sha256, &saved);
            return Ok((Side::Statistics(saved), info, None));
        }
        Source::Model {
            weights,
            text,
            sha256,
        } => {
            let (data, warning) = draw::draw(*weights, drawn, args, device)?;
            let mut info = SideInfo::model(&text, &sha256, args);
            info.warning = warning.map(|warning| format!("{text}: {warning}"));
            (Arc::new(data), info)
        }
        Source::Data { data, text } => {
            let data: Arc<dyn Dataset> = match chosen {
                Some(n) if n != data.len() => Arc::new(Subset::draw(data, n, args.seed)?),
                _ => data,
            };
            let info = SideInfo::data(&text, &*data);
            (data, info)
        }
        Source::Unsized => {
            anyhow::bail!("folders of pictures on both sides: say with ,size=N how large they are")
        }
    };
    let batch = memory::images(args.batch_size.min(data.len()), data.shape());
    memory::check("--batch-size", args.batch_size, 3 * batch)?;
    if args.features == FeatureSpec::Pixels {
        let pixels = memory::images(data.len(), data.shape());
        memory::check("pixels as features, images:", data.len(), 2 * pixels)?;
    }
    let bar = progress::features(data.len() as u64);
    let features = extract(network, &*data, args.batch_size, &mut |n| bar.inc(n as u64));
    bar.finish_and_clear();
    let features = features?;
    info.images(data.len(), data.shape(), &features.sha256);
    Ok((Side::Points(Box::new(features)), info, Some(data)))
}

/// Pixels of both sides, if there are not too many.
fn pixels(
    samples: Option<&dyn Dataset>,
    reference: Option<&dyn Dataset>,
) -> Result<Option<(Array2<f32>, Array2<f32>)>> {
    let size = |data: &dyn Dataset| data.len().saturating_mul(data.shape().len());
    match samples.zip(reference) {
        Some((a, b)) if size(a).max(size(b)) <= MOST_PIXELS => {
            Ok(Some((pixel_points(a)?, pixel_points(b)?)))
        }
        _ => Ok(None),
    }
}
