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
/// Channels that are copied together: a row of them is a line of cache.
const WIDE: usize = 16;

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
        if let Some(columns) = all::<WIDE>(channels - first, column) {
            gather_columns(columns, to, channels, first);
            first += WIDE;
        } else if let Some(columns) = all::<BLOCK>(channels - first, column) {
            gather_columns(columns, to, channels, first);
            first += BLOCK;
        } else {
            for (t, &x) in from.column(first).iter().enumerate() {
                to[t * channels + first] = x;
            }
            first += 1;
        }
    }
}

/// N values, if there are so many and all are there.
fn all<'a, const N: usize>(
    left: usize,
    get: impl Fn(usize) -> Option<&'a [f32]>,
) -> Option<[&'a [f32]; N]> {
    if left < N {
        return None;
    }
    let mut found = [&[][..]; N];
    for (i, to) in found.iter_mut().enumerate() {
        *to = get(i)?;
    }
    Some(found)
}

/// Channels, each contiguous, to columns of rows of `width`.
fn gather_columns<const N: usize>(from: [&[f32]; N], to: &mut [f32], width: usize, first: usize) {
    let tokens = from[0].len();
    let whole = tokens / BLOCK;
    let parts = from.map(|x| &x.as_chunks::<BLOCK>().0[..whole]);
    for (k, rows) in to.chunks_exact_mut(BLOCK * width).take(whole).enumerate() {
        for part in (0..N).step_by(BLOCK) {
            let block = transpose4(std::array::from_fn(|i| parts[part + i][k]));
            for (row, values) in rows.chunks_exact_mut(width).zip(block) {
                row[first + part..][..BLOCK].copy_from_slice(&values);
            }
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
    let mut first = 0;
    let mut slices: Vec<&mut [f32]> = Vec::with_capacity(channels);
    if to.strides()[0] == 1 {
        slices.extend(
            to.columns_mut()
                .into_iter()
                .filter_map(ArrayViewMut1::into_slice),
        );
    }
    if slices.len() == channels {
        let (wide, rest) = slices.as_chunks_mut::<WIDE>();
        for columns in wide {
            scatter_columns(from, channels, first, columns);
            first += WIDE;
        }
        for columns in rest.as_chunks_mut::<BLOCK>().0 {
            scatter_columns(from, channels, first, columns);
            first += BLOCK;
        }
    }
    for (c, mut column) in to.columns_mut().into_iter().enumerate().skip(first) {
        for (t, x) in column.iter_mut().enumerate() {
            *x = from[t * channels + c];
        }
    }
}

/// Columns of rows of `width` to channels, each contiguous.
fn scatter_columns<const N: usize>(
    from: &[f32],
    width: usize,
    first: usize,
    to: &mut [&mut [f32]; N],
) {
    let tokens = to[0].len();
    let whole = tokens / BLOCK;
    {
        let mut parts = to
            .each_mut()
            .map(|x| &mut x.as_chunks_mut::<BLOCK>().0[..whole]);
        for (k, rows) in from.chunks_exact(BLOCK * width).take(whole).enumerate() {
            for part in (0..N).step_by(BLOCK) {
                let mut block = [[0.0; BLOCK]; BLOCK];
                for (values, row) in block.iter_mut().zip(rows.chunks_exact(width)) {
                    values.copy_from_slice(&row[first + part..][..BLOCK]);
                }
                for (to, values) in parts[part..].iter_mut().zip(transpose4(block)) {
                    to[k] = values;
                }
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
