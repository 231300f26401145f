//! Whole models, in evaluation and under stochastic depth.

use anyhow::{Context, Result, bail, ensure};
use dis_diffusion::{Denoiser, PublishedGuidance};
use dis_model::ModelBackend;
use dis_model::time::time_embedding;

use super::case::{Case, Rule, number, string};
use super::config::model_config;
use super::network::{Batch, Network, image, labels, own_weights};

/// Stored rates are float32 and lie between 0 and 1.
const FLOAT32_RATE: Rule = Rule::Absolute(1e-6);

/// "model".
pub fn model<B: ModelBackend>(case: &Case, backend: &B) -> Result<()> {
    let config = model_config(case.object("config")?)?;
    let network = Network::new(config, backend, |table| own_weights(case, "param.", table))?;
    if let Some(built) = case.key("blocks_built").and_then(serde_json::Value::as_f64) {
        case.equal("blocks_built", config.blocks() as f64, built);
    }
    let outputs = Rule::OfLargest(case.tolerance(&["outputs", "rtol"])?);
    let x = case.tensor("x")?.f32();
    let ids = case.find("labels").map(labels).transpose()?;
    let ids = ids.as_deref();

    // Stored for the integer and the fractional times, each where it is there.
    for which in ["int", "frac"] {
        let Some(t) = case.find(&format!("t_{which}")) else {
            continue;
        };
        let t = t.f64();
        let name = format!("time_embedding_{which}");
        case.expect_if_stored(&name, &time_embedding(&t, config.embed_dim), outputs)?;
        let batch = Batch {
            x: &x,
            t: &t,
            labels: ids,
            drop_path: None,
        };
        let (out, blocks) = network.forward_blocks(batch)?;
        case.expect(&format!("out_{which}"), &out, outputs)?;
        if which == "int" {
            for (i, [hidden, residual]) in blocks.iter().enumerate() {
                case.expect_if_stored(&format!("block{i}.hidden"), hidden, outputs)?;
                case.expect_if_stored(&format!("block{i}.residual"), residual, outputs)?;
            }
        }
    }
    guided(case, &network, outputs)?;
    if case.has("w") {
        let t = case.tensor("t_int")?.f64();
        let batch = Batch {
            x: &x,
            t: &t,
            labels: ids,
            drop_path: None,
        };
        let rule = Rule::OfLargest(case.tolerance(&["grads", "rtol"])?);
        let mut grads = network.zero_grads();
        let dimage = network.gradients(batch, &mut grads, |_| Ok(case.tensor("w")?.f32()))?;
        case.expect_if_stored("grad_x", &dimage, rule)?;
        network.expect_arena(case, "grad.", &grads, rule)?;
    }
    Ok(())
}

/// Outputs of the published `forward_with_cfg`, the scale being in the tensor's name.
fn guided<B: ModelBackend>(case: &Case, network: &Network<'_, B>, rule: Rule) -> Result<()> {
    const PREFIX: &str = "out_cfg_";
    let names = case.names(PREFIX);
    if names.is_empty() {
        return Ok(());
    }
    let x = image(case.tensor("x")?)?;
    let t = case.tensor("cfg_t")?.f64();
    let ids = case
        .find("cfg_labels")
        .map(labels)
        .transpose()?
        .unwrap_or_default();
    for name in names {
        let scale: f64 = name[PREFIX.len()..]
            .parse()
            .with_context(|| format!("scale of {name:?}"))?;
        let mut guided = PublishedGuidance::new(network.denoiser(&ids), scale);
        let out = guided.predict(&x, &t)?;
        let out: Vec<f64> = out.iter().map(|&v| f64::from(v)).collect();
        case.expect(&name, &out, rule)?;
    }
    Ok(())
}

/// "model_drop_path".
pub fn drop_path<B: ModelBackend>(case: &Case, backend: &B) -> Result<()> {
    let config = model_config(case.object("config")?)?;
    let network = Network::new(config, backend, |table| own_weights(case, "param.", table))?;
    let x = case.tensor("x")?.f32();
    let t = case.tensor("t")?.f64();
    let ids = dropped_labels(case, config.null_label())?;

    let rates = config.drop_rates();
    let (last, blocks) = rates.split_last().context("no sites")?;
    if let Some(stored) = case
        .key("rate_per_block")
        .and_then(serde_json::Value::as_array)
    {
        let stored: Vec<f64> = stored
            .iter()
            .filter_map(serde_json::Value::as_f64)
            .collect();
        case.compare("rate_per_block", blocks, &stored, FLOAT32_RATE);
    }
    if let Some(stored) = case.key("final_rate").and_then(serde_json::Value::as_f64) {
        case.compare("final_rate", &[*last], &[stored], FLOAT32_RATE);
    }

    let mut factors = vec![Vec::new(); rates.len()];
    let masks = case.tensor("keep_masks")?;
    let sites = case.list("sites")?;
    ensure!(
        masks.shape.first() == Some(&sites.len()),
        "not as many masks as sites"
    );
    for (row, site) in sites.iter().enumerate() {
        let index = match string(site, "site")? {
            "final" => rates.len() - 1,
            block => match block.strip_prefix("block").map(str::parse::<usize>) {
                Some(Ok(index)) if index < blocks.len() => index,
                _ => bail!("site {block:?} is not known"),
            },
        };
        let keep = 1.0 - number(site, "rate")?;
        case.compare("site rate", &[rates[index]], &[1.0 - keep], FLOAT32_RATE);
        let mask = masks.row(row)?.f64();
        factors[index] = mask.into_iter().map(|m| (m / keep) as f32).collect();
    }

    let batch = Batch {
        x: &x,
        t: &t,
        labels: ids.as_deref(),
        drop_path: Some(&factors),
    };
    let out = network.forward(batch)?;
    case.expect("out", &out, Rule::OfLargest(case.tolerance(&["out_rtol"])?))?;
    let mut grads = network.zero_grads();
    let dimage = network.gradients(batch, &mut grads, |_| Ok(case.tensor("w")?.f32()))?;
    let rule = Rule::OfLargest(case.tolerance(&["grad_rtol"])?);
    case.expect_if_stored("grad_x", &dimage, rule)?;
    network.expect_arena(case, "grad.", &grads, rule)
}

/// Stored labels with the null label where the stored mask drops them.
fn dropped_labels(case: &Case, null_label: Option<u32>) -> Result<Option<Vec<u32>>> {
    let Some(stored) = case.find("labels") else {
        return Ok(None);
    };
    let mut ids = labels(stored)?;
    if let Some(drop) = case.find("drop") {
        for (id, drop) in ids.iter_mut().zip(drop.f64()) {
            if drop != 0.0 {
                *id = null_label.context("labels are dropped, but there is no null label")?;
            }
        }
    }
    Ok(Some(ids))
}
