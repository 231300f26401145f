//! `cargo xtask mutants`: the kernels are changed on purpose, one small change at a time, and the
//! small shapes of `parity` must notice each of them.
//!
//! Only lines that the unchanged kernels execute on these shapes are changed, spread evenly over
//! each text. A change that nothing notices survives; it is a failure unless `survivors.rs` says
//! why it changes nothing that a kernel may be held to.

mod operators;
mod problems;
mod survivors;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use dis_kernels::PtxFile;
use dis_kernels::ptx::FILES;
use dis_kernels::sim::{Options, Sim};
use dis_tensor::{Backend, Cpu, Cuda};
use serde_json::json;

use super::data::Outputs;
use super::grid::Problem;
use super::report::Line;
use super::{compare, guarded};
use operators::{Change, changes};

/// Arguments of the task.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only texts whose name contains this.
    #[arg(long, value_name = "S")]
    filter: Option<String>,
    /// Most changes of one kind in one text.
    #[arg(long, value_name = "N", default_value_t = 3)]
    each: usize,
    /// Shifts which of the possible changes are made.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: usize,
    /// Writes every change and what came of it here.
    #[arg(long, value_name = "F")]
    json: Option<PathBuf>,
    /// Names every change as it is tried.
    #[arg(long)]
    verbose: bool,
}

/// A problem with what the CPU and float64 make of it.
struct Known {
    problem: Problem,
    seed: u64,
    cpu: Outputs,
    exact: Outputs,
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// Noticed, and by what.
    Caught(String),
    /// Not PTX any more.
    Refused(String),
    /// Nothing noticed it.
    Survived,
}

struct Mutant {
    file: &'static PtxFile,
    change: Change,
}

/// Steps of a warp: the small shapes need far fewer.
const MAX_STEPS: u64 = 1 << 20;

/// Runs the task; whether every change was caught or is explained.
pub fn run(args: &Args) -> Result<bool> {
    let start = Instant::now();
    let mut mutants = Vec::new();
    let mut known: BTreeMap<&'static str, Vec<Known>> = BTreeMap::new();
    let cpu = Cpu::with_threads(1)?;
    for file in FILES.iter().copied() {
        if args
            .filter
            .as_ref()
            .is_some_and(|f| !file.name.contains(f.as_str()))
        {
            continue;
        }
        let problems = know(file, &cpu)?;
        let executed = baseline(file, &problems)?;
        let candidates = changes(file.text, &executed);
        mutants.extend(
            select(&candidates, args.each, args.seed).map(|change| Mutant { file, change }),
        );
        known.insert(file.name, problems);
    }
    ensure!(
        !mutants.is_empty(),
        "nothing to change: --filter names no text"
    );
    println!("{} changes of {} texts", mutants.len(), known.len());
    let fates = try_all(args, &mutants, &known)?;
    let ok = report(args, &mutants, &fates)?;
    println!("{:.0} s", start.elapsed().as_secs_f64());
    Ok(ok)
}

fn know(file: &PtxFile, cpu: &Cpu) -> Result<Vec<Known>> {
    problems::of(file.name)
        .into_iter()
        .map(|(problem, seed)| {
            let cpu = cpu.clone().with_precision(problem.precision());
            let (cpu, exact) = (problem.run(&cpu, seed)?, problem.exact(seed)?);
            Ok(Known {
                problem,
                seed,
                cpu,
                exact,
            })
        })
        .collect()
}

fn device(text: Option<(&'static str, String)>) -> Cuda<Sim> {
    let options = Options {
        max_steps: MAX_STEPS,
        ..Options::default()
    };
    Cuda::new(Sim::new(options).with_texts(text)).with_ptx_gemm(true)
}

/// Runs one problem; why it fails, if it does.
fn judge(device: &Cuda<Sim>, known: &Known) -> Result<(), String> {
    let lines = guarded(|| {
        let device = device.clone().with_precision(known.problem.precision());
        let got = known.problem.run(&device, known.seed)?;
        if let Some(failure) = device.failure() {
            bail!("{failure}");
        }
        let all = [&got, &known.cpu, &known.exact];
        compare(known.problem.family(), "", all, false)
    })?;
    match lines.iter().find(|l| !l.passed()) {
        None => Ok(()),
        Some(Line {
            output,
            device,
            tolerance,
            ..
        }) => Err(format!(
            "{output} is off by {device:.1e} of {tolerance:.1e} allowed"
        )),
    }
}

/// Lines that the unchanged text executes; it must pass.
fn baseline(file: &'static PtxFile, problems: &[Known]) -> Result<Vec<u32>> {
    let device = device(None);
    let start = Instant::now();
    for known in problems {
        if let Err(why) = judge(&device, known) {
            bail!(
                "{} unchanged fails on {}: {why}",
                file.name,
                known.problem.describe()
            );
        }
    }
    let coverage = device.driver().coverage(file);
    let coverage =
        coverage.with_context(|| format!("the problems of {} do not run it", file.name))?;
    println!(
        "{:<20} {} problems, {:.1} s, {:.1}% of its lines executed",
        file.name,
        problems.len(),
        start.elapsed().as_secs_f64(),
        100.0 * coverage.fraction()
    );
    Ok(coverage
        .lines
        .iter()
        .filter(|l| l.hits > 0)
        .map(|l| l.line)
        .collect())
}

/// At most so many changes of each kind, spread over the text.
fn select(candidates: &[Change], each: usize, seed: usize) -> impl Iterator<Item = Change> {
    let mut kinds: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
    for change in candidates {
        kinds.entry(change.kind).or_default().push(change);
    }
    let mut chosen = Vec::new();
    for changes in kinds.into_values() {
        let count = changes.len().min(each);
        for k in 0..count {
            // The middle of each of `count` parts, shifted.
            let middle = (2 * k + 1) * changes.len() / (2 * count);
            chosen.push(changes[(middle + seed) % changes.len()].clone());
        }
    }
    chosen.into_iter()
}

fn fate(mutant: &Mutant, known: &[Known]) -> Fate {
    let Mutant { file, change } = mutant;
    let text = change.apply(file.text);
    if let Err(error) = dis_ptx_sim::Module::parse(file.name, &text) {
        return Fate::Refused(error.message);
    }
    let device = device(Some((file.name, text)));
    known
        .iter()
        .find_map(|known| judge(&device, known).err())
        .map_or(Fate::Survived, Fate::Caught)
}

fn try_all(
    args: &Args,
    mutants: &[Mutant],
    known: &BTreeMap<&'static str, Vec<Known>>,
) -> Result<Vec<Fate>> {
    let (next, fates) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(i) else {
                        break;
                    };
                    let start = Instant::now();
                    let fate = fate(mutant, &known[mutant.file.name]);
                    if args.verbose {
                        let seconds = start.elapsed().as_secs_f64();
                        println!("{seconds:5.1} s {} {:?}", mutant.describe(), fate);
                    }
                    if let Ok(mut fates) = fates.lock() {
                        fates.push((i, fate));
                    }
                }
            });
        }
    });
    let mut fates = fates.into_inner().unwrap_or_else(|e| e.into_inner());
    fates.sort_by_key(|(i, _)| *i);
    ensure!(
        fates.len() == mutants.len(),
        "{} of {} were tried",
        fates.len(),
        mutants.len()
    );
    Ok(fates.into_iter().map(|(_, fate)| fate).collect())
}

impl Mutant {
    fn describe(&self) -> String {
        let Change {
            kind,
            line,
            before,
            after,
            ..
        } = &self.change;
        format!("{}:{line}: {kind}: `{before}` -> `{after}`", self.file.name)
    }
}

fn report(args: &Args, mutants: &[Mutant], fates: &[Fate]) -> Result<bool> {
    // Text, kind: caught, survived, refused.
    let mut table: BTreeMap<(&str, &str), [usize; 3]> = BTreeMap::new();
    let mut unexplained = 0;
    let mut survivors = Vec::new();
    for (mutant, fate) in mutants.iter().zip(fates) {
        let cell = table
            .entry((mutant.file.name, mutant.change.kind))
            .or_default();
        match fate {
            Fate::Caught(_) => cell[0] += 1,
            Fate::Refused(_) => cell[2] += 1,
            Fate::Survived => {
                cell[1] += 1;
                let why = survivors::why(mutant.file.name, &mutant.change);
                unexplained += usize::from(why.is_none());
                survivors.push((mutant, why));
            }
        }
    }
    println!(
        "{:<20} {:<12} {:>6} {:>8} {:>8}",
        "text", "change", "caught", "survived", "no PTX"
    );
    for ((text, kind), [caught, survived, refused]) in &table {
        println!("{text:<20} {kind:<12} {caught:>6} {survived:>8} {refused:>8}");
    }
    let total = |k: usize| table.values().map(|c| c[k]).sum::<usize>();
    for (mutant, why) in &survivors {
        println!("survived: {}", mutant.describe());
        println!("    {}", why.unwrap_or("NOT EXPLAINED"));
    }
    let (caught, survived) = (total(0), total(1));
    println!(
        "{} changes: {caught} caught, {survived} survived, of which {unexplained} without an \
         explanation",
        caught + survived
    );
    if let Some(path) = &args.json {
        let entries: Vec<_> = mutants
            .iter()
            .zip(fates)
            .map(|(m, fate)| {
                let (fate, by) = match fate {
                    Fate::Caught(by) => ("caught", Some(by)),
                    Fate::Refused(by) => ("refused", Some(by)),
                    Fate::Survived => ("survived", None),
                };
                let Change {
                    kind,
                    line,
                    before,
                    after,
                    ..
                } = &m.change;
                let why = survivors::why(m.file.name, &m.change);
                json!({ "text": m.file.name, "line": line, "kind": kind, "before": before,
                        "after": after, "fate": fate, "by": by, "why": why })
            })
            .collect();
        let value = json!({ "caught": caught, "survived": survived, "changes": entries });
        std::fs::write(path, serde_json::to_string_pretty(&value)? + "\n")
            .with_context(|| path.display().to_string())?;
    }
    Ok(unexplained == 0)
}
