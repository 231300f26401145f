//! Project tasks, one file each.

mod bench;
mod digits;
mod documents;
mod emoji;
mod golden;
mod gpu_day;
mod kernels;
mod libraries;
mod licences;
mod parity;
mod samplers;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Project tasks")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs the first example of every library's front page, in an empty crate elsewhere.
    FrontPages(libraries::Args),
    /// Runs every example of every library.
    Examples(libraries::Args),
    /// Packs every library and builds it from its package.
    Packages(libraries::Args),
    /// Runs golden sets: recomputes what their manifests store and compares.
    Golden(golden::Args),
    /// Compares a GPU, or the simulator of one, with the CPU and with float64.
    Parity(parity::Args),
    /// Changes the GPU kernels on purpose: parity must notice.
    Mutants(parity::mutants::Args),
    /// Lints and assembles the GPU kernels, and holds them to their budget.
    Kernels(kernels::Args),
    /// Times whole models beside equivalents in PyTorch, in one run.
    Bench(bench::Args),
    /// Holds the licence of every crate that is built against a list.
    Licences(licences::Args),
    /// Measures and records all that only hardware can say.
    GpuDay(gpu_day::Args),
    /// Judges samples of a digits model against the real digits.
    DigitsCheck(digits::Args),
    /// Makes a folder of colour pictures from the npm package emoji-datasource-google.
    Emoji(emoji::Args),
    /// Compares all samplers on a digits model, for docs/results.md.
    SamplerTable(samplers::Args),
}

fn main() -> ExitCode {
    let outcome = match Args::parse().task {
        Task::FrontPages(args) => libraries::run_front_pages(&args),
        Task::Examples(args) => libraries::run_examples(&args),
        Task::Packages(args) => libraries::run_packages(&args),
        Task::Golden(args) => golden::run(&args),
        Task::Parity(args) => parity::run(&args),
        Task::Mutants(args) => parity::mutants::run(&args),
        Task::Kernels(args) => kernels::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Licences(args) => licences::run(&args),
        Task::GpuDay(args) => gpu_day::run(&args),
        Task::DigitsCheck(args) => digits::run(&args),
        Task::Emoji(args) => emoji::run(&args),
        Task::SamplerTable(args) => samplers::run(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
