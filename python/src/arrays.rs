//! Arguments that are NumPy arrays: checked, borrowed, seen as `ndarray` views; errors name the argument.

use ndarray::{ArrayView, ArrayViewMut, Dimension};
use numpy::{
    PyArray, PyArrayDescrMethods, PyArrayMethods, PyReadonlyArray, PyReadwriteArray,
    PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use std::borrow::Cow;

/// An argument to be read.
pub struct Input<'py, D: Dimension>(PyReadonlyArray<'py, f32, D>);

/// An argument to be written.
pub struct Output<'py, D: Dimension>(PyReadwriteArray<'py, f32, D>);

impl<D: Dimension> Input<'_, D> {
    pub fn view(&self) -> ArrayView<'_, f32, D> {
        self.0.as_array()
    }
}

impl<D: Dimension> Output<'_, D> {
    pub fn view(&mut self) -> ArrayViewMut<'_, f32, D> {
        // NumPy's strides of what has no elements are not such as views may have.
        if self.0.is_empty()
            && let Ok(empty) = ArrayViewMut::from_shape(self.0.dims(), &mut [])
        {
            return empty;
        }
        self.0.as_array_mut()
    }
}

/// A view's numbers in row-major order, copied only if they do not lie so.
pub fn dense<'a, D: Dimension>(view: &'a ArrayView<'_, f32, D>) -> Cow<'a, [f32]> {
    match view.as_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(view.iter().copied().collect()),
    }
}

/// A shape as Python writes it.
pub fn shape_text(shape: &[usize]) -> String {
    match shape {
        [one] => format!("({one},)"),
        _ => {
            let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
            format!("({})", sizes.join(", "))
        }
    }
}

/// Refuses a shape other than the expected one, whose axes `axes` names.
pub fn expect_shape(name: &str, axes: &str, found: &[usize], expected: &[usize]) -> PyResult<()> {
    if found == expected {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "{name} has shape {}, expected {} {axes}",
        shape_text(found),
        shape_text(expected)
    )))
}

fn array<'a, 'py, D: Dimension>(
    name: &str,
    axes: &str,
    value: &'a Bound<'py, PyAny>,
) -> PyResult<&'a Bound<'py, PyArray<f32, D>>> {
    if let Ok(array) = value.cast::<PyArray<f32, D>>() {
        // Views count in whole numbers.
        if array.is_aligned() && array.strides().iter().all(|stride| stride % 4 == 0) {
            return Ok(array);
        }
        return Err(PyValueError::new_err(format!(
            "{name} does not lie at multiples of four bytes: numpy.ascontiguousarray(..) makes an array that does"
        )));
    }
    let Ok(array) = value.cast::<PyUntypedArray>() else {
        let found = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "{name} is of type {found}, expected a NumPy array of float32 {axes}"
        )));
    };
    let found = array.dtype();
    if !found.is_equiv_to(&numpy::dtype::<f32>(value.py())) {
        return Err(PyTypeError::new_err(format!(
            "{name} is an array of {found}, expected float32 {axes}"
        )));
    }
    Err(PyValueError::new_err(format!(
        "{name} has shape {}, expected {axes}",
        shape_text(array.shape())
    )))
}

/// Borrows an argument to be read; `axes` says what its axes are.
pub fn input<'py, D: Dimension>(
    name: &str,
    axes: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Input<'py, D>> {
    let array = array(name, axes, value)?;
    let borrowed = array.try_readonly();
    borrowed
        .map(Input)
        .map_err(|error| PyValueError::new_err(format!("{name} cannot be read: {error}")))
}

/// [`input`] that may be `None`.
pub fn input_if<'py, D: Dimension>(
    name: &str,
    axes: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Option<Input<'py, D>>> {
    match value.is_none() {
        true => Ok(None),
        false => input(name, axes, value).map(Some),
    }
}

/// Borrows an argument to be written.
pub fn output<'py, D: Dimension>(
    name: &str,
    axes: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Output<'py, D>> {
    let array = array(name, axes, value)?;
    if overlaps_itself(array.shape(), array.strides()) {
        return Err(PyValueError::new_err(format!(
            "{name} cannot be written: its elements overlap"
        )));
    }
    let borrowed = array.try_readwrite();
    borrowed
        .map(Output)
        .map_err(|error| PyValueError::new_err(format!("{name} cannot be written: {error}")))
}

/// [`output`] that may be `None`.
pub fn output_if<'py, D: Dimension>(
    name: &str,
    axes: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Option<Output<'py, D>>> {
    match value.is_none() {
        true => Ok(None),
        false => output(name, axes, value).map(Some),
    }
}

/// Whether two places of an array may be the same memory; strides in bytes.
fn overlaps_itself(shape: &[usize], strides: &[isize]) -> bool {
    if shape.contains(&0) {
        return false;
    }
    let mut axes: Vec<(usize, usize)> = strides
        .iter()
        .map(|stride| stride.unsigned_abs())
        .zip(shape.iter().copied())
        .collect();
    axes.sort_unstable();
    let mut extent = size_of::<f32>();
    for (stride, size) in axes {
        if size > 1 {
            if stride < extent {
                return true;
            }
            extent += stride * (size - 1);
        }
    }
    false
}
