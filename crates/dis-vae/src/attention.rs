//! Self-attention of one head over all pixels.

use dis_tensor::cpu::threads::Pieces;
use dis_tensor::simd::{Kernel, LANES, Row, Simd, Vector, dispatch, math};
use dis_tensor::{Backend, Cpu};

use crate::features::{Conv, Features};
use crate::kernel::{BLOCK, Convolve, Packed, Source};
use crate::norm::GroupNorm;

/// `x + out(softmax(q k^T / sqrt(channels)) v)` with q, k, v maps of the normalised x.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    pub norm: GroupNorm,
    pub q: Conv,
    pub k: Conv,
    pub v: Conv,
    pub out: Conv,
}

impl Attention {
    /// Scores are made for a block of queries at a time: memory grows with the number of pixels,
    /// not with its square.
    pub fn apply(&self, cpu: &Cpu, x: &mut Features) {
        let (pixels, channels) = (x.pixels(), x.channels);
        let normed = self.norm.apply(cpu, x, None);
        let q = self.q.apply(cpu, &normed);
        let keys = pack(cpu, &self.k.apply(cpu, &normed), true);
        let values = pack(cpu, &self.v.apply(cpu, &normed), false);
        // From here on its memory is that of the result.
        let mut mixed = normed;
        let scale = 1.0 / (channels as f64).sqrt();
        let rows = Pieces {
            data: &mut mixed.data[..],
            width: channels,
            units: 1,
        };
        let work = pixels.saturating_mul(pixels).saturating_mul(channels);
        cpu.blocks(pixels, BLOCK, work, rows, |range, rows| {
            let count = range.len();
            let mut scores = cpu.alloc::<f32>(count * pixels);
            let queries = &q.data[range.start * channels..range.end * channels];
            product(cpu, queries, &keys, &mut scores);
            let (data, length) = (&mut scores[..], pixels);
            dispatch(
                cpu.level(),
                Softmax {
                    data,
                    length,
                    scale: scale as f32,
                },
            );
            product(cpu, &scores, &values, rows.data);
        });
        self.out.add_to(cpu, &mixed, x);
    }
}

/// `out = rows * weights`, for up to [`BLOCK`] rows.
fn product(cpu: &Cpu, rows: &[f32], weights: &Packed, out: &mut [f32]) {
    let count = rows.len() / weights.channels.max(1);
    let job = Convolve {
        source: Source {
            image: rows,
            height: 1,
            width: count,
            grid_width: count,
            stride: 1,
            taps: &[[0, 0]],
            // Rows of a tile that do not exist: any numbers will do.
            zeros: &rows[..weights.channels],
        },
        weights,
        pixels: 0..count,
        add: false,
        step: weights.outputs,
        out,
    };
    dispatch(cpu.level(), job);
}

/// A matrix (pixels x channels) as weights of a 1x1 map: of its transpose, or as it is.
fn pack(cpu: &Cpu, matrix: &Features, transpose: bool) -> Packed {
    let (pixels, channels) = (matrix.pixels(), matrix.channels);
    let (outputs, inputs) = match transpose {
        true => (pixels, channels),
        false => (channels, pixels),
    };
    let panels = outputs.div_ceil(LANES);
    let mut rows = vec![Row::ZERO; panels * inputs];
    let pieces = Pieces {
        data: &mut rows[..],
        width: inputs,
        units: 1,
    };
    let data: &[f32] = &matrix.data;
    cpu.blocks(panels, 1, data.len(), pieces, |range, pieces| {
        for (panel, rows) in range.zip(pieces.data.chunks_exact_mut(inputs)) {
            let first = panel * LANES;
            let lanes = (outputs - first).min(LANES);
            if transpose {
                for lane in 0..lanes {
                    let from = &data[(first + lane) * channels..][..channels];
                    for (row, &x) in rows.iter_mut().zip(from) {
                        row.0[lane] = x;
                    }
                }
            } else {
                for (row, from) in rows.iter_mut().zip(data.chunks_exact(channels)) {
                    row.0[..lanes].copy_from_slice(&from[first..first + lanes]);
                }
            }
        }
    });
    Packed {
        rows,
        bias: Vec::new(),
        taps: 1,
        channels: inputs,
        outputs,
    }
}

/// Softmax of `scale` times each row of `length`.
struct Softmax<'a> {
    data: &'a mut [f32],
    length: usize,
    scale: f32,
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for row in self.data.chunks_exact_mut(self.length) {
            let mut largest = [f32::NEG_INFINITY; LANES];
            for part in row.chunks(LANES) {
                for (largest, &x) in largest.iter_mut().zip(part) {
                    *largest = if x > *largest { x } else { *largest };
                }
            }
            let largest = largest.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
            // Sixteen sums in float64, added in order.
            let mut sums = [0.0f64; LANES];
            for part in row.chunks_mut(LANES) {
                let x = simd.load_partial(part);
                let y = math::exp((x - simd.splat(largest)) * simd.splat(self.scale));
                y.store_partial(part);
                for (sum, &y) in sums.iter_mut().zip(&*part) {
                    *sum += f64::from(y);
                }
            }
            let inverse = (1.0 / sums.iter().sum::<f64>()) as f32;
            for x in row {
                *x *= inverse;
            }
        }
    }
}
