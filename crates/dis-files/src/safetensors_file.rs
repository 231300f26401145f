//! Safetensors: the header of a file, and files written as the format's own library does.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata as Header, TensorInfo};

use crate::element::ElementType;
use crate::error::{FileError, Result};
use crate::sniff::{FileKind, expect_kind};
use crate::stored::{Place, StoredTensor};

/// Longest header that is read, as in the format's own library.
const MAX_HEADER: u64 = 100_000_000;

/// A safetensors file that was opened: names, shapes and places of its tensors are known, their
/// values still in the file.
#[derive(Debug)]
pub struct SafetensorsFile<R = File> {
    source: R,
    origin: PathBuf,
    metadata: HashMap<String, String>,
    tensors: Vec<StoredTensor>,
}

impl SafetensorsFile<File> {
    /// Opens a file.
    ///
    /// # Errors
    /// If it cannot be read, is a file of another kind, or its header does not describe its content.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(FileError::io(path, "open it"))?;
        Self::new(file, path)
    }
}

impl<R: Read + Seek> SafetensorsFile<R> {
    /// As [`SafetensorsFile::open`], from anything that can be read at any place; `origin` names it
    /// in errors. The format's library checks sizes and offsets; what is checked here is that the
    /// file has them all.
    ///
    /// # Errors
    /// As [`SafetensorsFile::open`].
    pub fn new(mut source: R, origin: &Path) -> Result<Self> {
        let invalid = |what: String| {
            FileError::format(origin, format!("not a valid safetensors file: {what}"))
        };
        let failed = FileError::io(origin, "read it");
        let total = source.seek(SeekFrom::End(0)).map_err(&failed)?;
        let right = [FileKind::Safetensors];
        expect_kind(&mut source, origin, &right, "a safetensors file")?;
        let mut length = [0; 8];
        if total < length.len() as u64 {
            return Err(invalid(format!("it has only {total} bytes")));
        }
        source.read_exact(&mut length).map_err(&failed)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length > total - 8 {
            return Err(invalid(format!(
                "it announces a header of {length} bytes, but has {total} in all"
            )));
        }
        let mut header = vec![0; length as usize];
        source.read_exact(&mut header).map_err(&failed)?;
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
        Ok(Self {
            source,
            origin: origin.to_path_buf(),
            metadata: header.metadata().clone().unwrap_or_default(),
            tensors: tensors.into_iter().map(|(_, t)| t).collect(),
        })
    }

    /// Where it came from.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// The text of the metadata under a key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// What is known of the tensors, in the order of the file.
    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    /// A tensor by its name.
    pub fn find(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// The values of a tensor by its name, row-major, as float32.
    ///
    /// # Errors
    /// If it is missing or reading fails.
    pub fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensors.iter().find(|t| t.name == name);
        let tensor = tensor.ok_or_else(|| {
            FileError::format(&self.origin, format!("tensor {name:?} is missing"))
        })?;
        tensor
            .read(&mut self.source)
            .map_err(FileError::io(&self.origin, "read it"))
    }

    /// The source and the tensors, for those who read them in their own way.
    pub fn into_parts(self) -> (R, Vec<StoredTensor>) {
        (self.source, self.tensors)
    }
}

/// A tensor to write.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// Name.
    pub name: &'a str,
    /// Shape.
    pub shape: &'a [usize],
    /// Type of the elements.
    pub element: ElementType,
    /// The elements, little-endian, row-major.
    pub data: Cow<'a, [u8]>,
}

/// Writes tensors as the format's own library does: sorted by type, widest first, and by name; the
/// header padded to 8 bytes. Equal content gives equal bytes.
///
/// # Errors
/// If writing fails, or a tensor's data do not have the size of its shape.
pub fn write_safetensors<W: Write>(
    out: &mut W,
    tensors: &[View<'_>],
    metadata: Option<HashMap<String, String>>,
) -> io::Result<()> {
    let mut order: Vec<&View<'_>> = tensors.iter().collect();
    order.sort_by(|a, b| {
        let key = |t: &View<'_>| std::cmp::Reverse(t.element.to_safetensors());
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(b.name))
    });
    let mut end = 0;
    let mut infos = Vec::with_capacity(order.len());
    for tensor in &order {
        let start = end;
        end += tensor.data.len();
        let info = TensorInfo {
            dtype: tensor.element.to_safetensors(),
            shape: tensor.shape.to_vec(),
            data_offsets: (start, end),
        };
        infos.push((tensor.name.to_string(), info));
    }
    let header = Header::new(metadata, infos).map_err(io::Error::other)?;
    let mut text = serde_json::to_vec(&header)?;
    text.resize(text.len().next_multiple_of(8), b' ');
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(&text)?;
    for tensor in order {
        out.write_all(&tensor.data)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use safetensors::tensor::TensorView;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_format_s_library() {
        let tensors = [
            ("labels", vec![3], ElementType::I64, vec![1u8; 24]),
            ("b", vec![2, 1], ElementType::F32, vec![2; 8]),
            ("a", vec![1], ElementType::F32, vec![3; 4]),
            ("half", vec![], ElementType::F16, vec![4; 2]),
            ("bits", vec![0], ElementType::U8, vec![]),
        ];
        for metadata in [
            None,
            Some(HashMap::from([("k".to_string(), "v".to_string())])),
        ] {
            let library = tensors.iter().map(|(name, shape, element, data)| {
                let dtype = element.to_safetensors();
                (*name, TensorView::new(dtype, shape.clone(), data).unwrap())
            });
            let expected = safetensors::serialize(library, metadata.clone()).unwrap();
            let views: Vec<View<'_>> = tensors
                .iter()
                .map(|(name, shape, element, data)| View {
                    name,
                    shape,
                    element: *element,
                    data: Cow::Borrowed(data),
                })
                .collect();
            let mut bytes = Vec::new();
            write_safetensors(&mut bytes, &views, metadata).unwrap();
            assert_eq!(bytes, expected);
            let mut file = SafetensorsFile::new(Cursor::new(bytes), Path::new("x")).unwrap();
            assert_eq!(file.tensors().len(), tensors.len());
            assert_eq!(file.find("b").unwrap().shape, [2, 1]);
            assert_eq!(file.read("labels").unwrap().len(), 3);
        }
    }

    #[test]
    fn data_of_another_size_are_not_written() {
        let view = View {
            name: "a",
            shape: &[3],
            element: ElementType::F32,
            data: Cow::Borrowed(&[0; 8]),
        };
        assert!(write_safetensors(&mut Vec::new(), &[view], None).is_err());
    }

    #[test]
    fn other_files_are_called_what_they_are() {
        let refused = |bytes: &[u8]| {
            let file = SafetensorsFile::new(Cursor::new(bytes), Path::new("x"));
            file.unwrap_err().to_string()
        };
        assert!(refused(b"<html>").contains("is a web page (HTML), not a safetensors file"));
        assert!(refused(b"version https://git-lfs.github.com/spec/v1").contains("git lfs pull"));
        assert!(refused(b"").contains("only 0 bytes"));
        assert!(refused(&[255; 20]).contains("announces a header"));
    }
}
