//! Tiny whole models, every variant: output and all gradients.

use anyhow::Result;
use dis_model::{
    AttentionOptions, Condition, ConditionKind, Conditioning, Ctx, DisConfig, DisModel, MixerKind,
    ModelInput, SsmConfig,
};
use dis_scan::Discretization;
use dis_ssm::SkipKind;
use dis_tensor::NormKind;
use dis_tensor::random::{Purpose, Stream};

use super::data::{Outputs, Probe, read};

/// Names of the variants.
pub const VARIANTS: &[&str] = &[
    "unconditional",
    "classes",
    "context",
    "skip by addition",
    "no skip, LayerNorm",
    "AdaLN",
    "AdaLN, classes",
    "AdaLN, context, LayerNorm",
    "no time MLP, fixed variance",
    "biases, 3 states, zero-order hold",
    "drop path",
    "recomputed",
    "attention",
    "attention, AdaLN, classes, biases, LayerNorm",
    "rectangle, classes",
];

const BATCH: usize = 3;

fn attention(heads: usize, qkv_bias: bool) -> MixerKind {
    MixerKind::Attention(AttentionOptions {
        heads: Some(heads),
        mlp_ratio: 2,
        qkv_bias,
    })
}

fn config(variant: usize) -> DisConfig {
    let classes = ConditionKind::Classes {
        num_classes: 3,
        null_label: true,
    };
    let context = ConditionKind::Context {
        dim: 5,
        tokens: 2,
        null_context: true,
    };
    let mut c = DisConfig::new(4, 2, 2, 6, 3);
    c.ssm.d_state = if variant.is_multiple_of(2) { 16 } else { 4 };
    c.drop_path_rate = 0.0;
    match variant {
        1 | 11 => c.condition = classes,
        2 => c.condition = context,
        3 => c.skip = SkipKind::Add,
        4 => (c.skip, c.norm) = (SkipKind::None, NormKind::Layer),
        5 => c.conditioning = Conditioning::AdaLn,
        6 => (c.conditioning, c.condition) = (Conditioning::AdaLn, classes),
        7 => {
            (c.conditioning, c.condition) = (Conditioning::AdaLn, context);
            c.norm = NormKind::Layer;
        }
        8 => (c.mlp_time_embed, c.learn_sigma) = (false, false),
        9 => {
            c.ssm = SsmConfig {
                d_state: 3,
                d_conv: 3,
                expand: 1,
                dt_rank: Some(2),
                bias: true,
                conv_bias: false,
                discretization: Discretization::ZeroOrderHold,
            };
        }
        10 => (c.condition, c.drop_path_rate, c.depth) = (classes, 0.5, 4),
        12 => c.mixer = attention(2, false),
        13 => {
            c.mixer = attention(3, true);
            (c.conditioning, c.condition) = (Conditioning::AdaLn, classes);
            c.norm = NormKind::Layer;
        }
        14 => (c.image_size, c.condition) = ([4, 6].into(), classes),
        _ => {}
    }
    c
}

/// Runs a variant forward and backward.
pub fn model<B: Probe>(b: &B, variant: usize, seed: u64) -> Result<Outputs> {
    let config = config(variant);
    let model = DisModel::new(config)?;
    let mut stream = Stream::new(seed, Purpose::Test, 2, 0);
    let mut normals = |count: usize, scale: f64| -> Vec<f32> {
        (0..count)
            .map(|_| (scale * stream.normal()) as f32)
            .collect()
    };
    let mut weights = model.table().initial(3);
    for spec in model.table().specs() {
        let noise = normals(spec.len(), 0.2);
        let range = spec.offset..spec.offset + spec.len();
        for (w, n) in weights[range].iter_mut().zip(noise) {
            *w += n;
        }
    }
    let pixels = BATCH * config.image_size.pixels();
    let image = normals(pixels * config.channels, 1.0);
    let cotangent = normals(pixels * config.out_channels(), 1.0);
    let embeddings = normals(BATCH * 5 * 2, 1.0);
    let rates = config.drop_rates();
    let drop_path: Option<Vec<Vec<f32>>> = (config.drop_path_rate > 0.0).then(|| {
        let site = |rate: &f64| match *rate > 0.0 {
            true => vec![
                0.0,
                (1.0 / (1.0 - rate)) as f32,
                (1.0 / (1.0 - rate)) as f32,
            ],
            false => Vec::new(),
        };
        rates.iter().map(site).collect()
    });
    let condition = match config.condition {
        ConditionKind::None => Condition::None,
        ConditionKind::Classes { .. } => Condition::Classes(&[1, 2, 0]),
        ConditionKind::Context { .. } => Condition::Context {
            embeddings: &embeddings,
            null: &[false, true, false],
        },
    };
    let (params, x) = (b.from_f32(&weights), b.from_f32(&image));
    let input = ModelInput {
        image: &x,
        t: &[3.0, 250.5, 999.0],
        condition,
        drop_path: drop_path.as_deref(),
    };
    let recompute = VARIANTS[variant] == "recomputed";
    let (out, saved) = model.forward_saved(Ctx::new(b, &params), &input, recompute)?;
    let dout = b.from_f32(&cotangent);
    let (mut grads, mut dimage) = (b.zeros(weights.len()), b.zeros(image.len()));
    model.backward(
        Ctx::new(b, &params),
        saved,
        &dout,
        &mut grads,
        Some(&mut dimage),
    )?;
    Ok(vec![
        ("model", read(b, &out)),
        ("model dparams", read(b, &grads)),
        ("model dimage", read(b, &dimage)),
    ])
}
