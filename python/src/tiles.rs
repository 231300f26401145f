//! Some channels of a sample, copied to and from memory in which channels are contiguous, as kernels want them.
//!
//! Arrays of (batch, channels, length) are transposed so while their numbers are in cache, tile by tile.

use dis_tensor::simd::{self, LANES, prefetch_second};
use dis_tensor::{Layout, Tokens};
use ndarray::{ArrayView2, ArrayView3, ArrayViewMut1, ArrayViewMut2, Axis, s};
use std::array;
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
        let many = first + LANES <= channels && (0..LANES).all(|i| column(i).is_some());
        let to = &mut to[first..];
        if many {
            let columns = array::from_fn(|i| column(i).unwrap_or_default());
            simd::columns_to_rows(simd::level(), columns, to, channels);
            first += LANES;
        } else {
            for (t, &x) in from.column(first).iter().enumerate() {
                to[t * channels] = x;
            }
            first += 1;
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
    for (k, mut some) in to.axis_chunks_iter_mut(Axis(1), LANES).enumerate() {
        let from = &from[k * LANES..];
        let mut columns = some.columns_mut().into_iter();
        let next = |_| columns.next().and_then(ArrayViewMut1::into_slice);
        let columns: [_; LANES] = array::from_fn(next);
        if columns.iter().all(Option::is_some) {
            let columns = columns.map(Option::unwrap_or_default);
            simd::rows_to_columns(simd::level(), from, channels, columns);
        } else {
            for (i, mut column) in some.columns_mut().into_iter().enumerate() {
                for (t, x) in column.iter_mut().enumerate() {
                    *x = from[t * channels + i];
                }
            }
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
