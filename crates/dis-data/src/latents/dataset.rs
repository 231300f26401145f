//! Latents read from disk one by one.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dis_files::{ElementType, SafetensorsFile};
use dis_tensor::random::{Purpose, Stream};
use sha2::{Digest, Sha256};

use super::{INDEX, LABELS, LatentIndex, NAMES};
use crate::{DataError, Dataset, ImageShape, Result, check_read, short_hash};

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
            let what =
                format!("only {done} of {all} shards are done; run the same `dis encode` again");
            return Err(DataError::format(folder, what));
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
pub(crate) const NOT_MIRRORED: &str =
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
        // Where the latents come from says no more than the hashes of all shards do.
        let index = LatentIndex {
            sources: Vec::new(),
            skipped: Vec::new(),
            ..self.index.clone()
        };
        // An index always serialises.
        hash.update(serde_json::to_string(&index).unwrap_or_default());
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

/// Opens a shard of `n` images; also its labels.
fn open_shard(path: PathBuf, index: &LatentIndex, n: usize) -> Result<(Open, Vec<u32>)> {
    let refuse = |what: String| DataError::format(&path, what);
    let file = SafetensorsFile::open(&path)?;
    let find = |name: &str, element: ElementType, shape: &[usize]| -> Result<u64> {
        let tensor = file
            .find(name)
            .ok_or_else(|| refuse(format!("tensor {name:?} is missing")))?;
        if tensor.element() != element || tensor.shape != shape {
            return Err(refuse(format!(
                "tensor {name:?} is not {element:?} of shape {shape:?}"
            )));
        }
        // Tensors of safetensors are dense.
        Ok(tensor.start().0)
    };
    let shape = [n, index.channels, index.height, index.width];
    let mut offsets = [[0; 2]; 2];
    for (mirrored, names) in NAMES.iter().enumerate() {
        if mirrored == 1 && !index.mirrored {
            break;
        }
        for (part, name) in names.iter().enumerate() {
            offsets[mirrored][part] = find(name, ElementType::F32, &shape)?;
        }
    }
    let (mut labels, mut labels_at) = (Vec::new(), None);
    if !index.class_names.is_empty() {
        labels_at = Some(find(LABELS, ElementType::I64, &[n])?);
    }
    let (mut file, _) = file.into_parts();
    if let Some(offset) = labels_at {
        let mut bytes = vec![0; n * 8];
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(DataError::io(&path, "read it"))?;
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
