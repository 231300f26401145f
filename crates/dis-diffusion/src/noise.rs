//! Standard normal draws: keyed per sample, or supplied.

use ndarray::{Array4, Axis};
use rayon::prelude::*;

use dis_tensor::random::{Purpose, Stream};

use crate::state::same_dims;
use crate::{Error, Result, State};

/// Where a sampler's draws come from. Draws belong to iterations: iteration i of a run (0 being
/// the noisiest step) has draw i, whether the sampler uses it or not.
pub trait Noise<S: State = Array4<f32>> {
    /// The draw of an iteration, shaped like `like` and living where it lives.
    ///
    /// # Errors
    /// No draw for that iteration, or one of another shape.
    fn draw(&mut self, iteration: usize, like: &S) -> Result<S>;
}

/// Draws keyed by (seed, sample, iteration), so that a sample does not depend on the batch it is
/// drawn in, nor on threads or device.
#[derive(Clone, Debug)]
pub struct SeededNoise {
    seed: u64,
    samples: Vec<u64>,
}

impl SeededNoise {
    /// Noise for the samples with these global indices, one for each row of the batch.
    pub fn new(seed: u64, samples: impl IntoIterator<Item = u64>) -> Self {
        Self {
            seed,
            samples: samples.into_iter().collect(),
        }
    }

    /// The start noise: one image of (channels, height, width) for each sample.
    pub fn start(&self, image: [usize; 3]) -> Array4<f32> {
        normals(self.seed, Purpose::SampleStart, &self.samples, 0, image)
    }
}

impl<S: State> Noise<S> for SeededNoise {
    fn draw(&mut self, iteration: usize, like: &S) -> Result<S> {
        let [batch, channels, height, width] = like.dims();
        if batch != self.samples.len() {
            let got = self.samples.len();
            return Err(Error::Count {
                what: "sample indices",
                got,
                expected: batch,
            });
        }
        let image = [channels, height, width];
        let step = iteration as u64;
        like.place(normals(
            self.seed,
            Purpose::SampleStep,
            &self.samples,
            step,
            image,
        ))
    }
}

/// Draws made beforehand, one for each iteration.
#[derive(Clone, Debug)]
pub struct SuppliedNoise<S = Array4<f32>>(
    /// The draw of each iteration, in order.
    pub Vec<S>,
);

impl<S: State> Noise<S> for SuppliedNoise<S> {
    fn draw(&mut self, iteration: usize, like: &S) -> Result<S> {
        let supplied = self.0.len();
        let draw = self.0.get(iteration).ok_or(Error::NoNoise {
            iteration,
            supplied,
        })?;
        same_dims("supplied noise", draw, like)?;
        Ok(draw.clone())
    }
}

/// Standard normals of shape (samples, channels, height, width), each sample from its own stream
/// keyed by (seed, purpose, sample, step).
pub fn normals(
    seed: u64,
    purpose: Purpose,
    samples: &[u64],
    step: u64,
    image: [usize; 3],
) -> Array4<f32> {
    let [channels, height, width] = image;
    let mut out = Array4::zeros((samples.len(), channels, height, width));
    let rows: Vec<_> = out.axis_iter_mut(Axis(0)).collect();
    rows.into_par_iter()
        .zip(samples)
        .for_each(|(mut image, &sample)| {
            let mut stream = Stream::new(seed, purpose, sample, step);
            image.iter_mut().for_each(|x| *x = stream.normal() as f32);
        });
    out
}

/// A uniform timestep in `0 .. steps` for each training sample, keyed by (seed, sample, step).
pub fn uniform_timesteps(seed: u64, samples: &[u64], step: u64, steps: usize) -> Vec<usize> {
    samples
        .iter()
        .map(|&s| Stream::new(seed, Purpose::Timestep, s, step).below(steps as u64) as usize)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_keeps_its_noise_in_any_batch() {
        let whole = SeededNoise::new(5, 0..7);
        let part = SeededNoise::new(5, 3..5);
        let shape = [3, 5, 2];
        assert_eq!(whole.start(shape).rows(3..5).unwrap(), part.start(shape));
        let like = |n| Array4::<f32>::zeros((n, 3, 5, 2));
        let draw = |noise: &SeededNoise, n| noise.clone().draw(4, &like(n)).unwrap();
        assert_eq!(draw(&whole, 7).rows(3..5).unwrap(), draw(&part, 2));
        assert_ne!(draw(&part, 2), part.start(shape));
        assert!(part.clone().draw(0, &like(3)).is_err());
    }

    #[test]
    fn supplied_noise_ends_with_an_error() {
        let x = Array4::<f32>::zeros((1, 1, 2, 2));
        let mut noise = SuppliedNoise(vec![x.clone()]);
        assert!(noise.draw(0, &x).is_ok());
        assert!(matches!(
            noise.draw(1, &x),
            Err(Error::NoNoise {
                iteration: 1,
                supplied: 1
            })
        ));
        assert!(noise.draw(0, &Array4::zeros((1, 1, 2, 3))).is_err());
    }
}
