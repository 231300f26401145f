//! The `dis` command: train, sample, judge and inspect DiS models.

// They panic where nobody reads; see `say`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod bundled;
mod classifier;
mod convert;
mod data;
mod decode;
mod device;
mod drawing;
mod encode;
mod eval;
mod info;
mod interrupt;
mod memory;
mod places;
mod progress;
mod sample;
mod say;
mod study;
mod train;

use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command};

fn main() -> ExitCode {
    let parsed = args::with_negative_values(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&parsed).unwrap_or_else(|error| error.exit());
    init_logs();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            note!("error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Train(args) => train::run(args),
        Command::Sample(args) => sample::run(args).map(|()| ExitCode::SUCCESS),
        Command::Eval(args) => eval::run(&args).map(|()| ExitCode::SUCCESS),
        Command::TrainClassifier(args) => classifier::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Info(args) => info::run(args).map(|()| ExitCode::SUCCESS),
        Command::Convert(args) => convert::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Data(args) => data::run(&args),
        Command::Encode(args) => encode::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Study(args) => study::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "dis", &mut script);
            let script = String::from_utf8(script).context("the script is no text")?;
            say!("{}", script.trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Logs go to stderr; `RUST_LOG` chooses which.
fn init_logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// The chain of causes as one line, without what a message already says.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string().replace('\n', " ");
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
    }
    line
}
