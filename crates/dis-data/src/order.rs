//! In which order a run sees its images: a pure function of (seed, number of images, batch size,
//! step), so that a resumed run needs nothing but its step.
//!
//! Epochs follow each other without a gap: position `p = step * batch_size + j` of the run is image
//! `p mod n` of epoch `p / n`'s own permutation. A batch may end one epoch and begin the next; so no
//! image is ever left out, each is seen once an epoch, and sets smaller than a batch just work (they
//! then fill it with several epochs).

use dis_tensor::random::{Purpose, Stream};

/// One image of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Number of the image in its data set.
    pub index: usize,
    /// Epoch that this draw belongs to, from 0.
    pub epoch: u64,
}

/// The images of any step, with no state. Empty if `n` is 0.
///
/// Makes the permutation of an epoch anew each time; a loop over steps uses an [`Order`].
pub fn batch_indices(seed: u64, n: usize, batch_size: usize, step: u64) -> Vec<Draw> {
    Order::new(seed, n).batch(batch_size, step)
}

/// Whether image `index` is mirrored in `epoch`.
pub fn flips(seed: u64, index: usize, epoch: u64) -> bool {
    Stream::new(seed, Purpose::Flip, index as u64, epoch).next_u32() & 1 == 1
}

/// The key under which a data set that is random itself is read in `epoch`, see
/// [`Dataset::read_keyed`](super::Dataset::read_keyed).
pub fn epoch_key(seed: u64, epoch: u64) -> u64 {
    Stream::new(seed, Purpose::Posterior, 0, epoch).next_u64()
}

/// [`batch_indices`] with the permutation of the latest epoch kept; results are the same.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    n: usize,
    kept: Option<(u64, Vec<u32>)>,
}

impl Order {
    /// The order of `n` images (below 2^32) under a run's seed.
    pub fn new(seed: u64, n: usize) -> Self {
        Self {
            seed,
            n,
            kept: None,
        }
    }

    /// The images of `step`. Empty if there are no images.
    pub fn batch(&mut self, batch_size: usize, step: u64) -> Vec<Draw> {
        if self.n == 0 {
            return Vec::new();
        }
        let start = u128::from(step) * batch_size as u128;
        (0..batch_size as u128)
            .map(|j| self.at(start + j))
            .collect()
    }

    fn at(&mut self, position: u128) -> Draw {
        let n = self.n as u128;
        let (epoch, offset) = ((position / n) as u64, (position % n) as usize);
        let permutation = match self.kept.take() {
            Some((e, p)) if e == epoch => p,
            _ => Stream::new(self.seed, Purpose::Shuffle, 0, epoch).permutation(self.n),
        };
        let index = permutation[offset] as usize;
        self.kept = Some((epoch, permutation));
        Draw { index, epoch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any step alone equals the same step of a walk from the start, and every epoch holds
        /// every image once.
        #[test]
        fn steps_are_addressable_and_epochs_complete(
            seed in any::<u64>(), n in 1usize..40, batch in 1usize..70,
        ) {
            let mut order = Order::new(seed, n);
            let steps = (3 * n).div_ceil(batch) as u64;
            let mut walk = Vec::new();
            for step in 0..steps {
                let draws = order.batch(batch, step);
                prop_assert_eq!(&draws, &batch_indices(seed, n, batch, step));
                prop_assert_eq!(draws.len(), batch);
                walk.extend(draws);
            }
            for epoch in 0..3u64 {
                let part = &walk[epoch as usize * n..][..n];
                prop_assert!(part.iter().all(|d| d.epoch == epoch));
                let mut seen: Vec<usize> = part.iter().map(|d| d.index).collect();
                seen.sort_unstable();
                prop_assert!(seen.iter().copied().eq(0..n));
            }
        }
    }

    #[test]
    fn seeds_and_epochs_differ() {
        let epoch = |seed, e: u64| batch_indices(seed, 100, 100, e);
        let images = |d: Vec<Draw>| d.iter().map(|d| d.index).collect::<Vec<_>>();
        assert_ne!(images(epoch(0, 0)), images(epoch(1, 0)));
        assert_ne!(images(epoch(0, 0)), images(epoch(0, 1)));
        assert!(batch_indices(0, 0, 4, 9).is_empty());
    }

    #[test]
    fn far_steps_do_not_overflow() {
        assert_eq!(batch_indices(0, 3, 1 << 20, u64::MAX / 2).len(), 1 << 20);
    }

    #[test]
    fn flips_are_fair_and_change_with_every_key() {
        let count = (0..4000).filter(|&i| flips(5, i, 0)).count();
        assert!((1850..2150).contains(&count), "{count}");
        let row = |seed, epoch| (0..64).map(|i| flips(seed, i, epoch)).collect::<Vec<_>>();
        assert_eq!(row(5, 0), row(5, 0));
        assert_ne!(row(5, 0), row(5, 1));
        assert_ne!(row(5, 0), row(6, 0));
    }
}
