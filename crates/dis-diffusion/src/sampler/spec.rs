//! Samplers by name, and the plan of a run: which noise levels, which rule.

use std::fmt;
use std::str::FromStr;

use super::{
    Ancestral, Correction, Ddim, DpmOptions, DpmSolver, End, Euler, EulerAncestral, Grid,
    GridOptions, Heun, Level, Limit, Ramp, Rounding, Sampler, Stride, ThirdOrder, UniPc, UniPcKind,
    UniPcOptions, trailing,
};
use crate::{Error, GaussianDiffusion, Options, Respacing, Result, State};

/// A sampler, as users name it; [`SamplerSpec::NAMES`] lists the names that can be parsed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum SamplerSpec {
    /// `ddim`, which parses with eta 0.
    Ddim {
        /// Amount of noise, 0 to 1.
        eta: f64,
    },
    /// `ancestral`.
    Ancestral,
    /// `dpmpp-...`.
    Dpm(DpmOptions),
    /// `unipc-...`.
    UniPc {
        /// Order of the predictor.
        order: usize,
        /// Its B(h).
        kind: UniPcKind,
    },
    /// `euler`.
    Euler,
    /// `euler-a`.
    EulerAncestral,
    /// `heun`.
    Heun,
}

/// How the steps of a run are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spacing {
    /// What the sampler was published with: for `ddim` an integer stride where there is one, else
    /// evenly; for all others evenly.
    #[default]
    Default,
    /// [`Stride::Leading`].
    Leading,
    /// [`Stride::Linspace`].
    Linspace,
    /// [`Stride::Trailing`].
    Trailing,
    /// [`Ramp::Karras`].
    Karras,
    /// [`Ramp::LogRatio`].
    LogSnr,
}

const SPACINGS: [(Spacing, &str); 6] = [
    (Spacing::Default, "default"),
    (Spacing::Leading, "leading"),
    (Spacing::Linspace, "linspace"),
    (Spacing::Trailing, "trailing"),
    (Spacing::Karras, "karras"),
    (Spacing::LogSnr, "log-snr"),
];

impl Spacing {
    /// All names.
    pub const NAMES: [&'static str; 6] = [
        SPACINGS[0].1,
        SPACINGS[1].1,
        SPACINGS[2].1,
        SPACINGS[3].1,
        SPACINGS[4].1,
        SPACINGS[5].1,
    ];

    fn options(self, end: End) -> GridOptions {
        GridOptions {
            stride: match self {
                Self::Leading => Stride::Leading,
                Self::Trailing => Stride::Trailing,
                _ => Stride::Linspace,
            },
            ramp: match self {
                Self::Karras => Ramp::Karras,
                Self::LogSnr => Ramp::LogRatio,
                _ => Ramp::Timesteps,
            },
            end,
            ..GridOptions::default()
        }
    }
}

impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = SPACINGS.iter().find(|(spacing, _)| spacing == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

impl FromStr for Spacing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = SPACINGS.iter().find(|(_, known)| *known == name);
        found.map(|(spacing, _)| *spacing).ok_or_else(|| {
            Error::Invalid(format!(
                "spacing {name:?}; known are {}",
                Self::NAMES.join(", ")
            ))
        })
    }
}

impl SamplerSpec {
    /// All names.
    pub const NAMES: [&'static str; 16] = [
        "ddim",
        "ancestral",
        "dpmpp-1",
        "dpmpp-1-sde",
        "dpmpp-2m",
        "dpmpp-2m-heun",
        "dpmpp-2m-sde",
        "dpmpp-3m",
        "dpmpp-3m-exact",
        "unipc-1",
        "unipc-2",
        "unipc-2-bh1",
        "unipc-3",
        "euler",
        "euler-a",
        "heun",
    ];

    /// Whether every run needs noise beyond its start.
    pub fn is_stochastic(&self) -> bool {
        match self {
            Self::Ddim { eta } => *eta != 0.0,
            Self::Dpm(options) => options.stochastic,
            Self::Ancestral | Self::EulerAncestral => true,
            Self::UniPc { .. } | Self::Euler | Self::Heun => false,
        }
    }

    /// Plans a run of so many steps for the diffusion of `options`, whose respacing is replaced.
    ///
    /// # Errors
    /// No steps, more than the diffusion has, steps that would coincide, an order that does not
    /// exist, and what [`GaussianDiffusion::new`] refuses.
    pub fn plan(&self, options: &Options, steps: usize, spacing: Spacing) -> Result<Plan> {
        if steps == 0 || steps > options.steps {
            return Err(Error::Invalid(format!(
                "{steps} sampler steps, but the diffusion has 1 to {}",
                options.steps
            )));
        }
        let full = GaussianDiffusion::new(&Options {
            respacing: Respacing::All,
            ..options.clone()
        })?;
        let plan = match self {
            Self::Ddim { .. } | Self::Ancestral => {
                let respacing = self.respacing(&full, steps, spacing)?;
                let diffusion = GaussianDiffusion::new(&Options {
                    respacing,
                    ..options.clone()
                })?;
                Plan::on_steps(*self, diffusion)?
            }
            _ => {
                let end = match self {
                    Self::Dpm(_) | Self::UniPc { .. } => End::Open,
                    _ => End::Closed,
                };
                let bars = &full.tables().alphas_cumprod;
                let grid = spacing.options(end).grid(bars, steps)?;
                Plan::on(*self, full, grid)
            }
        };
        // Settings that make no sense are refused here rather than in the first step.
        plan.sampler::<ndarray::Array4<f32>>()?;
        Ok(plan)
    }

    /// The steps that a sampler on the diffusion's own tables keeps.
    fn respacing(
        &self,
        full: &GaussianDiffusion,
        steps: usize,
        spacing: Spacing,
    ) -> Result<Respacing> {
        let total = full.steps();
        let evenly = Respacing::Sections(vec![steps]);
        Ok(match spacing {
            Spacing::Default => match self {
                Self::Ddim { .. } if Respacing::Ddim(steps).timesteps(total).is_ok() => {
                    Respacing::Ddim(steps)
                }
                _ => evenly,
            },
            Spacing::Linspace => evenly,
            Spacing::Leading => Respacing::Steps((0..steps).map(|i| i * (total / steps)).collect()),
            Spacing::Trailing => {
                let mut kept = trailing(total, total as f64 / steps as f64);
                kept.truncate(steps);
                Respacing::Steps(kept.iter().rev().map(|t| *t as usize).collect())
            }
            Spacing::Karras | Spacing::LogSnr => {
                // Where noise hardly grows, several levels may share a step; it is kept once.
                let options = GridOptions {
                    rounding: Rounding::Nearest,
                    ..spacing.options(End::Closed)
                };
                let grid = options.grid(&full.tables().alphas_cumprod, steps)?;
                let kept = grid.timesteps().iter().rev().map(|t| *t as usize);
                let mut kept: Vec<usize> = kept.collect();
                kept.dedup();
                Respacing::Steps(kept)
            }
        })
    }
}

impl fmt::Display for SamplerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::NAMES.iter().find(|name| {
            let parsed = name.parse::<Self>().ok();
            match (self, parsed) {
                (Self::Ddim { .. }, Some(Self::Ddim { .. })) => true,
                (_, parsed) => parsed.as_ref() == Some(self),
            }
        });
        match known {
            Some(name) => f.write_str(name),
            None => write!(f, "{self:?}"),
        }
    }
}

impl FromStr for SamplerSpec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let dpm = DpmOptions::new;
        let unipc = |order| Self::UniPc {
            order,
            kind: UniPcKind::Bh2,
        };
        Ok(match name {
            "ddim" => Self::Ddim { eta: 0.0 },
            "ancestral" => Self::Ancestral,
            "dpmpp-1" => Self::Dpm(dpm(1)),
            "dpmpp-1-sde" => Self::Dpm(DpmOptions {
                stochastic: true,
                ..dpm(1)
            }),
            "dpmpp-2m" => Self::Dpm(dpm(2)),
            "dpmpp-2m-heun" => Self::Dpm(DpmOptions {
                correction: Correction::Heun,
                ..dpm(2)
            }),
            "dpmpp-2m-sde" => Self::Dpm(DpmOptions {
                stochastic: true,
                ..dpm(2)
            }),
            "dpmpp-3m" => Self::Dpm(dpm(3)),
            "dpmpp-3m-exact" => Self::Dpm(DpmOptions {
                third: ThirdOrder::Exact,
                ..dpm(3)
            }),
            "unipc-1" => unipc(1),
            "unipc-2" => unipc(2),
            "unipc-2-bh1" => Self::UniPc {
                order: 2,
                kind: UniPcKind::Bh1,
            },
            "unipc-3" => unipc(3),
            "euler" => Self::Euler,
            "euler-a" => Self::EulerAncestral,
            "heun" => Self::Heun,
            _ => {
                return Err(Error::Invalid(format!(
                    "sampler {name:?}; known are {}",
                    Self::NAMES.join(", ")
                )));
            }
        })
    }
}

/// A sampler with the noise levels of its run.
#[derive(Clone, Debug)]
pub struct Plan {
    spec: SamplerSpec,
    diffusion: GaussianDiffusion,
    grid: Grid,
    limit: Option<Limit>,
}

impl Plan {
    fn on(spec: SamplerSpec, diffusion: GaussianDiffusion, grid: Grid) -> Self {
        Self {
            spec,
            diffusion,
            grid,
            limit: None,
        }
    }

    /// A plan over all steps of a (respaced) diffusion, from the noisiest to the image.
    ///
    /// # Errors
    /// Steps whose noise does not fall, an order that does not exist.
    pub fn on_steps(spec: SamplerSpec, diffusion: GaussianDiffusion) -> Result<Self> {
        let tables = diffusion.tables();
        let timesteps = tables.timestep_map.iter().rev().map(|t| *t as f64);
        let levels = tables.alphas_cumprod.iter().rev();
        let levels = levels.map(|bar| Level::from_alpha_bar(*bar));
        let levels = levels.chain(std::iter::once(Level::CLEAN));
        let grid = Grid::new(timesteps.collect(), levels.collect())?;
        let plan = Self::on(spec, diffusion, grid);
        plan.sampler::<ndarray::Array4<f32>>()?;
        Ok(plan)
    }

    /// A plan on a grid of one's own.
    ///
    /// # Errors
    /// Ancestral sampling, which lives on the steps of a diffusion; an order that does not exist.
    pub fn on_grid(spec: SamplerSpec, diffusion: &GaussianDiffusion, grid: Grid) -> Result<Self> {
        if spec == SamplerSpec::Ancestral {
            return Err(Error::Invalid(format!(
                "{spec} runs on the steps of a diffusion, not on any grid"
            )));
        }
        let plan = Self::on(spec, diffusion.clone(), grid);
        plan.sampler::<ndarray::Array4<f32>>()?;
        Ok(plan)
    }

    /// Limits the estimate of the image in every iteration.
    #[must_use]
    pub fn with_limit(mut self, limit: Option<Limit>) -> Self {
        self.limit = limit;
        self.diffusion = self.diffusion.with_limit(limit.unwrap_or_default());
        self
    }

    /// The sampler.
    pub fn spec(&self) -> SamplerSpec {
        self.spec
    }

    /// The diffusion, respaced where the sampler lives on its steps.
    pub fn diffusion(&self) -> &GaussianDiffusion {
        &self.diffusion
    }

    /// Timesteps and noise levels. With Karras ramps on a diffusion's own steps there may be fewer
    /// steps than were asked for.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// What the estimate of the image is limited to.
    pub fn limit(&self) -> Option<Limit> {
        self.limit
    }

    /// Network calls in a whole run, each of which is one iteration.
    pub fn iterations(&self) -> usize {
        match self.spec {
            SamplerSpec::Heun => {
                Sampler::<ndarray::Array4<f32>>::calls(&Heun::default(), self.grid.steps())
            }
            _ => self.grid.steps(),
        }
    }

    /// The step with which a run that changes an image begins: `strength` 1 is the first, with
    /// nothing left of the image, and less keeps the last `strength * steps` steps, at least one.
    ///
    /// # Errors
    /// A strength outside (0, 1].
    pub fn step_of_strength(&self, strength: f64) -> Result<usize> {
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(Error::Invalid(format!(
                "strength {strength} is not in (0, 1]"
            )));
        }
        let steps = self.grid.steps();
        let kept = (strength * steps as f64).round() as usize;
        Ok(steps - kept.clamp(1, steps))
    }

    /// The rule, without history.
    ///
    /// # Errors
    /// An order that does not exist.
    pub fn sampler<'a, S: State + 'a>(&self) -> Result<Box<dyn Sampler<S> + 'a>> {
        Ok(match self.spec {
            SamplerSpec::Ddim { eta } => Box::new(Ddim {
                eta,
                raw_epsilon: false,
            }),
            SamplerSpec::Ancestral => Box::new(Ancestral),
            SamplerSpec::Dpm(options) => Box::new(DpmSolver::new(options)?),
            SamplerSpec::UniPc { order, kind } => Box::new(UniPc::new(UniPcOptions {
                kind,
                ..UniPcOptions::new(order)
            })?),
            SamplerSpec::Euler => Box::new(Euler),
            SamplerSpec::EulerAncestral => Box::new(EulerAncestral),
            SamplerSpec::Heun => Box::new(Heun::default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in SamplerSpec::NAMES {
            let spec: SamplerSpec = name.parse().unwrap();
            assert_eq!(spec.to_string(), name);
        }
        for name in Spacing::NAMES {
            assert_eq!(name.parse::<Spacing>().unwrap().to_string(), name);
        }
        let error = "plms".parse::<SamplerSpec>().unwrap_err().to_string();
        assert!(error.contains("plms") && error.contains("unipc-3"));
        assert!("even".parse::<Spacing>().is_err());
    }

    #[test]
    fn every_sampler_can_be_planned_with_every_spacing() {
        let options = Options::default();
        for name in SamplerSpec::NAMES {
            let spec: SamplerSpec = name.parse().unwrap();
            for spacing in SPACINGS.map(|(spacing, _)| spacing) {
                for steps in [1, 2, 7, 50] {
                    let plan = spec.plan(&options, steps, spacing).unwrap();
                    let grid = plan.grid();
                    assert!(grid.steps() <= steps && grid.levels()[grid.steps()] == Level::CLEAN);
                    assert!(grid.timesteps().iter().all(|t| (0.0..=999.0).contains(t)));
                }
                assert!(spec.plan(&options, 0, spacing).is_err());
                assert!(spec.plan(&options, 1001, spacing).is_err());
            }
        }
    }

    #[test]
    fn ddim_keeps_its_published_steps() {
        let plan = |steps, spacing| {
            let spec: SamplerSpec = "ddim".parse().unwrap();
            let plan = spec.plan(&Options::default(), steps, spacing).unwrap();
            let map = plan.diffusion().tables().timestep_map.clone();
            (map[0], map[1], map[steps - 1])
        };
        assert_eq!(plan(10, Spacing::Default), (0, 100, 900));
        assert_eq!(plan(10, Spacing::Leading), (0, 100, 900));
        assert_eq!(plan(10, Spacing::Linspace), (0, 111, 999));
        assert_eq!(plan(10, Spacing::Trailing), (99, 199, 999));
        // No integer stride gives 400 of 1,000.
        assert_eq!(plan(400, Spacing::Default), (0, 3, 999));
        assert_eq!(plan(400, Spacing::Leading), (0, 2, 798));
    }
}
