//! The `dis` command: train, sample, judge and inspect DiS models.

// They panic where nobody reads; see `say`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod bundled;
mod classifier;
mod command;
mod convert;
mod data;
mod decode;
mod device;
mod drawing;
mod encode;
mod eval;
mod info;
mod interrupt;
mod json;
mod memory;
mod places;
mod progress;
mod sample;
mod say;
mod study;
mod train;
mod verify;

use std::process::ExitCode;

use anyhow::Context;
use clap::FromArgMatches;
use clap::error::{ContextKind, ContextValue};

use args::{Cli, Command};

fn main() -> ExitCode {
    let parsed = command::command().try_get_matches();
    let parsed = parsed.unwrap_or_else(|error| best_first(error).exit());
    let cli = Cli::from_arg_matches(&parsed).unwrap_or_else(|error| error.exit());
    if cli.quiet {
        say::be_quiet();
    }
    init_logs(cli.verbose);
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            say::complaint(format_args!("error: {}", one_line(&error)));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Train(args) => train::run(args),
        Command::Sample(args) => sample::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Eval(args) => eval::run(&args).map(|()| ExitCode::SUCCESS),
        Command::TrainClassifier(args) => classifier::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Info(args) => info::run(args).map(|()| ExitCode::SUCCESS),
        Command::Convert(args) => convert::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Data(args) => data::run(&args),
        Command::Encode(args) => encode::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Study(args) => study::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command::command(), "dis", &mut script);
            let script = String::from_utf8(script).context("the script is no text")?;
            say!("{}", script.trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { out } => {
            std::fs::create_dir_all(&out)
                .and_then(|()| clap_mangen::generate_to(command::command(), &out))
                .with_context(|| format!("cannot write manual pages to {}", out.display()))?;
            say!(
                "manual pages in {}; man {}/dis.1 shows the first",
                out.display(),
                out.display()
            )?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Of commands that are like a misspelt one clap names the most like last.
fn best_first(mut error: clap::Error) -> clap::Error {
    let alike = ContextKind::SuggestedSubcommand;
    if let Some(ContextValue::Strings(names)) = error.get(alike) {
        let names = names.iter().rev().cloned().collect();
        error.insert(alike, ContextValue::Strings(names));
    }
    error
}

/// Logs go to stderr; `RUST_LOG` chooses which, or how often `--verbose` was said.
fn init_logs(verbose: u8) {
    let usual = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(usual));
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
