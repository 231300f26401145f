//! Writing the parameters of a model, from their arena.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use dis_files::torch::Dict;
use dis_files::{ElementType, FileError, View, le_bytes, write_atomic_with, write_safetensors};
use dis_ssm::ParamTable;

use super::metadata::{METADATA_KEY, Metadata};
use crate::error::{ModelError, Result};

/// Refuses an arena that is not of this table.
fn check_arena(table: &ParamTable, arena: &[f32]) -> Result<()> {
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
    let tensors = table.specs().iter().map(|spec| View {
        name: &spec.name,
        shape: &spec.shape,
        element: ElementType::F32,
        data: le_bytes(&arena[spec.offset..spec.offset + spec.len()]),
    });
    let tensors: Vec<View<'_>> = tensors.collect();
    let metadata = metadata.map(|m| HashMap::from([(METADATA_KEY.to_string(), m.to_json())]));
    write_safetensors(out, &tensors, metadata)
}

/// As [`write_arena`], to a file and atomically: on any failure the old file, or none, is there.
///
/// # Errors
/// As [`write_arena`].
pub fn save_arena(
    path: &Path,
    table: &ParamTable,
    arena: &[f32],
    metadata: Option<&Metadata>,
) -> Result<()> {
    let written = write_atomic_with(path, |file| write_arena(file, table, arena, metadata));
    Ok(written?)
}

/// As [`write_arena`], in memory.
///
/// # Errors
/// If the arena does not have the table's length.
pub fn serialize_arena(
    table: &ParamTable,
    arena: &[f32],
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let written = write_arena(&mut bytes, table, arena, metadata);
    written.map_err(FileError::io(Path::new("checkpoint"), "write it"))?;
    Ok(bytes)
}

/// Writes a `.pt` file: `{entry: {parameter name: tensor}}` for every `(entry, arena)`, with the
/// metadata as JSON under `"dis"`. Entries of the very same slice share their storages.
///
/// # Errors
/// If writing fails, or an arena does not have the table's length.
pub fn write_torch<W: Write>(
    out: W,
    table: &ParamTable,
    entries: &[(&str, &[f32])],
    metadata: Option<&Metadata>,
) -> io::Result<()> {
    let mut dicts = Vec::with_capacity(entries.len());
    for &(name, arena) in entries {
        check_arena(table, arena).map_err(io::Error::other)?;
        let tensors = table.specs().iter().map(|spec| {
            let values = &arena[spec.offset..spec.offset + spec.len()];
            (spec.name.as_str(), spec.shape.as_slice(), values)
        });
        dicts.push(Dict {
            name,
            tensors: tensors.collect(),
        });
    }
    let text = metadata.map(Metadata::to_json);
    let texts: Vec<(&str, &str)> = text.iter().map(|t| (METADATA_KEY, t.as_str())).collect();
    dis_files::torch::write_torch(out, &dicts, &texts)
}

/// As [`write_torch`], atomically: on any failure the old file, or none, is there.
///
/// # Errors
/// As [`write_torch`].
pub fn save_torch(
    path: &Path,
    table: &ParamTable,
    entries: &[(&str, &[f32])],
    metadata: Option<&Metadata>,
) -> Result<()> {
    let written = write_atomic_with(path, |file| write_torch(file, table, entries, metadata));
    Ok(written?)
}

#[cfg(test)]
mod tests {
    use dis_ssm::Init;

    use super::*;

    #[test]
    fn arenas_of_another_table_are_not_written() {
        let mut table = ParamTable::new();
        table.add("a", &[3], Init::Ones);
        let message = serialize_arena(&table, &[0.0; 3], None).unwrap_err();
        assert!(message.to_string().contains("3 elements"), "{message}");
    }
}
