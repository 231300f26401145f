//! Decoding in overlapping tiles.
//!
//! Each tile is decoded alone, and where tiles overlap their pixels are averaged with weights that
//! fall linearly towards the edge of a tile. Memory is that of one tile. The result is not exactly
//! that of decoding the whole, since the normalisations and the attention of a tile see only the
//! tile; the overlap hides the seams.

use std::ops::Range;

use dis_tensor::Cpu;
use ndarray::{Array4, ArrayView4, s};

use crate::config::VaeConfig;
use crate::error::{Result, VaeError};
use crate::vae::Vae;

/// Size and overlap of tiles, in latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Side of a tile.
    pub size: usize,
    /// Latents that neighbours share, less than `size`.
    pub overlap: usize,
}

impl Tiling {
    /// Tiles of the size that an autoencoder was trained on (at least 32 latents), with a quarter
    /// of overlap.
    pub fn of(config: &VaeConfig) -> Self {
        let size = (config.sample_size / config.reduction()).max(32);
        Self::new(size)
    }

    /// Tiles of `size` with a quarter of overlap.
    pub fn new(size: usize) -> Self {
        Self {
            size,
            overlap: size / 4,
        }
    }

    /// Tiles along a side of `length`: evenly spread, all of `size` unless `length` is less.
    fn starts(&self, length: usize) -> Vec<Range<usize>> {
        if length <= self.size {
            return std::iter::once(0..length).collect();
        }
        let step = self.size - self.overlap;
        let last = length - self.size;
        let count = last.div_ceil(step);
        (0..=count)
            .map(|i| {
                let start = (i * last + count / 2) / count;
                start..start + self.size
            })
            .collect()
    }
}

/// Weights of the pixels of a tile along one side, where `factor` pixels make a latent: rising over
/// the overlap with the tile before, falling over that with the tile after.
fn ramp(tiles: &[Range<usize>], index: usize, factor: usize) -> Vec<f32> {
    let tile = &tiles[index];
    let overlap = |a: &Range<usize>, b: &Range<usize>| a.end.saturating_sub(b.start) * factor;
    let length = tile.len() * factor;
    let before = if index > 0 {
        overlap(&tiles[index - 1], tile)
    } else {
        0
    };
    let after = tiles.get(index + 1).map_or(0, |next| overlap(tile, next));
    (0..length)
        .map(|i| {
            let rise = (i as f32 + 0.5) / before.max(1) as f32;
            let fall = ((length - 1 - i) as f32 + 0.5) / after.max(1) as f32;
            let rise = if before > 0 { rise.min(1.0) } else { 1.0 };
            let fall = if after > 0 { fall.min(1.0) } else { 1.0 };
            rise.min(fall)
        })
        .collect()
}

impl Vae {
    /// As [`Vae::decode`], tile by tile. Latents that fit in one tile are decoded whole, with the
    /// same bits.
    ///
    /// # Errors
    /// As [`Vae::decode`], and if the tiles are empty or overlap wholly.
    pub fn decode_tiled(
        &self,
        cpu: &Cpu,
        latents: ArrayView4<'_, f32>,
        tiling: Tiling,
    ) -> Result<Array4<f32>> {
        if tiling.size == 0 || tiling.overlap >= tiling.size {
            let what = format!(
                "tiles of {} latents that share {}",
                tiling.size, tiling.overlap
            );
            return Err(VaeError::input("decode", what));
        }
        let (batch, _, height, width) = latents.dim();
        if height <= tiling.size && width <= tiling.size {
            return self.decode(cpu, latents);
        }
        let factor = self.config().reduction();
        let (rows, columns) = (tiling.starts(height), tiling.starts(width));
        let channels = self.config().out_channels;
        let mut out = Array4::<f32>::zeros((batch, channels, height * factor, width * factor));
        // Weights are products of one for rows and one for columns, so their sums are too.
        let sums = |tiles: &[Range<usize>], length: usize| {
            let mut sums = vec![0.0f32; length * factor];
            for (i, tile) in tiles.iter().enumerate() {
                let part = &mut sums[tile.start * factor..tile.end * factor];
                for (sum, x) in part.iter_mut().zip(ramp(tiles, i, factor)) {
                    *sum += x;
                }
            }
            sums
        };
        let (row_sums, column_sums) = (sums(&rows, height), sums(&columns, width));
        for (i, r) in rows.iter().enumerate() {
            let row_weights = ramp(&rows, i, factor);
            for (j, c) in columns.iter().enumerate() {
                let column_weights = ramp(&columns, j, factor);
                for b in 0..batch {
                    let tile = latents.slice(s![b..b + 1, .., r.clone(), c.clone()]);
                    let tile = self.decode(cpu, tile)?;
                    let (top, left) = (r.start * factor, c.start * factor);
                    for ((_, channel, y, x), &value) in tile.indexed_iter() {
                        let weight = row_weights[y] / row_sums[top + y]
                            * (column_weights[x] / column_sums[left + x]);
                        out[[b, channel, top + y, left + x]] += weight * value;
                    }
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tiles_cover_a_side_and_overlap_as_asked(
            length in 1usize..200, size in 1usize..70, part in 0usize..69, factor in 1usize..9,
        ) {
            let tiling = Tiling { size, overlap: part % size };
            let tiles = tiling.starts(length);
            prop_assert_eq!(tiles[0].start, 0);
            prop_assert_eq!(tiles[tiles.len() - 1].end, length);
            for pair in tiles.windows(2) {
                prop_assert!(pair[0].start < pair[1].start);
                prop_assert!(pair[0].end >= pair[1].start + tiling.overlap);
            }
            prop_assert!(tiles.iter().all(|t| t.len() == size.min(length)));
            // Every pixel gets a positive weight.
            let mut sums = vec![0.0f32; length * factor];
            for (i, tile) in tiles.iter().enumerate() {
                let ramp = ramp(&tiles, i, factor);
                prop_assert_eq!(ramp.len(), tile.len() * factor);
                for (x, w) in ramp.iter().enumerate() {
                    prop_assert!(*w > 0.0 && *w <= 1.0);
                    sums[tile.start * factor + x] += w;
                }
            }
            prop_assert!(sums.iter().all(|&s| s > 0.0));
        }
    }
}
