//! Residual add and normalisation in one pass over each row, and its backward.

use std::ops::Range;

use super::Cpu;
use super::elementwise::rows_per_block;
use super::lanes;
use super::reduce::{BLOCK, add_partials};
use super::rows::{Rows, RowsMut};
use super::threads::Pieces;
use crate::operands::{Accum, NormKind};
use crate::simd::{Kernel, Simd, dispatch};

/// A normalisation's parameters.
#[derive(Clone, Copy)]
pub(super) struct Params<'a> {
    pub(super) kind: NormKind,
    pub(super) eps: f32,
    pub(super) weight: Option<&'a [f32]>,
    pub(super) bias: Option<&'a [f32]>,
    /// Shift and scale, side by side, a row per sample.
    pub(super) shift_scale: Option<Rows<'a>>,
}

/// What the forward reads.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) residual: Option<Rows<'a>>,
    pub(super) hidden: Rows<'a>,
    pub(super) hidden_scale: Option<Rows<'a>>,
    pub(super) norm: Params<'a>,
}

/// What the forward writes: sum, stats, out.
pub(super) type Outputs<'a> = (Option<RowsMut<'a>>, Option<RowsMut<'a>>, RowsMut<'a>);

struct Forward<'a, 'b>(Inputs<'a>, Range<usize>, Outputs<'b>);

impl Kernel for Forward<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self(
            Inputs {
                residual,
                hidden,
                hidden_scale,
                norm,
            },
            range,
            outputs,
        ) = self;
        let (mut sum, mut stats, mut out) = outputs;
        let (n, tokens) = (hidden.channels() as f32, hidden.tokens());
        for r in range {
            let out = out.row(r);
            let factor = match hidden_scale {
                Some(scale) => scale.row(r / tokens)[0],
                None => 1.0,
            };
            match residual {
                Some(residual) => lanes::add_scaled(residual.row(r), factor, hidden.row(r), out),
                None => lanes::scaled(factor, hidden.row(r), out),
            }
            if let Some(sum) = &mut sum {
                sum.row(r).copy_from_slice(out);
            }
            // The variance from differences: from squares it would cancel.
            let mean = match norm.kind {
                NormKind::Rms => 0.0,
                NormKind::Layer => lanes::sum(out) / n,
            };
            let inverse = 1.0 / (lanes::sum_squares(out, mean) / n + norm.eps).sqrt();
            if let Some(stats) = &mut stats {
                stats.row(r).copy_from_slice(&[mean, inverse]);
            }
            lanes::normalise(out, mean, inverse, norm.weight);
            if let Some(bias) = norm.bias {
                lanes::add(bias, out);
            }
            if let Some(both) = norm.shift_scale {
                let (shift, scale) = both.row(r / tokens).split_at(out.len());
                lanes::modulate(shift, scale, out);
            }
        }
    }
}

pub(super) fn forward(cpu: &Cpu, inputs: Inputs<'_>, outputs: Outputs<'_>) {
    let (rows, channels) = (inputs.hidden.count(), inputs.hidden.channels());
    let (grain, level) = (rows_per_block(channels), cpu.level());
    cpu.threads
        .blocks(rows, grain, rows * channels, outputs, |range, outputs| {
            dispatch(level, Forward(inputs, range, outputs));
        });
}

/// Where parameter gradients are added.
pub(super) struct Grads<'a> {
    pub(super) arena: &'a mut [f32],
    pub(super) weight: Option<usize>,
    pub(super) bias: Option<usize>,
}

/// What the backward reads.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub(super) x: Rows<'a>,
    pub(super) stats: Rows<'a>,
    pub(super) norm: Params<'a>,
    pub(super) dout: Rows<'a>,
}

struct Backward<'a, 'b> {
    saved: Saved<'a>,
    range: Range<usize>,
    /// Sums of d weight and of d bias of these rows, then a row's xhat and g.
    block: &'b mut [f32],
    dx: RowsMut<'b>,
    accum: Accum,
    want_grads: bool,
}

impl Kernel for Backward<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self {
            saved,
            range,
            block,
            mut dx,
            accum,
            want_grads,
        } = self;
        let Saved {
            x,
            stats,
            norm,
            dout,
        } = saved;
        let (channels, tokens) = (x.channels(), x.tokens());
        let n = channels as f32;
        let (sums, row) = block.split_at_mut(2 * channels);
        sums.fill(0.0);
        let (d_weight, d_bias) = sums.split_at_mut(channels);
        let (xhat, g) = row.split_at_mut(channels);
        for r in range {
            let (mean, inverse) = (stats.row(r)[0], stats.row(r)[1]);
            lanes::normalised(x.row(r), mean, inverse, xhat);
            match norm.shift_scale {
                Some(both) => {
                    lanes::times_one_plus(dout.row(r), &both.row(r / tokens)[channels..], g);
                }
                None => g.copy_from_slice(dout.row(r)),
            }
            if want_grads {
                lanes::add_product(g, xhat, d_weight);
                lanes::add(g, d_bias);
            }
            if let Some(weight) = norm.weight {
                lanes::multiply(weight, g);
            }
            let mean_g = match norm.kind {
                NormKind::Rms => 0.0,
                NormKind::Layer => lanes::sum(g) / n,
            };
            let mean_gx = lanes::dot(g, xhat) / n;
            lanes::norm_gradient(g, xhat, [inverse, mean_g, mean_gx], accum, dx.row(r));
        }
    }
}

/// With g the gradient of `xhat = (x - mean) * inverse`:
/// `dx = inverse * (g - mean(g) - xhat * mean(g * xhat))`, without `mean(g)` for RMS.
pub(super) fn backward(
    cpu: &Cpu,
    saved: Saved<'_>,
    accum: Accum,
    dx: RowsMut<'_>,
    grads: Option<Grads<'_>>,
) {
    let (rows, channels) = (saved.x.count(), saved.x.channels());
    if rows == 0 || channels == 0 {
        return;
    }
    let width = 4 * channels;
    let mut scratch = cpu.scratch::<f32>(rows.div_ceil(BLOCK) * width);
    let pieces = Pieces {
        data: scratch.as_mut_slice(),
        width,
        units: BLOCK,
    };
    let (want_grads, level) = (grads.is_some(), cpu.level());
    cpu.threads.blocks(
        rows,
        BLOCK,
        rows * channels,
        (pieces, dx),
        |range, (pieces, dx)| {
            let block = pieces.data;
            dispatch(
                level,
                Backward {
                    saved,
                    range,
                    block,
                    dx,
                    accum,
                    want_grads,
                },
            );
        },
    );
    if let Some(grads) = grads {
        for (offset, first) in [(grads.weight, 0), (grads.bias, channels)] {
            if let Some(offset) = offset {
                add_partials(
                    cpu,
                    &scratch,
                    width,
                    first,
                    &mut grads.arena[offset..][..channels],
                );
            }
        }
    }
}

struct BackwardShiftScale<'a, 'b> {
    saved: Saved<'a>,
    sample: usize,
    /// Room for a row.
    row: &'b mut [f32],
    out: &'b mut [f32],
}

impl Kernel for BackwardShiftScale<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self {
            saved:
                Saved {
                    x,
                    stats,
                    norm,
                    dout,
                },
            sample,
            row,
            out,
        } = self;
        let tokens = x.tokens();
        out.fill(0.0);
        let (d_shift, d_scale) = out.split_at_mut(row.len());
        for r in sample * tokens..(sample + 1) * tokens {
            row.copy_from_slice(x.row(r));
            lanes::normalise(row, stats.row(r)[0], stats.row(r)[1], norm.weight);
            if let Some(bias) = norm.bias {
                lanes::add(bias, row);
            }
            lanes::add(dout.row(r), d_shift);
            lanes::add_product(dout.row(r), row, d_scale);
        }
    }
}

/// Gradients of shift and scale: the sums over a sample's tokens of `dout` and of
/// `dout * (xhat * weight + bias)`.
pub(super) fn backward_shift_scale(cpu: &Cpu, saved: Saved<'_>, out: RowsMut<'_>) {
    let (samples, width, level) = (out.count(), saved.x.channels(), cpu.level());
    let mut scratch = cpu.scratch::<f32>(samples * width);
    let pieces = Pieces {
        data: scratch.as_mut_slice(),
        width,
        units: 1,
    };
    let work = saved.x.count() * width;
    cpu.threads.blocks(
        samples,
        1,
        work,
        (pieces, out),
        |range, (pieces, mut out)| {
            let sample = range.start;
            let (row, out) = (pieces.data, out.row(sample));
            dispatch(
                level,
                BackwardShiftScale {
                    saved,
                    sample,
                    row,
                    out,
                },
            );
        },
    );
}
