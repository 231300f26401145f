//! Whole sampling loops with a tiny model, iteration by iteration.

use anyhow::{Context, Result, bail, ensure};
use dis_diffusion::{
    Denoiser, Limit, OnDevice, Plan, PublishedGuidance, Run, SamplerSpec, State, SuppliedNoise,
};
use dis_model::ModelBackend;
use serde_json::Value;

use super::case::{Case, Rule, flag, number, string};
use super::config::model_config;
use super::diffusion::diffusion;
use super::network::{Network, image, labels, other_weights};

/// "sampling_loops".
pub fn sampling_loops<B: ModelBackend>(case: &Case, backend: &B) -> Result<()> {
    let config = model_config(case.object("config")?)?;
    let network = Network::new(config, backend, |table| {
        other_weights(case, case.text("weights")?, table)
    })?;
    for json in case.list("cases")? {
        let label = string(json, "label")?;
        one_loop(case, &network, json, label).with_context(|| label.to_string())?;
    }
    Ok(())
}

/// The loops of fewest iterations alone.
pub fn shortest<B: ModelBackend>(case: &Case, backend: &B) -> Result<()> {
    let config = model_config(case.object("config")?)?;
    let network = Network::new(config, backend, |table| {
        other_weights(case, case.text("weights")?, table)
    })?;
    let cases = case.list("cases")?;
    let steps = |json: &Value| json.get("num_steps").and_then(Value::as_u64);
    let fewest = cases.iter().filter_map(steps).min();
    for json in cases.iter().filter(|json| steps(json) == fewest) {
        let label = string(json, "label")?;
        one_loop(case, &network, json, label).with_context(|| label.to_string())?;
    }
    Ok(())
}

fn one_loop<B: ModelBackend>(
    case: &Case,
    network: &Network<'_, B>,
    json: &Value,
    label: &str,
) -> Result<()> {
    let name = |part: &str| format!("{label}.{part}");
    let diffusion = diffusion(json, network.model.config().learn_sigma)?;
    if let Some(steps) = json.get("num_steps").and_then(Value::as_f64) {
        case.equal(&name("num_steps"), diffusion.steps() as f64, steps);
    }
    let rtol = tolerance(case, json)?;
    let stored = json.get("stored_iterations").and_then(Value::as_array);
    let stored = stored.context("has no list \"stored_iterations\"")?;
    let stored: Vec<usize> = stored
        .iter()
        .filter_map(|x| Some(x.as_u64()? as usize))
        .collect();

    let sampler = match string(json, "sampler")? {
        "p_sample_loop" => SamplerSpec::Ancestral,
        "ddim_sample_loop" => SamplerSpec::Ddim {
            eta: number(json, "eta")?,
        },
        other => bail!("sampler {other:?} is not known"),
    };
    let limit = flag(json, "clip_denoised")?.then(Limit::default);
    let plan = Plan::on_steps(sampler, diffusion)?.with_limit(limit);
    let ids = case
        .find(&name("labels"))
        .map(labels)
        .transpose()?
        .unwrap_or_default();
    let denoiser = network.denoiser(&ids);
    let scale = json.get("cfg_scale").and_then(Value::as_f64);
    let mut denoiser: Box<dyn Denoiser<OnDevice<B>> + '_> = match scale {
        Some(scale) => Box::new(PublishedGuidance::new(denoiser, scale)),
        None => Box::new(denoiser),
    };
    let put = |host| OnDevice::new(network.backend, host);
    // Without stored draws the sampler must not ask for any; it fails if it does.
    let mut noise = SuppliedNoise(match case.find(&name("noises")) {
        Some(noises) => {
            let count = noises.shape.first().copied().unwrap_or(0);
            (0..count)
                .map(|i| Ok(put(image(&noises.row(i)?)?)))
                .collect::<Result<Vec<_>>>()?
        }
        None => Vec::new(),
    });
    let start = put(image(case.tensor(&name("z"))?)?);
    let trajectory = case.tensor(&name("trajectory"))?;
    let pred_xstart = case.find(&name("pred_xstart"));
    ensure!(
        trajectory.shape.first() == Some(&stored.len()),
        "not as many images as iterations"
    );

    let mut run = Run::new(&plan, denoiser.as_mut(), &mut noise, start)?;
    while let Some(at) = run.advance()? {
        for (row, _) in stored
            .iter()
            .enumerate()
            .filter(|(_, i)| **i == at.iteration)
        {
            let golden = trajectory.row(row)?.f64();
            // The rule's scale is the iteration's. It matters for the estimate of the final image,
            // which is some 157 times the network's rounding near t = 999 and then clipped to 1.
            let scale = magnitude(&golden).max(match pred_xstart {
                Some(stored) => magnitude(&stored.row(row)?.f64()),
                None => 0.0,
            });
            let compare = |part: &str, ours: &OnDevice<B>, golden: &[f64]| -> Result<()> {
                let ours: Vec<f64> = ours.fetch()?.iter().map(|&v| f64::from(v)).collect();
                let name = format!("{}[{}]", name(part), at.iteration);
                case.compare(&name, &ours, golden, Rule::OfScale { rtol, scale });
                Ok(())
            };
            compare("trajectory", at.sample, &golden)?;
            if let Some(stored) = pred_xstart {
                compare("pred_xstart", at.pred_xstart, &stored.row(row)?.f64())?;
            }
        }
    }
    let last = plan.grid().steps();
    ensure!(
        stored.iter().all(|i| *i < last),
        "an iteration beyond the last, {last}"
    );
    Ok(())
}

fn magnitude(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// A number, or `max(A, B * KEY of the case)`.
fn tolerance(case: &Case, json: &Value) -> Result<f64> {
    let rtol = case.key("tolerance").and_then(|t| t.get("rtol"));
    match rtol.context("has no tolerance.rtol")? {
        Value::Number(number) => number.as_f64().context("tolerance.rtol"),
        Value::String(rule) => {
            evaluate(rule, json).with_context(|| format!("tolerance {rule:?} is not understood"))
        }
        other => bail!("tolerance.rtol {other} is not understood"),
    }
}

fn evaluate(rule: &str, json: &Value) -> Option<f64> {
    let (floor, product) = rule
        .trim()
        .strip_prefix("max(")?
        .strip_suffix(')')?
        .split_once(',')?;
    let (factor, key) = product.split_once('*')?;
    let measured = json.get(key.split_whitespace().next()?)?.as_f64()?;
    let (floor, factor): (f64, f64) = (floor.trim().parse().ok()?, factor.trim().parse().ok()?);
    Some(floor.max(factor * measured))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_tolerance_are_evaluated() {
        let json: Value = serde_json::from_str(r#"{"off": 1e-5}"#).unwrap();
        assert_eq!(
            evaluate("max(1e-4, 20 * off of the case)", &json),
            Some(2e-4)
        );
        assert_eq!(
            evaluate("max(1e-3, 20 * off of the case)", &json),
            Some(1e-3)
        );
        assert_eq!(evaluate("max(1e-3, 20 * other)", &json), None);
        assert_eq!(evaluate("1e-3", &json), None);
    }
}
