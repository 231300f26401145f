//! Operations that treat every element alike.

use super::Cpu;
use super::rows::{Rows, RowsMut};
use super::threads::GRAIN;

/// Rows of a block of about [`GRAIN`] elements.
pub(super) fn rows_per_block(channels: usize) -> usize {
    (GRAIN / channels.max(1)).max(1)
}

/// `f(row number, out)` for every row.
pub(super) fn by_row(cpu: &Cpu, out: RowsMut<'_>, f: impl Fn(usize, &mut [f32]) + Sync) {
    let (count, channels) = (out.count(), out.channels());
    cpu.threads.blocks(
        count,
        rows_per_block(channels),
        count * channels,
        out,
        |range, mut out| {
            for r in range {
                f(r, out.row(r));
            }
        },
    );
}

/// `f(out)` on pieces of the elements. What `f` does to an element must not depend on the piece.
pub(super) fn map0(cpu: &Cpu, out: RowsMut<'_>, f: impl Fn(&mut [f32]) + Sync) {
    match out.into_flat() {
        Ok(out) => {
            let n = out.len();
            cpu.threads.blocks(n, GRAIN, n, out, |_, out| f(out));
        }
        Err(out) => by_row(cpu, out, |_, out| f(out)),
    }
}

/// `f(x, out)` on pieces of the elements. What `f` does to an element must not depend on the piece.
pub(super) fn map1(
    cpu: &Cpu,
    x: Rows<'_>,
    out: RowsMut<'_>,
    f: impl Fn(&[f32], &mut [f32]) + Sync,
) {
    let Some(flat) = x.flat() else {
        return by_row(cpu, out, |r, out| f(x.row(r), out));
    };
    match out.into_flat() {
        Ok(out) => {
            let n = out.len();
            cpu.threads
                .blocks(n, GRAIN, n, out, |range, out| f(&flat[range], out));
        }
        Err(out) => by_row(cpu, out, |r, out| f(x.row(r), out)),
    }
}

/// `f(x, y, out)` on pieces of the elements. What `f` does to an element must not depend on the
/// piece.
pub(super) fn map2(
    cpu: &Cpu,
    x: Rows<'_>,
    y: Rows<'_>,
    out: RowsMut<'_>,
    f: impl Fn(&[f32], &[f32], &mut [f32]) + Sync,
) {
    let (Some(flat_x), Some(flat_y)) = (x.flat(), y.flat()) else {
        return by_row(cpu, out, |r, out| f(x.row(r), y.row(r), out));
    };
    match out.into_flat() {
        Ok(out) => {
            let n = out.len();
            cpu.threads.blocks(n, GRAIN, n, out, |range, out| {
                f(&flat_x[range.clone()], &flat_y[range], out);
            });
        }
        Err(out) => by_row(cpu, out, |r, out| f(x.row(r), y.row(r), out)),
    }
}

/// `out += alpha * x`.
pub(super) fn axpy(alpha: f32, x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out += alpha * x;
    }
}

/// `out = alpha * x`.
pub(super) fn scaled(alpha: f32, x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = alpha * x;
    }
}

/// `out += x * y`.
pub(super) fn add_product(x: &[f32], y: &[f32], out: &mut [f32]) {
    for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
        *out += x * y;
    }
}
