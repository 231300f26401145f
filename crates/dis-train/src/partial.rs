//! A configuration of which parts may be missing, to be laid over another one.

use std::path::Path;

use dis_files::FileError;
use dis_model::Metadata;
use dis_model::checkpoint::config_to_json;
use toml::{Table, Value};

use crate::config::{PRESETS, RunConfig};
use crate::error::{ConfigError, Result, TrainError};

/// What a file or preset says, and no more.
#[derive(Clone, Debug, Default)]
pub struct Partial {
    table: Table,
}

impl Partial {
    /// Of a file's text; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`RunConfig::parse`].
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        // For its refusals.
        RunConfig::parse(text, origin)?;
        let table = ConfigError::parse(text, origin)?;
        Ok(Self { table })
    }

    /// Of a file.
    ///
    /// # Errors
    /// A file that cannot be read, and as [`RunConfig::parse`].
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(FileError::io(path, "read it"))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// A built-in configuration.
    ///
    /// # Errors
    /// No preset of this name.
    pub fn preset(name: &str) -> Result<Self> {
        let Some((_, text)) = PRESETS.iter().find(|(n, _)| *n == name) else {
            let names: Vec<&str> = PRESETS.iter().map(|(n, _)| *n).collect();
            return Err(TrainError::config(format!(
                "no preset {name:?}; there are {}",
                names.join(", ")
            )));
        };
        Self::parse(text, &format!("preset {name}"))
    }

    /// Whether it says what is trained and how, so that nothing has to be planned.
    pub fn is_whole(&self) -> bool {
        ["model", "train"]
            .iter()
            .all(|name| self.table.contains_key(*name))
    }

    /// Whether it has this key.
    pub fn says(&self, section: &str, key: &str) -> bool {
        let section = self.table.get(section).and_then(Value::as_table);
        section.is_some_and(|section| section.contains_key(key))
    }

    /// With the architecture and the diffusion of a checkpoint that a run begins with, where nothing else is
    /// said of them. Sizes and classes stay those of the data.
    ///
    /// # Errors
    /// A checkpoint whose metadata describe no diffusion that there is.
    pub fn or_of(mut self, metadata: &Metadata) -> Result<Self> {
        let mut model = config_to_json(&metadata.model);
        for of_data in ["image_size", "channels", "num_classes", "null_label"] {
            model.remove(of_data);
        }
        let table = |e: toml::ser::Error| TrainError::config(e.to_string());
        if !self.table.contains_key("model") {
            self.table
                .insert("model".into(), Value::try_from(model).map_err(table)?);
        }
        let diffusion = metadata.extra.get("diffusion");
        if let Some(diffusion) = diffusion.filter(|_| !self.table.contains_key("diffusion")) {
            let diffusion = Value::try_from(diffusion).map_err(table)?;
            self.table.insert("diffusion".into(), diffusion);
        }
        Ok(self)
    }

    /// Without a key.
    #[must_use]
    pub fn without(mut self, section: &str, key: &str) -> Self {
        if let Some(section) = self.table.get_mut(section).and_then(Value::as_table_mut) {
            section.remove(key);
        }
        self
    }

    /// The configuration that it is, with the usual values where it says nothing.
    ///
    /// # Errors
    /// None that [`Partial::parse`] has not refused.
    pub fn config(&self) -> Result<RunConfig> {
        read(self.table.clone())
    }

    /// `base` with what this says in place of its own.
    ///
    /// # Errors
    /// A base that TOML cannot say.
    pub fn over(&self, base: &RunConfig) -> Result<RunConfig> {
        let mut table = Table::try_from(base).map_err(|e| TrainError::config(e.to_string()))?;
        for (name, section) in &self.table {
            match (table.get_mut(name).and_then(Value::as_table_mut), section) {
                (Some(base), Value::Table(own)) => {
                    base.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
                }
                _ => {
                    table.insert(name.clone(), section.clone());
                }
            }
        }
        read(table)
    }
}

fn read(table: Table) -> Result<RunConfig> {
    let config = table.try_into::<RunConfig>();
    config.map_err(|e| TrainError::config(e.message().replace('\n', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_lies_over_what_is_not() {
        let text = "[model]\ndepth = 6\n[sample]\nsteps = 9\n";
        let partial = Partial::parse(text, "run.toml").unwrap();
        assert!(!partial.is_whole() && partial.says("model", "depth"));
        let base = RunConfig::preset("digits").unwrap();
        let config = partial.over(&base).unwrap();
        assert_eq!(
            (config.model["depth"].as_u64(), config.sample.steps),
            (Some(6), 9)
        );
        // All else is the base's.
        let mut same = config.clone();
        same.model
            .insert("depth".into(), base.model["depth"].clone());
        same.sample.steps = base.sample.steps;
        assert_eq!(same, base);
        let less = partial.without("model", "depth").over(&base).unwrap();
        assert_eq!(less.model, base.model);
    }

    #[test]
    fn a_whole_file_is_itself() {
        for (name, _) in PRESETS {
            let partial = Partial::preset(name).unwrap();
            assert!(partial.is_whole());
            assert_eq!(partial.config().unwrap(), RunConfig::preset(name).unwrap());
        }
        assert!(Partial::parse("[train]\nstep = 5\n", "run.toml").is_err());
    }
}
