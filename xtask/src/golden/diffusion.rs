//! Schedule tables and single diffusion steps.

use anyhow::{Context, Result, bail, ensure};
use dis_diffusion::{
    Gaussian, GaussianDiffusion, LossKind, Options, Prediction, Tables, Variance,
    ddim_reverse_step, ddim_step, p_sample,
};
use ndarray::Array4;
use serde_json::Value;

use super::case::{Case, Rule, string};
use super::network::image;

/// The diffusion of a JSON object with "timestep_respacing" and "options", both as the published
/// `create_diffusion` takes them. `learn_sigma` is what holds if the options do not say.
pub fn diffusion(json: &Value, learn_sigma: bool) -> Result<GaussianDiffusion> {
    let mut options = Options {
        respacing: respacing(json)?.parse()?,
        ..Options::default()
    };
    let (mut learn_sigma, mut sigma_small) = (learn_sigma, false);
    let (mut use_kl, mut rescale) = (false, false);
    for (key, value) in json
        .get("options")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let truth = || {
            value
                .as_bool()
                .with_context(|| format!("{key} is not true or false"))
        };
        match key.as_str() {
            "noise_schedule" => {
                options.schedule = value.as_str().context("noise_schedule")?.parse()?;
            }
            "diffusion_steps" => {
                options.steps = value.as_u64().context("diffusion_steps")? as usize;
            }
            "learn_sigma" => learn_sigma = truth()?,
            "sigma_small" => sigma_small = truth()?,
            "predict_xstart" if truth()? => options.prediction = Prediction::Start,
            "predict_xstart" => {}
            "rescale_learned_sigmas" => rescale = truth()?,
            "use_kl" => use_kl = truth()?,
            _ => bail!("diffusion option {key:?} is not known"),
        }
    }
    options.variance = match (learn_sigma, sigma_small) {
        (true, _) => Variance::LearnedRange,
        (false, true) => Variance::FixedSmall,
        (false, false) => Variance::FixedLarge,
    };
    options.loss = match (use_kl, rescale) {
        (true, _) => LossKind::RescaledKl,
        (false, true) => LossKind::RescaledMse,
        (false, false) => LossKind::Mse,
    };
    Ok(GaussianDiffusion::new(&options)?)
}

/// A respacing as text; absent is all steps.
fn respacing(json: &Value) -> Result<String> {
    Ok(match json.get("timestep_respacing") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Array(list)) => list
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(","),
        Some(other) => bail!("timestep_respacing {other} is not understood"),
    })
}

/// The respacing in a text that says `create_diffusion('...')`, as JSON for [`diffusion`].
pub fn described(case: &Case, key: &str) -> Value {
    let text = case.key(key).and_then(Value::as_str).unwrap_or_default();
    let quoted = text
        .split_once("create_diffusion('")
        .and_then(|(_, rest)| rest.split_once('\''));
    let mut json = serde_json::Map::new();
    let own = case.key("timestep_respacing").cloned();
    let spacing = own.or_else(|| quoted.map(|(spacing, _)| Value::from(spacing)));
    json.insert(
        "timestep_respacing".into(),
        spacing.unwrap_or(Value::from("")),
    );
    if let Some(options) = case.key("options") {
        json.insert("options".into(), options.clone());
    }
    Value::Object(json)
}

/// "diffusion_tables".
pub fn tables(case: &Case) -> Result<()> {
    let rule = Rule::OfElement(case.tolerance(&["rtol"])?);
    for entry in case.list("respacings")? {
        let label = string(entry, "label")?;
        let diffusion = diffusion(entry, true).with_context(|| label.to_string())?;
        let tables = diffusion.tables();
        let mut found = 0;
        for name in Tables::NAMES {
            let ours = tables
                .by_name(name)
                .with_context(|| format!("no table {name}"))?;
            found += usize::from(case.expect_if_stored(&format!("{label}.{name}"), ours, rule)?);
        }
        ensure!(found > 0, "no table of {label} is stored");
        let map: Vec<f64> = tables.timestep_map.iter().map(|&x| x as f64).collect();
        let name = format!("{label}.timestep_map");
        case.expect_if_stored(&name, &map, Rule::Absolute(0.0))?;
    }
    Ok(())
}

/// The stored inputs of a case of "diffusion_steps".
struct Inputs {
    x_start: Array4<f32>,
    x_t: Array4<f32>,
    noise: Array4<f32>,
    step_noise: Array4<f32>,
    output: Array4<f32>,
    t: Vec<usize>,
}

/// A case of "diffusion_steps".
struct Steps<'a> {
    case: &'a Case,
    label: &'a str,
    json: &'a Value,
    rtol: f64,
    diffusion: GaussianDiffusion,
    inputs: Inputs,
}

/// "diffusion_steps".
pub fn steps(case: &Case) -> Result<()> {
    let rtol = case.tolerance(&["rtol"])?;
    for json in case.list("cases")? {
        let label = string(json, "label")?;
        let input = |name: &str| image(case.tensor(&format!("{label}.in.{name}"))?);
        let inputs = Inputs {
            x_start: input("x_start")?,
            x_t: input("x_t")?,
            noise: input("noise")?,
            step_noise: input("step_noise")?,
            output: input("model_output")?,
            t: case.tensor(&format!("{label}.in.t"))?.indices()?,
        };
        let diffusion = diffusion(json, true).with_context(|| label.to_string())?;
        let steps = Steps {
            case,
            label,
            json,
            rtol,
            diffusion,
            inputs,
        };
        steps.forward().with_context(|| label.to_string())?;
        for clip in [true, false] {
            steps.reverse(clip).with_context(|| label.to_string())?;
        }
        steps.losses().with_context(|| label.to_string())?;
    }
    Ok(())
}

impl Steps<'_> {
    /// Each case lists how far float32 itself is off; ten times that is allowed.
    fn expect(&self, name: &str, ours: &[f64]) -> Result<()> {
        let listed = self
            .json
            .get("float32_reference_rel_above_1e-6")
            .and_then(|l| l.get(name));
        let listed = listed.and_then(Value::as_f64).unwrap_or(0.0);
        let rule = Rule::OfLargest(self.rtol.max(10.0 * listed));
        self.case
            .expect_if_stored(&format!("{}.{name}", self.label), ours, rule)?;
        Ok(())
    }

    fn images(&self, name: &str, ours: &Array4<f32>) -> Result<()> {
        self.expect(
            name,
            &ours.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(),
        )
    }

    /// One value a sample, stored for every element.
    fn spread(&self, name: &str, ours: &[f64]) -> Result<()> {
        let each = self.inputs.x_start.len() / ours.len().max(1);
        let spread: Vec<f64> = ours
            .iter()
            .flat_map(|&v| std::iter::repeat_n(v, each))
            .collect();
        self.expect(name, &spread)
    }

    fn gaussian(&self, name: &str, ours: &Gaussian<Array4<f32>>) -> Result<()> {
        self.images(&format!("{name}_mean"), &ours.mean)?;
        self.spread(&format!("{name}_variance"), &ours.variance)?;
        self.spread(&format!("{name}_log_variance"), &ours.log_variance)
    }

    fn forward(&self) -> Result<()> {
        let Inputs {
            x_start,
            x_t,
            noise,
            t,
            ..
        } = &self.inputs;
        let name = format!("{}.model_timesteps", self.label);
        let network = self.diffusion.network_timesteps(t)?;
        self.case
            .expect_if_stored(&name, &network, Rule::Absolute(0.0))?;
        self.images("x_t", &self.diffusion.q_sample(x_start, t, noise)?)?;
        self.gaussian("q", &self.diffusion.q_mean_variance(x_start, t)?)?;
        self.gaussian("post", &self.diffusion.q_posterior(x_start, x_t, t)?)?;
        self.expect("prior_bpd", &self.diffusion.prior_bits(x_start.view()))
    }

    fn reverse(&self, clip: bool) -> Result<()> {
        let Inputs {
            x_start,
            x_t,
            step_noise,
            output,
            t,
            ..
        } = &self.inputs;
        let diffusion = &self.diffusion;
        let clipped = |name: &str| format!("{name}_clip{}", u8::from(clip));
        let p = diffusion.p_mean_variance(x_t, output, t, clip)?;
        self.images(&clipped("p_mean"), &p.mean)?;
        self.images(&clipped("p_pred_xstart"), &p.pred_xstart)?;
        self.images(&clipped("p_variance"), &p.variance_array()?)?;
        self.images(&clipped("p_log_variance"), &p.log_variance_array()?)?;
        let step = p_sample(diffusion, x_t, output, t, step_noise, clip)?;
        self.images(&clipped("p_sample"), &step.sample)?;
        let prefix = format!("{}.ddim_eta", self.label);
        let suffix = clipped("");
        for name in self.case.names(&prefix) {
            let Some(eta) = name[prefix.len()..].strip_suffix(&suffix) else {
                continue;
            };
            let eta: f64 = eta.parse().with_context(|| format!("eta of {name:?}"))?;
            let step = ddim_step(diffusion, x_t, output, t, Some(step_noise), eta, clip)?;
            self.images(&name[self.label.len() + 1..], &step.sample)?;
        }
        let step = ddim_reverse_step(diffusion, x_t, output, t, clip)?;
        self.images(&clipped("ddim_reverse"), &step.sample)?;
        let terms = diffusion.bound_terms(x_start.view(), x_t.view(), t, output.view(), clip)?;
        self.expect(&clipped("vb_bpd"), &terms.bits)
    }

    fn losses(&self) -> Result<()> {
        let Inputs {
            x_start,
            noise,
            output,
            t,
            ..
        } = &self.inputs;
        let (loss, _) =
            self.diffusion
                .training_loss(x_start.view(), noise.view(), t, output.view(), None)?;
        if let Some(mse) = &loss.mse {
            self.expect("train_mse", mse)?;
        }
        if let Some(vb) = &loss.vb {
            self.expect("train_vb", vb)?;
        }
        self.expect("train_loss", &loss.total)
    }
}
