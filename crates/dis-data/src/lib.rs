//! Data sets, the order in which a training run sees them, and pictures of their images.
//!
//! ```
//! use dis_data::Dataset;
//!
//! let digits = dis_data::open(&"digits".parse()?)?;
//! assert_eq!((digits.len(), digits.num_classes()), (1797, Some(10)));
//! let first = digits.sample(0, false)?;
//! assert_eq!((first.image.len(), first.label), (64, Some(0)));
//! # Ok::<(), dis_data::DataError>(())
//! ```

mod captions;
mod cifar;
mod classes;
pub mod crop;
mod digits;
mod error;
mod folder;
pub mod grid;
mod idx;
mod index;
mod latents;
mod loader;
mod memory;
mod npz;
mod order;
mod outputs;
mod picture;
mod spec;
mod subset;
mod survey;
mod tree;

use std::path::Path;
use std::sync::Arc;

pub use classes::describe_unoccupied;
pub use digits::{DIGITS_LEVELS, DIGITS_SPLIT_SEED, DIGITS_TRAIN, digits, digits_split};
pub use dis_tensor::ImageSize;
pub use error::{DataError, Result};
pub use folder::{FolderDataset, FolderOptions};
pub use index::{BadFile, Check, Checked, ContentHash, FOLDER_INDEX, Progress, Sizes};
use latents::check_latents;
pub use latents::{LatentDataset, LatentIndex, Shard, read_shard};
pub use loader::{Batch, Loader, LoaderOptions, load_batch};
pub use memory::MemoryDataset;
pub use npz::{NpzImages, differing_settings, open_npz, read_npz};
pub use order::{Draw, Order, batch_indices, epoch_key, flips};
pub use outputs::{DRAWN_BY, Outputs, drawn_with};
pub use picture::read_picture;
pub use spec::{DataKind, DataSpec};
pub use subset::Subset;
pub use survey::{Survey, survey};

pub use cifar::{CIFAR10_CLASSES, open_cifar10};
pub use idx::{FASHION_CLASSES, open_fashion, open_idx};

/// Size of every image of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageShape {
    /// 1 (grey) or 3 (red, green, blue); any number for latents.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageShape {
    /// Values in one image.
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether an image holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<ImageShape> for ImageSize {
    fn from(shape: ImageShape) -> Self {
        [shape.height, shape.width].into()
    }
}

/// From channels, height and width.
impl From<[usize; 3]> for ImageShape {
    fn from([channels, height, width]: [usize; 3]) -> Self {
        Self {
            channels,
            height,
            width,
        }
    }
}

impl std::fmt::Display for ImageShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// One image as a network sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Values in [-1, 1], channel by channel, row by row.
    pub image: Vec<f32>,
    /// Class, or `None` in a data set without classes.
    pub label: Option<u32>,
}

/// Images of one size, with or without classes, addressed by number.
///
/// Reading is deterministic and may be done from several threads at once.
pub trait Dataset: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there are no images. Data sets made by [`open`] never are empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of every image.
    fn shape(&self) -> ImageShape;

    /// Names of the classes in the order of their labels; empty without classes.
    fn class_names(&self) -> &[String];

    /// Number of classes, `None` for a data set without them.
    fn num_classes(&self) -> Option<usize> {
        match self.class_names().len() {
            0 => None,
            n => Some(n),
        }
    }

    /// Class of an image; `None` without classes or past the end.
    fn label(&self, index: usize) -> Option<u32>;

    /// Number of images of each class, in the order of [`Dataset::class_names`]; empty without
    /// classes.
    fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.num_classes().unwrap_or(0)];
        for label in (0..self.len()).filter_map(|i| self.label(i)) {
            if let Some(count) = counts.get_mut(label as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// Classes that no image is of, ascending. A checkpoint records those of its training data in
    /// its metadata as `unoccupied_classes` (a list of numbers, absent if there is none).
    fn unoccupied_classes(&self) -> Vec<u32> {
        let classes = (0u32..).zip(self.class_counts());
        classes.filter(|&(_, n)| n == 0).map(|(c, _)| c).collect()
    }

    /// The largest raw level `m`: the network sees `v / (m / 2) - 1` for a raw value `v` in
    /// `0 ..= m`. 255 for 8-bit images, 16 for the digits.
    fn max_level(&self) -> u8 {
        255
    }

    /// Writes image `index` (mirrored left to right if `flip`) in [-1, 1], channel by channel.
    ///
    /// # Errors
    /// If `index` is past the end, `out` is not one image long, or the image does not decode.
    fn read(&self, index: usize, flip: bool, out: &mut [f32]) -> Result<()>;

    /// As [`Dataset::read`], for data sets that are random themselves: what comes depends on the
    /// key, which differs from epoch to epoch. Others ignore it.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    fn read_keyed(&self, index: usize, flip: bool, key: u64, out: &mut [f32]) -> Result<()> {
        let _ = key;
        self.read(index, flip, out)
    }

    /// For latents: what they are, with their scale.
    fn latents(&self) -> Option<&LatentIndex> {
        None
    }

    /// A line that changes when the data do, and never with where they lie: kind, number, size,
    /// classes and a hash of contents in their order. A resumed run compares it.
    fn identity(&self) -> String;

    /// What [`Dataset::identity`] said in the first form of checkpoints and latents, where that was
    /// another: for folders, a hash over names and file sizes.
    fn identity_by_names(&self) -> Option<String> {
        None
    }

    /// A hash of the content of image `index`, by which parts of data sets are compared; `None` past
    /// the end, and where only the whole is known.
    fn content(&self, index: usize) -> Option<ContentHash> {
        let _ = index;
        None
    }

    /// A line for people.
    fn describe(&self) -> String;

    /// Image `index`, mirrored left to right if `flip`, with its label.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    fn sample(&self, index: usize, flip: bool) -> Result<Sample> {
        let mut image = vec![0.0; self.shape().len()];
        self.read(index, flip, &mut image)?;
        Ok(Sample {
            image,
            label: self.label(index),
        })
    }
}

/// Opens what a specification names.
///
/// # Errors
/// With the file and what is wrong with it.
pub fn open(spec: &DataSpec) -> Result<Arc<dyn Dataset>> {
    spec.check_options()?;
    let strip = |data: MemoryDataset| -> Arc<dyn Dataset> {
        Arc::new(if spec.unconditional {
            data.without_labels()
        } else {
            data
        })
    };
    Ok(match &spec.kind {
        DataKind::Digits => strip(digits()?),
        DataKind::DigitsTrain => strip(digits_split(DIGITS_SPLIT_SEED)?.0),
        DataKind::DigitsHeldOut => strip(digits_split(DIGITS_SPLIT_SEED)?.1),
        DataKind::Idx(path) => strip(open_idx(path, spec.split.as_deref())?),
        DataKind::Fashion(path) => strip(open_fashion(path, spec.split.as_deref())?),
        DataKind::Cifar10(path) => strip(open_cifar10(path, spec.split.as_deref())?),
        DataKind::Npz(path) => strip(open_npz(path)?),
        DataKind::Folder(path) => Arc::new(FolderDataset::open(path, &spec.folder_options()?)?),
        DataKind::Latents(path) => {
            let data = LatentDataset::open(path, spec.unconditional)?;
            if spec.flip && !data.index().mirrored {
                return Err(spec.error(latents::NOT_MIRRORED.into()));
            }
            Arc::new(data)
        }
    })
}

/// Whether a file, by its content, is one of many images, such as an npz file.
pub fn is_data_file(path: &Path) -> bool {
    npz::is_npz(path) || idx::is_idx_file(path)
}

/// Opens what a specification names after every file of a folder of pictures or latents was looked at
/// once: with an index in the folder (docs/data.md) only those that are new or have changed. Other kinds
/// are read whole as by [`open`].
///
/// # Errors
/// As [`open`]; [`DataError::Bad`] with all bad files, unless they are pictures and `check` skips them;
/// [`DataError::Stopped`] if `progress` breaks off.
pub fn open_checked(
    spec: &DataSpec,
    check: &Check,
    progress: Progress<'_>,
) -> Result<(Arc<dyn Dataset>, Checked)> {
    spec.check_options()?;
    match &spec.kind {
        DataKind::Folder(path) => {
            let (data, checked) =
                FolderDataset::open_checked(path, &spec.folder_options()?, check, progress)?;
            Ok((Arc::new(data), checked))
        }
        DataKind::Latents(path) => {
            let data = open(spec)?;
            Ok((data, check_latents(path, progress)?))
        }
        _ => Ok((open(spec)?, Checked::default())),
    }
}

/// Writes raw levels (channel by channel, `0 ..= max_level`) as network values, mirrored if asked.
fn normalise(raw: &[u8], shape: ImageShape, max_level: u8, flip: bool, out: &mut [f32]) {
    let half = f32::from(max_level) / 2.0;
    let width = shape.width.max(1);
    for (row, out) in raw.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        for (x, out) in out.iter_mut().enumerate() {
            let v = row[if flip { width - 1 - x } else { x }];
            *out = f32::from(v) / half - 1.0;
        }
    }
}

/// Refuses an index past the end or a buffer that is not one image long.
fn check_read(index: usize, len: usize, shape: ImageShape, out: &[f32]) -> Result<()> {
    if index >= len {
        return Err(DataError::Index { index, len });
    }
    if out.len() != shape.len() {
        return Err(DataError::Invalid {
            what: format!(
                "an image of {shape} does not fit a buffer of {} values",
                out.len()
            ),
        });
    }
    Ok(())
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The first eight bytes of a hash: enough to notice a change.
fn short_hash(hasher: sha2::Sha256) -> String {
    use sha2::Digest;
    hex(&hasher.finalize()[..8])
}
