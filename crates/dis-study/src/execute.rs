//! Runs a study: trains up to an evaluation, judges, goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dis_files::{DirLock, FileError, write_atomic};
use dis_model::ModelBackend;
use dis_pipeline::Pipeline;

use super::config::StudyConfig;
use super::ending::Ending;
use super::evaluate::Judge;
use super::expand::{Grid, Variant};
use crate::error::{Result, StudyError};
use dis_data::{DataError, DataSpec, Dataset, grid, open};
use dis_eval::FeatureNetwork;
use dis_train::TrainError;
use dis_train::WallClock;
use dis_train::config::RunConfig;
use dis_train::run::{DataPolicy, Observer, RunDir, Session, Standing, Start, find_weights, train};
use dis_train::trainer::StepReport;

/// Watches a study. All methods may do nothing.
pub trait StudyObserver {
    /// A run begins, or goes on: its name, number from 1, and how many there are.
    fn run(&mut self, _name: &str, _number: usize, _runs: usize) {}
    /// Pictures are looked at before a run: how many are done, and how many there are.
    fn checking(&mut self, _done: usize, _all: usize) {}
    /// Steps done of all steps of all runs, and the last loss.
    fn step(&mut self, _done: u64, _total: u64, _loss: f64) {}
    /// Something worth telling.
    fn message(&mut self, _text: &str) {}
    /// Something worth warning of.
    fn warning(&mut self, _text: &str) {}
}

/// A run that failed for another reason than that it diverged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Variant and seed.
    pub run: String,
    /// With what, naming its directory.
    pub what: String,
}

/// How a study ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StudyEnd {
    /// Whether it was asked to stop before its end; the same call goes on.
    pub stopped: bool,
    /// Runs that diverged, by variant and seed: they are results too.
    pub diverged: Vec<String>,
    /// Runs that failed; the same call tries them again.
    pub failed: Vec<Failure>,
}

/// Where a run of a study lies.
pub fn run_dir(out: &Path, variant: &Variant, seed: u64) -> PathBuf {
    out.join("runs")
        .join(&variant.name)
        .join(format!("seed-{seed}"))
}

pub(super) fn evaluation_path(dir: &Path, step: u64) -> PathBuf {
    dir.join("eval").join(format!("step-{step:08}.json"))
}

pub(super) fn picture_path(dir: &Path, step: u64) -> PathBuf {
    dir.join("samples").join(format!("step-{step:08}.png"))
}

/// Steps at which a run is judged.
pub(super) fn evaluation_steps(every: u64, steps: u64) -> impl Iterator<Item = u64> {
    (1..)
        .map(move |i| i * every)
        .take_while(move |&s| s < steps)
        .chain([steps])
}

/// Trains and judges all runs in the directory `out` that are not done, by the features of `network`,
/// which `evaluate.features` names. A run that diverges or fails is recorded in its directory, and the
/// others go on. Runs that diverged are not repeated.
///
/// # Errors
/// If a run of other settings is in the way, or what belongs to no run cannot be read or written.
pub fn run_study<B: ModelBackend>(
    backend: &B,
    study: &StudyConfig,
    grid: &Grid,
    out: &Path,
    network: &dyn FeatureNetwork,
    policy: DataPolicy,
    instruction_set: &str,
    observer: &mut dyn StudyObserver,
    stop: &AtomicBool,
) -> Result<StudyEnd> {
    // Held until the study ends, however it ends; each run has one of its own.
    let _lock = DirLock::acquire(out, "dis study")?;
    refuse_other_settings(grid, out)?;
    write_atomic(&out.join("study.toml"), study.to_toml()?.as_bytes())?;
    let steps = |v: &Variant| v.config.train.steps;
    let seeds = grid.seeds.len();
    let all = grid.variants.iter().map(steps).fold(0, u64::saturating_add);
    let mut runner = Runner {
        backend,
        study,
        network,
        policy,
        instruction_set,
        observer,
        stop,
        before: 0,
        total: all.saturating_mul(seeds as u64),
        judges: Vec::new(),
    };
    let mut end = StudyEnd::default();
    // Seed by seed, so that a study that was stopped early has something of every variant.
    for (i, &seed) in grid.seeds.iter().enumerate() {
        for (j, variant) in grid.variants.iter().enumerate() {
            let name = format!("{}, seed {seed}", variant.name);
            let number = i * grid.variants.len() + j + 1;
            runner
                .observer
                .run(&name, number, seeds * grid.variants.len());
            let dir = run_dir(out, variant, seed);
            let result = match variant.refused() {
                Some((_, what)) => Err(Ending::failed(what)),
                None => runner.attempt(&dir, variant.with_seed(seed))?,
            };
            match result {
                Ok(true) => {}
                Ok(false) => {
                    end.stopped = true;
                    return Ok(end);
                }
                Err(ending) if ending.diverged => {
                    runner
                        .observer
                        .warning(&format!("diverged: {}", ending.what));
                    end.diverged.push(name);
                }
                Err(ending) => {
                    runner.observer.warning(&format!("failed: {}", ending.what));
                    end.failed.push(Failure {
                        run: name,
                        what: ending.what,
                    });
                }
            }
            runner.before = runner.before.saturating_add(steps(variant));
        }
    }
    Ok(end)
}

/// Refuses a directory in which a run was made with other settings: figures of both would stand side by
/// side.
fn refuse_other_settings(grid: &Grid, out: &Path) -> Result<()> {
    for variant in &grid.variants {
        for &seed in &grid.seeds {
            let dir = run_dir(out, variant, seed);
            if !RunDir::is_run(&dir) {
                continue;
            }
            let found = RunDir::open(&dir)?.1;
            if comparable(&found) != comparable(&variant.with_seed(seed)) {
                return Err(StudyError::Place {
                    path: dir,
                    what: "this run was made with other settings (see its config.toml); choose \
                           another --out, or remove it"
                        .into(),
                });
            }
        }
    }
    Ok(())
}

struct Runner<'a, B: ModelBackend> {
    backend: &'a B,
    study: &'a StudyConfig,
    network: &'a dyn FeatureNetwork,
    policy: DataPolicy,
    instruction_set: &'a str,
    observer: &'a mut dyn StudyObserver,
    stop: &'a AtomicBool,
    /// Steps of the runs before this one.
    before: u64,
    total: u64,
    /// By specification.
    judges: Vec<(String, Rc<Judge<'a>>)>,
}

impl<B: ModelBackend> Runner<'_, B> {
    /// Brings a run to its end, unless it is known to diverge, and records what kept it from it. Returns
    /// whether it got there.
    fn attempt(
        &mut self,
        dir: &Path,
        config: RunConfig,
    ) -> Result<std::result::Result<bool, Ending>> {
        match Ending::read(dir)? {
            Some(ending) if ending.diverged => return Ok(Err(ending)),
            Some(_) => Ending::forget(dir)?,
            None => {}
        }
        match self.run(dir, config) {
            Ok(done) => Ok(Ok(done)),
            Err(error) => {
                let ending = Ending::of(&error, dir);
                // Where the disk is full this fails too; the report then misses the reason.
                if let Err(error) = ending.save(dir) {
                    self.observer.warning(&error.to_string());
                }
                Ok(Err(ending))
            }
        }
    }

    /// Brings a run to its end. Returns whether it got there.
    fn run(&mut self, dir: &Path, config: RunConfig) -> Result<bool> {
        let steps = config.train.steps;
        if evaluation_path(dir, steps).is_file() {
            return Ok(true);
        }
        loop {
            let at = newest(dir)?;
            let due = at > 0 && (at == steps || at.is_multiple_of(self.study.evaluate.every));
            if due && !evaluation_path(dir, at).is_file() {
                self.judge(dir, &config, at)?;
            }
            if at >= steps {
                return Ok(true);
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let start = if RunDir::is_run(dir) {
                Start::Resume
            } else {
                Start::New
            };
            let pause = AtomicBool::new(false);
            let mut watch = Watch {
                every: self.study.evaluate.every,
                pause: &pause,
                stop: self.stop,
                before: self.before,
                total: self.total,
                observer: &mut *self.observer,
            };
            let clock = WallClock::default();
            let trained = train(
                self.backend.clone(),
                config.clone(),
                dir,
                start,
                Session {
                    policy: self.policy,
                    ..Session::new(self.instruction_set, &clock)
                },
                &mut watch,
                &pause,
            );
            match trained {
                // Before the first step: whether that was wanted is asked above.
                Err(TrainError::Data(DataError::Stopped)) => {}
                trained => drop(trained?),
            }
        }
    }

    fn judge(&mut self, dir: &Path, config: &RunConfig, step: u64) -> Result<()> {
        let reference = self.study.evaluate.reference.as_ref();
        let spec = reference.unwrap_or(&config.data.spec).clone();
        let judge = match self.judges.iter().find(|(s, _)| *s == spec) {
            Some((_, judge)) => Rc::clone(judge),
            None => {
                let data: Arc<dyn Dataset> = open(&spec.parse::<DataSpec>()?)?;
                let judge = Rc::new(Judge::new(&self.study.evaluate, &*data, self.network)?);
                self.judges.push((spec, Rc::clone(&judge)));
                judge
            }
        };
        let found = find_weights(dir, &mut |text| self.observer.warning(text))?;
        let pipeline = Pipeline::open(found.file(false), self.backend.clone())?;
        let judged = judge.judge(&pipeline, step)?;
        let figures = &judged.figures;
        for warning in &judged.warnings {
            self.observer.warning(warning);
        }
        let picture = judge.picture(&judged.samples, judged.classes)?;
        grid::write_png(&picture_path(dir, step), &picture)?;
        let path = evaluation_path(dir, step);
        let folder = dir.join("eval");
        fs::create_dir_all(&folder).map_err(FileError::io(&folder, "create it"))?;
        let text =
            serde_json::to_string_pretty(figures).map_err(|e| StudyError::config(e.to_string()))?;
        write_atomic(&path, format!("{text}\n").as_bytes())?;
        let agreement = figures
            .agreement
            .map_or(String::new(), |a| format!(", class {:.1} %", 100.0 * a));
        self.observer.message(&format!(
            "step {step}: Frechet distance {:.3}{agreement}, coverage {:.1} %",
            figures.frechet,
            100.0 * figures.coverage
        ));
        Ok(())
    }
}

/// What makes two runs the same: their data wherever they are named from, and whether or not bad
/// pictures were left out, which a run finds out itself.
fn comparable(config: &RunConfig) -> RunConfig {
    let mut config = config.clone();
    config.data = config.data.absolute();
    config.data.skip.clear();
    config
}

/// Step of the newest checkpoint; 0 where there is none.
fn newest(dir: &Path) -> Result<u64> {
    if !RunDir::is_run(dir) {
        return Ok(0);
    }
    let (run, _) = RunDir::open(dir)?;
    let newest = run.newest_whole(&mut |_, _| {})?;
    Ok(newest.map_or(0, |(_, manifest)| manifest.step))
}

/// Pauses a run where it is to be judged.
struct Watch<'a> {
    every: u64,
    pause: &'a AtomicBool,
    stop: &'a AtomicBool,
    before: u64,
    total: u64,
    observer: &'a mut dyn StudyObserver,
}

impl Observer for Watch<'_> {
    fn checking(&mut self, done: usize, all: usize) {
        self.observer.checking(done, all);
        if self.stop.load(Ordering::Relaxed) {
            self.pause.store(true, Ordering::Relaxed);
        }
    }

    fn step(&mut self, report: &StepReport, _standing: &Standing) {
        let due = report.step.is_multiple_of(self.every);
        if due || self.stop.load(Ordering::Relaxed) {
            self.pause.store(true, Ordering::Relaxed);
        }
        let done = self.before.saturating_add(report.step);
        self.observer.step(done, self.total, report.loss);
    }

    fn warning(&mut self, text: &str) {
        self.observer.warning(text);
    }
}
