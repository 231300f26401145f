//! `cargo xtask parity`: every operation, the mixer, whole tiny models with all gradients, the first
//! steps of a recorded training run and a recorded sampling run, on a GPU or on the simulator of
//! one, against the CPU and against float64.
//!
//! A device may be off float64 by eight times what the CPU is off on the same operands, and by ten
//! units in the last place of the output's largest magnitude where that is more. Both say little where a
//! long sum cancels and the CPU is lucky, so each element may also be off by four times the deviation
//! that roundings have there. Where approximate instructions err to one end of their documented error,
//! every one of them, an element may be off by what that makes of it besides, and by the deviation if
//! they erred to either side by chance. All of these are carried through the oracle's own operations with
//! every number (`off.rs`), in whatever it computes.

mod data;
mod grid;
mod images;
mod loss;
mod model;
pub mod mutants;
mod off;
mod operations;
mod report;
mod state_space;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use dis_kernels::ptx::FILES;
use dis_kernels::sim::{Approx, Coverage, Options, Order, Sim};
use dis_model::ModelBackend;
use dis_tensor::{Backend, Cpu, Cuda, Precision};

use crate::golden;
use data::{Outputs, Probe};
use grid::Case;
use report::{Line, Outcome, worse};

/// Arguments of the task.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is compared with the CPU and with float64.
    #[arg(long, value_enum, default_value_t = Device::Sim)]
    device: Device,
    /// Only families whose name contains this: elementwise, gemm, gemm bf16, norm, tables, images, loss,
    /// optimizer, conv1d, scan, mixer, model, model bf16, training, sampling.
    #[arg(long, value_name = "S")]
    filter: Option<String>,
    /// Of the selection and of all operands.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Writes every error here.
    #[arg(long, value_name = "F")]
    json: Option<PathBuf>,
    /// The whole grid instead of a pairwise selection of it: hours on the simulator.
    #[arg(long)]
    full: bool,
    /// Leaves out cases of more than N elements (of states, for scans), which take longest. A million,
    /// but with --full none.
    #[arg(long, value_name = "N")]
    up_to: Option<usize>,
    /// Where the recorded runs are.
    #[arg(long, value_name = "DIR", default_value = "tests/golden")]
    golden: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Device {
    Sim,
    Cuda,
}

/// Something that can be put into the state a case asks for.
trait Subject: Probe {
    fn prepare(&self, case: &Case);
    /// Whether its approximate instructions are not exact then.
    fn approximates(&self, case: &Case) -> bool;
    fn in_precision(&self, precision: Precision) -> Self;
}

impl Subject for Cuda<Sim> {
    fn prepare(&self, case: &Case) {
        let approx = [Approx::Exact, Approx::Low, Approx::High][case.approx];
        let order = [Order::InOrder, Order::Reversed, Order::Shuffled(case.seed)][case.order];
        // Few multiprocessors make launches choose the kernels of large batches for small ones.
        let multiprocessors = if case.seed & 64 == 0 { 132 } else { 1 };
        self.driver().set_multiprocessors(multiprocessors);
        self.driver().set_options(Options {
            approx,
            order,
            ..Options::default()
        });
    }

    fn approximates(&self, case: &Case) -> bool {
        case.approx != 0
    }

    fn in_precision(&self, precision: Precision) -> Self {
        self.clone().with_precision(precision)
    }
}

#[cfg(feature = "cuda")]
impl Subject for Cuda<dis_kernels::cuda::CudaDriver> {
    fn prepare(&self, _: &Case) {}

    fn approximates(&self, _: &Case) -> bool {
        true
    }

    fn in_precision(&self, precision: Precision) -> Self {
        self.clone().with_precision(precision)
    }
}

/// Runs the task; whether everything agreed.
pub fn run(args: &Args) -> Result<bool> {
    match args.device {
        Device::Sim => {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let devices: Vec<Cuda<Sim>> = (0..threads)
                .map(|_| Cuda::new(Sim::new(Options::default())).with_ptx_gemm(true))
                .collect();
            let outcomes = run_all(args, &devices)?;
            let uncovered = uncovered(&devices);
            finish(args, &devices[0].describe(), &outcomes, &uncovered)
        }
        Device::Cuda => run_cuda(args),
    }
}

#[cfg(feature = "cuda")]
fn run_cuda(args: &Args) -> Result<bool> {
    use dis_kernels::cuda::{self, CudaDriver};
    let device = Cuda::new(CudaDriver::open(0, cuda::Precision::Full)?);
    // Products by the library first, then by our own kernel.
    let mut outcomes = run_all(args, std::slice::from_ref(&device))?;
    if args.filter.is_none() || args.filter.as_deref() == Some("gemm") {
        let gemm = Args {
            filter: Some("gemm".into()),
            json: None,
            golden: args.golden.clone(),
            ..*args
        };
        outcomes.extend(run_all(&gemm, &[device.clone().with_ptx_gemm(true)])?);
    }
    finish(args, &device.describe(), &outcomes, &[])
}

#[cfg(not(feature = "cuda"))]
fn run_cuda(_: &Args) -> Result<bool> {
    bail!("--device cuda: xtask was built without the cargo feature `cuda`")
}

fn finish(args: &Args, device: &str, outcomes: &[Outcome], uncovered: &[String]) -> Result<bool> {
    println!("device: {device}");
    let agreed = report::print(outcomes);
    let complete = args.filter.is_some() || uncovered.is_empty();
    if !complete {
        println!(
            "{} lines of the kernels were never executed:",
            uncovered.len()
        );
        uncovered
            .iter()
            .take(40)
            .for_each(|line| println!("    {line}"));
    }
    if let Some(path) = &args.json {
        let json = report::to_json(device, args.seed, outcomes, uncovered);
        let text = serde_json::to_string_pretty(&json)?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    let failed = outcomes
        .iter()
        .filter(|o| !o.lines.as_ref().is_ok_and(|l| l.iter().all(Line::passed)))
        .count();
    println!("{} cases, {failed} failed", outcomes.len());
    if outcomes.is_empty() {
        bail!("nothing was run: --filter names no family");
    }
    Ok(agreed && complete)
}

/// Runs all cases, one after the other on each device.
fn run_all<B: Subject>(args: &Args, devices: &[B]) -> Result<Vec<Outcome>> {
    let wanted = |family: &str| {
        args.filter
            .as_ref()
            .is_none_or(|f| family.contains(f.as_str()))
    };
    let mut cases = grid::cases(args.full, args.up_to, args.seed);
    cases.retain(|case| wanted(case.problem.family()));
    println!("{} cases", cases.len());
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for device in devices {
            scope.spawn(|| {
                let cpu = Cpu::with_threads(1);
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(case), Ok(cpu)) = (cases.get(i), &cpu) else {
                        break;
                    };
                    let start = Instant::now();
                    let outcome = one(case, device, cpu);
                    let seconds = start.elapsed().as_secs_f64();
                    if seconds > 20.0 {
                        eprintln!("{seconds:.0} s: {} {}", outcome.family, outcome.case);
                    }
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push((i, outcome));
                    }
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(|e| e.into_inner());
    outcomes.sort_by_key(|(i, _)| *i);
    let mut outcomes: Vec<Outcome> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    if outcomes.len() != cases.len() {
        bail!("{} of {} cases were run", outcomes.len(), cases.len());
    }
    if let Some(device) = devices.first() {
        for (family, kind) in [
            ("training", "training_replay"),
            ("sampling", "sampling_loops"),
        ] {
            if wanted(family) {
                device.prepare(&Case {
                    problem: grid::Problem::Model(0),
                    seed: args.seed,
                    approx: 0,
                    order: 0,
                });
                outcomes.push(recorded(args, device, family, kind));
            }
        }
    }
    Ok(outcomes)
}

/// Runs a case on the device, the CPU and in float64.
fn one<B: Subject>(case: &Case, device: &B, cpu: &Cpu) -> Outcome {
    let problem = &case.problem;
    let settings = format!(
        "{}, approx {}, order {}, seed {}",
        problem.describe(),
        ["exact", "low", "high"][case.approx],
        ["ascending", "descending", "shuffled"][case.order],
        case.seed
    );
    let lines = guarded(|| {
        device.prepare(case);
        let precision = problem.precision();
        let got = problem.run(&device.in_precision(precision), case.seed)?;
        if let Some(failure) = device.failure() {
            bail!("{failure}");
        }
        let cpu = cpu.clone().with_precision(precision);
        let (on_cpu, exact) = (problem.run(&cpu, case.seed)?, problem.exact(case.seed)?);
        let all = [&got, &on_cpu, &exact];
        let approximate = device.approximates(case);
        compare(problem.family(), &settings, all, approximate)
    });
    Outcome {
        family: problem.family(),
        case: settings,
        lines,
    }
}

/// A panic in our code is a failure of this case alone.
fn guarded<T>(f: impl FnOnce() -> Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", text.unwrap_or("no message")))
        }
    }
}

/// Ten units in the last place of float32.
const FLOOR: f64 = 10.0 / (1 << 23) as f64;

/// The same of float64, in which the sums of the loss are, and half a unit for each addition of the longest
/// of them: float64 is the oracle here too, and adds in another order.
const DOUBLE_FLOOR: f64 = (20 + 3072) as f64 / (1u64 << 53) as f64;

/// What the device may be off, in errors of the CPU.
const FACTOR: f64 = 8.0;

/// What roundings may add up to, in deviations of which each rounding is taken to have its largest: more than
/// five of the usual size, and so beyond what chance does among millions of elements.
const DEVIATIONS: f64 = 4.0;

/// Compares what the device gives with what the CPU and the oracle do; `approximate` says whether the device's
/// approximate instructions err. Of an output, the element counts that uses up most of what it is
/// allowed.
fn compare(
    family: &'static str,
    case: &str,
    [got, on_cpu, exact]: [&Outputs; 3],
    approximate: bool,
) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (((name, got), (_, on_cpu)), (_, exact)) in got.iter().zip(on_cpu).zip(exact) {
        let (got, on_cpu) = (&got.values, &on_cpu.values);
        let (exact, off) = (&exact.values, &exact.off);
        if [got.len(), on_cpu.len()] != [exact.len(); 2] {
            bail!("{name}: outputs of different lengths");
        }
        let largest = exact.iter().map(|x| x.abs()).fold(0.0, worse).max(1e-30);
        let apart = |a: &[f64], b: &[f64]| -> Vec<f64> {
            let each = a.iter().zip(b).map(|(a, b)| (a - b).abs() / largest);
            each.collect()
        };
        let most = |x: &[f64]| x.iter().copied().fold(0.0, worse);
        let (device, cpu) = (apart(got, exact), most(&apart(on_cpu, exact)));
        let floor = if *name == "loss" { DOUBLE_FLOOR } else { FLOOR };
        let base = floor.max(FACTOR * cpu);
        let allowed = |i: usize| match off.get(i) {
            None => base,
            Some(off) => {
                let (scattered, together) = match approximate {
                    true => (
                        off.scattered,
                        off.exponentials.abs() + off.reciprocals.abs(),
                    ),
                    false => (0.0, 0.0),
                };
                let deviation = (off.rounded + scattered).sqrt();
                base.max(DEVIATIONS * deviation / largest) + together / largest
            }
        };
        let (mut worst, mut tolerance) = (0.0, if exact.is_empty() { base } else { allowed(0) });
        for (i, &off) in device.iter().enumerate() {
            let allowed = allowed(i);
            if !allowed.is_finite() {
                bail!("{name}: element {i} has no bound");
            }
            if off.is_nan() || off * tolerance > worst * allowed {
                (worst, tolerance) = (off, allowed);
            }
            if off.is_nan() {
                break;
            }
        }
        lines.push(Line {
            family,
            output: (*name).into(),
            case: case.into(),
            device: worst,
            cpu,
            apart: most(&apart(got, on_cpu)),
            tolerance,
        });
    }
    Ok(lines)
}

/// A recorded run of the golden set, on the device alone: what is stored is float64's.
fn recorded<B: ModelBackend>(
    args: &Args,
    device: &B,
    family: &'static str,
    kind: &'static str,
) -> Outcome {
    let lines = guarded(|| {
        let comparisons = golden::first_of(&args.golden, kind, device)?;
        let line = |(name, error, tolerance): (String, f64, f64)| Line {
            family,
            output: name.split(['[', ' ']).next().unwrap_or_default().into(),
            case: name.clone(),
            device: error,
            cpu: 0.0,
            apart: 0.0,
            tolerance,
        };
        Ok(comparisons.into_iter().map(line).collect())
    });
    Outcome {
        family,
        case: kind.into(),
        lines,
    }
}

/// Lines that no device has executed.
fn uncovered(devices: &[Cuda<Sim>]) -> Vec<String> {
    let mut lines = Vec::new();
    for file in FILES {
        let mut merged = Coverage::default();
        for device in devices {
            if let Some(coverage) = device.driver().coverage(file) {
                merged.merge(&coverage);
            }
        }
        if merged.lines.is_empty() {
            lines.push(format!("{}: all of it", file.name));
        }
        lines.extend(
            merged
                .uncovered()
                .map(|l| format!("{}:{}: {} ({})", file.name, l.line, l.instruction, l.entry)),
        );
    }
    lines
}
