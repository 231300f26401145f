//! The gradients of a selective scan.

use crate::arrays::{Input, Output, expect_shape, input, input_if, output, output_if};
use crate::matrices::Gradient;
use crate::problem::{Arguments, FULL, Flags, Inputs, Problem, STATE, TileMemory};
use crate::scan::{checkpoints_of, for_each, refused};
use crate::threads::detached;
use crate::tiles::{Plane, Tile, scatter, with_memory};
use dis_scan::{ScanGrads, ScanOut, checkpoint_len, cpu};
use dis_tensor::simd::level;
use dis_tensor::{Layout, Result, Tokens, TokensMut};
use ndarray::{ArrayViewMut1, ArrayViewMut2, ArrayViewMut3, Axis, Ix1, Ix2, Ix3, IxDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Gradients of sum(dout * y) + sum(dlast_state * last_state) for the scan of the same arguments. Its checkpoints
/// save time; without them the states are computed again. `grads` are where the gradients go, one for each input.
#[pyfunction]
pub fn scan_backward<'py>(
    py: Python<'py>,
    inputs: Inputs<'py>,
    flags: Flags,
    checkpoints: &Bound<'py, PyAny>,
    dout: &Bound<'py, PyAny>,
    dlast_state: &Bound<'py, PyAny>,
    grads: Inputs<'py>,
) -> PyResult<()> {
    let arguments = Arguments::new(&inputs, flags)?;
    let views = arguments.views();
    let problem = views.problem()?;
    let checkpoints = input_if::<Ix1>("checkpoints", "(checkpoint_len(..),)", checkpoints)?;
    let dout = input::<Ix3>("dout", FULL, dout)?;
    let dlast_state = input_if::<Ix3>("dlast_state", STATE, dlast_state)?;
    let [du, ddelta, da, db, dc, d, dz, bias, dinitial] = &grads;
    let mut du = output::<Ix3>("du", FULL, du)?;
    let mut ddelta = output::<Ix3>("ddelta", FULL, ddelta)?;
    let mut da = output::<Ix2>("dA", "(channels, states)", da)?;
    let mut db = output::<IxDyn>("dB", "(that of B)", db)?;
    let mut dc = output::<IxDyn>("dC", "(that of C)", dc)?;
    let mut dz = output_if::<Ix3>("dz", FULL, dz)?;
    let mut d = output_if::<Ix1>("dD", "(channels,)", d)?;
    let mut bias = output_if::<Ix1>("ddelta_bias", "(channels,)", bias)?;
    let mut dinitial = output_if::<Ix3>("dinitial_state", STATE, dinitial)?;

    let full = problem.full();
    let (dout, dlast) = (dout.view(), dlast_state.as_ref().map(Input::view));
    expect_shape("dout", "(that of u)", dout.shape(), &full)?;
    if let Some(last) = &dlast {
        expect_shape("dlast_state", STATE, last.shape(), &problem.state())?;
    }
    let checkpoints = checkpoints.as_ref().map(Input::view);
    let checkpoints = match &checkpoints {
        Some(view) => {
            expect_shape(
                "checkpoints",
                "(checkpoint_len(..),)",
                view.shape(),
                &[checkpoints_of(&problem)],
            )?;
            let slice = view.as_slice();
            Some(slice.ok_or_else(|| PyValueError::new_err("checkpoints are not contiguous"))?)
        }
        None => None,
    };
    let dlast = dlast.as_ref().map(crate::arrays::dense);
    let groups = problem.bc.groups;
    let grads = Gradients {
        dout: Plane::new(&dout),
        dlast_state: dlast.as_deref(),
        du: of_shape("du", du.view(), full)?,
        ddelta: of_shape("ddelta", ddelta.view(), full)?,
        da: {
            let view = da.view();
            expect_shape(
                "dA",
                "(that of A)",
                view.shape(),
                &[problem.channels, problem.states],
            )?;
            view
        },
        db: Gradient::new("dB", db.view(), &arguments.b, groups)?,
        dc: Gradient::new("dC", dc.view(), &arguments.c, groups)?,
        dz: needed("dz", problem.z.is_some(), &mut dz)?
            .map(|x| of_shape("dz", x, full))
            .transpose()?,
        d: vector("dD", problem.d.is_some(), &mut d, problem.channels)?,
        delta_bias: vector(
            "ddelta_bias",
            problem.delta_bias.is_some(),
            &mut bias,
            problem.channels,
        )?,
        dinitial_state: dinitial
            .as_mut()
            .map(|x| of_shape("dinitial_state", x.view(), problem.state()))
            .transpose()?,
    };
    detached(py, 4 * problem.work(), || {
        backward(&problem, checkpoints, grads)
    })?
    .map_err(refused)
}

fn of_shape<'a>(
    name: &str,
    view: ArrayViewMut3<'a, f32>,
    shape: [usize; 3],
) -> PyResult<ArrayViewMut3<'a, f32>> {
    expect_shape(
        name,
        "(that of what it is the gradient of)",
        view.shape(),
        &shape,
    )?;
    Ok(view)
}

/// A gradient that there must be if its array is there; one that is not needed is left alone.
fn needed<'a, D: ndarray::Dimension>(
    name: &str,
    is_needed: bool,
    array: &'a mut Option<Output<'_, D>>,
) -> PyResult<Option<ndarray::ArrayViewMut<'a, f32, D>>> {
    match array {
        Some(array) if is_needed => Ok(Some(array.view())),
        None if is_needed => Err(PyValueError::new_err(format!(
            "{name} is None, but what it is the gradient of is not"
        ))),
        _ => Ok(None),
    }
}

fn vector<'a>(
    name: &str,
    is_needed: bool,
    array: &'a mut Option<Output<'_, Ix1>>,
    channels: usize,
) -> PyResult<Option<ArrayViewMut1<'a, f32>>> {
    let view = needed(name, is_needed, array)?;
    if let Some(view) = &view {
        expect_shape(name, "(channels,)", view.shape(), &[channels])?;
    }
    Ok(view)
}

/// What the gradient of a scan reads besides its arguments, and where it writes.
struct Gradients<'a> {
    dout: Plane<'a>,
    dlast_state: Option<&'a [f32]>,
    du: ArrayViewMut3<'a, f32>,
    ddelta: ArrayViewMut3<'a, f32>,
    da: ArrayViewMut2<'a, f32>,
    db: Gradient<'a>,
    dc: Gradient<'a>,
    dz: Option<ArrayViewMut3<'a, f32>>,
    d: Option<ArrayViewMut1<'a, f32>>,
    delta_bias: Option<ArrayViewMut1<'a, f32>>,
    dinitial_state: Option<ArrayViewMut3<'a, f32>>,
}

/// Numbers of an array that a tile holds.
const TILE: usize = 32 * 1024;

/// One tile of one sample. Its sums over tokens go to the task's own part of memory, to be added in order.
struct Task<'a> {
    sample: usize,
    channels: (usize, usize),
    checkpoints: Option<&'a [f32]>,
    du: ArrayViewMut2<'a, f32>,
    ddelta: ArrayViewMut2<'a, f32>,
    dz: Option<ArrayViewMut2<'a, f32>>,
    dinitial_state: Option<ArrayViewMut2<'a, f32>>,
    dbc: &'a mut [f32],
    /// dA, then dD, then the bias's: (channels, states + 2).
    sums: &'a mut [f32],
}

fn backward(
    problem: &Problem<'_>,
    checkpoints: Option<&[f32]>,
    mut grads: Gradients<'_>,
) -> Result<()> {
    let [batch, length, channels] = problem.full();
    let (states, groups) = (problem.states, problem.bc.groups);
    let width = problem.tile_width(TILE);
    let per_sample = checkpoints_of(problem) / batch.max(1);
    let per_group = per_sample / groups.max(1);
    let sums_width = states + 2;
    let mut sums = vec![0.0; batch * channels * sums_width];
    let mut dbc = Vec::new();
    for group in 0..groups {
        let tiles: Vec<_> = problem.tiles(group, width).collect();
        let part = length * 2 * states;
        dbc.resize(batch * tiles.len() * part, 0.0);
        let mut parts = dbc.chunks_mut(part.max(1));
        let mut rest = &mut sums[..];
        let mut tasks = Vec::with_capacity(batch * tiles.len());
        let first = group * problem.group_width();
        // The group's columns of every sample, tile by tile.
        let columns = |view| Columns::new(view, first, &tiles);
        let mut dz = grads.dz.as_mut().map(|x| x.axis_iter_mut(Axis(0)));
        let mut dinitial = grads
            .dinitial_state
            .as_mut()
            .map(|x| x.axis_iter_mut(Axis(0)));
        let samples = grads
            .du
            .axis_iter_mut(Axis(0))
            .zip(grads.ddelta.axis_iter_mut(Axis(0)));
        for (sample, (du, ddelta)) in samples.enumerate() {
            let (mut du, mut ddelta) = (columns(du), columns(ddelta));
            let mut dz = dz.as_mut().and_then(Iterator::next).map(columns);
            let mut dinitial = dinitial
                .as_mut()
                .and_then(Iterator::next)
                .map(|x| columns(x.reversed_axes()));
            let (_, own) = std::mem::take(&mut rest).split_at_mut(first * sums_width);
            let (mut own, after) = own.split_at_mut((channels - first) * sums_width);
            rest = after;
            let mut checkpoints =
                checkpoints.map(|x| &x[sample * per_sample + group * per_group..][..per_group]);
            for &channels in &tiles {
                let (Some(du), Some(ddelta)) = (du.next(), ddelta.next()) else {
                    break;
                };
                let (sums, after) = std::mem::take(&mut own).split_at_mut(channels.1 * sums_width);
                own = after;
                let len = checkpoint_len(1, length, channels.1, states);
                let own_checkpoints = checkpoints.map(|all| &all[..len]);
                checkpoints = checkpoints.map(|all| &all[len..]);
                tasks.push(Task {
                    sample,
                    channels,
                    checkpoints: own_checkpoints,
                    du,
                    ddelta,
                    dz: dz.as_mut().and_then(Iterator::next),
                    dinitial_state: dinitial.as_mut().and_then(Iterator::next),
                    dbc: parts.next().unwrap_or_default(),
                    sums,
                });
            }
        }
        let (dout, dlast) = (grads.dout, grads.dlast_state);
        for_each(4 * problem.work() / groups, tasks, |task| {
            tile(problem, group, dout, dlast, task)
        })?;
        let sizes = [batch, tiles.len(), length, states];
        grads.db.add(group, &dbc, sizes, 0);
        grads.dc.add(group, &dbc, sizes, 1);
        grads.add(&sums, batch, states, &tiles);
    }
    Ok(())
}

/// Cuts the columns of a group off an array (length, channels), tile by tile.
struct Columns<'a, 't> {
    rest: Option<ArrayViewMut2<'a, f32>>,
    tiles: std::slice::Iter<'t, (usize, usize)>,
}

impl<'a, 't> Columns<'a, 't> {
    fn new(view: ArrayViewMut2<'a, f32>, first: usize, tiles: &'t [(usize, usize)]) -> Self {
        let (_, rest) = view.split_at(Axis(1), first);
        Self {
            rest: Some(rest),
            tiles: tiles.iter(),
        }
    }
}

impl<'a> Iterator for Columns<'a, '_> {
    type Item = ArrayViewMut2<'a, f32>;

    fn next(&mut self) -> Option<Self::Item> {
        let (_, width) = *self.tiles.next()?;
        let (part, rest) = self.rest.take()?.split_at(Axis(1), width);
        self.rest = Some(rest);
        Some(part)
    }
}

fn tile(
    problem: &Problem<'_>,
    group: usize,
    dout: Plane<'_>,
    dlast: Option<&[f32]>,
    mut task: Task<'_>,
) -> Result<()> {
    let (length, states, width) = (problem.length, problem.states, task.channels.1);
    let tile = Tile {
        sample: task.sample,
        tokens: (0, length),
        channels: task.channels,
    };
    let (len, state_len) = (length * width, width * states);
    let own_checkpoints = match task.checkpoints {
        Some(_) => 0,
        None => checkpoint_len(1, length, width, states),
    };
    let all = TileMemory::len(problem, length, width) + 4 * len + 2 * state_len + own_checkpoints;
    with_memory(all, |memory| {
        let (inputs, rest) = TileMemory::take(problem, tile, memory);
        let scan = problem.tile(group, tile, inputs);
        let (dout_memory, rest) = rest.split_at_mut(len);
        let (du, rest) = rest.split_at_mut(len);
        let (ddelta, rest) = rest.split_at_mut(len);
        let (dz, rest) = rest.split_at_mut(len);
        let (dinitial, rest) = rest.split_at_mut(state_len);
        let layout = Layout::dense(1, length, width);
        let checkpoints = match task.checkpoints {
            Some(checkpoints) => checkpoints,
            None => {
                let checkpoints = &mut rest[..own_checkpoints];
                let out = ScanOut {
                    y: TokensMut::new(&mut *du, layout),
                    accumulate: false,
                    checkpoints: Some(&mut *checkpoints),
                    last_state: None,
                };
                cpu::scan(level(), scan, out)?;
                &*checkpoints
            }
        };
        let state = Layout::dense(problem.batch, problem.channels, states);
        let state = state
            .sample_range(task.sample, 1)
            .token_range(task.channels.0, width);
        let (da, arena) = task.sums.split_at_mut(state_len);
        let grads = ScanGrads {
            du: TokensMut::new(&mut *du, layout),
            ddelta: TokensMut::new(&mut *ddelta, layout),
            dbc: TokensMut::new(&mut *task.dbc, Layout::dense(1, length, 2 * states)),
            dz: Some(TokensMut::new(&mut *dz, layout)),
            accumulate_dz: false,
            da: TokensMut::new(da, Layout::matrix(width, states)),
            arena,
            d: Some(0),
            delta_bias: Some(width),
            dlast_state: dlast.map(|x| Tokens::new(x, state)),
            dinitial_state: Some(TokensMut::new(
                &mut *dinitial,
                Layout::dense(1, width, states),
            )),
        };
        let dout = dout.tile(tile, dout_memory);
        cpu::scan_backward(level(), scan, checkpoints, dout, grads)?;
        scatter(du, task.du.view_mut());
        scatter(ddelta, task.ddelta.view_mut());
        if let Some(to) = task.dz {
            scatter(dz, to);
        }
        if let Some(to) = task.dinitial_state {
            // (states, channels), as it was cut.
            scatter(dinitial, to.reversed_axes());
        }
        Ok(())
    })
}

impl Gradients<'_> {
    /// Adds the sums over tokens of some tiles, sample by sample.
    fn add(&mut self, sums: &[f32], batch: usize, states: usize, tiles: &[(usize, usize)]) {
        let width = states + 2;
        let channels = self.da.nrows();
        for &(first, count) in tiles {
            let part = |sample: usize, start: usize, len: usize| {
                &sums[(sample * channels + first) * width + start..][..len]
            };
            let sum = |start: usize, i: usize, len: usize| -> f32 {
                (0..batch).map(|sample| part(sample, start, len)[i]).sum()
            };
            for i in 0..count {
                for n in 0..states {
                    self.da[[first + i, n]] = sum(0, i * states + n, count * states);
                }
                if let Some(d) = &mut self.d {
                    d[first + i] = sum(count * states, i, count);
                }
                if let Some(bias) = &mut self.delta_bias {
                    bias[first + i] = sum(count * (states + 1), i, count);
                }
            }
        }
    }
}
