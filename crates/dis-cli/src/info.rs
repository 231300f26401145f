//! `dis info`.

use anyhow::Result;
use dis_model::checkpoint::{Holds, config_to_json};
use dis_model::cost::{Cost, attention_macs, ssm_macs};
use dis_model::{ConditionKind, DisConfig, Metadata};
use dis_ssm::MixingConfig;
use serde_json::{Value, json};

use crate::args::InfoArgs;
use crate::{bundled, say};

/// Prints what is known about a model.
pub fn run(args: InfoArgs) -> Result<()> {
    let (title, metadata) = match &args.model {
        Some(name) => (name.clone(), Metadata::new(zoo(name, &args)?)),
        None => {
            let path = args.checkpoint.as_deref();
            let title = path.map_or("bundled digits model".into(), |p| p.display().to_string());
            (title, bundled::open(path, false, args.null_label)?.metadata)
        }
    };
    let cost = Cost::of(&metadata.model, args.batch_size.max(1))?;
    if args.json {
        return say!(
            "{}",
            serde_json::to_string_pretty(&as_json(&metadata, &cost, &args))?
        );
    }
    say!("{}", text(&title, &metadata, &cost, &args).trim_end())
}

fn zoo(name: &str, args: &InfoArgs) -> Result<DisConfig> {
    let sides = [args.image_size.height, args.image_size.width];
    let (size, channels) = if args.latent {
        if sides.iter().any(|side| !side.is_multiple_of(8)) {
            anyhow::bail!(
                "--image-size {} is not a multiple of 8, as latents need",
                args.image_size
            );
        }
        (sides.map(|side| side / 8), 4)
    } else {
        (sides, args.channels)
    };
    let mut config = DisConfig::zoo(name, size, channels)?;
    if let Some(num_classes) = args.num_classes {
        config.condition = ConditionKind::Classes {
            num_classes,
            null_label: true,
        };
        config.validate()?;
    }
    Ok(config)
}

fn as_json(metadata: &Metadata, cost: &Cost, args: &InfoArgs) -> Value {
    let (m, memory) = (&cost.macs, &cost.memory);
    json!({
        "model": config_to_json(&metadata.model),
        "holds": metadata.holds.map(Holds::name),
        "extra": metadata.extra,
        "parameters": cost.parameters,
        "tokens": cost.tokens,
        "multiply_adds": {
            "patch_embed": m.patch_embed, "time_mlp": m.time_mlp, "context_embed": m.context_embed,
            "in_proj": m.in_proj, "x_proj": m.x_proj, "dt_proj": m.dt_proj, "out_proj": m.out_proj,
            "skip_linear": m.skip_linear, "head": m.head, "ada_ln": m.ada_ln, "conv": m.conv,
            "attention_linear": m.attention_linear, "attention": m.attention, "mlp": m.mlp,
            "scan": m.scan(), "linear": m.linear(), "total": m.total(),
        },
        "batch_size": args.batch_size.max(1),
        "bytes": {
            "weights": memory.weights, "inference": memory.inference,
            "optimizer": memory.optimizer, "training": memory.training,
            "training_recompute": memory.training_recompute,
        },
    })
}

/// What mixes the tokens: a name and its widths.
fn mixing(config: MixingConfig) -> (&'static str, String) {
    match config {
        MixingConfig::Mamba(mixer) => (
            "  state space",
            format!(
                "d_inner {}, d_state {}, d_conv {}, dt_rank {}",
                mixer.d_inner, mixer.d_state, mixer.d_conv, mixer.dt_rank
            ),
        ),
        MixingConfig::Attention(mixer) => (
            "  self-attention",
            format!(
                "{} heads of {}, perceptron {}{}",
                mixer.heads,
                mixer.head_width(),
                mixer.d_mlp,
                if mixer.qkv_bias { ", qkv bias" } else { "" }
            ),
        ),
    }
}

/// 1234567 as 1,234,567.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn text(title: &str, metadata: &Metadata, cost: &Cost, args: &InfoArgs) -> String {
    let config = &metadata.model;
    let (m, memory) = (&cost.macs, &cost.memory);
    let mut out = format!("{title}\n");
    let mut line = |name: &str, text: String| out.push_str(&format!("{name:<26}{text}\n"));
    line(
        "  input",
        format!(
            "{} x {} x {}, patch {}",
            config.channels, config.image_size.height, config.image_size.width, config.patch_size
        ),
    );
    line(
        "  width, blocks",
        format!(
            "{}, {} (depth {})",
            config.embed_dim,
            config.blocks(),
            config.depth
        ),
    );
    let (name, text) = mixing(config.mixing());
    line(name, text);
    line(
        "  condition",
        format!("{:?} as {:?}", config.condition, config.conditioning),
    );
    line(
        "  skips, norm, sigma",
        format!(
            "{:?}, {:?}, {}",
            config.skip,
            config.norm,
            if config.learn_sigma {
                "learned"
            } else {
                "fixed"
            }
        ),
    );
    if let Some(holds) = metadata.holds {
        line("  holds", holds.name().to_string());
    }
    for (key, value) in &metadata.extra {
        line(&format!("  {key}"), value.to_string());
    }
    line("parameters", grouped(cost.parameters));
    line(
        "tokens",
        format!("{} ({} patches)", cost.tokens, config.patches()),
    );
    line(
        "multiply-adds, one image",
        format!("{} (forward)", grouped(m.total())),
    );
    let parts = [
        ("  in_proj", m.in_proj),
        ("  x_proj", m.x_proj),
        ("  dt_proj", m.dt_proj),
        ("  out_proj", m.out_proj),
        ("  skip_linear", m.skip_linear),
        ("  scan", m.scan()),
        ("  conv", m.conv),
        ("  attention, linear", m.attention_linear),
        ("  attention, 2J^2D", m.attention),
        ("  perceptron", m.mlp),
        (
            "  embeddings and decoder",
            m.patch_embed + m.time_mlp + m.context_embed + m.head + m.ada_ln,
        ),
    ];
    // Of two kinds of mixers one is not there.
    for (name, part) in parts.into_iter().filter(|(_, part)| *part > 0) {
        let share = 100.0 * part as f64 / m.total().max(1) as f64;
        line(name, format!("{:>20}  {share:4.1} %", grouped(part)));
    }
    let (width, states) = (config.embed_dim as u64, config.ssm.d_state as u64);
    line(
        "paper's forms, one layer",
        format!(
            "state space 3J(2D)N + J(2D)N^2 = {}; attention 4JD^2 + 2J^2D = {}",
            grouped(ssm_macs(cost.tokens, width, states)),
            grouped(attention_macs(cost.tokens, width)),
        ),
    );
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64);
    let batch = args.batch_size.max(1);
    line("memory, float32", format!("batch {batch}"));
    line("  weights", mib(memory.weights));
    line(
        "  inference",
        format!("{} + weights", mib(memory.inference)),
    );
    line(
        "  optimizer",
        format!(
            "{} (gradients, both moments, average)",
            mib(memory.optimizer)
        ),
    );
    line(
        "  training",
        format!(
            "{} + weights + optimizer ({} with recompute)",
            mib(memory.training),
            mib(memory.training_recompute)
        ),
    );
    line("  training, all", mib(memory.whole_training(false)));
    out
}
