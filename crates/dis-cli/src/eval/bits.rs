//! `dis eval --bpd`.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dis_data::{Dataset, Subset};
use dis_diffusion::GaussianDiffusion;
use dis_eval::metrics::Bootstrap;
use dis_eval::plot::Plot;
use dis_eval::{BitsOptions, BitsReport, bits_per_dim};
use dis_files::write_atomic;
use dis_model::Classes;
use dis_pipeline::diffusion_options;
use serde_json::json;

use super::args::EvalArgs;
use super::source::{self, Role, Source};
use crate::device::{self, with_backend};
use crate::{json, memory, progress, say};

/// Measures the likelihood of images under a model.
pub fn run(args: &EvalArgs) -> Result<()> {
    let device = device::open(&args.device, args.precision)?;
    let model = Source::open(Role::Samples, &args.samples, None, args)?;
    let shape = model.shape();
    let (weights, text, sha256) = model.model()?;
    let _ = source::decoder(&weights, args)?;
    let name = args.reference.as_deref().unwrap_or_default();
    let reference = || Source::open(Role::Reference, name, shape, args);
    let (data, given) = device.cpu.install(reference)?.data()?;
    let data: Arc<dyn Dataset> = match args.num.or(args.num_reference) {
        Some(n) if n != data.len() => Arc::new(Subset::draw(data, n, args.seed)?),
        _ => data,
    };
    let mut options = diffusion_options(&weights.metadata)?;
    if let Some(steps) = args.bpd_steps {
        ensure!(
            (1..=options.steps).contains(&steps),
            "--bpd-steps must be 1 to {}",
            options.steps
        );
        options.respacing = steps.to_string().parse()?;
    }
    let diffusion = GaussianDiffusion::new(&options)?;
    let classes = match Classes::of(&weights.metadata)? {
        Some(model) if data.num_classes().is_some() => {
            let given = Classes::named("--reference", data.class_names())
                .without_images(data.unoccupied_classes());
            Some(given.map_to(&model).context("--bpd")?)
        }
        _ => None,
    };
    let config = weights.model.config();
    memory::inference(&device, config, args.batch_size, data.len(), 1)?;
    let settings = BitsOptions {
        batch_size: args.batch_size,
        seed: args.seed,
        clip: true,
        bootstrap: Bootstrap {
            resamples: args.bootstrap,
            seed: args.seed,
            ..Bootstrap::default()
        },
    };
    let bar = progress::likelihood(data.len() as u64 * diffusion.steps() as u64);
    let report = device.cpu.install(|| {
        with_backend!(device, |backend| {
            let pipeline = weights.load(backend)?;
            anyhow::Ok(bits_per_dim(
                backend,
                pipeline.model(),
                pipeline.params(),
                &diffusion,
                &*data,
                classes.as_ref(),
                &settings,
                &mut |n| bar.inc(n as u64),
            )?)
        })
    });
    bar.finish_and_clear();
    let report = report?;
    if let Some(path) = &args.json {
        let value = json!({
            "dis": env!("CARGO_PKG_VERSION"),
            "instructions": device.instruction_set(),
            "model": { "given": text, "sha256": sha256 },
            "reference": { "given": given, "identity": data.identity() },
            "settings": {
                "steps": diffusion.steps(), "seed": settings.seed, "clip": settings.clip,
                "bootstrap": settings.bootstrap,
                "precision": format!("{:?}", args.precision).to_lowercase(),
            },
            "bits_per_dimension": report,
        });
        json::save(path, &value)?;
    }
    if let Some(path) = &args.plot {
        write_atomic(path, plot(&report).to_svg().as_bytes())
            .with_context(|| format!("--plot {}", path.display()))?;
    }
    print(&report, diffusion.steps())
}

fn print(report: &BitsReport, steps: usize) -> Result<()> {
    let BitsReport {
        images, dimensions, ..
    } = report;
    say!("{images} images of {dimensions} values, {steps} steps; bits per dimension:")?;
    let interval = report
        .interval
        .map(|i| format!("  ({:.5} to {:.5})", i.low, i.high));
    say!(
        "total      {:.5}{}",
        report.total,
        interval.unwrap_or_default()
    )?;
    say!("  prior    {:.5}", report.prior)?;
    say!("  steps    {:.5}", report.diffusion)?;
    say!("  pixels   {:.5}  (the last step)", report.decoder)
}

/// The terms over time, and how they add up.
fn plot(report: &BitsReport) -> Plot {
    let terms: Vec<(f64, f64)> = report
        .terms
        .iter()
        .map(|t| (t.timestep + 1.0, t.bits))
        .collect();
    let band: Vec<(f64, f64, f64)> = report
        .terms
        .iter()
        .map(|t| {
            let half = 1.96 * t.error;
            (t.timestep + 1.0, t.bits - half, t.bits + half)
        })
        .collect();
    let mut sum = 0.0;
    let sums: Vec<(f64, f64)> = report
        .terms
        .iter()
        .map(|t| {
            sum += t.bits;
            (t.timestep + 1.0, sum)
        })
        .collect();
    let title = format!("{:.4} bits per dimension", report.total);
    Plot::new(&title, "timestep + 1", "bits per dimension")
        .line("term", &terms)
        .band(&band)
        .line("sum so far", &sums)
        .log_x()
        .log_y()
}
