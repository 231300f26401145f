//! The fast code for a CPU: float32 on slices, lanes on sixteen channels, parallel over samples
//! and groups of channels. Results do not depend on the number of threads.
//!
//! Every function takes the [`Level`] it is to run at ([`level`] gives that of the process) and
//! works in the current rayon pool.

mod backward;
mod conv;
mod forward;
mod group;
mod pieces;
mod reduce;
mod scratch;

pub use dis_tensor::simd::{Level, level};

use self::backward::Backward;
use self::conv::{ConvBackward, ConvForward};
use self::forward::Forward;
use self::group::Group;
use self::pieces::{Output, for_each_block};
use self::reduce::{ReducePartials, over_batch};
use self::scratch::{with_call_rows, with_task_rows};
use crate::check;
use crate::ops::{CHUNK, Conv, ConvGrads, Scan, ScanGrads, ScanOut};
use dis_tensor::simd::{self, LANES, Row};
use dis_tensor::{Layout, Result, Tokens, TokensMut};

/// Causal depthwise convolution, then SiLU if asked; see [`Conv`].
///
/// # Errors
/// If shapes do not fit or a view leaves its buffer.
pub fn conv1d(level: Level, conv: Conv<'_, [f32]>, out: TokensMut<'_, [f32]>) -> Result<()> {
    const OP: &str = "conv1d";
    const TOKENS: usize = 16;
    let shape = check::conv(OP, &conv)?;
    check::like(OP, "out", &out.layout, out.buf.len(), "x", conv.x.shape())?;
    let outputs = [Output::tokens(OP, out, TOKENS)?];
    let groups = shape.channels.div_ceil(LANES);
    with_call_rows(groups * conv::tap_rows(shape.width), |taps| {
        conv::load_taps(&conv, taps);
        let taps = &*taps;
        let work = shape.batch * shape.tokens * shape.channels / 2;
        for_each_block(
            shape.batch,
            shape.tokens.div_ceil(TOKENS),
            work,
            outputs,
            |b, k, [out]| {
                simd::dispatch(
                    level,
                    ConvForward {
                        conv,
                        taps,
                        b,
                        start: k * TOKENS,
                        out,
                    },
                );
            },
        );
    });
    Ok(())
}

/// Backward of [`conv1d`]; `dx` is overwritten, or added to when `accumulate`.
///
/// # Errors
/// If shapes do not fit, a view leaves its buffer, or an offset is missing.
pub fn conv1d_backward(
    level: Level,
    conv: Conv<'_, [f32]>,
    dout: Tokens<'_, [f32]>,
    accumulate: bool,
    dx: TokensMut<'_, [f32]>,
    grads: ConvGrads<'_, [f32]>,
) -> Result<()> {
    const OP: &str = "conv1d_backward";
    let shape = check::conv(OP, &conv)?;
    check::like(
        OP,
        "dout",
        &dout.layout,
        dout.buf.len(),
        "x",
        conv.x.shape(),
    )?;
    check::like(OP, "dx", &dx.layout, dx.buf.len(), "x", conv.x.shape())?;
    check::conv_grads(OP, &shape, conv.bias.is_some(), &grads)?;
    let check::ConvShape {
        batch,
        tokens,
        channels,
        width,
    } = shape;
    let groups = channels.div_ceil(LANES);
    let rows = conv::tap_rows(width);
    let sums = Layout::dense(batch, groups, rows * LANES);
    with_call_rows(groups * rows * (1 + batch), |scratch| {
        let (taps, sum_rows) = scratch.split_at_mut(groups * rows);
        conv::load_taps(&conv, taps);
        let taps = &*taps;
        let outputs = [
            Output::columns(OP, dx, LANES)?,
            Output::tokens(OP, TokensMut::new(Row::flat_mut(sum_rows), sums), 1)?,
        ];
        let work = batch * tokens * channels;
        for_each_block(batch, groups, work, outputs, |b, k, [dx, sums]| {
            let group = Group::new(b, k, channels);
            simd::dispatch(
                level,
                ConvBackward {
                    conv,
                    taps,
                    dout,
                    group,
                    dx,
                    accumulate,
                    sums,
                },
            );
        });
        let sums = Tokens::new(Row::flat(sum_rows), sums);
        for c in 0..channels {
            let (g, lane) = (c / LANES, c % LANES);
            for k in 0..width {
                grads.arena[grads.weight + c * width + k] += over_batch(&sums, g, k * LANES + lane);
            }
            if let (Some(_), Some(bias)) = (&conv.bias, grads.bias) {
                grads.arena[bias + c] += over_batch(&sums, g, width * LANES + lane);
            }
        }
        Ok(())
    })
}

/// The layout of checkpoints: for every sample and group of sixteen channels a row of states for
/// every chunk, [state][lane].
fn checkpoint_layout(shape: &check::ScanShape) -> Layout {
    let groups = shape.channels.div_ceil(LANES);
    let chunks = shape.tokens.div_ceil(CHUNK);
    Layout::dense(shape.batch, groups * chunks, shape.states * LANES)
}

/// The selective scan; see [`Scan`] and [`ScanOut`].
///
/// # Errors
/// If shapes do not fit or a view leaves its buffer.
pub fn scan(level: Level, scan: Scan<'_, [f32]>, out: ScanOut<'_, [f32]>) -> Result<()> {
    const OP: &str = "scan";
    let shape = check::scan(OP, &scan)?;
    check::scan_out(OP, &shape, &out)?;
    let chunks = shape.tokens.div_ceil(CHUNK);
    let checkpoints = out
        .checkpoints
        .map(|buf| TokensMut::new(buf, checkpoint_layout(&shape)));
    let outputs = [
        Output::columns(OP, out.y, LANES)?,
        Output::tokens_if(OP, checkpoints, chunks)?,
        Output::tokens_if(OP, out.last_state, LANES)?,
    ];
    let work = forward::work(shape.batch, shape.tokens, shape.channels, shape.states);
    let groups = shape.channels.div_ceil(LANES);
    for_each_block(
        shape.batch,
        groups,
        work,
        outputs,
        |b, k, [y, checkpoints, last_state]| {
            with_task_rows(Forward::scratch_len(shape.states), |scratch| {
                let task = Forward {
                    scan,
                    group: Group::new(b, k, shape.channels),
                    y,
                    accumulate: out.accumulate,
                    checkpoints,
                    last_state,
                    scratch,
                };
                simd::dispatch(level, task);
            });
        },
    );
    Ok(())
}

/// Blocks of channel groups that one sample's backward is divided into, at most. Sums over
/// channels are made block by block, so this depends on the number of channels only.
const MAX_BLOCKS: usize = 64;
/// Tasks that are in flight together, at least where the batch has them: samples are taken in
/// slabs of so many that their partial sums stay small.
const SLAB_TASKS: usize = 512;

/// Backward of [`scan()`], from the checkpoints of a forward at the same level; see [`ScanGrads`].
///
/// # Errors
/// If shapes do not fit, a view leaves its buffer, or an offset or dz is missing.
pub fn scan_backward(
    level: Level,
    scan: Scan<'_, [f32]>,
    checkpoints: &[f32],
    dout: Tokens<'_, [f32]>,
    mut grads: ScanGrads<'_, [f32]>,
) -> Result<()> {
    const OP: &str = "scan_backward";
    let shape = check::scan(OP, &scan)?;
    check::scan_grads(OP, &scan, &shape, &dout, &grads)?;
    check::checkpoints(OP, &shape, checkpoints.len())?;
    let groups = shape.channels.div_ceil(LANES);
    let per_block = groups.div_ceil(MAX_BLOCKS).max(1);
    let blocks = groups.div_ceil(per_block);
    let slab = SLAB_TASKS.div_ceil(blocks.max(1)).min(shape.batch);
    let partial_rows = backward::partial_layout(slab, blocks, &shape).elements() / LANES;
    let sums = backward::sums_layout(&shape);
    with_call_rows(partial_rows + sums.elements() / LANES, |rows| {
        let (partial_rows, sum_rows) = rows.split_at_mut(partial_rows);
        let (partials, sum_rows) = (Row::flat_mut(partial_rows), Row::flat_mut(sum_rows));
        let mut start = 0;
        while start < shape.batch {
            let count = slab.min(shape.batch - start);
            let samples = Samples {
                start,
                count,
                blocks,
                per_block,
            };
            let partial = backward::partial_layout(count, blocks, &shape);
            let partials = TokensMut::new(&mut partials[..partial.elements()], partial);
            let sums = TokensMut::new(&mut sum_rows[..], sums);
            backward_slab(
                level,
                scan,
                &shape,
                checkpoints,
                dout,
                &mut grads,
                samples,
                partials,
                sums,
            )?;
            start += count;
        }
        add_sums(&scan, &shape, &Tokens::new(&*sum_rows, sums), &mut grads);
        Ok(())
    })
}

/// Some samples of a backward and how their channels are divided.
#[derive(Clone, Copy)]
struct Samples {
    start: usize,
    count: usize,
    /// Blocks of each sample.
    blocks: usize,
    /// Groups of each block.
    per_block: usize,
}

fn samples_of<'a>(view: &'a mut TokensMut<'_, [f32]>, samples: Samples) -> TokensMut<'a, [f32]> {
    let layout = view.layout.sample_range(samples.start, samples.count);
    TokensMut::new(view.buf, layout)
}

fn backward_slab(
    level: Level,
    scan: Scan<'_, [f32]>,
    shape: &check::ScanShape,
    checkpoints: &[f32],
    dout: Tokens<'_, [f32]>,
    grads: &mut ScanGrads<'_, [f32]>,
    samples: Samples,
    mut partials: TokensMut<'_, [f32]>,
    mut sums: TokensMut<'_, [f32]>,
) -> Result<()> {
    const OP: &str = "scan_backward";
    let Samples {
        start,
        count,
        blocks,
        per_block,
    } = samples;
    let check::ScanShape {
        tokens,
        channels,
        states,
        ..
    } = *shape;
    let groups = channels.div_ceil(LANES);
    let width = per_block * LANES;
    let dz = grads.dz.as_mut().filter(|_| scan.z.is_some());
    let dinitial = grads.dinitial_state.as_mut();
    let outputs = [
        Output::columns(OP, samples_of(&mut grads.du, samples), width)?,
        Output::columns(OP, samples_of(&mut grads.ddelta, samples), width)?,
        Output::columns_if(OP, dz.map(|dz| samples_of(dz, samples)), width)?,
        Output::tokens(OP, partials.reborrow(), 1)?,
        Output::tokens(OP, samples_of(&mut sums, samples), per_block)?,
        Output::tokens_if(OP, dinitial.map(|to| samples_of(to, samples)), width)?,
    ];
    let dlast_state = grads.dlast_state;
    let work = 3 * forward::work(count, tokens, channels, states);
    let accumulate_dz = grads.accumulate_dz;
    let checkpoints = Tokens::new(checkpoints, checkpoint_layout(shape));
    for_each_block(
        count,
        blocks,
        work,
        outputs,
        |b, k, [du, ddelta, dz, partial, sums, dinitial_state]| {
            with_task_rows(Backward::scratch_len(states), |scratch| {
                let task = Backward {
                    scan,
                    shape: *shape,
                    checkpoints,
                    dout,
                    dlast_state,
                    b: start + b,
                    groups: k * per_block..((k + 1) * per_block).min(groups),
                    du,
                    ddelta,
                    dz,
                    accumulate_dz,
                    dinitial_state,
                    partial,
                    sums,
                    scratch,
                };
                simd::dispatch(level, task);
            });
        },
    );
    const TOKENS: usize = 16;
    let outputs = [Output::tokens(
        OP,
        samples_of(&mut grads.dbc, samples),
        TOKENS,
    )?];
    let work = count * tokens * 2 * states * blocks / 16;
    let partials = partials.as_ref();
    for_each_block(
        count,
        tokens.div_ceil(TOKENS),
        work,
        outputs,
        |b, k, [dbc]| {
            let task = ReducePartials {
                partials,
                b,
                start: k * TOKENS,
                states,
                dbc,
            };
            simd::dispatch(level, task);
        },
    );
    Ok(())
}

/// Sums over samples: dA is overwritten; dD and d delta_bias are added to.
fn add_sums(
    scan: &Scan<'_, [f32]>,
    shape: &check::ScanShape,
    sums: &Tokens<'_, [f32]>,
    grads: &mut ScanGrads<'_, [f32]>,
) {
    let states = shape.states;
    for c in 0..shape.channels {
        let (g, lane) = (c / LANES, c % LANES);
        let da = grads.da.layout.row(0, c);
        for n in 0..states {
            grads.da.buf[da + n] = over_batch(sums, g, n * LANES + lane);
        }
        if let (Some(_), Some(d)) = (&scan.d, grads.d) {
            grads.arena[d + c] += over_batch(sums, g, states * LANES + lane);
        }
        if let (Some(_), Some(bias)) = (&scan.delta_bias, grads.delta_bias) {
            grads.arena[bias + c] += over_batch(sums, g, (states + 1) * LANES + lane);
        }
    }
}
