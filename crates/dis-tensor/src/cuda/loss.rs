//! The training loss: the numbers of each sample's step go to the device in stream order.

use dis_kernels::Driver;
use dis_kernels::loss::{GaussianLoss, LossNumbers, step_words};

use super::buffer::DeviceBuf;
use super::{Cuda, mat, mat_mut};
use crate::backend::{Reals, ViewMut};
use crate::error::Result;
use crate::loss::{LossInputs, LossStep};

fn numbers(step: &LossStep) -> LossNumbers {
    let mut numbers = LossNumbers {
        noised: [step.signal, step.spread],
        target: step.target,
        weight: step.weight,
        ..LossNumbers::default()
    };
    if let Some(bound) = &step.bound {
        numbers.bound = true;
        numbers.start = bound.start;
        numbers.mean = bound.mean;
        numbers.log_variance = bound.log_variance;
        numbers.truth = bound.true_log_variance.map(|log| [log, libm::exp(log)]);
        numbers.factors = [bound.scale, bound.through_mean, bound.through_variance];
    }
    numbers
}

impl<D: Driver> Cuda<D> {
    pub(super) fn loss(
        &self,
        steps: &[LossStep],
        inputs: LossInputs<'_, Reals<Self>>,
        gradient: ViewMut<'_, Self>,
        sums: &mut DeviceBuf<D, f64>,
        at: usize,
    ) -> Result<()> {
        const OP: &str = "gaussian_loss";
        let words = step_words(&steps.iter().map(numbers).collect::<Vec<_>>());
        let words = self.words(OP, &words)?;
        let kernel = GaussianLoss::new(
            mat(inputs.x_start),
            mat(inputs.noise),
            mat(inputs.output),
            mat_mut(gradient),
            words.ptr(),
            sums.ptr_mut().at(at as u64),
        );
        self.launch(OP, kernel)
    }
}
