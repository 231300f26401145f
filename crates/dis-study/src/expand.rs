//! From a description to the runs it asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use dis_model::DisConfig;
use toml::{Table, Value};

use super::config::{Case, Design, StudyConfig};
use crate::error::{Result, StudyError};
use dis_data::{DataSpec, Dataset, open};
use dis_train::config::RunConfig;

/// Variants of a product, at most.
const LARGEST: usize = 10_000;

/// One configuration, to be run with every seed.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Name of its folder: letters, digits, dots and hyphens.
    pub name: String,
    /// The resolved configuration; its seed is to be replaced.
    pub config: RunConfig,
    /// The model, or why the configuration makes none and cannot be run.
    pub model: std::result::Result<DisConfig, String>,
}

impl Variant {
    /// The variant with the reason why it cannot be run, if it cannot.
    pub fn refused(&self) -> Option<(&Self, &str)> {
        self.model.as_ref().err().map(|what| (self, what.as_str()))
    }

    /// The configuration of a seed.
    pub fn with_seed(&self, seed: u64) -> RunConfig {
        let mut config = self.config.clone();
        config.train.seed = seed;
        config
    }
}

/// An axis with the variants that stand for its cases.
#[derive(Clone, Debug)]
pub struct GridAxis {
    /// Name in the report.
    pub name: String,
    /// What is claimed of it.
    pub claim: Option<String>,
    /// The claim in figures.
    pub best_first: Vec<String>,
    /// Each case: its name and its variants. Those at the same place of two cases differ in this
    /// axis alone.
    pub cases: Vec<(String, Vec<usize>)>,
}

/// All runs of a study.
#[derive(Clone, Debug)]
pub struct Grid {
    /// What is run.
    pub variants: Vec<Variant>,
    /// How they lie.
    pub axes: Vec<GridAxis>,
    /// Seeds of every variant.
    pub seeds: Vec<u64>,
}

/// Collects variants; configurations that come twice are one.
struct Collector {
    base: Value,
    data: BTreeMap<String, Arc<dyn Dataset>>,
    variants: Vec<Variant>,
}

impl Collector {
    /// The variant with these cases set.
    fn variant(&mut self, name: &str, cases: &[&Case]) -> Result<usize> {
        let mut value = self.base.clone();
        for case in cases {
            for (key, new) in &case.set {
                set(&mut value, key, new)?;
            }
        }
        let mut config: RunConfig = value
            .try_into()
            .map_err(|e: toml::de::Error| explain(name, e.message()))?;
        let spec = config.data.spec.clone();
        let data = match self.data.get(&spec) {
            Some(data) => Arc::clone(data),
            None => {
                let data = open(&spec.parse::<DataSpec>()?)?;
                self.data.insert(spec, Arc::clone(&data));
                data
            }
        };
        let model = config
            .resolve(&*data)
            .map_err(|e| e.to_string().replace('\n', " "));
        if let Some(i) = self.variants.iter().position(|v| v.config == config) {
            return Ok(i);
        }
        let mut unique = name.to_string();
        let mut n = 2;
        while self.variants.iter().any(|v| v.name == unique) {
            unique = format!("{name}-{n}");
            n += 1;
        }
        self.variants.push(Variant {
            name: unique,
            config,
            model,
        });
        Ok(self.variants.len() - 1)
    }
}

fn explain(name: &str, what: &str) -> StudyError {
    StudyError::config(format!("variant {name}: {}", what.replace('\n', " ")))
}

/// Sets a dotted key.
fn set(value: &mut Value, key: &str, new: &Value) -> Result<()> {
    let mut place = value;
    let parts: Vec<&str> = key.split('.').collect();
    for (i, part) in parts.iter().enumerate() {
        let table = place.as_table_mut().ok_or_else(|| {
            StudyError::config(format!(
                "key {key:?}: {:?} is no table",
                parts[..i].join(".")
            ))
        })?;
        let missing = || {
            if i + 1 == parts.len() {
                new.clone()
            } else {
                Value::Table(Table::new())
            }
        };
        place = table.entry(*part).or_insert_with(missing);
    }
    *place = new.clone();
    Ok(())
}

/// A name for a folder.
fn slug(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || c == '.' => out.push(c.to_ascii_lowercase()),
            _ if out.is_empty() || out.ends_with('-') => {}
            _ => out.push('-'),
        }
    }
    out.trim_end_matches('-').to_string()
}

/// Expands the grid. Opens the data sets it names. Of a variant whose settings do not go together the
/// reason takes the model's place.
///
/// # Errors
/// If a section or key does not exist, a value is of another kind, data cannot be opened, or no variant
/// can be run.
pub fn expand(study: &StudyConfig) -> Result<Grid> {
    let mut collector = Collector {
        base: Value::Table(study.base.clone()),
        data: BTreeMap::new(),
        variants: Vec::new(),
    };
    let axes: Vec<Vec<Case>> = study.axis.iter().map(|a| a.all_cases()).collect();
    let cases = match study.design {
        Design::OneFactor => one_factor(study, &axes, &mut collector)?,
        Design::Product => product(study, &axes, &mut collector)?,
    };
    let axes = study.axis.iter().zip(cases).map(|(axis, cases)| GridAxis {
        name: axis.name.clone(),
        claim: axis.claim.clone(),
        best_first: axis.best_first.clone(),
        cases,
    });
    let axes = axes.collect();
    if collector.variants.iter().all(|v| v.model.is_err())
        && let Some((variant, what)) = collector.variants.iter().find_map(Variant::refused)
    {
        return Err(explain(&variant.name, what));
    }
    Ok(Grid {
        variants: collector.variants,
        axes,
        seeds: study.seeds.clone(),
    })
}

type Cases = Vec<(String, Vec<usize>)>;

fn one_factor(
    study: &StudyConfig,
    axes: &[Vec<Case>],
    collector: &mut Collector,
) -> Result<Vec<Cases>> {
    collector.variant("base", &[])?;
    let mut out = Vec::new();
    for (axis, cases) in study.axis.iter().zip(axes) {
        let mut found = Vec::new();
        for case in cases {
            let name = slug(&format!("{} {}", axis.name, case.name));
            found.push((case.name.clone(), vec![collector.variant(&name, &[case])?]));
        }
        out.push(found);
    }
    Ok(out)
}

fn product(
    study: &StudyConfig,
    axes: &[Vec<Case>],
    collector: &mut Collector,
) -> Result<Vec<Cases>> {
    let mut out: Vec<Cases> = axes
        .iter()
        .map(|cases| cases.iter().map(|c| (c.name.clone(), Vec::new())).collect())
        .collect();
    let total = axes
        .iter()
        .try_fold(1usize, |n, cases| n.checked_mul(cases.len()))
        .filter(|&n| n <= LARGEST)
        .ok_or_else(|| StudyError::config(format!("a product of more than {LARGEST} variants")))?;
    for number in 0..total {
        let mut rest = number;
        let mut choice = Vec::new();
        for cases in axes {
            choice.push(rest % cases.len());
            rest /= cases.len();
        }
        let cases: Vec<&Case> = axes.iter().zip(&choice).map(|(c, &i)| &c[i]).collect();
        let names: Vec<String> = (study.axis.iter().zip(&cases))
            .map(|(axis, case)| slug(&format!("{} {}", axis.name, case.name)))
            .collect();
        let name = if names.is_empty() {
            "base".to_string()
        } else {
            names.join("_")
        };
        let variant = collector.variant(&name, &cases)?;
        for (axis, &i) in out.iter_mut().zip(&choice) {
            axis[i].1.push(variant);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study(design: &str) -> StudyConfig {
        let text = format!(
            r#"
title = "t"
design = "{design}"
seeds = [0, 1]
[evaluate]
every = 5
samples = 10
[base.model]
patch_size = 2
embed_dim = 16
depth = 2
[base.data]
spec = "digits"
[base.train]
steps = 10
[[axis]]
name = "patch size"
key = "model.patch_size"
values = [1, 2, 4]
[[axis]]
name = "skip"
key = "model.skip"
values = ["concat", "none"]
[[axis]]
name = "mixer"
cases = [
    {{ name = "mamba" }},
    {{ name = "attention, 3", set = {{ "model.mixer" = "attention", "model.mlp_ratio" = 3 }} }},
]
"#
        );
        StudyConfig::parse(&text, "study").unwrap()
    }

    #[test]
    fn one_factor_shares_the_base() {
        let grid = expand(&study("one_factor")).unwrap();
        let names: Vec<&str> = grid.variants.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "base",
                "patch-size-1",
                "patch-size-4",
                "skip-none",
                "mixer-attention-3"
            ]
        );
        let cases = |i: usize| grid.axes[i].cases.clone();
        assert_eq!(
            cases(0),
            [
                ("1".into(), vec![1]),
                ("2".into(), vec![0]),
                ("4".into(), vec![2])
            ]
        );
        assert_eq!(
            cases(1),
            [("concat".into(), vec![0]), ("none".into(), vec![3])]
        );
        assert_eq!(cases(2)[0], ("mamba".into(), vec![0]));
        assert_eq!(grid.variants[1].model.as_ref().unwrap().patch_size, 1);
        assert_eq!(grid.variants[1].with_seed(7).train.seed, 7);
    }

    /// Variants at one place of two cases differ in that axis alone.
    #[test]
    fn product_has_every_combination_once() {
        let grid = expand(&study("product")).unwrap();
        assert_eq!(grid.variants.len(), 12);
        for axis in &grid.axes {
            let (_, first) = &axis.cases[0];
            for (_, other) in &axis.cases[1..] {
                assert_eq!(first.len(), other.len());
                for (&a, &b) in first.iter().zip(other) {
                    let model = |v: usize| *grid.variants[v].model.as_ref().unwrap();
                    let (mut a, b) = (model(a), model(b));
                    match axis.name.as_str() {
                        "patch size" => a.patch_size = b.patch_size,
                        "skip" => a.skip = b.skip,
                        _ => a.mixer = b.mixer,
                    }
                    assert_eq!(a, b);
                }
            }
        }
    }

    /// Settings that do not go together are those of one variant, unless they are those of all.
    #[test]
    fn a_variant_that_makes_no_model_keeps_its_place() {
        let mut one = study("one_factor");
        one.axis[0].values = vec![3.into(), 2.into()];
        let grid = expand(&one).unwrap();
        let refused: Vec<&str> = (grid.variants.iter())
            .filter_map(Variant::refused)
            .map(|(v, what)| {
                assert!(what.contains("patch_size 3"), "{what}");
                v.name.as_str()
            })
            .collect();
        assert_eq!(refused, ["patch-size-3"]);
        assert_eq!(grid.axes[0].cases[0], ("3".into(), vec![1]));
        let mut all = study("product");
        all.axis[0].values = vec![3.into(), 5.into()];
        let message = expand(&all).unwrap_err().to_string();
        assert!(message.contains("variant patch-size-3"), "{message}");
    }

    #[test]
    fn keys_that_do_not_exist_are_named() {
        for (key, part) in [
            ("train.learning_rate", "learning_rate"),
            ("train.steps.x", "train.steps"),
        ] {
            let mut study = study("one_factor");
            study.axis[0].key = Some(key.into());
            let message = expand(&study).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
