//! The noise levels that a sampler visits, and the timesteps that its network is given there.

use super::Level;
use crate::{Error, Result};

/// What an `alpha_bar` of 0 is taken to be: a schedule that ends in pure noise ends here, so that
/// ratios of noise to image stay finite.
pub const MIN_ALPHA_BAR: f64 = 1.0 / (1u64 << 24) as f64;

/// From noisy to clean. The network is called at every node but the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    timesteps: Vec<f64>,
    levels: Vec<Level>,
}

impl Grid {
    /// A grid of one's own: the timestep of every node but the last, and the level of every node.
    ///
    /// # Errors
    /// Not one level more than timesteps, no step at all, or levels whose noise does not fall.
    pub fn new(timesteps: Vec<f64>, levels: Vec<Level>) -> Result<Self> {
        let steps = timesteps.len();
        if steps == 0 || levels.len() != steps + 1 {
            return Err(Error::Invalid(format!(
                "a grid of {} noise levels for {steps} timesteps",
                levels.len()
            )));
        }
        // The last step may be empty, up to rounding: its end is then the last node itself.
        let falls = |i: usize, a: f64, b: f64| b < a || (i + 1 == steps && b - a <= 1e-9 * a);
        for (i, pair) in levels.windows(2).enumerate() {
            let (here, next) = (pair[0].ratio(), pair[1].ratio());
            if !(falls(i, here, next) && next >= 0.0) {
                return Err(Error::Invalid(format!(
                    "noise does not fall in step {} of {steps}: from {here} to {next} times the \
                     image; are there fewer timesteps than steps?",
                    i + 1
                )));
            }
        }
        Ok(Self { timesteps, levels })
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// What the network is given at each node but the last.
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// Level of each node, one more than there are steps.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }
}

/// How timesteps are spread (Lin et al., "Common Diffusion Noise Schedules and Sample Steps are
/// Flawed", 2023, table 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stride {
    /// Multiples of an integer stride from step 0; the noisiest step is in general not reached.
    Leading,
    /// Evenly from the noisiest step to step 0.
    #[default]
    Linspace,
    /// A stride from the noisiest step downwards; step 0 is in general not reached.
    Trailing,
}

/// How the noise levels between the noisiest and the cleanest node are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ramp {
    /// Those of the timesteps.
    #[default]
    Timesteps,
    /// `ratio^(1/7)` evenly spread (Karras et al., "Elucidating the Design Space of
    /// Diffusion-Based Generative Models", 2022, equation 5).
    Karras,
    /// The logarithm of the ratio evenly spread (Lu et al., "DPM-Sampler", 2022, section 3.4).
    LogRatio,
}

/// What is done to the timesteps of a [`Ramp`] that fall between training steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// Nothing: the network is told the level that it sees.
    #[default]
    None,
    /// To the nearest, halves to the even one.
    Nearest,
    /// Downwards.
    Down,
}

/// Where the last step leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastLevel {
    /// To the image.
    #[default]
    Clean,
    /// To the level of training step 0.
    FirstStep,
}

/// Whether the cleanest node of a spread is evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// It is the last that is evaluated.
    #[default]
    Closed,
    /// The spread has one node more than there are steps, and the cleanest is left out, as multistep
    /// samplers like it.
    Open,
}

/// How to make a [`Grid`] of a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GridOptions {
    /// Spread of the timesteps.
    pub stride: Stride,
    /// Added to every timestep of [`Stride::Leading`].
    pub offset: usize,
    /// What becomes of the cleanest node.
    pub end: End,
    /// Noise levels.
    pub ramp: Ramp,
    /// Timesteps of a ramp.
    pub rounding: Rounding,
    /// Smallest ratio of noise to image of a ramp, in place of the schedule's own.
    pub min_ratio: Option<f64>,
    /// Largest ratio, likewise.
    pub max_ratio: Option<f64>,
    /// Where the last step leads.
    pub last: LastLevel,
    /// Steps of the schedule that are noisier than this lambda are left out of the spread.
    pub min_lambda: f64,
}

impl Default for GridOptions {
    fn default() -> Self {
        Self {
            stride: Stride::default(),
            offset: 0,
            end: End::Closed,
            ramp: Ramp::default(),
            rounding: Rounding::default(),
            min_ratio: None,
            max_ratio: None,
            last: LastLevel::default(),
            min_lambda: f64::NEG_INFINITY,
        }
    }
}

impl GridOptions {
    /// A grid of `steps` steps for a schedule with these `alpha_bar`, one for each training step,
    /// falling.
    ///
    /// # Errors
    /// No steps, more than the schedule has, or so many that nodes coincide; a timestep beyond the
    /// schedule.
    pub fn grid(&self, alphas_cumprod: &[f64], steps: usize) -> Result<Grid> {
        let ratios: Vec<f64> = alphas_cumprod
            .iter()
            .map(|&bar| if bar > 0.0 { bar } else { MIN_ALPHA_BAR })
            .map(|bar| ((1.0 - bar) / bar).sqrt())
            .collect();
        let total = ratios.len();
        let mut timesteps = self.timesteps(alphas_cumprod, steps)?;
        let mut levels: Vec<f64> = timesteps.iter().map(|t| interpolate(&ratios, *t)).collect();
        if self.ramp != Ramp::Timesteps {
            let (noisy, clean) = if self.end == End::Open {
                (ratios[total - 1], ratios[0])
            } else {
                (levels[0], levels[levels.len() - 1])
            };
            let max = self.max_ratio.unwrap_or(noisy);
            let min = self.min_ratio.unwrap_or(clean);
            levels = self.ramp(max, min, steps);
            let logs: Vec<f64> = ratios.iter().map(|r| r.ln()).collect();
            timesteps = levels
                .iter()
                .map(|ratio| self.round(timestep_of(&logs, ratio.ln())))
                .collect();
        }
        levels.push(match self.last {
            LastLevel::Clean => 0.0,
            LastLevel::FirstStep => ratios[0],
        });
        Grid::new(
            timesteps,
            levels.into_iter().map(Level::from_ratio).collect(),
        )
    }

    /// The timesteps of a spread alone, from noisy to clean, without ramp.
    ///
    /// # Errors
    /// As [`grid`](Self::grid), but timesteps may coincide.
    pub fn timesteps(&self, alphas_cumprod: &[f64], steps: usize) -> Result<Vec<f64>> {
        let total = alphas_cumprod.len();
        if steps == 0 || steps > total {
            return Err(Error::Invalid(format!(
                "{steps} sampler steps, but the diffusion has 1 to {total}"
            )));
        }
        // Steps up to the first that is too noisy.
        let used = alphas_cumprod
            .iter()
            .position(|bar| 0.5 * (bar / (1.0 - bar)).ln() < self.min_lambda)
            .unwrap_or(total);
        let nodes = if self.end == End::Open {
            steps + 1
        } else {
            steps
        };
        let mut timesteps = match self.stride {
            Stride::Linspace if used > 0 => {
                let mut spread = linspace(0.0, used as f64 - 1.0, nodes);
                if self.end == End::Open {
                    spread.iter_mut().for_each(|t| *t = t.round_ties_even());
                }
                spread.into_iter().rev().collect()
            }
            Stride::Leading => {
                let stride = used / nodes;
                (0..nodes)
                    .rev()
                    .map(|i| (i * stride + self.offset) as f64)
                    .collect()
            }
            Stride::Trailing => trailing(used, total as f64 / steps as f64),
            Stride::Linspace => Vec::new(),
        };
        timesteps.truncate(steps);
        match timesteps.iter().find(|t| !(0.0..total as f64).contains(*t)) {
            Some(t) => Err(Error::Invalid(format!(
                "timestep {t} of a diffusion with {total} steps"
            ))),
            None if timesteps.len() == steps => Ok(timesteps),
            None => Err(Error::Invalid(format!(
                "{} of {steps} sampler steps are left",
                timesteps.len()
            ))),
        }
    }

    fn ramp(&self, max: f64, min: f64, steps: usize) -> Vec<f64> {
        const RHO: f64 = 7.0;
        let along = |from: f64, to: f64| -> Vec<f64> {
            linspace(0.0, 1.0, steps)
                .iter()
                .map(|u| from + u * (to - from))
                .collect()
        };
        match self.ramp {
            Ramp::Karras => along(max.powf(1.0 / RHO), min.powf(1.0 / RHO))
                .into_iter()
                .map(|root| root.powf(RHO))
                .collect(),
            _ => along(max.ln(), min.ln())
                .into_iter()
                .map(f64::exp)
                .collect(),
        }
    }

    fn round(&self, timestep: f64) -> f64 {
        match self.rounding {
            Rounding::None => timestep,
            Rounding::Nearest => timestep.round_ties_even(),
            Rounding::Down => timestep.floor(),
        }
    }
}

/// `last`, `last - stride`, ... while above 0, each rounded, less 1.
pub(crate) fn trailing(last: usize, stride: f64) -> Vec<f64> {
    let last = last as f64;
    let count = (last / stride).ceil() as usize;
    // Differences are taken between the first two values, as published positions are.
    let step = (last - stride) - last;
    (0..count)
        .map(|i| (last + i as f64 * step).round_ties_even() - 1.0)
        .collect()
}

/// `n` numbers from `first` to `last`, both included; only `first` for n = 1.
pub(crate) fn linspace(first: f64, last: f64, n: usize) -> Vec<f64> {
    let stride = (last - first) / (n.max(2) - 1) as f64;
    let mut out: Vec<f64> = (0..n).map(|i| first + stride * i as f64).collect();
    if n > 1 {
        out[n - 1] = last;
    }
    out
}

/// The value of a table at a position between its indices.
fn interpolate(table: &[f64], at: f64) -> f64 {
    let low = (at.floor().max(0.0) as usize).min(table.len() - 1);
    let high = (low + 1).min(table.len() - 1);
    (table[high] - table[low]) * (at - low as f64) + table[low]
}

/// The timestep at which a rising table of log ratios has this value; the ends beyond them.
fn timestep_of(log_ratios: &[f64], value: f64) -> f64 {
    if log_ratios.len() < 2 {
        return 0.0;
    }
    // The last, not a bisection: a table that ends in pure noise may not rise at its end, where
    // MIN_ALPHA_BAR stands for 0.
    let below = log_ratios.iter().rposition(|x| *x <= value);
    let low = below.unwrap_or(0).min(log_ratios.len() - 2);
    let (a, b) = (log_ratios[low], log_ratios[low + 1]);
    low as f64 + ((a - value) / (a - b)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GaussianDiffusion, Options, Prediction, Schedule};

    fn bars() -> Vec<f64> {
        let full = GaussianDiffusion::new(&Options::default()).unwrap();
        full.tables().alphas_cumprod.clone()
    }

    fn timesteps(options: GridOptions, steps: usize) -> Vec<f64> {
        options.grid(&bars(), steps).unwrap().timesteps().to_vec()
    }

    #[test]
    fn spreads_are_the_published_ones() {
        let with = |stride, end| GridOptions {
            stride,
            end,
            ..GridOptions::default()
        };
        let t = |stride, end| timesteps(with(stride, end), 4);
        assert_eq!(t(Stride::Linspace, End::Closed), [999.0, 666.0, 333.0, 0.0]);
        assert_eq!(t(Stride::Linspace, End::Open), [999.0, 749.0, 500.0, 250.0]);
        assert_eq!(t(Stride::Leading, End::Closed), [750.0, 500.0, 250.0, 0.0]);
        assert_eq!(t(Stride::Leading, End::Open), [800.0, 600.0, 400.0, 200.0]);
        assert_eq!(
            t(Stride::Trailing, End::Closed),
            [999.0, 749.0, 499.0, 249.0]
        );
        assert_eq!(t(Stride::Trailing, End::Open), [999.0, 749.0, 499.0, 249.0]);
        let offset = GridOptions {
            offset: 1,
            ..with(Stride::Leading, End::Closed)
        };
        assert_eq!(timesteps(offset, 4), [751.0, 501.0, 251.0, 1.0]);
    }

    #[test]
    fn ramps_span_the_schedule_and_know_their_timesteps() {
        for ramp in [Ramp::Karras, Ramp::LogRatio] {
            let options = GridOptions {
                ramp,
                ..GridOptions::default()
            };
            let grid = options.grid(&bars(), 7).unwrap();
            assert!((grid.timesteps()[0] - 999.0).abs() < 1e-9);
            assert!(grid.timesteps()[6].abs() < 1e-9);
            // The table at a node's timestep has the node's level.
            for (t, level) in grid.timesteps().iter().zip(grid.levels()) {
                let low = bars()[t.floor() as usize];
                let high = bars()[t.ceil() as usize];
                assert!(level.alpha_bar() <= low + 1e-12 && level.alpha_bar() >= high - 1e-12);
            }
            let rounded = GridOptions {
                rounding: Rounding::Nearest,
                ..options
            };
            for (a, b) in timesteps(rounded, 7).iter().zip(grid.timesteps()) {
                assert_eq!(*a, b.round_ties_even());
            }
        }
    }

    #[test]
    fn the_noisiest_steps_can_be_left_out() {
        let options = GridOptions {
            min_lambda: -4.0,
            ..GridOptions::default()
        };
        let grid = options.grid(&bars(), 5).unwrap();
        assert!(grid.levels()[0].lambda() >= -4.0);
        assert!(grid.timesteps()[0] > 800.0);
        let all = GridOptions {
            min_lambda: f64::INFINITY,
            ..options
        };
        assert!(all.grid(&bars(), 5).is_err());
    }

    #[test]
    fn a_schedule_that_ends_in_noise_has_finite_levels() {
        let zero = GaussianDiffusion::new(&Options {
            schedule: "scaled_linear_zero_snr".parse::<Schedule>().unwrap(),
            prediction: Prediction::Velocity,
            ..Options::default()
        })
        .unwrap();
        let grid = GridOptions::default()
            .grid(&zero.tables().alphas_cumprod, 10)
            .unwrap();
        assert!((grid.levels()[0].alpha_bar() - MIN_ALPHA_BAR).abs() < 1e-15);
    }

    #[test]
    fn impossible_grids_are_refused() {
        let grid = |options: GridOptions, steps| options.grid(&bars(), steps);
        assert!(grid(GridOptions::default(), 0).is_err());
        assert!(grid(GridOptions::default(), 1001).is_err());
        assert!(grid(GridOptions::default(), 1000).is_ok());
        let open = GridOptions {
            end: End::Open,
            ..GridOptions::default()
        };
        // 1,001 nodes do not fit 1,000 steps.
        assert!(grid(open, 1000).is_err());
        let far = GridOptions {
            stride: Stride::Leading,
            offset: 900,
            ..GridOptions::default()
        };
        assert!(grid(far, 5).is_err());
        assert!(Grid::new(vec![1.0], vec![Level::CLEAN]).is_err());
        assert!(Grid::new(Vec::new(), vec![Level::CLEAN]).is_err());
    }
}
