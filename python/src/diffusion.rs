//! Sampling with a function of Python's as the network.

use crate::arrays::{input, shape_text};
use crate::errors::{invalid, sampling, unknown};
use crate::pipeline::with_eta;
use dis_diffusion::{
    Denoiser, Error, Limit, Options, Prediction, Run, SeededNoise, Spacing, Variance,
};
use ndarray::{Array4, Ix4};
use numpy::{IntoPyArray, PyArray4, ToPyArray};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;

const PREDICTIONS: [&str; 3] = ["epsilon", "x0", "v"];
const VARIANCES: [&str; 4] = ["fixed_small", "fixed_large", "learned_range", "learned"];

fn options(
    schedule: &str,
    timesteps: usize,
    prediction: &str,
    variance: &str,
) -> PyResult<Options> {
    Ok(Options {
        schedule: schedule.parse().map_err(invalid)?,
        steps: timesteps,
        prediction: match prediction {
            "epsilon" => Prediction::Epsilon,
            "x0" => Prediction::Start,
            "v" => Prediction::Velocity,
            other => return Err(unknown("prediction", other, &PREDICTIONS)),
        },
        variance: match variance {
            "fixed_small" => Variance::FixedSmall,
            "fixed_large" => Variance::FixedLarge,
            "learned_range" => Variance::LearnedRange,
            "learned" => Variance::Learned,
            other => return Err(unknown("variance", other, &VARIANCES)),
        },
        ..Options::default()
    })
}

/// A function `network(x, t)` of NumPy arrays.
struct Function<'py>(Bound<'py, PyAny>);

impl Function<'_> {
    fn call(&self, x: &Array4<f32>, t: &[f64]) -> PyResult<Array4<f32>> {
        let py = self.0.py();
        let output = self.0.call1((x.to_pyarray(py), t.to_pyarray(py)))?;
        let output = input::<Ix4>(
            "the network's output",
            "(batch, channels, height, width)",
            &output,
        )?;
        let view = output.view();
        let (batch, channels, height, width) = x.dim();
        let (b, c, h, w) = view.dim();
        if (b, h, w) != (batch, height, width) || (c != channels && c != 2 * channels) {
            return Err(PyValueError::new_err(format!(
                "the network's output has shape {}, expected {}, or twice as many channels where it knows the variance",
                shape_text(view.shape()),
                shape_text(x.shape())
            )));
        }
        Ok(view.as_standard_layout().into_owned())
    }
}

impl Denoiser for Function<'_> {
    fn predict(&mut self, x: &Array4<f32>, t: &[f64]) -> dis_diffusion::Result<Array4<f32>> {
        self.call(x, t).map_err(Error::network)
    }
}

/// Samples `network`; see `dis_ssm.diffusion.sample`.
#[pyfunction]
pub fn sample<'py>(
    py: Python<'py>,
    network: Bound<'py, PyAny>,
    shape: [usize; 4],
    start: &Bound<'py, PyAny>,
    sampler: &str,
    steps: usize,
    spacing: &str,
    eta: f64,
    clip: Option<f64>,
    schedule: &str,
    timesteps: usize,
    prediction: &str,
    variance: &str,
    seed: u64,
    callback: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray4<f32>>> {
    let options = options(schedule, timesteps, prediction, variance)?;
    let spacing: Spacing = spacing.parse().map_err(invalid)?;
    if steps == 0 || steps > timesteps {
        return Err(PyValueError::new_err(format!(
            "steps is {steps}, expected 1 to {timesteps} (timesteps)"
        )));
    }
    let plan = with_eta(sampler.parse().map_err(invalid)?, eta)?
        .plan(&options, steps, spacing)
        .map_err(invalid)?;
    let plan = plan.with_limit(clip.map(Limit::Clip));
    let [batch, channels, height, width] = shape;
    // Several images of the size are alive at a time.
    let elements = shape
        .iter()
        .try_fold(1usize, |all, &size| all.checked_mul(size));
    if elements.is_none_or(|elements| elements > usize::MAX / 64 || elements > 1 << 34) {
        return Err(PyMemoryError::new_err(format!(
            "images of shape {} do not fit in memory",
            shape_text(&shape)
        )));
    }
    let mut noise = SeededNoise::new(seed, 0..batch as u64);
    let start = match start.is_none() {
        true => noise.start([channels, height, width]),
        false => {
            let start = input::<Ix4>("start", "(num, channels, height, width)", start)?;
            start.view().as_standard_layout().into_owned()
        }
    };
    let mut network = Function(network);
    let mut run = Run::new(&plan, &mut network, &mut noise, start).map_err(sampling)?;
    while let Some(at) = run.advance().map_err(sampling)? {
        py.check_signals()?;
        if let Some(callback) = &callback {
            callback.call1((at.iteration + 1, at.iterations, at.sample.to_pyarray(py)))?;
        }
    }
    Ok(run.into_sample().into_pyarray(py))
}
