//! B and C of a scan in all their forms, side by side as kernels read them.

use crate::arrays::{Input, expect_shape, input, shape_text};
use crate::tiles::Tile;
use dis_tensor::{Layout, Tokens};
use ndarray::{ArrayView4, ArrayViewMut4, ArrayViewMutD, Axis, Ix2, Ix3, Ix4};
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rayon::prelude::*;
use std::ops::Range;

/// What the axes of B and C may be.
pub const AXES: &str =
    "(channels, states), (batch, length, states) or (batch, length, groups, states)";

/// B or C: (batch, length, groups, states), with one sample and one token where it is constant.
pub enum Matrix<'py> {
    Constant(Input<'py, Ix2>),
    Variable(Input<'py, Ix3>),
    Grouped(Input<'py, Ix4>),
}

impl<'py> Matrix<'py> {
    pub fn new(name: &str, value: &Bound<'py, PyAny>) -> PyResult<Self> {
        let axes = value.cast::<PyUntypedArray>().map_or(3, |x| x.ndim());
        Ok(match axes {
            2 => Self::Constant(input(name, "(channels, states)", value)?),
            4 => Self::Grouped(input(name, "(batch, length, groups, states)", value)?),
            3 => Self::Variable(input(name, AXES, value)?),
            _ => {
                input::<Ix3>(name, AXES, value)?;
                return Err(PyValueError::new_err(format!(
                    "{name} has {axes} axes, expected {AXES}"
                )));
            }
        })
    }

    /// Checked against the scan's sizes.
    pub fn view(
        &self,
        name: &str,
        [batch, length, channels, states]: [usize; 4],
    ) -> PyResult<Rows<'_>> {
        let (view, constant) = match self {
            Self::Constant(x) => {
                let view = x.view();
                expect_shape(
                    name,
                    "(channels, states)",
                    view.shape(),
                    &[channels, states],
                )?;
                (view.insert_axis(Axis(0)).insert_axis(Axis(0)), true)
            }
            Self::Variable(x) => {
                let view = x.view();
                expect_shape(
                    name,
                    "(batch, length, states)",
                    view.shape(),
                    &[batch, length, states],
                )?;
                (view.insert_axis(Axis(2)), false)
            }
            Self::Grouped(x) => {
                let view = x.view();
                let groups = view.dim().2;
                let axes = "(batch, length, groups, states)";
                expect_shape(name, axes, view.shape(), &[batch, length, groups, states])?;
                if groups == 0 || !channels.is_multiple_of(groups) {
                    return Err(PyValueError::new_err(format!(
                        "{name} of shape {} has {groups} groups, which do not divide {channels} channels",
                        shape_text(view.shape())
                    )));
                }
                (view, false)
            }
        };
        Ok(Rows { view, constant })
    }
}

/// Rows of B or C by sample, token and group of channels.
pub struct Rows<'a> {
    view: ArrayView4<'a, f32>,
    constant: bool,
}

impl Rows<'_> {
    /// Groups of channels that have rows of their own.
    pub fn groups(&self) -> usize {
        self.view.dim().2
    }
}

/// B and C side by side.
pub struct Pair<'a> {
    b: Rows<'a>,
    c: Rows<'a>,
    /// (batch, length, groups, 2 states), if neither is constant: then it would be as many copies as channels.
    joined: Option<Vec<f32>>,
    pub groups: usize,
    states: usize,
    length: usize,
    batch: usize,
}

/// Both divide the number of channels, so this does too.
pub fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
}

impl<'a> Pair<'a> {
    pub fn new(b: Rows<'a>, c: Rows<'a>, [batch, length, _, states]: [usize; 4]) -> Self {
        let groups = least_common_multiple(b.groups(), c.groups());
        let mut pair = Self {
            b,
            c,
            joined: None,
            groups,
            states,
            length,
            batch,
        };
        if !pair.b.constant && !pair.c.constant {
            let mut joined = vec![0.0; batch * length * groups * 2 * states];
            let sample = (length * groups * 2 * states).max(1);
            for (sample, to) in joined.chunks_exact_mut(sample).enumerate() {
                pair.join(sample, (0, length), 0..groups, to);
            }
            pair.joined = Some(joined);
        }
        pair
    }

    /// Copies rows of a sample's tokens and of some groups to (tokens, groups, 2 states).
    fn join(&self, sample: usize, tokens: (usize, usize), groups: Range<usize>, to: &mut [f32]) {
        let width = groups.len() * 2 * self.states;
        for (side, rows) in [&self.b, &self.c].into_iter().enumerate() {
            for (k, group) in groups.clone().enumerate() {
                let own = group * rows.groups() / self.groups;
                let column = k * 2 * self.states + side * self.states;
                if rows.constant {
                    let from = rows.view.index_axis(Axis(0), 0);
                    let from = from.index_axis(Axis(0), 0);
                    let from = from.index_axis(Axis(0), own);
                    for row in to.chunks_exact_mut(width) {
                        row[column..][..self.states]
                            .iter_mut()
                            .zip(from)
                            .for_each(|(to, &x)| *to = x);
                    }
                    continue;
                }
                let from = rows.view.index_axis(Axis(0), sample);
                let from = from.index_axis(Axis(1), own);
                let from = from.slice(ndarray::s![tokens.0..tokens.0 + tokens.1, ..]);
                if from.strides()[1] == 1 || self.states == 1 {
                    for (row, from) in to.chunks_exact_mut(width).zip(from.rows()) {
                        row[column..][..self.states]
                            .iter_mut()
                            .zip(from)
                            .for_each(|(to, &x)| *to = x);
                    }
                } else {
                    for (n, from) in from.columns().into_iter().enumerate() {
                        let to = to.iter_mut().skip(column + n).step_by(width);
                        to.zip(from).for_each(|(to, &x)| *to = x);
                    }
                }
            }
        }
    }

    /// Numbers that [`Pair::tile`] copies for so many tokens.
    pub fn tile_len(&self, tokens: usize) -> usize {
        match self.joined {
            Some(_) => 0,
            None => tokens * 2 * self.states,
        }
    }

    /// B and C of a group for the tokens of a tile.
    pub fn tile<'m>(
        &'m self,
        group: usize,
        tile: Tile,
        memory: &'m mut [f32],
    ) -> Tokens<'m, [f32]> {
        let (first, count) = tile.tokens;
        if let Some(whole) = self.whole(group) {
            let layout = whole.layout.sample_range(tile.sample, 1);
            return Tokens::new(whole.buf, layout.token_range(first, count));
        }
        self.join(tile.sample, tile.tokens, group..group + 1, memory);
        Tokens::new(memory, Layout::dense(1, count, 2 * self.states))
    }

    /// B and C of a group for all samples and tokens, if they are variable.
    pub fn whole(&self, group: usize) -> Option<Tokens<'_, [f32]>> {
        let joined = self.joined.as_ref()?;
        let layout = Layout::dense(self.batch, self.length, self.groups * 2 * self.states);
        Some(Tokens::new(
            &joined[..],
            layout.columns(group * 2 * self.states, 2 * self.states),
        ))
    }
}

/// The gradient of B or C, to be added to: (batch, length, groups, states), or one sample and token where the
/// matrix is constant.
pub struct Gradient<'a> {
    view: ArrayViewMut4<'a, f32>,
    constant: bool,
    of: usize,
}

impl<'a> Gradient<'a> {
    /// All zero, for a matrix of the same shape; `of` is the number of groups of both.
    pub fn new(
        name: &str,
        view: ArrayViewMutD<'a, f32>,
        like: &Matrix<'_>,
        of: usize,
    ) -> PyResult<Self> {
        let (shape, constant) = match like {
            Matrix::Constant(x) => (x.view().shape().to_vec(), true),
            Matrix::Variable(x) => (x.view().shape().to_vec(), false),
            Matrix::Grouped(x) => (x.view().shape().to_vec(), false),
        };
        expect_shape(name, "(that of its matrix)", view.shape(), &shape)?;
        let view = match shape.len() {
            2 => view.insert_axis(Axis(0)).insert_axis(Axis(0)),
            3 => view.insert_axis(Axis(2)),
            _ => view,
        };
        let mut view = view
            .into_dimensionality::<Ix4>()
            .map_err(|error| PyValueError::new_err(format!("{name}: {error}")))?;
        view.fill(0.0);
        Ok(Self { view, constant, of })
    }

    /// Adds the gradient of a group, whose parts lie in `partials` (batch, tiles, length, 2 states), B's or C's side
    /// of it.
    pub fn add(
        &mut self,
        group: usize,
        partials: &[f32],
        [batch, tiles, length, states]: [usize; 4],
        side: usize,
    ) {
        let own = group * self.view.dim().2 / self.of;
        let tile = length * 2 * states;
        if tiles * tile == 0 {
            return;
        }
        let parts = partials.chunks_exact(tiles * tile).take(batch);
        let mut to = self.view.index_axis_mut(Axis(2), own);
        if self.constant {
            for n in 0..states {
                let column = |part: &[f32]| {
                    part.iter()
                        .skip(side * states + n)
                        .step_by(2 * states)
                        .map(|&x| f64::from(x))
                        .sum::<f64>()
                };
                let sum: f64 = parts.clone().map(column).sum();
                to[[0, 0, n]] += sum as f32;
            }
            return;
        }
        let samples: Vec<_> = to.axis_iter_mut(Axis(0)).zip(parts).collect();
        samples.into_par_iter().for_each(|(mut to, parts)| {
            for (t, mut to) in to.rows_mut().into_iter().enumerate() {
                for part in parts.chunks_exact(tile) {
                    let row = &part[t * 2 * states + side * states..][..states];
                    to.iter_mut().zip(row).for_each(|(to, &x)| *to += x);
                }
            }
        });
    }
}
