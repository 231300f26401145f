//! Entry points for `ndarray` arrays, in (batch, length, channels) order, that need nothing else of
//! this workspace. They run on the current rayon pool, and copy only arrays that are not contiguous, B and
//! C, which are put side by side, and inputs of a convolution that begins with a state.

mod conv;
mod element;
mod matrix;
mod scan;

pub use conv::{ConvGradients, causal_conv1d, causal_conv1d_grad, causal_conv1d_update};
pub use element::ScanElement;
pub use matrix::ScanMatrix;
pub use scan::{
    ScanGradients, ScanOptions, ScanOutput, selective_scan, selective_scan_grad,
    selective_state_update,
};

use dis_tensor::{Layout, Result, TensorError};
use ndarray::{Array, ArrayView, ArrayView3, Dimension, IntoDimension};
use std::borrow::Cow;

/// The elements of an array in row-major order, copied only if they do not lie so.
fn dense<'a, T: Copy, D: Dimension>(array: &'a ArrayView<'_, T, D>) -> Cow<'a, [T]> {
    match array.as_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(array.iter().copied().collect()),
    }
}

fn shape3<T>(array: &ArrayView3<'_, T>) -> [usize; 3] {
    array.dim().into()
}

fn layout3([batch, length, channels]: [usize; 3]) -> Layout {
    Layout::dense(batch, length, channels)
}

/// A result in the shape of an argument.
fn array<T, S: IntoDimension>(
    op: &'static str,
    shape: S,
    data: Vec<T>,
) -> Result<Array<T, S::Dim>> {
    Array::from_shape_vec(shape.into_dimension(), data).map_err(|error| TensorError::Invalid {
        op,
        what: error.to_string(),
    })
}
