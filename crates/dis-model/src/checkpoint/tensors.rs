//! Safetensors to and from parameter arenas.

use std::collections::HashMap;
use std::path::Path;

use dis_ssm::ParamTable;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{METADATA_KEY, Metadata};
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

/// Reads all tensors and, if there is one, the metadata text. float32, float64 and bfloat16 are
/// understood.
pub fn read_tensors(bytes: &[u8], origin: &Path) -> Result<(Option<String>, Vec<NamedTensor>)> {
    let refuse = |what: String| ModelError::Checkpoint {
        path: origin.to_path_buf(),
        what,
    };
    let invalid = |e| refuse(format!("not a valid safetensors file: {e}"));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
    let metadata = header
        .metadata()
        .as_ref()
        .and_then(|m| m.get(METADATA_KEY))
        .cloned();
    let file = SafeTensors::deserialize(bytes).map_err(invalid)?;
    let mut tensors = Vec::with_capacity(file.len());
    for (name, view) in file.iter() {
        let data = to_f32(view.dtype(), view.data()).ok_or_else(|| {
            refuse(format!(
                "tensor {name:?} has type {:?}; expected F32, F64 or BF16",
                view.dtype()
            ))
        })?;
        tensors.push(NamedTensor {
            name: name.to_string(),
            shape: view.shape().to_vec(),
            data,
        });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((metadata, tensors))
}

fn to_f32(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        Dtype::F64 => data
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| f64::from_le_bytes(*b) as f32)
            .collect(),
        Dtype::BF16 => data
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))
            .collect(),
        _ => return None,
    })
}

/// Fills an arena from tensors. Every parameter must be there with its exact shape and finite
/// values, and nothing else may be.
pub fn arena_from_tensors(
    table: &ParamTable,
    tensors: &[NamedTensor],
    origin: &Path,
) -> Result<Vec<f32>> {
    let refuse = |what: String| ModelError::Checkpoint {
        path: origin.to_path_buf(),
        what,
    };
    let by_name: HashMap<&str, &NamedTensor> =
        tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    // Compared before anything is allocated: a small file must not ask for a huge arena.
    for spec in table.specs() {
        let tensor = by_name.get(spec.name.as_str()).ok_or_else(|| {
            refuse(format!(
                "tensor {:?} of shape {:?} is missing",
                spec.name, spec.shape
            ))
        })?;
        if tensor.shape != spec.shape {
            return Err(refuse(format!(
                "tensor {:?} has shape {:?}, but the model needs {:?}",
                spec.name, tensor.shape, spec.shape
            )));
        }
    }
    if let Some(extra) = tensors.iter().find(|t| table.find(&t.name).is_none()) {
        return Err(refuse(format!(
            "tensor {:?} is not a parameter of this model",
            extra.name
        )));
    }
    let mut arena = vec![0.0; table.len()];
    for spec in table.specs() {
        let tensor = by_name[spec.name.as_str()];
        if let Some(i) = tensor.data.iter().position(|x| !x.is_finite()) {
            return Err(refuse(format!(
                "tensor {:?} holds {} at element {i}",
                spec.name, tensor.data[i]
            )));
        }
        arena[spec.offset..spec.offset + spec.len()].copy_from_slice(&tensor.data);
    }
    Ok(arena)
}

/// Serialises an arena, parameter by parameter under its published name.
pub fn serialize_arena(
    table: &ParamTable,
    arena: &[f32],
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>> {
    let refuse = |what: String| ModelError::Checkpoint {
        path: "checkpoint to write".into(),
        what,
    };
    if arena.len() != table.len() {
        return Err(refuse(format!(
            "an arena of {} elements for a table of {}",
            arena.len(),
            table.len()
        )));
    }
    let bytes: Vec<Vec<u8>> = table
        .specs()
        .iter()
        .map(|spec| {
            arena[spec.offset..spec.offset + spec.len()]
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect()
        })
        .collect();
    let views: std::result::Result<Vec<_>, _> = table
        .specs()
        .iter()
        .zip(&bytes)
        .map(|(spec, bytes)| {
            TensorView::new(Dtype::F32, spec.shape.clone(), bytes).map(|v| (spec.name.as_str(), v))
        })
        .collect();
    let views = views.map_err(|e| refuse(e.to_string()))?;
    let metadata = metadata.map(|m| HashMap::from([(METADATA_KEY.to_string(), m.to_json())]));
    safetensors::serialize(views, metadata).map_err(|e| refuse(e.to_string()))
}
