//! Noise schedules: how much noise each step of the forward process adds.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// A family of noise schedules, defined for any number of steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Schedule {
    /// Betas rise linearly from 1e-4 to 0.02 at 1,000 steps, both scaled by `1000 / steps`
    /// (Ho et al., "Denoising Diffusion Probabilistic Models", 2020, section 4). Name: `linear`.
    #[default]
    Linear,
    /// `alpha_bar(u) = cos^2((u + 0.008) / 1.008 * pi / 2)` for u in `[0, 1]`, betas capped at
    /// 0.999 (Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021,
    /// equation 17). Name: `squaredcos_cap_v2`; `cosine` is accepted too.
    Cosine,
}

impl Schedule {
    /// More steps than this are refused, rather than filling memory for a mistyped number.
    pub const MAX_STEPS: usize = 1_000_000;

    /// The betas of `steps` steps, in (0, 1], computed in float64.
    ///
    /// # Errors
    /// No steps, more than [`MAX_STEPS`](Self::MAX_STEPS), or so few that a linear beta would exceed 1 (fewer than 20).
    pub fn betas(self, steps: usize) -> Result<Vec<f64>> {
        if steps == 0 {
            return Err(self.refuse("needs at least one step"));
        }
        if steps > Self::MAX_STEPS {
            return Err(self.refuse(&format!(
                "has at most {} steps, not {steps}",
                Self::MAX_STEPS
            )));
        }
        let betas: Vec<f64> = match self {
            Self::Linear => {
                let scale = 1000.0 / steps as f64;
                linspace(scale * 1e-4, scale * 0.02, steps)
            }
            Self::Cosine => {
                let alpha_bar = |u: f64| {
                    let c = ((u + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos();
                    c * c
                };
                let n = steps as f64;
                (0..steps)
                    .map(|i| {
                        let (now, next) = (i as f64 / n, (i as f64 + 1.0) / n);
                        (1.0 - alpha_bar(next) / alpha_bar(now)).min(0.999)
                    })
                    .collect()
            }
        };
        match betas.iter().find(|b| !(**b > 0.0 && **b <= 1.0)) {
            Some(b) => Err(self.refuse(&format!("beta {b} with {steps} steps is not in (0, 1]"))),
            None => Ok(betas),
        }
    }

    fn refuse(self, what: &str) -> Error {
        Error::Schedule {
            schedule: self.to_string(),
            what: what.to_owned(),
        }
    }
}

/// `n` numbers from `first` to `last`, both included; only `first` for n = 1.
fn linspace(first: f64, last: f64, n: usize) -> Vec<f64> {
    let stride = (last - first) / (n.max(2) - 1) as f64;
    let mut out: Vec<f64> = (0..n).map(|i| first + stride * i as f64).collect();
    if n > 1 {
        out[n - 1] = last;
    }
    out
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linear => "linear",
            Self::Cosine => "squaredcos_cap_v2",
        })
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "linear" => Ok(Self::Linear),
            "squaredcos_cap_v2" | "cosine" => Ok(Self::Cosine),
            _ => Err(Error::Schedule {
                schedule: name.to_owned(),
                what: "unknown; known are linear and squaredcos_cap_v2 (cosine)".to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for schedule in [Schedule::Linear, Schedule::Cosine] {
            assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
        }
        assert!(
            "sigmoid"
                .parse::<Schedule>()
                .unwrap_err()
                .to_string()
                .contains("sigmoid")
        );
    }

    #[test]
    fn absurd_numbers_of_steps_are_refused() {
        assert!(Schedule::Linear.betas(0).is_err());
        assert!(Schedule::Linear.betas(19).is_err());
        assert!(Schedule::Cosine.betas(usize::MAX).is_err());
        assert_eq!(Schedule::Linear.betas(20).unwrap().len(), 20);
        assert_eq!(Schedule::Cosine.betas(1).unwrap(), [0.999]);
    }
}
