//! A sample has the same bits alone and in any batch, at any place of it, with any number of threads.

#![allow(clippy::unwrap_used)]

use dis_model::{
    AttentionOptions, Condition, ConditionKind, Conditioning, Ctx, DisConfig, DisModel, MixerKind,
    ModelInput,
};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::simd::supported;
use dis_tensor::{Accum, Backend, Cpu, Layout, Matrix, Precision, Reals, Tokens, TokensMut};

fn normals(count: usize, key: u64) -> Vec<f32> {
    let mut out = vec![0.0; count];
    Stream::new(7, Purpose::Test, key, 0).fill_normal(&mut out);
    out
}

/// Outputs of samples, each as one vector.
fn outputs(cpu: &Cpu, model: &DisModel, weights: &[f32], samples: &[u64]) -> Vec<Vec<f32>> {
    outputs_of(cpu, model, &cpu.from_f32(weights), samples)
}

fn outputs_of(cpu: &Cpu, model: &DisModel, params: &Reals<Cpu>, samples: &[u64]) -> Vec<Vec<f32>> {
    let config = model.config();
    let pixels = config.channels * config.image_size.pixels();
    let image: Vec<f32> = samples.iter().flat_map(|&s| normals(pixels, s)).collect();
    let image = cpu.from_f32(&image);
    let t: Vec<f64> = samples.iter().map(|&s| 13.7 * s as f64).collect();
    let labels: Vec<u32> = samples.iter().map(|&s| (s % 3) as u32).collect();
    let input = ModelInput {
        image: &image,
        t: &t,
        condition: Condition::Classes(&labels),
        drop_path: None,
    };
    let out = cpu.to_f32(&model.forward(Ctx::new(cpu, params), &input).unwrap());
    let each = out.len() / samples.len();
    out.chunks_exact(each).map(<[f32]>::to_vec).collect()
}

fn mixers() -> [(Conditioning, MixerKind); 3] {
    let attention = MixerKind::Attention(AttentionOptions {
        heads: Some(1),
        ..AttentionOptions::default()
    });
    [
        (Conditioning::Tokens, MixerKind::Mamba),
        (Conditioning::AdaLn, MixerKind::Mamba),
        (Conditioning::Tokens, attention),
    ]
}

fn network(conditioning: Conditioning, mixer: MixerKind, dim: usize) -> (DisModel, Vec<f32>) {
    let mut config = DisConfig::new(12, 2, 3, dim, 4);
    config.mixer = mixer;
    config.conditioning = conditioning;
    config.condition = ConditionKind::Classes {
        num_classes: 3,
        null_label: true,
    };
    let model = DisModel::new(config).unwrap();
    let mut weights = model.table().initial(1);
    // Nothing stays zero, so that nothing is left out.
    let noise = normals(weights.len(), 1 << 40);
    weights
        .iter_mut()
        .zip(noise)
        .for_each(|(w, n)| *w += 0.1 * n);
    (model, weights)
}

#[test]
fn alone_and_in_a_batch_of_64() {
    for (conditioning, mixer) in mixers() {
        let (model, weights) = network(conditioning, mixer, 40);
        let all: Vec<u64> = (0..64).collect();
        for level in supported() {
            let cpu = |threads| Cpu::with_threads(threads).unwrap().with_level(level);
            let batch = outputs(&cpu(3), &model, &weights, &all);
            for sample in [0, 5, 63] {
                let alone = outputs(&cpu(1), &model, &weights, &[sample]);
                assert!(
                    alone[0] == batch[sample as usize],
                    "{level}: sample {sample}"
                );
            }
            let few = outputs(&cpu(2), &model, &weights, &[63, 17, 40]);
            assert!(few[0] == batch[63] && few[1] == batch[17] && few[2] == batch[40]);
        }
    }
}

/// Weights that were packed once give the bits of weights that are packed at every call, for widths
/// that fill panels, that do not, and that are odd.
#[test]
fn prepared_weights_change_nothing() {
    for (conditioning, mixer) in mixers() {
        for dim in [32, 40, 27] {
            let (model, weights) = network(conditioning, mixer, dim);
            for level in supported() {
                for precision in [Precision::Float32, Precision::Bfloat16] {
                    let cpu = |threads| {
                        let cpu = Cpu::with_threads(threads).unwrap();
                        cpu.with_level(level).with_precision(precision)
                    };
                    let plain = outputs(&cpu(1), &model, &weights, &[3, 4]);
                    for threads in [1, 3] {
                        let cpu = cpu(threads);
                        let mut params = cpu.from_f32(&weights);
                        cpu.prepare_weights(&mut params, model.table().products())
                            .unwrap();
                        let prepared = outputs_of(&cpu, &model, &params, &[3, 4]);
                        assert!(prepared == plain, "{level}, {precision:?}, {dim} wide");
                    }
                }
            }
        }
    }
}

/// Uses that prepared weights cannot serve are refused.
#[test]
fn prepared_weights_are_for_forward_passes() {
    let (model, weights) = network(Conditioning::Tokens, MixerKind::Mamba, 32);
    let cpu = Cpu::with_threads(1).unwrap();
    let mut params = cpu.from_f32(&weights);
    let matrix = model.table().products()[0];
    cpu.prepare_weights(&mut params, model.table().products())
        .unwrap();
    let again = cpu.prepare_weights(&mut params, &[matrix]).unwrap_err();
    assert!(again.to_string().contains("already"), "{again}");
    let (rows, columns) = (matrix.rows(), matrix.channels);
    let x = cpu.zeros::<f32>(3 * rows);
    let mut y = cpu.zeros::<f32>(3 * columns);
    let product = |cpu: &Cpu, y: &mut Reals<Cpu>, transpose, inner, outer| {
        cpu.gemm(
            Tokens::new(&x, Layout::matrix(3, inner)),
            Matrix {
                view: Tokens::new(&params, matrix),
                transposed: transpose,
            },
            None,
            Accum::Replace,
            TokensMut::new(y, Layout::matrix(3, outer)),
        )
    };
    let error = product(&cpu, &mut y, false, rows, columns).unwrap_err();
    assert!(error.to_string().contains("transpose"), "{error}");
    let other = cpu.clone().with_precision(Precision::Bfloat16);
    let mut y = cpu.zeros::<f32>(3 * rows);
    let error = product(&other, &mut y, true, columns, rows).unwrap_err();
    assert!(error.to_string().contains("precision"), "{error}");
}
