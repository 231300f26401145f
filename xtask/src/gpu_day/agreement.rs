//! Step "parity": the task of that name on the device, with its recorded runs out of this executable.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

use super::Day;
use super::device::Kind;
use super::section::{Section, Table};
use crate::parity;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../../tests/golden/", $name)))),*]
    };
}

/// What the recorded training and sampling runs need of tests/golden.
const RECORDED: &[(&str, &[u8])] = files![
    "train_digits_data.json",
    "train_digits_data.safetensors",
    "train_digits_init.safetensors",
    "sampling_loops_cond10_rgb_p2.json",
    "sampling_loops_cond10_rgb_p2.safetensors",
    "dis_cond10_rgb_p2.safetensors",
];

/// The other task's arguments, as typed.
#[derive(Parser)]
struct Typed {
    #[command(flatten)]
    args: parity::Args,
}

fn write_recorded(folder: &Path) -> Result<()> {
    for (name, bytes) in RECORDED {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Families of a short run.
const QUICK: [&str; 2] = ["tables", "optimizer"];

/// Runs the step.
pub fn run(day: &Day) -> Result<Section> {
    let folder = tempfile::tempdir()?;
    write_recorded(folder.path())?;
    let device = match day.device {
        Kind::Cuda => "cuda",
        Kind::Sim => "sim",
    };
    let filters: Vec<Option<&str>> = if day.quick {
        QUICK.iter().map(|&family| Some(family)).collect()
    } else {
        vec![None]
    };
    let mut section = Section::default();
    let mut table = Table::new(&["output", "cases", "device", "CPU", "of allowed"]);
    let mut runs = Vec::new();
    for filter in filters {
        let json_path = folder.path().join("parity-report");
        let mut typed: Vec<String> = vec!["parity".into(), "--device".into(), device.into()];
        typed.extend(["--seed".into(), day.seed.to_string()]);
        typed.extend(["--json".into(), json_path.display().to_string()]);
        typed.extend(["--golden".into(), folder.path().display().to_string()]);
        if let Some(family) = filter {
            typed.extend(["--filter".into(), family.into()]);
        }
        let args = Typed::try_parse_from(&typed).context("the arguments of parity")?;
        let agreed = parity::run(&args.args)?;
        let text = std::fs::read_to_string(&json_path).context("the report of parity")?;
        let report: Value = serde_json::from_str(&text)?;
        let before = section.failures.len();
        summarise(&report, &mut table, &mut section)?;
        if !agreed && section.failures.len() == before {
            section.failures.push("parity says it failed".into());
        }
        runs.push(report);
    }
    section.notes.push(
        "Errors are relative to the largest magnitude of an output, against float64; `cargo xtask \
         parity` says what is allowed. Every case is in the JSON file."
            .into(),
    );
    section.tables.push(table);
    section.data = json!(runs);
    Ok(section)
}

/// A line for each output: the worst over its cases.
fn summarise(report: &Value, table: &mut Table, section: &mut Section) -> Result<()> {
    let cases = report["cases"].as_array().context("no cases")?;
    ensure!(!cases.is_empty(), "no case was run");
    let mut worst: std::collections::BTreeMap<String, (usize, [f64; 3])> = Default::default();
    for case in cases {
        let word = |key: &str| case[key].as_str().unwrap_or_default().to_string();
        if let Some(error) = case["error"].as_str() {
            let (family, case) = (word("family"), word("case"));
            section.failures.push(format!("{family} {case}: {error}"));
            continue;
        }
        for output in case["outputs"].as_array().into_iter().flatten() {
            // JSON has no NaN: what is not a number is as far off as can be.
            let number = |key: &str| output[key].as_f64().unwrap_or(f64::INFINITY);
            let name = output["output"].as_str().unwrap_or_default();
            let (family, device) = (word("family"), number("device"));
            let entry = worst.entry(format!("{family}: {name}")).or_default();
            let share = device / number("tolerance");
            entry.0 += 1;
            for (most, one) in entry.1.iter_mut().zip([device, number("cpu"), share]) {
                *most = most.max(one);
            }
            if output["passed"].as_bool() != Some(true) {
                let case = word("case");
                let what = format!("{family} {name}, {case}: {device:.2e}, {share:.2} of allowed");
                section.failures.push(what);
            }
        }
    }
    for (name, (cases, [device, cpu, share])) in worst {
        table.push([
            name,
            cases.to_string(),
            format!("{device:.2e}"),
            format!("{cpu:.2e}"),
            format!("{:.0}%", 100.0 * share),
        ]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::write_recorded;
    use crate::golden;
    use dis_tensor::Cpu;

    /// In a folder that holds nothing else, as on a machine without the repository.
    #[test]
    fn recorded_runs_are_complete() {
        let folder = tempfile::tempdir().unwrap();
        write_recorded(folder.path()).unwrap();
        let cpu = Cpu::with_threads(1).unwrap();
        for kind in ["training_replay", "sampling_loops"] {
            let lines = golden::first_of(folder.path(), kind, &cpu).unwrap();
            assert!(!lines.is_empty());
            for (name, error, tolerance) in lines {
                assert!(error <= tolerance, "{kind} {name}: {error} of {tolerance}");
            }
        }
    }
}
