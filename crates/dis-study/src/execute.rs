//! Runs a study: trains up to an evaluation, judges, goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dis_files::write_atomic;
use dis_scan::ScanBackend;

use super::config::StudyConfig;
use super::evaluate::Judge;
use super::expand::{Grid, Variant};
use crate::error::{Result, StudyError};
use dis_data::{DataSpec, Dataset, grid, open};
use dis_eval::FeatureNetwork;
use dis_train::config::RunConfig;
use dis_train::run::{Observer, RunDir, Start, train};
use dis_train::trainer::StepReport;

/// Watches a study. All methods may do nothing.
pub trait StudyObserver {
    /// A run begins, or goes on: its name, number from 1, and how many there are.
    fn run(&mut self, _name: &str, _number: usize, _runs: usize) {}
    /// Steps done of all steps of all runs, and the last loss.
    fn step(&mut self, _done: u64, _total: u64, _loss: f64) {}
    /// Something worth telling.
    fn message(&mut self, _text: &str) {}
    /// Something worth warning of.
    fn warning(&mut self, _text: &str) {}
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
/// which `evaluate.features` names. Returns whether all are
/// done: not if `stop` was set, after which the same call goes on.
///
/// # Errors
/// If a run of other settings is in the way, or one fails.
pub fn run_study<B: ScanBackend>(
    backend: &B,
    study: &StudyConfig,
    grid: &Grid,
    out: &Path,
    network: &dyn FeatureNetwork,
    instruction_set: &str,
    observer: &mut dyn StudyObserver,
    stop: &AtomicBool,
) -> Result<bool> {
    fs::create_dir_all(out).map_err(|e| StudyError::io(out, "create it", e))?;
    write_atomic(&out.join("study.toml"), study.to_toml()?.as_bytes())?;
    let steps = |v: &Variant| v.config.train.steps;
    let seeds = grid.seeds.len();
    let total = grid.variants.iter().map(steps).sum::<u64>() * seeds as u64;
    let mut runner = Runner {
        backend,
        study,
        network,
        instruction_set,
        observer,
        stop,
        before: 0,
        total,
        judges: Vec::new(),
    };
    // Seed by seed, so that a study that was stopped early has something of every variant.
    for (i, &seed) in grid.seeds.iter().enumerate() {
        for (j, variant) in grid.variants.iter().enumerate() {
            let name = format!("{}, seed {seed}", variant.name);
            let number = i * grid.variants.len() + j + 1;
            runner
                .observer
                .run(&name, number, seeds * grid.variants.len());
            let dir = run_dir(out, variant, seed);
            if !runner.run(&dir, variant.with_seed(seed))? {
                return Ok(false);
            }
            runner.before += steps(variant);
        }
    }
    Ok(true)
}

struct Runner<'a, B: ScanBackend> {
    backend: &'a B,
    study: &'a StudyConfig,
    network: &'a dyn FeatureNetwork,
    instruction_set: &'a str,
    observer: &'a mut dyn StudyObserver,
    stop: &'a AtomicBool,
    /// Steps of the runs before this one.
    before: u64,
    total: u64,
    /// By specification.
    judges: Vec<(String, Rc<Judge<'a>>)>,
}

impl<B: ScanBackend> Runner<'_, B> {
    /// Brings a run to its end. Returns whether it got there.
    fn run(&mut self, dir: &Path, config: RunConfig) -> Result<bool> {
        let steps = config.train.steps;
        if RunDir::is_run(dir) {
            let (_, found) = RunDir::open(dir)?;
            if found != config {
                return Err(StudyError::Place {
                    path: dir.to_path_buf(),
                    what: "this run was made with other settings (see its config.toml); choose \
                           another --out, or remove it"
                        .into(),
                });
            }
        }
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
            train(
                self.backend.clone(),
                config.clone(),
                dir,
                start,
                self.instruction_set,
                &mut watch,
                &pause,
            )?;
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
        let (run, _) = RunDir::open(dir)?;
        let checkpoint = run.checkpoint(false)?;
        let judged = judge.judge(self.backend, &checkpoint, step)?;
        let figures = &judged.figures;
        for warning in &judged.warnings {
            self.observer.warning(warning);
        }
        let picture = judge.picture(&judged.samples, judged.classes)?;
        grid::write_png(&picture_path(dir, step), &picture)?;
        let path = evaluation_path(dir, step);
        let folder = dir.join("eval");
        fs::create_dir_all(&folder).map_err(|e| StudyError::io(&folder, "create it", e))?;
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

/// Step of the newest checkpoint; 0 where there is none.
fn newest(dir: &Path) -> Result<u64> {
    if !RunDir::is_run(dir) {
        return Ok(0);
    }
    let (run, _) = RunDir::open(dir)?;
    Ok(run.list()?.last().map_or(0, |(step, _)| *step))
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
    fn step(&mut self, report: &StepReport, _mean_loss: f64) {
        let due = report.step.is_multiple_of(self.every);
        if due || self.stop.load(Ordering::Relaxed) {
            self.pause.store(true, Ordering::Relaxed);
        }
        self.observer
            .step(self.before + report.step, self.total, report.loss);
    }

    fn warning(&mut self, text: &str) {
        self.observer.warning(text);
    }
}
