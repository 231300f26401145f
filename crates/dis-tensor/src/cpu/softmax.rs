//! Softmax over channels, row by row.

use super::Cpu;
use super::elementwise::by_row;
use super::rows::{Rows, RowsMut};
use crate::simd::LANES;
use crate::simd::slices::{self, Function};

/// A sum whose order depends on the length alone.
fn sum(values: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [0.0; LANES];
    for (i, x) in values.enumerate() {
        lanes[i % LANES] += x;
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

/// `out = softmax(scale * x)`.
pub(super) fn forward(cpu: &Cpu, scale: f32, x: Rows<'_>, out: RowsMut<'_>) {
    let level = cpu.level;
    by_row(cpu, out, |r, out| {
        let x = x.row(r);
        // The exponents are at most 0, so nothing overflows; NaN is passed on by the differences.
        let largest = x.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(scale * x));
        let mut shifted = [0.0; 16 * LANES];
        for (x, out) in x.chunks(shifted.len()).zip(out.chunks_mut(shifted.len())) {
            let shifted = &mut shifted[..x.len()];
            for (shifted, &x) in shifted.iter_mut().zip(x) {
                *shifted = scale * x - largest;
            }
            slices::map(level, Function::Exp, shifted, out);
        }
        let total = sum(out.iter().copied());
        for out in out {
            *out /= total;
        }
    });
}

/// `dx = scale * y * (dout - sum of y * dout)`.
pub(super) fn backward(cpu: &Cpu, scale: f32, y: Rows<'_>, dout: Rows<'_>, dx: RowsMut<'_>) {
    by_row(cpu, dx, |r, dx| {
        let (y, dout) = (y.row(r), dout.row(r));
        let mean = sum(y.iter().zip(dout).map(|(y, d)| y * d));
        for ((dx, y), d) in dx.iter_mut().zip(y).zip(dout) {
            *dx = scale * (y * (d - mean));
        }
    });
}
