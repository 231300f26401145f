//! Writing `.pt` files that PyTorch loads, also with `weights_only=True`.

use std::io::{self, Write};
use std::path::Path;

use dis_ssm::{ParamSpec, ParamTable};

use super::super::element::le_bytes;
use super::super::tensors::check_arena;
use super::super::{Metadata, write_atomic_with};
use super::METADATA_ENTRY;
use crate::checkpoint::zip::ZipWriter;
use crate::error::Result;

/// Folder within the archive; PyTorch uses the file's name, which would make equal content differ.
const FOLDER: &str = "archive";

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
    for (_, arena) in entries {
        check_arena(table, arena).map_err(io::Error::other)?;
    }
    let mut zip = ZipWriter::new(out);
    let mut add = |name: &str, data: &[u8]| zip.add(&format!("{FOLDER}/{name}"), data);
    // Each entry with the number of its first storage.
    let mut arenas: Vec<&[f32]> = Vec::new();
    let mut placed = Vec::with_capacity(entries.len());
    for &(entry, arena) in entries {
        let known = arenas.iter().position(|a| std::ptr::eq(*a, arena));
        let at = known.unwrap_or(arenas.len());
        if known.is_none() {
            arenas.push(arena);
        }
        placed.push((entry, at * table.specs().len()));
    }
    add("data.pkl", &pickle(table, &placed, metadata))?;
    add("byteorder", b"little")?;
    for (at, arena) in arenas.iter().enumerate() {
        for (i, spec) in table.specs().iter().enumerate() {
            let values = &arena[spec.offset..spec.offset + spec.len()];
            let key = at * table.specs().len() + i;
            add(&format!("data/{key}"), &le_bytes(values))?;
        }
    }
    add("version", b"3\n")?;
    zip.finish()?.flush()
}

/// As [`write_torch`], atomically: on any failure the old file, or none, is there.
pub fn save_torch(
    path: &Path,
    table: &ParamTable,
    entries: &[(&str, &[f32])],
    metadata: Option<&Metadata>,
) -> Result<()> {
    write_atomic_with(path, |file| write_torch(file, table, entries, metadata))
}

/// The pickle, in protocol 2. Nothing is memoised: PyTorch tells storages by their keys.
fn pickle(table: &ParamTable, entries: &[(&str, usize)], metadata: Option<&Metadata>) -> Vec<u8> {
    let mut p = Pickler(vec![0x80, 2]);
    p.put(b"}(");
    for (entry, first) in entries {
        p.text(entry);
        p.put(b"ccollections\nOrderedDict\n)R(");
        for (i, spec) in table.specs().iter().enumerate() {
            p.text(&spec.name);
            p.tensor(first + i, spec);
        }
        p.put(b"u");
    }
    if let Some(metadata) = metadata {
        p.text(METADATA_ENTRY);
        p.text(&metadata.to_json());
    }
    p.put(b"u.");
    p.0
}

struct Pickler(Vec<u8>);

impl Pickler {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        self.put(b"X");
        self.put(&(text.len() as u32).to_le_bytes());
        self.put(text.as_bytes());
    }

    fn int(&mut self, n: usize) {
        match i32::try_from(n) {
            Ok(n) => {
                self.put(b"J");
                self.put(&n.to_le_bytes());
            }
            Err(_) => {
                // Nine bytes, so that the sign is plus.
                self.put(&[0x8A, 9]);
                self.put(&(n as u64).to_le_bytes());
                self.put(&[0]);
            }
        }
    }

    /// `torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`.
    fn tensor(&mut self, key: usize, spec: &ParamSpec) {
        self.put(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage");
        self.put(b"ctorch\nFloatStorage\n");
        self.text(&key.to_string());
        self.text("cpu");
        self.int(spec.len());
        self.put(b"tQ");
        self.int(0);
        self.put(b"(");
        spec.shape.iter().for_each(|&n| self.int(n));
        self.put(b"t(");
        for d in 0..spec.shape.len() {
            self.int(spec.shape[d + 1..].iter().product());
        }
        self.put(b"t\x89ccollections\nOrderedDict\n)RtR");
    }
}
