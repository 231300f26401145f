//! The description of a study, as in its file.

use std::path::Path;

use dis_files::FileError;
use dis_train::ConfigError;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::{Result, StudyError};

/// A study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyConfig {
    /// Heading of the report.
    pub title: String,
    /// How the axes are crossed.
    #[serde(default)]
    pub design: Design,
    /// Seeds of every variant: of weights, data order and noise.
    pub seeds: Vec<u64>,
    /// How samples are judged.
    pub evaluate: Evaluate,
    /// What is varied.
    pub axis: Vec<Axis>,
    /// A run configuration: what every run has in common.
    pub base: Table,
}

/// How axes are crossed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Design {
    /// One axis at a time, the others as in the base.
    #[default]
    OneFactor,
    /// Every combination.
    Product,
}

/// What is varied: either a key and its values, or named cases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// Name in the report.
    pub name: String,
    /// Key of the run configuration, such as `model.patch_size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its values; each is a case named after itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Value>,
    /// Cases that set several keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cases: Vec<Case>,
    /// What is claimed of it, with its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// The claim in figures: names of cases, from the one that should have the smallest Frechet
    /// distance to the one with the largest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub best_first: Vec<String>,
}

/// A case of an axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Name in the report.
    pub name: String,
    /// Keys of the run configuration and their values; none for the base itself.
    #[serde(default)]
    pub set: Table,
}

/// `[evaluate]`: when samples are drawn, how, and what they are compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// Steps between evaluations; the last step is always one.
    pub every: u64,
    /// Images, classes in turn.
    pub samples: usize,
    /// What they are compared with, a data specification; what is trained on when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What is compared: `pixels`, the default, or `classifier:FILE`, the features of a classifier of
    /// `dis train-classifier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<String>,
    /// Images of the reference, evenly chosen: distances cost samples x references.
    #[serde(default = "reference_limit")]
    pub reference_limit: usize,
    /// Sampler, as in `dis sample`.
    #[serde(default = "sampler")]
    pub sampler: String,
    /// Spacing of its steps.
    #[serde(default = "spacing")]
    pub spacing: String,
    /// Its steps.
    #[serde(default = "steps")]
    pub steps: usize,
    /// Guidance scale; 1 is none.
    #[serde(default = "cfg_scale")]
    pub cfg_scale: f64,
    /// Seed of the noise, the same for all runs.
    #[serde(default)]
    pub seed: u64,
    /// Neighbours asked for class and coverage.
    #[serde(default = "neighbours")]
    pub neighbours: usize,
    /// Images at a time; does not change them.
    #[serde(default = "batch_size")]
    pub batch_size: usize,
}

fn reference_limit() -> usize {
    2000
}
fn sampler() -> String {
    "dpmpp-2m".into()
}
fn spacing() -> String {
    "karras".into()
}
fn steps() -> usize {
    10
}
fn cfg_scale() -> f64 {
    1.0
}
fn neighbours() -> usize {
    5
}
fn batch_size() -> usize {
    125
}

impl StudyConfig {
    /// Parses a file's text; `origin` names it in errors.
    ///
    /// # Errors
    /// With the line of what cannot be read, or the key of what makes no sense.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let config: Self = ConfigError::parse(text, origin)?;
        config.check().map_err(|what| ConfigError {
            origin: Some(origin.to_string()),
            what,
        })?;
        Ok(config)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// As [`StudyConfig::parse`], and if the file cannot be read.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(FileError::io(path, "read it"))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// As TOML.
    ///
    /// # Errors
    /// If a value has no form in TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| StudyError::config(e.to_string()))
    }

    fn check(&self) -> std::result::Result<(), String> {
        let mut seeds = self.seeds.clone();
        seeds.sort_unstable();
        seeds.dedup();
        if seeds.is_empty() || seeds.len() != self.seeds.len() {
            return Err("seeds: there must be at least one, and none twice".into());
        }
        let e = &self.evaluate;
        for (key, value) in [
            ("every", e.every),
            ("samples", e.samples.saturating_sub(1) as u64),
            (
                "reference_limit",
                e.reference_limit.saturating_sub(1) as u64,
            ),
            ("steps", e.steps as u64),
            ("neighbours", e.neighbours as u64),
            ("batch_size", e.batch_size as u64),
        ] {
            if value == 0 {
                return Err(format!("evaluate.{key} is too small"));
            }
        }
        for axis in &self.axis {
            axis.check()?;
        }
        Ok(())
    }
}

impl Axis {
    fn check(&self) -> std::result::Result<(), String> {
        let name = &self.name;
        let cases = self.all_cases();
        if cases.len() < 2 {
            return Err(format!("axis {name:?} has fewer than two cases"));
        }
        if self.key.is_some() == self.values.is_empty()
            || self.key.is_some() != self.cases.is_empty()
        {
            return Err(format!(
                "axis {name:?} needs either key and values, or cases"
            ));
        }
        for (i, case) in cases.iter().enumerate() {
            if cases[..i].iter().any(|other| other.name == case.name) {
                return Err(format!("axis {name:?} has case {:?} twice", case.name));
            }
        }
        match self
            .best_first
            .iter()
            .find(|best| cases.iter().all(|case| case.name != **best))
        {
            Some(best) => Err(format!("axis {name:?} has no case {best:?} (best_first)")),
            None if self.best_first.len() == 1 => Err(format!(
                "axis {name:?}: best_first orders at least two cases"
            )),
            None => Ok(()),
        }
    }

    /// Its cases, whichever way they are given.
    pub fn all_cases(&self) -> Vec<Case> {
        let Some(key) = &self.key else {
            return self.cases.clone();
        };
        let case = |value: &Value| Case {
            name: match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            },
            set: [(key.clone(), value.clone())].into_iter().collect(),
        };
        self.values.iter().map(case).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "title = \"t\"\nseeds = [0]\n[evaluate]\nevery = 5\nsamples = 10\n[base]\n";

    #[test]
    fn mistakes_are_named() {
        let axis = |text: &str| format!("{HEAD}[[axis]]\nname = \"a\"\n{text}");
        for (text, part) in [
            (HEAD.replace("[0]", "[]"), "seeds"),
            (HEAD.replace("[0]", "[3, 3]"), "seeds"),
            (HEAD.replace("every = 5", "every = 0"), "evaluate.every"),
            (
                HEAD.replace("samples = 10", "samples = 1"),
                "evaluate.samples",
            ),
            (HEAD.replace("every", "evry"), "evry"),
            (axis("key = \"train.lr\"\nvalues = [1]"), "two cases"),
            (axis("values = [1, 2]"), "two cases"),
            (
                axis("key = \"train.lr\"\nvalues = [1, 2]\ncases = [{ name = \"x\" }]"),
                "either",
            ),
            (axis("key = \"train.lr\"\nvalues = [1, 1]"), "twice"),
            (
                axis("key = \"train.lr\"\nvalues = [1, 2]\nbest_first = [\"1\", \"3\"]"),
                "\"3\"",
            ),
        ] {
            let text = if text.contains("[[axis]]") {
                text
            } else {
                format!("{text}[[axis]]\nname = \"a\"\nkey = \"train.lr\"\nvalues = [1, 2]\n")
            };
            let message = StudyConfig::parse(&text, "s.toml").unwrap_err().to_string();
            assert!(
                message.starts_with("s.toml: ") && message.contains(part),
                "{message}"
            );
        }
    }
}
