//! A step in a process of its own: after an illegal access a GPU's context is of no use to anyone,
//! and a kernel that never ends ends with its process.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::section::Outcome;
use super::{Day, Step};

/// After this a step is ended.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

/// Runs this executable for one step.
pub fn run(day: &Day, step: Step) -> Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let result = folder.path().join("outcome");
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("gpu-day")
        .args(day.to_args())
        .args(["--step", step.name(), "--outcome"])
        .arg(&result);
    let mut child = command.spawn().context("cannot start a process")?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("ended after {} s", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    match read(&result) {
        Ok(outcome) => Ok(outcome),
        Err(_) => bail!("its process ended with {status} and left no result"),
    }
}

fn read(path: &Path) -> Result<Outcome> {
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

/// Leaves the outcome for the process that started this one.
pub fn leave(path: &Path, outcome: &Outcome) -> Result<()> {
    std::fs::write(path, serde_json::to_string(outcome)?)
        .with_context(|| path.display().to_string())
}
