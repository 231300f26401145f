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
}

impl MetricsLog {
    /// Opens the log of a run that goes on after `step`: later lines, and a last line that a crash
    /// cut short, are removed, so that every step is there once.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        if path.exists() {
            let kept: String = read_metrics(path)?
                .iter()
                .filter(|line| line["step"].as_u64().is_some_and(|s| s <= step))
                .map(|line| format!("{line}\n"))
                .collect();
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
        })
    }

    /// Writes a line. `seconds` is the time since the run was started or resumed.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(
        &mut self,
        report: &StepReport,
        mean_loss: f64,
        images_per_second: f64,
    ) -> Result<()> {
        let finite = |x: f64| if x.is_finite() { json!(x) } else { Value::Null };
        let mut line = json!({
            "step": report.step,
            "loss": finite(report.loss),
            "mean_loss": finite(mean_loss),
            "grad_norm": finite(report.grad_norm),
            "lr": report.lr,
            "images_per_second": finite((images_per_second * 10.0).round() / 10.0),
        });
        if let Some(mse) = report.mse {
            line["mse"] = finite(mse);
        }
        if let Some(vb) = report.vb {
            line["vb"] = finite(vb);
        }
        if report.skipped {
            line["skipped"] = json!(true);
        }
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        Ok(written.map_err(FileError::io(&self.path, "write to it"))?)
    }
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
