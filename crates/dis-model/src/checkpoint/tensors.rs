//! Safetensors to and from parameter arenas.

use std::collections::HashMap;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use dis_ssm::ParamTable;
use safetensors::Dtype;
use safetensors::tensor::{Metadata as Header, TensorInfo};

use super::element::{ElementType, le_bytes};
use super::file::{WeightFile, finite, read_up_to};
use super::stored::{Place, StoredTensor};
use super::{Entry, METADATA_KEY, Metadata, write_atomic_with};
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

/// Longest header that is read, as in the format's own library.
const MAX_HEADER: u64 = 100_000_000;

/// Reads all tensors, by name, and, if there is one, the metadata text. Either format, every
/// float and integer type.
pub fn read_tensors(bytes: &[u8], origin: &Path) -> Result<(Option<String>, Vec<NamedTensor>)> {
    let mut file = WeightFile::new(Cursor::new(bytes), origin, &Entry::Auto)?;
    let mut tensors = Vec::with_capacity(file.tensors().len());
    file.read_all(|tensor, data| {
        tensors.push(NamedTensor {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            data,
        });
    })?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((file.metadata_text().map(str::to_string), tensors))
}

/// Reads the header of a safetensors file: the metadata text, and the places of all tensors. The
/// format's library checks sizes and offsets; what is checked here is that the file has them all.
pub(super) fn read_header<R: Read + Seek>(
    source: &mut R,
    origin: &Path,
) -> Result<(Option<String>, Vec<StoredTensor>)> {
    let invalid = |what: String| ModelError::Checkpoint {
        path: origin.to_path_buf(),
        what: format!("not a valid safetensors file: {what}"),
    };
    let failed = |source| ModelError::Io {
        path: origin.to_path_buf(),
        source,
    };
    let total = source.seek(SeekFrom::End(0)).map_err(failed)?;
    source.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut length = [0; 8];
    if read_up_to(source, &mut length).map_err(failed)? < length.len() {
        return Err(invalid(format!("it has only {total} bytes")));
    }
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length > total - 8 {
        return Err(invalid(format!(
            "it announces a header of {length} bytes, but has {total} in all"
        )));
    }
    let mut header = vec![0; length as usize];
    source.read_exact(&mut header).map_err(failed)?;
    let header: Header = serde_json::from_slice(&header).map_err(|e| invalid(e.to_string()))?;
    let data = total - 8 - length;
    if header.data_len() as u64 != data {
        return Err(invalid(format!(
            "its tensors have {} bytes, but {data} are there",
            header.data_len()
        )));
    }
    let mut tensors = Vec::new();
    for (name, info) in header.tensors() {
        let element = ElementType::from_safetensors(info.dtype).ok_or_else(|| {
            invalid(format!(
                "tensor {name:?} has type {:?}, which is no plain number",
                info.dtype
            ))
        })?;
        let (start, end) = info.data_offsets;
        let place = Place {
            start: 8 + length + start as u64,
            bytes: (end - start) as u64,
            offset: 0,
        };
        let tensor = StoredTensor::new(name, info.shape.clone(), element, place, None);
        tensors.push((start, tensor.map_err(invalid)?));
    }
    // In the order of the file, so that reading goes straight through.
    tensors.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.name.cmp(&y.name)));
    let metadata = header.metadata().as_ref();
    let metadata = metadata.and_then(|m| m.get(METADATA_KEY)).cloned();
    Ok((metadata, tensors.into_iter().map(|(_, t)| t).collect()))
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

/// Refuses an arena that is not of this table.
pub(super) fn check_arena(table: &ParamTable, arena: &[f32]) -> Result<()> {
    if arena.len() == table.len() {
        return Ok(());
    }
    Err(ModelError::Checkpoint {
        path: "checkpoint to write".into(),
        what: format!(
            "an arena of {} elements for a table of {}",
            arena.len(),
            table.len()
        ),
    })
}

/// Header of a safetensors file, its length included, and the order of the parameters in it.
fn header(table: &ParamTable, metadata: Option<&Metadata>) -> io::Result<(Vec<u8>, Vec<usize>)> {
    let specs = table.specs();
    // By name, as the format's library writes tensors of one type.
    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_by(|&a, &b| specs[a].name.cmp(&specs[b].name));
    let mut end = 0;
    let mut infos = Vec::with_capacity(specs.len());
    for &i in &order {
        let start = end;
        end += specs[i].len() * size_of::<f32>();
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: specs[i].shape.clone(),
            data_offsets: (start, end),
        };
        infos.push((specs[i].name.clone(), info));
    }
    let metadata = metadata.map(|m| HashMap::from([(METADATA_KEY.to_string(), m.to_json())]));
    let header = Header::new(metadata, infos).map_err(io::Error::other)?;
    let mut text = serde_json::to_vec(&header)?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    Ok((bytes, order))
}

/// Writes an arena as safetensors, parameter by parameter under its published name. Values go out
/// as they lie in memory, without a copy of them all.
///
/// # Errors
/// If writing fails, or the arena does not have the table's length.
pub fn write_arena<W: Write>(
    out: &mut W,
    table: &ParamTable,
    arena: &[f32],
    metadata: Option<&Metadata>,
) -> io::Result<()> {
    check_arena(table, arena).map_err(io::Error::other)?;
    let (header, order) = header(table, metadata)?;
    out.write_all(&header)?;
    for i in order {
        let spec = &table.specs()[i];
        out.write_all(&le_bytes(&arena[spec.offset..spec.offset + spec.len()]))?;
    }
    Ok(())
}

/// As [`write_arena`], to a file and atomically: on any failure the old file, or none, is there.
pub fn save_arena(
    path: &Path,
    table: &ParamTable,
    arena: &[f32],
    metadata: Option<&Metadata>,
) -> Result<()> {
    write_atomic_with(path, |file| write_arena(file, table, arena, metadata))
}

/// As [`write_arena`], in memory.
pub fn serialize_arena(
    table: &ParamTable,
    arena: &[f32],
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let written = write_arena(&mut bytes, table, arena, metadata);
    written.map_err(|source| ModelError::Io {
        path: "checkpoint to write".into(),
        source,
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use dis_ssm::Init;
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::config::DisConfig;

    #[test]
    fn the_bytes_are_those_of_the_format_s_library() {
        let mut table = ParamTable::new();
        table.add("b.weight", &[3, 5], Init::Ones);
        table.add("a", &[7], Init::StateLog);
        table.add("b.bias", &[1, 2, 2], Init::Normal { std: 1.0 });
        let arena = table.initial(3);
        let metadata = Metadata::new(DisConfig::new(8, 2, 3, 16, 4));
        let views = table.specs().iter().map(|spec| {
            let values = &arena[spec.offset..spec.offset + spec.len()];
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (spec, bytes)
        });
        let views: Vec<_> = views.collect();
        for metadata in [None, Some(&metadata)] {
            let views = views.iter().map(|(spec, bytes)| {
                let view = TensorView::new(Dtype::F32, spec.shape.clone(), bytes).unwrap();
                (spec.name.as_str(), view)
            });
            let map = metadata.map(|m| HashMap::from([(METADATA_KEY.to_string(), m.to_json())]));
            let expected = safetensors::serialize(views, map).unwrap();
            assert_eq!(serialize_arena(&table, &arena, metadata).unwrap(), expected);
        }
    }

    #[test]
    fn arenas_of_another_table_are_not_written() {
        let mut table = ParamTable::new();
        table.add("a", &[3], Init::Ones);
        let message = serialize_arena(&table, &[0.0; 3], None).unwrap_err();
        assert!(message.to_string().contains("3 elements"), "{message}");
    }
}
