//! Latents on disk: what an autoencoder said of every image of a data set, as written by
//! `dis encode`.
//!
//! ```text
//! latents.json                 what they are, and a hash of every shard
//! latents-00000.safetensors    mean, log_var (n, channels, height, width), labels (n)
//! latents-00001.safetensors    ...
//! ```
//!
//! Reading draws from the stored Gaussian, anew in each epoch, and scales: a network sees
//! `(z - shift[c]) * scale[c]` with `z = mean + exp(log_var / 2) * noise`. The noise is keyed, so
//! it depends on seed, image and epoch alone.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dis_model::checkpoint::write_atomic;
use dis_tensor::random::{Purpose, Stream};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{DataError, Dataset, ImageShape, Result, check_read, short_hash};

/// Name of the index in its folder.
pub const INDEX: &str = "latents.json";

/// First line of defence against reading something else.
const FORMAT: &str = "dis latents 1";

/// Names of a shard's tensors: as the images are, and mirrored left to right.
const NAMES: [[&str; 2]; 2] = [["mean", "log_var"], ["mean_mirrored", "log_var_mirrored"]];
const LABELS: &str = "labels";

/// A folder's `latents.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentIndex {
    /// Always "dis latents 1".
    pub format: String,
    /// Images in all.
    pub count: usize,
    /// Channels of a latent.
    pub channels: usize,
    /// Rows of a latent.
    pub height: usize,
    /// Columns of a latent.
    pub width: usize,
    /// Images of every shard but the last.
    pub shard_size: usize,
    /// Whether each image was encoded mirrored too.
    pub mirrored: bool,
    /// Names of the classes; empty without.
    pub class_names: Vec<String>,
    /// Per channel; see the module.
    pub scale: Vec<f64>,
    /// Per channel; see the module.
    pub shift: Vec<f64>,
    /// [`Dataset::identity`] of the images.
    pub source: String,
    /// A fingerprint of the autoencoder.
    pub autoencoder: String,
    /// SHA-256 of the shards that are done, in order.
    pub shards: Vec<String>,
}

/// The content of a shard. Means and log variances are (n, channels, height, width).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shard {
    /// Of the images as they are.
    pub mean: Vec<f32>,
    /// Of the images as they are.
    pub log_var: Vec<f32>,
    /// Means and log variances of the mirrored images.
    pub mirrored: Option<(Vec<f32>, Vec<f32>)>,
    /// Classes; empty without.
    pub labels: Vec<u32>,
}

impl LatentIndex {
    /// An index without shards yet. `scale` and `shift` are per channel.
    pub fn new(
        data: &dyn Dataset,
        latent: ImageShape,
        [scale, shift]: [Vec<f64>; 2],
        autoencoder: String,
        shard_size: usize,
        mirrored: bool,
    ) -> Self {
        Self {
            format: FORMAT.into(),
            count: data.len(),
            channels: latent.channels,
            height: latent.height,
            width: latent.width,
            shard_size,
            mirrored,
            class_names: data.class_names().to_vec(),
            scale,
            shift,
            source: data.identity(),
            autoencoder,
            shards: Vec::new(),
        }
    }

    /// Size of a latent.
    pub fn shape(&self) -> ImageShape {
        ImageShape {
            channels: self.channels,
            height: self.height,
            width: self.width,
        }
    }

    /// Shards in all.
    pub fn shard_count(&self) -> usize {
        self.count.div_ceil(self.shard_size.max(1))
    }

    /// Images of shard `i`.
    pub fn shard_images(&self, i: usize) -> std::ops::Range<usize> {
        let start = i.saturating_mul(self.shard_size).min(self.count);
        start..start.saturating_add(self.shard_size).min(self.count)
    }

    /// File of shard `i`.
    pub fn shard_path(folder: &Path, i: usize) -> PathBuf {
        folder.join(format!("latents-{i:05}.safetensors"))
    }

    /// Reads a folder's index; `None` if it has none.
    ///
    /// # Errors
    /// If it cannot be read, is not one, or contradicts itself.
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(INDEX);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(DataError::io(&path, "read it")(e)),
        };
        let refuse = |what: String| DataError::Format {
            path: path.clone(),
            what,
        };
        let index: Self =
            serde_json::from_str(&text).map_err(|e| refuse(format!("not an index: {e}")))?;
        index.check().map_err(refuse)?;
        Ok(Some(index))
    }

    /// Writes it to its folder, atomically.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| DataError::Invalid {
            what: format!("cannot write an index: {e}"),
        })?;
        write(&folder.join(INDEX), text.as_bytes())
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format is {:?}, not {FORMAT:?}", self.format));
        }
        let size = [self.channels, self.height, self.width];
        let values = size.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if values.is_none_or(|n| n == 0 || n > 1 << 28) {
            return Err(format!("latents of {} cannot be read", self.shape()));
        }
        if self.count == 0 || self.shard_size == 0 {
            return Err("there are no images".into());
        }
        for (key, list) in [("scale", &self.scale), ("shift", &self.shift)] {
            if list.len() != self.channels || list.iter().any(|x| !x.is_finite()) {
                return Err(format!("{key} is not {} numbers", self.channels));
            }
        }
        if self.scale.contains(&0.0) {
            return Err("scale holds a zero".into());
        }
        if self.shards.len() > self.shard_count() {
            return Err(format!(
                "{} shards for {} images",
                self.shards.len(),
                self.count
            ));
        }
        Ok(())
    }

    /// Whether the file of shard `i` is there with the hash that the index says.
    pub fn shard_is_whole(&self, folder: &Path, i: usize) -> bool {
        let hash = std::fs::read(Self::shard_path(folder, i)).map(|bytes| sha256(&bytes));
        self.shards
            .get(i)
            .is_some_and(|known| hash.is_ok_and(|h| h == *known))
    }

    /// Writes shard number `self.shards.len()` and records it: first the shard, then the index,
    /// each atomically.
    ///
    /// # Errors
    /// If the shard does not have the images that are due, or a file cannot be written.
    pub fn append(&mut self, folder: &Path, shard: &Shard) -> Result<()> {
        let i = self.shards.len();
        let n = self.shard_images(i).len();
        let values = n * self.shape().len();
        let mut parts = vec![(NAMES[0][0], &shard.mean), (NAMES[0][1], &shard.log_var)];
        if let Some((mean, log_var)) = &shard.mirrored {
            parts.extend([(NAMES[1][0], mean), (NAMES[1][1], log_var)]);
        }
        let labels = if self.class_names.is_empty() { 0 } else { n };
        if n == 0
            || parts.iter().any(|(_, part)| part.len() != values)
            || shard.mirrored.is_some() != self.mirrored
            || shard.labels.len() != labels
        {
            return Err(DataError::Invalid {
                what: format!("shard {i} does not hold the {n} images that are due"),
            });
        }
        let refuse = |e: safetensors::SafeTensorError| DataError::Invalid {
            what: format!("cannot write shard {i}: {e}"),
        };
        let floats: Vec<Vec<u8>> = parts
            .iter()
            .map(|(_, part)| part.iter().flat_map(|x| x.to_le_bytes()).collect())
            .collect();
        let labels: Vec<u8> = shard
            .labels
            .iter()
            .flat_map(|&l| i64::from(l).to_le_bytes())
            .collect();
        let shape = vec![n, self.channels, self.height, self.width];
        let mut views = Vec::new();
        for ((name, _), bytes) in parts.iter().zip(&floats) {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(refuse)?;
            views.push((*name, view));
        }
        if !labels.is_empty() {
            let view = TensorView::new(Dtype::I64, vec![n], &labels).map_err(refuse)?;
            views.push((LABELS, view));
        }
        let bytes = safetensors::serialize(views, None).map_err(refuse)?;
        write(&Self::shard_path(folder, i), &bytes)?;
        self.shards.push(sha256(&bytes));
        self.save(folder)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, bytes).map_err(|e| match e {
        dis_model::ModelError::Io { path, source } => DataError::Io {
            path,
            action: "write it",
            cause: source,
        },
        other => DataError::Invalid {
            what: other.to_string(),
        },
    })
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Whether a folder holds latents.
pub(super) fn is_latents_folder(path: &Path) -> bool {
    path.join(INDEX).is_file()
}

/// One shard's file and where its tensors begin.
#[derive(Debug)]
struct Open {
    path: PathBuf,
    /// Shared by the loader's threads, and a file has one position.
    file: Mutex<File>,
    /// As [`NAMES`].
    offsets: [[u64; 2]; 2],
}

/// Latents of a data set, read from disk one by one.
#[derive(Debug)]
pub struct LatentDataset {
    folder: PathBuf,
    index: LatentIndex,
    shards: Vec<Open>,
    labels: Option<Vec<u32>>,
    class_names: Vec<String>,
}

impl LatentDataset {
    /// Opens a folder that `dis encode` has finished.
    ///
    /// # Errors
    /// If the index or a shard is missing, or a shard is not what the index says. Hashes are not
    /// computed, which would read everything.
    pub fn open(folder: &Path, unconditional: bool) -> Result<Self> {
        let index = LatentIndex::load(folder)?.ok_or_else(|| DataError::Missing {
            path: folder.to_path_buf(),
            what: format!("{INDEX}, written by `dis encode`,"),
        })?;
        let (done, all) = (index.shards.len(), index.shard_count());
        if done < all {
            return Err(DataError::Format {
                path: folder.to_path_buf(),
                what: format!(
                    "only {done} of {all} shards are done; run the same `dis encode` again"
                ),
            });
        }
        let labelled = !index.class_names.is_empty();
        let mut labels = Vec::new();
        let mut shards = Vec::with_capacity(all);
        for i in 0..all {
            let path = LatentIndex::shard_path(folder, i);
            let (shard, own) = open_shard(path, &index, index.shard_images(i).len())?;
            shards.push(shard);
            labels.extend(own);
        }
        let class_names = if unconditional {
            Vec::new()
        } else {
            index.class_names.clone()
        };
        Ok(Self {
            folder: folder.to_path_buf(),
            labels: (labelled && !unconditional).then_some(labels),
            class_names,
            shards,
            index,
        })
    }

    /// What the folder says of itself.
    pub fn index(&self) -> &LatentIndex {
        &self.index
    }

    /// Stored numbers of one image.
    fn stored(&self, index: usize, mirrored: bool, part: usize) -> Result<Vec<f32>> {
        let missing = || DataError::Index {
            index,
            len: self.index.count,
        };
        let size = self.index.shape().len() * size_of::<f32>();
        let number = index / self.index.shard_size;
        let shard = self.shards.get(number).ok_or_else(missing)?;
        let place = (index - number * self.index.shard_size) as u64;
        let offset = shard.offsets[usize::from(mirrored)][part] + place * size as u64;
        let mut bytes = vec![0; size];
        // A panic elsewhere leaves the position wherever it was, and it is set here anyway.
        let mut file = shard.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(DataError::io(&shard.path, "read it"))?;
        let words = bytes.as_chunks::<4>().0.iter();
        Ok(words.map(|b| f32::from_le_bytes(*b)).collect())
    }

    fn read_with(&self, index: usize, flip: bool, key: Option<u64>, out: &mut [f32]) -> Result<()> {
        let shape = self.index.shape();
        check_read(index, self.index.count, shape, out)?;
        if flip && !self.index.mirrored {
            return Err(DataError::Invalid {
                what: format!("{}: {NOT_MIRRORED}", self.folder.display()),
            });
        }
        let mean = self.stored(index, flip, 0)?;
        let noise = match key {
            Some(key) => {
                let log_var = self.stored(index, flip, 1)?;
                let mut stream = Stream::new(key, Purpose::Posterior, index as u64, 0);
                let scaled = |log_var: f32| libm::exp(0.5 * f64::from(log_var)) * stream.normal();
                log_var.into_iter().map(scaled).collect()
            }
            None => vec![0.0; mean.len()],
        };
        let pixels = shape.height * shape.width;
        for (i, out) in out.iter_mut().enumerate() {
            let c = i / pixels;
            let z = f64::from(mean[i]) + noise[i];
            *out = ((z - self.index.shift[c]) * self.index.scale[c]) as f32;
        }
        Ok(())
    }
}

/// Why latents cannot be flipped.
pub(super) const NOT_MIRRORED: &str =
    "cannot flip: mirrored images have latents of their own; encode with --flip";

impl Dataset for LatentDataset {
    fn len(&self) -> usize {
        self.index.count
    }

    fn shape(&self) -> ImageShape {
        self.index.shape()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.as_ref()?.get(index).copied()
    }

    /// The mean, scaled.
    fn read(&self, index: usize, flip: bool, out: &mut [f32]) -> Result<()> {
        self.read_with(index, flip, None, out)
    }

    /// A draw, scaled.
    fn read_keyed(&self, index: usize, flip: bool, key: u64, out: &mut [f32]) -> Result<()> {
        self.read_with(index, flip, Some(key), out)
    }

    fn latents(&self) -> Option<&LatentIndex> {
        Some(&self.index)
    }

    fn identity(&self) -> String {
        let mut hash = Sha256::new();
        // An index always serialises; it holds the hashes of all shards.
        hash.update(serde_json::to_string(&self.index).unwrap_or_default());
        hash.update([u8::from(self.labels.is_some())]);
        let (n, shape, classes) = (self.len(), self.shape(), self.class_names.len());
        format!(
            "latents n={n} shape={shape} classes={classes} sha256={}",
            short_hash(hash)
        )
    }

    fn describe(&self) -> String {
        let classes = match self.num_classes() {
            Some(n) => format!("{n} classes"),
            None => "no classes".into(),
        };
        format!(
            "latents {}: {} of {}, {classes}",
            self.folder.display(),
            self.len(),
            self.shape()
        )
    }
}

/// Where a tensor lies in its file.
#[derive(Deserialize)]
struct Header {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// Opens a shard of `n` images; also its labels.
fn open_shard(path: PathBuf, index: &LatentIndex, n: usize) -> Result<(Open, Vec<u32>)> {
    let refuse = |what: String| DataError::Format {
        path: path.clone(),
        what,
    };
    let io = || DataError::io(&path, "read it");
    let mut file = File::open(&path).map_err(DataError::io(&path, "open it"))?;
    let length = file.metadata().map_err(io())?.len();
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(io())?;
    let size = u64::from_le_bytes(size);
    // A shard has five tensors at most: their header is short.
    if size > 1 << 16 || size + 8 > length {
        return Err(refuse("not a shard: its header is too long".into()));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(io())?;
    let header: HashMap<String, Header> =
        serde_json::from_slice(&header).map_err(|e| refuse(format!("not a shard: {e}")))?;
    let start = size + 8;
    let find = |name: &str, dtype: &str, shape: &[usize], bytes: usize| -> Result<u64> {
        let found = header
            .get(name)
            .ok_or_else(|| refuse(format!("tensor {name:?} is missing")))?;
        let [begin, end] = found.data_offsets;
        if found.dtype != dtype
            || found.shape != shape
            || end.checked_sub(begin) != Some((bytes * shape.iter().product::<usize>()) as u64)
            || end > length - start
        {
            return Err(refuse(format!(
                "tensor {name:?} is not {dtype} of shape {shape:?}, or cut off"
            )));
        }
        Ok(start + begin)
    };
    let shape = [n, index.channels, index.height, index.width];
    let mut offsets = [[0; 2]; 2];
    for (mirrored, names) in NAMES.iter().enumerate() {
        if mirrored == 1 && !index.mirrored {
            break;
        }
        for (part, name) in names.iter().enumerate() {
            offsets[mirrored][part] = find(name, "F32", &shape, 4)?;
        }
    }
    let mut labels = Vec::new();
    if !index.class_names.is_empty() {
        let offset = find(LABELS, "I64", &[n], 8)?;
        let mut bytes = vec![0; n * 8];
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(io())?;
        let classes = index.class_names.len();
        for (i, b) in bytes.as_chunks::<8>().0.iter().enumerate() {
            let label = i64::from_le_bytes(*b);
            match usize::try_from(label) {
                Ok(l) if l < classes => labels.push(l as u32),
                _ => {
                    return Err(refuse(format!(
                        "label {label} of image {i} is not below the {classes} classes"
                    )));
                }
            }
        }
    }
    let shard = Open {
        path: path.clone(),
        file: Mutex::new(file),
        offsets,
    };
    Ok((shard, labels))
}

/// Reads a whole shard, for tests and tools.
///
/// # Errors
/// If it cannot be read or lacks a tensor.
pub fn read_shard(path: &Path) -> Result<Shard> {
    let bytes = std::fs::read(path).map_err(DataError::io(path, "read it"))?;
    let refuse = |e: safetensors::SafeTensorError| DataError::Format {
        path: path.to_path_buf(),
        what: e.to_string(),
    };
    let file = SafeTensors::deserialize(&bytes).map_err(refuse)?;
    let floats = |name: &str| -> Result<Vec<f32>> {
        let view = file.tensor(name).map_err(refuse)?;
        let words = view.data().as_chunks::<4>().0.iter();
        Ok(words.map(|b| f32::from_le_bytes(*b)).collect())
    };
    let labels = file.tensor(LABELS).ok().map(|view| {
        let words = view.data().as_chunks::<8>().0.iter();
        words.map(|b| i64::from_le_bytes(*b) as u32).collect()
    });
    Ok(Shard {
        mean: floats(NAMES[0][0])?,
        log_var: floats(NAMES[0][1])?,
        mirrored: match file.names().contains(&NAMES[1][0]) {
            true => Some((floats(NAMES[1][0])?, floats(NAMES[1][1])?)),
            false => None,
        },
        labels: labels.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{LoaderOptions, digits, load_batch, open};

    const SHAPE: ImageShape = ImageShape {
        channels: 2,
        height: 1,
        width: 3,
    };

    /// Latents of the first `count` digits: means count up, variances are 4.
    fn encode(folder: &Path, count: usize, mirrored: bool) -> LatentIndex {
        let data = digits().unwrap();
        let all: Vec<usize> = (0..count).collect();
        let data = data.subset("some digits", &all).unwrap();
        let scales = [vec![2.0, 0.5], vec![0.0, 1.0]];
        let mut index = LatentIndex::new(&data, SHAPE, scales, "print".into(), 4, mirrored);
        for i in 0..index.shard_count() {
            let images = index.shard_images(i);
            let numbers = |offset: f32| -> Vec<f32> {
                let values = images.start * 6..images.end * 6;
                values.map(|v| v as f32 + offset).collect()
            };
            let log_var = vec![4.0f32.ln(); images.len() * 6];
            let shard = Shard {
                mean: numbers(0.0),
                log_var: log_var.clone(),
                mirrored: mirrored.then(|| (numbers(1000.0), log_var)),
                labels: images.clone().map(|i| data.label(i).unwrap()).collect(),
            };
            index.append(folder, &shard).unwrap();
            assert!(index.shard_is_whole(folder, i));
            assert_eq!(
                read_shard(&LatentIndex::shard_path(folder, i)).unwrap(),
                shard
            );
        }
        index
    }

    fn spec(folder: &Path, options: &str) -> crate::data::DataSpec {
        format!("latents:{}{options}", folder.display())
            .parse()
            .unwrap()
    }

    #[test]
    fn what_was_written_is_read_scaled() {
        let dir = tempfile::tempdir().unwrap();
        let index = encode(dir.path(), 10, true);
        let data = open(&spec(dir.path(), ",flip")).unwrap();
        assert_eq!(
            (data.len(), data.shape(), data.num_classes()),
            (10, SHAPE, Some(10))
        );
        assert_eq!(data.latents(), Some(&index));
        let all = digits().unwrap();
        for i in 0..10 {
            let sample = data.sample(i, false).unwrap();
            assert_eq!(sample.label, all.label(i));
            let v = (6 * i) as f32;
            let scaled = [
                2.0 * v,
                2.0 * v + 2.0,
                2.0 * v + 4.0,
                0.5 * v + 1.0,
                0.5 * v + 1.5,
                0.5 * v + 2.0,
            ];
            assert_eq!(sample.image, scaled);
            assert_eq!(data.sample(i, true).unwrap().image[0], scaled[0] + 2000.0);
        }
        assert!(data.sample(10, false).is_err());
        // A folder of latents needs no prefix.
        let bare = dir.path().display().to_string().parse().unwrap();
        assert_eq!(open(&bare).unwrap().identity(), data.identity());
        let unlabelled = open(&spec(dir.path(), ",unconditional")).unwrap();
        assert_eq!(unlabelled.num_classes(), None);
        assert_ne!(unlabelled.identity(), data.identity());
    }

    #[test]
    fn draws_have_the_stored_spread_and_follow_their_key() {
        let dir = tempfile::tempdir().unwrap();
        encode(dir.path(), 10, false);
        let data = open(&spec(dir.path(), "")).unwrap();
        let draw = |i: usize, key: u64| {
            let mut out = vec![0.0; 6];
            data.read_keyed(i, false, key, &mut out).unwrap();
            out
        };
        assert_eq!(draw(3, 1), draw(3, 1));
        assert_ne!(draw(3, 1), draw(3, 2));
        let mean = data.sample(3, false).unwrap().image;
        let (mut sum, mut squares) = ([0.0; 2], [0.0; 2]);
        let n = 4000;
        for key in 0..n {
            for (i, x) in draw(3, key).into_iter().enumerate() {
                let off = f64::from(x - mean[i]);
                sum[i / 3] += off;
                squares[i / 3] += off * off;
            }
        }
        let n = 3.0 * n as f64;
        // Standard deviation 2, times the scale of each channel.
        for (channel, deviation) in [4.0, 1.0].into_iter().enumerate() {
            assert!((sum[channel] / n).abs() < 5.0 * deviation / n.sqrt());
            let variance = squares[channel] / n / (deviation * deviation);
            assert!(
                (variance - 1.0).abs() < 5.0 * (2.0 / n).sqrt(),
                "{variance}"
            );
        }
    }

    #[test]
    fn each_epoch_draws_anew_and_a_step_alone_gives_the_same() {
        let dir = tempfile::tempdir().unwrap();
        encode(dir.path(), 10, false);
        let data = open(&spec(dir.path(), "")).unwrap();
        let options = LoaderOptions::new(3, 10);
        let (first, second) = (
            load_batch(&*data, &options, 0).unwrap(),
            load_batch(&*data, &options, 1).unwrap(),
        );
        assert_eq!(first, load_batch(&*data, &options, 0).unwrap());
        let of = |batch: &crate::data::Batch, index: usize| {
            let at = batch.indices().position(|i| i == index).unwrap();
            batch.images[at * 6..at * 6 + 6].to_vec()
        };
        for i in 0..10 {
            assert_ne!(of(&first, i), of(&second, i));
        }
        let other = load_batch(&*data, &LoaderOptions::new(4, 10), 0).unwrap();
        assert_ne!(of(&first, 0), of(&other, 0));
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let refused = |options: &str, part: &str| {
            let e = open(&spec(folder, options)).err().unwrap().to_string();
            assert!(e.contains(part) && !e.contains('\n'), "{e}");
        };
        refused("", "dis encode");
        let index = encode(folder, 10, false);
        refused(",flip", "--flip");
        let save = |change: &dyn Fn(&mut LatentIndex)| {
            let mut changed = index.clone();
            change(&mut changed);
            changed.save(folder).unwrap();
        };
        save(&|i| drop(i.shards.pop()));
        refused("", "2 of 3 shards");
        save(&|i| i.count = 11);
        refused("", "latents-00002");
        save(&|i| i.channels = 0);
        refused("", "0x1x3");
        save(&|i| i.scale[1] = 0.0);
        refused("", "zero");
        save(&|i| i.mirrored = true);
        refused("", "mean_mirrored");
        save(&|i| i.class_names.truncate(2));
        refused("", "label 2 of image 2");
        save(&|i| i.format = "x".into());
        refused("", "format");
        std::fs::write(folder.join(INDEX), "{}").unwrap();
        refused("", "not an index");
        save(&|_| ());
        let path = LatentIndex::shard_path(folder, 1);
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 7, 100, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            refused("", "latents-00001");
            assert!(!index.shard_is_whole(folder, 1));
        }
        std::fs::remove_file(&path).unwrap();
        refused("", "latents-00001");
    }
}
