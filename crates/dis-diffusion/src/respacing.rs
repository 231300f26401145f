//! Respacing: which steps of a long schedule a shorter one keeps (Nichol and Dhariwal, "Improved
//! Denoising Diffusion Probabilistic Models", 2021, section 4; Song et al., "Denoising Diffusion
//! Implicit Models", 2021, appendix D.2).

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Which steps to keep. Read from text: `""` keeps all, `"50"` keeps 50 from the first to the last
/// step, `"10,5,3"` splits the schedule into three equal parts and keeps 10, 5 and 3 of them,
/// `"ddim50"` keeps every n-th step from step 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Respacing {
    /// Every step.
    #[default]
    All,
    /// So many steps from each of equally long sections, the first and last of a section
    /// included; a section of which one step is kept gives its first.
    Sections(Vec<usize>),
    /// The smallest integer stride from step 0 that gives exactly so many steps. The last step is
    /// in general not reached.
    Ddim(usize),
    /// These steps, in increasing order.
    Steps(Vec<usize>),
}

impl Respacing {
    /// The kept steps of a schedule with `total` steps, increasing and at least one.
    ///
    /// # Errors
    /// More steps asked of a section than it has, none kept at all, no integer stride that fits,
    /// or a list that does not increase or leaves the schedule.
    pub fn timesteps(&self, total: usize) -> Result<Vec<usize>> {
        let kept = match self {
            Self::All => (0..total).collect(),
            Self::Sections(counts) => self.sections(counts, total)?,
            Self::Ddim(count) => (1..total)
                .find(|stride| total.div_ceil(*stride) == *count)
                .map(|stride| (0..total).step_by(stride).collect())
                .ok_or_else(|| {
                    self.refuse(format!("no integer stride takes {count} of {total} steps"))
                })?,
            Self::Steps(steps) => {
                if !steps.is_sorted_by(|a, b| a < b) {
                    return Err(self.refuse("the steps must increase"));
                }
                if let Some(last) = steps.last().filter(|last| **last >= total) {
                    return Err(self.refuse(format!("step {last} of a schedule with {total}")));
                }
                steps.clone()
            }
        };
        if kept.is_empty() {
            return Err(self.refuse("keeps no step"));
        }
        Ok(kept)
    }

    fn sections(&self, counts: &[usize], total: usize) -> Result<Vec<usize>> {
        if counts.is_empty() {
            return Err(self.refuse("keeps no step"));
        }
        let (size, longer) = (total / counts.len(), total % counts.len());
        let mut kept = Vec::new();
        let mut start = 0;
        for (i, &count) in counts.iter().enumerate() {
            // The first sections take what is left over.
            let size = size + usize::from(i < longer);
            if count > size {
                return Err(self.refuse(format!(
                    "cannot keep {count} steps of section {} which has {size}",
                    i + 1
                )));
            }
            let stride = if count > 1 {
                (size - 1) as f64 / (count - 1) as f64
            } else {
                1.0
            };
            // The position is accumulated, not multiplied: a tie may round differently, and the
            // published positions come from accumulation.
            let mut position = 0.0f64;
            for _ in 0..count {
                kept.push(start + position.round_ties_even() as usize);
                position += stride;
            }
            start += size;
        }
        Ok(kept)
    }

    fn refuse(&self, what: impl Into<String>) -> Error {
        Error::Respacing {
            spec: self.to_string(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Respacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, numbers: &[usize]| {
            numbers.iter().enumerate().try_for_each(|(i, n)| {
                if i > 0 {
                    write!(f, ",{n}")
                } else {
                    write!(f, "{n}")
                }
            })
        };
        match self {
            Self::All => Ok(()),
            Self::Sections(counts) => list(f, counts),
            Self::Ddim(count) => write!(f, "ddim{count}"),
            Self::Steps(steps) => {
                f.write_str("steps:")?;
                list(f, steps)
            }
        }
    }
}

impl FromStr for Respacing {
    type Err = Error;

    fn from_str(spec: &str) -> Result<Self> {
        let refuse = |what: &str| Error::Respacing {
            spec: spec.to_owned(),
            what: what.to_owned(),
        };
        let number = |text: &str| {
            text.trim()
                .parse::<usize>()
                .map_err(|_| refuse("expected \"\", \"N\", \"a,b,c\" or \"ddimN\""))
        };
        let list = |text: &str| text.split(',').map(number).collect::<Result<Vec<_>>>();
        match spec.trim() {
            "" => Ok(Self::All),
            text => match (text.strip_prefix("ddim"), text.strip_prefix("steps:")) {
                (Some(count), _) => number(count).map(Self::Ddim),
                (_, Some(steps)) => list(steps).map(Self::Steps),
                _ => list(text).map(Self::Sections),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(spec: &str, total: usize) -> Result<Vec<usize>> {
        spec.parse::<Respacing>()?.timesteps(total)
    }

    #[test]
    fn fractional_strides_round_half_to_even() {
        // Stride 2.5: positions 0, 2.5, 5, 7.5, 10.
        assert_eq!(kept("5", 11).unwrap(), [0, 2, 5, 8, 10]);
        assert_eq!(kept("3,2", 11).unwrap(), [0, 2, 5, 6, 10]);
        assert_eq!(kept("1", 7).unwrap(), [0]);
        assert_eq!(kept("2,0,1", 9).unwrap(), [0, 2, 6]);
    }

    #[test]
    fn ddim_strides_start_at_zero() {
        assert_eq!(kept("ddim4", 10).unwrap(), [0, 3, 6, 9]);
        assert_eq!(kept("ddim5", 10).unwrap(), [0, 2, 4, 6, 8]);
        assert_eq!(kept("ddim10", 10).unwrap().len(), 10);
        assert!(kept("ddim6", 10).is_err());
        assert!(kept("ddim0", 10).is_err());
    }

    #[test]
    fn bad_specifications_name_themselves() {
        for spec in [
            "x",
            "-1",
            "5,",
            "ddim",
            "ddimx",
            "1.5",
            "11",
            "0",
            "6,6",
            "steps:3,2",
            "steps:10",
        ] {
            let message = kept(spec, 10).unwrap_err().to_string();
            assert!(message.contains(spec), "{message}");
        }
    }

    #[test]
    fn text_round_trips() {
        for spec in ["", "50", "10,5,3", "ddim25", "steps:0,4,9"] {
            assert_eq!(spec.parse::<Respacing>().unwrap().to_string(), spec);
        }
    }
}
