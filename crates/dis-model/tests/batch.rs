//! A sample has the same bits alone and in any batch, at any place of it, with any number of threads.

#![allow(clippy::unwrap_used)]

use dis_model::{
    AttentionOptions, Condition, ConditionKind, Conditioning, DisConfig, DisModel, MixerKind,
    ModelInput,
};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::simd::supported;
use dis_tensor::{Backend, Cpu};

fn normals(count: usize, key: u64) -> Vec<f32> {
    let mut out = vec![0.0; count];
    Stream::new(7, Purpose::Test, key, 0).fill_normal(&mut out);
    out
}

/// Outputs of samples, each as one vector.
fn outputs(cpu: &Cpu, model: &DisModel, weights: &[f32], samples: &[u64]) -> Vec<Vec<f32>> {
    let config = model.config();
    let pixels = config.channels * config.image_size * config.image_size;
    let image: Vec<f32> = samples.iter().flat_map(|&s| normals(pixels, s)).collect();
    let (params, image) = (cpu.from_f32(weights), cpu.from_f32(&image));
    let t: Vec<f64> = samples.iter().map(|&s| 13.7 * s as f64).collect();
    let labels: Vec<u32> = samples.iter().map(|&s| (s % 3) as u32).collect();
    let input = ModelInput {
        image: &image,
        t: &t,
        condition: Condition::Classes(&labels),
        drop_path: None,
    };
    let out = cpu.to_f32(&model.forward(cpu, &params, &input).unwrap());
    let each = out.len() / samples.len();
    out.chunks_exact(each).map(<[f32]>::to_vec).collect()
}

#[test]
fn alone_and_in_a_batch_of_64() {
    let attention = MixerKind::Attention(AttentionOptions {
        heads: Some(5),
        ..AttentionOptions::default()
    });
    for (conditioning, mixer) in [
        (Conditioning::Tokens, MixerKind::Mamba),
        (Conditioning::AdaLn, MixerKind::Mamba),
        (Conditioning::Tokens, attention),
    ] {
        let mut config = DisConfig::new(12, 2, 3, 40, 4);
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
