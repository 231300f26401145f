//! Tables looked up by id, and images cut into patches.

use super::Cpu;
use super::elementwise::{axpy, by_row};
use super::rows::{Rows, RowsMut};
use super::threads::Pieces;
use crate::operands::{PatchGrid, PatchOrder};

pub(super) fn gather(cpu: &Cpu, table: Rows<'_>, ids: &[u32], out: RowsMut<'_>) {
    by_row(cpu, out, |b, out| {
        out.copy_from_slice(table.row(ids[b] as usize))
    });
}

/// On one thread: ids repeat, and a batch is small.
pub(super) fn scatter_add(dout: Rows<'_>, ids: &[u32], mut dtable: RowsMut<'_>) {
    for (b, &id) in ids.iter().enumerate() {
        axpy(1.0, dout.row(b), dtable.row(id as usize));
    }
}

/// Calls `f(index in the image, channel of the patch)` for the values of patch `token`.
fn for_each_value(grid: &PatchGrid, token: usize, mut f: impl FnMut(usize, usize)) {
    let p = grid.patch;
    let across = grid.width / p;
    let corner = (token / across) * p * grid.width + (token % across) * p;
    let plane = grid.height * grid.width;
    let mut value = 0;
    match grid.order {
        PatchOrder::ChannelFirst => {
            for c in 0..grid.channels {
                for i in 0..p {
                    for j in 0..p {
                        f(c * plane + corner + i * grid.width + j, value);
                        value += 1;
                    }
                }
            }
        }
        PatchOrder::ChannelLast => {
            for i in 0..p {
                for j in 0..p {
                    for c in 0..grid.channels {
                        f(c * plane + corner + i * grid.width + j, value);
                        value += 1;
                    }
                }
            }
        }
    }
}

pub(super) fn patchify(cpu: &Cpu, image: &[f32], grid: &PatchGrid, out: RowsMut<'_>) {
    let (tokens, len) = (grid.tokens(), grid.channels * grid.height * grid.width);
    by_row(cpu, out, |r, out| {
        let image = &image[(r / tokens) * len..][..len];
        for_each_value(grid, r % tokens, |pixel, value| out[value] = image[pixel]);
    });
}

pub(super) fn unpatchify(cpu: &Cpu, patches: Rows<'_>, grid: &PatchGrid, image: &mut [f32]) {
    let (tokens, width, work) = (
        grid.tokens(),
        grid.channels * grid.height * grid.width,
        image.len(),
    );
    let images = Pieces {
        data: image,
        width,
        units: 1,
    };
    cpu.threads
        .blocks(grid.batch, 1, work, images, |range, image| {
            for t in 0..tokens {
                let patch = patches.row(range.start * tokens + t);
                for_each_value(grid, t, |pixel, value| image.data[pixel] = patch[value]);
            }
        });
}
