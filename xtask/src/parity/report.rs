//! Errors by output, as a table and as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// An output of a case: how far the device is off float64, and how far the CPU is, both relative
/// to the largest magnitude of the output.
#[derive(Clone, Debug)]
pub struct Line {
    /// Family of the case.
    pub family: &'static str,
    /// The output.
    pub output: String,
    /// Parameters of the case.
    pub case: String,
    /// Error of the device.
    pub device: f64,
    /// Error of the CPU.
    pub cpu: f64,
    /// Difference of the two.
    pub apart: f64,
    /// What the device may be off.
    pub tolerance: f64,
}

impl Line {
    /// Whether the device is close enough to float64, and so to the CPU too.
    pub fn passed(&self) -> bool {
        self.device <= self.tolerance
    }
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Family.
    pub family: &'static str,
    /// Parameters.
    pub case: String,
    /// Its outputs, or why there are none.
    pub lines: Result<Vec<Line>, String>,
}

/// Prints the table; whether everything passed.
pub fn print(outcomes: &[Outcome]) -> bool {
    let mut table: BTreeMap<(&str, &str), Vec<&Line>> = BTreeMap::new();
    for line in outcomes.iter().flat_map(|o| o.lines.iter().flatten()) {
        table
            .entry((line.family, &line.output))
            .or_default()
            .push(line);
    }
    println!(
        "{:<12} {:<24} {:>6} {:>11} {:>11} {:>11} {:>10}",
        "family", "output", "cases", "device", "cpu", "apart", "of allowed"
    );
    let mut passed = true;
    for ((family, output), lines) in &table {
        let most = |f: &dyn Fn(&Line) -> f64| lines.iter().map(|l| f(l)).fold(0.0, worse);
        let share = most(&|l| {
            if l.device > 0.0 {
                l.device / l.tolerance
            } else {
                0.0
            }
        });
        let failed = lines.iter().filter(|l| !l.passed()).count();
        passed &= failed == 0;
        println!(
            "{family:<12} {output:<24} {:>6} {:>11.2e} {:>11.2e} {:>11.2e} {:>9.0}% {}",
            lines.len(),
            most(&|l| l.device),
            most(&|l| l.cpu),
            most(&|l| l.apart),
            100.0 * share,
            if failed == 0 { "ok" } else { "FAILED" }
        );
        for line in lines.iter().filter(|l| !l.passed()).take(4) {
            println!(
                "    {}: {:.2e} of {:.2e} allowed (cpu {:.2e}, apart {:.2e})",
                line.case, line.device, line.tolerance, line.cpu, line.apart
            );
        }
    }
    for outcome in outcomes {
        if let Err(error) = &outcome.lines {
            passed = false;
            println!("{:<12} {}: FAILED: {error}", outcome.family, outcome.case);
        }
    }
    passed
}

/// The larger; not a number is larger than all.
pub fn worse(a: f64, b: f64) -> f64 {
    if b.is_nan() || b > a { b } else { a }
}

/// Everything, for files.
pub fn to_json(device: &str, seed: u64, outcomes: &[Outcome], uncovered: &[String]) -> Value {
    let cases: Vec<Value> = outcomes
        .iter()
        .map(|outcome| match &outcome.lines {
            Ok(lines) => {
                let outputs: Vec<Value> = lines
                    .iter()
                    .map(|l| {
                        json!({
                            "output": l.output, "device": l.device, "cpu": l.cpu,
                            "apart": l.apart, "tolerance": l.tolerance, "passed": l.passed(),
                        })
                    })
                    .collect();
                json!({ "family": outcome.family, "case": outcome.case, "outputs": outputs })
            }
            Err(error) => {
                json!({ "family": outcome.family, "case": outcome.case, "error": error })
            }
        })
        .collect();
    json!({ "device": device, "seed": seed, "cases": cases, "uncovered": uncovered })
}
