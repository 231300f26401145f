//! What a step of the day found, in a form that both files and processes can pass on.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A table for people; the same numbers are in [`Section::data`] for programs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Table {
    /// Column heads.
    pub head: Vec<String>,
    /// Cells.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|&cell| cell.into()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().collect());
    }
}

/// The findings of a step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Section {
    /// Said before the tables.
    pub notes: Vec<String>,
    /// For people.
    pub tables: Vec<Table>,
    /// Numbers, for programs.
    pub data: Value,
    /// What was looked at and found wrong.
    pub failures: Vec<String>,
}

/// What came of a step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub step: String,
    /// How long it took.
    pub seconds: f64,
    /// What it found.
    pub section: Option<Section>,
    /// Why it found nothing.
    pub error: Option<String>,
}

impl Outcome {
    /// Of a step that has run.
    pub fn of(step: &str, seconds: f64, result: Result<Section>) -> Self {
        let (section, error) = match result {
            Ok(section) => (Some(section), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        Self {
            step: step.into(),
            seconds,
            section,
            error,
        }
    }

    /// Whether it ran to its end and found nothing wrong.
    pub fn passed(&self) -> bool {
        self.section
            .as_ref()
            .is_some_and(|section| section.failures.is_empty())
    }
}
