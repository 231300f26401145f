//! `cargo xtask gpu-day`: all that only hardware can say, in one run of one executable.
//!
//! Nothing but this executable and the NVIDIA driver is needed on the machine: the kernels' texts
//! and the recorded runs are embedded. Each step is reported as soon as it ends, and on a GPU runs
//! in a process of its own, so that one that fails does not take the others' results along.

mod agreement;
mod approx;
mod clock;
#[cfg(test)]
mod costs;
mod device;
mod images;
mod isolate;
mod kernels;
mod models;
mod rates;
mod report;
mod section;
mod state_space;
#[cfg(test)]
mod tests;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use dis_kernels::Driver;
use serde_json::{Value, json};

use clock::Effort;
use device::{Facts, Kind};
use section::{Outcome, Section};

/// Where results go in the repository.
const REPOSITORY: &str = "docs/gpu";
/// Said wherever the simulator's times are.
const MEANINGLESS: &str =
    "The simulator ran this: its times mean nothing, and only show that the task works.";

/// Arguments of the task.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the day is about.
    #[arg(long, value_enum, default_value_t = Kind::Cuda)]
    device: Kind,
    /// Tiny sizes, each thing once: tries the task itself.
    #[arg(long)]
    quick: bool,
    /// Where the results go [default: docs/gpu where that is, else here].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Of all operands.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Only this step; may be repeated.
    #[arg(long, value_enum, value_name = "STEP")]
    step: Vec<Step>,
    /// Each step in a process of its own on the simulator too.
    #[arg(long, hide = true)]
    isolate: bool,
    /// Where a process of one step leaves its outcome.
    #[arg(long, hide = true, value_name = "FILE")]
    outcome: Option<PathBuf>,
}

/// A step of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Name, compute capability, memory, driver.
    Device,
    /// `cargo xtask parity` on the device.
    Parity,
    /// Approximate instructions, recorded.
    Approx,
    /// Times of all kernels beside their bounds.
    Kernels,
    /// Training and sampling speed.
    Models,
}

const STEPS: [Step; 5] = [
    Step::Device,
    Step::Parity,
    Step::Approx,
    Step::Kernels,
    Step::Models,
];

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Parity => "parity",
            Self::Approx => "approx",
            Self::Kernels => "kernels",
            Self::Models => "models",
        }
    }
}

/// The settings of a day.
#[derive(Clone, Debug)]
struct Day {
    device: Kind,
    quick: bool,
    out: PathBuf,
    seed: u64,
}

impl Day {
    fn of(args: &Args) -> Self {
        let here = || {
            let repository = Path::new(REPOSITORY);
            if repository.is_dir() {
                repository.into()
            } else {
                PathBuf::from(".")
            }
        };
        Self {
            device: args.device,
            quick: args.quick,
            out: args.out.clone().unwrap_or_else(here),
            seed: args.seed,
        }
    }

    fn effort(&self) -> Effort {
        if self.quick {
            Effort::QUICK
        } else {
            Effort::FULL
        }
    }

    fn device_name(&self) -> &'static str {
        match self.device {
            Kind::Cuda => "cuda",
            Kind::Sim => "sim",
        }
    }

    /// For a process of the same day.
    fn to_args(&self) -> Vec<String> {
        let mut args = vec!["--device".to_string(), self.device_name().into()];
        args.extend(["--out".into(), self.out.display().to_string()]);
        args.extend(["--seed".into(), self.seed.to_string()]);
        if self.quick {
            args.push("--quick".into());
        }
        args
    }

    fn settings(&self) -> Value {
        let mode = if cfg!(debug_assertions) {
            "with debug assertions"
        } else {
            "release"
        };
        json!({
            "xtask": format!("{} ({mode})", env!("CARGO_PKG_VERSION")),
            "machine": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "device": self.device_name(),
            "quick": self.quick,
            "seed": self.seed,
            "timing": format!("{:?}", self.effort()),
        })
    }

    fn warning(&self) -> Option<&'static str> {
        (self.device == Kind::Sim).then_some(MEANINGLESS)
    }
}

/// Runs the task; whether every step passed.
pub fn run(args: &Args) -> Result<bool> {
    let day = Day::of(args);
    let steps: Vec<Step> = if args.step.is_empty() {
        STEPS.to_vec()
    } else {
        args.step.clone()
    };
    if let (Some(path), [step]) = (&args.outcome, &steps[..]) {
        let outcome = here(&day, *step);
        isolate::leave(path, &outcome)?;
        return Ok(outcome.passed());
    }
    // Said once and clearly where there is no such device.
    let name = name(&day)?;
    println!("device: {name}");
    if let Some(warning) = day.warning() {
        println!("{warning}");
    }
    let apart = args.isolate || day.device == Kind::Cuda;
    let mut outcomes = Vec::new();
    let mut written = None;
    for step in steps {
        println!("== {}", step.name());
        let start = Instant::now();
        let outcome = if apart {
            isolate::run(&day, step).unwrap_or_else(|error| {
                Outcome::of(step.name(), start.elapsed().as_secs_f64(), Err(error))
            })
        } else {
            here(&day, step)
        };
        say(&outcome);
        outcomes.push(outcome);
        // Again after every step: whatever comes next, this is kept.
        let (warning, settings) = (day.warning(), day.settings());
        written = Some(report::write(
            &day.out, &name, warning, &settings, &outcomes,
        )?);
    }
    if let Some(path) = written {
        println!("wrote {}", path.display());
    }
    let passed = outcomes.iter().filter(|outcome| outcome.passed()).count();
    println!("{passed} of {} steps passed", outcomes.len());
    Ok(passed == outcomes.len())
}

fn say(outcome: &Outcome) {
    let seconds = outcome.seconds;
    if let Some(error) = &outcome.error {
        println!("{}: did not finish ({seconds:.1} s): {error}", outcome.step);
    }
    let Some(section) = &outcome.section else {
        return;
    };
    for table in &section.tables {
        let width = |column: usize| {
            let cells = table.rows.iter().chain([&table.head]);
            let widths = cells
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            widths.max().unwrap_or(0)
        };
        for row in [&table.head].into_iter().chain(&table.rows) {
            let cells = row.iter().enumerate();
            let line: Vec<String> = cells
                .map(|(i, cell)| format!("{cell:<w$}", w = width(i)))
                .collect();
            println!("  {}", line.join("  ").trim_end());
        }
    }
    for failure in section.failures.iter().take(20) {
        println!("  FAILED: {failure}");
    }
    let state = if outcome.passed() { "passed" } else { "FAILED" };
    println!("{}: {state} ({seconds:.1} s)", outcome.step);
}

/// The device's name; the device is closed again.
fn name(day: &Day) -> Result<String> {
    Ok(match day.device {
        Kind::Cuda => device::open_cuda()?.1.name,
        Kind::Sim => device::open_sim().1.name,
    })
}

/// Runs a step in this process. A panic in it is its failure alone.
fn here(day: &Day, step: Step) -> Outcome {
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| match day.device {
        Kind::Cuda => {
            let (driver, facts) = device::open_cuda()?;
            one(day, step, &driver, &facts)
        }
        Kind::Sim => {
            let (driver, facts) = device::open_sim();
            one(day, step, &driver, &facts)
        }
    }));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(anyhow!("panicked: {}", text.unwrap_or("no message")))
    });
    Outcome::of(step.name(), start.elapsed().as_secs_f64(), result)
}

fn one<D: Driver>(day: &Day, step: Step, driver: &D, facts: &Facts) -> Result<Section> {
    match step {
        Step::Device => Ok(facts.section()),
        Step::Parity => agreement::run(day),
        Step::Approx => approx::run(day, driver, facts),
        Step::Kernels => kernels::run(day, driver, facts),
        Step::Models => models::run(day, driver, facts),
    }
}
