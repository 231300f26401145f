//! What the runs of a study have left behind.

use std::path::{Path, PathBuf};

use dis_files::FileError;
use dis_model::cost::Cost;

use super::config::Evaluate;
use super::ending::Ending;
use super::evaluate::Evaluation;
use super::execute::{Failure, evaluation_path, evaluation_steps, picture_path, run_dir};
use super::expand::Grid;
use super::statistics::Summary;
use crate::error::{Result, StudyError};
use dis_train::run::read_metrics;

/// What a finished run left.
#[derive(Clone, Debug)]
pub(super) struct RunResult {
    /// In order of steps.
    pub(super) evaluations: Vec<Evaluation>,
    /// Loss by step, as logged.
    pub(super) losses: Vec<(u64, f64)>,
    /// Samples at the end.
    pub(super) picture: PathBuf,
}

impl RunResult {
    /// What the run in `dir` left; none where it is not finished.
    fn read(dir: &Path, settings: &Evaluate, steps: u64) -> Result<Option<Self>> {
        let mut evaluations = Vec::new();
        for step in evaluation_steps(settings.every, steps) {
            let path = evaluation_path(dir, step);
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(FileError::io(&path, "read it")(e).into()),
            };
            let figures: Evaluation = serde_json::from_str(&text).map_err(|e| {
                let advice = "remove it, and the study judges the checkpoint again";
                FileError::format(&path, format!("damaged: {e}; {advice}"))
            })?;
            if figures.settings != *settings {
                return Err(StudyError::Place {
                    path,
                    what:
                        "this run was judged with other settings of [evaluate] than the study has \
                           now; choose another --out, or put them back"
                            .into(),
                });
            }
            evaluations.push(figures);
        }
        let losses = read_metrics(&dir.join("metrics.jsonl"))?
            .iter()
            .filter_map(|line| Some((line["step"].as_u64()?, line["loss"].as_f64()?)))
            .collect();
        Ok(Some(Self {
            evaluations,
            losses,
            picture: picture_path(dir, steps),
        }))
    }

    /// Mean of the last tenth of the logged losses; none if none is finite.
    fn last_loss(&self) -> Option<f64> {
        let count = self.losses.len().div_ceil(10);
        let last = &self.losses[self.losses.len() - count..];
        (count > 0).then(|| last.iter().map(|(_, loss)| loss).sum::<f64>() / count as f64)
    }
}

/// Figures of samples that a report shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    Frechet,
    Agreement,
    Coverage,
    Loss,
}

/// All of a study.
#[derive(Debug)]
pub(super) struct Results<'a> {
    pub(super) grid: &'a Grid,
    /// By variant, then seed; none where a run is not finished.
    pub(super) runs: Vec<Vec<Option<RunResult>>>,
    /// By variant, then seed: how runs ended that came to no result.
    pub(super) endings: Vec<Vec<Option<Ending>>>,
    /// By variant, for one image; none where there is no model.
    pub(super) costs: Vec<Option<Cost>>,
    /// Runs whose files cannot be read.
    pub(super) damaged: Vec<Failure>,
}

impl<'a> Results<'a> {
    pub(super) fn read(grid: &'a Grid, settings: &Evaluate, out: &Path) -> Result<Self> {
        let mut results = Self {
            grid,
            runs: Vec::new(),
            endings: Vec::new(),
            costs: Vec::new(),
            damaged: Vec::new(),
        };
        for variant in &grid.variants {
            let (mut runs, mut endings) = (Vec::new(), Vec::new());
            for &seed in &grid.seeds {
                let dir = run_dir(out, variant, seed);
                let mut ending = match variant.refused() {
                    Some((_, what)) => Some(Ending::failed(what)),
                    None => Ending::read(&dir)?,
                };
                let run = match RunResult::read(&dir, settings, variant.config.train.steps) {
                    Ok(run) => run,
                    // Figures of different settings must not stand side by side.
                    Err(error @ StudyError::Place { .. }) => return Err(error),
                    Err(error) => {
                        let what = error.to_string();
                        ending = Some(Ending::failed(&what));
                        let run = format!("{}, seed {seed}", variant.name);
                        results.damaged.push(Failure { run, what });
                        None
                    }
                };
                runs.push(run);
                endings.push(ending);
            }
            results.runs.push(runs);
            results.endings.push(endings);
            let model = variant.model.as_ref().ok();
            let cost = model.map(|model| Cost::of(model, 1)).transpose()?;
            results.costs.push(cost);
        }
        Ok(results)
    }

    /// Finished runs, and runs in all.
    pub(super) fn counts(&self) -> (usize, usize) {
        let all = self.runs.iter().flatten();
        (all.clone().flatten().count(), all.count())
    }

    /// Every finished run of these variants, with its variant.
    pub(super) fn of<'b>(
        &'b self,
        variants: &'b [usize],
    ) -> impl Iterator<Item = (usize, &'b RunResult)> + Clone {
        variants
            .iter()
            .flat_map(|&v| self.runs[v].iter().flatten().map(move |run| (v, run)))
    }

    /// Runs of these variants that diverged.
    pub(super) fn diverged(&self, variants: &[usize]) -> usize {
        let all = variants
            .iter()
            .flat_map(|&v| self.endings[v].iter().flatten());
        all.filter(|ending| ending.diverged).count()
    }

    /// A figure at the end of a run.
    fn last(run: &RunResult, figure: Figure) -> Option<f64> {
        let evaluation = run.evaluations.last()?;
        match figure {
            Figure::Frechet => Some(evaluation.frechet),
            Figure::Agreement => evaluation.agreement,
            Figure::Coverage => Some(evaluation.coverage),
            Figure::Loss => run.last_loss(),
        }
    }

    /// A figure at the end over seeds and variants.
    pub(super) fn summary(&self, variants: &[usize], figure: Figure) -> Option<Summary> {
        let values: Vec<f64> = self
            .of(variants)
            .filter_map(|(_, run)| Self::last(run, figure))
            .collect();
        Summary::of(&values)
    }

    /// Frechet distances of `worse` less those of `better`, pair by pair: the same seed and the same
    /// other settings.
    pub(super) fn differences(&self, better: &[usize], worse: &[usize]) -> Option<Summary> {
        let mut values = Vec::new();
        for (&a, &b) in better.iter().zip(worse) {
            for (a, b) in self.runs[a].iter().zip(&self.runs[b]) {
                if let (Some(a), Some(b)) = (a, b)
                    && let (Some(a), Some(b)) = (
                        Self::last(a, Figure::Frechet),
                        Self::last(b, Figure::Frechet),
                    )
                {
                    values.push(b - a);
                }
            }
        }
        Summary::of(&values)
    }
}
