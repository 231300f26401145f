//! Group normalisation over an image, followed by the activation.

use dis_tensor::Cpu;
use dis_tensor::cpu::threads::Pieces;
use dis_tensor::simd::{Kernel, LANES, Number, Simd, Vector, dispatch, math};

use crate::config::Activation;
use crate::features::Features;

/// Added to variances, everywhere in an AutoencoderKL.
const EPS: f64 = 1e-6;
/// Pixels whose sums are added up together: a fixed number, so that results do not depend on the
/// number of threads.
const BLOCK: usize = 256;

/// Normalisation of groups of neighbouring channels by mean and variance over all pixels.
#[derive(Clone, Debug)]
pub(crate) struct GroupNorm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub groups: usize,
}

impl GroupNorm {
    /// `act(norm(x))` in new memory.
    pub fn apply(&self, cpu: &Cpu, x: &Features, act: Option<Activation>) -> Features {
        let mut out = Features::alloc(cpu, x.height, x.width, x.channels);
        let stats = self.statistics(cpu, x);
        self.normalise(cpu, &stats, act, Some(&x.data), &mut out);
        out
    }

    /// `x = act(norm(x))`.
    pub fn apply_in_place(&self, cpu: &Cpu, x: &mut Features, act: Option<Activation>) {
        let stats = self.statistics(cpu, x);
        self.normalise(cpu, &stats, act, None, x);
    }

    /// Mean of each channel's group, and weight over standard deviation, one after the other.
    fn statistics(&self, cpu: &Cpu, x: &Features) -> Vec<f32> {
        let (pixels, channels) = (x.pixels(), x.channels);
        let blocks = pixels.div_ceil(BLOCK);
        // Sums and sums of squares of each channel, block by block, in float64: their difference
        // cancels, and one pass over the memory is what this costs.
        let mut partial = vec![0.0f64; blocks * 2 * channels];
        let pieces = Pieces {
            data: &mut partial[..],
            width: 2 * channels,
            units: 1,
        };
        let data: &[f32] = &x.data;
        cpu.blocks(blocks, 1, data.len(), pieces, |range, pieces| {
            for (block, sums) in range.zip(pieces.data.chunks_exact_mut(2 * channels)) {
                let end = ((block + 1) * BLOCK * channels).min(data.len());
                let rows = &data[block * BLOCK * channels..end];
                dispatch(cpu.level(), Sums { rows, sums });
            }
        });
        let mut totals = vec![0.0f64; 2 * channels];
        for sums in partial.chunks_exact(2 * channels) {
            for (total, x) in totals.iter_mut().zip(sums) {
                *total += x;
            }
        }
        let (sums, squares) = totals.split_at(channels);
        let size = channels / self.groups;
        let count = (pixels * size) as f64;
        let mut stats = vec![0.0; 2 * channels];
        for group in 0..self.groups {
            let range = group * size..(group + 1) * size;
            let mean = sums[range.clone()].iter().sum::<f64>() / count;
            let square = squares[range.clone()].iter().sum::<f64>() / count;
            let inverse = 1.0 / ((square - mean * mean).max(0.0) + EPS).sqrt();
            for c in range {
                stats[c] = mean as f32;
                stats[channels + c] = (inverse * f64::from(self.weight[c])) as f32;
            }
        }
        stats
    }

    fn normalise(
        &self,
        cpu: &Cpu,
        stats: &[f32],
        act: Option<Activation>,
        from: Option<&[f32]>,
        out: &mut Features,
    ) {
        let (pixels, channels) = (out.pixels(), out.channels);
        let (mean, scale) = stats.split_at(channels);
        let rows = Pieces {
            data: &mut out.data[..],
            width: channels,
            units: 1,
        };
        cpu.blocks(pixels, BLOCK, pixels * channels, rows, |range, rows| {
            let data = rows.data;
            if let Some(from) = from {
                data.copy_from_slice(&from[range.start * channels..range.end * channels]);
            }
            let job = Normalise {
                rows: &mut *data,
                mean,
                scale,
                bias: &self.bias,
                silu: act == Some(Activation::Silu),
            };
            dispatch(cpu.level(), job);
            let function: Option<fn(f32) -> f32> = match act {
                None | Some(Activation::Silu) => None,
                Some(Activation::Relu) => Some(|x| x.max(0.0)),
                Some(Activation::Gelu) => Some(gelu),
                Some(Activation::Mish) => Some(mish),
            };
            if let Some(function) = function {
                for x in data {
                    *x = function(*x);
                }
            }
        });
    }
}

/// x Phi(x).
fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    (0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)) as f32
}

/// x tanh(log(1 + e^x)).
fn mish(x: f32) -> f32 {
    let x = f64::from(x);
    let softplus = if x > 20.0 {
        x
    } else {
        libm::log1p(libm::exp(x))
    };
    (x * libm::tanh(softplus)) as f32
}

/// Adds each channel's sum and, behind them all, its sum of squares.
struct Sums<'a> {
    rows: &'a [f32],
    sums: &'a mut [f64],
}

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let channels = self.sums.len() / 2;
        let (sums, squares) = self.sums.split_at_mut(channels);
        for row in self.rows.chunks_exact(channels) {
            for c in 0..channels {
                let x = f64::from(row[c]);
                sums[c] += x;
                squares[c] += x * x;
            }
        }
    }
}

/// `x = (x - mean) * scale + bias`, then SiLU if asked.
struct Normalise<'a> {
    rows: &'a mut [f32],
    mean: &'a [f32],
    scale: &'a [f32],
    bias: &'a [f32],
    silu: bool,
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let channels = self.mean.len();
        for row in self.rows.chunks_exact_mut(channels) {
            let mut start = 0;
            while start < channels {
                let end = (start + LANES).min(channels);
                let x = simd.load_partial(&row[start..end]);
                let mean = simd.load_partial(&self.mean[start..end]);
                let scale = simd.load_partial(&self.scale[start..end]);
                let bias = simd.load_partial(&self.bias[start..end]);
                let y = (x - mean).fma(scale, bias);
                let y = if self.silu { math::silu(y) } else { y };
                y.store_partial(&mut row[start..end]);
                start = end;
            }
        }
    }
}
