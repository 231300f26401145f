//! The time that a run keeps to.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What time it is. Tests have clocks of their own.
pub trait Clock {
    /// Seconds since some moment.
    fn seconds(&self) -> f64;

    /// Seconds since 1970.
    fn unix(&self) -> f64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0.0, |since| since.as_secs_f64())
    }
}

/// The clock of the machine; it stands still while the machine sleeps.
#[derive(Clone, Copy, Debug)]
pub struct WallClock(Instant);

impl Default for WallClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for WallClock {
    fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
