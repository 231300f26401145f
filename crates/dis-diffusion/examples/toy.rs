//! Trains a diffusion of points in the plane, eight clusters on a ring, with this crate alone: points
//! are images of two channels and one pixel. The network is linear in random cosines of (x, y, t), so
//! its gradient is one line. `cargo run --release -p dis-diffusion --example toy`

use std::f64::consts::TAU;

use dis_diffusion::{
    GaussianDiffusion, LossKind, Options, Prediction, Purpose, Result, SamplerSpec,
};
use dis_diffusion::{
    SeededNoise, Spacing, State, Stream, Variance, from_fn, normals, uniform_timesteps,
};
use ndarray::{Array2, Array4, Axis};

const FEATURES: usize = 512;
const BATCH: usize = 256;
const STEPS: u64 = 2000;

fn main() -> Result<()> {
    let options = Options {
        schedule: "cosine".parse()?,
        prediction: Prediction::Start,
        variance: Variance::FixedSmall,
        loss: LossKind::Mse,
        ..Options::default()
    };
    let diffusion = GaussianDiffusion::new(&options)?;
    let mut numbers = Stream::new(1, Purpose::Test, 0, 0);
    let frequencies = Array2::from_shape_fn((3, FEATURES), |(i, _)| {
        (numbers.normal() * [3.0, 3.0, 2.0][i]) as f32
    });
    let phases = Array2::from_shape_fn((1, FEATURES), |_| (numbers.uniform() * TAU) as f32);
    let features = |x: &Array4<f32>, t: &[f64]| -> Array2<f32> {
        let inputs = Array2::from_shape_fn((x.dim().0, 3), |(b, i)| match i {
            2 => (t[b] / 1000.0) as f32,
            _ => x[[b, i, 0, 0]],
        });
        (inputs.dot(&frequencies) + &phases).mapv(f32::cos)
    };
    let image = |y: Array2<f32>| y.insert_axis(Axis(2)).insert_axis(Axis(3));

    let mut weights = Array2::<f32>::zeros((FEATURES, 2));
    let (mut m, mut v) = (weights.clone(), weights.clone());
    let samples: Vec<u64> = (0..BATCH as u64).collect();
    for step in 0..STEPS {
        // Keyed by (seed, purpose, sample, step): the same on every machine.
        let near = normals(1, Purpose::Test, &samples, 2 * step, [2, 1, 1]) * 0.05;
        let clean = Array4::from_shape_fn((BATCH, 2, 1, 1), |(b, c, _, _)| {
            let angle = TAU * ((b % 8) as f64) / 8.0;
            near[[b, c, 0, 0]] + (0.8 * [angle.cos(), angle.sin()][c]) as f32
        });
        let noise = normals(1, Purpose::Test, &samples, 2 * step + 1, [2, 1, 1]);
        let t = uniform_timesteps(1, &samples, step, diffusion.steps());
        let noisy = diffusion.q_sample(&clean, &t, &noise)?;
        let inputs = features(&noisy, &diffusion.network_timesteps(&t)?);
        let output = image(inputs.dot(&weights));
        let (clean, noise) = (clean.view(), noise.view());
        let (loss, by_output) = diffusion.training_loss(clean, noise, &t, output.view(), None)?;
        if step % 500 == 0 {
            println!("step {step:>5}: loss {:.4}", loss.mean);
        }
        // dL/dW = features^T dL/doutput, then Adam.
        let by_output = by_output
            .index_axis(Axis(3), 0)
            .index_axis(Axis(2), 0)
            .to_owned();
        let gradient = inputs.t().dot(&by_output);
        m = m * 0.9 + &gradient * 0.1;
        v = v * 0.999 + gradient.mapv(|g| g * g * 0.001);
        let rate = 0.01 * (1.0 - step as f32 / STEPS as f32);
        let scale =
            (1.0 - 0.999f32.powi(step as i32 + 1)).sqrt() / (1.0 - 0.9f32.powi(step as i32 + 1));
        weights.zip_mut_with(&(&m / &v.mapv(|v| v.sqrt() + 1e-8)), |w, d| {
            *w -= rate * scale * d
        });
    }

    let mut network = from_fn(|x: &Array4<f32>, t: &[f64]| image(features(x, t).dot(&weights)));
    let sampler: SamplerSpec = "ancestral".parse()?;
    let plan = sampler.plan(&options, 100, Spacing::Default)?;
    let mut noise = SeededNoise::new(2, 0..800);
    let start = noise.start([2, 1, 1]);
    let points = dis_diffusion::sample(&plan, &mut network, &mut noise, start, |_| {})?;
    let mut clusters = [0; 8];
    for b in 0..points.dims()[0] {
        let (x, y) = (
            f64::from(points[[b, 0, 0, 0]]),
            f64::from(points[[b, 1, 0, 0]]),
        );
        let nearest = (y.atan2(x).rem_euclid(TAU) / TAU * 8.0).round() as usize % 8;
        let angle = TAU * nearest as f64 / 8.0;
        let off = (x - 0.8 * angle.cos()).hypot(y - 0.8 * angle.sin());
        clusters[nearest] += usize::from(off < 0.2);
    }
    println!("of 800 points, within 0.2 of the centre of each cluster: {clusters:?}");
    assert!(clusters.iter().all(|&n| n > 25), "a cluster is missing");
    Ok(())
}
