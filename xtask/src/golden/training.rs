//! Loss terms and all gradients of a tiny model.

use anyhow::{Context, Result, ensure};
use dis_diffusion::{GaussianDiffusion, Loss};
use dis_model::ModelBackend;
use dis_tensor::Reals;
use ndarray::{Array4, s};

use super::case::{Case, Rule};
use super::config::model_config;
use super::diffusion::{described, diffusion};
use super::network::{Batch, Network, buffer_values, image, labels, other_weights, own_weights};

/// What a loss is computed from.
pub struct LossInputs<'a> {
    /// Clean images.
    pub x_start: &'a Array4<f32>,
    /// Their noise.
    pub noise: &'a Array4<f32>,
    /// Their steps.
    pub t: &'a [usize],
    /// Their labels, for a conditional model.
    pub labels: Option<&'a [u32]>,
}

/// The training loss of a batch; its gradients are added to `grads`.
pub fn loss_and_gradients<B: ModelBackend>(
    network: &Network<'_, B>,
    diffusion: &GaussianDiffusion,
    inputs: &LossInputs<'_>,
    grads: &mut Reals<B>,
) -> Result<Loss> {
    let LossInputs {
        x_start,
        noise,
        t,
        labels,
    } = *inputs;
    let x_t = diffusion.q_sample(x_start, t, noise)?;
    let times = diffusion.network_timesteps(t)?;
    let (batch, channels, height, width) = x_t.dim();
    let shape = (batch, diffusion.network_channels(channels), height, width);
    let x_t = x_t
        .as_slice()
        .context("images are not contiguous")?
        .to_vec();
    let mut loss = None;
    let input = Batch {
        x: &x_t,
        t: &times,
        labels,
        drop_path: None,
    };
    network.gradients(input, grads, |out| {
        let out: Vec<f32> = out.iter().map(|&v| v as f32).collect();
        let out = Array4::from_shape_vec(shape, out)?;
        let whole = s![.., .., .., ..];
        let (found, gradient) = diffusion.training_loss(
            x_start.slice(whole),
            noise.slice(whole),
            t,
            out.slice(whole),
            None,
        )?;
        loss = Some(found);
        Ok(gradient.iter().copied().collect())
    })?;
    loss.context("no loss was computed")
}

/// The L2 norm of an arena.
pub fn norm(arena: &[f64]) -> f64 {
    arena.iter().map(|g| g * g).sum::<f64>().sqrt()
}

/// "training_losses".
pub fn training_losses<B: ModelBackend>(case: &Case, backend: &B) -> Result<()> {
    let config = model_config(case.object("config")?)?;
    let network = Network::new(config, backend, |table| match case.key("weights") {
        Some(_) => other_weights(case, case.text("weights")?, table),
        None => own_weights(case, "param.", table),
    })?;
    let diffusion = diffusion(&described(case, "obtained"), config.learn_sigma)?;
    let x_start = image(case.tensor("x_start")?)?;
    let noise = image(case.tensor("noise")?)?;
    let ids = case.find("labels").map(labels).transpose()?;

    let mut labels: Vec<String> = case.names("");
    labels.retain(|name| name.ends_with(".t"));
    ensure!(!labels.is_empty(), "no timesteps are stored");
    for label in labels {
        let label = label.trim_end_matches(".t");
        let name = |part: &str| format!("{label}.{part}");
        let t = case.tensor(&name("t"))?.indices()?;
        let losses = Rule::OfLargest(case.tolerance(&[label, "losses", "rtol"])?);
        let gradients = Rule::OfLargest(case.tolerance(&[label, "grads", "rtol"])?);
        let mut grads = network.zero_grads();
        let inputs = LossInputs {
            x_start: &x_start,
            noise: &noise,
            t: &t,
            labels: ids.as_deref(),
        };
        let loss = loss_and_gradients(&network, &diffusion, &inputs, &mut grads)?;
        for (part, ours) in [("mse", &loss.mse), ("vb", &loss.vb)] {
            if let Some(ours) = ours {
                case.expect_if_stored(&name(part), ours, losses)?;
            }
        }
        case.expect(&name("loss"), &loss.total, losses)?;
        case.expect_if_stored(&name("mean_loss"), &[loss.mean], losses)?;
        let ours = norm(&buffer_values(backend, &grads)?);
        case.expect_if_stored(&name("grad_norm"), &[ours], gradients)?;
        let prefix = name("grad.");
        if !case.names(&prefix).is_empty() {
            network.expect_arena(case, &prefix, &grads, gradients)?;
        }
    }
    Ok(())
}
