//! Times of work on a device.
//!
//! By the host's clock around many repetitions and one wait: what is told includes the launches,
//! which overlap with the work except where that is shorter than a few microseconds.

use std::time::{Duration, Instant};

use anyhow::Result;
use dis_kernels::Driver;

/// How long to look.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs before anything is timed.
    pub warm_up: usize,
    /// What a series of repetitions should take.
    pub series: Duration,
    /// Series; the median of them counts.
    pub count: usize,
}

impl Effort {
    /// For numbers to be told.
    pub const FULL: Self = Self {
        warm_up: 3,
        series: Duration::from_millis(40),
        count: 9,
    };
    /// For trying the task itself.
    pub const QUICK: Self = Self {
        warm_up: 0,
        series: Duration::ZERO,
        count: 1,
    };
}

/// Seconds of one run.
#[derive(Clone, Copy, Debug)]
pub struct Seconds {
    /// Median over the series.
    pub median: f64,
    /// Least of the series.
    pub least: f64,
    /// Runs in a series.
    pub repetitions: usize,
}

/// Times `work`, which only launches.
pub fn time<D: Driver>(
    driver: &D,
    effort: Effort,
    mut work: impl FnMut() -> Result<()>,
) -> Result<Seconds> {
    for _ in 0..effort.warm_up {
        work()?;
    }
    driver.synchronise()?;
    let mut series = |repetitions: usize| -> Result<f64> {
        let start = Instant::now();
        for _ in 0..repetitions {
            work()?;
        }
        driver.synchronise()?;
        Ok(start.elapsed().as_secs_f64() / repetitions as f64)
    };
    let repetitions = if effort.series.is_zero() {
        1
    } else {
        let one = series(1)?;
        (effort.series.as_secs_f64() / one.max(1e-7)).clamp(1.0, 10_000.0) as usize
    };
    let mut seconds = Vec::with_capacity(effort.count);
    for _ in 0..effort.count {
        seconds.push(series(repetitions)?);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(Seconds {
        median: seconds[seconds.len() / 2],
        least: seconds[0],
        repetitions,
    })
}
