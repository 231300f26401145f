//! The whole variational bound of a tiny model.

use anyhow::{Context, Result, ensure};
use dis_diffusion::SuppliedNoise;
use dis_model::ModelBackend;

use super::case::{Case, Rule};
use super::config::model_config;
use super::diffusion::diffusion;
use super::network::{Network, image, labels, other_weights};

/// Stored parts.
const PARTS: [&str; 5] = ["total_bpd", "prior_bpd", "vb", "xstart_mse", "mse"];

/// "bits_per_dim".
pub fn bits_per_dim<B: ModelBackend>(case: &Case, backend: &B) -> Result<()> {
    let config = model_config(case.object("config")?)?;
    let network = Network::new(config, backend, |table| {
        other_weights(case, case.text("weights")?, table)
    })?;
    let diffusion = diffusion(&case.manifest.json, config.learn_sigma)?;
    let rule = Rule::OfLargest(case.tolerance(&["rtol"])?);
    let x_start = image(case.tensor("x_start")?)?;
    let ids = case
        .find("labels")
        .map(labels)
        .transpose()?
        .unwrap_or_default();
    let noises = case.tensor("noises")?;
    let count = *noises.shape.first().context("noises is a scalar")?;
    let noises = (0..count)
        .map(|i| image(&noises.row(i)?))
        .collect::<Result<Vec<_>>>()?;
    let mut found = false;
    for (prefix, clip) in [("clip1", true), ("clip0", false)] {
        if case.names(&format!("{prefix}.")).is_empty() {
            continue;
        }
        found = true;
        let mut noise = SuppliedNoise(noises.clone());
        let mut denoiser = network.denoiser(&ids);
        let bits = diffusion.bits_per_dim(&mut denoiser, &x_start, &mut noise, clip)?;
        for part in PARTS {
            let ours: Vec<f64> = match part {
                "total_bpd" => bits.total.clone(),
                "prior_bpd" => bits.prior.clone(),
                "vb" => bits.vb.iter().copied().collect(),
                "xstart_mse" => bits.xstart_mse.iter().copied().collect(),
                _ => bits.mse.iter().copied().collect(),
            };
            case.expect(&format!("{prefix}.{part}"), &ours, rule)?;
        }
    }
    ensure!(found, "no bound is stored");
    Ok(())
}
