//! Errors of this workspace as Python's.

use pyo3::exceptions::{PyFileNotFoundError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use std::error::Error;
use std::io::ErrorKind;

/// An error with its words, as what Python calls such errors: a file that is missing, or a value that does not do.
pub fn invalid(error: impl Error) -> PyErr {
    let missing = |error: &(dyn Error + 'static)| {
        let io = error.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == ErrorKind::NotFound)
    };
    let text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        if missing(error) {
            return PyFileNotFoundError::new_err(text);
        }
        cause = error.source();
    }
    PyValueError::new_err(text)
}

/// The error of sampling: what Python raised in a network or a callback goes on as it is.
pub fn sampling(error: dis_diffusion::Error) -> PyErr {
    match error {
        dis_diffusion::Error::Network(error) => match error.downcast::<PyErr>() {
            Ok(raised) => *raised,
            Err(error) => PyRuntimeError::new_err(error.to_string()),
        },
        error => invalid(error),
    }
}

/// A word that is none of those that there are.
pub fn unknown(name: &str, found: &str, known: &[&str]) -> PyErr {
    PyValueError::new_err(format!(
        "{name} is {found:?}, expected one of {}",
        known.join(", ")
    ))
}

/// An argument of a type that it cannot have.
pub fn wrong_type(name: &str, value: &Bound<'_, PyAny>, expected: &str) -> PyErr {
    let found = value.get_type();
    let found = found
        .name()
        .map_or_else(|_| "another type".to_string(), |name| name.to_string());
    PyTypeError::new_err(format!("{name} is of type {found}, expected {expected}"))
}
