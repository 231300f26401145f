//! Images in float64, so that errors of high order are seen down to 1e-10. It is also what another
//! implementation of `State` looks like.

use std::ops::Range;

use dis_diffusion::{Error, Result, State};
use ndarray::{Array4, Axis, Slice, concatenate};

/// A batch of images in float64.
#[derive(Clone, Debug, PartialEq)]
pub struct Wide(pub Array4<f64>);

impl State for Wide {
    fn dims(&self) -> [usize; 4] {
        self.0.dim().into()
    }

    fn combine(terms: &[(&[f64], &Self)]) -> Result<Self> {
        let mut out = Array4::zeros(terms[0].1.0.raw_dim());
        for (coefficients, term) in terms {
            for (row, mut image) in out.axis_iter_mut(Axis(0)).enumerate() {
                let c = coefficients[if coefficients.len() == 1 { 0 } else { row }];
                image.scaled_add(c, &term.0.index_axis(Axis(0), row));
            }
        }
        Ok(Self(out))
    }

    fn clamp(&mut self, low: f32, high: f32) -> Result<()> {
        self.0
            .mapv_inplace(|x| x.clamp(f64::from(low), f64::from(high)));
        Ok(())
    }

    fn add_noise(
        &mut self,
        noise: &Self,
        log_scale: &Self,
        slope: &[f64],
        offset: &[f64],
    ) -> Result<()> {
        for (row, mut image) in self.0.axis_iter_mut(Axis(0)).enumerate() {
            let at = |c: &[f64]| c[if c.len() == 1 { 0 } else { row }];
            let (slope, offset) = (at(slope), at(offset));
            let scale = log_scale
                .0
                .index_axis(Axis(0), row)
                .mapv(|s| (slope * s + offset).exp());
            image += &(&noise.0.index_axis(Axis(0), row) * &scale);
        }
        Ok(())
    }

    fn channels(&self, range: Range<usize>) -> Result<Self> {
        Ok(Self(
            self.0.slice_axis(Axis(1), Slice::from(range)).to_owned(),
        ))
    }

    fn join_channels(parts: &[&Self]) -> Result<Self> {
        join(1, parts)
    }

    fn rows(&self, range: Range<usize>) -> Result<Self> {
        Ok(Self(
            self.0.slice_axis(Axis(0), Slice::from(range)).to_owned(),
        ))
    }

    fn stack(parts: &[&Self]) -> Result<Self> {
        join(0, parts)
    }

    fn place(&self, host: Array4<f32>) -> Result<Self> {
        Ok(Self(host.mapv(f64::from)))
    }

    fn fetch(&self) -> Result<Array4<f32>> {
        Ok(self.0.mapv(|x| x as f32))
    }

    fn is_finite(&self) -> Result<bool> {
        Ok(self.0.iter().all(|x| x.is_finite()))
    }
}

fn join(axis: usize, parts: &[&Wide]) -> Result<Wide> {
    let views: Vec<_> = parts.iter().map(|part| part.0.view()).collect();
    let joined = concatenate(Axis(axis), &views);
    joined
        .map(Wide)
        .map_err(|e| Error::Invalid(format!("joining: {e}")))
}
