//! What was measured.

use serde::Serialize;

use crate::metrics::Interval;

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Name, as in `--metrics` or a part of it.
    pub name: &'static str,
    /// Whether better samples have a higher one (`up`), a lower one (`down`), or neither.
    pub better: &'static str,
    /// Its value.
    pub value: f64,
    /// How far it would vary with other samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Standard deviation over splits or subsets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// What is to be known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Figure {
    /// A figure without more.
    pub fn new(name: &'static str, better: &'static str, value: f64) -> Self {
        Self {
            name,
            better,
            value,
            interval: None,
            std: None,
            note: None,
        }
    }
}

/// A metric that could not be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Name, as in `--metrics`.
    pub metric: &'static str,
    /// Why.
    pub why: String,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The figures, in order of the metrics.
    pub figures: Vec<Figure>,
    /// What is missing.
    pub left_out: Vec<LeftOut>,
    /// What makes figures doubtful.
    pub warnings: Vec<String>,
}

impl Report {
    /// The value of a figure.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.figure(name).map(|f| f.value)
    }

    /// A figure by name.
    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|f| f.name == name)
    }
}

/// A number with about five digits.
fn short(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if value == 0.0 => "0".into(),
        s if s >= 1000.0 => format!("{value:.1}"),
        s if s >= 10.0 => format!("{value:.3}"),
        s if s >= 0.001 => format!("{value:.5}"),
        _ => format!("{value:.2e}"),
    }
}

/// A table for people.
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{:<14} {:>11}  {:<25} better",
            "metric", "value", "interval or spread"
        )?;
        for figure in &self.figures {
            let spread = match (&figure.interval, figure.std) {
                (Some(i), _) => format!("{} to {}", short(i.low), short(i.high)),
                (None, Some(std)) => format!("deviation {}", short(std)),
                (None, None) => "-".into(),
            };
            let note = figure.note.as_deref().map(|n| format!("  {n}"));
            writeln!(
                f,
                "{:<14} {:>11}  {spread:<25} {:<6}{}",
                figure.name,
                short(figure.value),
                figure.better,
                note.unwrap_or_default()
            )?;
        }
        for LeftOut { metric, why } in &self.left_out {
            writeln!(f, "left out: {metric}: {why}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}
