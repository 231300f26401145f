//! Published entries at full size, with weights from an integer hash instead of a file.

use anyhow::{Context, Result, ensure};
use dis_model::ModelBackend;
use dis_ssm::{ParamSpec, ParamTable};
use serde_json::Value;

use super::case::{Case, Rule, whole};
use super::config::zoo_config;
use super::network::{Batch, Network, labels};

/// Name under which the input image is drawn.
const INPUT: &str = "input.x";

/// FNV-1a, 32 bits.
fn fnv1a32(key: &str) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    key.bytes().fold(0x811C_9DC5, step)
}

/// The rule's value in [-1, 1) for element `index` of `key`.
fn unit(seed: u32, index: u32) -> f64 {
    let mut h = index.wrapping_mul(0x9E37_79B9).wrapping_add(seed);
    h ^= h >> 16;
    h = h.wrapping_mul(0x85EB_CA6B);
    h ^= h >> 13;
    h = h.wrapping_mul(0xC2B2_AE35);
    h ^= h >> 16;
    2.0 * (f64::from(h >> 8) / f64::from(1u32 << 24)) - 1.0
}

/// Offset of column 0 (later columns only where `log_columns`) and scale; first match wins.
struct Affine {
    offset: f64,
    log_columns: bool,
    scale: f64,
}

fn affine(key: &str, shape: &[usize], dt_rank: usize) -> Affine {
    let last = key.rsplit('.').next().unwrap_or(key);
    let plain = |offset, scale| Affine {
        offset,
        log_columns: false,
        scale,
    };
    if key.ends_with("A_log") || key.ends_with("A_b_log") {
        Affine {
            offset: 0.0,
            log_columns: true,
            scale: 0.1,
        }
    } else if last == "D" || last == "D_b" {
        plain(1.0, 0.3)
    } else if key.ends_with("dt_proj.bias") || key.ends_with("dt_proj_b.bias") {
        plain(-3.5, 1.0)
    } else if key.ends_with("dt_proj.weight") || key.ends_with("dt_proj_b.weight") {
        plain(0.0, 0.5 / (dt_rank as f64).sqrt())
    } else if key.contains("conv1d") && last == "weight" {
        plain(0.0, 0.5)
    } else if key.contains("norm") && last == "weight" {
        plain(1.0, 0.2)
    } else if last == "bias" {
        plain(0.0, 0.1)
    } else if key == "pos_embed" {
        plain(0.0, 0.3)
    } else if key.contains("embedding_table") {
        plain(0.0, 0.5)
    } else {
        let fan_in: usize = shape.iter().skip(1).product();
        let gain = if key == "final_layer.linear.weight" {
            0.75
        } else {
            1.5
        };
        plain(0.0, gain / (fan_in as f64).sqrt())
    }
}

fn fill(spec: &ParamSpec, case_seed: u32, dt_rank: usize, out: &mut [f32]) {
    let seed = fnv1a32(&spec.name) ^ case_seed;
    let Affine {
        offset,
        log_columns,
        scale,
    } = affine(&spec.name, &spec.shape, dt_rank);
    let columns = spec.shape.last().copied().unwrap_or(1).max(1);
    for (i, value) in out.iter_mut().enumerate() {
        let offset = if log_columns {
            ((i % columns + 1) as f64).ln()
        } else {
            offset
        };
        *value = (offset + scale * unit(seed, i as u32)) as f32;
    }
}

/// "full_model".
pub fn full_model<B: ModelBackend>(case: &Case, backend: &B) -> Result<()> {
    let config = zoo_config(case.text("model")?, case.object("setting")?)?;
    let case_seed = u32::try_from(whole(&case.manifest.json, "case_seed")?)?;
    let batch = whole(&case.manifest.json, "batch")?;
    let rule = Rule::OfLargest(case.tolerance(&["rtol"])?);

    let seed = fnv1a32(INPUT) ^ case_seed;
    let pixels = batch * config.channels * config.image_size.pixels();
    let x: Vec<f32> = (0..pixels)
        .map(|i| (1.7 * unit(seed, i as u32)) as f32)
        .collect();
    let network = Network::new(config, backend, |table: &ParamTable| {
        let mut arena = vec![0.0; table.len()];
        for spec in table.specs() {
            let values = &mut arena[spec.offset..spec.offset + spec.len()];
            fill(spec, case_seed, config.dt_rank(), values);
        }
        self_check(case, table, &arena, &x)?;
        Ok(arena)
    })?;

    let t = case.tensor("t")?.f64();
    let ids = case.find("labels").map(labels).transpose()?;
    let batch_input = Batch {
        x: &x,
        t: &t,
        labels: ids.as_deref(),
        drop_path: None,
    };
    let (out, blocks) = network.forward_blocks(batch_input)?;
    case.expect("out", &out, rule)?;
    for (part, word) in ["hidden", "residual"].iter().enumerate() {
        first_tokens(case, word, part, &blocks, config.embed_dim, rule)?;
        let key = format!("block_rms_{word}");
        if let Some(stored) = case.key(&key).and_then(Value::as_array) {
            let stored: Vec<f64> = stored.iter().filter_map(Value::as_f64).collect();
            let rms = |x: &[f64]| (x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64).sqrt();
            let ours: Vec<f64> = blocks.iter().map(|block| rms(&block[part])).collect();
            case.compare(&key, &ours, &stored, rule);
        }
    }
    Ok(())
}

/// The stored first tokens of the first sample, (blocks, tokens, D); their number is in the name.
fn first_tokens(
    case: &Case,
    word: &str,
    part: usize,
    blocks: &[[Vec<f64>; 2]],
    width: usize,
    rule: Rule,
) -> Result<()> {
    for name in case.names(&format!("block_{word}_first")) {
        let shape = &case.tensor(&name)?.shape;
        let tokens = *shape
            .get(1)
            .context("blocks, tokens and width are expected")?;
        let ours: Vec<f64> = blocks
            .iter()
            .flat_map(|block| block[part].iter().take(tokens * width))
            .copied()
            .collect();
        case.expect(&name, &ours, rule)?;
    }
    Ok(())
}

/// First values of some tensors, which tell whether the rule was understood.
fn self_check(case: &Case, table: &ParamTable, arena: &[f32], x: &[f32]) -> Result<()> {
    let Some(checks) = case.key("self_check").and_then(Value::as_object) else {
        return Ok(());
    };
    for (key, stored) in checks {
        if let Some(hashed) = key
            .strip_prefix("fnv1a32(")
            .and_then(|k| k.strip_suffix(')'))
        {
            ensure!(
                stored.as_u64() == Some(u64::from(fnv1a32(hashed))),
                "the hash of {hashed:?} is not {stored}"
            );
            continue;
        }
        let ours = match table.find(key) {
            Some(spec) => &arena[spec.offset..spec.offset + spec.len()],
            None if key == INPUT => x,
            None => anyhow::bail!("self_check of {key:?}, which is no parameter"),
        };
        for (i, value) in stored.as_array().into_iter().flatten().enumerate() {
            // Stored with the shortest digits of the float32, so equal to the bit.
            let stored = value.as_f64().map(|x| x as f32);
            ensure!(
                stored.is_some() && ours.get(i).copied() == stored,
                "element {i} of {key} is {:?} by our rule, but stored as {stored:?}",
                ours.get(i)
            );
        }
    }
    Ok(())
}
