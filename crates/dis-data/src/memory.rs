//! A data set whose raw levels all lie in memory, one byte a value.

use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::{
    ContentHash, DataError, Dataset, ImageShape, Result, check_read, normalise, short_hash,
};

/// Images in memory, one byte a value.
#[derive(Clone, Debug)]
pub struct MemoryDataset {
    name: String,
    shape: ImageShape,
    max_level: u8,
    /// (n, channels, height, width).
    pixels: Vec<u8>,
    labels: Option<Vec<u32>>,
    class_names: Vec<String>,
    identity: OnceLock<String>,
}

impl MemoryDataset {
    /// Images from raw levels `pixels`, (n, channels, height, width) in `0 ..= max_level`.
    /// `labels` come with the names of the classes; without labels there are no names.
    ///
    /// # Errors
    /// If lengths do not fit, a level or a label is out of range, or there is no image.
    pub fn new(
        name: impl Into<String>,
        shape: ImageShape,
        max_level: u8,
        pixels: Vec<u8>,
        labels: Option<Vec<u32>>,
        class_names: Vec<String>,
    ) -> Result<Self> {
        let name = name.into();
        let invalid = |what: String| {
            Err(DataError::Invalid {
                what: format!("{name}: {what}"),
            })
        };
        if shape.is_empty() || max_level == 0 || pixels.is_empty() {
            return invalid(format!("no images ({shape}, levels to {max_level})"));
        }
        if !pixels.len().is_multiple_of(shape.len()) {
            return invalid(format!("{} bytes are not images of {shape}", pixels.len()));
        }
        if let Some(v) = pixels.iter().find(|&&v| v > max_level) {
            return invalid(format!("level {v} is above {max_level}"));
        }
        let n = pixels.len() / shape.len();
        match &labels {
            Some(labels) if labels.len() != n => {
                return invalid(format!("{n} images but {} labels", labels.len()));
            }
            Some(labels) => {
                if let Some(l) = labels.iter().find(|&&l| l as usize >= class_names.len()) {
                    return invalid(format!("label {l} but {} classes", class_names.len()));
                }
            }
            None if !class_names.is_empty() => return invalid("classes without labels".into()),
            None => {}
        }
        let identity = OnceLock::new();
        Ok(Self {
            name,
            shape,
            max_level,
            pixels,
            labels,
            class_names,
            identity,
        })
    }

    /// The images `indices`, in that order, under another name; classes stay as they are.
    ///
    /// # Errors
    /// If an index is past the end or there is none.
    pub fn subset(&self, name: impl Into<String>, indices: &[usize]) -> Result<Self> {
        let mut pixels = Vec::with_capacity(indices.len() * self.shape.len());
        let mut labels = self
            .labels
            .as_ref()
            .map(|_| Vec::with_capacity(indices.len()));
        for &index in indices {
            pixels.extend_from_slice(self.raw(index)?);
            if let (Some(out), Some(label)) = (&mut labels, self.label(index)) {
                out.push(label);
            }
        }
        Self::new(
            name,
            self.shape,
            self.max_level,
            pixels,
            labels,
            self.class_names.clone(),
        )
    }

    /// The same images under another name, with these names for all the classes there are.
    ///
    /// # Errors
    /// If the data have no classes, or a label without a name.
    pub fn with_class_names(self, name: &str, class_names: &[&str]) -> Result<Self> {
        let class_names = class_names.iter().map(|&c| c.to_owned()).collect();
        let (shape, max_level) = (self.shape, self.max_level);
        let name = format!("{name} ({})", self.name);
        Self::new(
            name,
            shape,
            max_level,
            self.pixels,
            self.labels,
            class_names,
        )
    }

    /// The same images without their classes.
    pub fn without_labels(self) -> Self {
        Self {
            labels: None,
            class_names: Vec::new(),
            identity: OnceLock::new(),
            ..self
        }
    }

    /// Raw levels of one image, channel by channel.
    ///
    /// # Errors
    /// If `index` is past the end.
    pub fn raw(&self, index: usize) -> Result<&[u8]> {
        let size = self.shape.len();
        index
            .checked_mul(size)
            .and_then(|start| self.pixels.get(start..start + size))
            .ok_or(DataError::Index {
                index,
                len: self.len(),
            })
    }

    /// Raw levels of all images, (n, channels, height, width).
    pub fn raw_pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Labels of all images; `None` without classes.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// All images scaled to [0, 1], (n, channels, height, width): what the pixel metrics compare.
    pub fn unit_pixels(&self) -> Vec<f32> {
        let max = f32::from(self.max_level);
        self.pixels.iter().map(|&v| f32::from(v) / max).collect()
    }
}

impl Dataset for MemoryDataset {
    fn len(&self) -> usize {
        self.pixels.len() / self.shape.len()
    }

    fn shape(&self) -> ImageShape {
        self.shape
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.as_ref()?.get(index).copied()
    }

    fn max_level(&self) -> u8 {
        self.max_level
    }

    fn read(&self, index: usize, flip: bool, out: &mut [f32]) -> Result<()> {
        check_read(index, self.len(), self.shape, out)?;
        normalise(self.raw(index)?, self.shape, self.max_level, flip, out);
        Ok(())
    }

    fn identity(&self) -> String {
        let hash = || {
            let mut h = Sha256::new();
            h.update([self.max_level]);
            h.update(&self.pixels);
            for label in self.labels.iter().flatten() {
                h.update(label.to_le_bytes());
            }
            for class in &self.class_names {
                h.update(class.as_bytes());
                h.update([0]);
            }
            let (n, shape, classes) = (self.len(), self.shape, self.class_names.len());
            format!(
                "{} n={n} shape={shape} classes={classes} sha256={}",
                self.name,
                short_hash(h)
            )
        };
        self.identity.get_or_init(hash).clone()
    }

    fn content(&self, index: usize) -> Option<ContentHash> {
        let raw = self.raw(index).ok()?;
        let hash = Sha256::new().chain_update([self.max_level]);
        Some(hash.chain_update(raw).finalize().into())
    }

    fn describe(&self) -> String {
        let classes = match self.num_classes() {
            Some(n) => format!("{n} classes"),
            None => "no classes".into(),
        };
        format!(
            "{}: {} images of {}, {classes}",
            self.name,
            self.len(),
            self.shape
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> MemoryDataset {
        let shape = ImageShape::from([1, 2, 3]);
        let pixels = vec![0, 1, 2, 3, 4, 5, 250, 251, 252, 253, 254, 255];
        let names = vec!["a".into(), "b".into()];
        MemoryDataset::new("tiny", shape, 255, pixels, Some(vec![1, 0]), names).unwrap()
    }

    #[test]
    fn values_follow_the_published_scaling_and_flips_mirror_rows() {
        let d = tiny();
        let plain = d.sample(0, false).unwrap();
        assert_eq!(plain.image[5], 5.0 / 127.5 - 1.0);
        assert_eq!(plain.label, Some(1));
        let raw: Vec<f32> = [2, 1, 0, 5, 4, 3]
            .iter()
            .map(|&v| v as f32 / 127.5 - 1.0)
            .collect();
        assert_eq!(d.sample(0, true).unwrap().image, raw);
        assert_eq!(d.sample(1, false).unwrap().image[5], 1.0);
    }

    #[test]
    fn identity_sees_pixels_labels_and_names() {
        let base = tiny().identity();
        let mut d = tiny();
        d.pixels[3] ^= 1;
        assert_ne!(d.identity(), base);
        let mut d = tiny();
        d.labels = Some(vec![0, 0]);
        assert_ne!(d.identity(), base);
        let mut d = tiny();
        d.class_names[1] = "c".into();
        assert_ne!(d.identity(), base);
        assert_eq!(tiny().identity(), base);
        assert_ne!(tiny().without_labels().identity(), base);
        assert_eq!(tiny().without_labels().num_classes(), None);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let d = tiny();
        assert!(matches!(
            d.sample(2, false),
            Err(DataError::Index { index: 2, len: 2 })
        ));
        assert!(matches!(d.raw(usize::MAX), Err(DataError::Index { .. })));
        assert!(matches!(
            d.read(0, false, &mut [0.0; 5]),
            Err(DataError::Invalid { .. })
        ));
        assert!(matches!(
            d.subset("s", &[0, 7]),
            Err(DataError::Index { .. })
        ));
        assert!(d.subset("s", &[]).is_err());
        let make = |pixels: Vec<u8>, labels: Option<Vec<u32>>, names: usize| {
            let shape = ImageShape::from([1, 1, 2]);
            MemoryDataset::new("x", shape, 16, pixels, labels, vec!["n".into(); names])
        };
        assert!(make(vec![1, 2, 3], None, 0).is_err());
        assert!(make(vec![1, 17], None, 0).is_err());
        assert!(make(vec![1, 2], Some(vec![]), 1).is_err());
        assert!(make(vec![1, 2], Some(vec![1]), 1).is_err());
        assert!(make(vec![1, 2], None, 1).is_err());
        assert!(make(vec![1, 2], Some(vec![0]), 1).is_ok());
    }
}
