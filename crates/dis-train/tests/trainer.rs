//! The trainer: accumulation, skipped updates, learning, exact state.

#![allow(clippy::unwrap_used)]

use dis_data::{Batch, LoaderOptions, load_batch, open};
use dis_diffusion::GaussianDiffusion;
use dis_model::{ConditionKind, DisConfig, DisModel};
use dis_tensor::{Cpu, Reference};
use dis_train::config::TrainConfig;
use dis_train::trainer::MAX_NOT_FINITE;
use dis_train::{TrainError, TrainState, Trainer};

fn model() -> DisModel {
    let mut config = DisConfig::new(8, 4, 1, 12, 2);
    config.ssm.d_state = 4;
    config.condition = ConditionKind::Classes {
        num_classes: 10,
        null_label: true,
    };
    DisModel::new(config).unwrap()
}

fn config(batch_size: usize, accumulation: usize) -> TrainConfig {
    TrainConfig {
        batch_size,
        accumulation,
        lr: 1e-3,
        warmup_steps: 0,
        steps: 100,
        ..TrainConfig::default()
    }
}

fn trainer(config: TrainConfig, state: &TrainState) -> Trainer<Cpu> {
    let diffusion = GaussianDiffusion::new(&Default::default()).unwrap();
    Trainer::new(Cpu::new(), model(), diffusion, config, state).unwrap()
}

fn batch(step: u64, size: usize) -> Batch {
    let digits = open(&"digits".parse().unwrap()).unwrap();
    load_batch(&*digits, &LoaderOptions::new(0, size), step).unwrap()
}

fn fresh() -> TrainState {
    TrainState::new(model().table().initial(0))
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |m, (a, b)| m.max((a - b).abs()))
}

#[test]
fn accumulated_batches_are_one_large_batch() {
    let run = |micro, count| {
        let mut trainer = trainer(config(micro, count), &fresh());
        let report = trainer.step(&batch(0, 12)).unwrap();
        (report, trainer.state())
    };
    let (whole, one) = run(12, 1);
    let (parts, four) = run(3, 4);
    assert!((whole.loss - parts.loss).abs() < 1e-5 * whole.loss);
    assert!((whole.grad_norm - parts.grad_norm).abs() < 1e-4 * whole.grad_norm);
    // The first moment is linear in the gradient; the step itself divides by its size.
    let scale = one.m.iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(largest_difference(&one.m, &four.m) < 1e-4 * scale);
}

#[test]
fn a_state_taken_up_again_continues_with_the_same_bits() {
    let mut whole = trainer(config(8, 1), &fresh());
    for step in 0..6 {
        whole.step(&batch(step, 8)).unwrap();
    }
    let mut first = trainer(config(8, 1), &fresh());
    for step in 0..3 {
        first.step(&batch(step, 8)).unwrap();
    }
    let mut second = trainer(config(8, 1), &first.state());
    for step in 3..6 {
        second.step(&batch(step, 8)).unwrap();
    }
    assert_eq!(whole.state(), second.state());
}

#[test]
fn training_lowers_the_loss() {
    let fast = TrainConfig {
        lr: 1e-2,
        steps: 150,
        ..config(32, 1)
    };
    let mut trainer = trainer(fast, &fresh());
    let losses: Vec<f64> = (0..150)
        .map(|step| trainer.step(&batch(step, 32)).unwrap().loss)
        .collect();
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    assert!(
        mean(&losses[130..]) < 0.6 * mean(&losses[..10]),
        "{losses:?}"
    );
}

#[test]
fn what_is_not_finite_changes_nothing_and_is_given_up_after_ten() {
    let mut trainer = trainer(config(4, 1), &fresh());
    trainer.step(&batch(0, 4)).unwrap();
    let before = trainer.state();
    let mut bad = batch(1, 4);
    bad.images[5] = f32::NAN;
    let report = trainer.step(&bad).unwrap();
    assert!(report.skipped && report.loss.is_nan());
    let after = trainer.state();
    assert_eq!((after.step, after.updates), (2, 1));
    assert_eq!(
        (&after.params, &after.ema, &after.m, &after.v),
        (&before.params, &before.ema, &before.m, &before.v)
    );
    // A good step starts the count anew.
    trainer.step(&batch(2, 4)).unwrap();
    for _ in 1..MAX_NOT_FINITE {
        assert!(trainer.step(&bad).unwrap().skipped);
    }
    match trainer.step(&bad) {
        Err(TrainError::NotFinite { in_a_row, .. }) => assert_eq!(in_a_row, MAX_NOT_FINITE),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_same_step_on_the_float64_reference() {
    let mut cpu = trainer(config(4, 1), &fresh());
    let diffusion = GaussianDiffusion::new(&Default::default()).unwrap();
    let mut reference =
        Trainer::new(Reference::new(), model(), diffusion, config(4, 1), &fresh()).unwrap();
    let (a, b) = (
        cpu.step(&batch(0, 4)).unwrap(),
        reference.step(&batch(0, 4)).unwrap(),
    );
    assert!((a.loss - b.loss).abs() < 2e-5 * b.loss);
    assert!((a.grad_norm - b.grad_norm).abs() < 1e-4 * b.grad_norm);
    let scale = reference.state().m.iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(largest_difference(&cpu.state().m, &reference.state().m) < 1e-4 * scale);
}

/// A variance that the network makes infinite has an infinite loss, but a finite slope: the gradient must
/// say so all the same.
#[test]
fn an_infinite_output_is_left_out() {
    for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        let mut state = fresh();
        let table = model();
        let bias = table.table().find("final_layer.linear.bias").unwrap();
        state.params[bias.offset + bias.len() - 1] = value;
        let mut trainer = trainer(config(4, 1), &state);
        let report = trainer.step(&batch(0, 4)).unwrap();
        assert!(report.skipped && !report.loss.is_finite(), "{report:?}");
        assert_eq!(trainer.state().updates, 0);
        assert_eq!(trainer.state().m, state.m);
    }
}

#[cfg(feature = "sim")]
mod simulated {
    use super::*;
    use dis_kernels::sim::{Options, Sim};
    use dis_tensor::{Cuda, Precision};

    /// A step queues all its work and reads loss terms and norm at its end: the same two reads however
    /// many parts the batch has, and a step as on the CPU.
    #[test]
    fn a_step_waits_once_at_its_end() {
        for (micro, count) in [(4, 1), (2, 2)] {
            let gpu = Cuda::new(Sim::new(Options::default()));
            let driver = gpu.driver().clone();
            let diffusion = GaussianDiffusion::new(&Default::default()).unwrap();
            let settings = config(micro, count);
            let mut device =
                Trainer::new(gpu, model(), diffusion, settings.clone(), &fresh()).unwrap();
            let mut cpu = trainer(settings, &fresh());
            for step in 0..2 {
                let before = driver.traffic();
                let got = device.step(&batch(step, 4)).unwrap();
                let after = driver.traffic();
                assert_eq!(after.downloads - before.downloads, 2, "loss terms and norm");
                assert_eq!(after.synchronisations, before.synchronisations);
                assert_eq!(after.waits - before.waits, 1, "one after the other");
                let want = cpu.step(&batch(step, 4)).unwrap();
                assert!(!got.skipped);
                assert!(
                    (got.loss - want.loss).abs() < 2e-5 * want.loss,
                    "{got:?} {want:?}"
                );
                assert!((got.grad_norm - want.grad_norm).abs() < 1e-4 * want.grad_norm);
            }
        }
    }

    /// Both operands of every product are rounded on the device, into memory that is used again.
    #[test]
    fn a_step_in_bfloat16_waits_once_too() {
        let gpu = Cuda::new(Sim::new(Options::default())).with_precision(Precision::Bfloat16);
        let driver = gpu.driver().clone();
        let diffusion = GaussianDiffusion::new(&Default::default()).unwrap();
        let mut device = Trainer::new(gpu, model(), diffusion, config(4, 1), &fresh()).unwrap();
        let mut rounded = 0;
        for step in 0..3 {
            let before = driver.traffic();
            assert!(!device.step(&batch(step, 4)).unwrap().skipped);
            let after = driver.traffic();
            assert_eq!(after.downloads - before.downloads, 2, "loss terms and norm");
            assert_eq!(after.waits - before.waits, 1);
            let launches = driver.counters()["dis_round_bf16"].launches;
            assert!(launches > rounded, "{launches}");
            rounded = launches;
            assert!(step == 0 || after.allocations == before.allocations);
        }
    }

    /// The device leaves out what is not finite, before the host knows.
    #[test]
    fn what_is_not_finite_changes_nothing_there_either() {
        let gpu = Cuda::new(Sim::new(Options::default()));
        let diffusion = GaussianDiffusion::new(&Default::default()).unwrap();
        let mut device = Trainer::new(gpu, model(), diffusion, config(2, 2), &fresh()).unwrap();
        let mut bad = batch(1, 4);
        // In the second part.
        let pixel = bad.images.len() - 1;
        bad.images[pixel] = f32::INFINITY;
        let report = device.step(&bad).unwrap();
        assert!(report.skipped && !report.loss.is_finite(), "{report:?}");
        let state = device.state();
        assert_eq!((state.step, state.updates), (1, 0));
        let before = fresh();
        assert_eq!(
            (&state.params, &state.m, &state.v),
            (&before.params, &before.m, &before.v)
        );
    }
}

#[test]
fn a_batch_of_another_size_is_refused() {
    let mut trainer = trainer(config(4, 2), &fresh());
    assert!(
        trainer
            .step(&batch(0, 4))
            .unwrap_err()
            .to_string()
            .contains("4 images")
    );
}
