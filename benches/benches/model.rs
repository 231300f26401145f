//! Whole models: the forward pass of DiS-S/2 at 32 x 32 and a training step of the digits model.

#![allow(missing_docs, clippy::expect_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dis_diffusion::GaussianDiffusion;
use dis_model::{Condition, ConditionKind, DisConfig, DisModel, ModelInput};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Backend, Cpu, Precision};
use dis_train::config::TrainConfig;
use dis_train::data::{LoaderOptions, load_batch, open};
use dis_train::{TrainState, Trainer};

fn cpu(threads: usize) -> Cpu {
    Cpu::with_threads(threads).expect("threads")
}

fn normals(count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    Stream::new(0, Purpose::Test, 0, 0).fill_normal(&mut values);
    values
}

fn forward(c: &mut Criterion) {
    let config = DisConfig::zoo("DiS-S/2", 32, 3).expect("a zoo entry");
    let model = DisModel::new(config).expect("a model");
    let weights = model.table().initial(0);
    let mut group = c.benchmark_group("forward/DiS-S2-32x32");
    group.sample_size(10);
    let kinds = [("", Precision::Float32), (", bf16", Precision::Bfloat16)];
    for (threads, (name, precision)) in [1, 2].into_iter().flat_map(|t| kinds.map(|k| (t, k))) {
        let cpu = cpu(threads).with_precision(precision);
        let mut params = cpu.from_f32(&weights);
        cpu.prepare_weights(&mut params, model.table().products())
            .expect("prepared weights");
        for batch in [1, 8] {
            let image = cpu.from_f32(&normals(batch * 3 * 32 * 32));
            let t = vec![500.0; batch];
            group.bench_function(format!("batch {batch}, threads {threads}{name}"), |b| {
                b.iter(|| {
                    let input = ModelInput {
                        image: &image,
                        t: &t,
                        condition: Condition::None,
                        drop_path: None,
                    };
                    cpu.install(|| {
                        model
                            .forward(&cpu, &params, black_box(&input))
                            .expect("output")
                    })
                });
            });
        }
    }
}

fn training(c: &mut Criterion) {
    let mut config = DisConfig::new(8, 2, 1, 64, 4);
    config.condition = ConditionKind::Classes {
        num_classes: 10,
        null_label: true,
    };
    config.drop_path_rate = 0.0;
    let digits = open(&"digits".parse().expect("a specification")).expect("the digits");
    let batch = load_batch(&*digits, &LoaderOptions::new(0, 128), 0).expect("a batch");
    let mut group = c.benchmark_group("training step/digits, batch 128");
    group.sample_size(10);
    for threads in [1, 2] {
        let cpu = cpu(threads);
        let model = DisModel::new(config).expect("a model");
        let state = TrainState::new(model.table().initial(0));
        let diffusion = GaussianDiffusion::new(&Default::default()).expect("a diffusion");
        let train = TrainConfig {
            batch_size: 128,
            ..TrainConfig::default()
        };
        let mut trainer =
            Trainer::new(cpu.clone(), model, diffusion, train, &state).expect("a trainer");
        group.bench_function(format!("threads {threads}"), |b| {
            b.iter(|| cpu.install(|| trainer.step(&batch).expect("a step")));
        });
    }
}

criterion_group!(benches, forward, training);
criterion_main!(benches);
