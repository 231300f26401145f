//! Batches of images, from the formulas.

use super::{Reference, add, at, at_mut, for_each, set};
use crate::backend::{Reals, View, ViewMut};
use crate::check::{self, dst};
use crate::error::Result;
use crate::host::HostBuf;
use crate::images::{
    ImageOps, check_add_noise, check_combine, check_mix, check_rescale, check_threshold, of_sample,
};
use crate::loss::{LossInputs, LossStep};
use crate::scalar::Scalar;

impl<S: Scalar> ImageOps for Reference<S> {
    fn combine(&self, terms: &[(&[f64], View<'_, Self>)], out: ViewMut<'_, Self>) -> Result<()> {
        check_combine::<Self>(terms, &out)?;
        set(out, |b, t, c| {
            let term =
                |(list, x): &(&[f64], View<'_, Self>)| S::from(of_sample(list, b)) * at(x, b, t, c);
            S::sum(terms.iter().map(term))
        });
        Ok(())
    }

    fn clamp(&self, low: f64, high: f64, mut x: ViewMut<'_, Self>) -> Result<()> {
        check::images("clamp", &[dst("x", &x)])?;
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

    fn add_noise(
        &self,
        noise: View<'_, Self>,
        log_scale: View<'_, Self>,
        slope: &[f64],
        offset: &[f64],
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        check_add_noise::<Self>(&noise, &log_scale, slope, offset, &out)?;
        add(out, |b, t, c| {
            let (slope, offset) = (of_sample(slope, b), of_sample(offset, b));
            if offset == f64::NEG_INFINITY {
                return S::default();
            }
            (S::from(slope) * at(&log_scale, b, t, c) + offset.into()).exp() * at(&noise, b, t, c)
        });
        Ok(())
    }

    fn mix(
        &self,
        weight: View<'_, Self>,
        a: View<'_, Self>,
        b: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        check_mix::<Self>(&weight, &a, &b, &out)?;
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

    fn rescale(&self, strength: f64, like: View<'_, Self>, mut x: ViewMut<'_, Self>) -> Result<()> {
        check_rescale::<Self>(&like, &x)?;
        let n = S::from(x.layout.channels as f64);
        for b in 0..x.layout.batch {
            let deviation = |of: &dyn Fn(usize) -> S| {
                let mean = S::sum((0..x.layout.channels).map(of)) / n;
                let squares = (0..x.layout.channels).map(|c| (of(c) - mean) * (of(c) - mean));
                (S::sum(squares) / n).sqrt()
            };
            let own = x.as_ref();
            let (wanted, had) = (
                deviation(&|c| at(&like, b, 0, c)),
                deviation(&|c| at(&own, b, 0, c)),
            );
            let one = S::from(1.0);
            let ratio = if had.value() > 0.0 { wanted / had } else { one };
            let factor = S::from(strength) * ratio + S::from(1.0 - strength);
            for c in 0..x.layout.channels {
                let x = at_mut(&mut x, b, 0, c);
                *x = *x * factor;
            }
        }
        Ok(())
    }

    fn threshold(&self, ratio: f64, most: f64, mut x: ViewMut<'_, Self>) -> Result<()> {
        check_threshold::<Self>(ratio, &x)?;
        let n = x.layout.channels;
        for b in 0..x.layout.batch {
            let own = x.as_ref();
            let mut sorted: Vec<S> = (0..n).map(|c| at(&own, b, 0, c).abs()).collect();
            sorted.sort_by(|a, b| a.value().total_cmp(&b.value()));
            let place = ratio * n.saturating_sub(1) as f64;
            let Some(&low) = sorted.get(place as usize) else {
                continue;
            };
            let high = sorted[place.ceil() as usize];
            let mut bound = low + S::from(place.fract()) * (high - low);
            if bound.value().is_nan() || bound.value() < 1.0 {
                bound = S::from(1.0);
            }
            if bound.value() > most {
                bound = S::from(most);
            }
            for c in 0..n {
                let x = at_mut(&mut x, b, 0, c);
                if x.value() > bound.value() {
                    *x = S::from(1.0);
                } else if x.value() < -bound.value() {
                    *x = S::from(-1.0);
                } else {
                    *x = *x / bound;
                }
            }
        }
        Ok(())
    }

    fn gaussian_loss(
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
