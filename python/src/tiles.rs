//! Some channels of a sample, copied to and from memory in which channels are contiguous, as kernels want them.
//!
//! Arrays of (batch, channels, length) are transposed so while their numbers are in cache, tile by tile.

use dis_tensor::{Layout, Tokens};
use ndarray::{ArrayView2, ArrayView3, ArrayViewMut2, Axis, s};
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

fn transpose4(x: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    let [a, b, c, d] = x;
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
    let mut columns = from.axis_chunks_iter(Axis(1), BLOCK);
    for first in (0..channels).step_by(BLOCK) {
        let Some(four) = columns.next() else { return };
        let column = |i| four.index_axis(Axis(1), i);
        if let (4, [Some(a), Some(b), Some(c), Some(d)]) = (
            four.ncols(),
            std::array::from_fn(|i| {
                if i < four.ncols() {
                    column(i).to_slice()
                } else {
                    None
                }
            }),
        ) {
            gather4([a, b, c, d], to, channels, first);
        } else {
            for i in 0..four.ncols() {
                for (t, &x) in column(i).iter().enumerate() {
                    to[t * channels + first + i] = x;
                }
            }
        }
    }
}

/// Four channels, each contiguous, to columns of rows of `width`.
fn gather4(from: [&[f32]; 4], to: &mut [f32], width: usize, first: usize) {
    let tokens = from[0].len();
    let parts = from.map(|x| x.as_chunks::<BLOCK>().0);
    let whole = tokens / BLOCK;
    let parts = parts.map(|x| &x[..whole]);
    for (k, rows) in to.chunks_exact_mut(BLOCK * width).take(whole).enumerate() {
        let block = transpose4(parts.map(|x| x[k]));
        for (row, values) in rows.chunks_exact_mut(width).zip(block) {
            row[first..first + BLOCK].copy_from_slice(&values);
        }
    }
    for t in whole * BLOCK..tokens {
        for (i, x) in from.iter().enumerate() {
            to[t * width + first + i] = x[t];
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
        let (first, count) = (k * BLOCK, four.ncols());
        let mut columns = four.columns_mut().into_iter();
        let mut next = || columns.next().and_then(|column| column.into_slice());
        if count == BLOCK
            && let [Some(a), Some(b), Some(c), Some(d)] = [next(), next(), next(), next()]
        {
            scatter4(from, channels, first, [a, b, c, d]);
        } else {
            for i in 0..count {
                for (t, x) in four.index_axis_mut(Axis(1), i).iter_mut().enumerate() {
                    *x = from[t * channels + first + i];
                }
            }
        }
    }
}

/// Columns of rows of `width` to four channels, each contiguous.
fn scatter4(from: &[f32], width: usize, first: usize, mut to: [&mut [f32]; 4]) {
    let tokens = to[0].len();
    let whole = tokens / BLOCK;
    {
        let mut parts = to
            .each_mut()
            .map(|x| &mut x.as_chunks_mut::<BLOCK>().0[..whole]);
        for (k, rows) in from.chunks_exact(BLOCK * width).take(whole).enumerate() {
            let mut block = [[0.0; BLOCK]; BLOCK];
            for (values, row) in block.iter_mut().zip(rows.chunks_exact(width)) {
                values.copy_from_slice(&row[first..first + BLOCK]);
            }
            for (part, values) in parts.iter_mut().zip(transpose4(block)) {
                part[k] = values;
            }
        }
    }
    for t in whole * BLOCK..tokens {
        for (i, x) in to.iter_mut().enumerate() {
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
