//! A checkpoint that draws images.

use crate::errors::{invalid, sampling};
use crate::threads::pool;
use dis_data::grid::to_bytes;
use dis_diffusion::{
    Conditional, Guidance, Guided, Limit, OnDevice, Plan, Run, SamplerSpec, SeededNoise, Spacing,
};
use dis_model::checkpoint::InferHints;
use dis_model::classes::Division;
use dis_model::{Checkpoint, Classes, ConditionKind, DisModel, Metadata};
use dis_pipeline::{ModelDenoiser, plan_for};
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
        let labels = self.labels(num, &classes)?;
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
        let images = py.detach(|| self.images(&cpu, &labels, &drawing))?;
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

    /// The class of each image: as many of each class, class by class, as `dis sample` draws them.
    fn labels(&self, num: Option<usize>, names: &[String]) -> PyResult<Vec<Option<u32>>> {
        if matches!(self.model.config().condition, ConditionKind::Context { .. }) {
            return Err(PyValueError::new_err(
                "this model needs a sequence of embeddings for every image; sample it from Rust",
            ));
        }
        let chosen: Vec<Option<u32>> = match (self.classes()?, names) {
            (None, []) => vec![None],
            (None, _) => return Err(PyValueError::new_err("classes: this model has no classes")),
            (Some(classes), []) => classes.occupied().into_iter().map(Some).collect(),
            (Some(classes), names) => {
                let chosen = classes.choose(names);
                let chosen =
                    chosen.map_err(|error| PyValueError::new_err(format!("classes: {error}")))?;
                chosen.into_iter().map(Some).collect()
            }
        };
        let usual = match chosen.first() {
            Some(Some(_)) => 8 * chosen.len(),
            _ => 16,
        };
        let num = num.unwrap_or(usual);
        if !(1..=MOST).contains(&num) || chosen.is_empty() {
            return Err(PyValueError::new_err(format!(
                "num is {num}, expected 1 to {MOST}"
            )));
        }
        let division = Division::new(num, chosen.len());
        Ok((0..num).map(|i| chosen[division.in_blocks(i)]).collect())
    }

    fn plan(
        &self,
        sampler: &str,
        steps: usize,
        spacing: &str,
        eta: f64,
        clip: bool,
    ) -> PyResult<Plan> {
        let sampler = with_eta(sampler, eta)?;
        let spacing: Spacing = spacing.parse().map_err(invalid)?;
        let limit = clip.then_some(Limit::Clip(1.0));
        plan_for(&self.metadata, sampler, steps, spacing, limit).map_err(invalid)
    }

    fn guidance(&self, scale: Option<f64>) -> PyResult<Guidance> {
        let can_guide = self.model.config().null_label().is_some();
        let scale = scale.unwrap_or(if can_guide { 1.5 } else { 1.0 });
        if !(scale.is_finite() && scale >= 0.0) {
            return Err(PyValueError::new_err(format!(
                "cfg_scale is {scale}, expected a number that is not negative"
            )));
        }
        if scale != 1.0 && !can_guide {
            return Err(PyValueError::new_err(format!(
                "cfg_scale is {scale}, but guidance needs a model with a null label, and this one has none"
            )));
        }
        Ok(Guidance::new(scale))
    }

    /// All images, batch by batch. The interpreter is looked in on after every step.
    fn images(
        &self,
        cpu: &Cpu,
        labels: &[Option<u32>],
        drawing: &Drawing<'_>,
    ) -> PyResult<Array4<f32>> {
        let numbers: Vec<u64> = (0..labels.len() as u64).collect();
        let mut batches = Vec::new();
        let all = labels.len() * drawing.plan.iterations();
        let mut done = 0;
        for (labels, numbers) in labels
            .chunks(drawing.batch_size)
            .zip(numbers.chunks(drawing.batch_size))
        {
            let classes: Vec<u32> = labels.iter().flatten().copied().collect();
            let network = ModelDenoiser::new(cpu, &self.model, &self.params, &classes);
            let mut network = Guided::new(Installed { cpu, network }, drawing.guidance.clone());
            let mut noise = SeededNoise::new(drawing.seed, numbers.iter().copied());
            let start = OnDevice::new(cpu, noise.start(self.model.config().image_shape()));
            let mut run =
                Run::new(&drawing.plan, &mut network, &mut noise, start).map_err(sampling)?;
            while run.advance().map_err(sampling)?.is_some() {
                done += labels.len();
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
