//! `dis study`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use dis_eval::classifier::Classifier;
use dis_eval::{ClassifierFeatures, FeatureNetwork, PixelFeatures};
use dis_study::{Failure, StudyConfig, Variant, expand, run_study, write_report};
use dis_train::run::DataPolicy;

use crate::args::{PrecisionKind, StudyArgs};
use crate::device::{self, with_backend};
use crate::eval::args::FeatureSpec;
use crate::interrupt::{self, INTERRUPTED};
use crate::places::Places;
use crate::{note, progress, say, warning};

/// Failed runs that the last line names.
const NAMED: usize = 3;

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
            say!("{}", variant.name)?;
        }
        let refused: Vec<Failure> = grid
            .variants
            .iter()
            .filter_map(Variant::refused)
            .map(|(variant, what)| Failure {
                run: variant.name.clone(),
                what: what.to_string(),
            })
            .collect();
        return match refused.is_empty() {
            true => Ok(ExitCode::SUCCESS),
            false => bail!(
                "{} variants cannot be run: {}",
                refused.len(),
                named(&refused)
            ),
        };
    }
    Places::default()
        .reads("FILE", Some(&args.file))
        .writes("--out", Some(&out))
        .check()?;
    let mut failed = Vec::new();
    if !args.report {
        let features = open_features(&study)?;
        let device = device::open(&args.device, PrecisionKind::F32)?;
        let stop = interrupt::watch("this step")?;
        let network: Box<dyn FeatureNetwork + Sync> = match &features {
            Some(classifier) => Box::new(ClassifierFeatures::new(classifier, &device.cpu)?),
            None => Box::new(PixelFeatures),
        };
        let policy = DataPolicy {
            skip_bad: args.skip_bad,
            accept_changed: false,
        };
        let mut observer = progress::Study::default();
        let instruction_set = device.instruction_set();
        let end: Result<_> = device.cpu.install(|| {
            let end = with_backend!(device, |backend| run_study(
                backend,
                &study,
                &grid,
                &out,
                network.as_ref(),
                policy,
                &instruction_set,
                &mut observer,
                &stop,
            ));
            Ok(end?)
        });
        observer.finish();
        let end = end?;
        failed = end.failed;
        if end.stopped {
            note!(
                "stopped; continue with: dis study {} --out {}",
                args.file.display(),
                out.display()
            );
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    let report = write_report(&study, &grid, &out)?;
    for Failure { run, what } in &report.damaged {
        warning!("left out: {run}: {what}");
    }
    say!("{}", report.path.display())?;
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let runs = grid.variants.len() * grid.seeds.len();
    bail!("{} of {runs} runs failed: {}", failed.len(), named(&failed));
}

/// The first of the runs that failed, with what.
fn named(failed: &[Failure]) -> String {
    let first = failed.iter().take(NAMED);
    let mut all: Vec<String> = first.map(|f| format!("{}: {}", f.run, f.what)).collect();
    if failed.len() > NAMED {
        all.push("...".into());
    }
    all.join("; ")
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
