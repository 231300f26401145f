//! The steps of a run, with what comes between them: lines of metrics, checkpoints, looks at samples.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dis_data::{Dataset, Loader};
use dis_eval::FeatureNetwork;
use dis_model::{Metadata, ModelBackend};

use super::dir::{Manifest, RunDir};
use super::looks::Looks;
use super::metrics::{MetricsLog, When};
use super::pacing::{Pacer, Used};
use super::report::{Facts, write_report};
use super::train::{Observer, Outcome, Standing};
use crate::clock::Clock;
use crate::config::RunConfig;
use crate::error::Result;
use crate::trainer::{StepReport, Trainer};

/// Steps that means are taken over.
const RECENT: usize = 100;

/// A run that is ready to go.
pub(super) struct Run<'a, B: ModelBackend> {
    pub dir: RunDir,
    pub config: RunConfig,
    /// What is trained on.
    pub data: Arc<dyn Dataset>,
    /// What is not.
    pub held_out: Option<Arc<dyn Dataset>>,
    pub metadata: Metadata,
    pub manifest: Manifest,
    pub trainer: Trainer<B>,
    pub pacer: Pacer,
    pub log: MetricsLog,
    pub clock: &'a dyn Clock,
    pub features: Option<&'a dyn FeatureNetwork>,
}

/// The last steps.
#[derive(Default)]
struct Recent {
    losses: VecDeque<f64>,
    seconds: VecDeque<f64>,
}

impl Recent {
    fn add(list: &mut VecDeque<f64>, value: f64) {
        list.push_back(value);
        if list.len() > RECENT {
            list.pop_front();
        }
    }

    /// Not a number before the first.
    fn mean(list: &VecDeque<f64>) -> f64 {
        match list.len() {
            0 => f64::NAN,
            n => list.iter().sum::<f64>() / n as f64,
        }
    }

    fn loss(&self) -> f64 {
        Self::mean(&self.losses)
    }
}

/// Time of a session.
struct Times {
    /// Seconds that the run had taken before.
    before: f64,
    /// When the first step of the session began.
    begun: f64,
    /// Seconds of its steps.
    steps: f64,
    /// Their number.
    count: u64,
}

impl<B: ModelBackend> Run<'_, B> {
    /// Does all steps, unless it is asked to stop.
    pub fn finish(
        mut self,
        mut loader: Loader,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Outcome> {
        let train = self.config.train.clone();
        let images = (train.batch_size * train.accumulation) as f64;
        let mut times = Times {
            before: self.log.seconds(),
            begun: self.clock.seconds(),
            steps: 0.0,
            count: 0,
        };
        let mut looks = Looks::new(&train, times.before);
        let mut recent = Recent::default();
        let (mut busy, mut steps) = (0.0, 0u32);
        while !self.is_done() && !stop.load(Ordering::Relaxed) {
            let begun = self.clock.seconds();
            let batch = match loader.next_batch() {
                Ok(batch) => batch,
                Err(error) => {
                    // Nothing is lost but the time to mend the data. The error that matters is theirs.
                    let _ = self.save();
                    return Err(error.into());
                }
            };
            let report = self.trainer.step(&batch)?;
            let now = self.clock.seconds();
            let took = now - begun;
            busy += took;
            steps += 1;
            (times.steps, times.count) = (times.steps + took, times.count + 1);
            Recent::add(&mut recent.seconds, took);
            if report.skipped {
                observer.warning(&format!(
                    "step {}: loss or gradient not finite, the update was left out",
                    report.step
                ));
            } else {
                Recent::add(&mut recent.losses, report.loss);
            }
            observer.step(
                &report,
                &self.standing(&report, &recent, &times, now, images),
            );
            let last = self.is_done();
            if report.step.is_multiple_of(train.log_every) || last || report.skipped {
                let rate = images * f64::from(steps) / busy.max(1e-9);
                let when = self.when(&times);
                self.log.write(&report, recent.loss(), rate, when)?;
                (busy, steps) = (0.0, 0);
            }
            looks.expect(self.look_passes() * Recent::mean(&recent.seconds) / images);
            if self.pacer.is_due(report.step) {
                let used = Used {
                    all: times.before + self.clock.seconds(),
                    steps: times.steps,
                };
                if self.pacer.decide(report.step, used, looks.to_come())? {
                    self.trainer.set_pace(self.pacer.pace().clone());
                }
            }
            if report.step.is_multiple_of(train.checkpoint_every) && !last {
                self.save()?;
            }
            let begun = times.before + self.clock.seconds();
            if looks.is_due(report.step, last, begun) {
                // First what would be lost.
                self.save()?;
                if let Some(look) = self.look(observer, stop)? {
                    let when = self.when(&times);
                    self.log.write_look(report.step, &look, when)?;
                    self.report()?;
                    looks.taken(begun, times.before + self.clock.seconds());
                }
            }
        }
        let (step, done) = (self.trainer.steps_done(), self.is_done());
        Ok(Outcome {
            step,
            steps: self.pacer.pace().steps(step),
            interrupted: !done,
            checkpoint: self.save()?,
            mean_loss: Some(recent.loss()).filter(|mean| mean.is_finite()),
            nothing_to_do: false,
        })
    }

    /// Writes the report as things stand.
    fn report(&self) -> Result<()> {
        let step = self.trainer.steps_done();
        let facts = Facts {
            step,
            steps: self.pacer.pace().steps(step),
            data: self.data.describe(),
            parameters: self.trainer.model().table().parameters(),
        };
        write_report(&self.dir, &self.config, &facts)
    }

    fn is_done(&self) -> bool {
        let step = self.trainer.steps_done();
        step >= self.pacer.pace().steps(step)
    }

    fn when(&self, times: &Times) -> When {
        When {
            unix: self.clock.unix(),
            seconds: times.before + self.clock.seconds(),
        }
    }

    fn standing(
        &self,
        report: &StepReport,
        recent: &Recent,
        times: &Times,
        now: f64,
        images: f64,
    ) -> Standing {
        let steps = self.pacer.pace().steps(report.step);
        // What comes between steps is counted with them.
        let each = (now - times.begun) / times.count.max(1) as f64;
        let left = steps.saturating_sub(report.step) as f64 * each;
        let seconds = times.before + now;
        Standing {
            steps,
            mean_loss: recent.loss(),
            images_per_second: images / Recent::mean(&recent.seconds).max(1e-9),
            seconds,
            left: self.pacer.left(report.step, seconds).unwrap_or(left),
        }
    }

    fn save(&self) -> Result<PathBuf> {
        let state = self.trainer.state();
        let manifest = Manifest {
            step: state.step,
            updates: state.updates,
            ..self.manifest.clone()
        };
        let keep = self.config.train.keep;
        self.dir
            .save(self.trainer.model(), &self.metadata, &state, manifest, keep)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use dis_tensor::Cpu;

    use super::*;
    use crate::budget::Budget;
    use crate::run::{Session, Start, train};

    /// A clock that is later by a tick each time it is asked, and an observer that stops after a step.
    struct Ticking {
        now: Cell<f64>,
        tick: f64,
    }

    impl Clock for Ticking {
        fn seconds(&self) -> f64 {
            self.now.set(self.now.get() + self.tick);
            self.now.get()
        }
    }

    struct StopAfter<'a>(u64, &'a AtomicBool);

    impl Observer for StopAfter<'_> {
        fn step(&mut self, report: &StepReport, standing: &Standing) {
            assert!(
                standing.left >= 0.0 && standing.seconds > 0.0 && report.step <= standing.steps
            );
            self.1.store(report.step >= self.0, Ordering::Relaxed);
        }
    }

    fn config(budget: u64) -> RunConfig {
        let mut config = RunConfig::preset("digits").unwrap();
        for (key, value) in [("depth", 1), ("embed_dim", 16), ("patch_size", 4)] {
            config.model.insert(key.into(), value.into());
        }
        let train = &mut config.train;
        (train.steps, train.batch_size, train.held_out) = (24, 2, 40);
        (train.log_every, train.checkpoint_every, train.keep) = (1, 50, 0);
        (train.ema_share, train.warmup_steps) = (Some(0.2), 5);
        (train.sample_every, train.budget) = (1000, Budget::of_seconds(budget));
        (
            config.sample.per_class,
            config.sample.steps,
            config.sample.frechet,
        ) = (1, 2, 4);
        config
    }

    /// Runs with a clock of this tick until some step; returns the steps that were done.
    fn run(out: &Path, config: &RunConfig, start: Start, tick: f64, last: u64) -> u64 {
        let stop = AtomicBool::new(false);
        let now = Cell::new(0.0);
        let clock = Ticking { now, tick };
        let mut observer = StopAfter(last, &stop);
        let session = Session::new("any", &clock);
        let cpu = Cpu::with_threads(1).unwrap();
        let outcome = train(
            cpu,
            config.clone(),
            out,
            start,
            session,
            &mut observer,
            &stop,
        );
        outcome.unwrap().step
    }

    fn weights(run: &Path) -> Vec<Vec<u8>> {
        let (dir, _) = RunDir::open(run).unwrap();
        let (_, newest) = dir.list().unwrap().pop().unwrap();
        ["weights", "ema", "adam_m"]
            .map(|name| std::fs::read(newest.join(format!("{name}.safetensors"))).unwrap())
            .to_vec()
    }

    #[test]
    fn a_run_that_keeps_to_a_time_is_the_same_however_it_is_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let (cut, whole) = (dir.path().join("cut"), dir.path().join("whole"));
        let config = config(20);
        // Stopped twice, each time on a machine of another speed.
        assert_eq!(run(&cut, &config, Start::New, 0.125, 5), 5);
        assert_eq!(run(&cut, &config, Start::Resume, 0.5, 8), 8);
        let steps = run(&cut, &config, Start::Resume, 0.25, u64::MAX);
        assert!(steps > 8 && steps != 24, "{steps}");
        // Without a stop, on a machine that would have decided otherwise, but with the same decisions.
        std::fs::create_dir_all(whole.join("checkpoints")).unwrap();
        for name in ["config.toml", "pace.json"] {
            std::fs::copy(cut.join(name), whole.join(name)).unwrap();
        }
        std::fs::create_dir_all(whole.join("samples")).unwrap();
        assert_eq!(run(&whole, &config, Start::Resume, 0.5, u64::MAX), steps);
        assert!(weights(&cut) == weights(&whole));
        let record = |run: &Path| std::fs::read(run.join("pace.json")).unwrap();
        assert!(record(&cut) == record(&whole));
        // Each look has the checkpoint of its step, and its line what was found.
        let lines = crate::run::read_metrics(&cut.join("metrics.jsonl")).unwrap();
        let looks: Vec<_> = lines
            .iter()
            .filter(|line| line["grid"].is_string())
            .collect();
        assert!(looks.len() > 1);
        for look in looks {
            let step = look["step"].as_u64().unwrap();
            assert!(
                cut.join(format!("checkpoints/step-{step:08}/manifest.json"))
                    .is_file()
            );
            assert!(look["validation_loss"].is_number() && look["frechet"].is_number());
        }
        assert!(cut.join("report.html").is_file());
        // It is done, and goes on where it is given more time.
        assert_eq!(run(&cut, &config, Start::Resume, 0.25, u64::MAX), steps);
        let more = run(&cut, &self::config(40), Start::Resume, 0.25, u64::MAX);
        assert!(more > steps, "{more}");
    }

    #[test]
    fn looks_and_images_held_out_leave_the_random_numbers_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut with = config(20);
        with.train.budget = None;
        with.train.steps = 4;
        (with.train.sample_every, with.train.ema_share) = (2, None);
        let mut without = with.clone();
        without.train.sample_every = 0;
        let run = |name: &str, config: &RunConfig| {
            let out = dir.path().join(name);
            run(&out, config, Start::New, 0.25, u64::MAX);
            weights(&out)
        };
        assert!(run("with", &with) == run("without", &without));
    }
}
