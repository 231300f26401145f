//! Reading `.npz` files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use dis_model::checkpoint::zip::{Archive, ZipError};

use super::npy::Header;
use crate::{DataError, ImageShape, MemoryDataset, Result};

/// Images (uint8, samples x height x width x channels).
const IMAGES: &str = "arr_0.npy";
/// Their classes.
const LABELS: &str = "arr_1.npy";
/// Longest header that is read; NumPy's take a few hundred bytes.
const LONGEST_HEADER: u64 = 1 << 16;

/// Reads a file of images as the ADM evaluator takes and `numpy.savez` writes them: `arr_0` of
/// bytes, (samples, height, width, channels), and if it is there `arr_1` with whole numbers, the
/// class of each. Classes are named by their numbers.
///
/// # Errors
/// If the file is missing or damaged, compressed, or holds arrays of other types or shapes.
pub fn open_npz(path: &Path) -> Result<MemoryDataset> {
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    read_npz(file, path)
}

/// As [`open_npz`], from anything that can be read at any place; `origin` names it in errors.
///
/// # Errors
/// As [`open_npz`].
pub fn read_npz(mut source: impl Read + Seek, origin: &Path) -> Result<MemoryDataset> {
    let format = |what: String| DataError::Format {
        path: origin.to_path_buf(),
        what,
    };
    let zip = |error: ZipError| match error {
        ZipError::Io(cause) => DataError::Io {
            path: origin.to_path_buf(),
            action: "read",
            cause,
        },
        other => format(format!("{other} (numpy.savez writes what is read here)")),
    };
    let archive = Archive::read(&mut source).map_err(zip)?;
    if !archive.contains(IMAGES) {
        let mut names: Vec<&str> = archive.names().take(8).collect();
        names.sort_unstable();
        return Err(format(format!("has no array arr_0 (it has {names:?})")));
    }
    let mut array = |name: &str| -> Result<(Header, Vec<u8>)> {
        let place = archive.locate(&mut source, name).map_err(zip)?;
        read_array(&mut source, place).map_err(|fault| match fault {
            Fault::Io(cause) => DataError::Io {
                path: origin.to_path_buf(),
                action: "read",
                cause,
            },
            Fault::Content(what) => format(format!("array {name} {what}")),
        })
    };
    let (header, bytes) = array(IMAGES)?;
    let (shape, pixels) = planes(&header, &bytes).map_err(format)?;
    drop(bytes);
    let labels = if archive.contains(LABELS) {
        let (header, bytes) = array(LABELS)?;
        Some(classes(&header, &bytes).map_err(format)?)
    } else {
        None
    };
    let images = pixels.len() / shape.len();
    if labels.as_ref().is_some_and(|l| l.len() != images) {
        let labels = labels.map_or(0, |l| l.len());
        return Err(format(format!("{images} images but {labels} labels")));
    }
    let count = labels.iter().flatten().max().map_or(0, |&l| l as usize + 1);
    // A class number alone must not ask for a table of any size.
    if count > images.max(1000) {
        return Err(format(format!(
            "label {} of array arr_1 is not a class of {images} images",
            count - 1
        )));
    }
    let name = origin.file_stem().unwrap_or_default().to_string_lossy();
    MemoryDataset::new(
        format!("npz-{name}"),
        shape,
        u8::MAX,
        pixels,
        labels,
        (0..count).map(|c| c.to_string()).collect(),
    )
    .map_err(|error| format(error.to_string()))
}

/// Whether a path is that of an `.npz` file.
pub(crate) fn is_npz(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "npz") && path.is_file()
}

enum Fault {
    Io(std::io::Error),
    Content(String),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Header and data of the array at a place of the file.
fn read_array(
    source: &mut (impl Read + Seek),
    (start, size): (u64, u64),
) -> std::result::Result<(Header, Vec<u8>), Fault> {
    source.seek(SeekFrom::Start(start))?;
    let mut head = Vec::new();
    source
        .take(size.min(LONGEST_HEADER))
        .read_to_end(&mut head)?;
    let (header, end) = Header::parse(&head).map_err(Fault::Content)?;
    let width: u64 = match header.descr.as_str() {
        "|u1" | "|i1" | "|b1" => 1,
        "<u2" | "<i2" | "<f2" => 2,
        "<u4" | "<i4" | "<f4" => 4,
        "<u8" | "<i8" | "<f8" => 8,
        other => {
            let what = format!("is of type {other:?}, which is not read");
            return Err(Fault::Content(what));
        }
    };
    let elements = header
        .shape
        .iter()
        .try_fold(width, |product, &n| product.checked_mul(n as u64));
    let have = size - end as u64;
    if elements != Some(have) {
        return Err(Fault::Content(format!(
            "of shape {:?} and type {} has {have} bytes",
            header.shape, header.descr
        )));
    }
    let mut bytes = head.split_off(end);
    let rest = have - bytes.len() as u64;
    bytes.reserve_exact(usize::try_from(rest).unwrap_or(usize::MAX));
    source.take(rest).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != have {
        return Err(Fault::Content("is cut off".into()));
    }
    Ok((header, bytes))
}

/// Images channel by channel from bytes with interleaved channels.
fn planes(header: &Header, bytes: &[u8]) -> std::result::Result<(ImageShape, Vec<u8>), String> {
    let wrong = |what: &str| {
        Err(format!(
            "array arr_0 must hold images as uint8 (samples, height, width, 1 or 3): {what}"
        ))
    };
    if header.descr != "|u1" {
        return wrong(&format!("its type is {:?}", header.descr));
    }
    if header.fortran_order {
        return wrong("it is in Fortran order");
    }
    let &[_, height, width, channels @ (1 | 3)] = header.shape.as_slice() else {
        return wrong(&format!("its shape is {:?}", header.shape));
    };
    let shape = ImageShape {
        channels,
        height,
        width,
    };
    if bytes.is_empty() {
        return wrong(&format!("it is empty, {:?}", header.shape));
    }
    let mut pixels = Vec::with_capacity(bytes.len());
    for image in bytes.chunks_exact(shape.len()) {
        for channel in 0..channels {
            pixels.extend(image.iter().skip(channel).step_by(channels));
        }
    }
    Ok((shape, pixels))
}

/// Class numbers of an array of whole numbers.
fn classes(header: &Header, bytes: &[u8]) -> std::result::Result<Vec<u32>, String> {
    let signed = match header.descr.as_bytes().get(1) {
        Some(b'u') => false,
        Some(b'i') => true,
        _ => {
            return Err(format!(
                "array arr_1 must hold class numbers, but its type is {:?}",
                header.descr
            ));
        }
    };
    if header.shape.len() != 1 {
        return Err(format!(
            "array arr_1 must be a list of class numbers, but its shape is {:?}",
            header.shape
        ));
    }
    let width = bytes.len() / header.shape[0].max(1);
    let number = |element: &[u8]| {
        let negative = signed && element.last().is_some_and(|&b| b >= 128);
        let value = element
            .iter()
            .rev()
            .fold(0u64, |x, &b| x << 8 | u64::from(b));
        u32::try_from(value).ok().filter(|_| !negative)
    };
    bytes
        .chunks_exact(width.max(1))
        .enumerate()
        .map(|(i, element)| {
            number(element).ok_or_else(|| format!("array arr_1: label {i} is no class number"))
        })
        .collect()
}
