//! A short training run replayed: the same data, draws and first weights must give the same
//! losses, gradient norms and last weights.

use anyhow::{Context, Result, ensure};
use dis_diffusion::GaussianDiffusion;
use dis_model::DisConfig;
use dis_model::ModelBackend;
use dis_tensor::{AdamState, AdamW};
use ndarray::Array4;
use serde_json::Value;

use super::case::{Case, Rule, number, string, whole};
use super::config::model_config;
use super::diffusion::{described, diffusion};
use super::network::{Network, buffer_values, image, labels, other_weights};
use super::training::{LossInputs, loss_and_gradients};
use dis_golden::Tensor;

/// What both runs share.
struct Replay<'a, B: ModelBackend> {
    case: &'a Case,
    backend: &'a B,
    config: DisConfig,
    diffusion: GaussianDiffusion,
    steps: usize,
    optimizer: AdamW,
    /// One for each step, and one that is only scored.
    batches: Vec<StoredBatch>,
}

struct StoredBatch {
    x_start: Array4<f32>,
    noise: Array4<f32>,
    t: Vec<usize>,
    labels: Option<Vec<u32>>,
}

/// What a run leaves.
struct Outcome {
    loss: Vec<f64>,
    mse: Vec<f64>,
    vb: Vec<f64>,
    grad_norm: Vec<f64>,
    params: Vec<f64>,
    ema: Vec<f64>,
}

/// "training_replay".
pub fn training_replay<B: ModelBackend>(case: &Case, backend: &B) -> Result<()> {
    let config = model_config(case.object("config")?)?;
    ensure!(
        config.drop_path_rate == 0.0,
        "a replay with stochastic depth has no stored masks"
    );
    let replay = Replay {
        case,
        backend,
        config,
        diffusion: diffusion(&described(case, "diffusion"), config.learn_sigma)?,
        steps: whole(&case.manifest.json, "steps")?,
        optimizer: optimizer(case)?,
        batches: batches(case, &config)?,
    };
    replay.plain()?;
    if !case.names("clip_warmup.").is_empty() {
        replay.clipped()?;
    }
    Ok(())
}

/// The first `steps` steps of the plain run alone: losses and gradient norms.
pub fn first_steps<B: ModelBackend>(case: &Case, backend: &B, steps: usize) -> Result<()> {
    let config = model_config(case.object("config")?)?;
    let mut batches = batches(case, &config)?;
    batches.truncate(steps + 1);
    let replay = Replay {
        case,
        backend,
        config,
        diffusion: diffusion(&described(case, "diffusion"), config.learn_sigma)?,
        steps,
        optimizer: optimizer(case)?,
        batches,
    };
    let out = replay.run(&vec![replay.optimizer.lr; steps], None)?;
    let rule = Rule::OfLargest(case.tolerance(&["plain_losses", "rtol"])?);
    for (name, ours) in [
        ("plain.loss", &out.loss),
        ("plain.mse", &out.mse),
        ("plain.vb", &out.vb),
        ("plain.grad_norm", &out.grad_norm),
    ] {
        if let Some(stored) = case.find(name) {
            let count = ours.len();
            let stored = stored.f64();
            ensure!(
                stored.len() >= count,
                "{name} has fewer than {count} values"
            );
            case.compare(name, ours, &stored[..count], rule);
        }
    }
    Ok(())
}

fn optimizer(case: &Case) -> Result<AdamW> {
    let json = case.key("optimizer").context("has no \"optimizer\"")?;
    ensure!(
        string(json, "name")? == "AdamW",
        "optimizer {json} is not AdamW"
    );
    let betas = json
        .get("betas")
        .and_then(Value::as_array)
        .context("no betas")?;
    let beta = |i: usize| {
        betas
            .get(i)
            .and_then(Value::as_f64)
            .context("two betas are needed")
    };
    Ok(AdamW {
        lr: number(json, "lr")?,
        beta1: beta(0)?,
        beta2: beta(1)?,
        eps: number(json, "eps")?,
        weight_decay: number(json, "weight_decay")?,
        step: 1,
        grad_scale: 1.0,
        max_grad_norm: None,
        ema_decay: number(&case.manifest.json, "ema_decay")?,
    })
}

/// `v/DIVISOR-1` in the description of the images says how levels become values.
fn divisor(case: &Case, images: &str) -> Result<f64> {
    let entries = case.list("tensors")?;
    let entry = entries
        .iter()
        .find(|e| e.get("name").is_some_and(|n| n == images));
    let meaning = entry
        .and_then(|e| e.get("meaning"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let rule = meaning
        .split_once("v/")
        .and_then(|(_, rest)| rest.split_once("-1"));
    let (divisor, _) = rule.with_context(|| format!("no rule v/N-1 for pixels in {meaning:?}"))?;
    divisor
        .trim()
        .parse()
        .with_context(|| format!("pixels by {divisor:?}"))
}

fn batches(case: &Case, config: &DisConfig) -> Result<Vec<StoredBatch>> {
    const IMAGES: &str = "images_u8";
    let images = case.tensor(IMAGES)?;
    let divisor = divisor(case, IMAGES)?;
    let pixels: Vec<f32> = images
        .f64()
        .iter()
        .map(|v| (v / divisor - 1.0) as f32)
        .collect();
    let size = config.channels * config.image_size.pixels();
    let all_labels = case.find("labels").map(labels).transpose()?;
    let (indices, t, noise) = (
        case.tensor("indices")?,
        case.tensor("t")?,
        case.tensor("noise")?,
    );
    let drop = case.find("drop");
    let rows = *indices.shape.first().context("indices is a scalar")?;
    let batch = whole(&case.manifest.json, "batch")?;
    let mut batches = Vec::with_capacity(rows);
    for row in 0..rows {
        let chosen = indices.row(row)?.indices()?;
        ensure!(
            chosen.len() == batch,
            "row {row} has {} indices",
            chosen.len()
        );
        let mut x_start = Vec::with_capacity(batch * size);
        for &i in &chosen {
            let image = pixels.get(i * size..(i + 1) * size);
            x_start.extend_from_slice(image.with_context(|| format!("there is no image {i}"))?);
        }
        let [channels, height, width] = config.image_shape();
        let shape = (batch, channels, height, width);
        batches.push(StoredBatch {
            x_start: Array4::from_shape_vec(shape, x_start)?,
            noise: image(&noise.row(row)?)?,
            t: t.row(row)?.indices()?,
            labels: batch_labels(&all_labels, &chosen, drop, row, config)?,
        });
    }
    Ok(batches)
}

fn batch_labels(
    all: &Option<Vec<u32>>,
    chosen: &[usize],
    drop: Option<&Tensor>,
    row: usize,
    config: &DisConfig,
) -> Result<Option<Vec<u32>>> {
    let Some(all) = all else { return Ok(None) };
    let mut ids = Vec::with_capacity(chosen.len());
    for &i in chosen {
        ids.push(
            *all.get(i)
                .with_context(|| format!("there is no label {i}"))?,
        );
    }
    if let Some(drop) = drop {
        for (id, drop) in ids.iter_mut().zip(drop.row(row)?.f64()) {
            if drop != 0.0 {
                *id = config
                    .null_label()
                    .context("labels are dropped without a null label")?;
            }
        }
    }
    Ok(Some(ids))
}

impl<B: ModelBackend> Replay<'_, B> {
    fn network(&self) -> Result<Network<'_, B>> {
        Network::new(self.config, self.backend, |table| {
            other_weights(self.case, self.case.text("weights_init")?, table)
        })
    }

    /// A run with the learning rate of each step, from the first weights.
    fn run(&self, lr: &[f64], max_grad_norm: Option<f64>) -> Result<Outcome> {
        ensure!(self.batches.len() > self.steps, "fewer batches than steps");
        ensure!(
            lr.len() == self.steps,
            "{} learning rates for {} steps",
            lr.len(),
            self.steps
        );
        let backend = self.backend;
        let mut network = self.network()?;
        let len = network.model.table().len();
        let (mut m, mut v) = (backend.zeros(len), backend.zeros(len));
        let mut ema = backend.upload(&backend.download(&network.params));
        let mut out = Outcome {
            loss: Vec::new(),
            mse: Vec::new(),
            vb: Vec::new(),
            grad_norm: Vec::new(),
            params: Vec::new(),
            ema: Vec::new(),
        };
        for (step, batch) in self.batches.iter().enumerate() {
            let inputs = LossInputs {
                x_start: &batch.x_start,
                noise: &batch.noise,
                t: &batch.t,
                labels: batch.labels.as_deref(),
            };
            let mut grads = network.zero_grads();
            let loss = loss_and_gradients(&network, &self.diffusion, &inputs, &mut grads)?;
            let mean = |x: &Option<Vec<f64>>| {
                x.as_ref()
                    .map_or(0.0, |x| x.iter().sum::<f64>() / x.len() as f64)
            };
            out.loss.push(loss.mean);
            out.mse.push(mean(&loss.mse));
            out.vb.push(mean(&loss.vb));
            // Batches after the last step are only scored.
            let Some(&lr) = lr.get(step) else { continue };
            let mut grad_norm = backend.zeros(1);
            backend.global_norm(&grads, &mut grad_norm)?;
            out.grad_norm.extend(buffer_values(backend, &grad_norm)?);
            let state = AdamState {
                params: &mut network.params,
                grads: &grads,
                m: &mut m,
                v: &mut v,
                ema: &mut ema,
                grad_norm: &grad_norm,
            };
            let step = step as u64 + 1;
            backend.adamw(
                state,
                AdamW {
                    lr,
                    step,
                    max_grad_norm,
                    ..self.optimizer
                },
            )?;
        }
        out.params = buffer_values(backend, &network.params)?;
        out.ema = buffer_values(backend, &ema)?;
        Ok(out)
    }

    fn plain(&self) -> Result<()> {
        let case = self.case;
        let out = self.run(&vec![self.optimizer.lr; self.steps], None)?;
        let losses = Rule::OfLargest(case.tolerance(&["plain_losses", "rtol"])?);
        case.expect("plain.loss", &out.loss, losses)?;
        case.expect_if_stored("plain.mse", &out.mse, losses)?;
        case.expect_if_stored("plain.vb", &out.vb, losses)?;
        case.expect_if_stored("plain.grad_norm", &out.grad_norm, losses)?;

        let network = self.network()?;
        let table = network.model.table();
        let load = |key: &str| -> Result<Vec<f64>> {
            let arena = other_weights(case, case.text(key)?, table)?;
            Ok(arena.into_iter().map(f64::from).collect())
        };
        let max_abs = case.tolerance(&["final_weights", "max_abs"])?;
        let rms = case.tolerance(&["final_weights", "rms_over_all_parameters", "allowed"])?;
        let stored = load("weights_final")?;
        for spec in table.specs() {
            let range = spec.offset..spec.offset + spec.len();
            let name = format!("final {}", spec.name);
            case.compare(
                &name,
                &out.params[range.clone()],
                &stored[range],
                Rule::Absolute(max_abs),
            );
        }
        let squares: f64 = out
            .params
            .iter()
            .zip(&stored)
            .map(|(a, b)| (a - b).powi(2))
            .sum();
        let off = (squares / table.parameters() as f64).sqrt();
        case.record("final, rms over all parameters", off, rms);
        if case.key("weights_ema").is_some() {
            let rule = Rule::Absolute(case.tolerance(&["ema", "max_abs"])?);
            case.compare("ema", &out.ema, &load("weights_ema")?, rule);
        }
        Ok(())
    }

    /// The second run: gradients clipped, learning rate warmed up.
    fn clipped(&self) -> Result<()> {
        let case = self.case;
        let lr = case.tensor("clip_warmup.lr")?.f64();
        let out = self.run(&lr, Some(max_grad_norm(case)?))?;
        let losses = Rule::OfLargest(case.tolerance(&["clip_warmup_losses", "rtol"])?);
        case.expect("clip_warmup.loss", &out.loss, losses)?;
        case.expect_if_stored("clip_warmup.grad_norm", &out.grad_norm, losses)?;
        let Some(checksums) = case.key("clip_warmup_final_checksums") else {
            return Ok(());
        };
        let checksums = checksums
            .as_object()
            .context("checksums are not an object")?;
        let network = self.network()?;
        let table = network.model.table();
        let max_abs = case.tolerance(&["final_weights", "max_abs"])?;
        let rms = case.tolerance(&["final_weights", "rms_over_all_parameters", "allowed"])?;
        ensure!(
            checksums.len() == table.specs().len(),
            "{} checksums",
            checksums.len()
        );
        for spec in table.specs() {
            let name = |part: &str| format!("clipped {part} of {}", spec.name);
            let stored = checksums
                .get(&spec.name)
                .with_context(|| name("checksum"))?;
            let ours = &out.params[spec.offset..spec.offset + spec.len()];
            let first = stored
                .get("first")
                .and_then(Value::as_array)
                .context("no first values")?;
            let first: Vec<f64> = first.iter().filter_map(Value::as_f64).collect();
            let ours_first = &ours[..first.len().min(ours.len())];
            case.compare(&name("first"), ours_first, &first, Rule::Absolute(max_abs));
            // What a sum and a sum of squares move by if the tensor is off by the allowed rms.
            let (sum, sumsq) = (number(stored, "sum")?, number(stored, "sumsq")?);
            let n = spec.len() as f64;
            let ours_sum: f64 = ours.iter().sum();
            case.compare(&name("sum"), &[ours_sum], &[sum], Rule::Absolute(n * rms));
            let ours_sumsq: f64 = ours.iter().map(|x| x * x).sum();
            let allowed = 2.0 * (sumsq * n).sqrt() * rms + n * rms * rms;
            case.compare(
                &name("sumsq"),
                &[ours_sumsq],
                &[sumsq],
                Rule::Absolute(allowed),
            );
        }
        Ok(())
    }
}

/// The bound in the description of the second run.
fn max_grad_norm(case: &Case) -> Result<f64> {
    if let Some(bound) = case.key("max_grad_norm").and_then(Value::as_f64) {
        return Ok(bound);
    }
    let text = case.text("clip_warmup_variant")?;
    let rest = text
        .split_once("global norm ")
        .map(|(_, rest)| rest.split([' ', ',', ';']).next());
    let bound = rest.flatten().and_then(|word| word.parse().ok());
    bound.with_context(|| format!("no bound of the norm in {text:?}"))
}
