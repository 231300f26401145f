//! The causal convolution, its gradients, and its step by step form.

use crate::arrays::{Input, Output, dense, expect_shape, input, input_if, output, output_if};
use crate::problem::FULL;
use crate::scan::{for_each, refused};
use crate::threads::detached;
use crate::tiles::{Plane, Tile, gather, scatter, split_channels, with_memory};
use dis_scan::{Conv, ConvGrads, Direction, cpu};
use dis_tensor::simd::level;
use dis_tensor::{Layout, Result, Tokens, TokensMut};
use ndarray::{
    ArrayView1, ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis, Ix1, Ix2, Ix3, s,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

const WEIGHT: &str = "(channels, width)";
const VECTOR: &str = "(channels,)";
const BEFORE: &str = "(batch, width - 1, channels)";

/// The arguments of a convolution, borrowed from Python.
struct Arguments<'py> {
    x: Input<'py, Ix3>,
    weight: Input<'py, Ix2>,
    bias: Option<Input<'py, Ix1>>,
    before: Option<Input<'py, Ix3>>,
    silu: bool,
    direction: Direction,
}

/// The arrays that Python gives: x, weight, bias and initial_states, of which the last two may be None.
type Inputs<'py> = [Bound<'py, PyAny>; 4];

/// Whether SiLU follows, and whether later positions are seen.
type Flags = [bool; 2];

impl<'py> Arguments<'py> {
    fn new(inputs: &Inputs<'py>, [silu, reverse]: Flags) -> PyResult<Self> {
        let [x, weight, bias, before] = inputs;
        Ok(Self {
            x: input("x", FULL, x)?,
            weight: input("weight", WEIGHT, weight)?,
            bias: input_if("bias", VECTOR, bias)?,
            before: input_if("initial_states", BEFORE, before)?,
            silu,
            direction: match reverse {
                true => Direction::Reverse,
                false => Direction::Forward,
            },
        })
    }

    fn views(&self) -> Views<'_> {
        Views {
            x: self.x.view(),
            weight: self.weight.view(),
            bias: self.bias.as_ref().map(Input::view),
            before: self.before.as_ref().map(Input::view),
            silu: self.silu,
            direction: self.direction,
        }
    }
}

struct Views<'a> {
    x: ArrayView3<'a, f32>,
    weight: ArrayView2<'a, f32>,
    bias: Option<ArrayView1<'a, f32>>,
    before: Option<ArrayView3<'a, f32>>,
    silu: bool,
    direction: Direction,
}

/// A convolution whose shapes fit together.
struct Problem<'a> {
    shape: [usize; 3],
    width: usize,
    x: Plane<'a>,
    weight: Cow<'a, [f32]>,
    bias: Option<Cow<'a, [f32]>>,
    /// What went before (batch, width - 1, channels), in the order of the walk.
    before: Option<Plane<'a>>,
    silu: bool,
    direction: Direction,
}

impl<'a> Views<'a> {
    fn problem(&'a self) -> PyResult<Problem<'a>> {
        let (batch, length, channels) = self.x.dim();
        let width = self.weight.ncols();
        expect_shape("weight", WEIGHT, self.weight.shape(), &[channels, width])?;
        if !(2..=4).contains(&width) {
            return Err(PyValueError::new_err(format!(
                "weight has {width} taps (its shape is (channels, width)), supported are 2 to 4"
            )));
        }
        if let Some(bias) = &self.bias {
            expect_shape("bias", VECTOR, bias.shape(), &[channels])?;
        }
        if let Some(before) = &self.before {
            expect_shape(
                "initial_states",
                BEFORE,
                before.shape(),
                &[batch, width - 1, channels],
            )?;
        }
        Ok(Problem {
            shape: [batch, length, channels],
            width,
            x: Plane::new(&self.x),
            weight: dense(&self.weight),
            bias: self.bias.as_ref().map(dense),
            before: self.before.as_ref().map(Plane::new),
            silu: self.silu,
            direction: self.direction,
        })
    }
}

/// Numbers of an array that a tile holds.
const TILE: usize = 16 * 1024;

impl Problem<'_> {
    /// Rough nanoseconds of a forward convolution on one thread, with what stands in front.
    fn work(&self) -> usize {
        let [batch, length, channels] = self.shape;
        batch * (length + self.width) * channels / 2
    }

    fn conv<'s>(&'s self, x: Tokens<'s, [f32]>, channels: (usize, usize)) -> Conv<'s, [f32]> {
        let weight = Layout::matrix(self.shape[2], self.width).token_range(channels.0, channels.1);
        let bias = Layout::vector(self.shape[2]).columns(channels.0, channels.1);
        Conv {
            x,
            weight: Tokens::new(&*self.weight, weight),
            bias: self.bias.as_ref().map(|x| Tokens::new(&**x, bias)),
            silu: self.silu,
            direction: self.direction,
        }
    }

    /// Tokens that stand in front of a tile's own.
    fn front(&self) -> usize {
        self.before.map_or(0, |_| self.width - 1)
    }

    /// The input of a tile, behind what went before if there is any; in the reverse direction, in front of it.
    fn tile<'m>(&'m self, tile: Tile, memory: &'m mut [f32]) -> Tokens<'m, [f32]> {
        let Some(before) = &self.before else {
            return self.x.tile(tile, memory);
        };
        let width = tile.channels.1;
        let Parts { front, own, all } = self.parts(width);
        let first = Tile {
            tokens: (0, self.front()),
            ..tile
        };
        before.copy(first, &mut memory[front]);
        self.x.copy(tile, &mut memory[own]);
        Tokens::new(&memory[..all.elements()], all)
    }

    /// How the memory of a tile of so many channels is shared out.
    fn parts(&self, width: usize) -> Parts {
        let (front, length) = (self.front(), self.shape[1]);
        let (first, own) = match self.direction {
            Direction::Forward => (0, front),
            Direction::Reverse => (length, 0),
        };
        Parts {
            front: first * width..(first + front) * width,
            own: own * width..(own + length) * width,
            all: Layout::dense(1, front + length, width),
        }
    }

    /// Writes what was made of a tile to where its own tokens go, and those in front of them if asked.
    fn write_back(
        &self,
        made: &[f32],
        to: ArrayViewMut2<'_, f32>,
        before: Option<ArrayViewMut2<'_, f32>>,
    ) {
        let parts = self.parts(to.ncols());
        scatter(&made[parts.own], to);
        if let Some(before) = before {
            scatter(&made[parts.front], before);
        }
    }

    fn tiles(&self) -> Vec<(usize, usize)> {
        let [_, length, channels] = self.shape;
        let width = (TILE / (length + self.width)).clamp(16, 1024);
        let width = 1 << width.ilog2();
        (0..channels)
            .step_by(width)
            .map(|first| (first, width.min(channels - first)))
            .collect()
    }
}

/// The rows (tokens, channels) of a tile in memory.
struct Parts {
    /// Of the tokens in front of its own.
    front: Range<usize>,
    /// Of its own.
    own: Range<usize>,
    /// Both.
    all: Layout,
}

/// The causal convolution of x (batch, length, channels), written to y; then SiLU if asked. In the reverse direction
/// later positions are seen; initial_states then are what comes after, as it lies in memory.
#[pyfunction]
pub fn conv<'py>(
    py: Python<'py>,
    inputs: Inputs<'py>,
    flags: Flags,
    y: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let arguments = Arguments::new(&inputs, flags)?;
    let views = arguments.views();
    let problem = views.problem()?;
    let mut y = output::<Ix3>("y", FULL, y)?;
    let y = y.view();
    expect_shape("y", "(that of x)", y.shape(), &problem.shape)?;
    detached(py, problem.work(), || forward(&problem, y))?.map_err(refused)
}

fn forward(problem: &Problem<'_>, mut y: ArrayViewMut3<'_, f32>) -> Result<()> {
    let [batch, length, channels] = problem.shape;
    if let (None, Some(x), Some(y)) = (&problem.before, problem.x.whole(), y.as_slice_mut()) {
        let y = TokensMut::new(y, Layout::dense(batch, length, channels));
        return cpu::conv1d(level(), problem.conv(x, (0, channels)), y);
    }
    let tiles = problem.tiles();
    let mut tasks = Vec::with_capacity(batch * tiles.len());
    for (sample, y) in y.axis_iter_mut(Axis(0)).enumerate() {
        let parts = split_channels(y, tiles.iter().map(|tile| tile.1));
        tasks.extend(
            tiles
                .iter()
                .zip(parts)
                .map(|(&channels, y)| (sample, channels, y)),
        );
    }
    for_each(problem.work(), tasks, |(sample, channels, y)| {
        let tile = Tile {
            sample,
            tokens: (0, length),
            channels,
        };
        let all = problem.parts(channels.1).all;
        with_memory(2 * all.elements(), |memory| {
            let (inputs, out) = memory.split_at_mut(all.elements());
            let x = problem.tile(tile, inputs);
            let to = TokensMut::new(&mut *out, all);
            cpu::conv1d(level(), problem.conv(x, channels), to)?;
            problem.write_back(out, y, None);
            Ok(())
        })
    })
}

/// Gradients of sum(dout * conv(..)). `grads` are where they go, one for each input.
#[pyfunction]
pub fn conv_backward<'py>(
    py: Python<'py>,
    inputs: Inputs<'py>,
    flags: Flags,
    dout: &Bound<'py, PyAny>,
    grads: Inputs<'py>,
) -> PyResult<()> {
    let arguments = Arguments::new(&inputs, flags)?;
    let views = arguments.views();
    let problem = views.problem()?;
    let [dx, dweight, dbias, dinitial_states] = &grads;
    let [batch, _, channels] = problem.shape;
    let dout = input::<Ix3>("dout", FULL, dout)?;
    let dout = dout.view();
    expect_shape("dout", "(that of x)", dout.shape(), &problem.shape)?;
    let mut dx = output::<Ix3>("dx", FULL, dx)?;
    let dx = dx.view();
    expect_shape("dx", "(that of x)", dx.shape(), &problem.shape)?;
    let mut dweight = output::<Ix2>("dweight", WEIGHT, dweight)?;
    let mut dweight = dweight.view();
    expect_shape(
        "dweight",
        "(that of weight)",
        dweight.shape(),
        &[channels, problem.width],
    )?;
    let mut dbias = output_if::<Ix1>("dbias", VECTOR, dbias)?;
    let mut dbias = match (problem.bias.is_some(), &mut dbias) {
        (true, Some(dbias)) => {
            let view = dbias.view();
            expect_shape("dbias", "(that of bias)", view.shape(), &[channels])?;
            Some(view)
        }
        (true, None) => return Err(PyValueError::new_err("dbias is None, but bias is not")),
        (false, _) => None,
    };
    let mut dbefore = output_if::<Ix3>("dinitial_states", BEFORE, dinitial_states)?;
    let dbefore = dbefore.as_mut().map(Output::view);
    if let Some(view) = &dbefore {
        if problem.before.is_none() {
            return Err(PyValueError::new_err(
                "dinitial_states is given, but initial_states is None",
            ));
        }
        expect_shape(
            "dinitial_states",
            BEFORE,
            view.shape(),
            &[batch, problem.width - 1, channels],
        )?;
    }
    let width = problem.width + 1;
    let mut sums = vec![0.0; batch * channels * width];
    let dout = Plane::new(&dout);
    detached(py, 3 * problem.work(), || {
        backward(&problem, dout, dx, dbefore, &mut sums)
    })?
    .map_err(refused)?;
    // Every tile's sums are its taps (channels, width), then its biases.
    for (first, count) in problem.tiles() {
        let sum = |i: usize| -> f32 {
            (0..batch)
                .map(|sample| sums[(sample * channels + first) * width + i])
                .sum()
        };
        for i in 0..count {
            for k in 0..problem.width {
                dweight[[first + i, k]] = sum(i * problem.width + k);
            }
            if let Some(dbias) = &mut dbias {
                dbias[first + i] = sum(count * problem.width + i);
            }
        }
    }
    Ok(())
}

struct Task<'a> {
    sample: usize,
    channels: (usize, usize),
    dx: ArrayViewMut2<'a, f32>,
    dbefore: Option<ArrayViewMut2<'a, f32>>,
    sums: &'a mut [f32],
}

fn backward(
    problem: &Problem<'_>,
    dout: Plane<'_>,
    mut dx: ArrayViewMut3<'_, f32>,
    mut dbefore: Option<ArrayViewMut3<'_, f32>>,
    sums: &mut [f32],
) -> Result<()> {
    let tiles = problem.tiles();
    let mut rest = sums;
    let mut tasks = Vec::with_capacity(problem.shape[0] * tiles.len());
    let mut befores = dbefore.as_mut().map(|x| x.axis_iter_mut(Axis(0)));
    for (sample, dx) in dx.axis_iter_mut(Axis(0)).enumerate() {
        let widths = || tiles.iter().map(|tile| tile.1);
        let before = befores.as_mut().and_then(Iterator::next);
        let mut before = before.map(|x| split_channels(x, widths()));
        for (&channels, dx) in tiles.iter().zip(split_channels(dx, widths())) {
            let (own, after) =
                std::mem::take(&mut rest).split_at_mut(channels.1 * (problem.width + 1));
            rest = after;
            let dbefore = before.as_mut().and_then(Iterator::next);
            tasks.push(Task {
                sample,
                channels,
                dx,
                dbefore,
                sums: own,
            });
        }
    }
    for_each(3 * problem.work(), tasks, |task| {
        backward_tile(problem, dout, task)
    })
}

fn backward_tile(problem: &Problem<'_>, dout: Plane<'_>, task: Task<'_>) -> Result<()> {
    let Task {
        sample,
        channels,
        dx,
        dbefore,
        sums,
    } = task;
    let width = channels.1;
    let tile = Tile {
        sample,
        tokens: (0, problem.shape[1]),
        channels,
    };
    let Parts { front, own, all } = problem.parts(width);
    with_memory(3 * all.elements(), |memory| {
        let (inputs, rest) = memory.split_at_mut(all.elements());
        let (dout_memory, out) = rest.split_at_mut(all.elements());
        let x = problem.tile(tile, inputs);
        let dout = if front.is_empty() {
            dout.tile(tile, dout_memory)
        } else {
            // What went before has no output.
            dout_memory[front].fill(0.0);
            dout.copy(tile, &mut dout_memory[own]);
            Tokens::new(&*dout_memory, all)
        };
        let grads = ConvGrads {
            arena: sums,
            weight: 0,
            bias: Some(width * problem.width),
        };
        let to = TokensMut::new(&mut *out, all);
        cpu::conv1d_backward(level(), problem.conv(x, channels), dout, false, to, grads)?;
        problem.write_back(out, dx, dbefore);
        Ok(())
    })
}

/// The convolution of the next tokens of a sequence: state (batch, state_len, channels) holds the inputs that went
/// before, newest last, and is moved on in place.
#[pyfunction]
pub fn conv_update<'py>(
    py: Python<'py>,
    state: &Bound<'py, PyAny>,
    x: Bound<'py, PyAny>,
    weight: Bound<'py, PyAny>,
    bias: Bound<'py, PyAny>,
    y: &Bound<'py, PyAny>,
    silu: bool,
) -> PyResult<()> {
    const STATE: &str = "(batch, state_len, channels)";
    let none = py.None().into_bound(py);
    let arguments = Arguments::new(&[x, weight, bias, none], [silu, false])?;
    let views = arguments.views();
    let mut problem = views.problem()?;
    let [batch, length, channels] = problem.shape;
    let mut state = output::<Ix3>("state", STATE, state)?;
    let mut state = state.view();
    let (kept, front) = (state.dim().1, problem.width - 1);
    expect_shape("state", STATE, state.shape(), &[batch, kept, channels])?;
    if kept < front {
        return Err(PyValueError::new_err(format!(
            "state of shape {} keeps {kept} inputs, a convolution of width {} needs {front} at least",
            crate::arrays::shape_text(state.shape()),
            problem.width
        )));
    }
    let mut y = output::<Ix3>("y", FULL, y)?;
    let y = y.view();
    expect_shape("y", "(that of x)", y.shape(), &problem.shape)?;
    // Copied: the state moves on.
    let mut before = vec![0.0; batch * front * channels];
    let sample = (front * channels).max(1);
    for (from, to) in state
        .axis_iter(Axis(0))
        .zip(before.chunks_exact_mut(sample))
    {
        gather(from.slice(s![kept - front.., ..]), to);
    }
    let before = ArrayView3::from_shape([batch, front, channels], &before);
    let before = before.map_err(|error| PyValueError::new_err(error.to_string()))?;
    problem.before = Some(Plane::new(&before));
    detached(py, problem.work(), || forward(&problem, y))?.map_err(refused)?;
    if length == 0 {
        return Ok(());
    }
    // The last inputs of those kept and the new ones.
    let moved = kept.saturating_sub(length);
    for t in 0..moved {
        let (mut to, from) = state.multi_slice_mut((s![.., t, ..], s![.., t + length, ..]));
        to.assign(&from);
    }
    let x = views.x.slice(s![.., length - (kept - moved).., ..]);
    state.slice_mut(s![.., moved.., ..]).assign(&x);
    Ok(())
}
