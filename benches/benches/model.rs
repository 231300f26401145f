//! A mixer alone, and whole models: the forward pass, a sampling step and a training step of DiS-S/2 at
//! 32 x 32, and a training step of the digits model.

#![allow(missing_docs, clippy::expect_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dis_data::{Batch, ImageShape, LoaderOptions, MemoryDataset, load_batch, open};
use dis_diffusion::{
    GaussianDiffusion, Guidance, Guided, Options, SamplerSpec, SeededNoise, Spacing, sample,
};
use dis_model::{Condition, ConditionKind, Ctx, DisConfig, DisModel, ModelInput};
use dis_pipeline::ModelDenoiser;
use dis_ssm::{Mixer, MixerConfig, MixerInit, ParamTable, TokenBuf};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Backend, Cpu, Layout, Precision};
use dis_train::config::TrainConfig;
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
                            .forward(Ctx::new(&cpu, &params), black_box(&input))
                            .expect("output")
                    })
                });
            });
        }
    }
}

/// The mixer of DiS-S over 257 tokens.
fn mixer(c: &mut Criterion) {
    let mut table = ParamTable::new();
    let config = MixerConfig::new(368);
    let mixer = Mixer::new(&mut table, "", config, MixerInit::default(), 1.0);
    let mut group = c.benchmark_group("mixer/257x368");
    for threads in [1, 2] {
        let cpu = cpu(threads);
        let mut params = cpu.from_f32(&table.initial(0));
        cpu.prepare_weights(&mut params, table.products())
            .expect("prepared weights");
        let layout = Layout::dense(1, 257, 368);
        let x = TokenBuf::<Cpu>::from_f32(&cpu, layout, &normals(257 * 368));
        let mut y = TokenBuf::<Cpu>::new(&cpu, layout);
        group.bench_function(format!("threads {threads}"), |b| {
            b.iter(|| {
                cpu.install(|| {
                    mixer
                        .forward(Ctx::new(&cpu, &params), x.view(), y.view_mut())
                        .expect("output");
                });
            });
        });
    }
}

/// Two guided steps of DDIM: both halves of guidance are one batch of two.
fn sampling(c: &mut Criterion) {
    let mut config = DisConfig::zoo("DiS-S/2", 32, 3).expect("a zoo entry");
    config.condition = ConditionKind::Classes {
        num_classes: 10,
        null_label: true,
    };
    let model = DisModel::new(config).expect("a model");
    let cpu = cpu(2);
    let mut params = cpu.from_f32(&model.table().initial(0));
    cpu.prepare_weights(&mut params, model.table().products())
        .expect("prepared weights");
    let sampler: SamplerSpec = "ddim".parse().expect("a sampler");
    let plan = sampler
        .plan(&Options::default(), 2, Spacing::Linspace)
        .expect("a plan");
    let mut group = c.benchmark_group("sampling/DiS-S2-32x32, two steps of one image");
    group.sample_size(10);
    for (name, interval) in [("guided", None), ("guided outside", Some(2000.0..=3000.0))] {
        let guidance = Guidance {
            interval,
            ..Guidance::new(2.0)
        };
        group.bench_function(name, |b| {
            b.iter(|| {
                let network = ModelDenoiser::new(&cpu, &model, &params, &[3]);
                let mut network = Guided::new(network, guidance.clone());
                let mut noise = SeededNoise::new(0, 0..1);
                let start = noise.start([3, 32, 32]);
                cpu.install(|| {
                    sample(&plan, &mut network, &mut noise, start, |_| {}).expect("an image")
                })
            });
        });
    }
}

fn training(c: &mut Criterion) {
    let mut small = DisConfig::new(8, 2, 1, 64, 4);
    small.condition = ConditionKind::Classes {
        num_classes: 10,
        null_label: true,
    };
    small.drop_path_rate = 0.0;
    let digits = open(&"digits".parse().expect("a specification")).expect("the digits");
    let batch = load_batch(&*digits, &LoaderOptions::new(0, 128), 0).expect("a batch");
    step(c, "digits, batch 128", small, &batch, &[false]);

    let large = DisConfig::zoo("DiS-S/2", 32, 3).expect("a zoo entry");
    let shape = ImageShape {
        channels: 3,
        height: 32,
        width: 32,
    };
    let grey = vec![128; 8 * shape.len()];
    let data = MemoryDataset::new("grey", shape, u8::MAX, grey, None, Vec::new());
    let data = data.expect("a data set");
    let batch = load_batch(&data, &LoaderOptions::new(0, 8), 0).expect("a batch");
    step(c, "DiS-S2-32x32, batch 8", large, &batch, &[false, true]);
}

fn step(c: &mut Criterion, name: &str, config: DisConfig, batch: &Batch, recompute: &[bool]) {
    let mut group = c.benchmark_group(format!("training step/{name}"));
    group.sample_size(10);
    for (threads, &recompute) in [1, 2]
        .iter()
        .flat_map(|t| recompute.iter().map(move |r| (t, r)))
    {
        let cpu = cpu(*threads);
        let model = DisModel::new(config).expect("a model");
        let state = TrainState::new(model.table().initial(0));
        let diffusion = GaussianDiffusion::new(&Options::default()).expect("a diffusion");
        let train = TrainConfig {
            batch_size: batch.draws.len(),
            recompute,
            ..TrainConfig::default()
        };
        let mut trainer =
            Trainer::new(cpu.clone(), model, diffusion, train, &state).expect("a trainer");
        let recompute = if recompute { ", recompute" } else { "" };
        group.bench_function(format!("threads {threads}{recompute}"), |b| {
            b.iter(|| cpu.install(|| trainer.step(batch).expect("a step")));
        });
    }
}

criterion_group!(benches, mixer, forward, sampling, training);
criterion_main!(benches);
