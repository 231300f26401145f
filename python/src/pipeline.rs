//! A checkpoint that draws images.

use crate::errors::{invalid, sampling};
use crate::threads::pool;
use dis_data::grid::to_bytes;
use dis_diffusion::{
    Conditional, Guidance, Guided, Limit, OnDevice, Plan, Run, SamplerSpec, SeededNoise,
};
use dis_model::checkpoint::InferHints;
use dis_model::{Checkpoint, Classes, ConditionKind, DisModel, Metadata};
use dis_pipeline::{ModelDenoiser, Row, Settings, usual_guidance};
use dis_tensor::{Backend, Cpu, Reals};
use ndarray::{Array4, Axis, concatenate};
use numpy::{IntoPyArray, PyArray4};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::path::{Path, PathBuf};

static DIGITS: &[u8] = include_bytes!("../assets/digits.safetensors");

/// Most images of one call: a bound for typing errors.
const MOST: usize = 10_000_000;

/// A model with its weights.
#[pyclass(frozen)]
pub struct Pipeline {
    model: DisModel,
    metadata: Metadata,
    params: Reals<Cpu>,
}

/// How images are drawn.
struct Drawing<'a> {
    plan: Plan,
    guidance: Guidance,
    seed: u64,
    batch_size: usize,
    callback: Option<&'a Py<PyAny>>,
}

#[pymethods]
impl Pipeline {
    /// Reads a checkpoint; without a path the digits model in this package.
    #[new]
    #[pyo3(signature = (path))]
    fn new(py: Python<'_>, path: Option<PathBuf>) -> PyResult<Self> {
        let pool = pool()?;
        py.detach(|| {
            let hints = InferHints::default();
            let checkpoint = match &path {
                Some(path) => Checkpoint::load(path, &hints),
                None => Checkpoint::from_bytes(DIGITS, Path::new("digits"), &hints),
            };
            let checkpoint = checkpoint.map_err(invalid)?;
            let cpu = Cpu::in_pool(pool);
            let mut params = cpu.from_f32(&checkpoint.weights);
            let products = checkpoint.model.table().products();
            cpu.prepare_weights(&mut params, products)
                .map_err(invalid)?;
            Ok(Self {
                model: checkpoint.model,
                metadata: checkpoint.metadata,
                params,
            })
        })
    }

    /// (channels, height, width) of an image.
    #[getter]
    fn image_shape(&self) -> (usize, usize, usize) {
        let [channels, height, width] = self.model.config().image_shape();
        (channels, height, width)
    }

    /// Number of weights.
    #[getter]
    fn num_parameters(&self) -> usize {
        self.model.table().parameters()
    }

    /// Names of the classes; None for a model without.
    #[getter]
    fn class_names(&self) -> PyResult<Option<Vec<String>>> {
        let classes = self.classes()?;
        Ok(classes.map(|classes| {
            (0..classes.count() as u32)
                .map(|class| classes.name(class))
                .collect()
        }))
    }

    /// What the checkpoint says of itself, as JSON.
    #[getter]
    fn metadata_json(&self) -> String {
        self.metadata.to_json()
    }

    /// Draws images; see the Python class. Pixels are bytes (num, height, width, channels).
    fn draw<'py>(
        &self,
        py: Python<'py>,
        num: Option<usize>,
        classes: Vec<String>,
        sampler: &str,
        steps: usize,
        spacing: &str,
        eta: f64,
        clip: bool,
        cfg_scale: Option<f64>,
        seed: u64,
        batch_size: usize,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray4<u8>>> {
        let rows = self.rows(num, &classes)?;
        if batch_size == 0 {
            return Err(PyValueError::new_err(
                "batch_size is 0, expected at least 1",
            ));
        }
        let drawing = Drawing {
            plan: self.plan(sampler, steps, spacing, eta, clip)?,
            guidance: self.guidance(cfg_scale)?,
            seed,
            batch_size,
            callback: callback.as_ref(),
        };
        let cpu = Cpu::in_pool(pool()?);
        let images = py.detach(|| self.images(&cpu, &rows, &drawing))?;
        if let Some(at) = images.iter().position(|x| !x.is_finite()) {
            return Err(PyRuntimeError::new_err(format!(
                "the model's value {at} is not a finite number"
            )));
        }
        let images = images.permuted_axes([0, 2, 3, 1]);
        let shape = images.raw_dim();
        let values: Vec<f32> = images.iter().copied().collect();
        let bytes = Array4::from_shape_vec(shape, to_bytes(&values)).map_err(invalid)?;
        Ok(bytes.into_pyarray(py))
    }
}

impl Pipeline {
    fn classes(&self) -> PyResult<Option<Classes>> {
        Classes::of(&self.metadata).map_err(invalid)
    }

    /// The images: as many of each class, class by class, as `dis sample` draws them.
    fn rows(&self, num: Option<usize>, names: &[String]) -> PyResult<Vec<Row>> {
        if matches!(self.model.config().condition, ConditionKind::Context { .. }) {
            return Err(PyValueError::new_err(
                "this model needs a sequence of embeddings for every image; sample it from Rust",
            ));
        }
        let chosen = match (self.classes()?, names) {
            (None, []) => Vec::new(),
            (None, _) => {
                return Err(PyValueError::new_err("classes: this model has no classes"));
            }
            (Some(classes), []) => classes.occupied(),
            (Some(classes), names) => classes
                .choose(names)
                .map_err(|error| PyValueError::new_err(format!("classes: {error}")))?,
        };
        let num = num.unwrap_or(match chosen.len() {
            0 => 16,
            classes => 8 * classes,
        });
        if !(1..=MOST).contains(&num) {
            return Err(PyValueError::new_err(format!(
                "num is {num}, expected 1 to {MOST}"
            )));
        }
        Ok(Row::divided(num, &chosen))
    }

    fn plan(
        &self,
        sampler: &str,
        steps: usize,
        spacing: &str,
        eta: f64,
        clip: bool,
    ) -> PyResult<Plan> {
        let settings = Settings {
            sampler: with_eta(sampler, eta)?,
            steps,
            spacing: spacing.parse().map_err(invalid)?,
            limit: clip.then_some(Limit::Clip(1.0)),
            ..Settings::default()
        };
        settings.plan(&self.metadata).map_err(invalid)
    }

    fn guidance(&self, scale: Option<f64>) -> PyResult<Guidance> {
        let config = self.model.config();
        let Some(scale) = scale else {
            return Ok(usual_guidance(config));
        };
        if !(scale.is_finite() && scale >= 0.0) {
            return Err(PyValueError::new_err(format!(
                "cfg_scale is {scale}, expected a number that is not negative"
            )));
        }
        if scale != 1.0 && config.null_label().is_none() {
            return Err(PyValueError::new_err(format!(
                "cfg_scale is {scale}, but guidance needs a model with a null label, and this one has none"
            )));
        }
        Ok(Guidance::new(scale))
    }

    /// All images, batch by batch. The interpreter is looked in on after every step.
    fn images(&self, cpu: &Cpu, rows: &[Row], drawing: &Drawing<'_>) -> PyResult<Array4<f32>> {
        let mut batches = Vec::new();
        let all = rows.len() * drawing.plan.iterations();
        let mut done = 0;
        for rows in rows.chunks(drawing.batch_size) {
            let classes: Vec<u32> = rows.iter().filter_map(|row| row.label).collect();
            let network = ModelDenoiser::new(cpu, &self.model, &self.params, &classes);
            let mut network = Guided::new(Installed { cpu, network }, drawing.guidance.clone());
            let mut noise = SeededNoise::new(drawing.seed, rows.iter().map(|row| row.noise));
            let start = OnDevice::new(cpu, noise.start(self.model.config().image_shape()));
            let mut run =
                Run::new(&drawing.plan, &mut network, &mut noise, start).map_err(sampling)?;
            while run.advance().map_err(sampling)?.is_some() {
                done += rows.len();
                Python::attach(|py| {
                    py.check_signals()?;
                    match drawing.callback {
                        Some(callback) => callback.call1(py, (done, all)).map(|_| ()),
                        None => Ok(()),
                    }
                })?;
            }
            use dis_diffusion::State;
            batches.push(run.into_sample().fetch().map_err(sampling)?);
        }
        let views: Vec<_> = batches.iter().map(|batch| batch.view()).collect();
        concatenate(Axis(0), &views).map_err(invalid)
    }
}

/// A sampler by name, with DDIM's noise.
pub fn with_eta(name: &str, eta: f64) -> PyResult<SamplerSpec> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(PyValueError::new_err(format!(
            "eta is {eta}, expected 0 to 1"
        )));
    }
    match name.parse().map_err(invalid)? {
        SamplerSpec::Ddim { .. } => Ok(SamplerSpec::Ddim { eta }),
        _ if eta != 0.0 => Err(PyValueError::new_err("eta is for the sampler ddim only")),
        other => Ok(other),
    }
}

/// A network that enters the pool once for each call, not for each of its operations.
struct Installed<'a> {
    cpu: &'a Cpu,
    network: ModelDenoiser<'a, Cpu>,
}

impl Conditional<OnDevice<Cpu>> for Installed<'_> {
    fn predict_rows(
        &mut self,
        x: &OnDevice<Cpu>,
        t: &[f64],
        conditions: &[Option<usize>],
    ) -> dis_diffusion::Result<OnDevice<Cpu>> {
        let network = &mut self.network;
        self.cpu.install(|| network.predict_rows(x, t, conditions))
    }
}
