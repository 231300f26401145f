//! Matrix products, through the `gemm` crate.

use gemm::Parallelism;

use super::Cpu;
use super::elementwise::by_row;
use super::rows::RowsMut;
use crate::check::GemmSize;
use crate::layout::{Layout, Tokens, TokensMut};

/// Multiply-adds below which a product runs on the calling thread; the library's own bound, so
/// that entering the pool is not paid in vain.
const INLINE: usize = 48 * 48 * 256;

/// (row stride, column stride) of op(x).
fn strides(layout: &Layout, transpose: bool) -> (isize, isize) {
    let step = layout.row_stride as isize;
    if transpose { (1, step) } else { (step, 1) }
}

/// `c = op(a) op(b) + bias` or `c += op(a) op(b)`; the arguments have been checked.
pub(super) fn gemm(
    cpu: &Cpu,
    size: GemmSize,
    a: Tokens<'_, [f32]>,
    transpose_a: bool,
    b: Tokens<'_, [f32]>,
    transpose_b: bool,
    bias: Option<&[f32]>,
    accumulate: bool,
    mut c: TokensMut<'_, [f32]>,
) {
    let GemmSize { m, n, k } = size;
    if m == 0 || n == 0 {
        return;
    }
    if let Some(bias) = bias {
        by_row(cpu, RowsMut::new(c.reborrow()), |_, row| {
            row.copy_from_slice(bias)
        });
    }
    let read_dst = accumulate || bias.is_some();
    if k == 0 {
        if !read_dst {
            by_row(cpu, RowsMut::new(c), |_, row| row.fill(0.0));
        }
        return;
    }
    let (a_rs, a_cs) = strides(&a.layout, transpose_a);
    let (b_rs, b_cs) = strides(&b.layout, transpose_b);
    let (c_rs, c_cs) = strides(&c.layout, false);
    let a = &a.buf[a.layout.offset..a.layout.end()];
    let b = &b.buf[b.layout.offset..b.layout.end()];
    let c = &mut c.buf[c.layout.offset..c.layout.end()];
    let threads = cpu.threads();
    let mut run = |parallelism: Parallelism| {
        // SAFETY: `gemm` reads op(a)[i, p] at `a + i * a_rs + p * a_cs` for i < m, p < k, reads
        // op(b)[p, j] likewise for j < n, and reads and writes c[i, j]. The three slices run from
        // the first to the last element of layouts that were checked to lie in their buffers, and
        // the strides are those of these layouts, so every such index is inside its slice. c is
        // borrowed mutably, so it overlaps neither a nor b, and its rows do not overlap each
        // other (checked), so no element is written twice at once.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                c.as_mut_ptr(),
                c_cs,
                c_rs,
                read_dst,
                a.as_ptr(),
                a_cs,
                a_rs,
                b.as_ptr(),
                b_cs,
                b_rs,
                1.0f32,
                1.0f32,
                false,
                false,
                false,
                parallelism,
            );
        }
    };
    if threads == 1 || m.saturating_mul(n).saturating_mul(k) < INLINE {
        run(Parallelism::None);
    } else {
        cpu.install(|| run(Parallelism::Rayon(threads)));
    }
}
