//! The backward scan of a block of channel groups of one sample.
//!
//! Chunks of tokens go from the end of the walk to its start. In each, for a few states at a time,
//! the states are recomputed from the checkpoint and kept in first-level cache together with their
//! decays; then the adjoint recurrence walks back over them:
//!
//! `dh_t = C_t dy_t + A_bar_(t+1) dh_(t+1)`, from which all gradients are products. Those of B and
//! C are sums over channels: lanes are folded eight states of each at a time, groups of a block add up
//! in the block's own partial sums. What a chunk needs fills the first-level cache, so the next one is
//! fetched into the second.

use super::group::{
    Group, InputRows, Stretch, decays, holds, load_parts, padded_states, store_parts, store_state,
    unrolled, within_reach,
};
use super::pieces::Piece;
use crate::check::ScanShape;
use crate::ops::{CHUNK, Discretization, Scan};
use dis_tensor::simd::{Kernel, LANES, Number, Row, Simd, Vector, math, prefetch_second};
use dis_tensor::{Layout, Tokens};
use std::ops::Range;

/// States of one block: what a chunk keeps of them must fit the first-level cache beside all else
/// (eight were slower by 3 to 15 %).
const BLOCK: usize = 4;

/// Where the sums over tokens of one group go: dA, then dD and d delta_bias; in rows.
pub(crate) const fn sum_rows(states: usize) -> usize {
    states + 2
}

/// Numbers of a token in the partial sums of dB and dC: four of dB, four of dC, and so on, padded to
/// whole vectors.
pub(crate) const fn partial_width(states: usize) -> usize {
    2 * states.next_multiple_of(LANES / 2)
}

/// One task: some groups of channels of one sample.
pub(crate) struct Backward<'a> {
    pub scan: Scan<'a, [f32]>,
    pub shape: ScanShape,
    pub checkpoints: Tokens<'a, [f32]>,
    pub dout: Tokens<'a, [f32]>,
    pub dlast_state: Option<Tokens<'a, [f32]>>,
    /// The sample.
    pub b: usize,
    /// The groups.
    pub groups: Range<usize>,
    /// The groups' columns of du, ddelta and dz (empty without a gate).
    pub du: Piece<'a>,
    pub ddelta: Piece<'a>,
    pub dz: Piece<'a>,
    /// Whether dz is added to.
    pub accumulate_dz: bool,
    /// A row for each of the groups' channels: the gradient of its states at the start; empty if not
    /// wanted.
    pub dinitial_state: Piece<'a>,
    /// One row: for each token [`partial_width`].
    pub partial: Piece<'a>,
    /// A row for each group: [`sum_rows`].
    pub sums: Piece<'a>,
    /// [`Backward::scratch_len`] rows.
    pub scratch: &'a mut [Row],
}

impl Backward<'_> {
    /// Rows of scratch for a number of states.
    pub(crate) const fn scratch_len(states: usize) -> usize {
        let padded = padded_states(states);
        4 * padded + CHUNK * fold_stride(padded) + InputRows::copy_len(states, CHUNK)
    }
}

/// Rows of a token that hold its products, each those of four states: for C, folded within quarters,
/// then for B and C, folded to quarters of a register each.
const fn fold_stride(padded: usize) -> usize {
    (padded / 4).next_multiple_of(2)
}

/// What a chunk of tokens keeps; on the stack, beside what the compiler keeps there: see [`scratch`].
///
/// [`scratch`]: super::scratch
struct Chunk {
    delta: [Row; CHUNK],
    /// delta u, or u for the zero-order hold.
    input: [Row; CHUNK],
    /// Gradient of the output before the gate.
    dy: [Row; CHUNK],
    /// The output before the gate, recomputed.
    y: [Row; CHUNK],
    /// Sums over states of dh B (zero-order hold: times the gain): the gradient of the input.
    dinput: [Row; CHUNK],
    /// Sums over states of what A_bar contributes to ddelta, times log2(e).
    ddecay: [Row; CHUNK],
    /// Per token and state of a block.
    decay: [[Row; BLOCK]; CHUNK],
    before: [[Row; BLOCK]; CHUNK],
    u: [Row; CHUNK],
    /// Derivative of the step by the raw one.
    by_raw: [Row; CHUNK],
    /// Gradient of the gate, but for the factor y.
    dgate: [Row; CHUNK],
    /// Sums over states of what the zero-order hold's gain contributes to ddelta.
    dgain: [Row; CHUNK],
    /// As `decay`, for the zero-order hold.
    gain: [[Row; BLOCK]; CHUNK],
    /// Over tokens, for D and delta_bias.
    sums: [Row; 2],
}

impl Chunk {
    const ZERO: Self = Self {
        delta: [Row::ZERO; CHUNK],
        input: [Row::ZERO; CHUNK],
        dy: [Row::ZERO; CHUNK],
        y: [Row::ZERO; CHUNK],
        dinput: [Row::ZERO; CHUNK],
        ddecay: [Row::ZERO; CHUNK],
        decay: [[Row::ZERO; BLOCK]; CHUNK],
        before: [[Row::ZERO; BLOCK]; CHUNK],
        u: [Row::ZERO; CHUNK],
        by_raw: [Row::ZERO; CHUNK],
        dgate: [Row::ZERO; CHUNK],
        dgain: [Row::ZERO; CHUNK],
        gain: [[Row::ZERO; BLOCK]; CHUNK],
        sums: [Row::ZERO; 2],
    };
}

/// The scratch of a task by name: rows per state, and a chunk.
struct Scratch<'a> {
    a: &'a mut [Row],
    /// Largest magnitudes in `a`.
    largest_a: Row,
    inverse_a: &'a mut [Row],
    /// Adjoint of the state, as it enters the chunk from its end.
    carry: &'a mut [Row],
    da: &'a mut [Row],
    /// Folded products for B and C, see [`fold_stride`].
    folds: &'a mut [Row],
    chunk: &'a mut Chunk,
}

/// Cuts a number of rows off the front.
fn take<'a>(rows: &mut &'a mut [Row], count: usize) -> &'a mut [Row] {
    let (front, back) = std::mem::take(rows).split_at_mut(count);
    *rows = back;
    front
}

impl<'a> Scratch<'a> {
    /// The scratch, and what is left for [`InputRows`].
    fn new(mut rows: &'a mut [Row], chunk: &'a mut Chunk, states: usize) -> (Self, &'a mut [Row]) {
        let padded = padded_states(states);
        let rows = &mut rows;
        let scratch = Self {
            a: take(rows, padded),
            largest_a: Row::ZERO,
            inverse_a: take(rows, padded),
            carry: take(rows, padded),
            da: take(rows, padded),
            folds: take(rows, CHUNK * fold_stride(padded)),
            chunk,
        };
        (scratch, std::mem::take(rows))
    }
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.scan.discretization {
            Discretization::Mamba => self.all_groups::<S, false>(simd),
            Discretization::ZeroOrderHold => self.all_groups::<S, true>(simd),
        }
    }
}

impl Backward<'_> {
    #[inline(always)]
    fn all_groups<S: Simd, const HOLD: bool>(mut self, simd: S) {
        let rows = std::mem::take(&mut self.scratch);
        let mut chunk = Chunk::ZERO;
        let (mut scratch, copy) = Scratch::new(rows, &mut chunk, self.shape.states);
        // What fills up the folds' last vectors stays zero.
        scratch.folds.fill(Row::ZERO);
        for local in 0..self.groups.len() {
            self.one_group::<S, HOLD>(simd, local, &mut scratch, copy);
        }
    }

    #[inline(always)]
    fn one_group<S: Simd, const HOLD: bool>(
        &mut self,
        simd: S,
        local: usize,
        scratch: &mut Scratch<'_>,
        copy: &mut [Row],
    ) {
        let ScanShape {
            tokens,
            channels,
            states,
            ..
        } = self.shape;
        let index = self.groups.start + local;
        let group = Group::new(self.b, index, channels);
        scratch.largest_a = group.load_a::<S, HOLD>(&self.scan.a, scratch.a, scratch.inverse_a);
        group.load_state(&self.dlast_state, scratch.carry);
        scratch.da.fill(Row::ZERO);
        scratch.chunk.sums.fill(Row::ZERO);
        let chunks = tokens.div_ceil(CHUNK);
        for chunk in (0..chunks).rev() {
            let start = chunk * CHUNK;
            let len = CHUNK.min(tokens - start);
            let stretch = Stretch {
                tokens,
                direction: self.scan.direction,
                start,
                len,
            };
            let saved = self.checkpoints.layout.row(self.b, index * chunks + chunk);
            let from = &self.checkpoints.buf[saved..saved + states * LANES];
            let from = from.as_chunks().0;
            let next = saved.wrapping_sub(states * LANES);
            let within = self.enter::<S, HOLD>(simd, group, local, stretch, next, scratch);
            let rows = InputRows::new(&self.scan, self.b, stretch, copy);
            for part in 0..S::PARTS {
                for first in (0..padded_states(states)).step_by(BLOCK) {
                    let at = At { part, first, len };
                    if within {
                        recompute::<S, HOLD, true>(simd, at, rows, from, scratch);
                    } else {
                        recompute::<S, HOLD, false>(simd, at, rows, from, scratch);
                    }
                    retrace::<S, HOLD>(simd, at, rows, scratch);
                }
            }
            self.leave::<S, HOLD>(simd, group, local, stretch, scratch);
        }
        store_state(scratch.carry, &mut self.dinitial_state, local * LANES);
        let (da, rest) = self.sums.row(local).split_at_mut(states * LANES);
        da.copy_from_slice(Row::flat(&scratch.da[..states]));
        rest.copy_from_slice(Row::flat(&scratch.chunk.sums));
    }

    /// Steps, inputs and output gradients of a chunk; `next` is where the following chunk's
    /// checkpoint lies. Returns whether exponents are [`within_reach`].
    #[inline(always)]
    fn enter<S: Simd, const HOLD: bool>(
        &mut self,
        simd: S,
        group: Group,
        local: usize,
        stretch: Stretch,
        next: usize,
        s: &mut Scratch<'_>,
    ) -> bool {
        let scan = self.scan;
        let mut largest = simd.splat(0.0);
        let bias = group.vector(simd, &scan.delta_bias);
        let d = group.vector(simd, &scan.d);
        let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
        let u_column = group.column(&scan.u, stretch);
        let delta_column = group.column(&scan.delta, stretch);
        let dout_column = group.column(&self.dout, stretch);
        let z_column = scan.z.as_ref().map(|z| group.column(z, stretch));
        for i in 0..stretch.len.min(CHUNK) {
            if stretch.start >= CHUNK {
                prefetch_second(self.checkpoints.buf, next + i * LANES);
                let ahead = i.wrapping_sub(CHUNK);
                u_column.prefetch_second(ahead);
                delta_column.prefetch_second(ahead);
                dout_column.prefetch_second(ahead);
                if let Some(z) = &z_column {
                    z.prefetch_second(ahead);
                }
            }
            let t = stretch.token(i);
            prefetch_second(self.du.row(t), local * LANES);
            prefetch_second(self.ddelta.row(t), local * LANES);
            if self.dz.rows() > 0 {
                prefetch_second(self.dz.row(t), local * LANES);
            }
            let u = u_column.load(simd, i);
            let raw = delta_column.load(simd, i) + bias;
            let (delta, by_raw) = if scan.delta_softplus {
                math::softplus_and_derivative_from(raw, math::exp_minus_abs(raw))
            } else {
                (raw, one)
            };
            let dout = dout_column.load(simd, i);
            let (dy, dgate) = match &z_column {
                Some(z) => {
                    let (value, derivative) = math::silu_and_derivative(z.load(simd, i));
                    (dout * value, dout * derivative)
                }
                None => (dout, zero),
            };
            u.store(&mut s.chunk.u[i].0);
            largest = largest.max(delta.abs());
            delta.store(&mut s.chunk.delta[i].0);
            by_raw.store(&mut s.chunk.by_raw[i].0);
            let input = if HOLD { u } else { delta * u };
            input.store(&mut s.chunk.input[i].0);
            dy.store(&mut s.chunk.dy[i].0);
            dgate.store(&mut s.chunk.dgate[i].0);
            (d * u).store(&mut s.chunk.y[i].0);
        }
        within_reach(simd, largest, &s.largest_a)
    }

    /// Gradients of a chunk's inputs from the sums over states.
    #[inline(always)]
    fn leave<S: Simd, const HOLD: bool>(
        &mut self,
        simd: S,
        group: Group,
        local: usize,
        stretch: Stretch,
        s: &mut Scratch<'_>,
    ) {
        let columns = local * LANES..local * LANES + group.width;
        let d = group.vector(simd, &self.scan.d);
        let ln2 = simd.splat(std::f32::consts::LN_2);
        let [mut d_sum, mut bias_sum] = s.chunk.sums.map(|row| simd.load(&row.0));
        // From the end, as the walk goes: sums over tokens then have one order.
        for i in (0..stretch.len).rev() {
            let t = stretch.token(i);
            let dy = simd.load(&s.chunk.dy[i].0);
            let (u, delta) = (simd.load(&s.chunk.u[i].0), simd.load(&s.chunk.delta[i].0));
            let dinput = simd.load(&s.chunk.dinput[i].0);
            let ddecay = simd.load(&s.chunk.ddecay[i].0);
            let (du, ddelta) = if HOLD {
                (
                    d.fma(dy, dinput),
                    ddecay.fma(ln2, simd.load(&s.chunk.dgain[i].0)),
                )
            } else {
                (d.fma(dy, delta * dinput), ddecay.fma(ln2, u * dinput))
            };
            let ddelta = ddelta * simd.load(&s.chunk.by_raw[i].0);
            d_sum = dy.fma(u, d_sum);
            bias_sum = bias_sum + ddelta;
            du.store_partial(&mut self.du.row(t)[columns.clone()]);
            ddelta.store_partial(&mut self.ddelta.row(t)[columns.clone()]);
            if self.dz.rows() > 0 {
                let to = &mut self.dz.row(t)[columns.clone()];
                let mut dz = simd.load(&s.chunk.dgate[i].0) * simd.load(&s.chunk.y[i].0);
                if self.accumulate_dz {
                    dz = dz + simd.load_partial(to);
                }
                dz.store_partial(to);
            }
            self.add_partial(simd, local, t, i, s);
        }
        d_sum.store(&mut s.chunk.sums[0].0);
        bias_sum.store(&mut s.chunk.sums[1].0);
    }

    /// Adds the sums over the group's channels to the block's partial dB and dC.
    #[inline(always)]
    fn add_partial<S: Simd>(&mut self, simd: S, local: usize, t: usize, i: usize, s: &Scratch<'_>) {
        let width = partial_width(self.shape.states);
        let row = &mut self.partial.row(0)[t * width..(t + 1) * width];
        let stride = fold_stride(s.a.len());
        let folds = s.folds[i * stride..(i + 1) * stride].as_chunks::<2>().0;
        for (to, folds) in row.as_chunks_mut::<LANES>().0.iter_mut().zip(folds) {
            let mut sum = S::V::fold_quarters(simd.load(&folds[0].0), simd.load(&folds[1].0));
            if local > 0 {
                sum = sum + simd.load(to);
            }
            sum.store(to);
        }
    }
}

/// A block of states over a chunk of tokens, in one part of the lanes.
#[derive(Clone, Copy)]
struct At {
    part: usize,
    /// First state.
    first: usize,
    /// Tokens.
    len: usize,
}

/// Recomputes a block of states over a chunk, `from` those before it, keeping decays and states; adds to y and folds the
/// products for C.
#[inline(always)]
fn recompute<S: Simd, const HOLD: bool, const WITHIN: bool>(
    simd: S,
    at: At,
    rows: InputRows<'_>,
    from: &[[f32; LANES]],
    s: &mut Scratch<'_>,
) {
    let At { part, first, len } = at;
    // What fills up the last block stays zero.
    let row = |j: usize| match from.get(first + j) {
        Some(row) => simd.load_part(row, part),
        None => simd.splat_part(0.0),
    };
    let mut h: [S::P; BLOCK] = std::array::from_fn(row);
    let Some(a) = s.a[first..].first_chunk::<BLOCK>() else {
        return;
    };
    let Some(inverse_a) = s.inverse_a[first..].first_chunk::<BLOCK>() else {
        return;
    };
    let chunk = &mut *s.chunk;
    let stride = fold_stride(s.a.len());
    for i in 0..len.min(CHUNK) {
        let (decays_i, befores, gains) = (
            &mut chunk.decay[i],
            &mut chunk.before[i],
            &mut chunk.gain[i],
        );
        let (b, c) = rows.block::<BLOCK>(i, first);
        let delta = simd.load_part(&chunk.delta[i].0, part);
        let input = simd.load_part(&chunk.input[i].0, part);
        let dy = simd.load_part(&chunk.dy[i].0, part);
        // Two sums, so that the additions are not one long chain.
        let mut y = [simd.load_part(&chunk.y[i].0, part), simd.splat_part(0.0)];
        let folds = &mut s.folds[i * stride + first / 4..][..BLOCK / 4];
        let mut products = [dy; 4];
        // Together where that is worth it, else one after another.
        let mut together = [math::Hold {
            decay: delta,
            gain: delta,
        }; BLOCK];
        if WITHIN {
            let mut t = [delta; BLOCK];
            unrolled!(BLOCK, |j| { t[j] = delta * simd.load_part(&a[j].0, part) });
            if HOLD {
                together = holds::<S, BLOCK>(t, load_parts(simd, inverse_a, part));
            } else {
                let decays = decays::<S, BLOCK>(t);
                unrolled!(BLOCK, |j| { together[j].decay = decays[j] });
            }
        }
        unrolled!(BLOCK, |j| {
            let t = delta * simd.load_part(&a[j].0, part);
            simd.store_part(h[j], &mut befores[j].0, part);
            if HOLD {
                let hold = if WITHIN {
                    together[j]
                } else {
                    math::hold(t, delta, simd.load_part(&inverse_a[j].0, part))
                };
                simd.store_part(hold.decay, &mut decays_i[j].0, part);
                simd.store_part(hold.gain, &mut gains[j].0, part);
                let by = hold.gain * (input * simd.splat_part(b[j]));
                h[j] = hold.decay.fma(h[j], by);
            } else {
                let decay = if WITHIN {
                    together[j].decay
                } else {
                    math::exp2(t)
                };
                simd.store_part(decay, &mut decays_i[j].0, part);
                h[j] = decay.fma(h[j], input * simd.splat_part(b[j]));
            }
            y[j % 2] = h[j].fma(simd.splat_part(c[j]), y[j % 2]);
            products[j % 4] = dy * h[j];
            if j % 4 == 3 {
                simd.fold_second(S::P::fold_within(products), &mut folds[j / 4].0, part);
            }
        });
        simd.store_part(y[0] + y[1], &mut chunk.y[i].0, part);
    }
}

/// Walks the adjoint of a block of states back over a chunk.
#[inline(always)]
fn retrace<S: Simd, const HOLD: bool>(simd: S, at: At, rows: InputRows<'_>, s: &mut Scratch<'_>) {
    let At { part, first, len } = at;
    let mut carry: [S::P; BLOCK] = load_parts(simd, &s.carry[first..], part);
    let mut da: [S::P; BLOCK] = load_parts(simd, &s.da[first..], part);
    let Some(a) = s.a[first..].first_chunk::<BLOCK>() else {
        return;
    };
    let Some(inverse_a) = s.inverse_a[first..].first_chunk::<BLOCK>() else {
        return;
    };
    let chunk = &mut *s.chunk;
    let stride = fold_stride(s.a.len());
    for i in (0..len.min(CHUNK)).rev() {
        let (decays, befores, gains) = (&chunk.decay[i], &chunk.before[i], &chunk.gain[i]);
        let (b, c) = rows.block::<BLOCK>(i, first);
        let delta = simd.load_part(&chunk.delta[i].0, part);
        let input = simd.load_part(&chunk.input[i].0, part);
        let dy = simd.load_part(&chunk.dy[i].0, part);
        let zero = simd.splat_part(0.0);
        // The first block begins the sums over states.
        let sum = |row: &Row| {
            if first == 0 {
                zero
            } else {
                simd.load_part(&row.0, part)
            }
        };
        let mut dinput = [sum(&chunk.dinput[i]), zero];
        let mut ddecay = [sum(&chunk.ddecay[i]), zero];
        let folds = &mut s.folds[i * stride + first / 4..][..BLOCK / 4];
        let mut dgain = sum(&chunk.dgain[i]);
        let mut products = [dy; 4];
        unrolled!(BLOCK, |j| {
            let scaled_a = simd.load_part(&a[j].0, part);
            let decay = simd.load_part(&decays[j].0, part);
            let b = simd.splat_part(b[j]);
            let dh = dy.fma(simd.splat_part(c[j]), carry[j]);
            carry[j] = dh * decay;
            // d A_bar times A_bar: the gradient of the exponent.
            let dx = carry[j] * simd.load_part(&befores[j].0, part);
            da[j] = dx.fma(delta, da[j]);
            ddecay[j % 2] = dx.fma(scaled_a, ddecay[j % 2]);
            if HOLD {
                let gain = simd.load_part(&gains[j].0, part);
                let through = dh * gain;
                products[j % 4] = through * input;
                dinput[j % 2] = through.fma(b, dinput[j % 2]);
                let by_gain = dh * (b * input);
                // d gain / d delta is A_bar.
                dgain = by_gain.fma(decay, dgain);
                let x = delta * (scaled_a * simd.splat_part(std::f32::consts::LN_2));
                let hold = math::Hold { decay, gain };
                let inverse_a = simd.load_part(&inverse_a[j].0, part);
                let by_a = math::hold_gain_by_a(x, delta, hold, inverse_a);
                da[j] = by_gain.fma(by_a, da[j]);
            } else {
                products[j % 4] = dh * input;
                dinput[j % 2] = dh.fma(b, dinput[j % 2]);
            }
            if j % 4 == 3 {
                simd.fold_first(S::P::fold_within(products), &mut folds[j / 4].0, part);
            }
        });
        simd.store_part(dinput[0] + dinput[1], &mut chunk.dinput[i].0, part);
        simd.store_part(ddecay[0] + ddecay[1], &mut chunk.ddecay[i].0, part);
        if HOLD {
            simd.store_part(dgain, &mut chunk.dgain[i].0, part);
        }
    }
    store_parts(simd, &carry, &mut s.carry[first..], part);
    store_parts(simd, &da, &mut s.da[first..], part);
}

/// The layout of the partial dB and dC: for every sample and block one row.
pub(crate) fn partial_layout(batch: usize, blocks: usize, shape: &ScanShape) -> Layout {
    Layout::dense(batch, blocks, shape.tokens * partial_width(shape.states))
}

/// The layout of the sums over tokens: for every sample and group one row.
pub(crate) fn sums_layout(shape: &ScanShape) -> Layout {
    let groups = shape.channels.div_ceil(LANES);
    Layout::dense(shape.batch, groups, sum_rows(shape.states) * LANES)
}
