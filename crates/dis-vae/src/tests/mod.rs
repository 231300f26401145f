//! The fast code against the naive one, and files of all kinds.

mod files;
mod maps;
mod tiles;
mod whole;

use dis_tensor::random::{Purpose, Stream};

use crate::config::VaeConfig;
use crate::oracle::Image;
use crate::weights::Weights;

/// Reproducible normals.
pub(crate) fn normals(seed: u64, count: usize) -> Vec<f32> {
    let mut out = vec![0.0; count];
    Stream::new(seed, Purpose::Test, 0, 0).fill_normal(&mut out);
    out
}

/// Random tensors of a configuration that keep magnitudes; nothing is zero or one.
pub(crate) fn tensors(config: &VaeConfig, seed: u64) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let parameters = config.parameters().into_iter().enumerate();
    parameters
        .map(|(i, (name, shape))| {
            let count = shape.iter().product::<usize>();
            let mut stream = Stream::new(seed, Purpose::Test, i as u64, 1);
            let (centre, spread) = match (shape.len(), name.contains("norm")) {
                (1, true) if name.ends_with("weight") => (1.0, 0.2),
                (1, _) => (0.0, 0.2),
                _ => (0.0, 1.0 / ((count / shape[0]) as f64).sqrt()),
            };
            let data = (0..count)
                .map(|_| (centre + spread * stream.normal()) as f32)
                .collect();
            (name, shape, data)
        })
        .collect()
}

pub(crate) fn weights(config: &VaeConfig, seed: u64) -> Weights {
    Weights::from_tensors(tensors(config, seed)).unwrap()
}

/// A configuration of few channels.
pub(crate) fn tiny(blocks: &[usize]) -> VaeConfig {
    VaeConfig {
        block_out_channels: blocks.to_vec(),
        layers_per_block: 1,
        norm_num_groups: 4,
        sample_size: 32,
        down_attention: vec![false; blocks.len()],
        up_attention: vec![false; blocks.len()],
        ..VaeConfig::default()
    }
}

pub(crate) fn image(shape: [usize; 3], data: &[f32]) -> Image {
    Image::new(shape, data.iter().map(|&x| f64::from(x)).collect())
}

/// Largest error relative to the largest magnitude.
pub(crate) fn error(ours: &[f32], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    let pairs = ours.iter().zip(theirs);
    let error = pairs.fold(0.0f64, |a, (&x, y)| a.max((f64::from(x) - y).abs()));
    assert!(ours.iter().all(|x| x.is_finite()));
    error / largest.max(1e-30)
}

/// A norm over a few nearly equal values blows rounding up, so what is asked for follows from what
/// rounding the layers of the float64 oracle does to its result.
pub(crate) fn tolerance(exact: &Image, rounded: &Image) -> f64 {
    let rounded: Vec<f32> = rounded.data.iter().map(|&x| x as f32).collect();
    4e-6 + 16.0 * error(&rounded, &exact.data)
}
