//! Batches of images where a backend computes, so that a sampling step never goes to the host.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use dis_tensor::{Buffer, ImageOps, Layout, Reals, TensorError, Tokens, TokensMut, View, ViewMut};
use ndarray::Array4;

use crate::state::{per_sample, row_major, same_dims};
use crate::{Error, Result, State};

/// Images of shape (batch, channels, height, width), dense, in a backend's memory.
///
/// Operations are queued and return at once; only [`fetch`](State::fetch) and
/// [`is_finite`](State::is_finite) wait.
/// Clones share memory until one is changed. On the CPU every result has the bits that
/// [`Array4`] gives.
pub struct OnDevice<B: ImageOps> {
    backend: B,
    buf: Arc<Reals<B>>,
    dims: [usize; 4],
}

impl<B: ImageOps> Clone for OnDevice<B> {
    fn clone(&self) -> Self {
        Self {
            backend: self.backend.clone(),
            buf: Arc::clone(&self.buf),
            dims: self.dims,
        }
    }
}

impl<B: ImageOps> fmt::Debug for OnDevice<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnDevice({:?} of {:?})", self.dims, self.backend)
    }
}

impl<B: ImageOps> OnDevice<B> {
    /// Takes images to a backend.
    pub fn new(backend: &B, host: Array4<f32>) -> Self {
        let dims = host.dim().into();
        let host = row_major(host);
        let buf = match host.as_slice() {
            Some(values) => backend.from_f32(values),
            None => backend.from_f32(&host.iter().copied().collect::<Vec<_>>()),
        };
        Self {
            backend: backend.clone(),
            buf: Arc::new(buf),
            dims,
        }
    }

    /// Images that lie there already.
    ///
    /// # Errors
    /// A buffer of another size.
    pub fn from_buf(backend: &B, buf: Reals<B>, dims: [usize; 4]) -> Result<Self> {
        let expected = dims.iter().product();
        if buf.len() != expected {
            return Err(Error::shape("images", &[buf.len()], &[expected]));
        }
        Ok(Self {
            backend: backend.clone(),
            buf: Arc::new(buf),
            dims,
        })
    }

    /// The values, in the order of the dimensions.
    pub fn buf(&self) -> &Reals<B> {
        &self.buf
    }

    /// Values of an image.
    fn values(&self) -> usize {
        self.dims[1] * self.pixels()
    }

    /// Values of a channel.
    fn pixels(&self) -> usize {
        self.dims[2] * self.dims[3]
    }

    /// One token a sample.
    fn layout(&self) -> Layout {
        Layout::dense(self.dims[0], 1, self.values())
    }

    pub(crate) fn view(&self) -> View<'_, B> {
        Tokens::new(&self.buf, self.layout())
    }

    /// New images of these dimensions, written by `f`.
    fn made(&self, dims: [usize; 4], f: impl FnOnce(&mut Reals<B>) -> Result<()>) -> Result<Self> {
        let mut buf = self.backend.alloc(dims.iter().product());
        f(&mut buf)?;
        Self::from_buf(&self.backend, buf, dims)
    }

    /// New images of the same dimensions, written by `f`.
    pub(crate) fn like(&self, f: impl FnOnce(&B, ViewMut<'_, B>) -> Result<()>) -> Result<Self> {
        self.made(self.dims, |buf| {
            f(&self.backend, TokensMut::new(buf, self.layout()))
        })
    }

    /// The images, to change: a copy of them where they are shared.
    fn change(&mut self, f: impl FnOnce(&B, ViewMut<'_, B>) -> Result<()>) -> Result<()> {
        let layout = self.layout();
        if Arc::get_mut(&mut self.buf).is_none() {
            let copy = self.made(self.dims, |buf| {
                Ok(self
                    .backend
                    .copy(self.view(), TokensMut::new(buf, layout))?)
            })?;
            *self = copy;
        }
        let Some(buf) = Arc::get_mut(&mut self.buf) else {
            return Err(Error::Invalid("shared images cannot be changed".into()));
        };
        f(&self.backend, TokensMut::new(buf, layout))
    }

    /// Puts parts one after the other along an axis: 0 for samples, 1 for channels.
    fn join(axis: usize, parts: &[&Self]) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::Invalid("joining 0 arrays".into()));
        };
        let mut dims = first.dims;
        dims[axis] = 0;
        for part in parts {
            let mut expected = first.dims;
            expected[axis] = part.dims[axis];
            if part.dims != expected {
                return Err(Error::shape("joined arrays", &part.dims, &expected));
            }
            dims[axis] += part.dims[axis];
        }
        let row: usize = dims[1..].iter().product();
        first.made(dims, |buf| {
            let mut start = 0;
            for part in parts {
                let mut to = part.layout().at(start);
                to.batch_stride = row;
                start += if axis == 0 {
                    part.dims[0] * row
                } else {
                    part.values()
                };
                first
                    .backend
                    .copy(part.view(), TokensMut::new(&mut *buf, to))?;
            }
            Ok(())
        })
    }
}

impl<B: ImageOps> State for OnDevice<B> {
    fn dims(&self) -> [usize; 4] {
        self.dims
    }

    fn combine(terms: &[(&[f64], &Self)]) -> Result<Self> {
        let Some((_, first)) = terms.first() else {
            let what = "a linear combination needs a term".to_owned();
            return Err(Error::Invalid(what));
        };
        for (coefficients, term) in terms {
            same_dims("term of a linear combination", *term, *first)?;
            per_sample("coefficients", coefficients, first.dims[0])?;
        }
        let views: Vec<_> = terms.iter().map(|(c, term)| (*c, term.view())).collect();
        first.made(first.dims, |buf| {
            let out = TokensMut::new(buf, first.layout());
            Ok(first.backend.combine(&views, out)?)
        })
    }

    fn clamp(&mut self, low: f32, high: f32) -> Result<()> {
        self.change(|backend, x| Ok(backend.clamp(f64::from(low), f64::from(high), x)?))
    }

    fn add_noise(
        &mut self,
        noise: &Self,
        log_scale: &Self,
        slope: &[f64],
        offset: &[f64],
    ) -> Result<()> {
        same_dims("noise", noise, self)?;
        same_dims("log variance", log_scale, self)?;
        per_sample("slopes", slope, self.dims[0])?;
        per_sample("offsets", offset, self.dims[0])?;
        self.change(|backend, x| {
            Ok(backend.add_noise(noise.view(), log_scale.view(), slope, offset, x)?)
        })
    }

    fn channels(&self, range: Range<usize>) -> Result<Self> {
        if range.start > range.end || range.end > self.dims[1] {
            let wanted = [range.start, range.end];
            return Err(Error::shape("channels", &wanted, &self.dims));
        }
        let (start, count) = (range.start * self.pixels(), range.len() * self.pixels());
        let [batch, _, height, width] = self.dims;
        self.made([batch, range.len(), height, width], |buf| {
            let part = Tokens::new(&*self.buf, self.layout().columns(start, count));
            let out = TokensMut::new(buf, Layout::dense(batch, 1, count));
            Ok(self.backend.copy(part, out)?)
        })
    }

    fn join_channels(parts: &[&Self]) -> Result<Self> {
        Self::join(1, parts)
    }

    fn rows(&self, range: Range<usize>) -> Result<Self> {
        let [batch, channels, height, width] = self.dims;
        if range.start > range.end || range.end > batch {
            return Err(Error::shape(
                "samples",
                &[range.start, range.end],
                &self.dims,
            ));
        }
        let count = range.len();
        self.made([count, channels, height, width], |buf| {
            let part = self.layout().sample_range(range.start, count);
            let out = TokensMut::new(buf, Layout::dense(count, 1, self.values()));
            Ok(self.backend.copy(Tokens::new(&*self.buf, part), out)?)
        })
    }

    fn stack(parts: &[&Self]) -> Result<Self> {
        Self::join(0, parts)
    }

    fn place(&self, host: Array4<f32>) -> Result<Self> {
        Ok(Self::new(&self.backend, host))
    }

    fn fetch(&self) -> Result<Array4<f32>> {
        let values = self.backend.to_f32(&self.buf);
        if let Some(what) = self.backend.failure() {
            return Err(Error::Device(TensorError::Device { op: "read", what }));
        }
        Array4::from_shape_vec(self.dims, values)
            .map_err(|_| Error::shape("images", &[self.buf.len()], &self.dims))
    }

    fn is_finite(&self) -> Result<bool> {
        Ok(self.fetch()?.iter().all(|x| x.is_finite()))
    }

    fn rescale(&mut self, like: &Self, strength: f64) -> Result<()> {
        same_dims("what deviations are taken from", like, self)?;
        self.change(|backend, x| Ok(backend.rescale(strength, like.view(), x)?))
    }

    fn threshold(&mut self, ratio: f64, max: f64) -> Result<()> {
        self.change(|backend, x| Ok(backend.threshold(ratio, max, x)?))
    }

    fn mix(&self, other: &Self, weight: &Self) -> Result<Self> {
        same_dims("other image", other, self)?;
        same_dims("weight", weight, self)?;
        self.made(self.dims, |buf| {
            let out = TokensMut::new(buf, self.layout());
            let (weight, a, b) = (weight.view(), self.view(), other.view());
            Ok(self.backend.mix(weight, a, b, out)?)
        })
    }
}
