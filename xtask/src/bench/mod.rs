//! `cargo xtask bench --against pytorch`: whole models beside equivalents in PyTorch, in one run.

mod blocks;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use dis_data::{ImageShape, LoaderOptions, MemoryDataset, grid, load_batch};
use dis_diffusion::GaussianDiffusion;
use dis_model::{Condition, Ctx, DisConfig, DisModel, ModelInput};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::simd::{Level, level};
use dis_tensor::{Backend, Cpu, Precision};
use dis_train::config::TrainConfig;
use dis_train::{TrainState, Trainer};
use serde_json::{Value, json};

/// The program that times PyTorch.
const PEER: &str = include_str!("peer.py");
/// What is installed where no Python is given.
const PACKAGES: [&str; 2] = ["torch==2.9.1", "numpy"];
/// Where.
const VENV: &str = "target/pytorch";

/// What to compare with.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Against {
    /// PyTorch on the CPU: a loop over steps, the same compiled, and DiT-S/2.
    Pytorch,
}

/// Times DiS-S/2 at 32 x 32 here and in PyTorch, alternating, and prints medians and ratios. Makes a
/// virtual environment with a CPU PyTorch under target/ unless it is given one. With DIS_SIMD both sides
/// are held to that instruction set.
#[derive(clap::Args)]
pub struct Args {
    /// The other side.
    #[arg(long, value_enum)]
    against: Against,
    /// A Python that has PyTorch.
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// Threads.
    #[arg(long, num_args = 1.., value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Batch sizes.
    #[arg(long, num_args = 1.., value_delimiter = ',', default_values_t = [1, 8])]
    batch: Vec<usize>,
    /// Measurements of each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Also time a step of training (minutes for PyTorch's loop).
    #[arg(long)]
    training: bool,
    /// Only these of the other side: eager, compiled, dit.
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Instead of whole models, a block of each kind over these numbers of tokens.
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "TOKENS")]
    lengths: Vec<usize>,
    /// Write all measurements here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the comparison.
pub fn run(args: &Args) -> Result<bool> {
    let Against::Pytorch = args.against;
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let python = match &args.python {
        Some(path) => path.clone(),
        None => environment()?,
    };
    let mut peer = Peer::start(&python)?;
    let (level, processor) = (level(), processor());
    println!("{processor}");
    println!(
        "PyTorch {}, {}; here {level}",
        peer.version, peer.capability
    );
    let mut all = Vec::new();
    for &threads in &args.threads {
        if !args.lengths.is_empty() {
            all.extend(blocks::compare(
                &mut peer,
                threads,
                &args.lengths,
                args.rounds,
            )?);
            continue;
        }
        let mut ours = Ours::new(threads)?;
        println!("{}", ours.cpu.describe());
        for &batch in &args.batch {
            let names: &[&str] = match args.training {
                true => &[
                    "ours-training",
                    "ours-bf16-training",
                    "eager-training",
                    "dit-training",
                ],
                false => &["ours", "ours-bf16", "eager", "compiled", "dit"],
            };
            let served = |name: &&str| !name.contains("bf16") || ours.cpu.multiplies_bfloat16();
            let chosen = |name: &&str| {
                let kind = name.trim_end_matches("-training");
                kind.starts_with("ours")
                    || args.only.is_empty()
                    || args.only.iter().any(|o| o == kind)
            };
            let names = names.iter().copied().filter(chosen).filter(served);
            let names: Vec<&str> = names.collect();
            // The first call of each is not counted: compilation, allocation, caches.
            let mut times = vec![Vec::new(); names.len()];
            for round in 0..=args.rounds {
                for (&name, times) in names.iter().zip(&mut times) {
                    let seconds = match name.strip_prefix("ours") {
                        Some(kind) => ours.time(kind, batch)?,
                        None => peer.time(name, batch, threads)?,
                    };
                    if round > 0 {
                        times.push(seconds);
                    }
                }
            }
            let medians: Vec<f64> = times.iter().map(|t| median(t)).collect();
            println!("batch {batch}, {threads} threads");
            for (name, &seconds) in names.iter().zip(&medians) {
                println!(
                    "  {name:<16} {:>9.1} ms   {:>6.2} times ours",
                    1e3 * seconds,
                    seconds / medians[0]
                );
            }
            all.push(json!({
                "threads": threads, "batch": batch, "names": names, "seconds": times,
            }));
        }
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&json!({
            "processor": processor, "level": level.name(), "torch": peer.version,
            "capability": peer.capability, "runs": all,
        }))?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(true)
}

/// The processor's own name, where the system tells it.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find_map(|(key, value)| (key.trim() == name).then(|| value.trim().to_owned()))
    };
    match (field("model name"), field("cpu family"), field("model")) {
        (Some(name), Some(family), Some(model)) => {
            format!("{name}, family {family}, model {model}")
        }
        (Some(name), ..) => name,
        _ => format!("a processor of {}", std::env::consts::ARCH),
    }
}

/// What holds PyTorch and its libraries to an instruction set; nothing where that is the best there is.
fn held_to(level: Level) -> &'static [(&'static str, &'static str)] {
    match level {
        Level::Avx2 => &[
            ("ATEN_CPU_CAPABILITY", "avx2"),
            ("MKL_ENABLE_INSTRUCTIONS", "AVX2"),
            ("ONEDNN_MAX_CPU_ISA", "AVX2"),
        ],
        Level::Portable => &[
            ("ATEN_CPU_CAPABILITY", "default"),
            ("MKL_ENABLE_INSTRUCTIONS", "SSE4_2"),
            ("ONEDNN_MAX_CPU_ISA", "SSE41"),
        ],
        Level::Avx512 | Level::Neon => &[],
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// A virtual environment with PyTorch, made once.
fn environment() -> Result<PathBuf> {
    let python = Path::new(VENV).join("bin/python");
    if python.exists() {
        return Ok(python);
    }
    println!("making {VENV} with {}", PACKAGES.join(", "));
    let run = |program: &Path, args: &[&str]| -> Result<()> {
        let status = Command::new(program)
            .args(args)
            .status()
            .with_context(|| format!("cannot run {}", program.display()))?;
        ensure!(
            status.success(),
            "{} {}: {status}",
            program.display(),
            args.join(" ")
        );
        Ok(())
    };
    run(Path::new("python3"), &["-m", "venv", VENV])?;
    let install = ["-m", "pip", "install", "--quiet"];
    let outcome = run(&python, &[&install[..], &PACKAGES].concat());
    if outcome.is_err() {
        // A half-made environment would be taken for a whole one next time.
        let _ = std::fs::remove_dir_all(VENV);
    }
    outcome.map(|()| python)
}

/// The process that runs PyTorch.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    version: String,
    /// The instruction set that it says it uses.
    capability: String,
}

impl Peer {
    fn start(python: &Path) -> Result<Self> {
        let mut child = Command::new(python)
            .args(["-c", PEER])
            .envs(held_to(level()).iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", python.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{}: no pipes", python.display());
        };
        let mut peer = Self {
            child,
            input,
            output: BufReader::new(output),
            version: String::new(),
            capability: String::new(),
        };
        let hello = peer.line()?;
        peer.version = hello["torch"]
            .as_str()
            .unwrap_or("of unknown version")
            .into();
        let capability = hello["capability"].as_str();
        peer.capability = capability.unwrap_or("instruction set unknown").into();
        Ok(peer)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).context("PyTorch's side ended; its reason is above")
    }

    fn time(&mut self, name: &str, batch: usize, threads: usize) -> Result<f64> {
        writeln!(self.input, "{name} {batch} {threads}")?;
        self.input.flush()?;
        self.line()?["seconds"].as_f64().context("no seconds")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends by itself when its input does; this is for when it hangs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// DiS-S/2 here.
struct Ours {
    cpu: Cpu,
    model: DisModel,
    weights: Vec<f32>,
    /// Of float32 and of bfloat16, each for a batch size.
    trainers: [Option<(usize, Trainer<Cpu>)>; 2],
}

impl Ours {
    fn new(threads: usize) -> Result<Self> {
        let model = DisModel::new(DisConfig::zoo("DiS-S/2", 32, 3)?)?;
        Ok(Self {
            cpu: Cpu::with_threads(threads)?,
            weights: model.table().initial(0),
            model,
            trainers: [None, None],
        })
    }

    fn time(&mut self, kind: &str, batch: usize) -> Result<f64> {
        let mut image = vec![0.0; batch * 3 * 32 * 32];
        Stream::new(0, Purpose::Test, 0, 0).fill_normal(&mut image);
        let precision = match kind.starts_with("-bf16") {
            true => Precision::Bfloat16,
            false => Precision::Float32,
        };
        let cpu = self.cpu.clone().with_precision(precision);
        if kind.ends_with("-training") {
            return self.train(cpu, batch, image);
        }
        let (mut params, image) = (cpu.from_f32(&self.weights), cpu.from_f32(&image));
        cpu.prepare_weights(&mut params, self.model.table().products())?;
        let input = ModelInput {
            image: &image,
            t: &vec![500.0; batch],
            condition: Condition::None,
            drop_path: None,
        };
        let start = Instant::now();
        cpu.install(|| self.model.forward(Ctx::new(&cpu, &params), &input))?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn train(&mut self, cpu: Cpu, batch: usize, image: Vec<f32>) -> Result<f64> {
        let trainer = &mut self.trainers[usize::from(cpu.precision() == Precision::Bfloat16)];
        if trainer.as_ref().is_none_or(|(size, _)| *size != batch) {
            let config = TrainConfig {
                batch_size: batch,
                ..TrainConfig::default()
            };
            let diffusion = GaussianDiffusion::new(&Default::default())?;
            let state = TrainState::new(self.weights.clone());
            let new = Trainer::new(cpu.clone(), self.model.clone(), diffusion, config, &state)?;
            *trainer = Some((batch, new));
        }
        let Some((_, trainer)) = trainer else {
            bail!("no trainer");
        };
        let shape = ImageShape::from([3, 32, 32]);
        let pixels = grid::to_bytes(&image);
        let data = MemoryDataset::new("noise", shape, u8::MAX, pixels, None, Vec::new())?;
        let data = load_batch(&data, &LoaderOptions::new(0, batch), 0)?;
        let start = Instant::now();
        cpu.install(|| trainer.step(&data))?;
        Ok(start.elapsed().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn lists_are_taken_as_help_shows_them() {
        for line in [
            "bench --against pytorch --threads 1 2 --batch 1 8 --only eager dit",
            "bench --against pytorch --threads 1,2 --batch 1,8 --only eager,dit",
        ] {
            let args = Line::try_parse_from(line.split(' ')).unwrap().args;
            assert_eq!((args.threads, args.batch), (vec![1, 2], vec![1, 8]));
            assert_eq!(args.only, ["eager", "dit"]);
        }
    }
}
