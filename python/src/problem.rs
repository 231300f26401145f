//! The arguments of a scan: taken from Python, checked, and cut into tiles.

use crate::arrays::{Input, dense, expect_shape, input, input_if};
use crate::matrices::{Matrix, Pair};
use crate::tiles::{Plane, Tile};
use dis_scan::{Direction, Discretization, Scan};
use dis_tensor::{Layout, Tokens};
use ndarray::{ArrayView1, ArrayView2, ArrayView3, Ix1, Ix2, Ix3};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::borrow::Cow;

pub const FULL: &str = "(batch, length, channels)";
pub const STATE: &str = "(batch, channels, states)";
const VECTOR: &str = "(channels,)";

/// The arrays that Python gives: u, delta, A, B, C, D, z, delta_bias and initial_state, those that may be None among them.
pub type Inputs<'py> = [Bound<'py, PyAny>; 9];

/// The place of the initial state among them.
pub const INITIAL_STATE: usize = 8;

/// How a scan is walked and made discrete, as Python gives it: delta_softplus, zero_order_hold, reverse.
pub type Flags = [bool; 3];

/// The same by name.
#[derive(Clone, Copy)]
struct Options {
    delta_softplus: bool,
    zero_order_hold: bool,
    reverse: bool,
}

/// The arrays of a scan, borrowed from Python.
pub struct Arguments<'py> {
    u: Input<'py, Ix3>,
    delta: Input<'py, Ix3>,
    a: Input<'py, Ix2>,
    pub b: Matrix<'py>,
    pub c: Matrix<'py>,
    d: Option<Input<'py, Ix1>>,
    z: Option<Input<'py, Ix3>>,
    delta_bias: Option<Input<'py, Ix1>>,
    initial_state: Option<Input<'py, Ix3>>,
    options: Options,
}

impl<'py> Arguments<'py> {
    pub fn new(inputs: &Inputs<'py>, flags: Flags) -> PyResult<Self> {
        let [u, delta, a, b, c, d, z, delta_bias, initial_state] = inputs;
        let [delta_softplus, zero_order_hold, reverse] = flags;
        let options = Options {
            delta_softplus,
            zero_order_hold,
            reverse,
        };
        Ok(Self {
            u: input("u", FULL, u)?,
            delta: input("delta", FULL, delta)?,
            a: input("A", "(channels, states)", a)?,
            b: Matrix::new("B", b)?,
            c: Matrix::new("C", c)?,
            d: input_if("D", VECTOR, d)?,
            z: input_if("z", FULL, z)?,
            delta_bias: input_if("delta_bias", VECTOR, delta_bias)?,
            initial_state: input_if("initial_state", STATE, initial_state)?,
            options,
        })
    }

    pub fn views(&self) -> Views<'_> {
        Views {
            u: self.u.view(),
            delta: self.delta.view(),
            a: self.a.view(),
            d: self.d.as_ref().map(Input::view),
            z: self.z.as_ref().map(Input::view),
            delta_bias: self.delta_bias.as_ref().map(Input::view),
            initial_state: self.initial_state.as_ref().map(Input::view),
            arguments: self,
        }
    }
}

/// The same as views.
pub struct Views<'a> {
    u: ArrayView3<'a, f32>,
    delta: ArrayView3<'a, f32>,
    a: ArrayView2<'a, f32>,
    d: Option<ArrayView1<'a, f32>>,
    z: Option<ArrayView3<'a, f32>>,
    delta_bias: Option<ArrayView1<'a, f32>>,
    initial_state: Option<ArrayView3<'a, f32>>,
    arguments: &'a Arguments<'a>,
}

/// A scan whose shapes fit together.
pub struct Problem<'a> {
    pub batch: usize,
    pub length: usize,
    pub channels: usize,
    pub states: usize,
    u: Plane<'a>,
    delta: Plane<'a>,
    pub z: Option<Plane<'a>>,
    a: Cow<'a, [f32]>,
    pub bc: Pair<'a>,
    pub d: Option<Cow<'a, [f32]>>,
    pub delta_bias: Option<Cow<'a, [f32]>>,
    pub initial_state: Option<Cow<'a, [f32]>>,
    options: Options,
}

impl<'a> Views<'a> {
    pub fn problem(&'a self) -> PyResult<Problem<'a>> {
        let (batch, length, channels) = self.u.dim();
        let states = self.a.ncols();
        if states == 0 {
            return Err(PyValueError::new_err(
                "A has no states: its shape is (channels, 0)",
            ));
        }
        let full = [batch, length, channels];
        expect_shape("delta", "(that of u)", self.delta.shape(), &full)?;
        expect_shape(
            "A",
            "(channels, states)",
            self.a.shape(),
            &[channels, states],
        )?;
        if let Some(z) = &self.z {
            expect_shape("z", "(that of u)", z.shape(), &full)?;
        }
        for (name, vector) in [("D", &self.d), ("delta_bias", &self.delta_bias)] {
            if let Some(vector) = vector {
                expect_shape(name, VECTOR, vector.shape(), &[channels])?;
            }
        }
        if let Some(state) = &self.initial_state {
            expect_shape(
                "initial_state",
                STATE,
                state.shape(),
                &[batch, channels, states],
            )?;
        }
        let sizes = [batch, length, channels, states];
        let b = self.arguments.b.view("B", sizes)?;
        let c = self.arguments.c.view("C", sizes)?;
        Ok(Problem {
            batch,
            length,
            channels,
            states,
            u: Plane::new(&self.u),
            delta: Plane::new(&self.delta),
            z: self.z.as_ref().map(Plane::new),
            a: dense(&self.a),
            bc: Pair::new(b, c, sizes),
            d: self.d.as_ref().map(dense),
            delta_bias: self.delta_bias.as_ref().map(dense),
            initial_state: self.initial_state.as_ref().map(dense),
            options: self.arguments.options,
        })
    }
}

/// Memory for the inputs of a tile.
pub struct TileMemory<'m> {
    u: &'m mut [f32],
    delta: &'m mut [f32],
    z: &'m mut [f32],
    bc: &'m mut [f32],
}

impl<'m> TileMemory<'m> {
    /// Cuts it off the front of `memory`.
    pub fn take(problem: &Problem<'_>, tile: Tile, memory: &'m mut [f32]) -> (Self, &'m mut [f32]) {
        let len = tile.tokens.1 * tile.channels.1;
        let (u, rest) = memory.split_at_mut(len);
        let (delta, rest) = rest.split_at_mut(len);
        let (z, rest) = rest.split_at_mut(len);
        let (bc, rest) = rest.split_at_mut(problem.bc.tile_len(tile.tokens.1));
        (Self { u, delta, z, bc }, rest)
    }

    /// Numbers that it takes.
    pub fn len(problem: &Problem<'_>, tokens: usize, channels: usize) -> usize {
        3 * tokens * channels + problem.bc.tile_len(tokens)
    }
}

impl Problem<'_> {
    pub fn full(&self) -> [usize; 3] {
        [self.batch, self.length, self.channels]
    }

    pub fn state(&self) -> [usize; 3] {
        [self.batch, self.channels, self.states]
    }

    /// Rough nanoseconds of a forward scan on one thread.
    pub fn work(&self) -> usize {
        self.batch * self.length * self.channels.next_multiple_of(16) * self.states / 4
    }

    /// Channels of a group.
    pub fn group_width(&self) -> usize {
        self.channels / self.bc.groups.max(1)
    }

    /// Channels of a tile that is to hold about `elements` numbers of an array: a power of two, so that tiles are made
    /// of the lanes that kernels work on together.
    pub fn tile_width(&self, elements: usize) -> usize {
        let width = (elements / self.length.max(1)).clamp(16, 1024);
        (1 << width.ilog2()).min(self.group_width().max(1))
    }

    /// The first channel and the number of channels of each tile of a group.
    pub fn tiles(
        &self,
        group: usize,
        width: usize,
    ) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (first, count) = (group * self.group_width(), self.group_width());
        (0..count)
            .step_by(width.max(1))
            .map(move |start| (first + start, width.min(count - start)))
    }

    fn parameters<'s>(&'s self, channels: (usize, usize)) -> Parameters<'s> {
        let vector = Layout::vector(self.channels).columns(channels.0, channels.1);
        let of = |x: &'s Option<Cow<'_, [f32]>>| x.as_ref().map(|x| Tokens::new(&**x, vector));
        let a = Layout::matrix(self.channels, self.states).token_range(channels.0, channels.1);
        Parameters {
            a: Tokens::new(&*self.a, a),
            d: of(&self.d),
            delta_bias: of(&self.delta_bias),
        }
    }

    /// All tokens of a group's channels, if kernels can read every array where it is.
    pub fn whole<'s>(&'s self, group: usize) -> Option<Scan<'s, [f32]>> {
        let z = match &self.z {
            Some(z) => Some(z.whole()?),
            None => None,
        };
        let channels = (group * self.group_width(), self.group_width());
        let of =
            |x: Tokens<'s, [f32]>| Tokens::new(x.buf, x.layout.columns(channels.0, channels.1));
        let [batch, _, _] = self.full();
        let states =
            Layout::dense(batch, self.channels, self.states).token_range(channels.0, channels.1);
        let parameters = self.parameters(channels);
        Some(Scan {
            u: of(self.u.whole()?),
            delta: of(self.delta.whole()?),
            a: parameters.a,
            bc: self.bc.whole(group)?,
            d: parameters.d,
            z: z.map(of),
            delta_bias: parameters.delta_bias,
            initial_state: self
                .initial_state
                .as_ref()
                .map(|x| Tokens::new(&**x, states)),
            delta_softplus: self.options.delta_softplus,
            discretization: self.discretization(),
            direction: self.direction(),
        })
    }

    fn discretization(&self) -> Discretization {
        match self.options.zero_order_hold {
            true => Discretization::ZeroOrderHold,
            false => Discretization::Mamba,
        }
    }

    pub fn direction(&self) -> Direction {
        match self.options.reverse {
            true => Direction::Reverse,
            false => Direction::Forward,
        }
    }

    /// Fetches the inputs of the tile of as many channels after this one, which most likely is the next.
    pub fn prefetch_next(&self, tile: Tile) {
        let first = tile.channels.0 + tile.channels.1;
        let count = tile
            .channels
            .1
            .min(self.channels - first.min(self.channels));
        let next = Tile {
            channels: (first, count),
            ..tile
        };
        for plane in [Some(self.u), Some(self.delta), self.z].iter().flatten() {
            plane.prefetch(next);
        }
    }

    /// The scan of a tile, from the initial state that the caller gave.
    pub fn tile<'m>(&'m self, group: usize, tile: Tile, memory: TileMemory<'m>) -> Scan<'m, [f32]> {
        let parameters = self.parameters(tile.channels);
        let states = Layout::dense(self.batch, self.channels, self.states);
        let states = states
            .sample_range(tile.sample, 1)
            .token_range(tile.channels.0, tile.channels.1);
        Scan {
            u: self.u.tile(tile, memory.u),
            delta: self.delta.tile(tile, memory.delta),
            a: parameters.a,
            bc: self.bc.tile(group, tile, memory.bc),
            d: parameters.d,
            z: self.z.as_ref().map(|z| z.tile(tile, memory.z)),
            delta_bias: parameters.delta_bias,
            initial_state: self
                .initial_state
                .as_ref()
                .map(|x| Tokens::new(&**x, states)),
            delta_softplus: self.options.delta_softplus,
            discretization: self.discretization(),
            direction: self.direction(),
        }
    }
}

struct Parameters<'a> {
    a: Tokens<'a, [f32]>,
    d: Option<Tokens<'a, [f32]>>,
    delta_bias: Option<Tokens<'a, [f32]>>,
}
