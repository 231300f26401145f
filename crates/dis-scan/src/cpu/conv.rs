//! Causal depthwise convolution with SiLU, forward and backward.
//!
//! The forward streams over whole tokens, so tasks are blocks of tokens; the backward sums over
//! tokens, so its tasks are groups of sixteen channels.

use super::group::{Group, Stretch};
use super::pieces::Piece;
use crate::ops::{CHUNK, Conv, Direction};
use dis_tensor::Tokens;
use dis_tensor::simd::{Kernel, LANES, Number, Row, Simd, Vector, math};

/// Rows of one group's taps, oldest first, and bias.
pub(crate) const fn tap_rows(width: usize) -> usize {
    width + 1
}

/// Lays taps and bias out by groups of channels: [group][tap, then bias][lane].
pub(crate) fn load_taps(conv: &Conv<'_, [f32]>, taps: &mut [Row]) {
    let layout = conv.weight.layout;
    let width = layout.channels;
    taps.fill(Row::ZERO);
    for (g, rows) in taps.chunks_exact_mut(tap_rows(width)).enumerate() {
        let channels = LANES.min(layout.tokens - g * LANES);
        for i in 0..channels {
            let c = g * LANES + i;
            let from = &conv.weight.buf[layout.row(0, c)..][..width];
            for (row, &tap) in rows.iter_mut().zip(from) {
                row.0[i] = tap;
            }
            if let Some(bias) = &conv.bias {
                rows[width].0[i] = bias.buf[bias.layout.row(0, 0) + c];
            }
        }
    }
}

/// One task: some tokens of one sample, all channels.
pub(crate) struct ConvForward<'a> {
    pub conv: Conv<'a, [f32]>,
    /// From [`load_taps`].
    pub taps: &'a [Row],
    pub b: usize,
    /// First token (in memory, not in the walk).
    pub start: usize,
    /// The tokens' rows of the output.
    pub out: Piece<'a>,
}

impl Kernel for ConvForward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.conv.weight.layout.channels {
            2 => self.tokens::<S, 2>(simd),
            3 => self.tokens::<S, 3>(simd),
            _ => self.tokens::<S, 4>(simd),
        }
    }
}

impl ConvForward<'_> {
    #[inline(always)]
    fn tokens<S: Simd, const W: usize>(mut self, simd: S) {
        let layout = self.conv.x.layout;
        for row in 0..self.out.rows() {
            let t = self.start + row;
            // The token of each tap, oldest first; those before the walk's start are absent.
            let mut sources = [None; W];
            for (k, source) in sources.iter_mut().enumerate() {
                let back = W - 1 - k;
                let token = match self.conv.direction {
                    Direction::Forward => t.checked_sub(back),
                    Direction::Reverse => Some(t + back).filter(|&t| t < layout.tokens),
                };
                *source =
                    token.map(|t| &self.conv.x.buf[layout.row(self.b, t)..][..layout.channels]);
            }
            let out = self.out.row(row);
            // Away from the walk's start, whole groups go without looking at what is absent.
            let mut whole = 0;
            if sources.iter().all(Option::is_some) {
                let rows = sources.map(|x| x.map_or(&[][..], |x| x.as_chunks::<LANES>().0));
                let (out, _) = out.as_chunks_mut::<LANES>();
                whole = out.len();
                let rows = rows.map(|x| &x[..whole]);
                let taps = self.taps.chunks_exact(tap_rows(W));
                for (g, (to, taps)) in out.iter_mut().zip(taps).enumerate() {
                    let mut sum = simd.load(&taps[W].0);
                    for k in 0..W {
                        sum = simd.load(&rows[k][g]).fma(simd.load(&taps[k].0), sum);
                    }
                    activate(sum, self.conv.silu).store(to);
                }
            }
            let rest = out.chunks_mut(LANES).skip(whole);
            let taps = self.taps.chunks_exact(tap_rows(W)).skip(whole);
            for (g, (to, taps)) in (whole..).zip(rest.zip(taps)) {
                let mut sum = simd.load(&taps[W].0);
                let (from, until) = (g * LANES, g * LANES + to.len());
                for (source, tap) in sources.iter().zip(taps) {
                    if let Some(x) = source {
                        sum = simd
                            .load_partial(&x[from..until])
                            .fma(simd.load(&tap.0), sum);
                    }
                }
                activate(sum, self.conv.silu).store_partial(to);
            }
        }
    }
}

#[inline(always)]
fn activate<V: Vector>(sum: V, with_silu: bool) -> V {
    if with_silu { math::silu(sum) } else { sum }
}

/// One task: a group of channels of one sample.
pub(crate) struct ConvBackward<'a> {
    pub conv: Conv<'a, [f32]>,
    /// From [`load_taps`], of all groups.
    pub taps: &'a [Row],
    pub dout: Tokens<'a, [f32]>,
    pub group: Group,
    /// The group's columns of dx.
    pub dx: Piece<'a>,
    /// Whether dx is added to.
    pub accumulate: bool,
    /// One row: the gradients of taps and bias, [tap, then bias][lane].
    pub sums: Piece<'a>,
}

impl Kernel for ConvBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.conv.weight.layout.channels {
            2 => self.walk::<S, 2>(simd),
            3 => self.walk::<S, 3>(simd),
            _ => self.walk::<S, 4>(simd),
        }
    }
}

impl ConvBackward<'_> {
    #[inline(always)]
    fn walk<S: Simd, const W: usize>(mut self, simd: S) {
        let (group, x) = (self.group, self.conv.x);
        let tokens = x.layout.tokens;
        let stretch = Stretch {
            tokens,
            direction: self.conv.direction,
            start: 0,
            len: tokens,
        };
        let x_column = group.column(&x, stretch);
        let dout_column = group.column(&self.dout, stretch);
        let first = group.channel / LANES * tap_rows(W);
        let Some(rows) = self.taps[first..].first_chunk::<W>() else {
            return;
        };
        let bias = simd.load(&self.taps[first + W].0);
        let zero = simd.splat(0.0);
        let mut taps = [zero; W];
        for (tap, row) in taps.iter_mut().zip(rows) {
            *tap = simd.load(&row.0);
        }
        // recent[k] is the input that tap k saw; later[k] the gradient of the sum k positions on.
        let mut recent = [zero; W];
        let mut later = [zero; W];
        let mut dtaps = [zero; W];
        let mut dbias = zero;
        for k in 1..W {
            let back = W - k;
            if back <= tokens {
                recent[k - 1] = x_column.load(simd, tokens - back);
            }
        }
        for p in (0..tokens).rev() {
            let t = stretch.token(p);
            if p >= CHUNK {
                x_column.prefetch(p - CHUNK);
                dout_column.prefetch(p - CHUNK);
            }
            // One position back: the window gains the oldest input and loses the newest.
            for k in (1..W).rev() {
                recent[k] = recent[k - 1];
                later[k] = later[k - 1];
            }
            recent[0] = if p + 1 >= W {
                x_column.load(simd, p + 1 - W)
            } else {
                zero
            };
            let mut dsum = dout_column.load(simd, p);
            if self.conv.silu {
                let mut sum = bias;
                for k in 0..W {
                    sum = recent[k].fma(taps[k], sum);
                }
                dsum = dsum * math::silu_and_derivative(sum).1;
            }
            later[0] = dsum;
            dbias = dbias + dsum;
            let mut dx = zero;
            for k in 0..W {
                dtaps[k] = dsum.fma(recent[k], dtaps[k]);
                dx = later[k].fma(taps[W - 1 - k], dx);
            }
            let to = self.dx.row(t);
            if self.accumulate {
                dx = dx + simd.load_partial(to);
            }
            dx.store_partial(to);
        }
        let (rows, _) = self.sums.row(0).as_chunks_mut::<LANES>();
        for (row, value) in rows.iter_mut().zip(dtaps.into_iter().chain([dbias])) {
            value.store(row);
        }
    }
}
