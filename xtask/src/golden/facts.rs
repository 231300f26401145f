//! Sizes and costs of the published entries: whole numbers, all exact.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use dis_model::cost::Cost;
use dis_model::{DisConfig, DisModel};
use serde_json::{Map, Value};

use super::case::{Case, string, whole};
use super::config::zoo_config;
use dis_golden::shape_of;

/// Keys of a model's entry that describe it, or its setting.
const SETTING: [&str; 3] = ["img_size", "channels", "num_classes"];

/// "model_facts".
pub fn model_facts(case: &Case) -> Result<()> {
    let batch = case.key("batch").and_then(Value::as_u64).unwrap_or(1);
    for entry in case.list("models")? {
        let name = string(entry, "name")?;
        let map = entry.as_object().context("a model that is no object")?;
        let setting: Map<String, Value> = map
            .iter()
            .filter(|(key, _)| SETTING.contains(&key.as_str()) || *key == "setting")
            .flat_map(|(key, value)| match value {
                Value::Object(inner) => inner.clone().into_iter().collect(),
                _ => vec![(key.clone(), value.clone())],
            })
            .collect();
        let config = zoo_config(name, &setting)?;
        let label = format!("{name} {}x{}", whole(entry, "img_size")?, config.channels);
        one_model(case, &label, map, &config, batch).with_context(|| label.clone())?;
    }
    Ok(())
}

fn one_model(
    case: &Case,
    label: &str,
    facts: &Map<String, Value>,
    config: &DisConfig,
    batch: u64,
) -> Result<()> {
    let model = DisModel::new(*config)?;
    let table = model.table();
    let cost = Cost::of(config, 1)?;
    let mixer = config.state_space();
    let all_tokens = |linear: u64| linear - cost.macs.head + cost.macs.head_all_tokens;
    let equal = |key: &str, ours: u64, stored: &Value| -> Result<()> {
        let stored = stored
            .as_u64()
            .with_context(|| format!("{key} is not a whole number"))?;
        // Whole numbers may exceed what float64 holds exactly, so their difference is compared.
        case.equal(&format!("{label} {key}"), ours.abs_diff(stored) as f64, 0.0);
        Ok(())
    };
    for (key, stored) in facts {
        let ours = match key.as_str() {
            "name" | "img_size" | "channels" | "num_classes" | "setting" => continue,
            "parameters" => table.parameters() as u64,
            "embed_dim" => config.embed_dim as u64,
            "patch_size" => config.patch_size as u64,
            "nominal_depth" => config.depth as u64,
            "blocks_built" => config.blocks() as u64,
            "d_inner" => mixer.d_inner as u64,
            "dt_rank" => mixer.dt_rank as u64,
            "d_state" => mixer.d_state as u64,
            "d_conv" => mixer.d_conv as u64,
            "tokens" => cost.tokens,
            "state_dict_entries" => table.specs().len() as u64,
            "macs_linear_layers" => batch * all_tokens(cost.macs.linear()),
            "macs_total_including_conv_and_scan" => batch * all_tokens(cost.macs.total()),
            "macs" => {
                for (part, stored) in stored.as_object().context("macs is not an object")? {
                    equal(&format!("macs.{part}"), batch * macs(&cost, part)?, stored)?;
                }
                continue;
            }
            "parameters_by_top_level_module" => {
                modules(case, label, &model, stored)?;
                continue;
            }
            "state_dict_shapes_first_in_block" => {
                shapes(case, label, &model, stored)?;
                continue;
            }
            _ => bail!("fact {key:?} is not known"),
        };
        equal(key, ours, stored)?;
    }
    equal(
        "parameters in the cost model",
        cost.parameters,
        &facts["parameters"],
    )
}

fn macs(cost: &Cost, part: &str) -> Result<u64> {
    let m = &cost.macs;
    Ok(match part {
        "patch_embed" => m.patch_embed,
        "time_mlp" => m.time_mlp,
        "in_proj" => m.in_proj,
        "x_proj_both" => m.x_proj,
        "dt_proj_both" => m.dt_proj,
        "out_proj" => m.out_proj,
        "skip_linear" => m.skip_linear,
        "final_linear_all_tokens" => m.head_all_tokens,
        "adaLN" => m.ada_ln,
        "causal_conv_both" => m.conv,
        "scan_state_update_both" => m.scan_state_update,
        "scan_readout_both" => m.scan_readout,
        "scan_D_skip_both" => m.scan_skip,
        "scan_delta_A_products_both" => m.scan_delta_a,
        "scan_delta_u_and_B_products_both" => m.scan_delta_u_b,
        _ => bail!("multiply-adds of {part:?} are not known"),
    })
}

/// Parameters by the first part of their names.
fn modules(case: &Case, label: &str, model: &DisModel, stored: &Value) -> Result<()> {
    let mut ours: BTreeMap<&str, u64> = BTreeMap::new();
    for spec in model.table().specs() {
        let module = spec.name.split('.').next().unwrap_or_default();
        *ours.entry(module).or_default() += spec.len() as u64;
    }
    let stored = stored
        .as_object()
        .context("parameters by module is not an object")?;
    for (module, count) in stored {
        let count = count
            .as_f64()
            .with_context(|| format!("parameters of {module}"))?;
        let ours = ours.remove(module.as_str()).unwrap_or_default();
        case.equal(
            &format!("{label} parameters of {module}"),
            ours as f64,
            count,
        );
    }
    for (module, count) in ours {
        case.equal(
            &format!("{label} parameters of {module}"),
            count as f64,
            0.0,
        );
    }
    Ok(())
}

/// Names and shapes of the first block, if stored.
fn shapes(case: &Case, label: &str, model: &DisModel, stored: &Value) -> Result<()> {
    const PREFIX: &str = "in_blocks.0.";
    let Some(stored) = stored.as_object() else {
        return Ok(());
    };
    let ours: BTreeMap<&str, &[usize]> = model
        .table()
        .specs()
        .iter()
        .filter_map(|spec| Some((spec.name.strip_prefix(PREFIX)?, spec.shape.as_slice())))
        .collect();
    case.equal(
        &format!("{label} tensors of a block"),
        ours.len() as f64,
        stored.len() as f64,
    );
    for (name, shape) in stored {
        let shape = shape_of(shape).with_context(|| format!("shape of {name}"))?;
        let same = ours.get(name.as_str()).is_some_and(|ours| *ours == shape);
        case.equal(
            &format!("{label} shape of {name}"),
            f64::from(u8::from(same)),
            1.0,
        );
    }
    Ok(())
}
