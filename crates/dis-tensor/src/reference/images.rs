//! Batches of images, from the formulas. Statistics of a sample are float64 on every device, so that what scalars
//! carry besides does not come into them.

use super::{Reference, add, at, at_mut, for_each, set};
use crate::backend::{Reals, View, ViewMut};
use crate::error::Result;
use crate::host::HostBuf;
use crate::images::{ImageOps, of_sample};
use crate::loss::{LossInputs, LossStep};
use crate::scalar::Scalar;

impl<S: Scalar> ImageOps for Reference<S> {
    fn run_combine(
        &self,
        terms: &[(&[f64], View<'_, Self>)],
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        set(out, |b, t, c| {
            let term =
                |(list, x): &(&[f64], View<'_, Self>)| S::from(of_sample(list, b)) * at(x, b, t, c);
            S::sum(terms.iter().map(term))
        });
        Ok(())
    }

    fn run_clamp(&self, low: f64, high: f64, mut x: ViewMut<'_, Self>) -> Result<()> {
        for_each(x.layout, |b, t, c| {
            let x = at_mut(&mut x, b, t, c);
            if x.value() < low {
                *x = low.into();
            } else if x.value() > high {
                *x = high.into();
            }
        });
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
        add(out, |b, t, c| {
            let (slope, offset) = (of_sample(slope, b), of_sample(offset, b));
            if offset == f64::NEG_INFINITY {
                return S::default();
            }
            (S::from(slope) * at(&log_scale, b, t, c) + offset.into()).exp() * at(&noise, b, t, c)
        });
        Ok(())
    }

    fn run_mix(
        &self,
        weight: View<'_, Self>,
        a: View<'_, Self>,
        b: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        set(out, |r, t, c| {
            let (first, second) = (at(&a, r, t, c), at(&b, r, t, c));
            let w = at(&weight, r, t, c);
            match w.value() {
                0.0 => second,
                1.0 => first,
                _ => w * first + (S::from(1.0) - w) * second,
            }
        });
        Ok(())
    }

    fn run_rescale(
        &self,
        strength: f64,
        like: View<'_, Self>,
        mut x: ViewMut<'_, Self>,
    ) -> Result<()> {
        let n = x.layout.channels;
        for b in 0..x.layout.batch {
            let deviation = |of: &dyn Fn(usize) -> f64| {
                let mean = (0..n).map(of).sum::<f64>() / n as f64;
                let squares = (0..n).map(|c| (of(c) - mean).powi(2));
                (squares.sum::<f64>() / n as f64).sqrt()
            };
            let own = x.as_ref();
            let wanted = deviation(&|c| at(&like, b, 0, c).value());
            let had = deviation(&|c| at(&own, b, 0, c).value());
            let ratio = if had > 0.0 { wanted / had } else { 1.0 };
            let factor = S::from(strength * ratio + 1.0 - strength);
            for c in 0..n {
                let x = at_mut(&mut x, b, 0, c);
                *x = *x * factor;
            }
        }
        Ok(())
    }

    fn run_threshold(&self, ratio: f64, most: f64, mut x: ViewMut<'_, Self>) -> Result<()> {
        let n = x.layout.channels;
        for b in 0..x.layout.batch {
            let own = x.as_ref();
            let size = |c| at(&own, b, 0, c).value().abs();
            let mut sorted: Vec<f64> = (0..n).map(size).collect();
            sorted.sort_by(f64::total_cmp);
            let place = ratio * n.saturating_sub(1) as f64;
            let Some(low) = sorted.get(place as usize) else {
                continue;
            };
            let quantile = low + place.fract() * (sorted[place.ceil() as usize] - low);
            // One that is no number counts as 1.
            let bound = quantile.max(1.0).min(most);
            for c in 0..n {
                let x = at_mut(&mut x, b, 0, c);
                if x.value().abs() > bound {
                    *x = S::from(1f64.copysign(x.value()));
                } else {
                    *x = *x / S::from(bound);
                }
            }
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
