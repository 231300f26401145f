//! What a sampler does to an image: the few operations every array, on the host or on a device,
//! must offer. Samplers, guidance and q_sample are written over this trait only.

use std::ops::Range;

use dis_tensor::images::{deviation, rescale_factor, threshold_bound, thresholded};
use ndarray::{Array4, Axis, Slice, concatenate};

use crate::{Error, Result};

/// A batch of images, or of network outputs, of shape (batch, channels, height, width).
///
/// Coefficients are float64, one for each sample of the batch, or a single one for all of them.
pub trait State: Clone {
    /// (batch, channels, height, width).
    fn dims(&self) -> [usize; 4];

    /// The sum over k of `coefficient_k[sample] * term_k`, at least one term, equal shapes.
    ///
    /// # Errors
    /// Shapes that differ, coefficients of another number than samples, a device that failed.
    fn combine(terms: &[(&[f64], &Self)]) -> Result<Self>;

    /// Limits every value to `[low, high]`; not-a-number stays.
    ///
    /// # Errors
    /// A device that failed.
    fn clamp(&mut self, low: f32, high: f32) -> Result<()>;

    /// Adds `exp(slope[sample] * log_scale + offset[sample]) * noise`. An offset of minus
    /// infinity adds nothing.
    ///
    /// # Errors
    /// Shapes that differ, coefficients of another number than samples, a device that failed.
    fn add_noise(
        &mut self,
        noise: &Self,
        log_scale: &Self,
        slope: &[f64],
        offset: &[f64],
    ) -> Result<()>;

    /// A copy of some channels of every sample.
    ///
    /// # Errors
    /// A range beyond what there is, a device that failed.
    fn channels(&self, range: Range<usize>) -> Result<Self>;

    /// Arrays of one batch beside each other along the channels.
    ///
    /// # Errors
    /// Parts of other batches or sizes, a device that failed.
    fn join_channels(parts: &[&Self]) -> Result<Self>;

    /// A copy of some samples.
    ///
    /// # Errors
    /// A range beyond what there is, a device that failed.
    fn rows(&self, range: Range<usize>) -> Result<Self>;

    /// Batches one after the other.
    ///
    /// # Errors
    /// Parts of other sizes, a device that failed.
    fn stack(parts: &[&Self]) -> Result<Self>;

    /// Takes a host array to where `self` lives.
    ///
    /// # Errors
    /// A device that failed.
    fn place(&self, host: Array4<f32>) -> Result<Self>;

    /// A copy on the host.
    ///
    /// # Errors
    /// A device that failed.
    fn fetch(&self) -> Result<Array4<f32>>;

    /// Whether all values are finite.
    ///
    /// # Errors
    /// A device that failed.
    fn is_finite(&self) -> Result<bool>;

    /// Scales every sample towards the standard deviation, about its mean, of the same sample of `like`:
    /// times `strength * deviation(like) / deviation(self) + 1 - strength`. A sample without deviation stays.
    ///
    /// # Errors
    /// Shapes that differ, a device that failed.
    fn rescale(&mut self, like: &Self, strength: f64) -> Result<()> {
        same_dims("what deviations are taken from", like, self)?;
        let (mut host, like) = (self.fetch()?, like.fetch()?);
        for (mut image, like) in host.axis_iter_mut(Axis(0)).zip(like.axis_iter(Axis(0))) {
            let wanted = deviation(like.iter().copied());
            let factor = rescale_factor(strength, wanted, deviation(image.iter().copied()));
            image.mapv_inplace(|x| (factor * f64::from(x)) as f32);
        }
        *self = self.place(host)?;
        Ok(())
    }

    /// Limits every sample to plus or minus s and divides it by s, which is the quantile `ratio` of its absolute
    /// values, linear between two of them, but at least 1 and at most `max`. Not-a-number stays.
    ///
    /// # Errors
    /// A device that failed.
    fn threshold(&mut self, ratio: f64, max: f64) -> Result<()> {
        let mut host = self.fetch()?;
        for mut image in host.axis_iter_mut(Axis(0)) {
            let bound = threshold_bound(image.iter().copied(), ratio, max);
            image.mapv_inplace(|x| thresholded(x, bound));
        }
        *self = self.place(host)?;
        Ok(())
    }

    /// `weight * self + (1 - weight) * other`, elementwise. Where the weight is 0 or 1, the value
    /// is exactly that of one of the two.
    ///
    /// # Errors
    /// Shapes that differ, a device that failed.
    fn mix(&self, other: &Self, weight: &Self) -> Result<Self> {
        same_dims("other image", other, self)?;
        same_dims("weight", weight, self)?;
        let mut out = self.fetch()?;
        ndarray::Zip::from(&mut out)
            .and(&other.fetch()?)
            .and(&weight.fetch()?)
            .for_each(|a, &b, &w| {
                if w == 0.0 {
                    *a = b;
                } else if w != 1.0 {
                    let (w, b) = (f64::from(w), f64::from(b));
                    *a = (w * f64::from(*a) + (1.0 - w) * b) as f32;
                }
            });
        self.place(out)
    }
}

impl State for Array4<f32> {
    fn dims(&self) -> [usize; 4] {
        self.dim().into()
    }

    fn combine(terms: &[(&[f64], &Self)]) -> Result<Self> {
        let Some((_, first)) = terms.first() else {
            return Err(Error::Invalid(
                "a linear combination needs a term".to_owned(),
            ));
        };
        let batch = first.dim().0;
        for (coefficient, term) in terms {
            same_dims("term of a linear combination", *term, *first)?;
            per_sample("coefficients", coefficient, batch)?;
        }
        let mut out = Array4::zeros(first.raw_dim());
        let mut sum = vec![0.0f64; out.len() / batch.max(1)];
        for (row, mut image) in out.axis_iter_mut(Axis(0)).enumerate() {
            sum.fill(0.0);
            for (coefficient, term) in terms {
                let c = at(coefficient, row);
                let values = term.index_axis(Axis(0), row);
                sum.iter_mut()
                    .zip(values)
                    .for_each(|(s, x)| *s += c * f64::from(*x));
            }
            image.iter_mut().zip(&sum).for_each(|(y, s)| *y = *s as f32);
        }
        Ok(out)
    }

    fn clamp(&mut self, low: f32, high: f32) -> Result<()> {
        self.mapv_inplace(|x| {
            // Unlike f32::clamp, accepts any limits.
            if x < low {
                low
            } else if x > high {
                high
            } else {
                x
            }
        });
        Ok(())
    }

    fn add_noise(
        &mut self,
        noise: &Self,
        log_scale: &Self,
        slope: &[f64],
        offset: &[f64],
    ) -> Result<()> {
        let batch = self.dim().0;
        same_dims("noise", noise, self)?;
        same_dims("log variance", log_scale, self)?;
        per_sample("slopes", slope, batch)?;
        per_sample("offsets", offset, batch)?;
        for (row, mut image) in self.axis_iter_mut(Axis(0)).enumerate() {
            let (slope, offset) = (at(slope, row), at(offset, row));
            if offset == f64::NEG_INFINITY {
                continue;
            }
            let values = noise.index_axis(Axis(0), row);
            let scales = log_scale.index_axis(Axis(0), row);
            for ((x, z), s) in image.iter_mut().zip(values).zip(scales) {
                let scale = (slope * f64::from(*s) + offset).exp();
                *x = (f64::from(*x) + scale * f64::from(*z)) as f32;
            }
        }
        Ok(())
    }

    fn channels(&self, range: Range<usize>) -> Result<Self> {
        part(self, 1, "channels", range)
    }

    fn join_channels(parts: &[&Self]) -> Result<Self> {
        join(1, parts)
    }

    fn rows(&self, range: Range<usize>) -> Result<Self> {
        part(self, 0, "samples", range)
    }

    fn stack(parts: &[&Self]) -> Result<Self> {
        join(0, parts)
    }

    fn place(&self, host: Array4<f32>) -> Result<Self> {
        Ok(host)
    }

    fn fetch(&self) -> Result<Array4<f32>> {
        Ok(self.clone())
    }

    fn is_finite(&self) -> Result<bool> {
        Ok(self.iter().all(|x| x.is_finite()))
    }
}

/// A range along an axis.
fn part(
    whole: &Array4<f32>,
    axis: usize,
    what: &'static str,
    range: Range<usize>,
) -> Result<Array4<f32>> {
    if range.start > range.end || range.end > whole.shape()[axis] {
        let asked = [range.start, range.end];
        return Err(Error::shape(what, &asked, whole.shape()));
    }
    let part = whole.slice_axis(Axis(axis), Slice::from(range));
    Ok(row_major(part.to_owned()))
}

fn join(axis: usize, parts: &[&Array4<f32>]) -> Result<Array4<f32>> {
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    let joined = concatenate(Axis(axis), &views)
        .map_err(|e| Error::Invalid(format!("joining {} arrays: {e}", parts.len())))?;
    // `concatenate` may order memory by the joined axis; everything here is row-major.
    Ok(row_major(joined))
}

pub(crate) fn row_major(x: Array4<f32>) -> Array4<f32> {
    if x.is_standard_layout() {
        x
    } else {
        x.as_standard_layout().into_owned()
    }
}

/// The coefficient of a sample.
fn at(coefficients: &[f64], row: usize) -> f64 {
    if coefficients.len() == 1 {
        coefficients[0]
    } else {
        coefficients[row]
    }
}

pub(crate) fn same_dims<S: State>(what: &'static str, got: &S, expected: &S) -> Result<()> {
    if got.dims() == expected.dims() {
        Ok(())
    } else {
        Err(Error::shape(what, &got.dims(), &expected.dims()))
    }
}

pub(crate) fn per_sample(what: &'static str, coefficients: &[f64], batch: usize) -> Result<()> {
    match coefficients.len() {
        1 => Ok(()),
        n if n == batch => Ok(()),
        got => Err(Error::Count {
            what,
            got,
            expected: batch,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(shape: (usize, usize, usize, usize)) -> Array4<f32> {
        let mut n = 0.0;
        Array4::from_shape_simple_fn(shape, || {
            n += 1.0;
            n
        })
    }

    #[test]
    fn combines_per_sample() {
        let x = ramp((2, 1, 1, 3));
        let y = Array4::combine(&[(&[2.0, -1.0], &x), (&[0.5], &x)]).unwrap();
        assert_eq!(
            y.into_raw_vec_and_offset().0,
            [2.5, 5.0, 7.5, -2.0, -2.5, -3.0]
        );
        assert!(Array4::combine(&[(&[1.0, 1.0, 1.0], &x)]).is_err());
        assert!(Array4::combine(&[(&[1.0], &x), (&[1.0], &ramp((2, 1, 3, 1)))]).is_err());
        assert!(<Array4<f32> as State>::combine(&[]).is_err());
    }

    #[test]
    fn views_and_joins_are_inverse() {
        let x = ramp((3, 4, 2, 1));
        let parts = [x.channels(0..3).unwrap(), x.channels(3..4).unwrap()];
        assert_eq!(Array4::join_channels(&[&parts[0], &parts[1]]).unwrap(), x);
        let parts = [x.rows(0..1).unwrap(), x.rows(1..3).unwrap()];
        assert_eq!(Array4::stack(&[&parts[0], &parts[1]]).unwrap(), x);
        assert!(
            Array4::join_channels(&[&x, &x])
                .unwrap()
                .is_standard_layout()
        );
        assert!(x.channels(1..3).unwrap().is_standard_layout());
        assert!(x.channels(2..5).is_err());
        assert!(x.rows(0..4).is_err());
        assert!(Array4::stack(&[&x, &parts[0].channels(0..1).unwrap()]).is_err());
    }

    #[test]
    fn masked_noise_adds_nothing_even_where_the_scale_is_absurd() {
        let x = ramp((2, 1, 1, 2));
        let mut y = x.clone();
        let huge = Array4::from_elem((2, 1, 1, 2), f32::INFINITY);
        let noise = ramp((2, 1, 1, 2));
        y.add_noise(&noise, &huge, &[0.0, 1.0], &[0.0, f64::NEG_INFINITY])
            .unwrap();
        assert_eq!(y.rows(1..2).unwrap(), x.rows(1..2).unwrap());
    }
}
