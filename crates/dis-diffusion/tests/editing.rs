//! Planned runs: they agree with the samplers that they stand for, do not depend on the batch, and
//! change images as asked.

// Helpers outside #[test] functions may panic in tests too.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;

use dis_diffusion::{
    Denoiser, Error, GaussianDiffusion, Level, Limit, Noise, Options, Plan, Prediction, Progress,
    Respacing, SamplerSpec, SeededNoise, Spacing, State, SuppliedNoise, Variance, ddim_step,
    from_fn, image_to_image, inpaint, invert, p_sample, sample,
};
use ndarray::Array4;

const MEAN: f64 = 0.3;
const SPREAD: f64 = 0.5;

fn options(prediction: Prediction, variance: Variance) -> Options {
    Options {
        prediction,
        variance,
        ..Options::default()
    }
}

fn plain() -> Options {
    options(Prediction::Epsilon, Variance::FixedSmall)
}

/// The exact network for independent pixels from N(MEAN, SPREAD^2), also between timesteps, on the
/// ratio of noise to image.
fn exact(options: &Options) -> impl Denoiser + use<> {
    let full = GaussianDiffusion::new(options).unwrap();
    let bars = full.tables().alphas_cumprod.clone();
    let ratio = move |t: usize| ((1.0 - bars[t]) / bars[t]).sqrt();
    let (prediction, learned) = (options.prediction, options.variance.is_learned());
    from_fn(move |x: &Array4<f32>, t: &[f64]| {
        let low = t[0].floor() as usize;
        let high = (low + 1).min(999);
        let part = t[0].fract();
        let level = Level::from_ratio((1.0 - part) * ratio(low) + part * ratio(high));
        let total = (level.alpha * SPREAD).powi(2) + level.sigma.powi(2);
        let y = x.mapv(|x| {
            let off = (f64::from(x) - level.alpha * MEAN) / total;
            let (x_start, epsilon) = (
                MEAN + level.alpha * SPREAD * SPREAD * off,
                level.sigma * off,
            );
            (match prediction {
                Prediction::Epsilon => epsilon,
                Prediction::Start => x_start,
                Prediction::Velocity => level.alpha * epsilon - level.sigma * x_start,
            }) as f32
        });
        if learned {
            Array4::join_channels(&[&y, &Array4::zeros(y.raw_dim())]).unwrap()
        } else {
            y
        }
    })
}

fn plan(name: &str, options: &Options, steps: usize) -> Plan {
    let spec: SamplerSpec = name.parse().unwrap();
    spec.plan(options, steps, Spacing::Default).unwrap()
}

fn draw(plan: &Plan, options: &Options, samples: std::ops::Range<u64>) -> Array4<f32> {
    let mut noise = SeededNoise::new(11, samples);
    let start = noise.start([3, 8, 8]);
    sample(plan, &mut exact(options), &mut noise, start, |_| {}).unwrap()
}

fn farthest(a: &Array4<f32>, b: &Array4<f32>) -> f32 {
    assert_eq!(a.dim(), b.dim());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn planned_ddim_and_ancestral_are_their_steps_on_the_tables() {
    for variance in [Variance::FixedSmall, Variance::LearnedRange] {
        let options = options(Prediction::Epsilon, variance);
        for (spec, respacing) in [
            (SamplerSpec::Ddim { eta: 0.0 }, Respacing::Ddim(20)),
            (SamplerSpec::Ddim { eta: 0.7 }, Respacing::Ddim(20)),
            (SamplerSpec::Ancestral, Respacing::Sections(vec![20])),
        ] {
            let plan = spec.plan(&options, 20, Spacing::Default).unwrap();
            let planned = draw(&plan, &options, 0..2);
            let process = GaussianDiffusion::new(&Options {
                respacing,
                ..options.clone()
            })
            .unwrap();
            let mut noise = SeededNoise::new(11, 0..2);
            let mut network = exact(&options);
            let mut x = noise.start([3, 8, 8]);
            for (iteration, step) in (0..20).rev().enumerate() {
                let t = [step; 2];
                let times = process.network_timesteps(&t).unwrap();
                let output = network.predict(&x, &times).unwrap();
                let draw = noise.draw(iteration, &x).unwrap();
                let step = match spec {
                    SamplerSpec::Ddim { eta } => {
                        let draw = (eta > 0.0).then_some(&draw);
                        ddim_step(&process, &x, &output, &t, draw, eta, false)
                    }
                    _ => p_sample(&process, &x, &output, &t, &draw, false),
                };
                x = step.unwrap().sample;
            }
            assert_eq!(planned, x, "{spec}, {variance:?}");
        }
    }
}

/// Three derivations of one method.
#[test]
fn ddim_euler_and_first_order_dpm_solver_agree() {
    let options = plain();
    let of = |name: &str, spacing| {
        let spec: SamplerSpec = name.parse().unwrap();
        draw(&spec.plan(&options, 20, spacing).unwrap(), &options, 0..2)
    };
    for spacing in [Spacing::Leading, Spacing::Trailing] {
        let ddim = of("ddim", spacing);
        assert!(farthest(&ddim, &of("euler", spacing)) < 2e-5);
        if spacing == Spacing::Trailing {
            assert!(farthest(&ddim, &of("dpmpp-1", spacing)) < 2e-5);
        }
    }
}

#[test]
fn predictions_and_learned_variances_make_no_difference() {
    for name in SamplerSpec::NAMES {
        let draw_with = |prediction, variance| {
            let options = options(prediction, variance);
            draw(&plan(name, &options, 12), &options, 0..2)
        };
        let epsilon = draw_with(Prediction::Epsilon, Variance::FixedSmall);
        for prediction in [Prediction::Start, Prediction::Velocity] {
            let other = draw_with(prediction, Variance::FixedSmall);
            assert!(farthest(&epsilon, &other) < 2e-4, "{name}");
        }
        if name != "ancestral" {
            let learned = draw_with(Prediction::Epsilon, Variance::LearnedRange);
            assert_eq!(epsilon, learned, "{name}");
        }
    }
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    let options = plain();
    for name in SamplerSpec::NAMES {
        let plan = plan(name, &options, 6).with_limit(Some(Limit::Dynamic {
            ratio: 0.9,
            max: 1.5,
        }));
        let whole = draw(&plan, &options, 0..5);
        assert_eq!(
            whole.rows(3..4).unwrap(),
            draw(&plan, &options, 3..4),
            "{name}"
        );
    }
}

#[test]
fn every_sampler_with_every_spacing_gives_images() {
    let options = plain();
    for name in SamplerSpec::NAMES {
        for spacing in Spacing::NAMES {
            for steps in [1, 2, 3, 16] {
                let spec: SamplerSpec = name.parse().unwrap();
                let plan = spec
                    .plan(&options, steps, spacing.parse().unwrap())
                    .unwrap();
                let mut seen = 0;
                let mut noise = SeededNoise::new(1, 0..1);
                let start = noise.start([1, 4, 4]);
                let mut network = exact(&options);
                let image = sample(&plan, &mut network, &mut noise, start, |at| {
                    assert_eq!((at.iteration, at.iterations), (seen, plan.iterations()));
                    seen += 1;
                })
                .unwrap();
                assert_eq!(seen, plan.iterations());
                // One or two steps over the whole range may end far off, as published methods do.
                let bound = if steps < 16 { f32::MAX } else { 4.0 };
                assert!(
                    image.iter().all(|x| x.abs() <= bound),
                    "{name}, {spacing}, {steps} steps"
                );
            }
        }
    }
}

#[test]
fn limits_hold_in_every_iteration() {
    let options = plain();
    let mut network = from_fn(|x: &Array4<f32>, _: &[f64]| x.mapv(|x| 3.0 - x));
    for name in SamplerSpec::NAMES {
        let plan = plan(name, &options, 5).with_limit(Some(Limit::Clip(0.8)));
        let mut noise = SeededNoise::new(1, 0..2);
        let start = noise.start([1, 4, 4]);
        sample(&plan, &mut network, &mut noise, start, |at| {
            assert!(at.pred_xstart.iter().all(|x| x.abs() <= 0.8), "{name}");
        })
        .unwrap();
    }
}

#[test]
fn strength_says_how_much_of_an_image_changes() {
    let options = plain();
    let image = Array4::from_elem((2, 3, 8, 8), 1.2f32);
    for name in SamplerSpec::NAMES {
        let plan = plan(name, &options, 20);
        let run = |strength| {
            let mut noise = SeededNoise::new(5, 0..2);
            let start = noise.start([3, 8, 8]);
            let mut calls = 0;
            let mut network = exact(&options);
            let changed = image_to_image(
                &plan,
                &mut network,
                &mut noise,
                &start,
                &image,
                strength,
                |_| calls += 1,
            );
            (changed.unwrap(), calls)
        };
        let (little, few) = run(0.1);
        let (quarter, some) = run(0.25);
        let (whole, all) = run(1.0);
        assert!(
            few < some && some < all && all == plan.iterations(),
            "{name}"
        );
        let mean = |x: &Array4<f32>| x.mean().unwrap();
        // The image lies 1.8 deviations above the data's mean: the more noise, the nearer to it.
        assert!(mean(&little) > mean(&quarter) + 0.05, "{name}");
        assert!(mean(&quarter) > mean(&whole) + 0.05, "{name}");
        assert!(
            (mean(&little) - 1.2).abs() < 0.3,
            "{name}: {}",
            mean(&little)
        );
        assert!((f64::from(mean(&whole)) - MEAN).abs() < 0.15, "{name}");
    }
    let plan = plan("ddim", &options, 20);
    for strength in [0.0, 1.1, f64::NAN] {
        assert!(plan.step_of_strength(strength).is_err());
    }
    assert_eq!(plan.step_of_strength(1e-9).unwrap(), 19);
}

#[test]
fn inpainting_keeps_what_it_should_and_paints_the_rest() {
    let options = plain();
    let image = SeededNoise::new(9, 0..2)
        .start([3, 8, 8])
        .mapv(|x| 0.3 + 0.1 * x);
    // The right half, in all channels and samples.
    let mask = Array4::from_shape_fn((1, 1, 1, 8), |(.., x)| if x < 4 { 0.0 } else { 1.0 });
    for name in SamplerSpec::NAMES {
        let plan = plan(name, &options, 12);
        for strength in [0.5, 1.0] {
            let mut noise = SeededNoise::new(5, 0..2);
            let start = noise.start([3, 8, 8]);
            let mut network = exact(&options);
            let painted = inpaint(
                &plan,
                &mut network,
                &mut noise,
                &start,
                &image,
                &mask,
                strength,
                |_| {},
            )
            .unwrap();
            let mut changed = 0.0f32;
            for ((.., x), value) in painted.indexed_iter() {
                assert!(value.is_finite());
                changed = changed.max(if x < 4 { 0.0 } else { value.abs() });
            }
            for ((index, value), kept) in painted.indexed_iter().zip(&image) {
                if index.3 < 4 {
                    assert_eq!(value, kept, "{name}, strength {strength}");
                }
            }
            assert!(changed > 0.8, "{name}, strength {strength}: {changed}");
        }
    }
}

#[test]
fn masks_of_all_and_nothing_are_a_plain_run_and_the_image() {
    let options = plain();
    for name in ["ddim", "heun", "dpmpp-2m", "euler-a"] {
        let plan = plan(name, &options, 8);
        let image = SeededNoise::new(9, 0..2).start([3, 8, 8]);
        let run = |mask: f32| {
            let mut noise = SeededNoise::new(11, 0..2);
            let start = noise.start([3, 8, 8]);
            let mask = Array4::from_elem((1, 1, 1, 1), mask);
            let mut network = exact(&options);
            inpaint(
                &plan,
                &mut network,
                &mut noise,
                &start,
                &image,
                &mask,
                1.0,
                |_| {},
            )
        };
        assert_eq!(run(0.0).unwrap(), image);
        assert_eq!(run(1.0).unwrap(), draw(&plan, &options, 0..2), "{name}");
        assert!(run(1.5).is_err());
    }
}

#[test]
fn who_watches_may_end_a_run() {
    let options = plain();
    let plan = plan("ddim", &options, 6);
    let image = SeededNoise::new(9, 0..1).start([1, 4, 4]);
    let mask = Array4::ones((1, 1, 1, 1));
    for task in 0..4 {
        let (mut network, mut noise) = (exact(&options), SeededNoise::new(1, 0..1));
        let start = noise.start([1, 4, 4]);
        let (net, draws) = (&mut network, &mut noise);
        let mut seen = 0;
        let watch = |_: Progress<'_>| {
            seen += 1;
            match seen {
                3 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        };
        let ended = match task {
            0 => sample(&plan, net, draws, start, watch),
            1 => image_to_image(&plan, net, draws, &start, &image, 1.0, watch),
            2 => inpaint(&plan, net, draws, &start, &image, &mask, 1.0, watch),
            _ => invert(&plan, net, &image, 1, watch),
        };
        let ended = ended.unwrap_err();
        assert!(matches!(ended, Error::Ended { iteration: 2 }), "{ended}");
        assert_eq!(seen, 3);
    }
}

#[test]
fn masks_that_do_not_fit_are_refused() {
    let options = plain();
    let plan = plan("ddim", &options, 4);
    let mut noise = SeededNoise::new(1, 0..1);
    let start = noise.start([1, 4, 4]);
    let mask = Array4::zeros((1, 1, 4, 3));
    let mut network = exact(&options);
    let refused = inpaint(
        &plan,
        &mut network,
        &mut noise,
        &start,
        &start,
        &mask,
        1.0,
        |_| {},
    );
    assert!(matches!(refused, Err(Error::Shape { what: "mask", .. })));
}

#[test]
fn refined_inversion_leads_back_exactly() {
    for prediction in [Prediction::Epsilon, Prediction::Start, Prediction::Velocity] {
        let options = options(prediction, Variance::FixedSmall);
        let image = SeededNoise::new(3, 0..2)
            .start([3, 4, 4])
            .mapv(|x| 0.3 + 0.5 * x);
        for name in ["ddim", "dpmpp-1"] {
            let plan = plan(name, &options, 20);
            let error = |refine| {
                let mut network = exact(&options);
                let noise = invert(&plan, &mut network, &image, refine, |_| {}).unwrap();
                let mut none = SuppliedNoise(Vec::new());
                let back = sample(&plan, &mut network, &mut none, noise, |_| {}).unwrap();
                farthest(&image, &back)
            };
            let (once, refined) = (error(0), error(12));
            assert!(refined < 2e-3, "{name}, {prediction:?}: {refined}");
            assert!(refined < 0.05 * once, "{name}: {refined} after {once}");
        }
    }
}

#[test]
fn inverted_images_look_like_noise() {
    let options = plain();
    let image = SeededNoise::new(3, 0..16)
        .start([3, 8, 8])
        .mapv(|x| 0.3 + 0.5 * x);
    let plan = plan("ddim", &options, 100);
    let noise = invert(&plan, &mut exact(&options), &image, 5, |_| {}).unwrap();
    let n = noise.len() as f32;
    let mean = noise.sum() / n;
    let deviation = (noise.mapv(|x| (x - mean).powi(2)).sum() / n).sqrt();
    assert!(
        mean.abs() < 0.05 && (deviation - 1.0).abs() < 0.05,
        "{mean}, {deviation}"
    );
}

/// A schedule that ends in pure noise has no ratio of noise to image there.
#[test]
fn schedules_that_end_in_noise_can_be_sampled_with_everything() {
    let options = Options {
        schedule: "scaled_linear_zero_snr".parse().unwrap(),
        ..options(Prediction::Velocity, Variance::FixedSmall)
    };
    for name in SamplerSpec::NAMES {
        for spacing in ["default", "trailing", "karras"] {
            let spec: SamplerSpec = name.parse().unwrap();
            let plan = spec.plan(&options, 10, spacing.parse().unwrap()).unwrap();
            let mut noise = SeededNoise::new(1, 0..2);
            let start = noise.start([1, 4, 4]);
            // Everything is noise, and the image is grey.
            let mut network = from_fn(|x: &Array4<f32>, _: &[f64]| x.mapv(|_| 0.0));
            let image = sample(&plan, &mut network, &mut noise, start, |_| {}).unwrap();
            assert!(
                image.iter().all(|x| x.is_finite()),
                "{name}, {spacing}: not finite"
            );
        }
    }
}

proptest::proptest! {
    /// Any combination either says what is wrong or runs to its end, on images of any shape.
    #[test]
    fn any_plan_runs_or_is_refused(
        sampler in 0..SamplerSpec::NAMES.len(),
        spacing in 0..Spacing::NAMES.len(),
        schedule in 0..6usize,
        total in 1..60usize,
        steps in 0..70usize,
        shape in (1..3usize, 1..4usize, 1..6usize, 1..6usize),
    ) {
        let options = Options {
            schedule: dis_diffusion::Schedule::all().nth(schedule).unwrap(),
            steps: total,
            ..options(Prediction::Velocity, Variance::FixedSmall)
        };
        let spec: SamplerSpec = SamplerSpec::NAMES[sampler].parse().unwrap();
        let spacing = Spacing::NAMES[spacing].parse().unwrap();
        let Ok(plan) = spec.plan(&options, steps, spacing) else {
            return Ok(());
        };
        let mut network = from_fn(|x: &Array4<f32>, t: &[f64]| {
            assert_eq!(t.len(), x.dim().0);
            assert!(t.iter().all(|t| *t >= 0.0 && *t < total as f64));
            x.mapv(|x| 0.5 * x)
        });
        let mut noise = SeededNoise::new(1, 0..shape.0 as u64);
        let start = noise.start([shape.1, shape.2, shape.3]);
        let limit = Some(Limit::default());
        let image = sample(&plan.with_limit(limit), &mut network, &mut noise, start, |_| {});
        match image {
            Ok(image) => proptest::prop_assert_eq!(image.dim(), shape),
            Err(error) => return Err(proptest::test_runner::TestCaseError::fail(error.to_string())),
        }
    }
}
