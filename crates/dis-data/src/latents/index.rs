//! The index of a folder of latents, and its shards as a whole.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use dis_files::{
    ElementType, SafetensorsFile, View, le_bytes, read_json, write_atomic, write_safetensors,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{LABELS, NAMES};
use crate::{DataError, Dataset, ImageShape, Result, short_hash};

/// Name of the index in its folder.
pub const INDEX: &str = "latents.json";

/// First line of defence against reading something else.
const FORMAT: &str = "dis latents 1";

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
    /// [`LatentIndex::source_of`] each shard that is done; empty where contents are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Pictures of the folder that were left out, since they are bad.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
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
            sources: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// A hash of the contents and labels of the images of shard `i`; `None` where contents of single
    /// images are not known.
    pub fn source_of(&self, data: &dyn Dataset, i: usize) -> Option<String> {
        let mut hash = Sha256::new();
        for image in self.shard_images(i) {
            hash.update(data.content(image)?);
            hash.update(data.label(image).unwrap_or(u32::MAX).to_le_bytes());
        }
        Some(short_hash(hash))
    }

    /// Whether latents of the same images would be the same, whatever the images are.
    pub fn same_making(&self, other: &Self) -> bool {
        let making = |index: &Self| Self {
            count: 0,
            class_names: Vec::new(),
            source: String::new(),
            shards: Vec::new(),
            sources: Vec::new(),
            skipped: Vec::new(),
            ..index.clone()
        };
        making(self) == making(other)
    }

    /// Size of a latent.
    pub fn shape(&self) -> ImageShape {
        ImageShape::from([self.channels, self.height, self.width])
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
        if !path.exists() {
            return Ok(None);
        }
        let text = read_json(&path, "an index of latents")?;
        let refuse = |what: String| DataError::format(&path, what);
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
        Ok(write_atomic(&folder.join(INDEX), text.as_bytes())?)
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
        let labels: Vec<u8> = shard
            .labels
            .iter()
            .flat_map(|&l| i64::from(l).to_le_bytes())
            .collect();
        let shape = [n, self.channels, self.height, self.width];
        let mut views: Vec<View<'_>> = parts
            .iter()
            .map(|(name, part)| View {
                name,
                shape: &shape,
                element: ElementType::F32,
                data: le_bytes(part),
            })
            .collect();
        if !labels.is_empty() {
            views.push(View {
                name: LABELS,
                shape: &shape[..1],
                element: ElementType::I64,
                data: Cow::Borrowed(&labels),
            });
        }
        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, &views, None).map_err(|e| DataError::Invalid {
            what: format!("cannot write shard {i}: {e}"),
        })?;
        write_atomic(&Self::shard_path(folder, i), &bytes)?;
        self.shards.push(sha256(&bytes));
        self.save(folder)
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Whether a folder holds latents.
pub(crate) fn is_latents_folder(path: &Path) -> bool {
    path.join(INDEX).is_file()
}

/// Reads a whole shard, for tests and tools.
///
/// # Errors
/// If it cannot be read or lacks a tensor.
pub fn read_shard(path: &Path) -> Result<Shard> {
    let mut file = SafetensorsFile::open(path)?;
    let [names, mirrored] = NAMES;
    let labels = match file.find(LABELS) {
        Some(_) => file.read(LABELS)?,
        None => Vec::new(),
    };
    Ok(Shard {
        mean: file.read(names[0])?,
        log_var: file.read(names[1])?,
        mirrored: match file.find(mirrored[0]) {
            Some(_) => Some((file.read(mirrored[0])?, file.read(mirrored[1])?)),
            None => None,
        },
        // Classes are far fewer than float32 counts exactly.
        labels: labels.into_iter().map(|label| label as u32).collect(),
    })
}
