//! `metrics.jsonl`: one JSON object a line.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use dis_files::{FileError, write_atomic};
use serde_json::{Value, json};

use crate::error::Result;
use crate::trainer::StepReport;

/// Appends lines.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    seconds: f64,
}

impl MetricsLog {
    /// Opens the log of a run that goes on after `step`: later lines, and a last line that a crash
    /// cut short, are removed, so that every step is there once.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        let mut seconds = 0.0;
        if path.exists() {
            let mut kept = String::new();
            for line in read_metrics(path)? {
                if line["step"].as_u64().is_some_and(|s| s <= step) {
                    seconds = line["seconds"].as_f64().unwrap_or(seconds);
                    kept.push_str(&format!("{line}\n"));
                }
            }
            write_atomic(path, kept.as_bytes())?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(FileError::io(path, "open it"))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            seconds,
        })
    }

    /// Seconds that the run had taken when the log was opened.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Writes a line of a step.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(
        &mut self,
        report: &StepReport,
        mean_loss: f64,
        images_per_second: f64,
        when: When,
    ) -> Result<()> {
        let mut line = json!({
            "step": report.step,
            "loss": finite(report.loss),
            "mean_loss": finite(mean_loss),
            "grad_norm": finite(report.grad_norm),
            "lr": report.lr,
            "images_per_second": finite((images_per_second * 10.0).round() / 10.0),
        });
        when.put(&mut line);
        if let Some(mse) = report.mse {
            line["mse"] = finite(mse);
        }
        if let Some(vb) = report.vb {
            line["vb"] = finite(vb);
        }
        if report.skipped {
            line["skipped"] = json!(true);
        }
        self.line(&line)
    }

    /// Writes a line of what a look at samples came to.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write_look(&mut self, step: u64, look: &Look, when: When) -> Result<()> {
        let mut line = json!({ "step": step });
        when.put(&mut line);
        if let Some(name) = &look.grid {
            line["grid"] = json!(name);
        }
        if let Some(loss) = look.validation_loss {
            line["validation_loss"] = finite(loss);
        }
        if let Some(distance) = &look.frechet {
            line["frechet"] = finite(distance.value);
            line["frechet_samples"] = json!(distance.samples);
            line["frechet_of"] = json!(distance.of);
        }
        self.line(&line)
    }

    fn line(&mut self, line: &Value) -> Result<()> {
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        Ok(written.map_err(FileError::io(&self.path, "write to it"))?)
    }
}

/// When a line is written.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// Seconds since 1970.
    pub unix: f64,
    /// Seconds that the run has taken, in all its sessions.
    pub seconds: f64,
}

impl When {
    fn put(self, line: &mut Value) {
        let thousandths = |x: f64| finite((x * 1000.0).round() / 1000.0);
        line["time"] = thousandths(self.unix);
        line["seconds"] = thousandths(self.seconds);
    }
}

/// What a look at samples came to.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The grid's file, relative to the run.
    pub grid: Option<String>,
    /// Of the moving average on images that are held out.
    pub validation_loss: Option<f64>,
    /// Of samples to the data.
    pub frechet: Option<Distance>,
}

/// A Frechet distance.
#[derive(Clone, Debug)]
pub struct Distance {
    /// It.
    pub value: f64,
    /// Samples that it is of.
    pub samples: usize,
    /// What was compared.
    pub of: String,
}

fn finite(x: f64) -> Value {
    if x.is_finite() { json!(x) } else { Value::Null }
}

/// All whole lines of a log.
///
/// # Errors
/// A file that cannot be read, a line that is none of metrics.
pub fn read_metrics(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).map_err(FileError::io(path, "read it"))?;
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}
