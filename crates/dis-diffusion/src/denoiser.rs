//! How this crate sees a network.

use ndarray::Array4;

use crate::{Result, State};

/// A network that a sampler can call.
pub trait Denoiser<S: State = Array4<f32>> {
    /// The network's output at `x`, of shape (batch, channels, height, width). `t` holds the
    /// original timestep of each sample, after respacing; it may be fractional with some samplers.
    /// The output has the channels of `x`, or twice as many if the variance is learned.
    ///
    /// # Errors
    /// Whatever the network fails with; see [`Error::network`](crate::Error::network).
    fn predict(&mut self, x: &S, t: &[f64]) -> Result<S>;
}

/// A network with a condition (class, text, ...) that can be left out, as guidance needs.
pub trait Conditional<S: State = Array4<f32>> {
    /// As [`Denoiser::predict`], where row i of `x` is seen under the condition of the sample
    /// `conditions[i]`, an index into whatever the implementation holds (labels, say), or without
    /// condition for `None`. The batch of `x` may be larger than the number of samples.
    ///
    /// # Errors
    /// Whatever the network fails with.
    fn predict_rows(&mut self, x: &S, t: &[f64], conditions: &[Option<usize>]) -> Result<S>;
}

impl<S: State, D: Denoiser<S> + ?Sized> Denoiser<S> for &mut D {
    fn predict(&mut self, x: &S, t: &[f64]) -> Result<S> {
        (**self).predict(x, t)
    }
}

impl<S: State, D: Conditional<S> + ?Sized> Conditional<S> for &mut D {
    fn predict_rows(&mut self, x: &S, t: &[f64], conditions: &[Option<usize>]) -> Result<S> {
        (**self).predict_rows(x, t, conditions)
    }
}

/// A closure as network; made by [`from_fn`] and [`from_conditional_fn`].
#[derive(Clone, Debug)]
pub struct FromFn<F>(F);

/// The network `|x, t| output`.
pub fn from_fn<S: State, F: FnMut(&S, &[f64]) -> S>(network: F) -> FromFn<F> {
    FromFn(network)
}

/// The conditional network `|x, t, conditions| output`.
pub fn from_conditional_fn<S, F>(network: F) -> FromFn<F>
where
    S: State,
    F: FnMut(&S, &[f64], &[Option<usize>]) -> S,
{
    FromFn(network)
}

impl<S: State, F: FnMut(&S, &[f64]) -> S> Denoiser<S> for FromFn<F> {
    fn predict(&mut self, x: &S, t: &[f64]) -> Result<S> {
        Ok((self.0)(x, t))
    }
}

impl<S: State, F: FnMut(&S, &[f64], &[Option<usize>]) -> S> Conditional<S> for FromFn<F> {
    fn predict_rows(&mut self, x: &S, t: &[f64], conditions: &[Option<usize>]) -> Result<S> {
        Ok((self.0)(x, t, conditions))
    }
}
