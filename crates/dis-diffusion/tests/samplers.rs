//! Samplers on data whose exact network is known, and what every run must keep.

// Helpers outside #[test] functions may panic in tests too.
#![allow(clippy::unwrap_used)]

use dis_diffusion::{
    Denoiser, Error, GaussianDiffusion, Guidance, Guided, Limit, Noise, Options, Plan, Prediction,
    Run, SamplerSpec, SeededNoise, State, SuppliedNoise, Variance, from_conditional_fn, from_fn,
    invert, sample,
};
use ndarray::Array4;

fn diffusion(respacing: &str, prediction: Prediction, variance: Variance) -> GaussianDiffusion {
    let respacing = respacing.parse().unwrap();
    GaussianDiffusion::new(&Options {
        respacing,
        prediction,
        variance,
        ..Options::default()
    })
    .unwrap()
}

const MEAN: f64 = 0.3;
const SPREAD: f64 = 0.5;

/// The exact network for independent pixels from N(MEAN, SPREAD^2). Its variance channels say 0:
/// halfway between the two limits.
fn exact(prediction: Prediction, learned: bool) -> impl Denoiser {
    let full = diffusion("", Prediction::Start, Variance::FixedLarge);
    from_fn(move |x: &Array4<f32>, t: &[f64]| {
        let bar = full.tables().alphas_cumprod[t[0] as usize];
        let (signal, noise) = (bar.sqrt(), (1.0 - bar).sqrt());
        let total = bar * SPREAD * SPREAD + 1.0 - bar;
        let predicted = x.mapv(|x| {
            let off = (f64::from(x) - signal * MEAN) / total;
            let (x_start, epsilon) = (MEAN + signal * SPREAD * SPREAD * off, noise * off);
            (match prediction {
                Prediction::Epsilon => epsilon,
                Prediction::Start => x_start,
                Prediction::Velocity => signal * epsilon - noise * x_start,
            }) as f32
        });
        if !learned {
            return predicted;
        }
        Array4::join_channels(&[&predicted, &Array4::zeros(x.raw_dim())]).unwrap()
    })
}

/// Mean and standard deviation of all pixels.
fn moments(x: &Array4<f32>) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let variance = x
        .iter()
        .map(|x| (f64::from(*x) - mean).powi(2))
        .sum::<f64>()
        / n;
    (mean, variance.sqrt())
}

const DDIM: SamplerSpec = SamplerSpec::Ddim { eta: 0.0 };

fn plan(sampler: SamplerSpec, diffusion: &GaussianDiffusion) -> Plan {
    Plan::on_steps(sampler, diffusion.clone()).unwrap()
}

fn draw<D: Denoiser>(
    diffusion: &GaussianDiffusion,
    sampler: SamplerSpec,
    mut network: D,
    samples: std::ops::Range<u64>,
) -> Array4<f32> {
    let mut noise = SeededNoise::new(11, samples);
    let start = noise.start([3, 8, 8]);
    let plan = plan(sampler, diffusion);
    sample(&plan, &mut network, &mut noise, start, |_| {}).unwrap()
}

/// DDIM solves an ordinary differential equation that is linear here, so x_0 is known exactly:
/// MEAN + SPREAD (x_T - sqrt(alpha_bar_T) MEAN) / sqrt(total variance at T).
#[test]
fn ddim_converges_to_the_exact_solution_at_first_order() {
    let full = diffusion("", Prediction::Epsilon, Variance::FixedSmall);
    let bar = full.tables().alphas_cumprod[999];
    let total = (bar * SPREAD * SPREAD + 1.0 - bar).sqrt();
    let start = SeededNoise::new(11, 0..2).start([3, 8, 8]);
    let solution =
        start.mapv(|x| (MEAN + SPREAD * (f64::from(x) - bar.sqrt() * MEAN) / total) as f32);
    let error = |steps: &str, prediction| {
        let process = diffusion(steps, prediction, Variance::FixedSmall);
        let x = draw(&process, DDIM, exact(prediction, false), 0..2);
        x.iter()
            .zip(&solution)
            .map(|(a, b)| f64::from((a - b).abs()))
            .fold(0.0, f64::max)
    };
    let errors: Vec<f64> = ["125", "250", "500"]
        .map(|n| error(n, Prediction::Epsilon))
        .into();
    for pair in errors.windows(2) {
        let order = (pair[0] / pair[1]).log2();
        assert!(
            (0.7..1.3).contains(&order),
            "order {order} from errors {errors:?}"
        );
    }
    assert!(errors[2] < 0.01, "{errors:?}");
    // What is predicted makes no difference.
    for prediction in [Prediction::Start, Prediction::Velocity] {
        assert!((error("250", prediction) - errors[1]).abs() < 1e-4);
    }
}

#[test]
fn random_samplers_reach_the_data_distribution() {
    let samples = 0..64;
    let pixels: f64 = 64.0 * 192.0;
    let runs = [
        (SamplerSpec::Ancestral, Variance::FixedSmall),
        (SamplerSpec::Ancestral, Variance::FixedLarge),
        (SamplerSpec::Ancestral, Variance::LearnedRange),
        (SamplerSpec::Ddim { eta: 1.0 }, Variance::FixedSmall),
    ];
    for (sampler, variance) in runs {
        let process = diffusion("250", Prediction::Epsilon, variance);
        let network = exact(Prediction::Epsilon, variance.is_learned());
        let (mean, spread) = moments(&draw(&process, sampler, network, samples.clone()));
        // Five standard errors, and what 250 steps leave of discretisation.
        assert!(
            (mean - MEAN).abs() < 5.0 * SPREAD / pixels.sqrt() + 5e-3,
            "{variance:?}: {mean}"
        );
        assert!(
            (spread - SPREAD).abs() < 5.0 * SPREAD / (2.0 * pixels).sqrt() + 1e-2,
            "{variance:?}: {spread}"
        );
    }
}

/// With posterior variances, ancestral sampling and DDIM with eta 1 are one and the same.
#[test]
fn ddim_with_eta_one_is_ancestral() {
    let process = diffusion("20", Prediction::Epsilon, Variance::FixedSmall);
    let network = || exact(Prediction::Epsilon, false);
    let a = draw(&process, SamplerSpec::Ancestral, network(), 0..3);
    let b = draw(&process, SamplerSpec::Ddim { eta: 1.0 }, network(), 0..3);
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    let process = diffusion("10", Prediction::Epsilon, Variance::LearnedRange);
    let guided = || {
        let mut plain = exact(Prediction::Epsilon, true);
        let conditional =
            from_conditional_fn(move |x: &Array4<f32>, t: &[f64], rows: &[Option<usize>]| {
                let mut y = plain.predict(x, t).unwrap();
                for (mut image, row) in y.outer_iter_mut().zip(rows) {
                    image += if row.is_some() { 0.1 } else { 0.0 };
                }
                y
            });
        Guided::new(conditional, Guidance::new(1.5))
    };
    for sampler in [SamplerSpec::Ancestral, SamplerSpec::Ddim { eta: 0.5 }] {
        let whole = draw(&process, sampler, guided(), 0..7);
        let part = draw(&process, sampler, guided(), 4..5);
        assert_eq!(whole.rows(4..5).unwrap(), part);
    }
}

#[test]
fn inversion_leads_back_to_the_image() {
    let process = diffusion("500", Prediction::Epsilon, Variance::FixedSmall);
    let image = SeededNoise::new(3, 0..2)
        .start([1, 4, 4])
        .mapv(|x| 0.3 + 0.5 * x);
    let mut network = exact(Prediction::Epsilon, false);
    let (plan, mut none) = (plan(DDIM, &process), SuppliedNoise(Vec::new()));
    let noise = invert(&plan, &mut network, &image, 0, |_| {}).unwrap();
    let back = sample(&plan, &mut network, &mut none, noise.clone(), |_| {}).unwrap();
    assert!(image.iter().zip(&back).all(|(a, b)| (a - b).abs() < 0.02));
    assert!(moments(&noise).1 > 0.7);
}

#[test]
fn a_run_shows_every_iteration_and_can_begin_late() {
    let process = diffusion("ddim10", Prediction::Epsilon, Variance::FixedSmall);
    let mut noise = SeededNoise::new(1, 0..1);
    let (plan, mut network) = (plan(DDIM, &process), exact(Prediction::Epsilon, false));
    let start = noise.start([1, 2, 2]);
    let mut run = Run::new(&plan, &mut network, &mut noise, start.clone()).unwrap();
    let mut seen = Vec::new();
    while let Some(at) = run.advance().unwrap() {
        assert_eq!((at.iteration, at.iterations), (seen.len(), 10));
        seen.push((at.timestep, at.sample.clone(), at.pred_xstart.clone()));
    }
    let timesteps: Vec<f64> = seen.iter().map(|s| s.0).collect();
    assert_eq!(
        timesteps,
        (0..10)
            .rev()
            .map(|i| f64::from(100 * i))
            .collect::<Vec<_>>()
    );
    // The last estimate is the image.
    assert!(
        seen[9]
            .1
            .iter()
            .zip(&seen[9].2)
            .all(|(a, b)| (a - b).abs() < 1e-6)
    );
    drop(run);
    // From iteration 6 on, given what iteration 5 left.
    let late = Run::new(&plan, &mut network, &mut noise, seen[5].1.clone()).unwrap();
    let mut late = late.skip_to(6).unwrap();
    while late.advance().unwrap().is_some() {}
    assert_eq!(late.into_sample(), seen[9].1);
    let again = Run::new(&plan, &mut network, &mut noise, start).unwrap();
    assert!(again.skip_to(10).is_err());
}

#[test]
fn clipping_keeps_estimates_in_range() {
    let process = diffusion("10", Prediction::Epsilon, Variance::FixedSmall);
    let mut network = from_fn(|x: &Array4<f32>, _: &[f64]| x.mapv(|x| 3.0 - x));
    let mut noise = SeededNoise::new(1, 0..2);
    let start = noise.start([1, 4, 4]);
    let plan = plan(SamplerSpec::Ancestral, &process).with_limit(Some(Limit::default()));
    sample(&plan, &mut network, &mut noise, start, |at| {
        assert!(at.pred_xstart.iter().all(|x| x.abs() <= 1.0));
    })
    .unwrap();
}

#[test]
fn failures_are_typed() {
    let process = diffusion("5", Prediction::Epsilon, Variance::LearnedRange);
    let mut noise = SeededNoise::new(1, 0..1);
    let start = noise.start([1, 2, 2]);
    let run = |network: &mut dyn Denoiser, noise: &mut dyn Noise| {
        let plan = plan(SamplerSpec::Ancestral, &process);
        sample(&plan, network, noise, start.clone(), |_| {}).unwrap_err()
    };
    // One channel where prediction and variance are due.
    let short = run(&mut exact(Prediction::Epsilon, false), &mut noise);
    assert!(
        matches!(
            short,
            Error::Shape {
                what: "network output",
                ..
            }
        ),
        "{short}"
    );
    let mut nan =
        from_fn(|x: &Array4<f32>, _: &[f64]| Array4::from_elem((x.dim().0, 2, 2, 2), f32::NAN));
    let not_finite = run(&mut nan, &mut noise);
    assert!(
        matches!(
            not_finite,
            Error::NotFinite {
                iteration: 4,
                timestep: 0
            }
        ),
        "{not_finite}"
    );
    let mut few = SuppliedNoise(vec![start.clone(); 3]);
    let ended = run(&mut exact(Prediction::Epsilon, true), &mut few);
    assert!(
        matches!(
            ended,
            Error::NoNoise {
                iteration: 3,
                supplied: 3
            }
        ),
        "{ended}"
    );

    struct Broken;
    impl Denoiser for Broken {
        fn predict(&mut self, _: &Array4<f32>, _: &[f64]) -> Result<Array4<f32>, Error> {
            Err(Error::network("out of paper"))
        }
    }
    assert_eq!(
        run(&mut Broken, &mut noise).to_string(),
        "the network failed: out of paper"
    );
}

/// With the exact mean and variance of `x_(t-1)` given `x_t`, the reverse process is the true one
/// and the bound is tight: it must give the images' true likelihood, up to the noise of its draws
/// and the grey levels' rounding.
#[test]
fn bits_per_dim_of_the_exact_process_are_the_likelihood() {
    let full = diffusion("", Prediction::Epsilon, Variance::Learned);
    let image = SeededNoise::new(5, 0..32).start([3, 8, 8]);
    // Grey values; pixels outside [-1, 1] would have their open bins counted as narrow ones.
    let image = image.mapv(|x| {
        let x = (MEAN + SPREAD * f64::from(x)).clamp(-0.99, 0.99);
        (((x + 1.0) * 127.5).round() / 127.5 - 1.0) as f32
    });
    let tables = full.tables().clone();
    let mut mean = exact(Prediction::Epsilon, false);
    let mut network = from_fn(|x: &Array4<f32>, t: &[f64]| {
        let t_index = t[0] as usize;
        let bar = tables.alphas_cumprod[t_index];
        let of_start = SPREAD * SPREAD * (1.0 - bar) / (bar * SPREAD * SPREAD + 1.0 - bar);
        let variance = tables.posterior_variance[t_index]
            + tables.posterior_mean_coef1[t_index].powi(2) * of_start;
        let log_variance = Array4::from_elem(x.raw_dim(), variance.ln() as f32);
        Array4::join_channels(&[&mean.predict(x, t).unwrap(), &log_variance]).unwrap()
    });
    let mut noise = SeededNoise::new(6, 0..32);
    let bits = full
        .bits_per_dim(&mut network, &image, &mut noise, false)
        .unwrap();
    let nats: f64 = image
        .iter()
        .map(|x| {
            let off = (f64::from(*x) - MEAN) / SPREAD;
            0.5 * off * off + (SPREAD * 127.5 * std::f64::consts::TAU.sqrt()).ln()
        })
        .sum();
    let exact = nats / (image.len() as f64 * std::f64::consts::LN_2);
    let bound = bits.total.iter().sum::<f64>() / bits.total.len() as f64;
    // The draws leave about 0.05 bits on one image of 192 values.
    assert!((bound - exact).abs() < 0.02, "bound {bound} of {exact}");
}
