//! Sums over rows, tokens and samples.

use super::Cpu;
use super::elementwise::{axpy, by_row};
use super::rows::{Rows, RowsMut};
use super::threads::Pieces;
use crate::operands::Accum;

/// Rows whose sum is formed first; the partial sums are then added in order.
pub(super) const BLOCK: usize = 32;

/// Columns of a block when partial sums are added up.
const COLUMNS: usize = 512;

/// `out += ` the sum over `width`-wide rows of `partial`, in their order.
pub(super) fn add_partials(
    cpu: &Cpu,
    partial: &[f32],
    width: usize,
    first: usize,
    out: &mut [f32],
) {
    let work = partial.len();
    cpu.threads
        .blocks(out.len(), COLUMNS, work, out, |range, out| {
            let columns = first + range.start..first + range.end;
            let mut sum = [0.0f32; COLUMNS];
            let sum = &mut sum[..out.len()];
            for row in partial.chunks_exact(width) {
                axpy(1.0, &row[columns.clone()], sum);
            }
            axpy(1.0, sum, out);
        });
}

/// `out(c) += sum over rows of x(r, c)`.
pub(super) fn add_column_sums(cpu: &Cpu, x: Rows<'_>, out: &mut [f32]) {
    let (rows, width) = (x.count(), x.channels());
    if rows == 0 || width == 0 {
        return;
    }
    let mut scratch = cpu.scratch::<f32>(rows.div_ceil(BLOCK) * width);
    let pieces = Pieces {
        data: scratch.as_mut_slice(),
        width,
        units: BLOCK,
    };
    cpu.threads
        .blocks(rows, BLOCK, rows * width, pieces, |range, partial| {
            partial.data.copy_from_slice(x.row(range.start));
            for r in range.skip(1) {
                axpy(1.0, x.row(r), partial.data);
            }
        });
    add_partials(cpu, &scratch, width, 0, out);
}

/// `out(0, t, c) += sum over b of x(b, t, c)`.
pub(super) fn add_batch_sums(cpu: &Cpu, x: Rows<'_>, out: RowsMut<'_>) {
    let (tokens, rows) = (x.tokens(), x.count());
    by_row(cpu, out, |t, out| {
        for r in (t..rows).step_by(tokens) {
            axpy(1.0, x.row(r), out);
        }
    });
}

/// `out(b, 0, c) = alpha * sum over t of x(b, t, c)`, or added to it.
pub(super) fn token_sums(cpu: &Cpu, alpha: f32, x: Rows<'_>, accum: Accum, out: RowsMut<'_>) {
    let (tokens, channels, batch) = (x.tokens(), x.channels(), out.count());
    let mut scratch = cpu.scratch::<f32>(batch * channels);
    let pieces = Pieces {
        data: scratch.as_mut_slice(),
        width: channels,
        units: 1,
    };
    let work = batch * tokens * channels;
    cpu.threads
        .blocks(batch, 1, work, (pieces, out), |range, (sum, mut out)| {
            for b in range {
                sum.data.fill(0.0);
                for t in 0..tokens {
                    axpy(1.0, x.row(b * tokens + t), sum.data);
                }
                let out = out.row(b);
                if !accum.adds() {
                    out.fill(0.0);
                }
                axpy(alpha, sum.data, out);
            }
        });
}
