//! Checkpoints of PyTorch: the `.pt` file is read, and its weights give the stored outputs.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dis_files::torch::TorchFile;
use dis_model::ModelBackend;
use dis_model::checkpoint::{Entry, InferHints, WeightFile, write_torch};
use dis_model::{ConditionKind, DisConfig, DisModel};
use serde_json::Value;

use super::case::{Case, Rule, number};
use super::config::model_config;
use super::network::{Batch, Network, labels};
use dis_golden::shape_of;

/// Sums over stored tensors are of the same float32 values, so only their rounding differs.
const SUMS: f64 = 1e-10;

/// "torch_checkpoint".
pub fn torch_checkpoint<B: ModelBackend>(case: &Case, backend: &B) -> Result<()> {
    let path = case.manifest.dir.join(case.text("checkpoint")?);
    let config = model_config(case.object("config")?)?;
    let model = DisModel::new(config)?;
    let rule = Rule::OfLargest(case.tolerance(&["rtol"])?);
    let order: Vec<&str> = match case.key("parameter_order") {
        Some(_) => {
            let names = case.list("parameter_order")?.iter().map(Value::as_str);
            names.collect::<Option<_>>().context("parameter_order")?
        }
        None => Vec::new(),
    };

    let x = case.tensor("x")?.f32();
    let t = case.tensor("t")?.f64();
    let ids = case.find("labels").map(labels).transpose()?;
    for name in case.names("out_") {
        let entry = Entry::Named(name["out_".len()..].to_string());
        let mut file = WeightFile::open(&path, &entry)?;
        if !order.is_empty() {
            let ours: Vec<&str> = file.tensors().iter().map(|t| t.name.as_str()).collect();
            ensure!(ours == order, "{name}: the parameters are {ours:?}");
        }
        inferred(&file, &config)?;
        let arena = file.read_arena(model.table())?;
        written(&model, &arena)?;
        let network = Network::new(config, backend, |_| Ok(arena))?;
        let out = network.forward(Batch {
            x: &x,
            t: &t,
            labels: ids.as_deref(),
            drop_path: None,
        })?;
        case.expect(&name, &out, rule)?;
    }
    let mut file = TorchFile::open(&path)?;
    checksums(case, &mut file)?;
    optimizer(case, &path, &order, rule)
}

/// From the shapes alone follows a model of the same parameters.
fn inferred(file: &WeightFile, config: &DisConfig) -> Result<()> {
    let hints = InferHints {
        null_label: match config.condition {
            ConditionKind::Classes { null_label, .. } => Some(null_label),
            _ => None,
        },
        ..InferHints::default()
    };
    let guess = DisModel::new(file.describe(&hints)?.model)?;
    let model = DisModel::new(*config)?;
    ensure!(
        guess.table().specs() == model.table().specs()
            && guess.config().condition == config.condition,
        "the configuration inferred from the shapes is another one"
    );
    Ok(())
}

/// Written by us as a `.pt` file and read again, the weights are the same.
fn written(model: &DisModel, arena: &[f32]) -> Result<()> {
    let mut bytes = Vec::new();
    write_torch(&mut bytes, model.table(), &[("ema", arena)], None)?;
    let again = WeightFile::new(Cursor::new(bytes), "the copy".as_ref(), &Entry::Ema)?
        .read_arena(model.table())?;
    ensure!(again == arena, "written back, the weights differ");
    Ok(())
}

/// Shape, sum and sum of squares of every tensor of an entry, from `ENTRY_checksums`.
fn checksums(case: &Case, file: &mut TorchFile) -> Result<()> {
    let keys = case.manifest.json.as_object().context("no object")?;
    for key in keys.keys() {
        let Some(entry) = key.strip_suffix("_checksums") else {
            continue;
        };
        let stored = case.object(key)?;
        let tensors = file.tensors(entry)?;
        ensure!(
            tensors.len() == stored.len(),
            "{key}: there are {} tensors",
            tensors.len()
        );
        for tensor in &tensors {
            let data = file.read(tensor)?;
            let (name, shape) = (&tensor.name, &tensor.shape);
            let stored = stored
                .get(name)
                .with_context(|| format!("{key}: {name} is not there"))?;
            ensure!(
                stored.get("shape").and_then(shape_of).as_ref() == Some(shape),
                "{key}: shape of {name}"
            );
            let values = || data.iter().map(|&x| f64::from(x));
            let (sum, sum_of_squares) = (values().sum::<f64>(), values().map(|x| x * x).sum());
            let rule = |scale: f64| Rule::OfScale { rtol: SUMS, scale };
            let label = |what: &str| format!("{entry} {name} {what}");
            let stored_sum = number(stored, "sum")?;
            let magnitude = values().map(f64::abs).sum();
            case.compare(&label("sum"), &[sum], &[stored_sum], rule(magnitude));
            let stored = number(stored, "sumsq")?;
            case.compare(
                &label("sumsq"),
                &[sum_of_squares],
                &[stored],
                rule(sum_of_squares),
            );
        }
    }
    Ok(())
}

/// State of the optimizer, from tensors `opt_STATE_NUMBER` such as `opt_exp_avg_0`.
fn optimizer(case: &Case, path: &Path, order: &[&str], rule: Rule) -> Result<()> {
    let mut file = TorchFile::open(path)?;
    for name in case.names("opt_") {
        let (state, index) = name["opt_".len()..]
            .rsplit_once('_')
            .with_context(|| format!("tensor {name:?} names no parameter"))?;
        let found = file.tensor(&format!("opt/state/{index}/{state}"))?;
        let values = file.read(&found)?;
        ensure!(
            found.shape == case.tensor(&name)?.shape,
            "{name}: shape {:?}",
            found.shape
        );
        if let Some(parameter) = index.parse().ok().and_then(|i: usize| order.get(i)) {
            let tensors = WeightFile::open(path, &Entry::Auto)?;
            let tensors = tensors.tensors();
            let owner = tensors.iter().find(|t| t.name == *parameter);
            ensure!(
                owner.is_some_and(|owner| owner.shape == found.shape),
                "{name} is not a state of {parameter:?}"
            );
        }
        let ours: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
        case.expect(&name, &ours, rule)?;
    }
    Ok(())
}
