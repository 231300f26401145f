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

mod check;
mod dataset;
mod index;

pub(super) use check::{check_latents, compare_shards};
pub use dataset::LatentDataset;
pub(super) use dataset::NOT_MIRRORED;
pub(super) use index::is_latents_folder;
pub use index::{INDEX, LatentIndex, Shard, read_shard};

/// Names of a shard's tensors: as the images are, and mirrored left to right.
const NAMES: [[&str; 2]; 2] = [["mean", "log_var"], ["mean_mirrored", "log_var_mirrored"]];
const LABELS: &str = "labels";

#[cfg(test)]
mod tests;
