//! When a run looks at samples: soon, then less and less often.

use crate::config::TrainConfig;

/// Seconds to the first look, and most of a run with a time, as a share of it.
const FIRST: (f64, f64) = (60.0, 0.1);
/// How much later in the run each look is than the one before it.
const GROWTH: f64 = 1.5;
/// Seconds between looks in terms of what one takes.
const APART: f64 = 20.0;
/// Share of the time of a run that one look may take, or there is none before the last.
const DEAR: f64 = 0.15;
/// Share of its time after which a run waits for its last look.
const LATE: f64 = 0.85;

/// When to look.
#[derive(Debug)]
pub(super) struct Looks {
    every: u64,
    budget: Option<f64>,
    /// In seconds of the run.
    next: f64,
    /// Seconds that the last one took, or that one is expected to take.
    cost: f64,
    /// Whether one was taken.
    known: bool,
}

impl Looks {
    /// Of a run that has taken so many seconds.
    pub fn new(train: &TrainConfig, seconds: f64) -> Self {
        let budget = train.budget.map(|budget| budget.seconds());
        let first = budget.map_or(FIRST.0, |budget| FIRST.0.min(FIRST.1 * budget));
        let mut next = first;
        while next <= seconds {
            next *= GROWTH;
        }
        Self {
            every: train.sample_every,
            budget,
            next,
            cost: 0.0,
            known: false,
        }
    }

    /// What a look is expected to take, which counts until one was taken.
    pub fn expect(&mut self, seconds: f64) {
        if !self.known && seconds.is_finite() {
            self.cost = seconds.max(0.0);
        }
    }

    /// Whether a look is due after `step`, the last one or not, so many seconds into the run. Until the
    /// first of the steps at which there is one in any case, looks go by the clock.
    pub fn is_due(&self, step: u64, last: bool, seconds: f64) -> bool {
        let late = self
            .budget
            .is_some_and(|budget| seconds > LATE * budget || self.cost > DEAR * budget);
        // The number of steps of a run with a time is not known when `every` is.
        let timed = self.budget.is_some();
        let by_clock = (timed || step < self.every) && seconds >= self.next && !late;
        let by_steps = !timed && self.every > 0 && step.is_multiple_of(self.every);
        self.every > 0 && (last || by_steps || by_clock)
    }

    /// One was taken, between these times.
    pub fn taken(&mut self, begun: f64, ended: f64) {
        self.cost = (ended - begun).max(0.0);
        self.known = true;
        self.next = self.after(ended);
    }

    fn after(&self, seconds: f64) -> f64 {
        (GROWTH * seconds)
            .max(seconds + APART * self.cost)
            .max(seconds + 1.0)
    }

    /// Seconds that looks still take in a run with a time, the last one among them.
    pub fn to_come(&self) -> f64 {
        let Some(budget) = self.budget.filter(|_| self.every > 0) else {
            return 0.0;
        };
        let (mut at, mut count) = (self.next, 1.0);
        while at < LATE * budget && self.cost <= DEAR * budget {
            count += 1.0;
            at = self.after(at);
        }
        count * self.cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    fn looks(budget: Option<u64>, every: u64, seconds: f64) -> Looks {
        let train = TrainConfig {
            budget: budget.and_then(Budget::of_seconds),
            sample_every: every,
            ..TrainConfig::default()
        };
        Looks::new(&train, seconds)
    }

    /// Times of the looks of a run whose step takes a second and whose look takes `cost`.
    fn times(mut looks: Looks, end: u64, cost: f64) -> Vec<f64> {
        let (mut now, mut times) = (0.0, Vec::new());
        for step in 1..=end {
            now += 1.0;
            if looks.is_due(step, step == end, now) {
                times.push(now);
                looks.taken(now, now + cost);
                now += cost;
            }
        }
        times
    }

    #[test]
    fn the_first_comes_soon_and_the_others_ever_later() {
        let taken = times(looks(Some(3600), 10_000, 0.0), 3400, 2.0);
        assert_eq!(taken[0], 60.0);
        // Before the last, which is due at the end.
        let by_clock = &taken[..taken.len() - 1];
        let apart = |pair: &[f64]| pair[1] > 1.45 * pair[0];
        assert!(by_clock.windows(2).all(apart), "{taken:?}");
        assert!((8..14).contains(&taken.len()), "{taken:?}");
        assert_eq!(times(looks(Some(180), 10_000, 0.0), 170, 1.0)[0], 18.0);
        // Ones that take long are far apart.
        let taken = times(looks(None, 100_000, 0.0), 4000, 60.0);
        let by_clock = &taken[..taken.len() - 1];
        let apart = |pair: &[f64]| pair[1] - pair[0] >= 1200.0;
        assert!(by_clock.windows(2).all(apart), "{taken:?}");
    }

    #[test]
    fn steps_that_were_asked_for_stay() {
        let taken = times(looks(None, 25, 0.0), 110, 0.0);
        assert_eq!(taken, [25.0, 50.0, 75.0, 100.0, 110.0]);
        assert!(times(looks(Some(100), 0, 0.0), 90, 1.0).is_empty());
        // One that would take too much of the time is left out but for the last.
        let mut dear = looks(Some(100), 1000, 0.0);
        dear.expect(16.0);
        assert!(!dear.is_due(5, false, 50.0) && dear.is_due(90, true, 99.0));
        assert_eq!(dear.to_come(), 16.0);
        // One with a time goes by the clock alone.
        assert!(!looks(Some(1000), 5, 0.0).is_due(5, false, 1.0));
        // A run that goes on does not begin anew.
        assert!(looks(None, 1000, 500.0).next > 500.0);
    }
}
