//! Launch contract of `loss.ptx`. A batch of images is a token matrix with one token a sample, which
//! holds all its values.

use crate::contract::{Contract, ContractInfo, Geometry, Kernel, Param, contract};
use crate::error::Result;
use crate::mat::{Mat, MatMut, images, shapes};
use crate::pointer::{Ptr, PtrMut};

contract! {
    /// The loss of each sample of a batch and its gradient by the network's output: at `steps` lie the
    /// [`step_words`] of as many samples as `x_start` has, at `sums` two numbers of each are written.
    /// Output and gradient have the values of `x_start`, or twice as many where the variance is learned.
    pub struct GaussianLoss: LOSS, "dis_gaussian_loss" {
        x_start: Mat [batch], noise: Mat [batch], output: Mat [batch], gradient: MatMut [batch],
        steps: Ptr<u64>,
        sums: PtrMut<f64>,
        n: usize = |k| k.x_start.channels,
        learned: bool = |k| k.is_learned(),
    }
    pub fn new;
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[GaussianLoss::INFO];

/// Words of a sample's numbers.
const WORDS: usize = 17;

/// The numbers of a sample's step, as `loss.ptx` names them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossNumbers {
    /// Of x and z in x_t: signal, spread.
    pub noised: [f64; 2],
    /// Of z and x in the target, if there is a square error: on_z, on_x.
    pub target: Option<[f64; 2]>,
    /// Whether there is a term of the bound, to which all that follows but the weight belongs.
    pub bound: bool,
    /// Of o and x_t in the estimate of x: of_o, of_xt.
    pub start: [f64; 2],
    /// Of an estimate and x_t in the mean: m_start, m_xt.
    pub mean: [f64; 2],
    /// Of the log variance: slope, offset.
    pub log_variance: [f64; 2],
    /// Log variance and variance of the posterior; without them the term is a likelihood.
    pub truth: Option<[f64; 2]>,
    /// Factors of the term: scale in the sum, by_mean and by_log in the gradient.
    pub factors: [f64; 3],
    /// Of the whole gradient.
    pub weight: f64,
}

impl LossNumbers {
    fn words(&self) -> [u64; WORDS] {
        let flags = u64::from(self.target.is_some())
            | u64::from(self.bound) << 1
            | u64::from(self.truth.is_none()) << 2;
        let pairs = [
            self.noised,
            self.target.unwrap_or_default(),
            self.start,
            self.mean,
            self.log_variance,
            self.truth.unwrap_or_default(),
        ];
        let mut words = [flags; WORDS];
        let numbers = pairs.as_flattened().iter().chain(&self.factors);
        for (word, number) in words.iter_mut().zip(numbers.chain([&self.weight])) {
            *word = number.to_bits();
        }
        words
    }
}

/// What [`GaussianLoss`] reads at `steps`: to be uploaded before it runs.
pub fn step_words(samples: &[LossNumbers]) -> Vec<u64> {
    samples.iter().flat_map(LossNumbers::words).collect()
}

impl GaussianLoss {
    /// Whether the output has a variance beside each value.
    fn is_learned(&self) -> bool {
        let n = self.x_start.channels;
        n > 0 && self.output.channels == 2 * n
    }
}

impl Kernel for GaussianLoss {
    fn fit(&mut self) -> Result<Geometry> {
        let [batch, n] = images(Self::NAME, &self.x_start)?;
        let width = if self.is_learned() { 2 * n } else { n };
        shapes(
            Self::NAME,
            &[
                ("noise", &self.noise, [batch, 1, n]),
                ("the output", &self.output, [batch, 1, width]),
                ("the gradient", &self.gradient, [batch, 1, width]),
            ],
        )?;
        self.steps
            .holds(Self::NAME, "steps", (WORDS * batch) as u64)?;
        self.sums.holds(Self::NAME, "sums", 2 * batch as u64)?;
        batch.check(Self::NAME, "the number of samples")?;
        Ok(Geometry::new([batch as u32, 1, 1], [256, 1, 1]))
    }
}
