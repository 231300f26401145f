//! IDX files, the format of MNIST and its successors: `NAME-images-idx3-ubyte` beside
//! `NAME-labels-idx1-ubyte`, plain or gzipped, which the content decides, whatever the name says.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use dis_files::{FileError, FileKind, sniff_source};

use super::{DataError, ImageShape, MemoryDataset, Result};

/// Endings of an images file, each with that of its labels; `.gz` may follow.
const ENDINGS: [(&str, &str); 2] = [
    ("-images-idx3-ubyte", "-labels-idx1-ubyte"),
    ("-images.idx3-ubyte", "-labels.idx1-ubyte"),
];

/// Reads IDX images and labels. `path` is a folder, or the files' common prefix (`DIR/train`), or
/// the images file itself. In a folder of several pairs, `split` picks the one of that name
/// (`test` also finds MNIST's `t10k`); without it `train` is read.
///
/// Classes are named by their numbers, from 0 to the largest label.
///
/// # Errors
/// If files are missing, damaged, or do not belong together.
pub fn open_idx(path: &Path, split: Option<&str>) -> Result<MemoryDataset> {
    let (images, labels, name) = locate(path, split)?;
    let (dims, pixels) = read_idx::<3>(&images, "images")?;
    let [n, height, width] = dims;
    let ([label_count], raw_labels) = read_idx::<1>(&labels, "labels")?;
    if n != label_count {
        return Err(DataError::CountMismatch {
            images,
            image_count: n,
            labels,
            label_count,
        });
    }
    if pixels.is_empty() {
        let what = format!("holds no pixels: {n} images of {height}x{width}");
        return Err(DataError::format(&images, what));
    }
    let classes = raw_labels.iter().max().map_or(0, |&l| usize::from(l) + 1);
    let names = (0..classes).map(|c| c.to_string()).collect();
    let shape = ImageShape::from([1, height, width]);
    let labels = raw_labels.into_iter().map(u32::from).collect();
    MemoryDataset::new(
        format!("idx-{name}"),
        shape,
        u8::MAX,
        pixels,
        Some(labels),
        names,
    )
}

/// Names of Fashion-MNIST's ten classes in the order of their labels (arXiv 1708.07747, table 2).
pub const FASHION_CLASSES: [&str; 10] = [
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
];

/// Reads Fashion-MNIST: as [`open_idx`], with names for the classes.
///
/// # Errors
/// As [`open_idx`], and if a label is above 9.
pub fn open_fashion(path: &Path, split: Option<&str>) -> Result<MemoryDataset> {
    open_idx(path, split)?.with_class_names("fashion-mnist", &FASHION_CLASSES)
}

/// Whether a folder holds an IDX images file.
pub(super) fn is_idx_folder(dir: &Path) -> bool {
    pairs_in(dir).is_ok_and(|pairs| !pairs.is_empty())
}

/// Whether a file is one of images in IDX, gzipped or not, by its content.
pub(super) fn is_idx_file(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = open(path).and_then(|mut input| input.read_exact(&mut magic));
    read.is_ok() && magic == [0, 0, 8, 3]
}

/// Whether a path is what the names of a pair of files have in common, as in `DIR/train`.
pub(super) fn is_prefix(path: &Path) -> bool {
    let pairs = pairs_in(folder_of(path));
    pairs.is_ok_and(|pairs| pairs.iter().any(|p| path.file_name() == Some(p.2.as_ref())))
}

/// The folder that a path lies in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    }
}

/// The rest of a name that ends so, whatever the case of the letters.
fn strip_ending<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let (stem, end) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
    end.eq_ignore_ascii_case(ending).then_some(stem)
}

/// Splits the name of an images file into its pair's name and what the labels file is called.
fn parse_name(file: &str) -> Option<(&str, String)> {
    let (stem, gz) = match strip_ending(file, ".gz") {
        Some(stem) => (stem, &file[stem.len()..]),
        None => (file, ""),
    };
    ENDINGS.iter().find_map(|(images, labels)| {
        let name = strip_ending(stem, images)?;
        Some((name, format!("{name}{labels}{gz}")))
    })
}

/// (images, labels, name) of every pair, by name; a plain file hides its gzipped twin.
fn pairs_in(dir: &Path) -> Result<Vec<(PathBuf, PathBuf, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(DataError::io(dir, "read folder"))? {
        let entry = entry.map_err(DataError::io(dir, "read folder"))?;
        files.push(entry.file_name().to_string_lossy().into_owned());
    }
    files.sort();
    let mut pairs: Vec<(PathBuf, PathBuf, String)> = Vec::new();
    for file in &files {
        if let Some((name, labels)) = parse_name(file)
            && pairs.iter().all(|p| p.2 != name)
        {
            pairs.push((
                dir.join(file),
                beside(dir, &labels, &files),
                name.to_owned(),
            ));
        }
    }
    Ok(pairs)
}

/// The labels file of that name among `files`, whatever its case; or its twin with or without `.gz`
/// if only that is there.
fn beside(dir: &Path, labels: &str, files: &[String]) -> PathBuf {
    let twin = match strip_ending(labels, ".gz") {
        Some(plain) => plain.to_owned(),
        None => format!("{labels}.gz"),
    };
    let exact = files.iter().find(|file| *file == labels);
    let find = |name: &str| files.iter().find(|file| file.eq_ignore_ascii_case(name));
    let found = exact.or_else(|| find(labels)).or_else(|| find(&twin));
    dir.join(found.map_or(labels, String::as_str))
}

fn locate(path: &Path, split: Option<&str>) -> Result<(PathBuf, PathBuf, String)> {
    let missing = |what: &str| DataError::Missing {
        path: path.to_path_buf(),
        what: what.into(),
    };
    let what = "IDX files (*-images-idx3-ubyte beside *-labels-idx1-ubyte, .gz or not)";
    if path.is_dir() {
        let mut pairs = pairs_in(path)?;
        if pairs.is_empty() {
            return Err(missing(what));
        }
        if split.is_none() && pairs.len() == 1 {
            return Ok(pairs.remove(0));
        }
        let wanted: &[&str] = match split {
            None => &["train"],
            Some("test") => &["test", "t10k"],
            Some(name) => &[name],
        };
        let found = wanted
            .iter()
            .find_map(|w| pairs.iter().position(|p| p.2 == *w));
        return match found {
            Some(i) => Ok(pairs.swap_remove(i)),
            None => {
                let names: Vec<&str> = pairs.iter().map(|p| p.2.as_str()).collect();
                let what = format!("IDX pair {:?} (there are: {})", wanted[0], names.join(", "));
                Err(missing(&what))
            }
        };
    }
    let dir = folder_of(path);
    let file = path
        .file_name()
        .map(|f| f.to_string_lossy().into_owned())
        .unwrap_or_default();
    if !dir.is_dir() {
        return Err(missing(what));
    }
    let pairs = pairs_in(dir)?;
    pairs
        .into_iter()
        .find(|(images, _, name)| images.file_name() == path.file_name() || *name == file)
        .ok_or_else(|| missing(what))
}

/// The content of a file, unpacked if its first bytes are those of gzip.
fn open(path: &Path) -> std::io::Result<Box<dyn Read>> {
    let mut file = BufReader::new(File::open(path)?);
    let gzipped = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    Ok(match gzipped {
        true => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        false => Box::new(file),
    })
}

/// Reads one IDX file of unsigned bytes with `N` dimensions.
fn read_idx<const N: usize>(path: &Path, what: &'static str) -> Result<([usize; N], Vec<u8>)> {
    let io = |action| DataError::io(path, action);
    let format = |what: String| DataError::format(path, what);
    let mut input = open(path).map_err(io("open"))?;
    // Reads at most `needed` bytes and reports how many were missing.
    let mut take = |needed: u64, what: &'static str| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = input.by_ref().take(needed).read_to_end(&mut bytes);
        match read {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {}
            Err(e) => return Err(io("read")(e)),
            Ok(_) => {}
        }
        let found = bytes.len() as u64;
        if found < needed {
            return Err(DataError::Truncated {
                path: path.into(),
                what,
                needed,
                found,
            });
        }
        Ok(bytes)
    };
    let magic = take(4, "the header's")?;
    if magic != [0, 0, 8, N as u8] {
        let mut file = File::open(path).map_err(io("open"))?;
        let found = sniff_source(&mut file).map_err(io("read"))?;
        if found.is_foreign() && found != FileKind::Gzip {
            let (path, wanted) = (path.to_path_buf(), "an IDX file");
            return Err(DataError::File(FileError::Kind {
                path,
                found,
                wanted,
            }));
        }
        let hex: Vec<String> = magic.iter().map(|b| format!("{b:02x}")).collect();
        return Err(format(format!(
            "not an IDX file of bytes in {N} dimensions: starts with {} instead of 000008{N:02x}",
            hex.concat()
        )));
    }
    let sizes = take(4 * N as u64, "the header's")?;
    let mut dims = [0; N];
    for (dim, b) in dims.iter_mut().zip(sizes.chunks_exact(4)) {
        *dim = u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize;
    }
    let needed = dims.iter().try_fold(1u64, |a, &d| a.checked_mul(d as u64));
    let needed = needed.ok_or_else(|| format(format!("impossible dimensions {dims:?}")))?;
    let bytes = take(needed, what)?;
    // At the end of a gzip stream this also checks its checksum.
    match input.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => {
            let what = format!("has data past the {needed} bytes that its header announces");
            return Err(format(what));
        }
        Err(e) => return Err(io("read the end")(e)),
    }
    Ok((dims, bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::Dataset;

    fn images(dims: [u32; 3], pixels: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, 8, 3];
        dims.iter().for_each(|d| out.extend(d.to_be_bytes()));
        out.extend(pixels);
        out
    }

    fn labels(labels: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, 8, 1];
        out.extend((labels.len() as u32).to_be_bytes());
        out.extend(labels);
        out
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(bytes).unwrap();
        e.finish().unwrap()
    }

    const PIXELS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255];

    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    #[test]
    fn reads_folders_prefixes_files_and_gzip() {
        let dir = folder(&[
            (
                "train-images-idx3-ubyte.gz",
                gz(&images([2, 2, 3], &PIXELS)),
            ),
            ("train-labels-idx1-ubyte.gz", gz(&labels(&[3, 0]))),
            ("t10k-images-idx3-ubyte", images([1, 2, 3], &PIXELS[..6])),
            ("t10k-labels-idx1-ubyte", labels(&[1])),
            ("other.txt", vec![]),
        ]);
        let d = open_idx(dir.path(), None).unwrap();
        assert_eq!(
            d.shape(),
            ImageShape {
                channels: 1,
                height: 2,
                width: 3
            }
        );
        assert_eq!(
            (d.len(), d.num_classes(), d.label(0)),
            (2, Some(4), Some(3))
        );
        assert_eq!(d.raw(1).unwrap(), &PIXELS[6..]);
        assert_eq!(d.sample(1, false).unwrap().image[5], 1.0);
        for (path, split, n) in [
            (dir.path().to_path_buf(), Some("test"), 1),
            (dir.path().to_path_buf(), Some("t10k"), 1),
            (dir.path().join("t10k"), None, 1),
            (dir.path().join("train"), None, 2),
            (dir.path().join("train-images-idx3-ubyte.gz"), None, 2),
        ] {
            assert_eq!(open_idx(&path, split).unwrap().len(), n, "{path:?}");
        }
        assert!(is_idx_folder(dir.path()));
        let text = open_idx(dir.path(), Some("dev")).unwrap_err().to_string();
        assert!(
            text.contains("\"dev\"") && text.contains("t10k, train"),
            "{text}"
        );
    }

    fn error_of(image_file: Vec<u8>, label_file: Vec<u8>) -> DataError {
        let dir = folder(&[
            ("x-images-idx3-ubyte", image_file.clone()),
            ("x-labels-idx1-ubyte", label_file.clone()),
        ]);
        let zipped = folder(&[
            ("x-images-idx3-ubyte.gz", gz(&image_file)),
            ("x-labels-idx1-ubyte.gz", gz(&label_file)),
        ]);
        let (plain, packed) = (
            open_idx(dir.path(), None).unwrap_err(),
            open_idx(zipped.path(), None).unwrap_err(),
        );
        assert_eq!(
            std::mem::discriminant(&plain),
            std::mem::discriminant(&packed)
        );
        plain
    }

    #[test]
    fn damaged_files_are_named() {
        let (good_images, good_labels) = (images([2, 2, 3], &PIXELS), labels(&[0, 1]));
        let e = error_of(good_images[..20].to_vec(), good_labels.clone());
        assert!(
            matches!(
                e,
                DataError::Truncated {
                    needed: 12,
                    found: 4,
                    ..
                }
            ),
            "{e}"
        );
        assert!(e.to_string().contains("x-images-idx3-ubyte"));
        for cut in [0, 3, 9] {
            let e = error_of(good_images[..cut].to_vec(), good_labels.clone());
            assert!(matches!(e, DataError::Truncated { .. }), "{e}");
        }
        let e = error_of(good_images.clone(), good_labels[..9].to_vec());
        assert!(matches!(e, DataError::Truncated { .. }), "{e}");
        assert!(e.to_string().contains("x-labels-idx1-ubyte"));
        let e = error_of(good_images.clone(), labels(&[0, 1, 2]));
        assert!(matches!(
            e,
            DataError::CountMismatch {
                image_count: 2,
                label_count: 3,
                ..
            }
        ));
        let e = error_of(labels(&[0, 1]), good_labels.clone());
        assert!(
            matches!(e, DataError::File(FileError::Format { .. })),
            "{e}"
        );
        let e = error_of(images([2, 2, 3], &[0; 13]), good_labels.clone());
        assert!(
            matches!(e, DataError::File(FileError::Format { .. })),
            "{e}"
        );
        let e = error_of(images([0, 2, 3], &[]), labels(&[]));
        assert!(
            matches!(e, DataError::File(FileError::Format { .. })),
            "{e}"
        );
        let e = error_of(images([u32::MAX; 3], &PIXELS), good_labels);
        assert!(
            matches!(e, DataError::File(FileError::Format { .. })),
            "{e}"
        );
    }

    /// Unpacked by something that kept the name, packed without saying so, or shouted.
    #[test]
    fn the_content_decides_and_not_the_name() {
        let (image_file, label_file) = (images([2, 2, 3], &PIXELS), labels(&[1, 2]));
        for [(image_name, image_file), (label_name, label_file)] in [
            [
                ("x-images-idx3-ubyte.gz", image_file.clone()),
                ("x-labels-idx1-ubyte.gz", label_file.clone()),
            ],
            [
                ("x-images-idx3-ubyte", gz(&image_file)),
                ("x-labels-idx1-ubyte", gz(&label_file)),
            ],
            [
                ("X-IMAGES-IDX3-UBYTE", image_file.clone()),
                ("X-labels-idx1-ubyte.GZ", gz(&label_file)),
            ],
        ] {
            let dir = folder(&[(image_name, image_file), (label_name, label_file)]);
            let data = open_idx(dir.path(), None).unwrap();
            assert_eq!((data.len(), data.unoccupied_classes()), (2, vec![0]));
            assert!(is_idx_file(&dir.path().join(image_name)));
            assert!(!is_idx_file(&dir.path().join(label_name)));
        }
    }

    #[test]
    fn missing_and_broken_files_are_named() {
        let dir = folder(&[("x-images-idx3-ubyte", images([2, 2, 3], &PIXELS))]);
        let e = open_idx(dir.path(), None).unwrap_err().to_string();
        assert!(e.contains("x-labels-idx1-ubyte"), "{e}");
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(
            open_idx(empty.path(), None),
            Err(DataError::Missing { .. })
        ));
        assert!(matches!(
            open_idx(&empty.path().join("a/b"), None),
            Err(DataError::Missing { .. })
        ));
        assert!(!is_idx_folder(empty.path()));
        let dir = folder(&[
            ("x-images-idx3-ubyte.gz", b"not gzip at all".to_vec()),
            ("x-labels-idx1-ubyte.gz", gz(&labels(&[0]))),
        ]);
        let e = open_idx(dir.path(), None).unwrap_err().to_string();
        assert!(
            e.contains("is a text (\"not gzip at all\"), not an IDX file"),
            "{e}"
        );
        // A gzip stream that is cut off counts as truncated.
        let whole = gz(&images([2, 2, 3], &PIXELS));
        let dir = folder(&[
            ("x-images-idx3-ubyte.gz", whole[..whole.len() - 12].to_vec()),
            ("x-labels-idx1-ubyte.gz", gz(&labels(&[0, 1]))),
        ]);
        let e = open_idx(dir.path(), None).unwrap_err();
        assert!(matches!(e, DataError::Truncated { .. }), "{e}");
        // A wrong or missing checksum is an error too, though all pixels are there.
        let mut wrong = whole.clone();
        let crc = wrong.len() - 8;
        wrong[crc] ^= 1;
        for bytes in [wrong, whole[..whole.len() - 8].to_vec()] {
            std::fs::write(dir.path().join("x-images-idx3-ubyte.gz"), bytes).unwrap();
            let e = open_idx(dir.path(), None).unwrap_err();
            assert!(e.is_io(), "{e}");
        }
    }
}
