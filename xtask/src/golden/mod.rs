//! `cargo xtask golden`: every manifest of a golden set is recomputed with our code and compared
//! within its own tolerance.
//!
//! Nothing here knows the files of a particular set: configurations, file names, tolerances and
//! what is stored all come from the manifests. A manifest of unknown kind, one that cannot be
//! read, and a stored tensor that no check used are failures.

mod bits;
mod case;
mod config;
mod diffusion;
mod facts;
mod full;
mod helpers;
mod init;
mod mixer;
mod model;
mod network;
mod peer;
mod peer_config;
mod positions;
mod replay;
mod report;
mod sampling;
mod scan;
mod scan_more;
mod torch;
mod training;
mod vae;
mod weights;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use dis_model::ModelBackend;
use dis_tensor::{Cpu, Reference};

use case::{Case, Comparison};
use dis_golden::Manifest;
use report::Report;

/// Kinds that must pass: what `--kinds due` stands for.
pub const DUE: &[&str] = &[
    "selective_scan",
    "selective_scan_more",
    "causal_conv1d",
    "mixer",
    "model",
    "model_drop_path",
    "full_model",
    "model_facts",
    "init_stats",
    "diffusion_tables",
    "diffusion_steps",
    "training_losses",
    "sampling_loops",
    "bits_per_dim",
    "training_replay",
    "weights",
    "lr_schedule",
    "center_crop",
    "pillow_crop",
    "frechet_distance",
    "peer_samplers",
    "vae",
    "torch_checkpoint",
    "pos_embed_resize",
];

/// Kinds that golden sets have and nothing here recomputes yet. A set that has them is checked
/// without them, and they are counted; asked for by name they fail.
pub const LATER: &[&str] = &[
    "flow_transport",
    "flow_sampling",
    "edm",
    "scan_orders",
    "ssd",
];

/// Arguments of the task.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders of manifests.
    #[arg(default_value = "tests/golden")]
    dirs: Vec<PathBuf>,
    /// Only these kinds, separated by commas; `due` stands for all that must pass.
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
    /// What computes. The reference is naive and in float64: if it passes where another fails, the
    /// fault is in a kernel and not in the model.
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    backend: Device,
    /// A line for every comparison.
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Device {
    Cpu,
    Reference,
}

/// Runs the task; whether everything passed.
pub fn run(args: &Args) -> Result<bool> {
    let kinds = Kinds::new(&args.kinds)?;
    match args.backend {
        Device::Cpu => run_all(args, &kinds, &Cpu::new()),
        Device::Reference => run_all(args, &kinds, &Reference::new()),
    }
}

fn run_all<B: ModelBackend>(args: &Args, kinds: &Kinds, backend: &B) -> Result<bool> {
    println!("backend: {}", backend.describe());
    let mut report = Report::new(args.verbose);
    for dir in &args.dirs {
        let found = manifests(dir).and_then(|found| {
            ensure!(!found.is_empty(), "no manifests (*.json)");
            Ok(found)
        });
        let manifests = match found {
            Ok(found) => found,
            Err(error) => {
                report.case("?", &dir.to_string_lossy(), &Err(error));
                continue;
            }
        };
        for path in manifests {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            match Manifest::read_json(&path) {
                Ok((kind, _)) if !kinds.contain(&kind) => {}
                Ok((kind, _)) if kinds.all() && LATER.contains(&kind.as_str()) => {
                    report.later(&kind, &name);
                }
                Ok((kind, json)) => {
                    let outcome = Manifest::with_tensors(&path, kind.clone(), json)
                        .and_then(|manifest| check(Case::new(manifest), backend));
                    report.case(&kind, &name, &outcome);
                }
                Err(error) => report.case("?", &name, &Err(error)),
            }
        }
    }
    Ok(report.close())
}

/// A shortened check of the first manifest of a kind, for backends that are slow: the first five
/// steps of a training replay, the shortest sampling runs. Names, errors and tolerances.
pub fn first_of<B: ModelBackend>(
    dir: &Path,
    kind: &str,
    backend: &B,
) -> Result<Vec<(String, f64, f64)>> {
    const STEPS: usize = 5;
    for path in manifests(dir)? {
        let (found, json) = Manifest::read_json(&path)?;
        if found != kind {
            continue;
        }
        let case = Case::new(Manifest::with_tensors(&path, found, json)?);
        match kind {
            "training_replay" => replay::first_steps(&case, backend, STEPS)?,
            "sampling_loops" => sampling::shortest(&case, backend)?,
            kind => bail!("kind {kind:?} has no shortened check"),
        }
        let compared = case.compared().into_iter();
        return Ok(compared.map(|c| (c.name, c.error, c.tolerance)).collect());
    }
    bail!("no manifest of kind {kind:?} in {}", dir.display())
}

/// Checks a manifest. A panic in our code is a failure of this case alone.
fn check<B: ModelBackend>(case: Case, backend: &B) -> Result<Vec<Comparison>> {
    match catch_unwind(AssertUnwindSafe(|| dispatch(&case, backend))) {
        Ok(outcome) => outcome?,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            bail!("panicked: {}", text.unwrap_or("no message"));
        }
    }
    case.finish()
}

fn dispatch<B: ModelBackend>(case: &Case, backend: &B) -> Result<()> {
    match case.manifest.kind.as_str() {
        "selective_scan" => scan::selective_scan(case, backend),
        "selective_scan_more" => scan_more::selective_scan_more(case, backend),
        "causal_conv1d" => scan::causal_conv1d(case, backend),
        "mixer" => mixer::mixer(case, backend),
        "model" => model::model(case, backend),
        "model_drop_path" => model::drop_path(case, backend),
        "full_model" => full::full_model(case, backend),
        "model_facts" => facts::model_facts(case),
        "init_stats" => init::init_stats(case),
        "diffusion_tables" => diffusion::tables(case),
        "diffusion_steps" => diffusion::steps(case),
        "training_losses" => training::training_losses(case, backend),
        "sampling_loops" => sampling::sampling_loops(case, backend),
        "bits_per_dim" => bits::bits_per_dim(case, backend),
        "training_replay" => replay::training_replay(case, backend),
        "weights" => weights::weights(case),
        "lr_schedule" => helpers::lr_schedule(case),
        "pos_embed_resize" => positions::pos_embed_resize(case),
        "center_crop" => helpers::center_crop(case),
        "pillow_crop" => helpers::pillow_crop(case),
        "frechet_distance" => helpers::frechet_distance(case),
        "vae" => vae::vae(case, size_of::<B::Real>() == size_of::<f64>()),
        "peer_samplers" => peer::peer_samplers(case),
        "torch_checkpoint" => torch::torch_checkpoint(case, backend),
        kind if LATER.contains(&kind) => bail!("kind not supported yet"),
        kind => bail!("unknown kind {kind:?}"),
    }
}

/// Manifests of a folder, by name.
fn manifests(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).context("not a folder that can be read")? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Which kinds are asked for; an empty list asks for all, known or not.
#[derive(Debug)]
struct Kinds(Vec<String>);

impl Kinds {
    fn new(asked: &[String]) -> Result<Self> {
        let mut kinds = Vec::new();
        for kind in asked {
            match kind.as_str() {
                "due" => kinds.extend(DUE.iter().map(ToString::to_string)),
                known if DUE.contains(&known) || LATER.contains(&known) => kinds.push(kind.clone()),
                _ => bail!(
                    "--kinds {kind:?}: known are due, {}",
                    [DUE, LATER].concat().join(", ")
                ),
            }
        }
        Ok(Self(kinds))
    }

    /// Whether no kind in particular is asked for.
    fn all(&self) -> bool {
        self.0.is_empty()
    }

    fn contain(&self, kind: &str) -> bool {
        self.all() || self.0.iter().any(|k| k == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_no_kind_asks_for_unknown_ones_too() {
        assert!(Kinds::new(&[]).unwrap().contain("anything"));
        let due = Kinds::new(&["due".into(), "vae".into()]).unwrap();
        assert!(due.contain("mixer") && due.contain("vae") && !due.contain("anything"));
        assert!(Kinds::new(&["mixr".into()]).is_err());
        // A kind in both lists would be passed over.
        assert!(LATER.iter().all(|kind| !DUE.contains(kind)));
    }

    /// A set that must fail in every case: what is unknown, unreadable, later or unused.
    #[test]
    fn nothing_that_was_not_checked_passes() {
        let dir = std::env::temp_dir().join(format!("golden-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        let outcome = |name: &str| -> Result<Vec<Comparison>> {
            let path = dir.join(name);
            let (kind, json) = Manifest::read_json(&path)?;
            check(
                Case::new(Manifest::with_tensors(&path, kind, json)?),
                &Reference::new(),
            )
        };
        let fails = |name: &str, text: &str, word: &str| {
            write(name, text);
            let error = format!("{:#}", outcome(name).unwrap_err());
            assert!(error.contains(word), "{error}");
        };
        fails("a.json", "{", "JSON");
        fails("a.json", "[]", "kind");
        fails("a.json", r#"{"kind": "riddle"}"#, "unknown kind");
        fails("a.json", r#"{"kind": "edm"}"#, "not supported yet");
        fails(
            "a.json",
            r#"{"kind": "mixer", "file": "none.safetensors"}"#,
            "none.safetensors",
        );
        fails(
            "a.json",
            r#"{"kind": "lr_schedule", "cases": []}"#,
            "tolerance",
        );
        fails(
            "a.json",
            r#"{"kind": "lr_schedule", "cases": [], "tolerance": {"rtol": 1}}"#,
            "nothing was compared",
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
