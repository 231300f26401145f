//! `cargo xtask digits-check`: judges samples of a digits model against the real digits.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dis_data::DIGITS_SPLIT_SEED;
use dis_diffusion::{Guidance, Plan, SamplerSpec, Spacing};
use dis_eval::metrics::{DigitsReport, digits_check};
use dis_model::Checkpoint;
use dis_model::checkpoint::InferHints;
use dis_model::classes::Division;
use dis_pipeline::{SampleSpec, generate, plan_for};
use dis_tensor::{Backend, Cpu, Precision};
use dis_train::run::find_weights;

/// The model that `dis sample` carries.
const BUNDLED: &str = "crates/dis-cli/assets/digits.safetensors";
/// Its classes.
const CLASSES: usize = 10;

/// Draws samples of every class and judges them: are they labelled as asked by 5-nearest-neighbours
/// on real digits, is their Frechet distance small, do they cover the real images, and do they not
/// copy them. All four together, since each alone can be gamed.
#[derive(clap::Args)]
pub struct Args {
    /// A checkpoint or run directory, trained on `digits-train` [default: the bundled model].
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Samples of each class.
    #[arg(long, default_value_t = 100)]
    per_class: usize,
    /// DDIM steps.
    #[arg(long, default_value_t = 50)]
    steps: usize,
    /// Guidance scale.
    #[arg(long, default_value_t = 1.5)]
    cfg: f64,
    /// Seed of the samples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Matrix products of bfloat16.
    #[arg(long)]
    bf16: bool,
    /// Also write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Returns whether all four criteria hold.
pub fn run(args: &Args) -> Result<bool> {
    let checkpoint = open(args.checkpoint.as_deref())?;
    let plan = plan_for(
        &checkpoint.metadata,
        SamplerSpec::Ddim { eta: 0.0 },
        args.steps,
        Spacing::Default,
        None,
    )?;
    let precision = match args.bf16 {
        true => Precision::Bfloat16,
        false => Precision::Float32,
    };
    let cpu = Cpu::with_threads(0)?.with_precision(precision);
    let report = judge(
        &cpu,
        &checkpoint,
        &plan,
        args.per_class,
        args.cfg,
        args.seed,
    )?;
    println!(
        "{} samples, {} DDIM steps, guidance {}, seed {}",
        CLASSES * args.per_class,
        args.steps,
        args.cfg,
        args.seed
    );
    println!("{report}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.passed())
}

/// A digits model.
pub fn open(path: Option<&Path>) -> Result<Checkpoint> {
    let checkpoint = match path {
        Some(path) => {
            let found = find_weights(path, &mut |text| eprintln!("warning: {text}"))?;
            found.load(false)?
        }
        None => Checkpoint::load(Path::new(BUNDLED), &InferHints::default())
            .context("run this from the root of the repository, or give --checkpoint")?,
    };
    let config = checkpoint.model.config();
    if (config.channels, config.image_size) != (1, 8.into()) {
        bail!(
            "the model is for {} channels of {}, not digits",
            config.channels,
            config.image_size
        );
    }
    Ok(checkpoint)
}

/// Draws so many images of each class along a plan, and judges them.
pub fn judge(
    cpu: &Cpu,
    checkpoint: &Checkpoint,
    plan: &Plan,
    per_class: usize,
    cfg: f64,
    seed: u64,
) -> Result<DigitsReport> {
    let count = CLASSES * per_class;
    let division = Division::new(count, CLASSES);
    let labels: Vec<u32> = (0..count).map(|i| division.in_blocks(i) as u32).collect();
    let spec = SampleSpec {
        count: labels.len(),
        labels,
        seed,
        first: 0,
        guidance: Guidance::new(cfg),
        batch_size: 250,
    };
    let images = cpu.install(|| {
        let mut params = cpu.from_f32(&checkpoint.weights);
        cpu.prepare_weights(&mut params, checkpoint.model.table().products())?;
        generate(cpu, &checkpoint.model, &params, plan, &spec, &mut |_, _| {})
    })?;
    let unit: Vec<f32> = images
        .iter()
        .map(|v| ((v + 1.0) / 2.0).clamp(0.0, 1.0))
        .collect();
    Ok(digits_check(&unit, &spec.labels, DIGITS_SPLIT_SEED)?)
}
