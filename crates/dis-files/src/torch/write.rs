//! Writing `.pt` files that PyTorch loads, also with `weights_only=True`.

use std::collections::HashMap;
use std::io::{self, Write};

use crate::element::le_bytes;
use crate::zip::ZipWriter;

/// Folder within the archive; PyTorch uses the file's name, which would make equal content differ.
const FOLDER: &str = "archive";

/// A dictionary of float32 tensors to write.
#[derive(Clone, Debug)]
pub struct Dict<'a> {
    /// Its name.
    pub name: &'a str,
    /// Name, shape and elements (row-major) of each tensor.
    pub tensors: Vec<(&'a str, &'a [usize], &'a [f32])>,
}

/// Writes a `.pt` file: `{dictionary: {name: tensor}}`, and behind the dictionaries `texts`, each
/// under its key. Tensors of the very same slice share their storage.
///
/// # Errors
/// If writing fails, or a tensor does not have the elements of its shape.
pub fn write_torch<W: Write>(out: W, dicts: &[Dict<'_>], texts: &[(&str, &str)]) -> io::Result<()> {
    let mut storages: Vec<&[f32]> = Vec::new();
    let mut known = HashMap::new();
    let mut p = Pickler(vec![0x80, 2]);
    p.put(b"}(");
    for dict in dicts {
        p.text(dict.name);
        p.put(b"ccollections\nOrderedDict\n)R(");
        for &(name, shape, values) in &dict.tensors {
            if shape.iter().product::<usize>() != values.len() {
                let what = format!(
                    "tensor {name:?} of {} elements is no {shape:?}",
                    values.len()
                );
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            let key = *known
                .entry((values.as_ptr(), values.len()))
                .or_insert_with(|| {
                    storages.push(values);
                    storages.len() - 1
                });
            p.text(name);
            p.tensor(key, shape, values.len());
        }
        p.put(b"u");
    }
    for (key, text) in texts {
        p.text(key);
        p.text(text);
    }
    p.put(b"u.");

    let mut zip = ZipWriter::new(out);
    let mut add = |name: &str, data: &[u8]| zip.add(&format!("{FOLDER}/{name}"), data);
    add("data.pkl", &p.0)?;
    add("byteorder", b"little")?;
    for (key, values) in storages.into_iter().enumerate() {
        add(&format!("data/{key}"), &le_bytes(values))?;
    }
    add("version", b"3\n")?;
    zip.finish()?.flush()
}

/// Writes a pickle in protocol 2. Nothing is memoised: PyTorch tells storages by their keys.
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
    fn tensor(&mut self, key: usize, shape: &[usize], len: usize) {
        self.put(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage");
        self.put(b"ctorch\nFloatStorage\n");
        self.text(&key.to_string());
        self.text("cpu");
        self.int(len);
        self.put(b"tQ");
        self.int(0);
        self.put(b"(");
        shape.iter().for_each(|&n| self.int(n));
        self.put(b"t(");
        for d in 0..shape.len() {
            self.int(shape[d + 1..].iter().product());
        }
        self.put(b"t\x89ccollections\nOrderedDict\n)RtR");
    }
}
