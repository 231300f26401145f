//! The memory that `dis info` and `dis train` announce is what a run takes.

#![allow(clippy::unwrap_used)]

use dis_data::{ImageShape, LoaderOptions, MemoryDataset, load_batch};
use dis_diffusion::GaussianDiffusion;
use dis_model::cost::Cost;
use dis_model::{
    AttentionOptions, Condition, ConditionKind, Conditioning, Ctx, DisConfig, DisModel, MixerKind,
    ModelInput,
};
use dis_tensor::simd::Level;
use dis_tensor::{Backend, Cpu};
use dis_train::config::TrainConfig;
use dis_train::{TrainState, Trainer};

/// Bytes of a forward pass, and of two training steps.
fn measured(config: DisConfig, batch: usize, recompute: bool) -> (f64, f64) {
    let model = DisModel::new(config).unwrap();
    let weights = model.table().initial(0);
    let pixels = config.channels * config.image_size.pixels();
    let labels = vec![0; batch];

    let cpu = Cpu::with_threads(2).unwrap();
    let mut params = cpu.from_f32(&weights);
    cpu.prepare_weights(&mut params, model.table().products())
        .unwrap();
    let image = cpu.from_f32(&vec![0.5; batch * pixels]);
    let input = ModelInput {
        image: &image,
        t: &vec![500.0; batch],
        condition: match config.condition {
            ConditionKind::None => Condition::None,
            _ => Condition::Classes(&labels),
        },
        drop_path: None,
    };
    model.forward(Ctx::new(&cpu, &params), &input).unwrap();
    let inference = cpu.pool_stats().bytes_held;

    let cpu = Cpu::with_threads(2).unwrap();
    let train = TrainConfig {
        batch_size: batch,
        recompute,
        ..TrainConfig::default()
    };
    let diffusion = GaussianDiffusion::new(&Default::default()).unwrap();
    let state = TrainState::new(weights);
    let mut trainer = Trainer::new(cpu.clone(), model, diffusion, train, &state).unwrap();
    let shape = ImageShape::from(config.image_shape());
    let labels = match config.condition {
        ConditionKind::None => None,
        _ => Some(labels),
    };
    let names = vec!["a".into()];
    let names = if labels.is_some() { names } else { Vec::new() };
    let data = MemoryDataset::new("grey", shape, 255, vec![128; batch * pixels], labels, names);
    let batch = load_batch(&data.unwrap(), &LoaderOptions::new(0, batch), 0).unwrap();
    for _ in 0..2 {
        trainer.step(&batch).unwrap();
    }
    (inference as f64, cpu.pool_stats().bytes_held as f64)
}

/// On processors whose tiles have fourteen rows; narrower tiles pack more.
#[test]
fn memory_is_within_a_tenth_of_the_prediction() {
    if !matches!(Cpu::new().level(), Level::Avx512 | Level::Neon) {
        return println!("skipped: other tiles");
    }
    let mut config = DisConfig::new(16, 2, 3, 96, 6);
    let mut classes = config;
    classes.condition = ConditionKind::Classes {
        num_classes: 1,
        null_label: true,
    };
    let mut modulated = classes;
    modulated.conditioning = Conditioning::AdaLn;
    let mut attention = classes;
    attention.mixer = MixerKind::Attention(AttentionOptions::default());
    config.depth = 12;
    let cases = [
        (config, 1),
        (config, 16),
        (classes, 4),
        (modulated, 8),
        (attention, 8),
    ];
    for (config, batch) in cases {
        let cost = Cost::of(&config, batch).unwrap().memory;
        for (recompute, training) in [(false, cost.training), (true, cost.training_recompute)] {
            let (inference, step) = measured(config, batch, recompute);
            let expected = (cost.weights + cost.inference) as f64;
            let expected_step = (cost.weights + cost.optimizer + training) as f64;
            let ratios = [inference / expected, step / expected_step];
            println!("batch {batch}, recompute {recompute}: {ratios:.3?}");
            for ratio in ratios {
                assert!((0.9..=1.1).contains(&ratio), "{config:?}, batch {batch}");
            }
        }
    }
}
