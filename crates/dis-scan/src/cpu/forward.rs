//! The forward scan of one group of sixteen channels.
//!
//! Tokens go in chunks through scratch that fits the first-level cache, in three passes: the steps
//! and inputs; the recurrence, with a block of states in registers; the gate. So the recurrence
//! runs without branches and without the long-latency parts of softplus and SiLU.

use super::group::{
    Group, InputRows, Stretch, decays, holds, load_parts, padded_states, store_parts, store_state,
    take_chunk, unrolled, within_reach,
};
use super::pieces::Piece;
use crate::ops::{CHUNK, Discretization, Scan};
use dis_tensor::simd::{Kernel, LANES, Number, Row, Simd, Vector, math};

/// One task: a group of channels of one sample.
pub(crate) struct Forward<'a> {
    pub scan: Scan<'a, [f32]>,
    pub group: Group,
    /// The group's columns of y.
    pub y: Piece<'a>,
    /// Whether y is added to.
    pub accumulate: bool,
    /// One row per chunk: the states before it, [state][lane]; empty if not wanted.
    pub checkpoints: Piece<'a>,
    /// One row per channel: its states at the end; empty if not wanted.
    pub last_state: Piece<'a>,
    /// [`Forward::scratch_len`] rows.
    pub scratch: &'a mut [Row],
}

impl Forward<'_> {
    /// Rows of scratch for a number of states.
    pub(crate) const fn scratch_len(states: usize) -> usize {
        3 * padded_states(states) + 3 * CHUNK + InputRows::copy_len(states, CHUNK)
    }
}

/// The scratch of a task by name.
struct Scratch<'a> {
    /// A log2(e), one row a state.
    a: &'a [Row],
    /// Largest magnitudes in `a`.
    largest_a: Row,
    /// 1 / A, for the zero-order hold.
    inverse_a: &'a [Row],
    /// The states.
    h: &'a mut [Row],
    /// The steps of a chunk.
    delta: &'a mut [Row; CHUNK],
    /// The inputs of a chunk: delta u, or u for the zero-order hold.
    input: &'a mut [Row; CHUNK],
    /// The outputs of a chunk.
    y: &'a mut [Row; CHUNK],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.scan.discretization {
            Discretization::Mamba => self.walk::<S, false>(simd),
            Discretization::ZeroOrderHold => self.walk::<S, true>(simd),
        }
    }
}

impl Forward<'_> {
    #[inline(always)]
    fn walk<S: Simd, const HOLD: bool>(mut self, simd: S) {
        let states = self.scan.a.layout.channels;
        let padded = padded_states(states);
        let (a, rest) = std::mem::take(&mut self.scratch).split_at_mut(padded);
        let (inverse_a, rest) = rest.split_at_mut(padded);
        let (h, rest) = rest.split_at_mut(padded);
        let (delta, rest) = take_chunk(rest);
        let (input, rest) = take_chunk(rest);
        let (y, copy) = take_chunk(rest);
        let largest_a = self.group.load_a::<S, HOLD>(&self.scan.a, a, inverse_a);
        self.group.load_state(&self.scan.initial_state, h);
        let mut scratch = Scratch {
            a,
            largest_a,
            inverse_a,
            h,
            delta,
            input,
            y,
        };

        let tokens = self.scan.u.layout.tokens;
        for start in (0..tokens).step_by(CHUNK) {
            let len = CHUNK.min(tokens - start);
            let stretch = Stretch {
                tokens,
                direction: self.scan.direction,
                start,
                len,
            };
            if self.checkpoints.rows() > 0 {
                let row = self.checkpoints.row(start / CHUNK);
                row.copy_from_slice(Row::flat(&scratch.h[..states]));
            }
            let within = self.enter::<S, HOLD>(simd, stretch, &mut scratch);
            let rows = InputRows::new(&self.scan, self.group.b, stretch, copy);
            if within {
                recur::<S, HOLD, true>(simd, len, rows, &mut scratch);
            } else {
                recur::<S, HOLD, false>(simd, len, rows, &mut scratch);
            }
            self.leave(simd, stretch, scratch.y, scratch.delta);
        }
        store_state(scratch.h, &mut self.last_state, 0);
    }

    /// First pass: steps, inputs, and the skip as the start of the outputs' sums. Returns whether
    /// exponents are [`within_reach`].
    #[inline(always)]
    fn enter<S: Simd, const HOLD: bool>(
        &self,
        simd: S,
        stretch: Stretch,
        scratch: &mut Scratch<'_>,
    ) -> bool {
        let (scan, group) = (&self.scan, self.group);
        let mut largest = simd.splat(0.0);
        let bias = group.vector(simd, &scan.delta_bias);
        let d = group.vector(simd, &scan.d);
        let u_column = group.column(&scan.u, stretch);
        let delta_column = group.column(&scan.delta, stretch);
        let z_column = scan.z.as_ref().map(|z| group.column(z, stretch));
        for i in 0..stretch.len.min(CHUNK) {
            if stretch.start + i + CHUNK < stretch.tokens {
                u_column.prefetch(i + CHUNK);
                delta_column.prefetch(i + CHUNK);
                if let Some(z) = &z_column {
                    z.prefetch(i + CHUNK);
                }
            }
            let raw = delta_column.load(simd, i) + bias;
            raw.store(&mut scratch.delta[i].0);
            if scan.delta_softplus {
                math::exp_minus_abs(raw).store(&mut scratch.input[i].0);
            }
        }
        // A loop of its own, so that more tokens fit the processor's window.
        for i in 0..stretch.len.min(CHUNK) {
            let u = u_column.load(simd, i);
            let raw = simd.load(&scratch.delta[i].0);
            let delta = if scan.delta_softplus {
                math::softplus_from(raw, simd.load(&scratch.input[i].0))
            } else {
                raw
            };
            largest = largest.max(delta.abs());
            delta.store(&mut scratch.delta[i].0);
            let input = if HOLD { u } else { delta * u };
            input.store(&mut scratch.input[i].0);
            (d * u).store(&mut scratch.y[i].0);
        }
        within_reach(simd, largest, &scratch.largest_a)
    }

    /// Third pass: the other direction's sum, the gate, the output.
    #[inline(always)]
    fn leave<S: Simd>(
        &mut self,
        simd: S,
        stretch: Stretch,
        y: &[Row; CHUNK],
        exps: &mut [Row; CHUNK],
    ) {
        let z_column = self.scan.z.as_ref().map(|z| self.group.column(z, stretch));
        if let Some(z) = &z_column {
            for i in 0..stretch.len.min(CHUNK) {
                math::silu_exp(z.load(simd, i)).store(&mut exps[i].0);
            }
        }
        for i in 0..stretch.len.min(CHUNK) {
            let to = self.y.row(stretch.token(i));
            let mut value = simd.load(&y[i].0);
            if self.accumulate {
                value = value + simd.load_partial(to);
            }
            if let Some(z) = &z_column {
                value = value * math::silu_from(z.load(simd, i), simd.load(&exps[i].0));
            }
            value.store_partial(to);
        }
    }
}

/// Second pass: the recurrence, in blocks of as many states as the registers hold.
#[inline(always)]
fn recur<S: Simd, const HOLD: bool, const WITHIN: bool>(
    simd: S,
    len: usize,
    rows: InputRows<'_>,
    s: &mut Scratch<'_>,
) {
    let padded = s.a.len();
    for part in 0..S::PARTS {
        let mut first = 0;
        while S::STATE_BLOCK >= 16 && first + 16 <= padded {
            recur_block::<S, 16, HOLD, WITHIN>(simd, part, first, len, rows, s);
            first += 16;
        }
        while S::STATE_BLOCK >= 8 && first + 8 <= padded {
            recur_block::<S, 8, HOLD, WITHIN>(simd, part, first, len, rows, s);
            first += 8;
        }
        while first < padded {
            recur_block::<S, 4, HOLD, WITHIN>(simd, part, first, len, rows, s);
            first += 4;
        }
    }
}

#[inline(always)]
fn recur_block<S: Simd, const NB: usize, const HOLD: bool, const WITHIN: bool>(
    simd: S,
    part: usize,
    first: usize,
    len: usize,
    rows: InputRows<'_>,
    s: &mut Scratch<'_>,
) {
    let mut h: [S::P; NB] = load_parts(simd, &s.h[first..], part);
    let Some(a) = s.a[first..].first_chunk::<NB>() else {
        return;
    };
    let Some(inverse_a) = s.inverse_a[first..].first_chunk::<NB>() else {
        return;
    };
    for i in 0..len.min(CHUNK) {
        let (b, c) = rows.block::<NB>(i, first);
        let delta = simd.load_part(&s.delta[i].0, part);
        let input = simd.load_part(&s.input[i].0, part);
        // Two sums, so that the additions are not one long chain.
        let mut sums = [simd.load_part(&s.y[i].0, part), simd.splat_part(0.0)];
        let mut t = [delta; NB];
        if WITHIN {
            unrolled!(NB, |j| { t[j] = delta * simd.load_part(&a[j].0, part) });
        }
        if WITHIN && HOLD {
            let holds = holds::<S, NB>(t, load_parts(simd, inverse_a, part));
            unrolled!(NB, |j| {
                let by = holds[j].gain * (input * simd.splat_part(b[j]));
                h[j] = holds[j].decay.fma(h[j], by);
                sums[j % 2] = h[j].fma(simd.splat_part(c[j]), sums[j % 2]);
            });
        } else if WITHIN {
            let decays = decays::<S, NB>(t);
            unrolled!(NB, |j| {
                h[j] = decays[j].fma(h[j], input * simd.splat_part(b[j]));
                sums[j % 2] = h[j].fma(simd.splat_part(c[j]), sums[j % 2]);
            });
        } else {
            unrolled!(NB, |j| {
                let t = delta * simd.load_part(&a[j].0, part);
                if HOLD {
                    let hold = math::hold(t, delta, simd.load_part(&inverse_a[j].0, part));
                    let by = hold.gain * (input * simd.splat_part(b[j]));
                    h[j] = hold.decay.fma(h[j], by);
                } else {
                    h[j] = math::exp2(t).fma(h[j], input * simd.splat_part(b[j]));
                }
                sums[j % 2] = h[j].fma(simd.splat_part(c[j]), sums[j % 2]);
            });
        }
        simd.store_part(sums[0] + sums[1], &mut s.y[i].0, part);
    }
    store_parts(simd, &h, &mut s.h[first..], part);
}

/// Rough nanoseconds of a forward scan, to judge whether threads are worth it.
pub(crate) const fn work(batch: usize, tokens: usize, channels: usize, states: usize) -> usize {
    batch * tokens * channels.next_multiple_of(LANES) * states / 4
}
