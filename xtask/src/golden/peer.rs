//! Samplers of the diffusers library on networks of closed form: timesteps, noise levels and every
//! image on the way.

use anyhow::{Context, Result, bail, ensure};
use dis_diffusion::{At, Level, Prediction, Step, SuppliedNoise};
use ndarray::Array4;
use serde_json::Value;

use super::case::{Case, Rule, number, string};
use super::network::image;
use super::peer_config::Peer;

/// How far timesteps, noise levels and `alpha_bar` may be off: they are float64 here and there.
const TABLE_RTOL: f64 = 1e-10;

/// "peer_samplers".
pub fn peer_samplers(case: &Case) -> Result<()> {
    let start = image(case.tensor("start_noise")?)?;
    for json in case.list("cases")? {
        let label = string(json, "label")?;
        one(case, json, label, &start).with_context(|| label.to_string())?;
    }
    Ok(())
}

fn one(case: &Case, json: &Value, label: &str, start: &Array4<f32>) -> Result<()> {
    let name = |part: &str| format!("{label}.{part}");
    let mut peer = Peer::new(json)?;
    let rtol = tolerance(case, json)?;
    let model = Model::new(json)?;

    let timesteps: Vec<f64> = peer.calls.iter().map(|call| call.timestep).collect();
    case.expect(&name("timesteps"), &timesteps, Rule::OfLargest(TABLE_RTOL))?;
    let element = Rule::OfElement(TABLE_RTOL);
    case.expect_if_stored(&name("sigmas"), &peer.sigmas, element)?;
    if let Some(stored) = json.get("init_noise_sigma").and_then(Value::as_f64) {
        // Quoted from the library as shipped, in float32.
        let ours = [peer.init_noise_sigma];
        let part = name("init_noise_sigma");
        case.compare(&part, &ours, &[stored], Rule::OfElement(1e-6));
    }
    let alpha_bars = case.tensor(&name("alpha_bar"))?.f64();
    ensure!(
        alpha_bars.len() == peer.calls.len(),
        "{} network calls, stored are {}",
        peer.calls.len(),
        alpha_bars.len()
    );
    for (call, stored) in peer.calls.iter().zip(&alpha_bars) {
        // The network's own noise level is an input. Where a timestep was rounded, it may be that
        // of the timestep or that of the sampler.
        let ours = [call.here.alpha_bar(), peer.alpha_bar_at(call.timestep)];
        let off = ours.map(|bar| (bar - stored).abs() / stored);
        case.record(&name("alpha_bar"), off[0].min(off[1]), TABLE_RTOL);
    }

    let trajectory = case.tensor(&name("trajectory"))?;
    ensure!(
        trajectory.shape.first() == Some(&peer.calls.len()),
        "not as many images as network calls"
    );
    let mut noise = SuppliedNoise(match case.find(&name("noises")) {
        Some(noises) => (0..noises.shape.first().copied().unwrap_or(0))
            .map(|i| image(&noises.row(i)?))
            .collect::<Result<Vec<_>>>()?,
        None => Vec::new(),
    });
    let first = peer.calls.first().context("no network call")?.here;
    let begun = start.mapv(|v| (f64::from(v) * peer.init_noise_sigma * peer.unit(first)) as f32);
    let mut x = begun.clone();
    for (i, (call, alpha_bar)) in peer.calls.iter().zip(&alpha_bars).enumerate() {
        let at = At {
            diffusion: &peer.diffusion,
            limit: peer.limit,
            iteration: i,
            node: call.node,
            steps: peer.steps,
            here: call.here,
            next: call.next,
        };
        let output = model.predict(&x, *alpha_bar, peer.diffusion.prediction());
        let Step { sample, .. } = peer.solver.step(&at, &x, &output, &mut noise)?;
        // Images are stored as the library keeps them, some of them divided by alpha.
        let unit = peer.unit(call.next);
        let ours: Vec<f64> = sample.iter().map(|v| f64::from(*v) / unit).collect();
        let stored = trajectory.row(i)?.f64();
        let part = format!("{}[{i}]", name("trajectory"));
        case.compare(&part, &ours, &stored, Rule::OfLargest(rtol));
        x = sample;
    }
    if let Some(exact) = case.find(&name("exact_ode_final")) {
        let Model::Gauss { std } = model else {
            bail!("an exact solution of another model than \"gauss\"");
        };
        let begin = Level::from_alpha_bar(alpha_bars[0]);
        let total = ((begin.alpha * std).powi(2) + begin.sigma.powi(2)).sqrt();
        let ours: Vec<f64> = begun.iter().map(|z| f64::from(*z) * std / total).collect();
        let rule = Rule::OfLargest(rtol);
        case.compare(&name("exact_ode_final"), &ours, &exact.f64(), rule);
    }
    Ok(())
}

/// The network of a case.
enum Model {
    /// Data from a normal distribution.
    Gauss { std: f64 },
    /// Data at +1 and -1.
    TwoPoint,
}

impl Model {
    fn new(json: &Value) -> Result<Self> {
        match string(json, "model")? {
            "gauss" => Ok(Self::Gauss {
                std: number(json, "data_std")?,
            }),
            "twopoint" => Ok(Self::TwoPoint),
            other => bail!("model {other:?} is not known"),
        }
    }

    fn predict(&self, x: &Array4<f32>, bar: f64, prediction: Prediction) -> Array4<f32> {
        let (signal, noise) = (bar.sqrt(), (1.0 - bar).sqrt());
        x.mapv(|x| {
            let x = f64::from(x);
            let epsilon = match self {
                Self::Gauss { std } => x * noise / (bar * std * std + 1.0 - bar),
                Self::TwoPoint => (x - signal * (signal * x / (1.0 - bar)).tanh()) / noise,
            };
            let x_start = (x - noise * epsilon) / signal;
            (match prediction {
                Prediction::Epsilon => epsilon,
                Prediction::Start => x_start,
                Prediction::Velocity => signal * epsilon - noise * x_start,
            }) as f32
        })
    }
}

/// `max(A, B*KEY of the case)`, whatever is said after it.
fn tolerance(case: &Case, json: &Value) -> Result<f64> {
    let rule = case.key("tolerance").and_then(|t| t.get("rtol"));
    let rule = rule.context("has no tolerance.rtol")?;
    let evaluate = |text: &str| -> Option<f64> {
        let inner = text.trim().strip_prefix("max(")?.split_once(')')?.0;
        let (floor, product) = inner.split_once(',')?;
        let (factor, key) = product.split_once('*')?;
        let measured = json.get(key.trim())?.as_f64()?;
        let (floor, factor): (f64, f64) = (floor.trim().parse().ok()?, factor.trim().parse().ok()?);
        Some(floor.max(factor * measured))
    };
    rule.as_f64()
        .or_else(|| rule.as_str().and_then(evaluate))
        .with_context(|| format!("tolerance {rule} is not understood"))
}
