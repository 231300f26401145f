//! Lines about cases, and the count at the end.

use anyhow::Result;

use super::case::Comparison;

/// Counts of a run.
#[derive(Debug, Default)]
pub struct Report {
    passed: usize,
    failed: usize,
    later: usize,
    verbose: bool,
}

/// Other comparisons of a case that are shown if they failed too.
const SHOWN: usize = 8;

impl Report {
    /// With `verbose`, every comparison has its own line.
    pub fn new(verbose: bool) -> Self {
        Self {
            verbose,
            ..Self::default()
        }
    }

    /// Prints the line of a case. Comparisons come worst first; an error is a failure that came
    /// before they could be made.
    pub fn case(&mut self, kind: &str, name: &str, outcome: &Result<Vec<Comparison>>) {
        match outcome {
            Ok(comparisons) => self.compared(kind, name, comparisons),
            Err(error) => {
                self.failed += 1;
                println!("{kind:<17} {name:<38} FAILED: {error:#}");
            }
        }
    }

    /// Prints the line of a case whose kind is not due yet.
    pub fn later(&mut self, kind: &str, name: &str) {
        self.later += 1;
        println!("{kind:<17} {name:<38} not due yet");
    }

    fn compared(&mut self, kind: &str, name: &str, comparisons: &[Comparison]) {
        let passed = !comparisons.is_empty() && comparisons.iter().all(Comparison::passed);
        match passed {
            true => self.passed += 1,
            false => self.failed += 1,
        }
        let Some(worst) = comparisons.first() else {
            println!("{kind:<17} {name:<38} FAILED: nothing was compared");
            return;
        };
        println!(
            "{kind:<17} {name:<38} {} {}",
            numbers(worst),
            verdict(passed)
        );
        let all = self.verbose;
        let others = comparisons.iter().skip(usize::from(!all));
        let shown = others.filter(|c| all || !c.passed());
        for c in shown.take(if all { usize::MAX } else { SHOWN }) {
            println!("{:56} {} {}", "", numbers(c), verdict(c.passed()));
        }
    }

    /// Prints the count; whether all passed and there was something to pass.
    pub fn close(&self) -> bool {
        let later = match self.later {
            0 => String::new(),
            n => format!(", {n} not due yet"),
        };
        println!("{} passed, {} failed{later}", self.passed, self.failed);
        self.failed == 0 && self.passed > 0
    }
}

fn numbers(c: &Comparison) -> String {
    format!(
        "{:<52} error {:<8.2e} tolerance {:<8.2e}",
        c.name, c.error, c.tolerance
    )
}

fn verdict(passed: bool) -> &'static str {
    if passed { "ok" } else { "FAILED" }
}
