//! The diffusers library's scheduler configurations: which sampler of ours they stand for, on
//! which noise levels. Every key must be known: what is not understood must not be left out.

use anyhow::{Context, Result, bail, ensure};
use dis_diffusion::schedule::{linear, scaled_linear, zero_terminal_snr};
use dis_diffusion::{
    Correction, Ddim, DpmOptions, DpmSolver, End, Euler, EulerAncestral, GaussianDiffusion, Grid,
    GridOptions, Heun, LastLevel, Level, Limit, LossKind, MIN_ALPHA_BAR, Prediction, Ramp,
    Respacing, Rounding, Sampler, Schedule, Stride, Tables, UniPc, UniPcKind, UniPcOptions,
    Variance,
};
use ndarray::Array4;
use serde_json::{Map, Value, json};

use super::case::{string, whole};

/// One call of the network.
pub struct Call {
    /// What the network is told.
    pub timestep: f64,
    /// Number of the noise level.
    pub node: usize,
    /// The level that it sees.
    pub here: Level,
    /// The level of the result.
    pub next: Level,
}

/// A scheduler of the library.
pub struct Peer {
    /// What the network predicts.
    pub diffusion: GaussianDiffusion,
    /// Limit of the estimate of the image.
    pub limit: Option<Limit>,
    /// Steps asked for.
    pub steps: usize,
    /// Calls of the network, in order.
    pub calls: Vec<Call>,
    /// The library's list of noise levels; empty where it has none.
    pub sigmas: Vec<f64>,
    /// Our sampler.
    pub solver: Box<dyn Sampler<Array4<f32>>>,
    /// What standard normal noise is multiplied by to be the library's first image.
    pub init_noise_sigma: f64,
    /// Whether its images are `x_0 + sigma epsilon`.
    exploding: bool,
    bars: Vec<f64>,
}

/// Classes of schedulers.
#[derive(Clone, Copy, PartialEq)]
enum Class {
    Dpm,
    UniPc,
    Euler,
    EulerAncestral,
    Heun,
    Ddim,
}

impl Peer {
    /// The scheduler of a case.
    pub fn new(case: &Value) -> Result<Self> {
        let class = match string(case, "scheduler")? {
            "DPMSolverMultistepScheduler" => Class::Dpm,
            "UniPCMultistepScheduler" => Class::UniPc,
            "EulerDiscreteScheduler" => Class::Euler,
            "EulerAncestralDiscreteScheduler" => Class::EulerAncestral,
            "HeunDiscreteScheduler" => Class::Heun,
            "DDIMScheduler" => Class::Ddim,
            other => bail!("scheduler {other:?} is not known"),
        };
        let config = Config::new(class, case)?;
        let steps = whole(case, "num_inference_steps")?;
        let betas = config.betas()?;
        let tables = Tables::new(&betas, &Respacing::All)?;
        let mut bars = tables.alphas_cumprod;
        let prediction = match config.text("prediction_type")? {
            "epsilon" => Prediction::Epsilon,
            "sample" | "original_sample" => Prediction::Start,
            "v_prediction" => Prediction::Velocity,
            other => bail!("prediction_type {other:?} is not known"),
        };
        // Only what is predicted matters of the process: the levels are the grid's.
        let plain = Tables::new(&Schedule::Linear.betas(1000)?, &Respacing::All)?;
        let (variance, loss) = (Variance::FixedSmall, LossKind::Mse);
        let diffusion = GaussianDiffusion::from_tables(plain, prediction, variance, loss)?;

        let exploding = matches!(class, Class::Euler | Class::EulerAncestral | Class::Heun);
        let (calls, sigmas) = if class == Class::Ddim {
            (ddim_calls(&config, &bars, steps)?, Vec::new())
        } else {
            if let Some(last) = bars.last_mut().filter(|bar| **bar == 0.0) {
                *last = MIN_ALPHA_BAR;
            }
            calls(&config, &config.grid(&bars, steps)?)
        };
        let largest = sigmas.iter().copied().fold(0.0, f64::max);
        let init_noise_sigma = match (exploding, config.text("timestep_spacing")?) {
            (false, _) => 1.0,
            (true, "leading") => f64::hypot(largest, 1.0),
            (true, _) => largest,
        };
        Ok(Self {
            diffusion,
            limit: config.limit()?,
            steps,
            calls,
            sigmas,
            solver: config.solver(case)?,
            init_noise_sigma,
            exploding,
            bars,
        })
    }

    /// What an image of the library at a level is multiplied by to be one of ours.
    pub fn unit(&self, level: Level) -> f64 {
        if self.exploding { level.alpha } else { 1.0 }
    }

    /// `alpha_bar` of the schedule at a timestep; not a number beside its steps.
    pub fn alpha_bar_at(&self, timestep: f64) -> f64 {
        let whole = timestep.fract() == 0.0 && timestep >= 0.0;
        let bar = self.bars.get(timestep as usize).copied();
        bar.filter(|_| whole).unwrap_or(f64::NAN)
    }
}

/// Calls on a grid, and the library's list of levels.
fn calls(config: &Config, grid: &Grid) -> (Vec<Call>, Vec<f64>) {
    let (timesteps, levels) = (grid.timesteps(), grid.levels());
    let call = |node: usize, next: usize| Call {
        timestep: timesteps[node],
        node,
        here: levels[node],
        next: levels[next],
    };
    let ratios = levels.iter().map(|level| level.ratio());
    if config.class != Class::Heun {
        return (
            (0..grid.steps()).map(|i| call(i, i + 1)).collect(),
            ratios.collect(),
        );
    }
    let solver = Heun::<Array4<f32>>::default();
    let calls = (0..solver.calls(grid.steps())).map(|i| {
        let (node, next) = solver.nodes(i);
        call(node, next)
    });
    let (first, last) = (0, grid.steps());
    let sigmas = ratios
        .enumerate()
        .flat_map(|(i, ratio)| vec![ratio; if i == first || i == last { 1 } else { 2 }]);
    (calls.collect(), sigmas.collect())
}

/// DDIM's own steps: each leads to the level one stride before its timestep, be that the next
/// timestep or not.
fn ddim_calls(config: &Config, bars: &[f64], steps: usize) -> Result<Vec<Call>> {
    ensure!(
        steps > 0 && steps <= bars.len(),
        "{steps} steps of {}",
        bars.len()
    );
    let options = GridOptions {
        stride: config.stride()?,
        offset: config.whole("steps_offset")?,
        ..GridOptions::default()
    };
    let timesteps = options.timesteps(bars, steps)?;
    let stride = bars.len() / steps;
    let last = if config.flag("set_alpha_to_one")? {
        1.0
    } else {
        bars[0]
    };
    let of = |(node, t): (usize, f64)| {
        let t = t.round_ties_even();
        let next = (t as usize).checked_sub(stride).map_or(last, |t| bars[t]);
        Call {
            timestep: t,
            node,
            here: Level::from_alpha_bar(bars[t as usize]),
            next: Level::from_alpha_bar(next),
        }
    };
    Ok(timesteps.into_iter().enumerate().map(of).collect())
}

/// Keys and values, defaults of the class included.
struct Config {
    class: Class,
    values: Map<String, Value>,
}

impl Config {
    fn new(class: Class, case: &Value) -> Result<Self> {
        let mut values = defaults(class);
        for source in ["full_config", "scheduler_options"] {
            let Some(map) = case.get(source).filter(|v| !v.is_null()) else {
                continue;
            };
            let map = map.as_object().with_context(|| source.to_owned())?;
            values.extend(map.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        let config = Self { class, values };
        config.refuse_unknown()?;
        Ok(config)
    }

    /// Keys that nothing here reads must say that nothing is to be done.
    fn refuse_unknown(&self) -> Result<()> {
        let neutral = |key: &str| match key {
            "use_beta_sigmas" | "use_flow_sigmas" | "use_dynamic_shifting" => json!(false),
            "solver_p" | "shift_terminal" | "variance_type" => Value::Null,
            "predict_x0" => json!(true),
            "interpolation_type" => json!("linear"),
            "timestep_type" => json!("discrete"),
            _ => json!("of no effect"),
        };
        for (key, value) in &self.values {
            let read = READ.contains(&key.as_str());
            // Settings of what is refused when it is on, and the library's own notes.
            let idle = matches!(key.as_str(), "flow_shift" | "time_shift_type") || {
                key.starts_with('_')
            };
            ensure!(
                read || idle || *value == neutral(key),
                "{key} = {value} is not supported"
            );
        }
        Ok(())
    }

    fn value(&self, key: &str) -> Result<&Value> {
        self.values
            .get(key)
            .with_context(|| format!("has no {key:?}"))
    }

    fn text(&self, key: &str) -> Result<&str> {
        let value = self.value(key)?.as_str();
        value.with_context(|| format!("{key} is not a text"))
    }

    /// A number; the words for infinity are texts in the manifest.
    fn number(&self, key: &str) -> Result<f64> {
        match self.value(key)? {
            Value::String(s) if s == "-Infinity" => Ok(f64::NEG_INFINITY),
            Value::String(s) if s == "Infinity" => Ok(f64::INFINITY),
            value => value
                .as_f64()
                .with_context(|| format!("{key} is not a number")),
        }
    }

    fn optional(&self, key: &str) -> Result<Option<f64>> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.number(key).map(Some),
        }
    }

    fn whole(&self, key: &str) -> Result<usize> {
        let value = self.value(key)?.as_u64();
        value
            .map(|n| n as usize)
            .with_context(|| format!("{key} is not a whole number"))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => value
                .as_bool()
                .with_context(|| format!("{key} is neither true nor false")),
        }
    }

    fn betas(&self) -> Result<Vec<f64>> {
        let steps = self.whole("num_train_timesteps")?;
        let (start, end) = (self.number("beta_start")?, self.number("beta_end")?);
        let betas = match self.values.get("trained_betas") {
            Some(Value::Array(betas)) => betas
                .iter()
                .map(|b| b.as_f64().context("trained_betas"))
                .collect::<Result<_>>()?,
            _ => match self.text("beta_schedule")? {
                "linear" => linear(start, end, steps),
                "scaled_linear" => scaled_linear(start, end, steps),
                "squaredcos_cap_v2" => Schedule::Cosine.betas(steps)?,
                other => bail!("beta_schedule {other:?} is not known"),
            },
        };
        Ok(if self.flag("rescale_betas_zero_snr")? {
            zero_terminal_snr(&betas)
        } else {
            betas
        })
    }

    fn stride(&self) -> Result<Stride> {
        match self.text("timestep_spacing")? {
            "leading" => Ok(Stride::Leading),
            "linspace" => Ok(Stride::Linspace),
            "trailing" => Ok(Stride::Trailing),
            other => bail!("timestep_spacing {other:?} is not known"),
        }
    }

    fn grid(&self, bars: &[f64], steps: usize) -> Result<Grid> {
        let end = match self.class {
            Class::Dpm | Class::UniPc => End::Open,
            _ => End::Closed,
        };
        let (karras, exponential, lu) = (
            self.flag("use_karras_sigmas")?,
            self.flag("use_exponential_sigmas")?,
            self.flag("use_lu_lambdas")?,
        );
        let ramp = match (karras, exponential || lu) {
            (true, false) => Ramp::Karras,
            (false, true) => Ramp::LogRatio,
            (false, false) => Ramp::Timesteps,
            (true, true) => bail!("two kinds of sigmas at once"),
        };
        // Timesteps that were not rounded lose their fractions when they become integers.
        let cosine = self.text("beta_schedule")? == "squaredcos_cap_v2";
        let rounding = match self.class {
            Class::Dpm if !exponential && !cosine => Rounding::Nearest,
            Class::UniPc if karras => Rounding::Nearest,
            Class::Dpm | Class::UniPc => Rounding::Down,
            _ => Rounding::None,
        };
        let last = match self.values.get("final_sigmas_type").and_then(Value::as_str) {
            None | Some("zero") => LastLevel::Clean,
            Some("sigma_min") => LastLevel::FirstStep,
            Some(other) => bail!("final_sigmas_type {other:?} is not known"),
        };
        let options = GridOptions {
            stride: self.stride()?,
            offset: self.whole("steps_offset")?,
            end,
            ramp,
            rounding,
            min_ratio: self.optional("sigma_min")?,
            max_ratio: self.optional("sigma_max")?,
            last,
            min_lambda: self
                .optional("lambda_min_clipped")?
                .unwrap_or(f64::NEG_INFINITY),
        };
        let grid = options.grid(bars, steps)?;
        // UniPC's last level is then the ramp's last, which may be another than the schedule's.
        if self.class == Class::UniPc && ramp != Ramp::Timesteps && last == LastLevel::FirstStep {
            let mut levels = grid.levels().to_vec();
            levels[steps] = levels[steps - 1];
            return Ok(Grid::new(grid.timesteps().to_vec(), levels)?);
        }
        Ok(grid)
    }

    fn limit(&self) -> Result<Option<Limit>> {
        if self.flag("thresholding")? {
            return Ok(Some(Limit::Dynamic {
                ratio: self.number("dynamic_thresholding_ratio")?,
                max: self.number("sample_max_value")?,
            }));
        }
        if self.flag("clip_sample")? {
            let range = self.number("clip_sample_range")?;
            return Ok(Some(Limit::Clip(range)));
        }
        Ok(None)
    }

    fn solver(&self, case: &Value) -> Result<Box<dyn Sampler<Array4<f32>>>> {
        let mut eta = 0.0;
        let mut raw_epsilon = true;
        let options = case.get("step_options").and_then(Value::as_object);
        for (key, value) in options.into_iter().flatten() {
            match (self.class, key.as_str()) {
                (Class::Ddim, "eta") => eta = value.as_f64().context("eta")?,
                (Class::Ddim, "use_clipped_model_output") => {
                    raw_epsilon = !value.as_bool().context("use_clipped_model_output")?;
                }
                _ => bail!("step option {key} = {value} is not supported"),
            }
        }
        let solver_type = || self.text("solver_type");
        Ok(match self.class {
            Class::Dpm => {
                let stochastic = match self.text("algorithm_type")? {
                    "dpmsolver++" | "deis" => false,
                    "sde-dpmsolver++" => true,
                    other => bail!("algorithm_type {other:?} is not supported"),
                };
                let correction = match solver_type()? {
                    "heun" => Correction::Heun,
                    "midpoint" | "logrho" | "bh1" | "bh2" => Correction::Midpoint,
                    other => bail!("solver_type {other:?} is not known"),
                };
                Box::new(DpmSolver::new(DpmOptions {
                    correction,
                    stochastic,
                    lower_order_final: self.flag("lower_order_final")?,
                    euler_at_final: self.flag("euler_at_final")?,
                    ..DpmOptions::new(self.whole("solver_order")?)
                })?)
            }
            Class::UniPc => {
                let kind = match solver_type()? {
                    "bh1" => UniPcKind::Bh1,
                    "bh2" | "midpoint" | "heun" | "logrho" => UniPcKind::Bh2,
                    other => bail!("solver_type {other:?} is not known"),
                };
                let uncorrected = self.value("disable_corrector")?.as_array();
                let uncorrected = uncorrected.context("disable_corrector is not a list")?;
                Box::new(UniPc::new(UniPcOptions {
                    kind,
                    lower_order_final: self.flag("lower_order_final")?,
                    uncorrected: uncorrected
                        .iter()
                        .filter_map(|step| Some(step.as_u64()? as usize))
                        .collect(),
                    ..UniPcOptions::new(self.whole("solver_order")?)
                })?)
            }
            Class::Euler => Box::new(Euler),
            Class::EulerAncestral => Box::new(EulerAncestral),
            Class::Heun => Box::new(Heun::default()),
            Class::Ddim => Box::new(Ddim { eta, raw_epsilon }),
        })
    }
}

/// Keys that are read above.
const READ: &[&str] = &[
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
    "timestep_spacing",
    "steps_offset",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_lu_lambdas",
    "final_sigmas_type",
    "lambda_min_clipped",
    "sigma_min",
    "sigma_max",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "clip_sample",
    "clip_sample_range",
    "set_alpha_to_one",
    "algorithm_type",
    "solver_order",
    "solver_type",
    "lower_order_final",
    "euler_at_final",
    "disable_corrector",
];

fn defaults(class: Class) -> Map<String, Value> {
    let mut values = json!({
        "num_train_timesteps": 1000,
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "prediction_type": "epsilon",
        "timestep_spacing": "linspace",
        "steps_offset": 0,
        "dynamic_thresholding_ratio": 0.995,
        "sample_max_value": 1.0,
        "clip_sample_range": 1.0,
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "lower_order_final": true,
        "disable_corrector": [],
    });
    let own = match class {
        Class::Dpm => json!({"solver_type": "midpoint"}),
        Class::UniPc => json!({"solver_type": "bh2"}),
        Class::Heun => json!({"beta_start": 0.00085, "beta_end": 0.012}),
        Class::Ddim => json!({
            "timestep_spacing": "leading", "clip_sample": true, "set_alpha_to_one": true,
        }),
        Class::Euler | Class::EulerAncestral => json!({}),
    };
    let mut map = values
        .as_object_mut()
        .map(std::mem::take)
        .unwrap_or_default();
    if let Value::Object(own) = own {
        map.extend(own);
    }
    map
}
