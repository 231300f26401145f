use dis_tensor::Cpu;
use dis_tensor::simd::supported;
use proptest::prelude::*;

use super::{error, image, normals};
use crate::attention::Attention;
use crate::config::Activation;
use crate::features::{Conv, Features, Shape, Upsample};
use crate::norm::GroupNorm;
use crate::oracle::{Image, activate, convolve, group_norm};

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn planes(x: &Features) -> Vec<f32> {
    let mut out = vec![0.0; x.data.len()];
    x.to_planes(&mut out);
    out
}

fn backends() -> Vec<Cpu> {
    supported()
        .into_iter()
        .map(|level| Cpu::with_threads(2).unwrap().with_level(level))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// All three kinds, on every instruction set, into fresh memory and on top of values.
    #[test]
    fn convolutions_match_the_oracle(
        from in 1usize..40, to in 1usize..150, h in 1usize..14, w in 1usize..30,
        kind in 0usize..3, seed in any::<u64>(),
    ) {
        let (shape, taps) = [(Shape::Point, 1), (Shape::Same, 9), (Shape::Half, 9)][kind];
        let data = normals(seed, from * h * w);
        let weight = normals(seed ^ 1, to * from * taps);
        let bias = normals(seed ^ 2, to);
        let (side, stride, pad, size) = match shape {
            Shape::Point => (1, 1, 0, [h, w]),
            Shape::Same => (3, 1, 1, [h, w]),
            Shape::Half => (3, 2, 0, [h / 2, w / 2]),
        };
        let input = image([from, h, w], &data);
        let naive = convolve(&input, &wide(&weight), &wide(&bias), side, stride, pad, size);
        let conv = Conv::new(shape, &weight, &bias, [to, from]);
        for cpu in backends() {
            let x = Features::from_planes(&cpu, &data, [from, h, w]);
            let mut out = conv.apply(&cpu, &x);
            prop_assert_eq!([out.height, out.width], size);
            if out.pixels() == 0 {
                continue;
            }
            prop_assert!(error(&planes(&out), &naive.data) < 2e-6);
            conv.add_to(&cpu, &x, &mut out);
            let twice: Vec<f64> = naive.data.iter().map(|x| 2.0 * x).collect();
            prop_assert!(error(&planes(&out), &twice) < 2e-6);
        }
    }

    #[test]
    fn upsampling_matches_doubling_and_convolution(
        channels in 1usize..40, h in 1usize..9, w in 1usize..110, seed in any::<u64>(),
    ) {
        let data = normals(seed, channels * h * w);
        let weight = normals(seed ^ 1, channels * channels * 9);
        let bias = normals(seed ^ 2, channels);
        let input = image([channels, h, w], &data);
        let mut doubled = Image::new([channels, 2 * h, 2 * w], vec![0.0; 4 * data.len()]);
        for c in 0..channels {
            for y in 0..2 * h {
                for x in 0..2 * w {
                    doubled.data[(c * 2 * h + y) * 2 * w + x] =
                        input.data[(c * h + y / 2) * w + x / 2];
                }
            }
        }
        let (weight64, bias64) = (wide(&weight), wide(&bias));
        let naive = convolve(&doubled, &weight64, &bias64, 3, 1, 1, [2 * h, 2 * w]);
        let layer = Upsample::new(&weight, &bias, [channels, channels]);
        for cpu in backends() {
            let x = Features::from_planes(&cpu, &data, [channels, h, w]);
            prop_assert!(error(&planes(&layer.apply(&cpu, &x)), &naive.data) < 2e-6);
        }
    }

    #[test]
    fn normalisation_matches_the_oracle(
        groups in 1usize..6, size in 1usize..9, h in 1usize..40, w in 1usize..40,
        act in 0usize..5, offset in -100.0f32..100.0, seed in any::<u64>(),
    ) {
        let channels = groups * size;
        let mut data = normals(seed, channels * h * w);
        data.iter_mut().for_each(|x| *x += offset);
        let norm = GroupNorm {
            weight: normals(seed ^ 1, channels),
            bias: normals(seed ^ 2, channels),
            groups,
        };
        let act = [
            None,
            Some(Activation::Silu),
            Some(Activation::Relu),
            Some(Activation::Gelu),
            Some(Activation::Mish),
        ][act];
        let input = image([channels, h, w], &data);
        let mut naive = group_norm(&input, groups, &wide(&norm.weight), &wide(&norm.bias));
        if let Some(act) = act {
            naive.data.iter_mut().for_each(|x| *x = activate(act, *x));
        }
        // A group of one value is 0 / sqrt(eps): its rounding is blown up a thousandfold.
        let single = size * h * w == 1;
        let tolerance = if single { 1e-2 } else { 1e-4 };
        for cpu in backends() {
            let mut x = Features::from_planes(&cpu, &data, [channels, h, w]);
            let out = planes(&norm.apply(&cpu, &x, act));
            prop_assert!(error(&out, &naive.data) < tolerance);
            norm.apply_in_place(&cpu, &mut x, act);
            prop_assert_eq!(out, planes(&x));
        }
    }

    #[test]
    fn attention_matches_the_oracle(
        groups in 1usize..4, size in 1usize..12, h in 1usize..12, w in 1usize..12,
        sharp in 0.1f32..6.0, seed in any::<u64>(),
    ) {
        let channels = groups * size;
        let pixels = h * w;
        let data = normals(seed, channels * pixels);
        let spread = sharp / (channels as f32).sqrt();
        let map = |s: u64| -> (Vec<f32>, Vec<f32>) {
            let weight = normals(seed ^ s, channels * channels);
            let weight = weight.iter().map(|x| x * spread).collect();
            (weight, normals(seed ^ (s + 1), channels))
        };
        let maps = [map(10), map(20), map(30), map(40)];
        let conv = |i: usize| Conv::new(Shape::Point, &maps[i].0, &maps[i].1, [channels, channels]);
        let norm = GroupNorm {
            weight: normals(seed ^ 1, channels),
            bias: normals(seed ^ 2, channels),
            groups,
        };
        let layer = Attention { norm, q: conv(0), k: conv(1), v: conv(2), out: conv(3) };
        let input = image([channels, h, w], &data);
        // The same sums over magnitudes bound what rounding can do to sums of this length.
        let gamma = (channels + pixels + 8) as f64 * f64::from(f32::EPSILON);
        let linear = |i: usize, x: &Image| {
            convolve(x, &wide(&maps[i].0), &wide(&maps[i].1), 1, 1, 0, [h, w])
        };
        let magnitudes = |i: usize, x: &Image| {
            let absolute = |x: &[f32]| wide(x).into_iter().map(f64::abs).collect::<Vec<_>>();
            let mut x = x.clone();
            x.data.iter_mut().for_each(|x| *x = x.abs());
            convolve(&x, &absolute(&maps[i].0), &absolute(&maps[i].1), 1, 1, 0, [h, w])
        };
        let at = |x: &Image, c: usize, p: usize| x.data[c * pixels + p];
        let score = |q: &Image, k: &Image, i: usize, j: usize| {
            let dot: f64 = (0..channels).map(|c| at(q, c, i) * at(k, c, j)).sum();
            dot / (channels as f64).sqrt()
        };
        for cpu in backends() {
            let mut x = Features::from_planes(&cpu, &data, [channels, h, w]);
            // Normalisation has its own test; here both sides start from one result.
            let n = image([channels, h, w], &planes(&layer.norm.apply(&cpu, &x, None)));
            layer.apply(&cpu, &mut x);
            let [q, k, v] = [0, 1, 2].map(|i| linear(i, &n));
            let [q_size, k_size, v_size] = [0, 1, 2].map(|i| magnitudes(i, &n));
            let (mut mixed, mut mixed_error) = (n.clone(), n);
            for i in 0..pixels {
                let scores: Vec<f64> = (0..pixels).map(|j| score(&q, &k, i, j)).collect();
                let largest = scores.iter().fold(f64::MIN, |a, &b| a.max(b));
                let powers: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let sum: f64 = powers.iter().sum();
                // A score's error is a relative one of its power, and again through the sum.
                let doubt = (0..pixels)
                    .map(|j| 3.0 * gamma * score(&q_size, &k_size, i, j))
                    .fold(0.0, f64::max);
                for c in 0..channels {
                    let total = |v: &Image| (0..pixels).map(|j| powers[j] * at(v, c, j)).sum::<f64>();
                    mixed.data[c * pixels + i] = total(&v) / sum;
                    mixed_error.data[c * pixels + i] =
                        (2.0 * doubt.exp_m1() + 3.0 * gamma) * total(&v_size) / sum;
                }
            }
            let (out, out_size) = (linear(3, &mixed), magnitudes(3, &mixed));
            let carried = magnitudes(3, &mixed_error);
            for (i, y) in planes(&x).into_iter().enumerate() {
                let exact = out.data[i] + input.data[i];
                let bound = carried.data[i] + gamma * (out_size.data[i] + input.data[i].abs());
                prop_assert!((f64::from(y) - exact).abs() <= bound, "{y} for {exact}, {bound}");
            }
        }
    }
}

/// Large enough that all threads, several blocks and several chunks of channels take part.
#[test]
fn a_wide_convolution_matches_the_oracle_on_every_instruction_set() {
    let (from, to, h, w) = (600, 80, 11, 13);
    let data = normals(1, from * h * w);
    let weight = normals(2, to * from * 9);
    let bias = normals(3, to);
    let input = image([from, h, w], &data);
    let naive = convolve(&input, &wide(&weight), &wide(&bias), 3, 1, 1, [h, w]);
    let conv = Conv::new(Shape::Same, &weight, &bias, [to, from]);
    for cpu in backends() {
        let x = Features::from_planes(&cpu, &data, [from, h, w]);
        assert!(error(&planes(&conv.apply(&cpu, &x)), &naive.data) < 2e-6);
    }
}
