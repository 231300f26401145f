//! Launch contract of `loss.ptx`. A batch of images is a token matrix with one token a sample, which
//! holds all its values.

use crate::contract;
use crate::contract::{ContractInfo, Geometry, Params, Ptr, PtrMut, Ready};
use crate::error::{KernelError, Result};
use crate::mat::{Mat, MatMut, shape, to_u32};

contract! {
    /// The loss of each sample of a batch and its gradient by the network's output.
    pub struct GaussianLoss: LOSS, "dis_gaussian_loss" {
        x_start: Ptr<f32>, x_start_batch: u32,
        noise: Ptr<f32>, noise_batch: u32,
        output: Ptr<f32>, output_batch: u32,
        gradient: PtrMut<f32>, gradient_batch: u32,
        steps: Ptr<u64>,
        sums: PtrMut<f64>,
        n: u32,
        learned: u32,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[GaussianLoss::INFO];

/// Words of a sample's numbers.
const WORDS: usize = 17;

const NAME: &str = "dis_gaussian_loss";

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
    /// Checks the operands: at `steps` lie the [`step_words`] of as many samples as `x_start` has, at
    /// `sums` two numbers of each are written. Output and gradient have the values of `x_start`, or
    /// twice as many where the variance is learned.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(
        x_start: Mat,
        noise: Mat,
        output: Mat,
        gradient: MatMut,
        steps: Ptr<u64>,
        sums: PtrMut<f64>,
    ) -> Result<Ready<Self>> {
        let [batch, tokens, n] = x_start.shape();
        if tokens != 1 {
            let what = format!("images of {tokens} tokens each, not of one");
            return Err(shape(NAME, what));
        }
        x_start.check(NAME, "x_start")?;
        noise.check_shape(NAME, "noise", [batch, 1, n])?;
        let learned = n > 0 && output.channels == 2 * n;
        let width = if learned { 2 * n } else { n };
        output.check_shape(NAME, "the output", [batch, 1, width])?;
        gradient.check_shape(NAME, "the gradient", [batch, 1, width])?;
        for (name, needed, len) in [
            ("steps", WORDS * batch, steps.len()),
            ("sums", 2 * batch, sums.len()),
        ] {
            if needed as u64 > len {
                return Err(KernelError::OutOfBounds {
                    kernel: NAME,
                    name,
                    needed: needed as u64,
                    len,
                });
            }
        }
        if batch > i32::MAX as usize {
            return Err(shape(NAME, format!("{batch} samples")));
        }
        let kernel = Self {
            x_start: x_start.ptr,
            x_start_batch: x_start.batch_stride as u32,
            noise: noise.ptr,
            noise_batch: noise.batch_stride as u32,
            output: output.ptr,
            output_batch: output.batch_stride as u32,
            gradient: gradient.ptr,
            gradient_batch: gradient.batch_stride as u32,
            steps,
            sums,
            n: to_u32(NAME, "the number of values", n)?,
            learned: learned.into(),
        };
        Ok(Ready::new(
            kernel,
            Geometry::new([batch as u32, 1, 1], [256, 1, 1]),
        ))
    }
}
