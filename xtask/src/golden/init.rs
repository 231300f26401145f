//! Statistics of a fresh initialisation.
//!
//! The manifest has no tolerance of its own. Constants are exact; minimum and maximum, ours and
//! stored, lie inside the distribution's support; mean and standard deviation agree within five
//! standard errors of the stored sample. Ours come from several seeds where that is affordable, so
//! that their own error hardly counts.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use dis_model::{ConditionKind, DisConfig, DisModel};
use dis_ssm::{Init, ParamSpec, SkipKind};
use dis_tensor::NormKind;
use serde_json::{Map, Value};

use super::case::{Case, number, whole};
use super::config::{model_config, zoo_config};

/// Standard errors that are allowed.
const ALLOWED: f64 = 5.0;
/// Weights to draw at least, by taking more seeds.
const DRAWN: usize = 100_000_000;

/// "init_stats".
pub fn init_stats(case: &Case) -> Result<()> {
    let patterns = case.object("patterns")?;
    let config = config(case, patterns)?;
    if let Some(depth) = case.key("nominal_depth").and_then(Value::as_f64) {
        case.equal("nominal_depth", config.depth as f64, depth);
    }
    let model = DisModel::new(config)?;
    let mut groups: BTreeMap<String, Vec<&ParamSpec>> = BTreeMap::new();
    for spec in model.table().specs() {
        groups.entry(pattern(&spec.name)).or_default().push(spec);
    }
    let ours: BTreeSet<&String> = groups.keys().collect();
    let theirs: BTreeSet<&String> = patterns.keys().collect();
    if let Some(odd) = ours.symmetric_difference(&theirs).next() {
        bail!("parameters {odd:?} are only on one side");
    }
    let seeds = (DRAWN / model.table().parameters().max(1)).clamp(1, 8) as u64;
    let draws: Vec<Vec<f32>> = (0..seeds).map(|seed| model.table().initial(seed)).collect();
    for (name, specs) in &groups {
        group(case, name, specs, &draws, &patterns[name.as_str()]).with_context(|| name.clone())?;
    }
    Ok(())
}

/// A name with its block's number, if any, replaced.
fn pattern(name: &str) -> String {
    let star = |(i, part): (usize, &str)| match part.parse::<usize>() {
        Ok(_) if i == 1 && name.contains("_blocks.") => "*".to_string(),
        _ => part.to_string(),
    };
    name.split('.')
        .enumerate()
        .map(star)
        .collect::<Vec<_>>()
        .join(".")
}

#[derive(Debug)]
struct Moments {
    count: f64,
    mean: f64,
    /// With divisor n - 1.
    std: f64,
    /// Fourth central moment over the squared variance.
    kurtosis: f64,
    min: f64,
    max: f64,
}

fn moments<'a>(parts: impl Iterator<Item = &'a [f32]> + Clone) -> Moments {
    let all = || parts.clone().flatten().map(|&x| f64::from(x));
    let count = all().count() as f64;
    let mean = all().sum::<f64>() / count;
    let (mut second, mut fourth) = (0.0, 0.0);
    for x in all() {
        let square = (x - mean).powi(2);
        second += square;
        fourth += square * square;
    }
    let variance = second / count;
    Moments {
        count,
        mean,
        std: (second / (count - 1.0).max(1.0)).sqrt(),
        kurtosis: if variance > 0.0 {
            fourth / count / variance.powi(2)
        } else {
            1.0
        },
        min: all().fold(f64::INFINITY, f64::min),
        max: all().fold(f64::NEG_INFINITY, f64::max),
    }
}

fn group(
    case: &Case,
    name: &str,
    specs: &[&ParamSpec],
    draws: &[Vec<f32>],
    stored: &Value,
) -> Result<()> {
    case.equal(
        &format!("{name} tensors"),
        specs.len() as f64,
        whole(stored, "tensors")? as f64,
    );
    for spec in specs {
        let stored = whole(stored, "elements_each")? as f64;
        case.equal(&format!("{name} elements"), spec.len() as f64, stored);
    }
    let spec = specs.first().context("no parameters")?;
    ensure!(
        specs.iter().all(|s| s.init == spec.init),
        "blocks start differently"
    );
    let m = moments(
        draws
            .iter()
            .flat_map(|d| specs.iter().map(|s| &d[s.offset..s.offset + s.len()])),
    );
    let (min, max, std) = (
        number(stored, "min")?,
        number(stored, "max")?,
        number(stored, "std")?,
    );
    if min == max || m.min == m.max {
        case.equal(&format!("{name} min"), m.min, min);
        case.equal(&format!("{name} max"), m.max, max);
        case.equal(&format!("{name} std"), m.std, std);
        return Ok(());
    }
    let (low, high) = support(spec);
    for (whose, min, max) in [("our", m.min, m.max), ("stored", min, max)] {
        let outside = (low - min).max(max - high).max(0.0);
        case.record(
            &format!("{name} {whose} extremes outside their support"),
            outside,
            0.0,
        );
    }
    if let Init::StateLog = spec.init {
        // The same numbers in every channel: nothing is drawn. Bounds are for float32 sums.
        case.record(&format!("{name} min"), (m.min - min).abs(), 0.0);
        case.record(&format!("{name} max"), (m.max - max).abs(), 0.0);
    }
    // Of the stored sample, whose size is that of one draw.
    let stored_count = m.count / draws.len() as f64;
    let error_of_mean = m.std / stored_count.sqrt();
    let error_of_std = m.std * ((m.kurtosis - 1.0) / (4.0 * stored_count)).sqrt();
    let in_errors = |off: f64, error: f64| off.abs() / error;
    case.record(
        &format!("{name} mean (standard errors)"),
        in_errors(m.mean - number(stored, "mean")?, error_of_mean),
        ALLOWED,
    );
    case.record(
        &format!("{name} std (standard errors)"),
        in_errors(m.std - std, error_of_std),
        ALLOWED,
    );
    Ok(())
}

/// Least and greatest value a parameter can start with, in float32.
fn support(spec: &ParamSpec) -> (f64, f64) {
    // A value is rounded to float32 after it is drawn.
    let rounded = |low: f64, high: f64| {
        (
            f64::from((low as f32).next_down()),
            f64::from((high as f32).next_up()),
        )
    };
    let inverse_softplus = |step: f64| step.exp_m1().ln();
    match spec.init {
        Init::Zeros => (0.0, 0.0),
        Init::Ones => (1.0, 1.0),
        Init::Uniform { bound } => rounded(-bound, bound),
        Init::Normal { .. } => (f64::NEG_INFINITY, f64::INFINITY),
        Init::StateLog => {
            let states = spec.shape.last().copied().unwrap_or(1);
            rounded(0.0, (states as f64).ln())
        }
        // Wider by what computing the step and its inverse in float32 costs.
        Init::StepBias => (inverse_softplus(1e-3) - 1e-5, inverse_softplus(0.1) + 1e-5),
    }
}

/// The configuration: given, or read off the title's entry and the numbers of elements.
fn config(case: &Case, patterns: &Map<String, Value>) -> Result<DisConfig> {
    let setting = case.key("setting").and_then(Value::as_object);
    if let Some(config) = case.key("config").and_then(Value::as_object) {
        return model_config(config);
    }
    let name = match case.key("model").and_then(Value::as_str) {
        Some(name) => name,
        None => case
            .text("title")?
            .split([' ', ','])
            .find(|word| word.starts_with("DiS-"))
            .context("neither a model nor a title that names one")?,
    };
    if let Some(setting) = setting {
        return zoo_config(name, setting);
    }
    let elements = |name: &str| {
        patterns
            .get(name)
            .and_then(|p| whole(p, "elements_each").ok())
    };
    let needed = |name: &str| elements(name).with_context(|| format!("no pattern {name:?}"));
    let mut config = DisConfig::zoo(name, 32, 3)?;
    let (width, patch) = (config.embed_dim, config.patch_size * config.patch_size);
    config.channels = needed("patch_embed.proj.weight")? / (width * patch);
    config.learn_sigma = needed("final_layer.linear.bias")? == 2 * patch * config.channels;
    config.mlp_time_embed = elements("time_embed.0.weight").is_some();
    if let Some(rows) = elements("label_emb.embedding_table.weight") {
        // A null label is there unless the label-drop probability is zero, which is not the
        // published default.
        let num_classes = (rows / width).saturating_sub(1);
        config.condition = ConditionKind::Classes {
            num_classes,
            null_label: true,
        };
    }
    if elements("norm_f.bias").is_some() {
        config.norm = NormKind::Layer;
    }
    if elements("out_blocks.*.skip_linear.weight").is_none() {
        config.skip = SkipKind::None;
    }
    let patches = (needed("pos_embed")? / width).saturating_sub(config.extra_tokens());
    config.image_size = (patches.isqrt() * config.patch_size).into();
    config.validate()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_of_blocks_become_stars() {
        assert_eq!(pattern("in_blocks.11.mixer.D"), "in_blocks.*.mixer.D");
        assert_eq!(pattern("time_embed.0.weight"), "time_embed.0.weight");
        assert_eq!(
            pattern("final_layer.adaLN_modulation.1.bias"),
            "final_layer.adaLN_modulation.1.bias"
        );
    }

    #[test]
    fn moments_of_known_numbers() {
        let m = moments([&[1.0f32, 3.0][..], &[5.0]].into_iter());
        assert_eq!((m.count, m.mean, m.std), (3.0, 3.0, 2.0));
        assert_eq!((m.min, m.max), (1.0, 5.0));
        assert!((m.kurtosis - 1.5).abs() < 1e-12);
    }
}
