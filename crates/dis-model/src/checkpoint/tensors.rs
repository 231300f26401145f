//! Tensors of a file held against the parameters of a model.

use std::collections::HashMap;
use std::path::Path;

use dis_ssm::ParamTable;

use crate::error::{ModelError, Result};

/// A tensor of a file, as float32.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Name in the state dict.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub data: Vec<f32>,
}

/// Finds every parameter among named shapes: the position of each, in the table's order. Every
/// parameter must be there with its exact shape, and nothing else may be.
pub(super) fn check_shapes<'a>(
    table: &ParamTable,
    shapes: impl Iterator<Item = (&'a str, &'a [usize])>,
    origin: &Path,
) -> Result<Vec<usize>> {
    let refuse = |what: String| ModelError::Checkpoint {
        path: origin.to_path_buf(),
        what,
    };
    let mut by_name = HashMap::new();
    for (index, (name, shape)) in shapes.enumerate() {
        if by_name.insert(name, (index, shape)).is_some() {
            return Err(refuse(format!("tensor {name:?} is there twice")));
        }
    }
    let mut found = Vec::with_capacity(by_name.len());
    for spec in table.specs() {
        let (index, shape) = by_name.remove(spec.name.as_str()).ok_or_else(|| {
            refuse(format!(
                "tensor {:?} of shape {:?} is missing",
                spec.name, spec.shape
            ))
        })?;
        if shape != spec.shape {
            return Err(refuse(format!(
                "tensor {:?} has shape {shape:?}, but the model needs {:?}",
                spec.name, spec.shape
            )));
        }
        found.push(index);
    }
    if let Some(extra) = by_name.keys().min() {
        return Err(refuse(format!(
            "tensor {extra:?} is not a parameter of this model"
        )));
    }
    Ok(found)
}

/// Fills an arena from tensors. Every parameter must be there with its exact shape and finite
/// values, and nothing else may be.
///
/// # Errors
/// If one is missing, twice or superfluous, has another shape, or holds what is no finite number.
pub fn arena_from_tensors(
    table: &ParamTable,
    tensors: &[NamedTensor],
    origin: &Path,
) -> Result<Vec<f32>> {
    let shapes = tensors
        .iter()
        .map(|t| (t.name.as_str(), t.shape.as_slice()));
    // Compared before anything is allocated: a small file must not ask for a huge arena.
    let found = check_shapes(table, shapes, origin)?;
    let mut arena = vec![0.0; table.len()];
    for (spec, index) in table.specs().iter().zip(found) {
        let data = &tensors[index].data;
        finite(&spec.name, 0, data).map_err(|what| ModelError::Checkpoint {
            path: origin.to_path_buf(),
            what,
        })?;
        arena[spec.offset..spec.offset + spec.len()].copy_from_slice(data);
    }
    Ok(arena)
}

/// Refuses values that are not numbers, and infinite ones. The largest magnitude, which compilers
/// find with vector instructions, says first whether there are any.
pub(super) fn finite(name: &str, first: usize, piece: &[f32]) -> std::result::Result<(), String> {
    let magnitude = |x: &f32| x.to_bits() & !(1 << 31);
    let largest = piece.iter().map(magnitude).fold(0, u32::max);
    if largest < f32::INFINITY.to_bits() {
        return Ok(());
    }
    let at = piece.iter().position(|x| !x.is_finite()).unwrap_or(0);
    let (index, value) = (first + at, piece[at]);
    Err(format!("tensor {name:?} holds {value} at element {index}"))
}
