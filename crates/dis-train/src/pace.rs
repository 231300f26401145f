//! How far a run is in its schedule, where the number of its steps follows the speed of the machine.
//!
//! A run with a time to keep to begins with as many steps as were planned. At certain steps it looks at the
//! clock and may turn: go on for more steps or for fewer, on which the rest of the schedule is spread. Turns are written down
//! before they take effect, so weights are a function of the configuration and the turns; the clock itself
//! is asked once for each and never again.

use serde::{Deserialize, Serialize};

/// What a run decided after some of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// Steps that were done.
    pub step: u64,
    /// How much of the schedule was done then, in steps of those that were planned first.
    pub position: u64,
    /// Steps of the run in all from then on.
    pub steps: u64,
}

/// The steps of a run and where in its schedule each is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    planned: u64,
    turns: Vec<Turn>,
}

impl Pace {
    /// A run of so many steps.
    pub fn new(planned: u64) -> Self {
        Self {
            planned,
            turns: Vec::new(),
        }
    }

    /// A run that was planned for so many steps, with its turns in the order of their steps; none where they
    /// are not in order, or one has no steps left or more of the schedule than there is.
    pub fn with_turns(planned: u64, turns: Vec<Turn>) -> Option<Self> {
        let whole = |turn: &Turn| turn.steps > turn.step && turn.position <= planned;
        let ordered = turns.windows(2).all(|pair| pair[0].step < pair[1].step);
        (ordered && turns.iter().all(whole)).then_some(Self { planned, turns })
    }

    /// Steps that were planned first.
    pub fn planned(&self) -> u64 {
        self.planned
    }

    /// The turns, oldest first.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Whether it was decided after this step already.
    pub fn decided(&self, step: u64) -> bool {
        self.turns.iter().any(|turn| turn.step == step)
    }

    /// Takes a turn in place of all from its step on.
    pub fn turn(&mut self, turn: Turn) {
        self.turns.retain(|earlier| earlier.step < turn.step);
        self.turns.push(turn);
    }

    fn at(&self, step: u64) -> Option<&Turn> {
        self.turns.iter().rev().find(|turn| turn.step <= step)
    }

    /// Steps of the run in all, as it was decided once `step` of them were done.
    pub fn steps(&self, step: u64) -> u64 {
        self.at(step).map_or(self.planned, |turn| turn.steps)
    }

    /// How much of the schedule is done after `step` steps, in steps of those that were planned first: the
    /// step itself where there was no turn.
    pub fn position(&self, step: u64) -> f64 {
        match self.at(step) {
            None => step as f64,
            Some(turn) => {
                let left = self.planned.saturating_sub(turn.position) as f64;
                let share = (step - turn.step) as f64 / turn.steps.saturating_sub(turn.step) as f64;
                turn.position as f64 + left * share
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(step: u64, position: u64, steps: u64) -> Turn {
        Turn {
            step,
            position,
            steps,
        }
    }

    #[test]
    fn a_turn_spreads_the_rest_of_the_schedule() {
        let mut pace = Pace::new(100);
        assert_eq!((pace.position(40), pace.steps(40)), (40.0, 100));
        pace.turn(turn(40, 40, 70));
        // What was before stays as it was.
        assert_eq!((pace.position(39), pace.steps(39)), (39.0, 100));
        assert_eq!(pace.position(40), 40.0);
        assert_eq!((pace.position(55), pace.steps(55)), (70.0, 70));
        assert_eq!(pace.position(70), 100.0);
        // A turn that is decided anew takes the later ones away.
        pace.turn(turn(50, 60, 90));
        pace.turn(turn(45, 50, 145));
        assert_eq!(pace.turns().len(), 2);
        assert_eq!(pace.position(95), 75.0);
        assert!(pace.decided(45) && !pace.decided(50));
    }

    #[test]
    fn turns_that_make_no_sense_are_none() {
        let good = vec![turn(10, 10, 50), turn(20, 30, 40)];
        assert!(Pace::with_turns(100, good.clone()).is_some());
        for bad in [
            vec![good[1], good[0]],
            vec![turn(10, 10, 10)],
            vec![turn(10, 101, 50)],
            vec![good[0], good[0]],
        ] {
            assert_eq!(Pace::with_turns(100, bad), None);
        }
    }
}
