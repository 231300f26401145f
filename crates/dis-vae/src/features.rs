//! An image inside the network, and the maps over it: convolutions of three kinds, 1x1 maps, and
//! upsampling by two followed by a convolution.

use dis_tensor::cpu::threads::Pieces;
use dis_tensor::simd::dispatch;
use dis_tensor::{Backend, Cpu, HostBuf};

use crate::kernel::{BLOCK, Convolve, Packed, Source};

/// (height, width, channels), channels contiguous.
#[derive(Debug)]
pub(crate) struct Features {
    pub data: HostBuf<f32>,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl Features {
    /// Of unspecified content.
    pub fn alloc(cpu: &Cpu, height: usize, width: usize, channels: usize) -> Self {
        Self {
            data: cpu.alloc(height * width * channels),
            height,
            width,
            channels,
        }
    }

    pub fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// From (channels, height, width).
    pub fn from_planes(cpu: &Cpu, planes: &[f32], [c, h, w]: [usize; 3]) -> Self {
        let mut image = Self::alloc(cpu, h, w, c);
        let pixels = h * w;
        for (i, out) in image.data.chunks_exact_mut(c.max(1)).enumerate() {
            for (channel, out) in out.iter_mut().enumerate() {
                *out = planes[channel * pixels + i];
            }
        }
        image
    }

    /// To (channels, height, width).
    pub fn to_planes(&self, planes: &mut [f32]) {
        let pixels = self.pixels();
        for (i, row) in self.data.chunks_exact(self.channels.max(1)).enumerate() {
            for (channel, &x) in row.iter().enumerate() {
                planes[channel * pixels + i] = x;
            }
        }
    }
}

/// Offsets of the taps of a 3x3 filter whose output has the size of its input.
const CENTRED: [[isize; 2]; 9] = [
    [-1, -1],
    [-1, 0],
    [-1, 1],
    [0, -1],
    [0, 0],
    [0, 1],
    [1, -1],
    [1, 0],
    [1, 1],
];

/// Offsets of a 3x3 filter that halves: padded by one row and column at the right and bottom only,
/// so that it starts at the pixel itself.
const HALVING: [[isize; 2]; 9] = [
    [0, 0],
    [0, 1],
    [0, 2],
    [1, 0],
    [1, 1],
    [1, 2],
    [2, 0],
    [2, 1],
    [2, 2],
];

/// How a convolution visits its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// 1x1.
    Point,
    /// 3x3, padded by one all around.
    Same,
    /// 3x3 of stride 2, padded by one at the right and bottom.
    Half,
}

/// A convolution with bias.
#[derive(Clone, Debug)]
pub(crate) struct Conv {
    pub packed: Packed,
    shape: Shape,
    zeros: Vec<f32>,
}

impl Conv {
    /// From weights (outputs, channels, taps).
    pub fn new(shape: Shape, weight: &[f32], bias: &[f32], [to, from]: [usize; 2]) -> Self {
        let taps = if shape == Shape::Point { 1 } else { 9 };
        let at = |o: usize, c: usize, t: usize| weight[(o * from + c) * taps + t];
        Self {
            packed: Packed::new([to, from, taps], at, bias),
            shape,
            zeros: vec![0.0; from],
        }
    }

    pub fn apply(&self, cpu: &Cpu, x: &Features) -> Features {
        let (height, width) = match self.shape {
            // (n + 1 - 3) / 2 + 1 outputs, rounded down.
            Shape::Half => (x.height / 2, x.width / 2),
            _ => (x.height, x.width),
        };
        let mut out = Features::alloc(cpu, height, width, self.packed.outputs);
        self.run(cpu, x, false, &mut out);
        out
    }

    /// `out += conv(x)`.
    pub fn add_to(&self, cpu: &Cpu, x: &Features, out: &mut Features) {
        self.run(cpu, x, true, out);
    }

    fn run(&self, cpu: &Cpu, x: &Features, add: bool, out: &mut Features) {
        let source = Source {
            image: &x.data,
            height: x.height,
            width: x.width,
            grid_width: out.width,
            stride: if self.shape == Shape::Half { 2 } else { 1 },
            taps: match self.shape {
                Shape::Point => &[[0, 0]],
                Shape::Same => &CENTRED,
                Shape::Half => &HALVING,
            },
            zeros: &self.zeros,
        };
        let (pixels, step) = (out.pixels(), out.channels);
        let rows = Pieces {
            data: &mut out.data,
            width: step,
            units: 1,
        };
        let work = work(pixels, &self.packed);
        cpu.blocks(pixels, BLOCK, work, rows, |range, rows| {
            let job = Convolve {
                source,
                weights: &self.packed,
                pixels: range,
                add,
                out: rows.data,
                step,
            };
            dispatch(cpu.level(), job);
        });
    }
}

/// A measure of work for the choice between one thread and all.
fn work(pixels: usize, packed: &Packed) -> usize {
    pixels.saturating_mul(packed.rows.len())
}

/// Each pixel becomes four of its value, then comes a 3x3 convolution.
///
/// Of the nine taps at an output pixel several read the same input pixel: what is left are four
/// 2x2 filters with added weights, one for each of the four pixels. 16 products in place of 36.
#[derive(Clone, Debug)]
pub(crate) struct Upsample {
    /// For row 0 and 1, column 0 and 1 of the four.
    phases: [Packed; 4],
    taps: [[[isize; 2]; 4]; 4],
    zeros: Vec<f32>,
}

impl Upsample {
    /// From weights (outputs, channels, 3, 3).
    pub fn new(weight: &[f32], bias: &[f32], [to, from]: [usize; 2]) -> Self {
        // Taps of three that fall on the first and on the second input pixel of a phase: the even
        // pixel sees (above, itself, itself), the odd one (itself, itself, below).
        let falls = |phase: usize, half: usize| match (phase, half) {
            (0, 0) => 0..1,
            (0, _) => 1..3,
            (_, 0) => 0..2,
            _ => 2..3,
        };
        let phase = |index: usize| {
            let (py, px) = (index / 2, index % 2);
            let at = |o: usize, c: usize, t: usize| {
                let mut sum = 0.0f64;
                for ky in falls(py, t / 2) {
                    for kx in falls(px, t % 2) {
                        sum += f64::from(weight[(o * from + c) * 9 + ky * 3 + kx]);
                    }
                }
                sum as f32
            };
            Packed::new([to, from, 4], at, bias)
        };
        let taps = |index: usize| {
            let (y, x) = ((index / 2) as isize - 1, (index % 2) as isize - 1);
            [[y, x], [y, x + 1], [y + 1, x], [y + 1, x + 1]]
        };
        Self {
            phases: [phase(0), phase(1), phase(2), phase(3)],
            taps: [taps(0), taps(1), taps(2), taps(3)],
            zeros: vec![0.0; from],
        }
    }

    /// The weights, for a fingerprint.
    pub fn packed(&self) -> &[Packed] {
        &self.phases
    }

    pub fn apply(&self, cpu: &Cpu, x: &Features) -> Features {
        let channels = self.phases[0].outputs;
        let mut out = Features::alloc(cpu, 2 * x.height, 2 * x.width, channels);
        let row = 2 * x.width * channels;
        let rows = Pieces {
            data: &mut out.data,
            width: 2 * row,
            units: 1,
        };
        let work = 4 * work(x.pixels(), &self.phases[0]);
        cpu.blocks(x.height, 1, work, rows, |range, rows| {
            for (y, rows) in range.zip(rows.data.chunks_exact_mut(2 * row)) {
                self.input_row(cpu, x, y, rows);
            }
        });
        out
    }

    /// The two output rows of input row `y`.
    fn input_row(&self, cpu: &Cpu, x: &Features, y: usize, out: &mut [f32]) {
        let channels = self.phases[0].outputs;
        for (index, (weights, taps)) in self.phases.iter().zip(&self.taps).enumerate() {
            let source = Source {
                image: &x.data,
                height: x.height,
                width: x.width,
                grid_width: x.width,
                stride: 1,
                taps,
                zeros: &self.zeros,
            };
            let start = ((index / 2) * 2 * x.width + index % 2) * channels;
            for first in (0..x.width).step_by(BLOCK) {
                let last = (first + BLOCK).min(x.width);
                let job = Convolve {
                    source,
                    weights,
                    pixels: y * x.width + first..y * x.width + last,
                    add: false,
                    out: &mut out[start + 2 * first * channels..],
                    step: 2 * channels,
                };
                dispatch(cpu.level(), job);
            }
        }
    }
}
