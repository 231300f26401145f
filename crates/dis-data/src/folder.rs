//! Folders of pictures: png and jpeg files directly inside (no classes), or in folders inside, one
//! folder a class. Pictures are decoded when first needed and cropped as published; the crops are
//! kept in memory up to a budget.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::{DynamicImage, ImageDecoder, ImageReader};
use sha2::{Digest, Sha256};

use super::crop::{Picture, center_crop};
use super::{DataError, Dataset, ImageShape, Result, check_read, normalise, short_hash};

/// No picture takes more than this many bytes for each of its file: deflate expands by 1032 at most,
/// and a JPEG has at least a bit for 64 values. A few bytes must not ask for gigabytes.
const MOST_EXPANSION: u64 = 2048;

const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// How a [`FolderDataset`] reads its pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderOptions {
    /// Side of the square crops in pixels.
    pub size: usize,
    /// One grey channel instead of red, green and blue.
    pub grey: bool,
    /// Forget the classes of class folders.
    pub unconditional: bool,
    /// Bytes of crops to keep in memory.
    pub cache_bytes: usize,
}

impl FolderOptions {
    /// Colour crops of `size` pixels a side, classes kept, up to 1 GiB in memory.
    pub fn new(size: usize) -> Self {
        Self {
            size,
            grey: false,
            unconditional: false,
            cache_bytes: 1 << 30,
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
    /// Files that are no pictures by their names, left out.
    others: usize,
    identity: String,
    /// Crops, channel by channel. Filled until the budget is spent and never emptied: an epoch
    /// visits all pictures in random order, so no other choice of what to keep would hit more.
    cache: Vec<OnceLock<Box<[u8]>>>,
    cached: AtomicUsize,
}

/// What lies in a folder, hidden files left out, by name.
struct Listing {
    images: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    others: usize,
}

fn list(dir: &Path) -> Result<Listing> {
    let mut listing = Listing {
        images: Vec::new(),
        folders: Vec::new(),
        others: 0,
    };
    for entry in std::fs::read_dir(dir).map_err(DataError::io(dir, "read folder"))? {
        let path = entry.map_err(DataError::io(dir, "read folder"))?.path();
        if name_of(&path).starts_with('.') {
            continue;
        }
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        // Follows links, as people link picture collections together.
        if path.is_dir() {
            listing.folders.push(path);
        } else if extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str())) {
            listing.images.push(path);
        } else {
            listing.others += 1;
        }
    }
    // By bytes of the names, so that every platform and locale gives the same order.
    listing.images.sort_by_key(|p| name_of(p));
    listing.folders.sort_by_key(|p| name_of(p));
    Ok(listing)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

impl FolderDataset {
    /// Lists a folder; decodes nothing yet.
    ///
    /// # Errors
    /// If the size is 0, the folder cannot be read, holds no pictures, or both pictures and class
    /// folders, or a class folder holds no pictures.
    pub fn open(dir: &Path, options: &FolderOptions) -> Result<Self> {
        if options.size == 0 {
            return Err(DataError::Invalid {
                what: "image size must be at least 1, not 0".into(),
            });
        }
        let root = list(dir)?;
        let mut others = root.others;
        let mut files = root.images;
        let mut labels = None;
        let mut class_names = Vec::new();
        let classes = root
            .folders
            .iter()
            .map(|f| list(f))
            .collect::<Result<Vec<_>>>()?;
        match classes.iter().position(|c| !c.images.is_empty()) {
            None => {}
            Some(class) if !files.is_empty() => {
                return Err(DataError::Mixed {
                    path: dir.to_path_buf(),
                    image: name_of(&files[0]),
                    class: name_of(&root.folders[class]),
                });
            }
            Some(_) => {
                let mut of_class = Vec::new();
                for (label, (folder, class)) in root.folders.iter().zip(classes).enumerate() {
                    if class.images.is_empty() {
                        let (path, others) = (folder.clone(), class.others);
                        return Err(DataError::NoImages { path, others });
                    }
                    of_class.extend(std::iter::repeat_n(label as u32, class.images.len()));
                    class_names.push(name_of(folder));
                    others += class.others;
                    files.extend(class.images);
                }
                labels = Some(of_class);
            }
        }
        if files.is_empty() {
            return Err(DataError::NoImages {
                path: dir.to_path_buf(),
                others,
            });
        }
        if options.unconditional {
            labels = None;
            class_names.clear();
        }
        let identity = identify(dir, &files, class_names.len(), options)?;
        let cache = files.iter().map(|_| OnceLock::new()).collect();
        let (options, cached) = (options.clone(), AtomicUsize::new(0));
        Ok(Self {
            options,
            files,
            labels,
            class_names,
            others,
            identity,
            cache,
            cached,
        })
    }

    /// File of a picture; `None` past the end.
    pub fn file(&self, index: usize) -> Option<&Path> {
        self.files.get(index).map(PathBuf::as_path)
    }
}

/// The levels of a picture's crop, channel by channel.
fn crop(path: &Path, shape: ImageShape) -> Result<Box<[u8]>> {
    let picture = center_crop(&decode(path, shape.channels == 1)?, shape.width);
    if picture.bytes.len() != shape.len() {
        let what = "the picture has no pixels".to_owned();
        return Err(DataError::Format {
            path: path.to_path_buf(),
            what,
        });
    }
    let c = picture.channels;
    let plane = |channel| picture.bytes.iter().skip(channel).step_by(c).copied();
    Ok((0..c).flat_map(plane).collect())
}

/// One picture as a network sees it: cropped to a square of `size`, channel by channel in [-1, 1].
///
/// # Errors
/// If the file cannot be read or does not decode.
pub fn read_picture(path: &Path, size: usize, grey: bool) -> Result<Vec<f32>> {
    let shape = ImageShape {
        channels: if grey { 1 } else { 3 },
        height: size,
        width: size,
    };
    let mut out = vec![0.0; shape.len()];
    normalise(&crop(path, shape)?, shape, u8::MAX, false, &mut out);
    Ok(out)
}

/// Kind, number, size, classes and a hash of relative names and file sizes.
fn identify(
    dir: &Path,
    files: &[PathBuf],
    classes: usize,
    options: &FolderOptions,
) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        let relative = file.strip_prefix(dir).unwrap_or(file);
        for part in relative {
            hash.update(part.to_string_lossy().as_bytes());
            hash.update([0]);
        }
        let size = std::fs::metadata(file)
            .map_err(DataError::io(file, "read"))?
            .len();
        hash.update(size.to_le_bytes());
    }
    let (n, channels, size) = (files.len(), if options.grey { 1 } else { 3 }, options.size);
    let hash = short_hash(hash);
    Ok(format!(
        "folder n={n} shape={channels}x{size}x{size} classes={classes} sha256={hash}"
    ))
}

/// Decodes a png or jpeg file by its content, turned as its Exif orientation says. Transparency is
/// dropped; 16-bit pictures lose their low bytes; grey is BT.601 luma.
///
/// # Errors
/// If the file cannot be read or does not decode.
pub(super) fn decode(path: &Path, grey: bool) -> Result<Picture> {
    let decode = |cause| DataError::Decode {
        path: path.to_path_buf(),
        cause,
    };
    let reader = ImageReader::open(path).map_err(DataError::io(path, "open"))?;
    let reader = reader
        .with_guessed_format()
        .map_err(DataError::io(path, "read"))?;
    let mut decoder = reader.into_decoder().map_err(decode)?;
    let length = std::fs::metadata(path)
        .map_err(DataError::io(path, "read"))?
        .len();
    if decoder.total_bytes() > length.saturating_mul(MOST_EXPANSION) {
        let (width, height) = decoder.dimensions();
        return Err(DataError::Format {
            path: path.to_path_buf(),
            what: format!(
                "a picture of {width}x{height} cannot be in a file of {length} bytes: it is damaged"
            ),
        });
    }
    let orientation = decoder.orientation().map_err(decode)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(decode)?;
    picture.apply_orientation(orientation);
    let rgb = picture.into_rgb8();
    let (height, width) = (rgb.height() as usize, rgb.width() as usize);
    let mut bytes = rgb.into_raw();
    let channels = if grey { 1 } else { 3 };
    if grey {
        bytes = bytes.chunks_exact(3).map(luma).collect();
    }
    Ok(Picture {
        height,
        width,
        channels,
        bytes,
    })
}

/// BT.601 luma in 16-bit fixed point; the weights add up to one, so grey stays as it is.
fn luma(rgb: &[u8]) -> u8 {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
    ((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16) as u8
}

impl Dataset for FolderDataset {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn shape(&self) -> ImageShape {
        let (channels, size) = (if self.options.grey { 1 } else { 3 }, self.options.size);
        ImageShape {
            channels,
            height: size,
            width: size,
        }
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
        self.identity.clone()
    }

    fn describe(&self) -> String {
        let classes = match self.num_classes() {
            Some(n) => format!("{n} classes"),
            None => "no classes".into(),
        };
        let others = match self.others {
            0 => String::new(),
            n => format!(", {n} other files left out"),
        };
        format!(
            "folder: {} images cropped to {}, {classes}{others}",
            self.len(),
            self.shape()
        )
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
        assert!(d.describe().contains("1 other files"), "{}", d.describe());
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
    fn identity_moves_with_names_and_sizes_but_not_with_place() {
        let make = |names: [&str; 2], height| {
            let dir = tempfile::tempdir().unwrap();
            for name in names {
                png(&dir.path().join(name), height, 6, |x, y| {
                    [x as u8, y as u8, 9]
                });
            }
            FolderDataset::open(dir.path(), &options())
                .unwrap()
                .identity()
        };
        let base = make(["a.png", "b.png"], 4);
        assert_eq!(base, make(["a.png", "b.png"], 4));
        assert_ne!(base, make(["a.png", "c.png"], 4));
        assert_ne!(base, make(["a.png", "b.png"], 44));
    }

    #[test]
    fn unusable_folders_and_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let open = || FolderDataset::open(dir.path(), &options());
        assert!(matches!(open(), Err(DataError::NoImages { others: 0, .. })));
        fs::write(dir.path().join("a.webp"), "x").unwrap();
        assert!(matches!(open(), Err(DataError::NoImages { others: 1, .. })));
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
        assert!(matches!(
            open().unwrap().sample(1, false),
            Err(DataError::Decode { .. })
        ));
        colour(&dir.path().join("stray.png"), [0; 3]);
        let text = open().unwrap_err().to_string();
        assert!(
            text.contains("stray.png") && text.contains("\"x\""),
            "{text}"
        );
        let gone = FolderDataset::open(&dir.path().join("gone"), &options());
        assert!(matches!(gone, Err(DataError::Io { .. })));
        assert!(FolderDataset::open(dir.path(), &FolderOptions::new(0)).is_err());
    }

    #[test]
    fn transparency_and_sixteen_bits_decode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        image::RgbaImage::from_pixel(3, 3, image::Rgba([9, 8, 7, 0]))
            .save(&path)
            .unwrap();
        assert_eq!(&decode(&path, false).unwrap().bytes[..3], [9, 8, 7]);
        image::ImageBuffer::from_pixel(2, 2, image::Luma([257u16 * 40]))
            .save(&path)
            .unwrap();
        assert_eq!(decode(&path, true).unwrap().bytes, [40; 4]);
    }
}
