//! `dis study`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use dis_eval::classifier::Classifier;
use dis_eval::{ClassifierFeatures, FeatureNetwork, PixelFeatures};
use dis_study::{StudyConfig, expand, run_study, write_report};

use crate::args::{PrecisionKind, StudyArgs};
use crate::device::{self, with_backend};
use crate::eval::args::FeatureSpec;
use crate::progress;

/// Exit code after Ctrl-C, as shells expect it.
const INTERRUPTED: u8 = 130;

/// Runs what is not done yet, then writes the report.
pub fn run(args: &StudyArgs) -> Result<ExitCode> {
    let study = StudyConfig::load(&args.file)?;
    let grid = expand(&study)?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => PathBuf::from("runs").join(args.file.file_stem().unwrap_or_default()),
    };
    if args.list {
        for variant in &grid.variants {
            println!("{}", variant.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.report {
        let features = open_features(&study)?;
        let device = device::open(&args.device, PrecisionKind::F32)?;
        let stop = Arc::new(AtomicBool::new(false));
        let handler = Arc::clone(&stop);
        ctrlc::set_handler(move || {
            if handler.swap(true, Ordering::Relaxed) {
                // A second Ctrl-C does not wait: what is finished is whole anyway.
                std::process::exit(i32::from(INTERRUPTED));
            }
            eprintln!("\nstopping after this step (Ctrl-C again: at once)");
        })
        .context("cannot watch for Ctrl-C")?;
        let network: Box<dyn FeatureNetwork + Sync> = match &features {
            Some(classifier) => Box::new(ClassifierFeatures::new(classifier, &device.cpu)?),
            None => Box::new(PixelFeatures),
        };
        let mut observer = progress::Study::default();
        let instruction_set = device.instruction_set();
        let done = device.cpu.install(|| {
            with_backend!(device, |backend| run_study(
                backend,
                &study,
                &grid,
                &out,
                network.as_ref(),
                &instruction_set,
                &mut observer,
                &stop,
            ))
        });
        observer.finish();
        if !done? {
            eprintln!(
                "stopped; continue with: dis study {} --out {}",
                args.file.display(),
                out.display()
            );
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    let report = write_report(&study, &grid, &out)?;
    println!("{}", report.display());
    Ok(ExitCode::SUCCESS)
}

/// The classifier that `evaluate.features` names; none for pixels.
fn open_features(study: &StudyConfig) -> Result<Option<Classifier>> {
    let Some(features) = &study.evaluate.features else {
        return Ok(None);
    };
    match features.parse::<FeatureSpec>() {
        Ok(FeatureSpec::Pixels) => Ok(None),
        Ok(FeatureSpec::Classifier(path)) => Ok(Some(Classifier::load(&path)?)),
        Ok(FeatureSpec::Onnx(_)) => {
            bail!(
                "evaluate.features: a study compares pixels or classifier:FILE, not ONNX features"
            )
        }
        Err(e) => bail!("evaluate.features: {e}"),
    }
}
