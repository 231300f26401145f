//! What samples are compared with while a run goes on.

use std::borrow::Cow;

use dis_data::{Dataset, ImageShape};
use dis_eval::metrics::{Statistics, frechet_distance};
use dis_eval::{FeatureBatch, FeatureNetwork, points};

use super::metrics::Distance;
use crate::error::Result;

/// Images of the data that samples are compared with, at most.
const IMAGES: usize = 2000;
/// Side of small pictures.
const SIDE: usize = 8;

/// Pixels in [0, 1] of pictures that are made small, at most 8 x 8: few enough to compare few samples by.
#[derive(Clone, Copy, Debug)]
pub(super) struct SmallPictures;

impl FeatureNetwork for SmallPictures {
    fn name(&self) -> String {
        format!("pictures of {SIDE}x{SIDE}")
    }

    fn identity(&self) -> String {
        format!("pixels in [0, 1] of pictures averaged to at most {SIDE}x{SIDE}")
    }

    fn check(&self, _: ImageShape) -> dis_eval::Result<()> {
        Ok(())
    }

    fn run(&self, images: &[f32], shape: ImageShape) -> dis_eval::Result<FeatureBatch> {
        let ImageShape { height, width, .. } = shape;
        let (rows, columns) = (height.clamp(1, SIDE), width.clamp(1, SIDE));
        let mut features = Vec::new();
        for plane in images.chunks_exact((height * width).max(1)) {
            for row in 0..rows {
                let down = row * height / rows..(row + 1) * height / rows;
                for column in 0..columns {
                    let across = column * width / columns..(column + 1) * width / columns;
                    let count = (down.len() * across.len()) as f32;
                    let sum: f32 = down
                        .clone()
                        .map(|y| plane[y * width..][across.clone()].iter().sum::<f32>())
                        .sum();
                    features.push((sum / count).mul_add(0.5, 0.5));
                }
            }
        }
        Ok(FeatureBatch {
            features,
            ..FeatureBatch::default()
        })
    }
}

/// Statistics of the data.
pub(super) struct Reference<'a> {
    network: &'a dyn FeatureNetwork,
    shape: ImageShape,
    statistics: Statistics,
}

impl<'a> Reference<'a> {
    /// Of at most 2,000 images, evenly chosen.
    ///
    /// # Errors
    /// Images that cannot be read or that the network does not take, fewer than two.
    pub fn new(data: &dyn Dataset, network: &'a dyn FeatureNetwork) -> Result<Self> {
        let (shape, count) = (data.shape(), data.len().min(IMAGES));
        let mut images = vec![0.0; count * shape.len()];
        for (i, image) in images.chunks_exact_mut(shape.len().max(1)).enumerate() {
            data.read(i * data.len() / count.max(1), false, image)?;
        }
        let points = points(network, &shown(&images, shape), shape)?;
        Ok(Self {
            network,
            shape,
            statistics: Statistics::from_points(points.view())?,
        })
    }

    /// The distance of samples, (n, channels, height, width).
    ///
    /// # Errors
    /// Fewer than two samples, values that are not finite.
    pub fn distance(&self, samples: &[f32]) -> Result<Distance> {
        let points = points(self.network, &shown(samples, self.shape), self.shape)?;
        let own = Statistics::from_points(points.view())?;
        Ok(Distance {
            value: frechet_distance(&own, &self.statistics)?,
            samples: points.nrows(),
            of: self.network.name(),
        })
    }
}

/// Pictures as they are shown, clipped to [-1, 1]; latents as they are.
fn shown(images: &[f32], shape: ImageShape) -> Cow<'_, [f32]> {
    match shape.channels {
        1 | 3 => images.iter().map(|v| v.clamp(-1.0, 1.0)).collect(),
        _ => images.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pictures_are_averages() {
        let shape = ImageShape {
            channels: 1,
            height: 2,
            width: 16,
        };
        let row: Vec<f32> = (0..16)
            .map(|x| if x % 2 == 0 { -1.0 } else { 1.0 })
            .collect();
        let image = [row.clone(), vec![1.0; 16]].concat();
        let features = SmallPictures.run(&image, shape).unwrap().features;
        assert_eq!(features, [[0.5; 8], [1.0; 8]].concat());
    }

    #[test]
    fn the_data_are_near_themselves() {
        let digits = dis_data::open(&"digits".parse().unwrap()).unwrap();
        let reference = Reference::new(&*digits, &SmallPictures).unwrap();
        let mut images = vec![0.0; 200 * 64];
        for (i, image) in images.chunks_exact_mut(64).enumerate() {
            digits.read(i, false, image).unwrap();
        }
        let near = reference.distance(&images).unwrap();
        let far = reference.distance(&vec![0.0; 200 * 64]).unwrap();
        assert!(
            near.value < 0.3 * far.value && near.samples == 200,
            "{near:?} {far:?}"
        );
    }
}
