//! What the forward and the backward scan share: the walk over tokens, a group of sixteen
//! channels, its part of A, and rows of B and C.

use super::pieces::Piece;
use crate::ops::{CHUNK, Direction, Scan};
use dis_tensor::simd::{LANES, Number, Row, Simd, Vector, math};
use dis_tensor::{Layout, Tokens};

/// States are handled in blocks of four; those that fill up the last block do nothing, having
/// A = B = C = 0.
pub(crate) const fn padded_states(states: usize) -> usize {
    states.next_multiple_of(4)
}

/// A stretch of the walk over the tokens of one sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// Tokens of the sample.
    pub tokens: usize,
    /// Which way they are walked.
    pub direction: Direction,
    /// First position of the stretch in the walk.
    pub start: usize,
    /// Tokens in it.
    pub len: usize,
}

impl Stretch {
    /// The token at the i-th position of the stretch.
    #[inline(always)]
    pub(crate) fn token(&self, i: usize) -> usize {
        let position = self.start + i;
        match self.direction {
            Direction::Forward => position,
            Direction::Reverse => self.tokens - 1 - position,
        }
    }
}

/// Sixteen channels (fewer in the last group) of one sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    /// The sample.
    pub b: usize,
    /// First channel.
    pub channel: usize,
    /// Channels.
    pub width: usize,
}

impl Group {
    pub(crate) fn new(b: usize, group: usize, channels: usize) -> Self {
        let channel = group * LANES;
        Self {
            b,
            channel,
            width: LANES.min(channels - channel),
        }
    }

    /// The group's columns of the tokens of a stretch.
    pub(crate) fn column<'a>(&self, x: &Tokens<'a, [f32]>, stretch: Stretch) -> Column<'a> {
        let first = if stretch.len == 0 {
            0
        } else {
            stretch.token(0)
        };
        Column {
            buf: x.buf,
            start: x.layout.row(self.b, first) + self.channel,
            stride: match stretch.direction {
                Direction::Forward => x.layout.row_stride,
                Direction::Reverse => x.layout.row_stride.wrapping_neg(),
            },
            width: self.width,
        }
    }

    /// The group's part of a vector over channels, or zeros where there is none.
    #[inline(always)]
    pub(crate) fn vector<S: Simd>(&self, simd: S, x: &Option<Tokens<'_, [f32]>>) -> S::V {
        match x {
            Some(x) => {
                let start = x.layout.row(0, 0) + self.channel;
                simd.load_partial(&x.buf[start..start + self.width])
            }
            None => simd.splat(0.0),
        }
    }

    /// The group's part of A (D, N), one row a state: times log2(e), so that `exp(delta A)` is
    /// `exp2`, and, for the zero-order hold, its inverses. Returns the largest magnitudes of the former.
    #[inline(always)]
    pub(crate) fn load_a<S: Simd, const HOLD: bool>(
        &self,
        a: &Tokens<'_, [f32]>,
        scaled: &mut [Row],
        inverse: &mut [Row],
    ) -> Row {
        let mut largest = Row::ZERO;
        scaled.fill(Row::ZERO);
        if HOLD {
            inverse.fill(Row::ZERO);
        }
        for i in 0..self.width {
            let start = a.layout.row(0, self.channel + i);
            let row = &a.buf[start..start + a.layout.channels];
            for (&value, (to, inverse)) in row.iter().zip(scaled.iter_mut().zip(&mut *inverse)) {
                let value = if HOLD {
                    math::hold_rate::<S::V>(value)
                } else {
                    value
                };
                to.0[i] = value * std::f32::consts::LOG2_E;
                if HOLD {
                    inverse.0[i] = 1.0 / value;
                }
                let size = to.0[i].abs();
                // NaN is beyond all reach.
                let size = if size.is_nan() { f32::INFINITY } else { size };
                largest.0[i] = largest.0[i].max(size);
            }
        }
        largest
    }

    /// The group's part of a state (batch, D, N), one row a state; zeros where there is none.
    pub(crate) fn load_state(&self, state: &Option<Tokens<'_, [f32]>>, rows: &mut [Row]) {
        rows.fill(Row::ZERO);
        let Some(state) = state else { return };
        for i in 0..self.width {
            let start = state.layout.row(self.b, self.channel + i);
            let values = &state.buf[start..start + state.layout.channels];
            for (&value, to) in values.iter().zip(rows.iter_mut()) {
                to.0[i] = value;
            }
        }
    }
}

/// Writes rows, one a state, to a group's part of a state, whose first row is `first`.
pub(crate) fn store_state(rows: &[Row], state: &mut Piece<'_>, first: usize) {
    for i in 0..LANES.min(state.rows().saturating_sub(first)) {
        for (to, row) in state.row(first + i).iter_mut().zip(rows) {
            *to = row.0[i];
        }
    }
}

/// A group's columns of the tokens of a stretch, by position.
#[derive(Clone, Copy)]
pub(crate) struct Column<'a> {
    buf: &'a [f32],
    start: usize,
    /// Wraps around for the reverse direction.
    stride: usize,
    width: usize,
}

impl Column<'_> {
    /// Index of the i-th position's first channel.
    #[inline(always)]
    fn index(&self, i: usize) -> usize {
        self.start.wrapping_add(i.wrapping_mul(self.stride))
    }

    /// The i-th position, zeros beyond the last channel.
    #[inline(always)]
    pub(crate) fn load<S: Simd>(&self, simd: S, i: usize) -> S::V {
        let start = self.index(i);
        simd.load_partial(&self.buf[start..start + self.width])
    }

    /// Fetches the cache line of the i-th position ahead of its use; it need not exist.
    #[inline(always)]
    pub(crate) fn prefetch(&self, i: usize) {
        dis_tensor::simd::prefetch(self.buf, self.index(i));
    }

    /// [`Column::prefetch`] into the second-level cache.
    #[inline(always)]
    pub(crate) fn prefetch_second(&self, i: usize) {
        dis_tensor::simd::prefetch_second(self.buf, self.index(i));
    }
}

/// B and C of the tokens of a stretch, side by side, either where they lie or copied with their
/// numbers of states padded.
#[derive(Clone, Copy)]
pub(crate) struct InputRows<'a> {
    buf: &'a [f32],
    start: usize,
    /// Wraps around for the reverse direction.
    stride: usize,
    /// Padded number of states: C begins here.
    states: usize,
}

impl<'a> InputRows<'a> {
    /// Rows of [`InputRows::copy_len`] numbers are copied for the stretch if they must be padded.
    pub(crate) fn new(
        scan: &Scan<'a, [f32]>,
        b: usize,
        stretch: Stretch,
        copy: &'a mut [Row],
    ) -> Self {
        let layout: Layout = scan.bc.layout;
        let n = layout.channels / 2;
        let padded = padded_states(n);
        if padded == n {
            let stride = match stretch.direction {
                Direction::Forward => layout.row_stride,
                Direction::Reverse => layout.row_stride.wrapping_neg(),
            };
            let start = layout.row(b, stretch.token(0));
            return Self {
                buf: scan.bc.buf,
                start,
                stride,
                states: padded,
            };
        }
        let copy = Row::flat_mut(copy);
        for (i, to) in copy
            .chunks_exact_mut(2 * padded)
            .take(stretch.len)
            .enumerate()
        {
            let from = &scan.bc.buf[layout.row(b, stretch.token(i))..][..2 * n];
            to.fill(0.0);
            to[..n].copy_from_slice(&from[..n]);
            to[padded..padded + n].copy_from_slice(&from[n..]);
        }
        Self {
            buf: copy,
            start: 0,
            stride: 2 * padded,
            states: padded,
        }
    }

    /// Rows of scratch that [`InputRows::new`] needs for stretches of `tokens`.
    pub(crate) const fn copy_len(states: usize, tokens: usize) -> usize {
        let padded = padded_states(states);
        if padded == states {
            0
        } else {
            (tokens * 2 * padded).div_ceil(LANES)
        }
    }

    /// B and C of states `first .. first + NB` of the i-th token.
    ///
    /// # Panics
    /// If there are no such states.
    #[inline(always)]
    pub(crate) fn block<const NB: usize>(
        &self,
        i: usize,
        first: usize,
    ) -> (&'a [f32; NB], &'a [f32; NB]) {
        let start = self.start.wrapping_add(i.wrapping_mul(self.stride));
        let row = &self.buf[start..start + 2 * self.states];
        (chunk(row, first), chunk(row, self.states + first))
    }
}

#[inline(always)]
fn chunk<const NB: usize>(row: &[f32], at: usize) -> &[f32; NB] {
    match row[at..].first_chunk::<NB>() {
        Some(chunk) => chunk,
        None => outside(),
    }
}

#[cold]
fn outside() -> ! {
    unreachable!("block of rows outside its memory")
}

/// Cuts the rows of a chunk of tokens off the front, as an array, whose length then is known.
///
/// # Panics
/// If there are too few rows.
pub(crate) fn take_chunk(rows: &mut [Row]) -> (&mut [Row; CHUNK], &mut [Row]) {
    match rows.split_first_chunk_mut::<CHUNK>() {
        Some(parts) => parts,
        None => outside(),
    }
}

/// Loads a part of NB rows into registers.
#[inline(always)]
pub(crate) fn load_parts<S: Simd, const NB: usize>(
    simd: S,
    rows: &[Row],
    part: usize,
) -> [S::P; NB] {
    let mut values = [simd.splat_part(0.0); NB];
    for (value, row) in values.iter_mut().zip(&rows[..NB]) {
        *value = simd.load_part(&row.0, part);
    }
    values
}

/// Stores registers into a part of rows.
#[inline(always)]
pub(crate) fn store_parts<S: Simd, const NB: usize>(
    simd: S,
    values: &[S::P; NB],
    rows: &mut [Row],
    part: usize,
) {
    for (value, row) in values.iter().zip(&mut rows[..NB]) {
        simd.store_part(*value, &mut row.0, part);
    }
}

/// Whether exponents of a chunk, steps of at most these magnitudes times A of at most those, are
/// small enough for [`math::exp2_each`]. Instruction sets that scale by any power need not ask.
#[inline(always)]
pub(crate) fn within_reach<S: Simd>(simd: S, steps: S::V, largest_a: &Row) -> bool {
    if S::V::NATIVE_SCALE {
        return false;
    }
    let mut exponents = [0.0; LANES];
    (steps * simd.load(&largest_a.0)).store(&mut exponents);
    math::within_reach(&exponents)
}

/// [`math::exp2_each`], as many at a time as there are registers for.
#[inline(always)]
pub(crate) fn decays<S: Simd, const NB: usize>(t: [S::P; NB]) -> [S::P; NB] {
    let mut out = t;
    match S::TOGETHER {
        4 => {
            for four in out.as_chunks_mut::<4>().0 {
                *four = math::exp2_each(*four);
            }
        }
        2 => {
            for two in out.as_chunks_mut::<2>().0 {
                *two = math::exp2_each(*two);
            }
        }
        _ => {
            for one in &mut out {
                [*one] = math::exp2_each([*one]);
            }
        }
    }
    out
}

/// [`math::hold_each`], as many at a time as there are registers for.
#[inline(always)]
pub(crate) fn holds<S: Simd, const NB: usize>(
    t: [S::P; NB],
    inverse_a: [S::P; NB],
) -> [math::Hold<S::P>; NB] {
    let mut out = [math::Hold {
        decay: t[0],
        gain: t[0],
    }; NB];
    match S::TOGETHER {
        4 => {
            for i in 0..NB / 4 {
                let at = |x: &[S::P; NB]| [x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]];
                let four = math::hold_each(at(&t), at(&inverse_a));
                for j in 0..4 {
                    out[4 * i + j] = four[j];
                }
            }
        }
        2 => {
            for i in 0..NB / 2 {
                let at = |x: &[S::P; NB]| [x[2 * i], x[2 * i + 1]];
                [out[2 * i], out[2 * i + 1]] = math::hold_each(at(&t), at(&inverse_a));
            }
        }
        _ => {
            for j in 0..NB {
                [out[j]] = math::hold_each([t[j]], [inverse_a[j]]);
            }
        }
    }
    out
}

/// Repeats a block for constants j below NB, at most sixteen: left to the compiler, so large a loop
/// would not be unrolled, and the states would live in memory.
macro_rules! unrolled {
    ($count:ident, |$j:ident| $body:block) => {
        unrolled!(@ $count $j $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $count:ident $j:ident $body:block $($index:literal)*) => {
        $(if $index < $count {
            let $j: usize = $index;
            $body
        })*
    };
}
pub(crate) use unrolled;
