//! Times as people say them: `20m`, `1h`, `1h30m`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How long a run may take, in whole seconds above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Budget(u64);

/// Longest, in seconds: ten years.
const LONGEST: u64 = 10 * 365 * 86_400;

/// Letters and seconds of the units, largest first.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

impl Budget {
    /// So many seconds, 1 to ten years.
    pub fn of_seconds(seconds: u64) -> Option<Self> {
        (1..=LONGEST).contains(&seconds).then_some(Self(seconds))
    }

    /// In seconds.
    pub fn seconds(self) -> f64 {
        self.0 as f64
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text:?} is no time such as 20m, 1h, 1h30m or 90s");
        let (mut seconds, mut digits, mut units) = (0u64, String::new(), UNITS.iter());
        for c in text.trim().chars() {
            if c.is_ascii_digit() {
                digits.push(c);
                continue;
            }
            // Larger units come first, each once.
            let unit = units.find(|(name, _)| *name == c).ok_or_else(refuse)?.1;
            let count: u64 = digits.parse().map_err(|_| refuse())?;
            seconds = count
                .checked_mul(unit)
                .and_then(|more| seconds.checked_add(more))
                .ok_or_else(refuse)?;
            digits.clear();
        }
        if !digits.is_empty() {
            return Err(format!("{text:?} has no unit: s, m, h or d, as in {text}m"));
        }
        Self::of_seconds(seconds).ok_or_else(refuse)
    }
}

impl TryFrom<String> for Budget {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Budget> for String {
    fn from(budget: Budget) -> Self {
        budget.to_string()
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        for (name, unit) in UNITS {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

/// So many seconds in two units at most: `40 s`, `12 min 5 s`, `1 h 30 min`, `2 d 3 h`.
pub fn in_words(seconds: f64) -> String {
    let whole = seconds.max(0.0).round().min(LONGEST as f64) as u64;
    let two = |large: u64, small: u64, names: (&str, &str)| match small {
        0 => format!("{large} {}", names.0),
        _ => format!("{large} {} {small} {}", names.0, names.1),
    };
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => two(whole / 60, whole % 60, ("min", "s")),
        3600..86_400 => two(whole / 3600, whole % 3600 / 60, ("h", "min")),
        _ => two(whole / 86_400, whole % 86_400 / 3600, ("d", "h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_said() {
        for (text, seconds, again) in [
            ("20m", 1200, "20m"),
            ("1h", 3600, "1h"),
            ("90m", 5400, "1h30m"),
            ("1h30m5s", 5405, "1h30m5s"),
            ("2d", 172_800, "2d"),
        ] {
            let budget: Budget = text.parse().unwrap();
            assert_eq!((budget.0, budget.to_string()), (seconds, again.to_string()));
        }
        for bad in [
            "",
            "0s",
            "m",
            "5",
            "5x",
            "5m1h",
            "1m1m",
            "-5m",
            "1.5h",
            "99999999d",
            "99999999999999999999s",
        ] {
            assert!(bad.parse::<Budget>().is_err(), "{bad}");
        }
        let words = [0.4, 59.6, 725.0, 5400.0, 183_600.0, f64::NAN].map(in_words);
        assert_eq!(
            words,
            ["0 s", "1 min", "12 min 5 s", "1 h 30 min", "2 d 3 h", "0 s"]
        );
    }
}
