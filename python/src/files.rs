//! Dictionaries of tensors in files.

use crate::errors::invalid;
use dis_files::torch::{Dict, write_torch};
use dis_files::{ElementType, FileError, View, write_atomic_with, write_safetensors};
use dis_model::checkpoint::{Entry, WeightFile};
use numpy::PyReadonlyArray1;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// Types that NumPy has, by its names.
const TYPES: [(ElementType, &str); 13] = [
    (ElementType::F64, "float64"),
    (ElementType::F32, "float32"),
    (ElementType::F16, "float16"),
    (ElementType::BF16, "bfloat16"),
    (ElementType::I64, "int64"),
    (ElementType::I32, "int32"),
    (ElementType::I16, "int16"),
    (ElementType::I8, "int8"),
    (ElementType::U64, "uint64"),
    (ElementType::U32, "uint32"),
    (ElementType::U16, "uint16"),
    (ElementType::U8, "uint8"),
    (ElementType::Bool, "bool"),
];

fn name_of(element: ElementType) -> Option<&'static str> {
    let found = TYPES.iter().find(|(known, _)| *known == element);
    found.map(|(_, name)| *name)
}

/// A tensor as its name, its type's name, its shape and its bytes.
type Tensor<'py> = (String, &'static str, Vec<usize>, Bound<'py, PyByteArray>);

/// The tensors of a safetensors or `.pt` file, in the order of the file.
#[pyfunction]
#[pyo3(signature = (path, entry))]
pub fn load_tensors<'py>(
    py: Python<'py>,
    path: PathBuf,
    entry: Option<&str>,
) -> PyResult<Vec<Tensor<'py>>> {
    let entry = match entry {
        None => Entry::Auto,
        Some("ema") => Entry::Ema,
        Some("raw") => Entry::Raw,
        Some(name) => Entry::Named(name.to_string()),
    };
    let file = WeightFile::open(&path, &entry).map_err(invalid)?;
    let failed = |error| invalid(FileError::io(&path, "read it")(error));
    let mut source = File::open(&path).map_err(failed)?;
    let mut tensors = Vec::new();
    for tensor in file.tensors() {
        py.check_signals()?;
        let (start, is_dense) = tensor.start();
        let element = tensor.element();
        let bytes = match name_of(element).filter(|_| is_dense) {
            Some(name) => {
                source.seek(SeekFrom::Start(start)).map_err(failed)?;
                let len = tensor.len() * element.size();
                let bytes =
                    PyByteArray::new_with(py, len, |to| source.read_exact(to).map_err(failed))?;
                (name, bytes)
            }
            None if matches!(
                element,
                ElementType::F64
                    | ElementType::I64
                    | ElementType::U64
                    | ElementType::I32
                    | ElementType::U32
            ) =>
            {
                return Err(PyValueError::new_err(format!(
                    "{}: tensor {:?} of type {element:?} does not lie densely: save tensor.contiguous()",
                    path.display(),
                    tensor.name
                )));
            }
            // Eight bits that NumPy does not have, or a view of a storage: exact in float32.
            None => {
                let values = tensor.read(&mut source).map_err(failed)?;
                (
                    "float32",
                    PyByteArray::new(py, &dis_files::le_bytes(&values)),
                )
            }
        };
        tensors.push((tensor.name.clone(), bytes.0, tensor.shape.clone(), bytes.1));
    }
    Ok(tensors)
}

/// A tensor to write: its name, its type's name, its shape and its bytes.
type Given<'py> = (String, String, Vec<usize>, PyReadonlyArray1<'py, u8>);

/// Writes tensors atomically as safetensors, or as a `.pt` file in which a dictionary of the name `entry` holds them.
#[pyfunction]
#[pyo3(signature = (path, tensors, entry, metadata))]
pub fn save_tensors(
    path: PathBuf,
    tensors: Vec<Given<'_>>,
    entry: Option<&str>,
    metadata: Option<HashMap<String, String>>,
) -> PyResult<()> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, type_name, shape, bytes) in &tensors {
        let element = TYPES
            .iter()
            .find(|(_, known)| known == type_name)
            .map(|(element, _)| *element);
        let Some(element) = element else {
            return Err(PyTypeError::new_err(format!(
                "tensor {name:?} is of type {type_name}, which files do not have"
            )));
        };
        let data = bytes
            .as_slice()
            .map_err(|error| PyValueError::new_err(format!("tensor {name:?}: {error}")))?;
        views.push(View {
            name,
            shape,
            element,
            data: Cow::Borrowed(data),
        });
    }
    let Some(entry) = entry else {
        return write_atomic_with(&path, |file| write_safetensors(file, &views, metadata))
            .map_err(invalid);
    };
    let mut values = Vec::with_capacity(views.len());
    for view in &views {
        if view.element != ElementType::F32 {
            return Err(PyTypeError::new_err(format!(
                "tensor {:?} is of type {:?}; .pt files are written of float32 only, safetensors of any type",
                view.name, view.element
            )));
        }
        let mut numbers = vec![0.0; view.data.len() / 4];
        view.element.to_f32(&view.data, &mut numbers);
        values.push(numbers);
    }
    let tensors = views
        .iter()
        .zip(&values)
        .map(|(view, values)| (view.name, view.shape, &values[..]));
    let dict = Dict {
        name: entry,
        tensors: tensors.collect(),
    };
    write_atomic_with(&path, |file| {
        write_torch(file, std::slice::from_ref(&dict), &[])
    })
    .map_err(invalid)
}
