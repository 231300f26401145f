//! Against the numbers of the published code. Here: reads a manifest, its tensors, and the options
//! that a case names.

// Helpers outside #[test] functions may panic in tests too.
#![allow(clippy::unwrap_used)]

mod steps;
mod tables;

use std::path::PathBuf;

use dis_diffusion::{GaussianDiffusion, LossKind, Options, Prediction, Variance};
use ndarray::Array4;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

struct Golden {
    manifest: Value,
    bytes: Vec<u8>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/golden")
            .join(name);
        let manifest = std::fs::read(path.with_extension("json")).unwrap();
        Self {
            manifest: serde_json::from_slice(&manifest).unwrap(),
            bytes: std::fs::read(path.with_extension("safetensors")).unwrap(),
        }
    }

    fn numbers(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file
            .tensor(name)
            .unwrap_or_else(|_| panic!("no tensor {name}"));
        let data = tensor.data();
        let values = match tensor.dtype() {
            Dtype::F64 => each(data, f64::from_le_bytes),
            Dtype::F32 => each(data, |b| f64::from(f32::from_le_bytes(b))),
            Dtype::I64 => each(data, |b| i64::from_le_bytes(b) as f64),
            other => panic!("{name} has type {other:?}"),
        };
        (tensor.shape().to_vec(), values)
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.numbers(name).1
    }

    fn indices(&self, name: &str) -> Vec<usize> {
        self.values(name).iter().map(|x| *x as usize).collect()
    }

    fn array(&self, name: &str) -> Array4<f32> {
        let (shape, values) = self.numbers(name);
        let shape: [usize; 4] = shape.try_into().unwrap();
        Array4::from_shape_vec(shape, values.iter().map(|x| *x as f32).collect()).unwrap()
    }
}

fn each<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    data.chunks_exact(N)
        .map(|chunk| read(chunk.try_into().unwrap()))
        .collect()
}

/// The diffusion that a case with `timestep_respacing` and published `options` means.
fn diffusion(case: &Value) -> GaussianDiffusion {
    let option = &case["options"];
    let flag = |name: &str, default: bool| option[name].as_bool().unwrap_or(default);
    let variance = match (flag("learn_sigma", true), flag("sigma_small", false)) {
        (true, _) => Variance::LearnedRange,
        (false, true) => Variance::FixedSmall,
        (false, false) => Variance::FixedLarge,
    };
    let loss = match (flag("use_kl", false), flag("rescale_learned_sigmas", false)) {
        (true, _) => LossKind::RescaledKl,
        (false, true) => LossKind::RescaledMse,
        (false, false) => LossKind::Mse,
    };
    let start = flag("predict_xstart", false);
    GaussianDiffusion::new(&Options {
        schedule: option["noise_schedule"]
            .as_str()
            .unwrap_or("linear")
            .parse()
            .unwrap(),
        steps: option["diffusion_steps"].as_u64().unwrap_or(1000) as usize,
        respacing: case["timestep_respacing"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap(),
        prediction: if start {
            Prediction::Start
        } else {
            Prediction::Epsilon
        },
        variance,
        loss,
    })
    .unwrap()
}

/// Largest difference over the largest magnitude of what is expected.
fn relative_error(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = |x: &mut dyn Iterator<Item = f64>| x.fold(0.0f64, |m, x| m.max(x.abs()));
    assert!(got.iter().all(|x| x.is_finite()));
    let off = largest(&mut got.iter().zip(expected).map(|(a, b)| a - b));
    off / largest(&mut expected.iter().copied()).max(f64::MIN_POSITIVE)
}
