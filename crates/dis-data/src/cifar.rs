//! CIFAR-10 in its binary version: files of records, each one label byte and 3,072 pixel bytes
//! (red, green and blue planes of 32x32).

use std::path::{Path, PathBuf};

use super::{DataError, ImageShape, MemoryDataset, Result};

/// Names of the ten classes in the order of their labels.
pub const CIFAR10_CLASSES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

const SHAPE: ImageShape = ImageShape {
    channels: 3,
    height: 32,
    width: 32,
};
const RECORD: usize = 1 + 3072;

/// Reads the `data_batch_*.bin` files of a folder in the order of their names; with split `test`,
/// `test_batch.bin`.
///
/// # Errors
/// If there is no such file, one is cut off, or a label is above 9.
pub fn open_cifar10(dir: &Path, split: Option<&str>) -> Result<MemoryDataset> {
    let prefix = match split {
        None | Some("train") => "data_batch_",
        Some("test") => "test_batch",
        Some(other) => {
            let what = format!("CIFAR-10 split {other:?} (there are: train, test)");
            return Err(DataError::Missing {
                path: dir.to_path_buf(),
                what,
            });
        }
    };
    let files = batch_files(dir, prefix)?;
    if files.is_empty() {
        let what = format!("CIFAR-10 files {prefix}*.bin");
        return Err(DataError::Missing {
            path: dir.to_path_buf(),
            what,
        });
    }
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for path in files {
        let bytes = std::fs::read(&path).map_err(DataError::io(&path, "read"))?;
        let rest = bytes.len() % RECORD;
        if rest != 0 || bytes.is_empty() {
            let (needed, found) = (RECORD as u64, rest as u64);
            return Err(DataError::Truncated {
                path,
                what: "an image's record",
                needed,
                found,
            });
        }
        for (index, record) in bytes.chunks_exact(RECORD).enumerate() {
            let label = u32::from(record[0]);
            let classes = CIFAR10_CLASSES.len();
            if label as usize >= classes {
                return Err(DataError::Label {
                    path,
                    index,
                    label: label as usize,
                    classes,
                });
            }
            labels.push(label);
            pixels.extend_from_slice(&record[1..]);
        }
    }
    let name = format!("cifar10-{}", split.unwrap_or("train"));
    let classes = CIFAR10_CLASSES.iter().map(|&c| c.to_owned()).collect();
    MemoryDataset::new(name, SHAPE, u8::MAX, pixels, Some(labels), classes)
}

/// Whether a folder holds CIFAR-10's training files.
pub(super) fn is_cifar_folder(dir: &Path) -> bool {
    batch_files(dir, "data_batch_").is_ok_and(|files| !files.is_empty())
}

fn batch_files(dir: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(DataError::io(dir, "read folder"))? {
        let entry = entry.map_err(DataError::io(dir, "read folder"))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(".bin") {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;

    fn record(label: u8, fill: u8) -> Vec<u8> {
        let mut r = vec![fill; RECORD];
        r[0] = label;
        r[RECORD - 1] = 255;
        r
    }

    #[test]
    fn reads_batches_in_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: Vec<u8>| std::fs::write(dir.path().join(name), bytes);
        write("data_batch_2.bin", record(9, 2)).unwrap();
        write("data_batch_1.bin", [record(3, 0), record(1, 1)].concat()).unwrap();
        write("test_batch.bin", record(7, 5)).unwrap();
        write("batches.meta.txt", vec![]).unwrap();
        let d = open_cifar10(dir.path(), None).unwrap();
        assert_eq!(d.labels().unwrap(), [3, 1, 9]);
        assert_eq!((d.shape(), d.num_classes()), (SHAPE, Some(10)));
        let image = d.sample(2, false).unwrap().image;
        assert_eq!((image[0], image[3071]), (2.0 / 127.5 - 1.0, 1.0));
        assert_eq!(
            open_cifar10(dir.path(), Some("test"))
                .unwrap()
                .labels()
                .unwrap(),
            [7]
        );
        assert!(is_cifar_folder(dir.path()));
        assert!(matches!(
            open_cifar10(dir.path(), Some("x")),
            Err(DataError::Missing { .. })
        ));
    }

    #[test]
    fn damaged_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            open_cifar10(dir.path(), None),
            Err(DataError::Missing { .. })
        ));
        assert!(!is_cifar_folder(dir.path()));
        let file = dir.path().join("data_batch_1.bin");
        for bytes in [
            vec![],
            record(1, 1)[..100].to_vec(),
            [record(1, 1), vec![0]].concat(),
        ] {
            std::fs::write(&file, bytes).unwrap();
            let e = open_cifar10(dir.path(), None).unwrap_err();
            assert!(matches!(e, DataError::Truncated { .. }));
            assert!(e.to_string().contains("data_batch_1.bin"), "{e}");
        }
        std::fs::write(&file, [record(1, 1), record(10, 1)].concat()).unwrap();
        let e = open_cifar10(dir.path(), None).unwrap_err();
        assert!(
            matches!(
                e,
                DataError::Label {
                    index: 1,
                    label: 10,
                    classes: 10,
                    ..
                }
            ),
            "{e}"
        );
        let gone = dir.path().join("gone");
        assert!(matches!(
            open_cifar10(&gone, None),
            Err(e) if e.is_io()
        ));
    }
}
