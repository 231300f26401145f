//! The training loss, a sample at a time: each is one sum in the order of its values, so that nothing
//! depends on threads.

use super::threads::Pieces;
use super::{Cpu, rows, rows_mut};
use crate::backend::{Reals, ViewMut};
use crate::error::Result;
use crate::host::HostBuf;
use crate::loss::{LossInputs, LossStep, spoilt};

impl Cpu {
    pub(super) fn loss(
        &self,
        steps: &[LossStep],
        inputs: LossInputs<'_, Reals<Self>>,
        gradient: ViewMut<'_, Self>,
        sums: &mut HostBuf<f64>,
        at: usize,
    ) -> Result<()> {
        let (x, z) = (rows(inputs.x_start), rows(inputs.noise));
        let (output, gradient) = (rows(inputs.output), rows_mut(gradient));
        let batch = steps.len();
        // Exponentials and divisions: worth a thread sooner than plain elements.
        let work = 16 * batch * x.channels();
        let sums = Pieces {
            data: &mut sums.as_mut_slice()[at..at + 2 * batch],
            width: 2,
            units: 1,
        };
        self.blocks(
            batch,
            1,
            work,
            (gradient, sums),
            |range, (mut gradient, sums)| {
                for (b, to) in range.zip(sums.data.chunks_exact_mut(2)) {
                    to.copy_from_slice(&sample(
                        &steps[b],
                        [x.row(b), z.row(b), output.row(b)],
                        gradient.row(b),
                    ));
                }
            },
        );
        Ok(())
    }
}

/// Writes a sample's gradient; its mean square error and its bound.
fn sample(step: &LossStep, [x, z, output]: [&[f32]; 3], gradient: &mut [f32]) -> [f64; 2] {
    let n = x.len();
    let count = n as f64;
    let mut sums = [0.0; 2];
    for (i, (&x, &z)) in x.iter().zip(z).enumerate() {
        let (x, z, o) = (f64::from(x), f64::from(z), f64::from(output[i]));
        let (mut d_output, mut d_variance) = (0.0, 0.0);
        if let Some([on_noise, on_start]) = step.target {
            let off = o - (on_noise * z + on_start * x);
            sums[0] += off * off / count;
            d_output = 2.0 * off / count;
        }
        if let Some(bound) = &step.bound {
            let x_t = step.signal * x + step.spread * z;
            let variance = output.get(n + i).map(|&v| f64::from(v));
            let term = bound.term(x, x_t, bound.estimate(o, x_t), variance);
            sums[1] += bound.scale * term.value;
            d_output += bound.through_mean * term.d_mean;
            d_variance = bound.through_variance * term.d_log_variance;
        }
        gradient[i] = (step.weight * d_output) as f32;
        if let Some(out) = gradient.get_mut(n + i) {
            *out = (step.weight * d_variance) as f32;
        }
    }
    if let (true, Some(first)) = (spoilt(sums), gradient.first_mut()) {
        *first = f32::NAN;
    }
    sums
}
