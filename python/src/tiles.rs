//! Some channels of a sample, copied to and from memory in which channels are contiguous, as kernels want them.
//!
//! Arrays of (batch, channels, length) are transposed so while their numbers are in cache, tile by tile.

use dis_tensor::simd::prefetch_second;
use dis_tensor::{Layout, Tokens};
use ndarray::{ArrayView2, ArrayView3, ArrayViewMut1, ArrayViewMut2, Axis, s};
use std::cell::Cell;

/// An array (batch, length, channels) to be read by tiles.
#[derive(Clone, Copy)]
pub struct Plane<'a> {
    view: ArrayView3<'a, f32>,
    dense: Option<&'a [f32]>,
}

impl<'a> Plane<'a> {
    pub fn new(view: &'a ArrayView3<'_, f32>) -> Self {
        Self {
            view: view.view(),
            dense: view.as_slice(),
        }
    }

    pub fn shape(&self) -> [usize; 3] {
        self.view.dim().into()
    }

    fn layout(&self) -> Layout {
        let [batch, length, channels] = self.shape();
        Layout::dense(batch, length, channels)
    }

    /// All of it, if kernels can read it where it is.
    pub fn whole(&self) -> Option<Tokens<'a, [f32]>> {
        self.dense.map(|slice| Tokens::new(slice, self.layout()))
    }

    /// Channels of the tokens of a sample: where they are, or copied to `memory`.
    pub fn tile<'m>(&self, tile: Tile, memory: &'m mut [f32]) -> Tokens<'m, [f32]>
    where
        'a: 'm,
    {
        let Tile {
            sample,
            tokens,
            channels,
        } = tile;
        if let Some(slice) = self.dense {
            let layout = self.layout().sample_range(sample, 1);
            let layout = layout
                .token_range(tokens.0, tokens.1)
                .columns(channels.0, channels.1);
            return Tokens::new(slice, layout);
        }
        let memory = &mut memory[..tokens.1 * channels.1];
        self.copy(tile, memory);
        Tokens::new(memory, Layout::dense(1, tokens.1, channels.1))
    }

    /// Fetches a tile that lies channel by channel into the second-level cache ahead of its use: hardware that
    /// follows streams does not see sixteen short ones coming. Others are left to it.
    pub fn prefetch(&self, tile: Tile) {
        let Tile {
            sample,
            tokens,
            channels,
        } = tile;
        let view = self.view.index_axis(Axis(0), sample);
        if self.dense.is_some() || view.strides()[0] != 1 {
            return;
        }
        for c in channels.0..channels.0 + channels.1 {
            let column = view.index_axis(Axis(1), c);
            let row = column
                .to_slice()
                .and_then(|x| x.get(tokens.0..tokens.0 + tokens.1));
            for line in (0..tokens.1).step_by(16) {
                prefetch_second(row.unwrap_or_default(), line);
            }
        }
    }

    /// Copies channels of the tokens of a sample to `memory`, which is just as long.
    pub fn copy(&self, tile: Tile, memory: &mut [f32]) {
        let Tile {
            sample,
            tokens,
            channels,
        } = tile;
        let view = self.view.index_axis(Axis(0), sample);
        gather(
            view.slice(s![
                tokens.0..tokens.0 + tokens.1,
                channels.0..channels.0 + channels.1
            ]),
            memory,
        );
    }
}

/// Where a tile is: its sample, and the first and the number of its tokens and channels.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    pub sample: usize,
    pub tokens: (usize, usize),
    pub channels: (usize, usize),
}

/// Rows and columns of the blocks that are transposed in registers.
const BLOCK: usize = 4;

#[inline(always)]
fn transpose4([a, b, c, d]: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    // Pairs of rows interleaved, then pairs of these: compilers make shuffles of it.
    let low = |x: [f32; 4], y: [f32; 4]| [x[0], y[0], x[1], y[1]];
    let high = |x: [f32; 4], y: [f32; 4]| [x[2], y[2], x[3], y[3]];
    let (ab, cd) = (low(a, b), low(c, d));
    let (ef, gh) = (high(a, b), high(c, d));
    [
        [ab[0], ab[1], cd[0], cd[1]],
        [ab[2], ab[3], cd[2], cd[3]],
        [ef[0], ef[1], gh[0], gh[1]],
        [ef[2], ef[3], gh[2], gh[3]],
    ]
}

/// Copies (tokens, channels) to rows of channels.
pub fn gather(from: ArrayView2<'_, f32>, to: &mut [f32]) {
    let (tokens, channels) = from.dim();
    if tokens == 0 || channels == 0 {
        return;
    }
    if channels == 1 || from.strides()[1] == 1 {
        for (row, to) in from.rows().into_iter().zip(to.chunks_exact_mut(channels)) {
            match row.as_slice() {
                Some(row) => to.copy_from_slice(row),
                None => to.iter_mut().zip(row).for_each(|(to, &x)| *to = x),
            }
        }
        return;
    }
    let mut first = 0;
    while first < channels {
        let column = |i: usize| from.index_axis_move(Axis(1), first + i).to_slice();
        if first + BLOCK <= channels
            && let [Some(a), Some(b), Some(c), Some(d)] =
                [column(0), column(1), column(2), column(3)]
        {
            let four = [a, b, c, d];
            // Rows whose width is known go twice as fast.
            match channels {
                16 => gather_rows(four, to.as_chunks_mut::<16>().0, first),
                32 => gather_rows(four, to.as_chunks_mut::<32>().0, first),
                64 => gather_rows(four, to.as_chunks_mut::<64>().0, first),
                _ => gather_four(four, to, channels, first),
            }
            gather_rest(four, to, channels, first);
            first += BLOCK;
        } else {
            for (t, &x) in from.column(first).iter().enumerate() {
                to[t * channels + first] = x;
            }
            first += 1;
        }
    }
}

/// Four channels, each contiguous, to columns of rows, as far as whole blocks go.
fn gather_rows<const W: usize>([a, b, c, d]: [&[f32]; 4], to: &mut [[f32; W]], first: usize) {
    let [a, b, c, d] = [a, b, c, d].map(|x| x.as_chunks::<BLOCK>().0);
    let (rows, _) = to.as_chunks_mut::<BLOCK>();
    for ((((rows, a), b), c), d) in rows.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        for (row, values) in rows.iter_mut().zip(transpose4([*a, *b, *c, *d])) {
            row[first..first + BLOCK].copy_from_slice(&values);
        }
    }
}

/// [`gather_rows`] for rows of any width.
fn gather_four([a, b, c, d]: [&[f32]; 4], to: &mut [f32], width: usize, first: usize) {
    let [a, b, c, d] = [a, b, c, d].map(|x| x.as_chunks::<BLOCK>().0);
    let rows = to.chunks_exact_mut(BLOCK * width);
    for ((((rows, a), b), c), d) in rows.zip(a).zip(b).zip(c).zip(d) {
        let block = transpose4([*a, *b, *c, *d]);
        for (row, values) in rows.chunks_exact_mut(width).zip(block) {
            row[first..first + BLOCK].copy_from_slice(&values);
        }
    }
}

/// The tokens after the last whole block.
fn gather_rest(from: [&[f32]; 4], to: &mut [f32], width: usize, first: usize) {
    for t in from[0].len() / BLOCK * BLOCK..from[0].len() {
        for (to, x) in to[t * width + first..].iter_mut().zip(from) {
            *to = x[t];
        }
    }
}

/// Copies rows of channels to (tokens, channels).
pub fn scatter(from: &[f32], mut to: ArrayViewMut2<'_, f32>) {
    let (tokens, channels) = to.dim();
    if tokens == 0 || channels == 0 {
        return;
    }
    if channels == 1 || to.strides()[1] == 1 {
        for (mut row, from) in to.rows_mut().into_iter().zip(from.chunks_exact(channels)) {
            match row.as_slice_mut() {
                Some(row) => row.copy_from_slice(from),
                None => row.iter_mut().zip(from).for_each(|(to, &x)| *to = x),
            }
        }
        return;
    }
    for (k, mut four) in to.axis_chunks_iter_mut(Axis(1), BLOCK).enumerate() {
        let first = k * BLOCK;
        let mut columns = four.columns_mut().into_iter();
        let mut next = || columns.next().and_then(ArrayViewMut1::into_slice);
        if let [Some(a), Some(b), Some(c), Some(d)] = [next(), next(), next(), next()] {
            let mut four = [a, b, c, d];
            match channels {
                16 => scatter_rows(from.as_chunks::<16>().0, first, &mut four),
                32 => scatter_rows(from.as_chunks::<32>().0, first, &mut four),
                64 => scatter_rows(from.as_chunks::<64>().0, first, &mut four),
                _ => scatter_four(from, channels, first, &mut four),
            }
            scatter_rest(from, channels, first, four);
        } else {
            for (i, mut column) in four.columns_mut().into_iter().enumerate() {
                for (t, x) in column.iter_mut().enumerate() {
                    *x = from[t * channels + first + i];
                }
            }
        }
    }
}

/// Columns of rows to four channels, each contiguous, as far as whole blocks go.
fn scatter_rows<const W: usize>(from: &[[f32; W]], first: usize, to: &mut [&mut [f32]; 4]) {
    let [a, b, c, d] = to.each_mut().map(|x| x.as_chunks_mut::<BLOCK>().0);
    let (rows, _) = from.as_chunks::<BLOCK>();
    for ((((rows, a), b), c), d) in rows.iter().zip(a).zip(b).zip(c).zip(d) {
        let mut block = [[0.0; BLOCK]; BLOCK];
        for (values, row) in block.iter_mut().zip(rows) {
            values.copy_from_slice(&row[first..first + BLOCK]);
        }
        [*a, *b, *c, *d] = transpose4(block);
    }
}

/// [`scatter_rows`] for rows of any width.
fn scatter_four(from: &[f32], width: usize, first: usize, to: &mut [&mut [f32]; 4]) {
    let [a, b, c, d] = to.each_mut().map(|x| x.as_chunks_mut::<BLOCK>().0);
    let rows = from.chunks_exact(BLOCK * width);
    for ((((rows, a), b), c), d) in rows.zip(a).zip(b).zip(c).zip(d) {
        let mut block = [[0.0; BLOCK]; BLOCK];
        for (values, row) in block.iter_mut().zip(rows.chunks_exact(width)) {
            values.copy_from_slice(&row[first..first + BLOCK]);
        }
        [*a, *b, *c, *d] = transpose4(block);
    }
}

/// The tokens after the last whole block.
fn scatter_rest(from: &[f32], width: usize, first: usize, to: [&mut [f32]; 4]) {
    let tokens = to[0].len();
    for (i, x) in to.into_iter().enumerate() {
        for t in tokens / BLOCK * BLOCK..tokens {
            x[t] = from[t * width + first + i];
        }
    }
}

/// Cuts an array (length, channels) into parts of so many channels.
pub fn split_channels<'a>(
    view: ArrayViewMut2<'a, f32>,
    widths: impl Iterator<Item = usize>,
) -> impl Iterator<Item = ArrayViewMut2<'a, f32>> {
    let mut rest = Some(view);
    widths.map_while(move |width| {
        let (part, after) = rest.take()?.split_at(Axis(1), width);
        rest = Some(after);
        Some(part)
    })
}

thread_local! {
    static MEMORY: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with `len` numbers of unspecified content that belong to this thread.
pub fn with_memory<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken out: a task that waits may run another one, which then finds an empty vector.
    let mut memory = MEMORY.take();
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    let result = f(&mut memory[..len]);
    MEMORY.set(memory);
    result
}
