//! Reading `.npz` files.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use dis_files::npz::{ArrayReader, NpzFile};
use dis_files::{ElementType, FileKind, sniff_source};

use crate::{DataError, ImageShape, MemoryDataset, Result};

/// Images (uint8, samples x height x width x channels).
const IMAGES: &str = "arr_0";
/// Their classes.
const LABELS: &str = "arr_1";

/// Names of the classes, in the order of their numbers.
pub(super) const CLASS_NAMES: &str = "class_names";

/// Reads a file of images as the ADM evaluator takes and `numpy.savez` writes them: `arr_0` of
/// bytes, (samples, height, width, channels), and if it is there `arr_1` with whole numbers, the
/// class of each. Classes are named by the texts of `class_names`, or without it by their numbers.
///
/// # Errors
/// If the file is missing or damaged, or holds arrays of other types or shapes.
pub fn open_npz(path: &Path) -> Result<MemoryDataset> {
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    read_npz(file, path)
}

/// As [`open_npz`], from anything that can be read at any place; `origin` names it in errors.
///
/// # Errors
/// As [`open_npz`].
pub fn read_npz(source: impl Read + Seek, origin: &Path) -> Result<MemoryDataset> {
    let format = |what: String| DataError::format(origin, what);
    let mut file = NpzFile::new(source, origin)?;
    let (shape, pixels) = planes(file.reader(IMAGES)?, &format)?;
    let labels = match file.contains(LABELS) {
        true => {
            let array = file.array(LABELS)?;
            if array.shape().len() != 1 {
                return Err(format(format!(
                    "array arr_1 must be a list of class numbers, but its shape is {:?}",
                    array.shape()
                )));
            }
            let numbers = array
                .to_i64()
                .map_err(|e| format(format!("array arr_1 must hold class numbers: it {e}")))?;
            Some(classes(&numbers).map_err(format)?)
        }
        false => None,
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
    let names = match file.contains(CLASS_NAMES) && labels.is_some() {
        true => file.texts(CLASS_NAMES)?,
        false => (0..count).map(|c| c.to_string()).collect(),
    };
    let name = origin.file_stem().unwrap_or_default().to_string_lossy();
    MemoryDataset::new(format!("npz-{name}"), shape, u8::MAX, pixels, labels, names)
        .map_err(|error| format(error.to_string()))
}

/// Whether a file is an `.npz` file: a zip archive by its first bytes, or called one.
pub(crate) fn is_npz(path: &Path) -> bool {
    let named = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("npz"));
    let kind = File::open(path).and_then(|mut file| sniff_source(&mut file));
    path.is_file() && (named || matches!(kind, Ok(FileKind::Zip)))
}

/// Images channel by channel, from an array of interleaved channels.
fn planes(
    mut array: ArrayReader<'_>,
    format: &dyn Fn(String) -> DataError,
) -> Result<(ImageShape, Vec<u8>)> {
    let wrong = |what: String| {
        format(format!(
            "array arr_0 must hold images as uint8 (samples, height, width, 1 or 3): {what}"
        ))
    };
    let header = array.header().clone();
    if array.element() != ElementType::U8 {
        return Err(wrong(format!("its type is {:?}", header.descr)));
    }
    let &[images, height, width, channels @ (1 | 3)] = header.shape.as_slice() else {
        return Err(wrong(format!("its shape is {:?}", header.shape)));
    };
    let shape = ImageShape::from([channels, height, width]);
    if header.shape.contains(&0) {
        return Err(wrong(format!("it is empty, {:?}", header.shape)));
    }
    let mut pixels = Vec::with_capacity(array.room());
    let mut add = |image: &[u8]| {
        for channel in 0..channels {
            pixels.extend(image.iter().skip(channel).step_by(channels));
        }
    };
    if header.fortran_order {
        let whole = array.read_all()?;
        whole.bytes().chunks_exact(shape.len()).for_each(add);
    } else {
        let mut image = vec![0; shape.len()];
        for _ in 0..images {
            array.read_exact(&mut image)?;
            add(&image);
        }
    }
    Ok((shape, pixels))
}

/// Numbers as classes.
fn classes(numbers: &[i64]) -> std::result::Result<Vec<u32>, String> {
    let numbered = numbers.iter().enumerate();
    numbered
        .map(|(i, &number)| {
            let class = u32::try_from(number).ok();
            class.ok_or_else(|| format!("array arr_1: label {i} is no class number ({number})"))
        })
        .collect()
}
