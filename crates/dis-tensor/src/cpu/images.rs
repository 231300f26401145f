//! Batches of images. Samplers spend next to nothing here, so one thread does it.

use super::{Cpu, Rows, RowsMut, rows, rows_mut};
use crate::backend::{Reals, View, ViewMut};
use crate::error::Result;
use crate::host::HostBuf;
use crate::images::{ImageOps, deviation, of_sample, rescale_factor, threshold_bound, thresholded};
use crate::loss::{LossInputs, LossStep};

impl ImageOps for Cpu {
    fn run_combine(
        &self,
        terms: &[(&[f64], View<'_, Self>)],
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        let mut out: RowsMut<'_> = rows_mut(out);
        let terms: Vec<(&[f64], Rows<'_>)> = terms.iter().map(|(c, x)| (*c, rows(*x))).collect();
        let mut sum = vec![0.0f64; out.channels()];
        for b in 0..out.count() {
            sum.fill(0.0);
            for (coefficients, x) in &terms {
                let c = of_sample(coefficients, b);
                for (sum, &x) in sum.iter_mut().zip(x.row(b)) {
                    *sum += c * f64::from(x);
                }
            }
            for (out, &sum) in out.row(b).iter_mut().zip(&sum) {
                *out = sum as f32;
            }
        }
        Ok(())
    }

    fn run_clamp(&self, low: f64, high: f64, x: ViewMut<'_, Self>) -> Result<()> {
        let (low, high) = (low as f32, high as f32);
        let mut x = rows_mut(x);
        for b in 0..x.count() {
            for x in x.row(b) {
                // Unlike f32::clamp, accepts any limits.
                if *x < low {
                    *x = low;
                } else if *x > high {
                    *x = high;
                }
            }
        }
        Ok(())
    }

    fn run_add_noise(
        &self,
        noise: View<'_, Self>,
        log_scale: View<'_, Self>,
        slope: &[f64],
        offset: &[f64],
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        let (noise, log_scale, mut out) = (rows(noise), rows(log_scale), rows_mut(out));
        for b in 0..out.count() {
            let (slope, offset) = (of_sample(slope, b), of_sample(offset, b));
            if offset == f64::NEG_INFINITY {
                continue;
            }
            let values = out
                .row(b)
                .iter_mut()
                .zip(noise.row(b))
                .zip(log_scale.row(b));
            for ((x, &z), &s) in values {
                let scale = (slope * f64::from(s) + offset).exp();
                *x = (f64::from(*x) + scale * f64::from(z)) as f32;
            }
        }
        Ok(())
    }

    fn run_mix(
        &self,
        weight: View<'_, Self>,
        a: View<'_, Self>,
        b: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        let (weight, first, second) = (rows(weight), rows(a), rows(b));
        let mut out = rows_mut(out);
        for r in 0..out.count() {
            let inputs = weight.row(r).iter().zip(first.row(r)).zip(second.row(r));
            for (out, ((&w, &a), &b)) in out.row(r).iter_mut().zip(inputs) {
                *out = if w == 0.0 {
                    b
                } else if w == 1.0 {
                    a
                } else {
                    let w = f64::from(w);
                    (w * f64::from(a) + (1.0 - w) * f64::from(b)) as f32
                };
            }
        }
        Ok(())
    }

    fn run_rescale(&self, strength: f64, like: View<'_, Self>, x: ViewMut<'_, Self>) -> Result<()> {
        let (like, mut x) = (rows(like), rows_mut(x));
        for b in 0..x.count() {
            let [wanted, had] = [like.row(b), &*x.row(b)].map(|row| deviation(row.iter().copied()));
            let factor = rescale_factor(strength, wanted, had);
            for x in x.row(b) {
                *x = (factor * f64::from(*x)) as f32;
            }
        }
        Ok(())
    }

    fn run_threshold(&self, ratio: f64, most: f64, x: ViewMut<'_, Self>) -> Result<()> {
        let mut x = rows_mut(x);
        for b in 0..x.count() {
            let bound = threshold_bound(x.row(b).iter().copied(), ratio, most);
            x.row(b)
                .iter_mut()
                .for_each(|x| *x = thresholded(*x, bound));
        }
        Ok(())
    }

    fn run_gaussian_loss(
        &self,
        steps: &[LossStep],
        inputs: LossInputs<'_, Reals<Self>>,
        gradient: ViewMut<'_, Self>,
        sums: &mut HostBuf<f64>,
        at: usize,
    ) -> Result<()> {
        self.loss(steps, inputs, gradient, sums, at)
    }
}
