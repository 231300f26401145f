//! Weight files that go with other manifests: they must load, and be written back as they were.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use dis_model::DisModel;
use dis_model::checkpoint::{
    InferHints, arena_from_tensors, infer_config, read_tensors, serialize_arena,
};

use super::case::{Case, Rule};
use super::config::model_config;

/// "weights".
pub fn weights(case: &Case) -> Result<()> {
    let path = case.manifest.dir.join(case.text("file")?);
    let bytes = std::fs::read(&path).with_context(|| format!("{}", path.display()))?;
    let (_, tensors) = read_tensors(&bytes, &path)?;
    let config = match case.key("config").and_then(serde_json::Value::as_object) {
        Some(json) => model_config(json)?,
        None => {
            let hints = InferHints {
                null_label: Some(true),
                ..InferHints::default()
            };
            infer_config(&tensors, &hints)?
        }
    };
    let model = DisModel::new(config)?;
    let table = model.table();
    let arena = arena_from_tensors(table, &tensors, &path)?;

    let written = serialize_arena(table, &arena, None)?;
    let (_, again) = read_tensors(&written, Path::new("the copy"))?;
    ensure!(again == tensors, "written back, the tensors differ");
    case.equal("tensors", tensors.len() as f64, table.specs().len() as f64);
    for spec in table.specs() {
        let ours: Vec<f64> = arena[spec.offset..spec.offset + spec.len()]
            .iter()
            .map(|&x| f64::from(x))
            .collect();
        let stored = case.tensor(&spec.name)?;
        ensure!(
            stored.dtype() == "float32",
            "{} is {}",
            spec.name,
            stored.dtype()
        );
        case.expect(&spec.name, &ours, Rule::Absolute(0.0))?;
    }
    Ok(())
}
