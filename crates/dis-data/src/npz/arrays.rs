//! Named arrays of floats in `.npz` files: statistics of features, as evaluators exchange them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use dis_model::checkpoint::write_atomic_with;
use dis_model::checkpoint::zip::{Archive, Place, ZipError, ZipWriter};
use flate2::read::DeflateDecoder;

use super::npy::Header;
use crate::{DataError, Result};

/// Most bytes of an array: a covariance of 16,384 features in float64.
const LARGEST: u64 = 1 << 31;

/// Lengths and values of an array, the last index running fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatArray {
    /// Lengths.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Vec<f64>,
}

fn invalid(path: &Path, what: String) -> DataError {
    DataError::Format {
        path: path.to_path_buf(),
        what,
    }
}

fn zip_error(path: &Path) -> impl Fn(ZipError) -> DataError {
    move |error| match error {
        ZipError::Io(cause) => DataError::io(path, "read")(cause),
        other => invalid(path, other.to_string()),
    }
}

/// Names of the arrays of an `.npz` file, sorted.
///
/// # Errors
/// If it cannot be read or is no archive.
pub fn npz_names(path: &Path) -> Result<Vec<String>> {
    let mut file = File::open(path).map_err(DataError::io(path, "open"))?;
    let archive = Archive::read(&mut file).map_err(zip_error(path))?;
    let names = archive.names().filter_map(|name| name.strip_suffix(".npy"));
    let mut names: Vec<String> = names.map(str::to_string).collect();
    names.sort_unstable();
    Ok(names)
}

/// The arrays `names` of an `.npz` file, stored (`numpy.savez`) or deflated
/// (`numpy.savez_compressed`), of float32 or float64, as far as they are there.
///
/// # Errors
/// If the file cannot be read or is damaged, or an array is of another type.
pub fn read_float_arrays(path: &Path, names: &[&str]) -> Result<BTreeMap<String, FloatArray>> {
    let mut file = File::open(path).map_err(DataError::io(path, "open"))?;
    let archive = Archive::read(&mut file).map_err(zip_error(path))?;
    let mut arrays = BTreeMap::new();
    for &name in names {
        let entry = format!("{name}.npy");
        if archive.contains(&entry) {
            let place = archive.place(&mut file, &entry).map_err(zip_error(path))?;
            let bytes = content(&mut file, place)
                .map_err(|cause| invalid(path, format!("array {name} {cause}")))?;
            let array =
                parse(&bytes).map_err(|what| invalid(path, format!("array {name} {what}")))?;
            arrays.insert(name.to_string(), array);
        }
    }
    Ok(arrays)
}

/// The bytes of an entry. What comes out of deflate is bounded by what the archive promises, and
/// that by what deflate can do at all.
fn content(file: &mut File, place: Place) -> std::result::Result<Vec<u8>, String> {
    /// Deflate makes at most this many bytes of one.
    const EXPANSION: u64 = 1032;
    if place.size > LARGEST || place.size > place.stored.saturating_mul(EXPANSION) {
        return Err(format!("claims {} bytes, which are not read", place.size));
    }
    let read = |error: std::io::Error| format!("cannot be read: {error}");
    file.seek(SeekFrom::Start(place.start)).map_err(read)?;
    let mut bytes = Vec::new();
    let stored = file.take(place.stored);
    match place.deflated {
        true => DeflateDecoder::new(stored)
            .take(place.size)
            .read_to_end(&mut bytes),
        false => stored.take(place.size).read_to_end(&mut bytes),
    }
    .map_err(read)?;
    if bytes.len() as u64 != place.size {
        return Err("is cut off".into());
    }
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> std::result::Result<FloatArray, String> {
    let (header, at) = Header::parse(bytes)?;
    let data = bytes.get(at..).unwrap_or_default();
    let width = match header.descr.as_str() {
        "<f4" => 4,
        "<f8" => 8,
        other => return Err(format!("is of type {other:?}, not float32 or float64")),
    };
    let elements = header
        .shape
        .iter()
        .try_fold(width, |product: usize, &n| product.checked_mul(n));
    if elements != Some(data.len()) {
        return Err(format!(
            "of shape {:?} has {} bytes",
            header.shape,
            data.len()
        ));
    }
    if header.fortran_order && header.shape.len() > 1 {
        return Err("is in Fortran order".into());
    }
    let values = match width {
        4 => data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f64::from(f32::from_le_bytes(*b)))
            .collect(),
        _ => data
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| f64::from_le_bytes(*b))
            .collect(),
    };
    Ok(FloatArray {
        shape: header.shape,
        values,
    })
}

/// Writes float64 arrays as `numpy.savez` does, whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write_float_arrays(path: &Path, arrays: &[(&str, &FloatArray)]) -> Result<()> {
    let written = write_atomic_with(path, |file| {
        let mut zip = ZipWriter::new(file);
        for (name, array) in arrays {
            let header = Header {
                descr: "<f8".into(),
                fortran_order: false,
                shape: array.shape.clone(),
            };
            let mut bytes = header.to_bytes();
            bytes.extend(array.values.iter().flat_map(|v| v.to_le_bytes()));
            zip.add(&format!("{name}.npy"), &bytes)?;
        }
        zip.finish()?;
        Ok(())
    });
    written.map_err(|error| match error {
        dis_model::ModelError::Io { path, source } => DataError::Io {
            path,
            action: "write",
            cause: source,
        },
        other => DataError::Invalid {
            what: other.to_string(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::DeflateEncoder;
    use std::io::Write;

    fn array(shape: &[usize]) -> FloatArray {
        let n: usize = shape.iter().product();
        FloatArray {
            shape: shape.to_vec(),
            values: (0..n).map(|i| (i as f64).sqrt() - 1.5).collect(),
        }
    }

    #[test]
    fn arrays_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.npz");
        let (mu, sigma) = (array(&[3]), array(&[3, 3]));
        write_float_arrays(&path, &[("mu", &mu), ("sigma", &sigma)]).unwrap();
        assert_eq!(npz_names(&path).unwrap(), ["mu", "sigma"]);
        let back = read_float_arrays(&path, &["sigma", "mu", "mu_s"]).unwrap();
        assert_eq!((&back["mu"], &back["sigma"], back.len()), (&mu, &sigma, 2));
    }

    /// A zip archive of one deflated entry, with the sizes that are claimed.
    fn deflated(name: &str, content: &[u8], claimed: u32) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        let packed = encoder.finish().unwrap();
        let fields = |out: &mut Vec<u8>| {
            out.extend(8u16.to_le_bytes());
            out.extend([0; 4]);
            out.extend(crc32fast::hash(content).to_le_bytes());
            out.extend((packed.len() as u32).to_le_bytes());
            out.extend(claimed.to_le_bytes());
            out.extend((name.len() as u16).to_le_bytes());
            out.extend([0; 2]);
        };
        let mut zip = b"PK\x03\x04\x14\x00\x00\x00".to_vec();
        fields(&mut zip);
        zip.extend(name.as_bytes());
        zip.extend(&packed);
        let directory = zip.len();
        zip.extend(b"PK\x01\x02\x14\x00\x14\x00\x00\x00");
        fields(&mut zip);
        zip.extend([0; 14]);
        zip.extend(name.as_bytes());
        let size = zip.len() - directory;
        zip.extend(b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00");
        zip.extend((size as u32).to_le_bytes());
        zip.extend((directory as u32).to_le_bytes());
        zip.extend([0; 2]);
        zip
    }

    #[test]
    fn compressed_arrays_are_read_and_false_claims_are_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.npz");
        let header = Header {
            descr: "<f4".into(),
            fortran_order: false,
            shape: vec![40, 2],
        };
        let mut content = header.to_bytes();
        content.extend((0..80).flat_map(|i| (i as f32 / 4.0).to_le_bytes()));
        let size = content.len() as u32;
        std::fs::write(&path, deflated("mu.npy", &content, size)).unwrap();
        let mu = &read_float_arrays(&path, &["mu"]).unwrap()["mu"];
        assert_eq!((mu.shape.as_slice(), mu.values[79]), (&[40, 2][..], 19.75));
        for claimed in [size + 1, size - 1, 10, u32::MAX - 1] {
            std::fs::write(&path, deflated("mu.npy", &content, claimed)).unwrap();
            let e = read_float_arrays(&path, &["mu"]).unwrap_err().to_string();
            assert!(e.contains("s.npz") && e.contains("array mu"), "{e}");
        }
    }

    #[test]
    fn other_types_and_orders_are_refused() {
        let header = |descr: &str, fortran_order| {
            let header = Header {
                descr: descr.into(),
                fortran_order,
                shape: vec![2, 1],
            };
            let mut bytes = header.to_bytes();
            bytes.extend([0; 16]);
            parse(&bytes)
        };
        assert!(header("<f8", false).is_ok());
        assert!(header("<i8", false).is_err());
        assert!(header("<f8", true).is_err());
        assert!(header("<f4", false).is_err());
        assert!(parse(b"PK").is_err());
    }
}
