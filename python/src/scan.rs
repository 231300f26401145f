//! The selective scan: in one call of the kernels where all arrays lie as these want them, else tile by tile.

use crate::arrays::{Output, expect_shape, output, output_if, shape_text};
use crate::matrices::{AXES, least_common_multiple};
use crate::problem::{Arguments, FULL, Flags, INITIAL_STATE, Inputs, Problem, STATE, TileMemory};
use crate::threads::{SERIAL, detached};
use crate::tiles::{Tile, scatter, split_channels, with_memory};
use dis_scan::{CHUNK, Direction, ScanOut, checkpoint_len, cpu};
use dis_tensor::simd::level;
use dis_tensor::{Layout, Result, Tokens, TokensMut};
use ndarray::{ArrayViewMut2, ArrayViewMut3, Axis, Ix1, Ix3, s};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rayon::prelude::*;

/// What kernels refuse, of which there should be nothing left.
pub fn refused(error: dis_tensor::TensorError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// The selective scan of u (batch, length, channels), whose results are written to y and, if given, last_state
/// and checkpoints. Where initial_state and last_state are one array, it is changed in place.
#[pyfunction]
pub fn scan<'py>(
    py: Python<'py>,
    mut inputs: Inputs<'py>,
    flags: Flags,
    y: &Bound<'py, PyAny>,
    last_state: &Bound<'py, PyAny>,
    checkpoints: &Bound<'py, PyAny>,
) -> PyResult<()> {
    // A state that is changed in place.
    let in_place = !last_state.is_none() && last_state.is(&inputs[INITIAL_STATE]);
    if in_place {
        inputs[INITIAL_STATE] = py.None().into_bound(py);
    }
    let arguments = Arguments::new(&inputs, flags)?;
    let mut y = output::<Ix3>("y", FULL, y)?;
    let mut last_state = output_if::<Ix3>("last_state", STATE, last_state)?;
    let mut checkpoints = output_if::<Ix1>("checkpoints", "(checkpoint_len(..),)", checkpoints)?;
    let views = arguments.views();
    let mut problem = views.problem()?;
    if let (true, Some(state)) = (in_place, &mut last_state) {
        let state = state.view();
        expect_shape("initial_state", STATE, state.shape(), &problem.state())?;
        problem.initial_state = Some(state.iter().copied().collect());
    }
    let out = Results::new(
        &problem,
        y.view(),
        last_state.as_mut().map(Output::view),
        checkpoints.as_mut(),
    )?;
    detached(py, problem.work(), || forward(&problem, out))?.map_err(refused)
}

/// Numbers of the checkpoints of a scan.
pub fn checkpoints_of(problem: &Problem<'_>) -> usize {
    problem.bc.groups
        * checkpoint_len(
            problem.batch,
            problem.length,
            problem.group_width(),
            problem.states,
        )
}

/// Numbers of the checkpoints of a scan; B and C count with their groups, by their shapes.
#[pyfunction(name = "checkpoint_len")]
#[allow(non_snake_case)]
pub fn checkpoint_length(
    batch: usize,
    length: usize,
    channels: usize,
    states: usize,
    B: Vec<usize>,
    C: Vec<usize>,
) -> PyResult<usize> {
    let groups = |name: &str, shape: &[usize]| match shape {
        [_, _] => Ok(channels),
        [_, _, _] => Ok(1),
        [_, _, groups, _] if *groups > 0 && channels.is_multiple_of(*groups) => Ok(*groups),
        _ => Err(PyValueError::new_err(format!(
            "{name} has shape {}, expected {AXES}",
            shape_text(shape)
        ))),
    };
    let groups = least_common_multiple(groups("B", &B)?, groups("C", &C)?);
    let (sizes, width) = ([batch, length, channels, states], channels / groups.max(1));
    // What is too long for memory is too long to count.
    let len = sizes
        .iter()
        .try_fold(1usize, |len, &size| len.checked_mul(size.checked_add(16)?));
    match len {
        Some(_) => Ok(groups * checkpoint_len(batch, length, width, states)),
        None => Err(PyValueError::new_err(format!(
            "a scan of {} does not fit in memory",
            shape_text(&sizes)
        ))),
    }
}

/// Where a scan writes.
pub struct Results<'a> {
    pub y: ArrayViewMut3<'a, f32>,
    pub last_state: Option<ArrayViewMut3<'a, f32>>,
    pub checkpoints: Option<&'a mut [f32]>,
}

impl<'a> Results<'a> {
    fn new(
        problem: &Problem<'_>,
        y: ArrayViewMut3<'a, f32>,
        last_state: Option<ArrayViewMut3<'a, f32>>,
        checkpoints: Option<&'a mut Output<'_, Ix1>>,
    ) -> PyResult<Self> {
        expect_shape("y", "(that of u)", y.shape(), &problem.full())?;
        if let Some(last) = &last_state {
            expect_shape("last_state", STATE, last.shape(), &problem.state())?;
        }
        let checkpoints = match checkpoints {
            Some(checkpoints) => {
                let view = checkpoints.view();
                let len = checkpoints_of(problem);
                expect_shape("checkpoints", "(checkpoint_len(..),)", view.shape(), &[len])?;
                let slice = view.into_slice();
                Some(slice.ok_or_else(|| PyValueError::new_err("checkpoints are not contiguous"))?)
            }
            None => None,
        };
        Ok(Self {
            y,
            last_state,
            checkpoints,
        })
    }
}

/// Numbers of an array that a tile holds: with those of the others, and transposed, it stays in the second-level
/// cache.
const TILE: usize = 8 * 1024;
/// Tokens of a tile at most, where nothing hinders going on with the next ones from the state.
const MOST_TOKENS: usize = 1024;

struct Task<'a> {
    group: usize,
    sample: usize,
    channels: (usize, usize),
    y: ArrayViewMut2<'a, f32>,
    last_state: Option<ArrayViewMut2<'a, f32>>,
    checkpoints: Option<&'a mut [f32]>,
}

pub fn forward(problem: &Problem<'_>, mut out: Results<'_>) -> Result<()> {
    if whole(problem, &mut out)? {
        return Ok(());
    }
    let width = problem.tile_width(TILE);
    let tiles: Vec<(usize, (usize, usize))> = (0..problem.bc.groups)
        .flat_map(|group| {
            problem
                .tiles(group, width)
                .map(move |channels| (group, channels))
        })
        .collect();
    let mut last_states = out.last_state.as_mut().map(|x| x.axis_iter_mut(Axis(0)));
    let mut rest = out.checkpoints;
    let mut tasks = Vec::with_capacity(problem.batch * tiles.len());
    for (sample, y) in out.y.axis_iter_mut(Axis(0)).enumerate() {
        let widths = || tiles.iter().map(|(_, channels)| channels.1);
        let mut last = last_states
            .as_mut()
            .and_then(Iterator::next)
            .map(|x| split_channels(x.reversed_axes(), widths()));
        for ((group, channels), y) in tiles.iter().zip(split_channels(y, widths())) {
            let len = checkpoint_len(1, problem.length, channels.1, problem.states);
            let checkpoints = rest.take().map(|all| {
                let (own, after) = all.split_at_mut(len);
                rest = Some(after);
                own
            });
            tasks.push(Task {
                group: *group,
                sample,
                channels: *channels,
                y,
                last_state: last.as_mut().and_then(Iterator::next),
                checkpoints,
            });
        }
    }
    for_each(problem.work(), tasks, |task| tile(problem, task))
}

/// Runs tasks on all threads, or on this one alone if all the work (nanoseconds, roughly) is small.
pub fn for_each<T: Send>(
    work: usize,
    tasks: Vec<T>,
    run: impl Fn(T) -> Result<()> + Sync + Send,
) -> Result<()> {
    match work < SERIAL {
        true => tasks.into_iter().try_for_each(run),
        false => tasks.into_par_iter().try_for_each(run),
    }
}

/// In one call for each group, if all arrays lie as kernels want them.
fn whole(problem: &Problem<'_>, out: &mut Results<'_>) -> Result<bool> {
    let Some(y) = out.y.as_slice_mut() else {
        return Ok(false);
    };
    let mut last_state = match &mut out.last_state {
        Some(last) => match last.as_slice_mut() {
            Some(last) => Some(last),
            None => return Ok(false),
        },
        None => None,
    };
    // Tiles keep their checkpoints by samples, then groups: the same for a single group.
    if out.checkpoints.is_some() && problem.bc.groups > 1 {
        return Ok(false);
    }
    let [batch, length, channels] = problem.full();
    for group in 0..problem.bc.groups {
        let Some(scan) = problem.whole(group) else {
            return Ok(false);
        };
        let (first, count) = (group * problem.group_width(), problem.group_width());
        let state = Layout::dense(batch, channels, problem.states).token_range(first, count);
        let to = ScanOut {
            y: TokensMut::new(
                &mut *y,
                Layout::dense(batch, length, channels).columns(first, count),
            ),
            accumulate: false,
            checkpoints: out.checkpoints.as_deref_mut(),
            last_state: last_state.as_deref_mut().map(|x| TokensMut::new(x, state)),
        };
        cpu::scan(level(), scan, to)?;
    }
    Ok(true)
}

fn tile(problem: &Problem<'_>, task: Task<'_>) -> Result<()> {
    let Task {
        group,
        sample,
        channels,
        mut y,
        last_state,
        mut checkpoints,
    } = task;
    let (length, states) = (problem.length, problem.states);
    let most = match checkpoints {
        // They are one piece for all tokens.
        Some(_) => length,
        None => MOST_TOKENS.min(length),
    };
    debug_assert_eq!(MOST_TOKENS % CHUNK, 0);
    let state_len = channels.1 * states;
    let dense_state = Layout::dense(1, channels.1, states);
    let len = TileMemory::len(problem, most, channels.1) + most * channels.1 + 2 * state_len;
    with_memory(len, |memory| {
        let (mut before, rest) = memory.split_at_mut(state_len);
        let (mut after, rest) = rest.split_at_mut(state_len);
        let pieces = length.div_ceil(most.max(1)).max(1);
        for piece in 0..pieces {
            let (start, end) = (piece * most, ((piece + 1) * most).min(length));
            let tokens = match problem.direction() {
                Direction::Forward => (start, end - start),
                Direction::Reverse => (length - end, end - start),
            };
            let tile = Tile {
                sample,
                tokens,
                channels,
            };
            let (own, rest) = TileMemory::take(problem, tile, rest);
            let mut scan = problem.tile(group, tile, own);
            if pieces == 1 {
                problem.prefetch_next(tile);
            }
            if piece > 0 {
                scan.initial_state = Some(Tokens::new(&*before, dense_state));
            }
            let result = &mut rest[..tokens.1 * channels.1];
            let to = ScanOut {
                y: TokensMut::new(&mut *result, Layout::dense(1, tokens.1, channels.1)),
                accumulate: false,
                checkpoints: checkpoints.as_deref_mut(),
                last_state: Some(TokensMut::new(&mut *after, dense_state)),
            };
            cpu::scan(level(), scan, to)?;
            scatter(result, y.slice_mut(s![tokens.0..tokens.0 + tokens.1, ..]));
            std::mem::swap(&mut before, &mut after);
        }
        if let Some(to) = last_state {
            // (states, channels), as it was cut.
            let mut to = to.reversed_axes();
            for (mut row, from) in to.rows_mut().into_iter().zip(before.chunks_exact(states)) {
                row.iter_mut().zip(from).for_each(|(to, &x)| *to = x);
            }
        }
        Ok(())
    })
}
