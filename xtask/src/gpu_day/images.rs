//! Operands of what samplers and the loss do with images.

use anyhow::Result;
use dis_kernels::images::{AddNoise, Clamp, Combine, Lines, Mix, Terms};
use dis_kernels::loss::{GaussianLoss, LossNumbers, step_words};
use dis_kernels::statistics::{Rescale, Threshold};
use dis_kernels::{Driver, Mat};

use super::work::{Memory, Work};

/// Values of an image: the published latents, whatever the shape of the rest.
pub const VALUES: usize = 4 * 32 * 32;

/// A kernel over images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A combination of three, with coefficients for each sample.
    Combine,
    /// Limits.
    Clamp,
    /// Noise times the exponential of a log scale.
    AddNoise,
    /// A mixture by a mask.
    Mix,
    /// Scaling to a deviation.
    Rescale,
    /// Dynamic thresholding.
    Threshold,
    /// The training loss with both of its terms, and a learned variance.
    Loss,
}

impl Kind {
    /// With operands.
    pub fn build<D: Driver>(self, mut m: Memory<'_, D>, batch: usize) -> Result<Work<D>> {
        let shape = [batch, 1, VALUES];
        Ok(match self {
            Self::Combine => {
                let coefficients = vec![0.5; batch];
                let mut images = Vec::new();
                for _ in 0..3 {
                    images.push(m.mat(shape, -1.0, 1.0)?.read());
                }
                let each = |x: &Mat| (coefficients.as_slice(), *x);
                let terms = Terms::new(&images.iter().map(each).collect::<Vec<_>>())?;
                let table = m.put(terms.words())?.ptr();
                let out = m.out(shape)?;
                m.work(Combine::new(&terms, table, out)?)
            }
            Self::Clamp => {
                let x = m.changed(shape, -1.0, 1.0)?;
                m.work(Clamp::new(x, -0.9, 0.9)?)
            }
            Self::AddNoise => {
                let noise = m.mat(shape, -1.0, 1.0)?.read();
                let log = m.mat(shape, -1.0, 1.0)?.read();
                // So little that repetitions do not overflow.
                let lines = Lines::new(&vec![0.5; batch], &vec![-20.0; batch], batch)?;
                let words = m.put(lines.words())?.ptr();
                let x = m.changed(shape, -1.0, 1.0)?;
                m.work(AddNoise::new(noise, log, &lines, words, x)?)
            }
            Self::Mix => {
                let weight = m.mat(shape, 0.0, 1.0)?.read();
                let a = m.mat(shape, -1.0, 1.0)?.read();
                let b = m.mat(shape, -1.0, 1.0)?.read();
                let out = m.out(shape)?;
                m.work(Mix::new(weight, a, b, out)?)
            }
            Self::Rescale => {
                let like = m.mat(shape, -1.0, 1.0)?.read();
                let x = m.changed(shape, -1.0, 1.0)?;
                m.work(Rescale::new(like, x, 0.7)?)
            }
            Self::Threshold => {
                let x = m.changed(shape, -1.5, 1.5)?;
                m.work(Threshold::new(x, 0.995, f64::INFINITY)?)
            }
            Self::Loss => {
                let numbers = LossNumbers {
                    noised: [0.8, 0.6],
                    target: Some([0.8, -0.6]),
                    bound: true,
                    start: [-0.6, 0.8],
                    mean: [0.3, 0.65],
                    log_variance: [0.5, -2.0],
                    truth: Some([-2.5, 0.082]),
                    factors: [0.7, 0.2, 0.4],
                    weight: 1.0,
                };
                let both = [batch, 1, 2 * VALUES];
                let start = m.mat(shape, -1.0, 1.0)?.read();
                let noise = m.mat(shape, -1.0, 1.0)?.read();
                let output = m.mat(both, -1.0, 1.0)?.read();
                let steps = m.put(&step_words(&vec![numbers; batch]))?.ptr();
                let (gradient, sums) = (m.out(both)?, m.room(2 * batch)?);
                m.work(GaussianLoss::new(
                    start, noise, output, gradient, steps, sums,
                )?)
            }
        })
    }
}
