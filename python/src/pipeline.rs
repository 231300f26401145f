//! A checkpoint that draws images.

use crate::errors::invalid;
use crate::threads::pool;
use dis_data::grid::to_bytes;
use dis_diffusion::{Guidance, Limit, Plan, SamplerSpec};
use dis_model::checkpoint::InferHints;
use dis_model::{Checkpoint, Classes, ConditionKind, DisModel, Metadata};
use dis_pipeline::{Artist, Row, Settings, Task, usual_guidance};
use dis_tensor::{Backend, Cpu, Reals};
use dis_train::run::find_weights;
use ndarray::Array4;
use numpy::{IntoPyArray, PyArray4};
use pyo3::exceptions::{PyRuntimeError, PyUserWarning, PyValueError};
use pyo3::prelude::*;
use std::ffi::CString;
use std::ops::ControlFlow;
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
    /// Reads a checkpoint, or the newest of a run; without a path the digits model in this package. `raw` takes the
    /// weights where their moving average is kept beside them.
    #[new]
    fn new(py: Python<'_>, path: Option<PathBuf>, raw: bool) -> PyResult<Self> {
        let pool = pool()?;
        let mut warnings = Vec::new();
        let checkpoint = py.detach(|| match &path {
            Some(path) => {
                let found = find_weights(path, &mut |text| warnings.push(text.to_string()));
                found.and_then(|found| found.load(raw)).map_err(invalid)
            }
            None => Checkpoint::from_bytes(DIGITS, Path::new("digits"), &InferHints::default())
                .map_err(invalid),
        })?;
        for text in warnings {
            let text = CString::new(text.replace('\0', " "))?;
            PyErr::warn(py, &py.get_type::<PyUserWarning>(), &text, 3)?;
        }
        py.detach(|| {
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
        sampler: Option<&str>,
        steps: Option<usize>,
        spacing: Option<&str>,
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
        sampler: Option<&str>,
        steps: Option<usize>,
        spacing: Option<&str>,
        eta: f64,
        clip: bool,
    ) -> PyResult<Plan> {
        let sampler = sampler.map(str::parse).transpose().map_err(invalid)?;
        let spacing = spacing.map(str::parse).transpose().map_err(invalid)?;
        let named = Settings::of(sampler, steps, spacing);
        let settings = Settings {
            sampler: with_eta(named.sampler, eta)?,
            limit: clip.then_some(Limit::Clip(1.0)),
            ..named
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

    /// All images. The interpreter is looked in on after every step, by the thread that called.
    fn images(&self, cpu: &Cpu, rows: &[Row], drawing: &Drawing<'_>) -> PyResult<Array4<f32>> {
        let artist = Artist {
            backend: cpu,
            model: &self.model,
            params: &self.params,
            plan: &drawing.plan,
            seed: drawing.seed,
            guidance: drawing.guidance.clone(),
        };
        let all = rows.len() * drawing.plan.iterations();
        let (mut done, mut raised) = (0, None);
        let drawn = artist.draw_all(rows, &Task::Generate, drawing.batch_size, &mut |at| {
            done += at.images;
            raised = look_in(drawing.callback, done, all).err();
            match raised {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        });
        match raised {
            Some(error) => Err(error),
            None => drawn.map_err(invalid),
        }
    }
}

/// Handles signals such as Ctrl-C, and calls back.
fn look_in(callback: Option<&Py<PyAny>>, done: usize, all: usize) -> PyResult<()> {
    Python::attach(|py| {
        py.check_signals()?;
        callback.map_or(Ok(()), |callback| callback.call1(py, (done, all)).map(drop))
    })
}

/// A sampler with DDIM's noise.
pub fn with_eta(sampler: SamplerSpec, eta: f64) -> PyResult<SamplerSpec> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(PyValueError::new_err(format!(
            "eta is {eta}, expected 0 to 1"
        )));
    }
    match sampler {
        SamplerSpec::Ddim { .. } => Ok(SamplerSpec::Ddim { eta }),
        _ if eta != 0.0 => Err(PyValueError::new_err("eta is for the sampler ddim only")),
        other => Ok(other),
    }
}
