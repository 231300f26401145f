//! Data whose diffusion is known exactly: independent pixels from normal distributions, each pixel
//! with its own mean and deviation, so that errors of opposite sign cannot hide each other.

use dis_diffusion::{
    Ddim, Error, GaussianDiffusion, Grid, Level, LossKind, Noise, Options, Plan, Prediction,
    Result, Run, Sampler, SamplerSpec, Variance, from_fn,
};
use ndarray::{Array4, Axis};

use crate::wide::Wide;

const DEVIATIONS: [f64; 8] = [0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1, 1.4];
const MEANS: [f64; 8] = [0.2, -0.4, 0.0, 0.5, -0.1, 0.3, -0.3, 0.1];

/// Pixels of an image.
pub const PIXELS: usize = DEVIATIONS.len();

/// Standard deviation of a pixel at a level.
pub fn deviation(pixel: usize, level: Level) -> f64 {
    (level.alpha * DEVIATIONS[pixel]).hypot(level.sigma)
}

/// Mean of a pixel at a level.
pub fn mean(pixel: usize, level: Level) -> f64 {
    level.alpha * MEANS[pixel]
}

/// The epsilon that the exact network predicts.
fn epsilon(x: &Array4<f64>, level: Level) -> Array4<f64> {
    let mut out = x.clone();
    for (pixel, mut column) in out.axis_iter_mut(Axis(3)).enumerate() {
        let variance = deviation(pixel, level).powi(2);
        column.mapv_inplace(|x| level.sigma * (x - mean(pixel, level)) / variance);
    }
    out
}

/// The probability flow from one level to another: linear here, so known.
pub fn flow(x: &Array4<f64>, from: Level, to: Level) -> Array4<f64> {
    let mut out = x.clone();
    for (pixel, mut column) in out.axis_iter_mut(Axis(3)).enumerate() {
        let stretch = deviation(pixel, to) / deviation(pixel, from);
        column.mapv_inplace(|x| mean(pixel, to) + stretch * (x - mean(pixel, from)));
    }
    out
}

/// What is measured: a sampler by name, or DDIM with some eta.
#[derive(Clone, Copy, Debug)]
pub enum Method {
    /// A name that [`SamplerSpec`] knows.
    Named(&'static str),
    /// DDIM with this eta; 1 is ancestral sampling with posterior variances.
    Ddim(f64),
}

impl Method {
    /// For tables.
    pub fn label(self) -> String {
        match self {
            Self::Named(name) => name.to_owned(),
            Self::Ddim(0.0) => "ddim".to_owned(),
            Self::Ddim(eta) => format!("ddim, eta {eta}"),
        }
    }

    /// The last image of a run from `start` on a grid.
    pub fn run(self, grid: &Grid, start: Array4<f64>, noise: &mut dyn Noise<Wide>) -> Array4<f64> {
        let diffusion = GaussianDiffusion::new(&Options {
            variance: Variance::FixedSmall,
            prediction: Prediction::Epsilon,
            loss: LossKind::Mse,
            ..Options::default()
        })
        .unwrap();
        let mut network = network(grid);
        let sampler: Box<dyn Sampler<Wide>> = match self {
            Self::Named(name) => {
                let spec: SamplerSpec = name.parse().unwrap();
                let plan = Plan::on_grid(spec, &diffusion, grid.clone()).unwrap();
                plan.sampler().unwrap()
            }
            Self::Ddim(eta) => Box::new(Ddim {
                eta,
                raw_epsilon: false,
            }),
        };
        let start = Wide(start);
        let mut run = Run::with_sampler(&diffusion, grid, sampler, &mut network, noise, start);
        while run.advance().unwrap().is_some() {}
        run.into_sample().0
    }
}

/// The exact network on the levels of a grid.
fn network(grid: &Grid) -> impl dis_diffusion::Denoiser<Wide> + use<> {
    let grid = grid.clone();
    from_fn(move |x: &Wide, t: &[f64]| {
        let node = grid.timesteps().iter().position(|known| *known == t[0]);
        Wide(epsilon(&x.0, grid.levels()[node.unwrap()]))
    })
}

/// The last image of a planned run, and where it should be.
pub fn planned(plan: &Plan, start: &Array4<f64>) -> (Array4<f64>, Array4<f64>) {
    let mut network = network(plan.grid());
    let mut noise = NoNoise;
    let mut run = Run::new(plan, &mut network, &mut noise, Wide(start.clone())).unwrap();
    while run.advance().unwrap().is_some() {}
    let exact = flow(start, plan.grid().levels()[0], Level::CLEAN);
    (run.into_sample().0, exact)
}

/// For samplers that must not ask.
pub struct NoNoise;

impl Noise<Wide> for NoNoise {
    fn draw(&mut self, iteration: usize, _: &Wide) -> Result<Wide> {
        Err(Error::NoNoise {
            iteration,
            supplied: 0,
        })
    }
}

/// Noise of one in one draw of one sample each: sample i + 1 of the batch has a unit draw in
/// iteration i. As samplers are linear here, the responses give the exact moments of what they
/// draw, without a single random number.
pub struct Impulses;

impl Noise<Wide> for Impulses {
    fn draw(&mut self, iteration: usize, like: &Wide) -> Result<Wide> {
        let mut out = Array4::zeros(like.0.raw_dim());
        out.index_axis_mut(Axis(0), iteration + 1).fill(1.0);
        Ok(Wide(out))
    }
}

/// Exact mean and deviation of every pixel after a run from the true distribution at the grid's
/// first level.
pub fn moments(method: Method, grid: &Grid) -> Vec<(f64, f64)> {
    let rows = grid.steps() + 2;
    let first = grid.levels()[0];
    // Row 0 has no noise at all; the last a start that is one deviation off.
    let mut start = Array4::zeros((rows, 1, 1, PIXELS));
    for ((row, _, _, pixel), x) in start.indexed_iter_mut() {
        *x = mean(pixel, first);
        if row == rows - 1 {
            *x += deviation(pixel, first);
        }
    }
    let end = method.run(grid, start, &mut Impulses);
    (0..PIXELS)
        .map(|pixel| {
            let at = |row: usize| end[[row, 0, 0, pixel]];
            let squares = (1..rows).map(|row| (at(row) - at(0)).powi(2));
            (at(0), squares.sum::<f64>().sqrt())
        })
        .collect()
}
