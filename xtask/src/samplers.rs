//! `cargo xtask sampler-table`: the table of docs/results.md that compares samplers on a real model.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dis_diffusion::{Guidance, SamplerSpec, Spacing};
use dis_pipeline::Settings;
use dis_tensor::Cpu;

use crate::digits;

const RESULTS: &str = "docs/results.md";
const BEGIN: &str = "<!-- samplers -->\n";
const END: &str = "<!-- end of samplers -->";

/// Samples a digits model with every sampler at several numbers of steps, judges the samples, and
/// puts the table into docs/results.md.
#[derive(clap::Args)]
pub struct Args {
    /// A checkpoint or run directory, trained on `digits-train` [default: the bundled model].
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Samples of each class.
    #[arg(long, default_value_t = 100)]
    per_class: usize,
    /// Steps.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 20, 50])]
    steps: Vec<usize>,
    /// Spacings of the steps.
    #[arg(long, value_delimiter = ',', default_values_t = [Spacing::Default, Spacing::Karras])]
    spacings: Vec<Spacing>,
    /// Guidance scale.
    #[arg(long, default_value_t = 1.5)]
    cfg: f64,
    /// Seed of the samples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print the table only.
    #[arg(long)]
    print: bool,
}

/// Makes the table.
pub fn run(args: &Args) -> Result<bool> {
    let cpu = Cpu::with_threads(0)?;
    let pipeline = digits::open(args.checkpoint.as_deref(), &cpu)?;
    let mut table = String::from("| sampler | spacing |");
    for steps in &args.steps {
        write!(table, " {steps}: calls | labels % | Frechet |")?;
    }
    table += "\n|---|---|";
    table += &"---:|".repeat(3 * args.steps.len());
    table += "\n";
    for name in SamplerSpec::NAMES {
        let sampler: SamplerSpec = name.parse()?;
        for &spacing in &args.spacings {
            let mut line = format!("| `{name}` | {spacing} |");
            for &steps in &args.steps {
                let settings = Settings {
                    sampler,
                    steps,
                    spacing,
                    guidance: Some(Guidance::new(args.cfg)),
                    seed: args.seed,
                    ..Settings::default()
                };
                let calls = pipeline.plan(&settings)?.iterations();
                let report = digits::judge(&cpu, &pipeline, args.per_class, settings)?;
                write!(
                    line,
                    " {calls} | {:.1} | {:.3} |",
                    100.0 * report.accuracy,
                    report.frechet
                )?;
            }
            eprintln!("{line}");
            writeln!(table, "{line}")?;
        }
    }
    print!("{table}");
    if !args.print {
        insert(Path::new(RESULTS), &table)?;
    }
    Ok(true)
}

/// Replaces what stands between the marks.
fn insert(path: &Path, table: &str) -> Result<()> {
    let context = || {
        format!(
            "{}: run this from the root of the repository",
            path.display()
        )
    };
    let text = std::fs::read_to_string(path).with_context(context)?;
    let (head, rest) = text.split_once(BEGIN).with_context(context)?;
    let (_, tail) = rest.split_once(END).with_context(context)?;
    std::fs::write(path, format!("{head}{BEGIN}\n{table}\n{END}{tail}")).with_context(context)
}
