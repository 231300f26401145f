//! Keeps a run to its time: when the clock is looked at, what is decided, and the record of it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use dis_files::{read_json, write_atomic};
use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::error::{Result, TrainError};
use crate::pace::{Pace, Turn};

/// Decisions in a run of as many steps as were planned.
const DECISIONS: u64 = 100;
/// Stretches between decisions that the speed is taken from.
const STRETCHES: usize = 3;
/// Changes of the steps that are left, as a share, below which they stay as they are.
const TOLERANCE: f64 = 0.02;
/// What is left at least, as a share of what is done: where time has run out the rate still has to fall.
const LEAST_LEFT: f64 = 0.02;

/// `pace.json` of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// Oldest first.
    turns: Vec<Turn>,
}

/// Time that a run has used, in seconds, in all its sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Used {
    /// Altogether.
    pub all: f64,
    /// For steps alone.
    pub steps: f64,
}

/// Keeps a run to its time.
#[derive(Debug)]
pub(super) struct Pacer {
    /// In seconds; none where the number of steps is fixed.
    budget: Option<f64>,
    /// Steps between decisions.
    every: u64,
    path: PathBuf,
    pace: Pace,
    /// Where the present stretch began: step and seconds for steps.
    begun: (u64, f64),
    /// Steps and seconds of the stretches before it.
    stretches: VecDeque<(u64, f64)>,
}

impl Pacer {
    /// Of a run that begins.
    pub fn new(train: &TrainConfig, path: PathBuf) -> Self {
        Self {
            budget: train.budget.map(|budget| budget.seconds()),
            every: train.steps.div_ceil(DECISIONS).max(1),
            path,
            pace: Pace::new(train.steps),
            begun: (0, 0.0),
            stretches: VecDeque::new(),
        }
    }

    /// Of a run that goes on after `step`, with the decisions that it made: none is made anew.
    ///
    /// # Errors
    /// A record that cannot be read or makes no sense.
    pub fn resume(train: &TrainConfig, path: PathBuf, step: u64) -> Result<Self> {
        let mut pacer = Self::new(train, path);
        pacer.begun = (step, 0.0);
        if pacer.budget.is_some() && pacer.path.is_file() {
            let refuse = |what: String| TrainError::RunDir {
                path: pacer.path.clone(),
                what,
            };
            let text = read_json(&pacer.path, "the record of a run's pace")?;
            let record: Record = serde_json::from_str(&text).map_err(|e| refuse(e.to_string()))?;
            let pace = Pace::with_turns(train.steps, record.turns);
            pacer.pace = pace.ok_or_else(|| refuse("its turns are none of this run".into()))?;
        }
        Ok(pacer)
    }

    /// Gives a run another time in all, after `step` and so much time used.
    ///
    /// # Errors
    /// A record that cannot be written.
    pub fn extend(&mut self, step: u64, used: f64) -> Result<()> {
        let Some(budget) = self.budget.filter(|&budget| budget > used) else {
            return Ok(());
        };
        let each = used / step.max(1) as f64;
        let left = match each > 0.0 {
            true => ((budget - used) / each).max(1.0) as u64,
            false => self.pace.planned(),
        };
        let position = self.pace.planned() as f64 * (used / budget);
        self.record(Turn {
            step,
            position: position as u64,
            steps: step.saturating_add(left.max(1)),
        })
    }

    /// The schedule as it is decided so far.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Whether the clock is to be looked at after `step`.
    pub fn is_due(&self, step: u64) -> bool {
        let last = step >= self.pace.steps(step);
        self.budget.is_some() && step.is_multiple_of(self.every) && step > 0 && !last
    }

    /// Decides after `step` how many steps there are to be, if that was not decided before, where `apart` seconds
    /// will go for other things than steps. Returns whether anything was decided.
    ///
    /// # Errors
    /// A record that cannot be written; nothing has changed then.
    pub fn decide(&mut self, step: u64, used: Used, apart: f64) -> Result<bool> {
        let stretch = (step.saturating_sub(self.begun.0), used.steps - self.begun.1);
        self.begun = (step, used.steps);
        self.stretches.push_back(stretch);
        if self.stretches.len() > STRETCHES {
            self.stretches.pop_front();
        }
        let Some(budget) = self.budget.filter(|_| !self.pace.decided(step)) else {
            return Ok(false);
        };
        let (steps, seconds) = self
            .stretches
            .iter()
            .fold((0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let had = self.pace.steps(step);
        let before = had.saturating_sub(step) as f64;
        let left = match steps > 0 && seconds > 0.0 {
            true => (budget - used.all - apart) * steps as f64 / seconds,
            false => before,
        };
        // No more than there was, or a run whose time is out would never end.
        let least = (LEAST_LEFT * step as f64).min(before);
        let left = left.max(least).max(1.0);
        let same = (left - before).abs() <= TOLERANCE * before;
        let steps = match same {
            true => had,
            false => step.saturating_add(left as u64),
        };
        self.record(Turn {
            step,
            position: self.pace.position(step).round() as u64,
            steps,
        })?;
        Ok(true)
    }

    /// Writes a turn down, then takes it.
    fn record(&mut self, turn: Turn) -> Result<()> {
        let mut pace = self.pace.clone();
        pace.turn(turn);
        let turns = pace.turns().to_vec();
        let text = serde_json::to_string(&Record { turns })
            .map_err(|e| TrainError::config(e.to_string()))?;
        write_atomic(&self.path, text.as_bytes())?;
        self.pace = pace;
        Ok(())
    }

    /// Seconds that the steps left after `step` take, at the speed of the last ones; none where that is not known.
    pub fn left(&self, step: u64, used: f64) -> Option<f64> {
        self.budget
            .map(|budget| (budget - used).max(0.0))
            .filter(|_| step < self.pace.steps(step))
    }

    /// Forgets what was decided in a run that now goes by steps.
    pub fn forget(path: &Path) {
        // What is not there need not be removed; what stays is not read.
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    /// Runs to the end with a machine whose step takes what `each` says at a time; returns the time of the
    /// end and the pace.
    fn run(budget: u64, planned: u64, each: impl Fn(f64) -> f64) -> (f64, Pace) {
        let dir = tempfile::tempdir().unwrap();
        let train = TrainConfig {
            steps: planned,
            budget: Budget::of_seconds(budget),
            ..TrainConfig::default()
        };
        let mut pacer = Pacer::new(&train, dir.path().join("pace.json"));
        let (mut step, mut now) = (0, 0.0);
        while step < pacer.pace().steps(step) {
            now += each(now);
            step += 1;
            if pacer.is_due(step) {
                let used = Used {
                    all: now,
                    steps: now,
                };
                assert!(pacer.decide(step, used, 0.0).unwrap());
            }
        }
        let again = Pacer::resume(&train, dir.path().join("pace.json"), step).unwrap();
        assert_eq!(again.pace(), pacer.pace());
        (now, again.pace)
    }

    #[test]
    fn a_run_ends_in_time_with_its_schedule_done() {
        type Machine = fn(f64) -> f64;
        let machines: [(&str, Machine); 6] = [
            ("as planned", |_| 1.0),
            ("slower by half", |_| 2.0),
            ("faster by half", |_| 0.5),
            ("slower from the middle on", |now| {
                if now < 500.0 { 1.0 } else { 2.0 }
            }),
            (
                "faster near the end",
                |now| if now < 900.0 { 1.0 } else { 0.5 },
            ),
            (
                "slower near the end",
                |now| if now < 900.0 { 1.0 } else { 2.0 },
            ),
        ];
        for (name, machine) in machines {
            let (end, pace) = run(1000, 1000, machine);
            assert!((end - 1000.0).abs() < 50.0, "{name}: {end}");
            let steps = pace.steps(u64::MAX);
            assert!((pace.position(steps) - 1000.0).abs() < 1e-6, "{name}");
            // The rate never goes back up.
            let positions: Vec<f64> = (0..=steps).map(|s| pace.position(s)).collect();
            assert!(positions.windows(2).all(|p| p[1] > p[0] - 0.51), "{name}");
        }
        // A machine that does what was planned does no other number of steps.
        assert_eq!(run(1000, 1000, |_| 1.0).1.steps(999), 1000);
    }

    #[test]
    fn more_time_spreads_the_schedule_anew() {
        let dir = tempfile::tempdir().unwrap();
        let train = TrainConfig {
            steps: 100,
            budget: Budget::of_seconds(200),
            ..TrainConfig::default()
        };
        let path = dir.path().join("pace.json");
        let mut pacer = Pacer::resume(&train, path, 100).unwrap();
        pacer.extend(100, 100.0).unwrap();
        assert_eq!(
            (pacer.pace().position(100), pacer.pace().steps(100)),
            (50.0, 200)
        );
    }
}
