//! Against the numbers of the published code. Here: the options that a case names.

// Helpers outside #[test] functions may panic in tests too.
#![allow(clippy::unwrap_used)]

mod steps;
mod tables;

use dis_diffusion::{GaussianDiffusion, LossKind, Options, Prediction, Variance};
use dis_golden::Golden;
use ndarray::Array4;
use serde_json::Value;

/// Four-dimensional values as float32.
fn array(golden: &Golden, name: &str) -> Array4<f32> {
    let (shape, values) = golden.f64(name);
    let shape: [usize; 4] = shape.try_into().unwrap();
    Array4::from_shape_vec(shape, values.iter().map(|x| *x as f32).collect()).unwrap()
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
