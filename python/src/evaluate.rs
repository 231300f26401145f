//! Samples judged against a reference.

use crate::errors::{invalid, wrong_type};
use crate::threads::pool;
use dis_data::{DataSpec, Dataset, ImageShape, MemoryDataset};
use dis_eval::metrics::Bootstrap;
use dis_eval::{
    Features, MeasureOptions, Metric, PixelFeatures, Side, extract, measure, pixel_points,
};
use numpy::{PyReadonlyArray2, PyReadonlyArray4};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::Arc;

/// Images of one side: bytes (n, height, width, channels), or what a data specification of `dis` names.
fn images(
    name: &str,
    value: &Bound<'_, PyAny>,
    labels: Option<Vec<u32>>,
) -> PyResult<Arc<dyn Dataset>> {
    let named = |error: &dyn std::fmt::Display| PyValueError::new_err(format!("{name}: {error}"));
    if let Ok(spec) = value.extract::<String>() {
        let spec: DataSpec = spec.parse().map_err(|error| named(&error))?;
        let pool = pool()?;
        let opened = value.py().detach(|| pool.install(|| dis_data::open(&spec)));
        return opened.map_err(|error| named(&error));
    }
    let Ok(array) = value.extract::<PyReadonlyArray4<'_, u8>>() else {
        return Err(wrong_type(
            name,
            value,
            "an array of uint8 (num, height, width, channels), or the name of data",
        ));
    };
    let array = array.as_array();
    let (_, height, width, channels) = array.dim();
    let pixels = array.permuted_axes([0, 3, 1, 2]).iter().copied().collect();
    let shape = ImageShape {
        channels,
        height,
        width,
    };
    let classes = labels.as_ref().map_or(0, |labels| {
        labels.iter().max().map_or(0, |&most| most as usize + 1)
    });
    let names = (0..classes).map(|class| class.to_string()).collect();
    let data = MemoryDataset::new(name, shape, 255, pixels, labels, names).map_err(invalid)?;
    Ok(Arc::new(data))
}

/// Pixels as features, or those that were given.
fn features(
    name: &str,
    data: &dyn Dataset,
    given: Option<PyReadonlyArray2<'_, f32>>,
    py: Python<'_>,
) -> PyResult<Features> {
    let mut found = py
        .detach(|| extract(&PixelFeatures, data, 256, &mut |_| {}))
        .map_err(invalid)?;
    if let Some(given) = given {
        let view = given.as_array();
        if view.nrows() != data.len() {
            return Err(PyValueError::new_err(format!(
                "{name} has shape ({}, {}), expected ({}, features): a row for each image",
                view.nrows(),
                view.ncols(),
                data.len()
            )));
        }
        found.features = view.to_owned();
        found.no_covariance = None;
    }
    Ok(found)
}

/// A figure: its name, value, interval, standard deviation, which way is better, and what is to be known of it.
type Figure = (
    &'static str,
    f64,
    Option<(f64, f64)>,
    Option<f64>,
    &'static str,
    Option<String>,
);

/// Figures, what was left out and why, warnings, and a table of all.
type Measured = (
    Vec<Figure>,
    Vec<(&'static str, String)>,
    Vec<String>,
    String,
);

/// Measures; see `dis_ssm.evaluate`.
#[pyfunction]
pub fn evaluate(
    py: Python<'_>,
    samples: &Bound<'_, PyAny>,
    reference: &Bound<'_, PyAny>,
    metrics: Vec<String>,
    sample_features: Option<PyReadonlyArray2<'_, f32>>,
    reference_features: Option<PyReadonlyArray2<'_, f32>>,
    resamples: usize,
    seed: u64,
) -> PyResult<Measured> {
    let metrics = metrics
        .iter()
        .map(|name| name.parse())
        .collect::<Result<Vec<Metric>, String>>();
    let metrics = metrics.map_err(|error| PyValueError::new_err(format!("metrics: {error}")))?;
    if sample_features.is_some() != reference_features.is_some() {
        return Err(PyValueError::new_err(
            "features of one side only: both have to have them, or none",
        ));
    }
    let (samples, reference) = (
        images("samples", samples, None)?,
        images("reference", reference, None)?,
    );
    if samples.shape() != reference.shape() {
        return Err(PyValueError::new_err(format!(
            "samples are of {}, reference of {}",
            samples.shape(),
            reference.shape()
        )));
    }
    let options = MeasureOptions {
        metrics,
        bootstrap: Bootstrap {
            resamples,
            seed,
            ..Bootstrap::default()
        },
        ..MeasureOptions::default()
    };
    let x = features("features of samples", &*samples, sample_features, py)?;
    let y = features("features of reference", &*reference, reference_features, py)?;
    if x.features.ncols() != y.features.ncols() {
        return Err(PyValueError::new_err(format!(
            "features of samples are {} wide, of reference {}",
            x.features.ncols(),
            y.features.ncols()
        )));
    }
    let pool = pool()?;
    let report = py.detach(|| {
        pool.install(|| {
            let pixels = match options.metrics.contains(&Metric::Copies) {
                true => Some((pixel_points(&*samples)?, pixel_points(&*reference)?)),
                false => None,
            };
            let pixels = pixels.as_ref().map(|(x, y)| (x.view(), y.view()));
            let (x, y) = (Side::Points(Box::new(x)), Side::Points(Box::new(y)));
            Ok(measure(&x, &y, pixels, &options, &mut |_| {}))
        })
    });
    let report = report.map_err(|error: dis_eval::EvalError| invalid(error))?;
    let table = report.to_string();
    let figures = report.figures.into_iter().map(|figure| {
        let interval = figure
            .interval
            .map(|interval| (interval.low, interval.high));
        (
            figure.name,
            figure.value,
            interval,
            figure.std,
            figure.better,
            figure.note,
        )
    });
    let left_out = report
        .left_out
        .into_iter()
        .map(|left| (left.metric, left.why));
    Ok((
        figures.collect(),
        left_out.collect(),
        report.warnings,
        table,
    ))
}
