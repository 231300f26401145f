//! The one product that everything is made of: rows of an image, one for each tap of a filter,
//! times packed weights.
//!
//! A direct convolution: the rows are read where they lie (zeros outside the image), so there is
//! no unfolded copy of the image and no scratch memory beyond one block of sums. Sums of an output
//! pixel run over taps and channels in one fixed order, whatever block, thread or neighbour it is
//! computed with; so the bits depend on the instruction set alone.

use std::ops::Range;

use dis_tensor::simd::{Kernel, LANES, Number, Row, Simd, Vector};

/// Pixels whose sums are in registers at once.
const TILE: usize = 6;
/// Pixels of a block: enough that its pass over the weights costs little, few enough that its
/// inputs stay in the second-level cache.
pub(crate) const BLOCK: usize = 96;
/// Panels (of sixteen output channels) whose sums are in registers at once.
const PANELS: usize = 4;
/// Input channels of one partial sum: its weights stay in the second-level cache while all pixels
/// of a block pass by, and short partial sums round less.
const CHUNK: usize = 256;

/// Weights in panels of sixteen output channels: element (tap, c) of panel p is row
/// `(p * taps + tap) * channels + c`. Missing output channels of the last panel are zero.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub rows: Vec<Row>,
    /// One row a panel; empty for no bias.
    pub bias: Vec<Row>,
    pub taps: usize,
    /// Input channels.
    pub channels: usize,
    /// Output channels.
    pub outputs: usize,
}

impl Packed {
    /// Packs `weight(output, channel, tap)`.
    pub fn new(
        [outputs, channels, taps]: [usize; 3],
        weight: impl Fn(usize, usize, usize) -> f32,
        bias: &[f32],
    ) -> Self {
        let panels = outputs.div_ceil(LANES);
        let mut rows = vec![Row::ZERO; panels * taps * channels];
        for output in 0..outputs {
            let (panel, lane) = (output / LANES, output % LANES);
            for tap in 0..taps {
                for channel in 0..channels {
                    rows[(panel * taps + tap) * channels + channel].0[lane] =
                        weight(output, channel, tap);
                }
            }
        }
        let mut packed = vec![Row::ZERO; bias.len().div_ceil(LANES)];
        for (i, &b) in bias.iter().enumerate() {
            packed[i / LANES].0[i % LANES] = b;
        }
        Self {
            rows,
            bias: packed,
            taps,
            channels,
            outputs,
        }
    }
}

/// Where the rows are that a grid of output pixels needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// (height, width, channels).
    pub image: &'a [f32],
    pub height: usize,
    pub width: usize,
    /// Width of the grid of output pixels.
    pub grid_width: usize,
    /// Input pixels between neighbours of the grid.
    pub stride: usize,
    /// Row and column of each tap relative to `stride` times the output pixel.
    pub taps: &'a [[isize; 2]],
    /// At least as many zeros as there are channels: what lies outside the image.
    pub zeros: &'a [f32],
}

impl<'a> Source<'a> {
    /// The input row of output pixel (y, x) under a tap.
    #[inline(always)]
    fn row(&self, [y, x]: [usize; 2], tap: usize, channels: usize) -> &'a [f32] {
        let [dy, dx] = self.taps[tap];
        // Before the image, the sum wraps to far behind it.
        let y = (y * self.stride).wrapping_add_signed(dy);
        let x = (x * self.stride).wrapping_add_signed(dx);
        if y < self.height && x < self.width {
            &self.image[(y * self.width + x) * channels..][..channels]
        } else {
            &self.zeros[..channels]
        }
    }
}

/// Computes a block of output pixels.
#[derive(Debug)]
pub(crate) struct Convolve<'a> {
    pub source: Source<'a>,
    pub weights: &'a Packed,
    /// At most [`BLOCK`] pixels of the grid.
    pub pixels: Range<usize>,
    /// Add to what is there.
    pub add: bool,
    /// The first of `pixels` starts here.
    pub out: &'a mut [f32],
    /// Elements between the starts of neighbours in `out`.
    pub step: usize,
}

impl Kernel for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let mut sums = [[Row::ZERO; PANELS]; BLOCK];
        let panels = self.weights.outputs.div_ceil(LANES);
        // Where only sixteen vector registers exist, one panel of sums fills them.
        let wide = S::STATE_BLOCK >= LANES;
        let mut panel = 0;
        while panel < panels {
            panel += match panels - panel {
                4.. if wide => group::<S, 4>(simd, &mut self, &mut sums, panel),
                2.. if wide => group::<S, 2>(simd, &mut self, &mut sums, panel),
                _ => group::<S, 1>(simd, &mut self, &mut sums, panel),
            };
        }
    }
}

/// All pixels for `N` panels from `panel`; N.
#[inline(always)]
fn group<S: Simd, const N: usize>(
    simd: S,
    job: &mut Convolve<'_>,
    sums: &mut [[Row; PANELS]; BLOCK],
    panel: usize,
) -> usize {
    let weights = job.weights;
    let count = job.pixels.len().min(BLOCK);
    sums.fill([Row::ZERO; PANELS]);
    let mut places = [[0; 2]; BLOCK];
    let width = job.source.grid_width.max(1);
    for (place, pixel) in places.iter_mut().zip(job.pixels.clone()) {
        *place = [pixel / width, pixel % width];
    }
    for tap in 0..weights.taps {
        let mut channel = 0;
        while channel < weights.channels {
            let chunk = (weights.channels - channel).min(CHUNK);
            let mut columns: [&[Row]; N] = [&[]; N];
            for n in 0..N {
                let start = ((panel + n) * weights.taps + tap) * weights.channels + channel;
                columns[n] = &weights.rows[start..start + chunk];
            }
            let mut first = 0;
            while first < count {
                let mut rows: [&[f32]; TILE] = [&job.source.zeros[..chunk]; TILE];
                for i in 0..TILE.min(count - first) {
                    let row = job.source.row(places[first + i], tap, weights.channels);
                    rows[i] = &row[channel..channel + chunk];
                }
                tile::<S, N>(simd, rows, columns, &mut sums[first..first + TILE]);
                first += TILE;
            }
            channel += chunk;
        }
    }
    finish::<S, N>(simd, job, sums, panel);
    N
}

/// Adds the products of `TILE` rows with `N` columns of weights to the sums.
#[inline(always)]
fn tile<S: Simd, const N: usize>(
    simd: S,
    rows: [&[f32]; TILE],
    columns: [&[Row]; N],
    sums: &mut [[Row; PANELS]],
) {
    const STEP: usize = 8;
    let mut partial = [[simd.splat(0.0); N]; TILE];
    let length = columns[0].len();
    let whole = length / STEP * STEP;
    let mut start = 0;
    while start < whole {
        let mut a: [&[f32]; TILE] = [&[]; TILE];
        for i in 0..TILE {
            a[i] = &rows[i][start..start + STEP];
        }
        let mut b: [&[Row]; N] = [&[]; N];
        for n in 0..N {
            b[n] = &columns[n][start..start + STEP];
        }
        for k in 0..STEP {
            multiply::<S, N>(simd, &a, &b, k, &mut partial);
        }
        start += STEP;
    }
    for k in whole..length {
        multiply::<S, N>(simd, &rows, &columns, k, &mut partial);
    }
    for i in 0..TILE {
        for n in 0..N {
            let sum = &mut sums[i][n].0;
            (simd.load(sum) + partial[i][n]).store(sum);
        }
    }
}

#[inline(always)]
fn multiply<S: Simd, const N: usize>(
    simd: S,
    rows: &[&[f32]; TILE],
    columns: &[&[Row]; N],
    k: usize,
    partial: &mut [[S::V; N]; TILE],
) {
    let mut weight = [simd.splat(0.0); N];
    for n in 0..N {
        weight[n] = simd.load(&columns[n][k].0);
    }
    for i in 0..TILE {
        let x = simd.splat(rows[i][k]);
        for n in 0..N {
            partial[i][n] = x.fma(weight[n], partial[i][n]);
        }
    }
}

/// Writes sums plus bias, or adds them to what is there.
#[inline(always)]
fn finish<S: Simd, const N: usize>(
    simd: S,
    job: &mut Convolve<'_>,
    sums: &[[Row; PANELS]; BLOCK],
    panel: usize,
) {
    let outputs = job.weights.outputs;
    for (i, sums) in sums.iter().enumerate().take(job.pixels.len()) {
        for n in 0..N {
            let start = (panel + n) * LANES;
            let lanes = (outputs - start).min(LANES);
            let out = &mut job.out[i * job.step + start..][..lanes];
            let mut sum = simd.load(&sums[n].0);
            if let Some(bias) = job.weights.bias.get(panel + n) {
                sum = sum + simd.load(&bias.0);
            }
            if job.add {
                sum = sum + simd.load_partial(out);
            }
            sum.store_partial(out);
        }
    }
}
