//! Trains a small model on embedded digits, stops after three of eight steps, goes on, and ends with the
//! weights of a run that was never stopped. `cargo run --release -p dis-train --example digits`

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use dis_tensor::Cpu;
use dis_train::run::{Observer, Session, Standing, Start, find_weights, train};
use dis_train::{RunConfig, StepReport, WallClock};

/// Says what a step gave, and asks the run to stop after some step.
struct Watch<'a> {
    last: u64,
    stop: &'a AtomicBool,
}

impl Observer for Watch<'_> {
    fn step(&mut self, report: &StepReport, _standing: &Standing) {
        println!("step {}: loss {:.4}", report.step, report.loss);
        self.stop.store(report.step == self.last, Ordering::Relaxed);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = RunConfig::preset("digits")?;
    config.train.steps = 8;
    config.train.batch_size = 8;
    config.train.sample_every = 0;
    let run = |out: &Path, start: Start, last: u64| {
        let stop = AtomicBool::new(false);
        let mut watch = Watch { last, stop: &stop };
        let cpu = Cpu::new();
        let instructions = cpu.level().name();
        train(
            cpu,
            config.clone(),
            out,
            start,
            Session::new(instructions, &WallClock::default()),
            &mut watch,
            &stop,
        )
    };
    let dir = tempfile::tempdir()?;
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    run(&whole, Start::New, 8)?;
    assert!(run(&parts, Start::New, 3)?.interrupted);
    run(&parts, Start::Resume, 8)?;
    let weights = |out: &Path| -> dis_train::Result<Vec<f32>> {
        let found = find_weights(out, &mut |warning| println!("{warning}"))?;
        Ok(found.load(false)?.weights)
    };
    assert_eq!(weights(&whole)?, weights(&parts)?);
    println!("the same weights, stopped or not");
    Ok(())
}
