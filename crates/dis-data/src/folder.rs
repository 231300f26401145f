//! Folders of pictures: directly inside (no classes), or in folders inside, one folder a class.
//! Pictures are decoded when first needed and cropped as published; the crops are kept in memory up
//! to a budget.

mod checked;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use super::index::{ContentHash, FolderIndex, relative_name};
use super::outputs::is_drawn;
use super::picture::crop;
use super::tree::{LeftOut, find};
use super::{DataError, Dataset, ImageShape, ImageSize, Result, check_read, normalise, short_hash};

/// How a [`FolderDataset`] reads its pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderOptions {
    /// Size of the crops.
    pub size: ImageSize,
    /// One grey channel instead of red, green and blue.
    pub grey: bool,
    /// Forget the classes of class folders.
    pub unconditional: bool,
    /// Read pictures in folders below class folders too.
    pub recursive: bool,
    /// Bytes of crops to keep in memory.
    pub cache_bytes: usize,
}

impl FolderOptions {
    /// Colour crops of `size` (the side of a square, or both), classes kept, up to 1 GiB in memory.
    pub fn new(size: impl Into<ImageSize>) -> Self {
        Self {
            size: size.into(),
            grey: false,
            unconditional: false,
            recursive: false,
            cache_bytes: 1 << 30,
        }
    }

    fn shape(&self) -> ImageShape {
        ImageShape {
            channels: if self.grey { 1 } else { 3 },
            height: self.size.height,
            width: self.size.width,
        }
    }
}

/// A folder of pictures.
#[derive(Debug)]
pub struct FolderDataset {
    options: FolderOptions,
    files: Vec<PathBuf>,
    labels: Option<Vec<u32>>,
    class_names: Vec<String>,
    /// Relative names of the files, as in the index.
    names: Vec<String>,
    /// Hashes of the files, where they are known.
    contents: Vec<Option<ContentHash>>,
    left_out: LeftOut,
    /// Pictures left out since they are bad or were to be skipped.
    skipped: usize,
    root: PathBuf,
    identity: OnceLock<String>,
    /// Crops, channel by channel. Filled until the budget is spent and never emptied: an epoch
    /// visits all pictures in random order, so no other choice of what to keep would hit more.
    cache: Vec<OnceLock<Box<[u8]>>>,
    cached: AtomicUsize,
}

impl FolderDataset {
    /// Lists a folder; decodes nothing yet.
    ///
    /// # Errors
    /// If a side is 0, the folder cannot be read, holds no pictures, or both pictures and class
    /// folders, or a class folder holds no pictures.
    pub fn open(dir: &Path, options: &FolderOptions) -> Result<Self> {
        Ok(Self::list(dir, options, false)?.0)
    }

    fn list(dir: &Path, options: &FolderOptions, samples: bool) -> Result<(Self, FolderIndex)> {
        if options.shape().is_empty() {
            return Err(DataError::Invalid {
                what: format!("image size must be at least 1, not {}", options.size),
            });
        }
        let index = FolderIndex::load(dir);
        let drawn = |path: &Path| match index.current(&relative_name(dir, path)) {
            Some(record) => record.drawn,
            None => is_drawn(path),
        };
        let (deep, unconditional) = (options.recursive, options.unconditional);
        let tree = find(dir, deep, unconditional, samples, &drawn)?;
        let files = tree.files;
        let names: Vec<String> = files.iter().map(|f| relative_name(dir, f)).collect();
        let known = |name: &String| Some(index.current(name)?.sha256);
        let data = Self {
            options: options.clone(),
            cache: files.iter().map(|_| OnceLock::new()).collect(),
            cached: AtomicUsize::new(0),
            files,
            labels: tree.labels,
            class_names: tree.class_names,
            contents: names.iter().map(known).collect(),
            names,
            left_out: tree.left_out,
            skipped: 0,
            root: dir.to_path_buf(),
            identity: OnceLock::new(),
        };
        Ok((data, index))
    }

    /// `key` says what the hash is of.
    fn identity_with(&self, key: &str, hash: Sha256) -> String {
        format!(
            "folder n={} shape={} classes={} {key}={}",
            self.len(),
            self.shape(),
            self.class_names.len(),
            short_hash(hash)
        )
    }

    /// File of a picture; `None` past the end.
    pub fn file(&self, index: usize) -> Option<&Path> {
        self.files.get(index).map(PathBuf::as_path)
    }
}

impl Dataset for FolderDataset {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn shape(&self) -> ImageShape {
        self.options.shape()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.as_ref()?.get(index).copied()
    }

    fn read(&self, index: usize, flip: bool, out: &mut [f32]) -> Result<()> {
        check_read(index, self.len(), self.shape(), out)?;
        let slot = &self.cache[index];
        if let Some(crop) = slot.get() {
            normalise(crop, self.shape(), u8::MAX, flip, out);
            return Ok(());
        }
        let crop = crop(&self.files[index], self.shape())?;
        normalise(&crop, self.shape(), u8::MAX, flip, out);
        let size = crop.len();
        let before = self.cached.fetch_add(size, Ordering::Relaxed);
        // Another thread may have kept the same picture meanwhile; then it is paid for only once.
        if before.saturating_add(size) > self.options.cache_bytes || slot.set(crop).is_err() {
            self.cached.fetch_sub(size, Ordering::Relaxed);
        }
        Ok(())
    }

    fn identity(&self) -> String {
        let identify = || self.identity_with("contents", self.hash_contents());
        self.identity.get_or_init(identify).clone()
    }

    fn identity_by_names(&self) -> Option<String> {
        let mut hash = Sha256::new();
        for file in &self.files {
            let relative = file.strip_prefix(&self.root).unwrap_or(file);
            for part in relative {
                hash.update(part.to_string_lossy().as_bytes());
                hash.update([0]);
            }
            hash.update(std::fs::metadata(file).ok()?.len().to_le_bytes());
        }
        Some(self.identity_with("sha256", hash))
    }

    fn content(&self, index: usize) -> Option<ContentHash> {
        *self.contents.get(index)?
    }

    fn describe(&self) -> String {
        self.describe_as(&format!("images cropped to {}", self.shape()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn png(path: &Path, height: u32, width: u32, value: impl Fn(u32, u32) -> [u8; 3]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb(value(x, y)))
            .save(path)
            .unwrap();
    }

    fn colour(path: &Path, rgb: [u8; 3]) {
        png(path, 6, 9, |_, _| rgb);
    }

    fn options() -> FolderOptions {
        FolderOptions::new(4)
    }

    #[test]
    fn flat_folders_have_no_classes() {
        let dir = tempfile::tempdir().unwrap();
        colour(&dir.path().join("b.png"), [10, 20, 30]);
        colour(&dir.path().join("a.PNG"), [255, 0, 100]);
        fs::write(dir.path().join("notes.txt"), "x").unwrap();
        fs::write(dir.path().join(".hidden.png"), "x").unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        let d = FolderDataset::open(dir.path(), &options()).unwrap();
        assert_eq!((d.len(), d.num_classes(), d.label(0)), (2, None, None));
        assert_eq!(
            d.shape(),
            ImageShape {
                channels: 3,
                height: 4,
                width: 4
            }
        );
        let image = d.sample(0, false).unwrap().image;
        assert_eq!(
            (image[0], image[16], image[47]),
            (1.0, -1.0, 100.0 / 127.5 - 1.0)
        );
        let said = d.describe();
        let ending = "no classes, 1 file could not be read as pictures: notes.txt";
        assert!(said.ends_with(ending), "{said}");
        let grey = FolderOptions {
            grey: true,
            ..options()
        };
        let d = FolderDataset::open(dir.path(), &grey).unwrap();
        assert_eq!(
            d.sample(1, false).unwrap().image,
            vec![18.0 / 127.5 - 1.0; 16]
        );
    }

    #[test]
    fn class_folders_are_sorted_and_can_be_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        for (file, v) in [("dog/1.png", 1), ("cat/z.jpeg", 2), ("cat/a.png", 3)] {
            colour(&dir.path().join(file), [v; 3]);
        }
        let d = FolderDataset::open(dir.path(), &options()).unwrap();
        assert_eq!(d.class_names(), ["cat", "dog"]);
        assert_eq!(
            (0..3).map(|i| d.label(i).unwrap()).collect::<Vec<_>>(),
            [0, 0, 1]
        );
        assert_eq!(d.sample(0, false).unwrap().image[0], 3.0 / 127.5 - 1.0);
        assert_eq!(d.sample(2, true).unwrap().label, Some(1));
        let o = FolderOptions {
            unconditional: true,
            ..options()
        };
        let u = FolderDataset::open(dir.path(), &o).unwrap();
        assert_eq!((u.len(), u.num_classes(), u.label(2)), (3, None, None));
        assert_ne!(u.identity(), d.identity());
    }

    #[test]
    fn flips_mirror_and_the_cache_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..5u8 {
            png(&dir.path().join(format!("{i}.png")), 4, 4, |x, y| {
                [x as u8 * 60, y as u8, i]
            });
        }
        let none = FolderOptions {
            cache_bytes: 0,
            ..options()
        };
        // Room for two of the five crops.
        let some = FolderOptions {
            cache_bytes: 100,
            ..options()
        };
        let (none, some) = (
            FolderDataset::open(dir.path(), &none).unwrap(),
            FolderDataset::open(dir.path(), &some).unwrap(),
        );
        for _ in 0..2 {
            for i in 0..5 {
                for flip in [false, true] {
                    assert_eq!(none.sample(i, flip).unwrap(), some.sample(i, flip).unwrap());
                }
            }
        }
        let kept = |d: &FolderDataset| d.cache.iter().filter(|c| c.get().is_some()).count();
        assert_eq!((kept(&none), kept(&some)), (0, 2));
        let (plain, flipped) = (
            some.sample(1, false).unwrap(),
            some.sample(1, true).unwrap(),
        );
        assert_eq!(
            plain.image[..4].iter().rev().copied().collect::<Vec<_>>(),
            flipped.image[..4]
        );
        assert_ne!(plain, flipped);
    }

    #[test]
    fn unusable_folders_and_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let open = || FolderDataset::open(dir.path(), &options());
        let text = open().unwrap_err().to_string();
        assert!(text.ends_with(", or folders of them"), "{text}");
        fs::write(dir.path().join("a.heic"), "x").unwrap();
        let text = open().unwrap_err().to_string();
        let ending = "; 1 file could not be read as pictures: a.heic";
        assert!(text.ends_with(ending), "{text}");
        colour(&dir.path().join("x/1.png"), [0; 3]);
        fs::create_dir(dir.path().join("y")).unwrap();
        let text = open().unwrap_err().to_string();
        assert!(text.contains("/y: no images"), "{text}");
        colour(&dir.path().join("y/1.png"), [0; 3]);
        assert_eq!(open().unwrap().num_classes(), Some(2));
        fs::write(dir.path().join("y/1.png"), b"\x89PNG\r\n\x1a\nbroken").unwrap();
        let d = open().unwrap();
        assert!(d.sample(0, false).is_ok());
        let e = d.sample(1, false).unwrap_err();
        assert!(
            matches!(e, DataError::Decode { .. }) && e.to_string().contains("y/1.png"),
            "{e}"
        );
        fs::write(dir.path().join("y/1.png"), "plain text").unwrap();
        let text = open().unwrap().sample(1, false).unwrap_err().to_string();
        assert!(
            text.contains("y/1.png: is a text (\"plain text\"), not a picture"),
            "{text}"
        );
        colour(&dir.path().join("stray.png"), [0; 3]);
        let text = open().unwrap_err().to_string();
        assert!(
            text.contains("stray.png") && text.contains("\"x\""),
            "{text}"
        );
        let gone = FolderDataset::open(&dir.path().join("gone"), &options());
        assert!(gone.is_err_and(|e| e.is_io()));
        assert!(FolderDataset::open(dir.path(), &FolderOptions::new(0)).is_err());
    }

    #[test]
    fn crops_may_be_rectangles() {
        let dir = tempfile::tempdir().unwrap();
        png(&dir.path().join("a.png"), 8, 4, |x, y| {
            [y as u8, x as u8, 0]
        });
        let size = "4x2".parse::<ImageSize>().unwrap();
        let d = FolderDataset::open(dir.path(), &FolderOptions::new(size)).unwrap();
        assert_eq!((d.shape().height, d.shape().width), (2, 4));
        let level = |v: f32| (v + 1.0) * 127.5;
        let image = d.sample(0, false).unwrap().image;
        let rows: Vec<f32> = image[..8].iter().map(|&v| level(v).round()).collect();
        assert_eq!(rows, [3., 3., 3., 3., 4., 4., 4., 4.]);
        assert!(
            d.describe().contains("cropped to 3x2x4"),
            "{}",
            d.describe()
        );
        assert!(d.identity().contains("shape=3x2x4"));
    }
}
