//! `cargo xtask digits-check`: judges samples of a digits model against the real digits.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dis_data::DIGITS_SPLIT_SEED;
use dis_diffusion::Guidance;
use dis_eval::metrics::{DigitsReport, digits_check};
use dis_eval::{FeatureNetwork, PixelFeatures};
use dis_pipeline::{Pipeline, Row, SamplerSpec, Settings};
use dis_tensor::{Cpu, Precision};
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
    let precision = match args.bf16 {
        true => Precision::Bfloat16,
        false => Precision::Float32,
    };
    let cpu = Cpu::with_threads(0)?.with_precision(precision);
    let pipeline = open(args.checkpoint.as_deref(), &cpu)?;
    let ddim = SamplerSpec::Ddim { eta: 0.0 };
    let settings = Settings {
        guidance: Some(Guidance::new(args.cfg)),
        seed: args.seed,
        ..Settings::of(Some(ddim), Some(args.steps), None)
    };
    let report = judge(&cpu, &pipeline, args.per_class, settings)?;
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
pub fn open(path: Option<&Path>, cpu: &Cpu) -> Result<Pipeline<Cpu>> {
    let pipeline = match path {
        Some(path) => {
            let found = find_weights(path, &mut |text| eprintln!("warning: {text}"))?;
            Pipeline::open(found.file(false), cpu.clone())?
        }
        None => Pipeline::open(BUNDLED, cpu.clone())
            .context("run this from the root of the repository, or give --checkpoint")?,
    };
    let config = pipeline.model().config();
    if (config.channels, config.image_size) != (1, 8.into()) {
        bail!(
            "the model is for {} channels of {}, not digits",
            config.channels,
            config.image_size
        );
    }
    Ok(pipeline)
}

/// Draws so many images of each class, and judges them.
pub fn judge(
    cpu: &Cpu,
    pipeline: &Pipeline<Cpu>,
    per_class: usize,
    settings: Settings,
) -> Result<DigitsReport> {
    let (count, classes) = (CLASSES * per_class, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let settings = Settings {
        batch_size: 250,
        ..settings
    };
    let images = cpu.install(|| pipeline.draw(count, &classes, &settings))?;
    let asked: Vec<u32> = Row::divided(count, &classes)
        .iter()
        .filter_map(|row| row.label)
        .collect();
    let images: Vec<f32> = images.iter().map(|v| v.clamp(-1.0, 1.0)).collect();
    let shape = pipeline.model().config().image_shape().into();
    let pixels = PixelFeatures.run(&images, shape)?.features;
    Ok(digits_check(&pixels, &asked, DIGITS_SPLIT_SEED)?)
}
