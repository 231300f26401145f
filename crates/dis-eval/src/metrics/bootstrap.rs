//! Intervals by the bootstrap (Efron, 1979): a metric is computed again on sets drawn, with putting
//! back, from the points that are there.
//!
//! The interval is that of the percentiles, moved so that the draws' mean falls on the estimate.
//! Without that it would miss the estimate for metrics that are biased at a finite number of points
//! (the Frechet distance above all): points drawn twice make a set that is smaller than it looks,
//! which adds the bias once more. So the interval says how far the value would vary with other
//! samples of the same number; it does not take away the bias, which only more samples do.

use dis_tensor::random::{Purpose, Stream};
use rayon::prelude::*;
use serde::Serialize;

use super::percentile;

/// Which set is drawn from: sets of one resample are drawn independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {
    /// What is judged.
    Samples,
    /// What it is compared with.
    Reference,
}

/// How often and with which seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bootstrap {
    /// Sets drawn; fewer than 2 give no interval.
    pub resamples: usize,
    /// Share of the draws inside the interval.
    pub level: f64,
    /// Seed.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            resamples: 200,
            level: 0.95,
            seed: 0,
        }
    }
}

/// An interval around an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Mean over the sets drawn, less the estimate: about the bias that the number of points gives
    /// the estimate itself.
    pub bias: f64,
}

impl Interval {
    /// The part of it where values can lie at all.
    pub fn within(self, least: f64, most: f64) -> Self {
        Self {
            low: self.low.max(least),
            high: self.high.min(most),
            ..self
        }
    }
}

impl Bootstrap {
    /// How often each of `n` points is in draw number `resample`; the sum is `n`.
    pub fn counts(&self, drawn: Drawn, n: usize, resample: usize) -> Vec<u32> {
        let mut counts = vec![0; n];
        let mut stream = Stream::new(self.seed, Purpose::Metric, drawn as u64, resample as u64);
        for _ in 0..n {
            counts[stream.below(n as u64) as usize] += 1;
        }
        counts
    }

    /// The interval of `statistic`, a function of the number of the draw, around `estimate`. None
    /// without draws, or if a draw is not finite.
    ///
    /// # Errors
    /// What `statistic` fails with.
    pub fn interval<E: Send>(
        &self,
        estimate: f64,
        statistic: impl Fn(usize) -> Result<f64, E> + Sync + Send,
    ) -> Result<Option<Interval>, E> {
        if self.resamples < 2 {
            return Ok(None);
        }
        let draws: Vec<f64> = (0..self.resamples)
            .into_par_iter()
            .map(statistic)
            .collect::<Result<_, E>>()?;
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        if !mean.is_finite() {
            return Ok(None);
        }
        let outside = 50.0 * (1.0 - self.level.clamp(0.0, 1.0));
        let ends = percentile(&draws, outside).zip(percentile(&draws, 100.0 - outside));
        Ok(ends.map(|(low, high)| Interval {
            low: estimate + low - mean,
            high: estimate + high - mean,
            bias: mean - estimate,
        }))
    }

    /// The interval of the mean of `values`, which belong to the points of one set.
    pub fn of_mean(&self, drawn: Drawn, values: &[f64]) -> Option<Interval> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = |counts: &[u32]| {
            let sum: f64 = counts
                .iter()
                .zip(values)
                .map(|(&c, v)| f64::from(c) * v)
                .sum();
            sum / n as f64
        };
        let drawn_mean = |i| Ok::<_, std::convert::Infallible>(mean(&self.counts(drawn, n, i)));
        let Ok(interval) = self.interval(mean(&vec![1; n]), drawn_mean);
        interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_size_of_the_set_and_depend_on_the_key_alone() {
        let b = Bootstrap::default();
        let counts = b.counts(Drawn::Samples, 1000, 3);
        assert_eq!(counts.iter().sum::<u32>(), 1000);
        assert_eq!(counts, b.counts(Drawn::Samples, 1000, 3));
        assert_ne!(counts, b.counts(Drawn::Samples, 1000, 4));
        assert_ne!(counts, b.counts(Drawn::Reference, 1000, 3));
        // A share of 1/e is left out.
        let out = counts.iter().filter(|&&c| c == 0).count();
        assert!((300..440).contains(&out), "{out}");
        assert_eq!(b.counts(Drawn::Samples, 0, 0), Vec::<u32>::new());
    }

    /// The interval of a mean of n draws of variance v is close to 1.96 sqrt(v / n) each way.
    #[test]
    fn the_interval_of_a_mean_is_the_known_one() {
        let mut s = Stream::new(1, Purpose::Test, 0, 0);
        let values: Vec<f64> = (0..400).map(|_| 5.0 + 2.0 * s.normal()).collect();
        let b = Bootstrap {
            resamples: 2000,
            ..Bootstrap::default()
        };
        let mean = values.iter().sum::<f64>() / 400.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 400.0;
        let half = 1.96 * (variance / 400.0).sqrt();
        let i = b.of_mean(Drawn::Samples, &values).unwrap();
        assert!(
            (i.high - mean - half).abs() < 0.1 * half,
            "{i:?} {mean} {half}"
        );
        assert!(
            (mean - i.low - half).abs() < 0.1 * half,
            "{i:?} {mean} {half}"
        );
        assert!(i.bias.abs() < 0.1 * half);
    }

    #[test]
    fn a_biased_statistic_keeps_its_estimate_inside() {
        let b = Bootstrap::default();
        let biased = |i: usize| Ok::<_, ()>(10.0 + (i % 7) as f64);
        let i = b.interval(1.0, biased).unwrap().unwrap();
        assert!(
            i.low < 1.0 && i.high > 1.0 && (i.bias - 12.0).abs() < 0.2,
            "{i:?}"
        );
    }

    #[test]
    fn no_interval_without_draws_or_numbers() {
        let none = Bootstrap {
            resamples: 1,
            ..Bootstrap::default()
        };
        assert_eq!(none.interval(0.0, |_| Ok::<_, ()>(1.0)), Ok(None));
        let b = Bootstrap::default();
        assert_eq!(b.interval(0.0, |_| Ok::<_, ()>(f64::NAN)), Ok(None));
        assert_eq!(b.interval(0.0, |_| Err("no")), Err("no"));
        assert_eq!(b.of_mean(Drawn::Samples, &[]), None);
    }
}
