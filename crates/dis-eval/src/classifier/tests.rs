//! Gradients against finite differences in float64, the network against a plain one, and a training.

use std::path::Path;
use std::sync::Arc;

use dis_ssm::{Ctx, TokenBuf};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Backend, Cpu, Reference};
use proptest::prelude::*;

use super::training::cross_entropy;
use super::*;
use dis_data::{Dataset, ImageShape, digits_split};

fn net(height: usize, width: usize, channels: usize) -> ClassifierNet {
    let shape = ImageShape::from([channels, height, width]);
    let config = ClassifierConfig {
        base: 3,
        features: 5,
        ..ClassifierConfig::new(shape, 4)
    };
    ClassifierNet::new(config).unwrap()
}

fn normals(n: usize, seed: u64) -> Vec<f32> {
    let mut out = vec![0.0; n];
    Stream::new(seed, Purpose::Test, 0, 0).fill_normal(&mut out);
    out
}

/// The sum of logits times fixed weights.
fn objective(net: &ClassifierNet, params: &[f64], images: &[f32], weights: &[f64]) -> f64 {
    let backend = Reference::new();
    let mut arena = backend.zeros::<f64>(params.len());
    backend.write_f64(&mut arena, 0, params).unwrap();
    let out = net.forward(Ctx::new(&backend, &arena), images).unwrap();
    let logits = backend.download(&out.logits.buf);
    logits.iter().zip(weights).map(|(a, b)| a * b).sum()
}

fn check_gradients(height: usize, width: usize, channels: usize, batch: usize, seed: u64) {
    let net = net(height, width, channels);
    let images = normals(batch * channels * height * width, seed);
    let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
    let mut params = wide(net.table().initial(seed));
    // Weights and biases of norms start at 1 and 0, where mistakes could hide.
    for (p, z) in params.iter_mut().zip(normals(net.table().len(), seed ^ 7)) {
        *p += 0.1 * f64::from(z);
    }
    let weights = wide(normals(batch * 4, seed ^ 1));
    let backend = Reference::new();
    let mut arena = backend.zeros::<f64>(params.len());
    backend.write_f64(&mut arena, 0, &params).unwrap();
    let out = net.forward(Ctx::new(&backend, &arena), &images).unwrap();
    let mut d_logits = TokenBuf::<Reference>::dense(&backend, batch, 1, 4);
    backend.write_f64(&mut d_logits.buf, 0, &weights).unwrap();
    let mut grads = backend.zeros::<f64>(params.len());
    net.backward(
        Ctx::new(&backend, &arena),
        out.saved,
        d_logits.view(),
        &mut grads,
    )
    .unwrap();
    let grads = backend.download(&grads);
    let mut pick = Stream::new(seed, Purpose::Test, 1, 0);
    for spec in net.table().specs() {
        for _ in 0..3 {
            let i = spec.offset + pick.below(spec.len() as u64) as usize;
            let h = 1e-5;
            let at = |by: f64| {
                let mut moved = params.clone();
                moved[i] += by;
                objective(&net, &moved, &images, &weights)
            };
            let numeric = (at(h) - at(-h)) / (2.0 * h);
            assert!(
                (grads[i] - numeric).abs() < 1e-6 * (1.0 + numeric.abs()),
                "{} [{}]: {} here, {numeric} by differences",
                spec.name,
                i - spec.offset,
                grads[i]
            );
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    check_gradients(8, 8, 1, 2, 1);
    check_gradients(5, 9, 3, 3, 2);
    check_gradients(18, 17, 1, 1, 3);
    check_gradients(1, 1, 1, 2, 4);
}

/// Convolutions with loops over pixels, in float64.
fn plain_logits(net: &ClassifierNet, arena: &[f32], image: &[f32]) -> Vec<f64> {
    let config = net.config();
    let values = |name: &str| -> Vec<f64> {
        let spec = net.table().find(name).unwrap();
        let values = &arena[spec.offset..spec.offset + spec.len()];
        values.iter().map(|v| f64::from(*v)).collect()
    };
    let normed = |x: &mut [f64], name: &str| {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let (w, b) = (
            values(&format!("{name}.weight")),
            values(&format!("{name}.bias")),
        );
        for (i, v) in x.iter_mut().enumerate() {
            let y = (*v - mean) / (variance + super::conv::EPS).sqrt() * w[i] + b[i];
            *v = y / (1.0 + (-y).exp());
        }
    };
    let (mut h, mut w, mut c) = (config.height, config.width, config.channels);
    let mut map = vec![vec![vec![0.0; c]; w]; h];
    for y in 0..h {
        for x in 0..w {
            for k in 0..c {
                map[y][x][k] = f64::from(image[(k * h + y) * w + x]);
            }
        }
    }
    let mut layer = 0;
    while let Some(spec) = net.table().find(&format!("convs.{layer}.weight")) {
        let (name, outputs) = (format!("convs.{layer}"), spec.shape[0]);
        let weight = values(&format!("{name}.weight"));
        let side = h.max(w);
        let stride = if side > if layer == 0 { 16 } else { 4 } {
            2
        } else {
            1
        };
        let (to_h, to_w) = (h.div_ceil(stride), w.div_ceil(stride));
        let mut to = vec![vec![vec![0.0; outputs]; to_w]; to_h];
        for y in 0..to_h {
            for x in 0..to_w {
                for o in 0..outputs {
                    for (dy, dx) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
                        let (r, q) = ((y * stride + dy) as i64 - 1, (x * stride + dx) as i64 - 1);
                        if r < 0 || q < 0 || r >= h as i64 || q >= w as i64 {
                            continue;
                        }
                        for k in 0..c {
                            to[y][x][o] += weight[(o * 9 + dy * 3 + dx) * c + k]
                                * map[r as usize][q as usize][k];
                        }
                    }
                }
                normed(&mut to[y][x], &format!("{name}.norm"));
            }
        }
        (map, h, w, c) = (to, to_h, to_w, outputs);
        layer += 1;
    }
    let flat: Vec<f64> = map.into_iter().flatten().flatten().collect();
    let times = |weight: &[f64], x: &[f64]| -> Vec<f64> {
        let rows = weight.chunks_exact(x.len());
        rows.map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum())
            .collect()
    };
    let mut hidden = times(&values("hidden.weight"), &flat);
    normed(&mut hidden, "hidden.norm");
    let out = times(&values("head.weight"), &hidden);
    let bias = values("head.bias");
    out.iter().zip(bias).map(|(a, b)| a + b).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn equals_a_plain_network(
        height in 1usize..24, width in 1usize..24, colour: bool, batch in 1usize..4,
        seed in any::<u64>(),
    ) {
        let net = net(height, width, if colour { 3 } else { 1 });
        let arena = net.table().initial(seed);
        let len = net.config().shape().len();
        let images = normals(batch * len, seed ^ 1);
        let cpu = Cpu::with_threads(2).unwrap();
        let params = cpu.from_f32(&arena);
        let out = net.forward(Ctx::new(&cpu, &params), &images).unwrap();
        for (image, logits) in images.chunks(len).zip(out.logits(&cpu).chunks(4)) {
            for (a, b) in logits.iter().zip(plain_logits(&net, &arena, image)) {
                prop_assert!((f64::from(*a) - b).abs() < 2e-4 * (1.0 + b.abs()), "{} {}", a, b);
            }
        }
    }
}

#[test]
fn cross_entropy_is_its_formula_and_gradient() {
    let logits = [1.0f32, 2.0, -1.0, 0.5, 0.0, 0.25];
    let (loss, gradient) = cross_entropy(&logits, 3, &[1, 0]).unwrap();
    let log_sum = |r: &[f32]| r.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
    let expected = (log_sum(&logits[..3]) - 2.0 + log_sum(&logits[3..]) - 0.5) / 2.0;
    assert!((loss - expected).abs() < 1e-12);
    for i in 0..6 {
        let at = |by: f32| {
            let mut moved = logits;
            moved[i] += by;
            cross_entropy(&moved, 3, &[1, 0]).unwrap().0
        };
        let numeric = (at(1e-2) - at(-1e-2)) / 2e-2;
        assert!((f64::from(gradient[i]) - numeric).abs() < 1e-4);
    }
    assert!(cross_entropy(&logits, 3, &[1, 3]).is_err());
    assert!(cross_entropy(&logits, 3, &[1]).is_err());
}

fn trained(threads: usize, steps: u64) -> Classifier {
    let (train, held) = digits_split(0).unwrap();
    let cpu = Cpu::with_threads(threads).unwrap();
    let options = ClassifierOptions {
        steps,
        ..ClassifierOptions::default()
    };
    let train: Arc<dyn Dataset> = Arc::new(train);
    cpu.install(|| train_classifier(&cpu, train, &held, options, &mut |_, _| {}))
        .unwrap()
}

#[test]
fn learns_the_digits_and_comes_back_from_its_file_the_same_for_any_threads() {
    let one = trained(1, 120);
    assert!(one.info.test_accuracy > 0.93, "{}", one.info.test_accuracy);
    let bytes = one.to_bytes().unwrap();
    assert!(bytes == trained(2, 120).to_bytes().unwrap());
    let back = Classifier::from_bytes(&bytes, Path::new("x")).unwrap();
    assert!(back.params == one.params);
    assert_eq!(back.info, one.info);
    assert!(back.to_bytes().unwrap() == bytes);
    let cpu = Cpu::with_threads(1).unwrap();
    let (_, held) = digits_split(0).unwrap();
    let image = held.sample(3, false).unwrap().image;
    let out = back
        .run(Ctx::new(&cpu, &back.upload(&cpu)), &image)
        .unwrap();
    assert_eq!(out.features.len(), 128);
    assert_eq!((out.logits.len(), out.spatial.len()), (10, 4 * 4 * 16));
    assert_eq!(
        out,
        one.run(Ctx::new(&cpu, &one.upload(&cpu)), &image).unwrap()
    );
}

#[test]
fn refusals_name_what_is_wrong() {
    let (train, held) = digits_split(0).unwrap();
    let cpu = Cpu::with_threads(1).unwrap();
    let run = |data: Arc<dyn Dataset>, test: &dyn Dataset, options: ClassifierOptions| {
        train_classifier(&cpu, data, test, options, &mut |_, _| {})
            .unwrap_err()
            .to_string()
    };
    let options = ClassifierOptions::default();
    let e = run(Arc::new(train.clone().without_labels()), &held, options);
    assert!(e.contains("no classes"), "{e}");
    let e = run(
        Arc::new(train.clone()),
        &held.clone().without_labels(),
        options,
    );
    assert!(e.contains("do not fit"), "{e}");
    let none = ClassifierOptions {
        steps: 0,
        ..options
    };
    assert!(run(Arc::new(train), &held, none).contains("0 steps"));
    let e = Classifier::from_bytes(&[1, 2, 3], Path::new("f.safetensors")).unwrap_err();
    assert!(e.to_string().contains("f.safetensors"), "{e}");
    let shape = ImageShape::from([4, 8, 8]);
    assert!(ClassifierNet::new(ClassifierConfig::new(shape, 10)).is_err());
}
