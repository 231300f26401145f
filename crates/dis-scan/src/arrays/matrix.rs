//! B and C of a scan, in the three forms that models have.

use super::dense;
use dis_tensor::{Result, TensorError, same_shape};
use ndarray::{ArrayD, ArrayView2, ArrayView3, ArrayView4};
use std::borrow::Cow;

use super::ScanElement;

/// B or C of a selective scan. Made of a view by `into()`: two dimensions are [`ScanMatrix::Constant`], three
/// [`ScanMatrix::Variable`], four [`ScanMatrix::Grouped`].
#[derive(Clone, Copy, Debug)]
pub enum ScanMatrix<'a, T = f32> {
    /// The same for every token, but each channel's own: (channels, states). Every channel then is scanned
    /// alone, which leaves fifteen of sixteen SIMD lanes idle.
    Constant(ArrayView2<'a, T>),
    /// One for each token, shared by all channels: (batch, length, states).
    Variable(ArrayView3<'a, T>),
    /// Some for each token: (batch, length, groups, states). Channel d uses group
    /// `d / (channels / groups)`; groups of a multiple of sixteen channels are as fast as one.
    Grouped(ArrayView4<'a, T>),
}

impl<'a, T> From<ArrayView2<'a, T>> for ScanMatrix<'a, T> {
    fn from(view: ArrayView2<'a, T>) -> Self {
        Self::Constant(view)
    }
}

impl<'a, T> From<ArrayView3<'a, T>> for ScanMatrix<'a, T> {
    fn from(view: ArrayView3<'a, T>) -> Self {
        Self::Variable(view)
    }
}

impl<'a, T> From<ArrayView4<'a, T>> for ScanMatrix<'a, T> {
    fn from(view: ArrayView4<'a, T>) -> Self {
        Self::Grouped(view)
    }
}

/// Rows of B or C by sample, token and group of channels.
pub(super) struct Rows<'a, T: Copy> {
    values: Cow<'a, [T]>,
    shape: Vec<usize>,
    /// Groups of channels that differ.
    pub(super) groups: usize,
    length: usize,
    states: usize,
}

impl<'a, T: ScanElement> Rows<'a, T> {
    pub(super) fn new(
        op: &'static str,
        name: &'static str,
        matrix: &'a ScanMatrix<'_, T>,
        [batch, length, channels]: [usize; 3],
        states: usize,
    ) -> Result<Self> {
        let (values, shape, groups) = match matrix {
            ScanMatrix::Constant(x) => {
                let shape = [1, x.nrows(), x.ncols()];
                let expected = [1, channels, states];
                same_shape(op, name, shape, "(1, channels, states)", expected)?;
                (dense(x), x.shape(), channels)
            }
            ScanMatrix::Variable(x) => {
                let expected = [batch, length, states];
                same_shape(
                    op,
                    name,
                    x.dim().into(),
                    "(batch, length, states)",
                    expected,
                )?;
                (dense(x), x.shape(), 1)
            }
            ScanMatrix::Grouped(x) => {
                let (b, l, groups, n) = x.dim();
                let expected = [batch, length, states];
                same_shape(op, name, [b, l, n], "(batch, length, states)", expected)?;
                if groups == 0 || !channels.is_multiple_of(groups) {
                    let what = format!(
                        "{name} has {groups} groups, which do not divide {channels} channels"
                    );
                    return Err(TensorError::Invalid { op, what });
                }
                (dense(x), x.shape(), groups)
            }
        };
        Ok(Self {
            values,
            shape: shape.to_vec(),
            groups,
            length,
            states,
        })
    }

    /// Where the row of a sample, a token and a group begins, `group` being one of `of`.
    fn start(&self, b: usize, t: usize, group: usize, of: usize) -> usize {
        let own = group * self.groups / of;
        let row = match self.shape.len() {
            2 => own,
            _ => (b * self.length + t) * self.groups + own,
        };
        row * self.states
    }

    /// The row of a sample, a token and a group, `group` being one of `of`.
    pub(super) fn row(&self, b: usize, t: usize, group: usize, of: usize) -> &[T] {
        &self.values[self.start(b, t, group, of)..][..self.states]
    }

    /// An empty gradient of the matrix.
    pub(super) fn gradient(&self) -> Vec<f64> {
        vec![0.0; self.values.len()]
    }

    /// Adds the gradient of a row, as [`Rows::row`] counts.
    pub(super) fn add(&self, sum: &mut [f64], [b, t, group, of]: [usize; 4], row: &[T]) {
        let start = self.start(b, t, group, of);
        for (to, &value) in sum[start..][..self.states].iter_mut().zip(row) {
            *to += value.into();
        }
    }

    /// A gradient in the shape of the matrix.
    pub(super) fn shaped(&self, op: &'static str, sum: Vec<f64>) -> Result<ArrayD<T>> {
        let values = sum.into_iter().map(T::round).collect();
        super::array(op, self.shape.clone(), values)
    }
}
