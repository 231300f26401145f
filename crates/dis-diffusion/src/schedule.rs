//! Noise schedules: how much noise each step of the forward process adds.

use std::fmt;
use std::str::FromStr;

use crate::sampler::linspace;
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
    /// Square roots of betas rise linearly, betas from 0.00085 to 0.012 at 1,000 steps, both
    /// scaled by `1000 / steps`: that of Stable Diffusion (Rombach et al., "High-Resolution Image
    /// Synthesis with Latent Diffusion Models", 2022). Name: `scaled_linear`.
    ScaledLinear,
    /// [`Linear`](Self::Linear), changed to end in pure noise, as [`zero_terminal_snr`] does; the
    /// network cannot predict epsilon then. Name: `linear_zero_snr`.
    LinearZeroSnr,
    /// [`Cosine`](Self::Cosine), likewise. Name: `squaredcos_cap_v2_zero_snr`.
    CosineZeroSnr,
    /// [`ScaledLinear`](Self::ScaledLinear), likewise. Name: `scaled_linear_zero_snr`.
    ScaledLinearZeroSnr,
}

const NAMES: [(Schedule, &str); 6] = [
    (Schedule::Linear, "linear"),
    (Schedule::Cosine, "squaredcos_cap_v2"),
    (Schedule::ScaledLinear, "scaled_linear"),
    (Schedule::LinearZeroSnr, "linear_zero_snr"),
    (Schedule::CosineZeroSnr, "squaredcos_cap_v2_zero_snr"),
    (Schedule::ScaledLinearZeroSnr, "scaled_linear_zero_snr"),
];

impl Schedule {
    /// More steps than this are refused, rather than filling memory for a mistyped number.
    pub const MAX_STEPS: usize = 1_000_000;

    /// All schedules.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(schedule, _)| schedule)
    }

    /// The betas of `steps` steps, in (0, 1], computed in float64.
    ///
    /// # Errors
    /// No steps, more than [`MAX_STEPS`](Self::MAX_STEPS), so few that a linear beta would exceed 1
    /// (fewer than 20), or a single one that would have to end in pure noise.
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
        let scale = 1000.0 / steps as f64;
        let betas = match self {
            Self::Linear => linspace(scale * 1e-4, scale * 0.02, steps),
            Self::ScaledLinear => scaled_linear(scale * 0.00085, scale * 0.012, steps),
            Self::Cosine => cosine(steps),
            Self::LinearZeroSnr => zero_terminal_snr(&Self::Linear.betas(steps)?),
            Self::CosineZeroSnr => zero_terminal_snr(&Self::Cosine.betas(steps)?),
            Self::ScaledLinearZeroSnr => zero_terminal_snr(&Self::ScaledLinear.betas(steps)?),
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

fn cosine(steps: usize) -> Vec<f64> {
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

/// Betas whose square roots are evenly spread from that of `first` to that of `last`.
pub fn scaled_linear(first: f64, last: f64, steps: usize) -> Vec<f64> {
    linspace(first.sqrt(), last.sqrt(), steps)
        .into_iter()
        .map(|root| root * root)
        .collect()
}

/// Betas evenly spread from `first` to `last`.
pub fn linear(first: f64, last: f64, steps: usize) -> Vec<f64> {
    linspace(first, last, steps)
}

/// Changes betas so that `alpha_bar` ends at exactly 0: `sqrt(alpha_bar)` is shifted by its last
/// value and scaled to keep its first (Lin et al., "Common Diffusion Noise Schedules and Sample
/// Steps are Flawed", 2023, algorithm 1). The last beta becomes 1. Of a single beta
/// nothing can be kept, and it becomes not-a-number.
pub fn zero_terminal_snr(betas: &[f64]) -> Vec<f64> {
    let mut product = 1.0;
    let roots: Vec<f64> = betas
        .iter()
        .map(|beta| {
            product *= 1.0 - beta;
            f64::sqrt(product)
        })
        .collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else {
        return Vec::new();
    };
    let scale = first / (first - last);
    let bars: Vec<f64> = roots
        .iter()
        .map(|root| ((root - last) * scale).powi(2))
        .collect();
    let before = std::iter::once(1.0).chain(bars.iter().copied());
    bars.iter()
        .zip(before)
        .map(|(bar, before)| 1.0 - bar / before)
        .collect()
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(schedule, _)| schedule == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let plain = match name {
            "cosine" => "squaredcos_cap_v2",
            "cosine_zero_snr" => "squaredcos_cap_v2_zero_snr",
            other => other,
        };
        NAMES
            .into_iter()
            .find(|(_, known)| *known == plain)
            .map(|(schedule, _)| schedule)
            .ok_or_else(|| Error::Schedule {
                schedule: name.to_owned(),
                what: format!("unknown; known are {}", NAMES.map(|(_, n)| n).join(", ")),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for schedule in Schedule::all() {
            assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
        }
        assert_eq!("cosine".parse::<Schedule>().unwrap(), Schedule::Cosine);
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
        assert!(Schedule::CosineZeroSnr.betas(1).is_err());
        assert_eq!(Schedule::Linear.betas(20).unwrap().len(), 20);
        assert_eq!(Schedule::Cosine.betas(1).unwrap(), [0.999]);
    }

    #[test]
    fn stable_diffusion_s_schedule_has_its_known_ends() {
        let betas = Schedule::ScaledLinear.betas(1000).unwrap();
        assert!((betas[0] - 0.00085).abs() < 1e-15 && (betas[999] - 0.012).abs() < 1e-15);
        let last: f64 = betas.iter().map(|b| 1.0 - b).product();
        // Known to be close to 0.0047, a signal-to-noise ratio that is not zero.
        assert!((last - 0.00466).abs() < 1e-5, "{last}");
    }

    #[test]
    fn rescaled_schedules_end_in_noise_and_begin_as_before() {
        let pairs = [
            (Schedule::Linear, Schedule::LinearZeroSnr),
            (Schedule::Cosine, Schedule::CosineZeroSnr),
            (Schedule::ScaledLinear, Schedule::ScaledLinearZeroSnr),
        ];
        for (plain, rescaled) in pairs {
            let (plain, rescaled) = (plain.betas(100).unwrap(), rescaled.betas(100).unwrap());
            assert!((plain[0] - rescaled[0]).abs() < 1e-14);
            assert_eq!(rescaled[99], 1.0);
            assert!(rescaled[..99].iter().all(|b| *b < 1.0));
        }
    }
}
