//! Some images of a data set.

use std::sync::Arc;

use dis_tensor::random::{Purpose, Stream};
use sha2::{Digest, Sha256};

use super::{DataError, Dataset, ImageShape, LatentIndex, Result, short_hash};

/// Keys draws of subsets apart from the epochs of training, which are numbered from 0.
const STREAM: u64 = u64::MAX - 2;

/// Images of a data set in an order of their own.
pub struct Subset {
    data: Arc<dyn Dataset>,
    rows: Vec<usize>,
}

impl Subset {
    /// The images `rows`, in that order.
    ///
    /// # Errors
    /// If there is none, or one that the data set does not have.
    pub fn new(data: Arc<dyn Dataset>, rows: Vec<usize>) -> Result<Self> {
        let len = data.len();
        if rows.is_empty() {
            return Err(DataError::Invalid {
                what: format!("{}: a part without images", data.describe()),
            });
        }
        match rows.iter().find(|&&row| row >= len) {
            Some(&index) => Err(DataError::Index { index, len }),
            None => Ok(Self { data, rows }),
        }
    }

    /// `count` images drawn by `seed` (all if there are no more), and the others: in the order of
    /// the data set.
    ///
    /// # Errors
    /// If a part would be empty: `count` is 0, or all.
    pub fn split(data: &Arc<dyn Dataset>, count: usize, seed: u64) -> Result<(Self, Self)> {
        let mut order = shuffled(data.len(), seed);
        let mut others = order.split_off(count.min(data.len()));
        order.sort_unstable();
        others.sort_unstable();
        Ok((
            Self::new(Arc::clone(data), order)?,
            Self::new(Arc::clone(data), others)?,
        ))
    }

    /// `count` images drawn by `seed`, in the order of the data set.
    ///
    /// # Errors
    /// If `count` is 0 or more than there are.
    pub fn draw(data: Arc<dyn Dataset>, count: usize, seed: u64) -> Result<Self> {
        if count > data.len() {
            return Err(DataError::Invalid {
                what: format!(
                    "{count} images are wanted, but there are only {} ({})",
                    data.len(),
                    data.describe()
                ),
            });
        }
        let mut rows = shuffled(data.len(), seed);
        rows.truncate(count);
        rows.sort_unstable();
        Self::new(data, rows)
    }
}

impl Subset {
    /// Number of an image in the whole.
    fn row(&self, index: usize) -> Result<usize> {
        let len = self.rows.len();
        self.rows
            .get(index)
            .copied()
            .ok_or(DataError::Index { index, len })
    }
}

fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let order = Stream::new(seed, Purpose::Shuffle, STREAM, 0).permutation(n);
    order.into_iter().map(|i| i as usize).collect()
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn shape(&self) -> ImageShape {
        self.data.shape()
    }

    fn class_names(&self) -> &[String] {
        self.data.class_names()
    }

    fn num_classes(&self) -> Option<usize> {
        self.data.num_classes()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.data.label(*self.rows.get(index)?)
    }

    fn max_level(&self) -> u8 {
        self.data.max_level()
    }

    fn read(&self, index: usize, flip: bool, out: &mut [f32]) -> Result<()> {
        self.data.read(self.row(index)?, flip, out)
    }

    fn read_keyed(&self, index: usize, flip: bool, key: u64, out: &mut [f32]) -> Result<()> {
        let row = self.row(index)?;
        self.data.read_keyed(row, flip, key, out)
    }

    fn latents(&self) -> Option<&LatentIndex> {
        self.data.latents()
    }

    fn identity(&self) -> String {
        let mut hash = Sha256::new();
        for row in &self.rows {
            hash.update((*row as u64).to_le_bytes());
        }
        format!(
            "{} of {}, rows sha256={}",
            self.rows.len(),
            self.data.identity(),
            short_hash(hash)
        )
    }

    fn describe(&self) -> String {
        format!("{} of {}", self.rows.len(), self.data.describe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digits;

    #[test]
    fn parts_are_disjoint_and_whole_and_keep_labels() {
        let all: Arc<dyn Dataset> = Arc::new(digits().unwrap());
        let (a, b) = Subset::split(&all, 1500, 3).unwrap();
        assert_eq!((a.len(), b.len()), (1500, 297));
        let mut rows = [a.rows.clone(), b.rows.clone()].concat();
        rows.sort_unstable();
        assert!(rows.iter().enumerate().all(|(i, &r)| i == r));
        for i in [0, 7, 296] {
            let (ours, theirs) = (b.sample(i, true), all.sample(b.rows[i], true));
            assert_eq!(ours.unwrap(), theirs.unwrap());
        }
        assert_eq!(b.num_classes(), Some(10));
        let again = Subset::split(&all, 1500, 3).unwrap().0.identity();
        assert_eq!(a.identity(), again);
        assert_ne!(again, Subset::split(&all, 1500, 4).unwrap().0.identity());
        // Drawn evenly, not from the start.
        assert!(b.rows.iter().filter(|&&r| r < 898).count() > 100);
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let all: Arc<dyn Dataset> = Arc::new(digits().unwrap());
        assert!(Subset::new(Arc::clone(&all), vec![]).is_err());
        assert!(Subset::new(Arc::clone(&all), vec![1797]).is_err());
        let e = Subset::draw(Arc::clone(&all), 1798, 0).err().unwrap();
        assert!(e.to_string().contains("1798"), "{e}");
        let few = Subset::draw(all, 3, 0).unwrap();
        assert!(few.sample(3, false).is_err());
        assert_eq!(few.label(3), None);
    }
}
