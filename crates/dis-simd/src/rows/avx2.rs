//! Six rows on AVX2: all sixteen registers.
//!
//! Rows are three to a pointer, as on AVX-512. Per step and panel of one vector, which is two registers: 2
//! loads, 6 broadcasts, 12 multiply-adds. Where eight columns are wanted only, half of the loads and of
//! the multiply-adds.

use super::Operands;
use crate::avx2::Avx2;
use std::arch::asm;

/// One row's part of a step: its element broadcast and multiplied with the step's columns.
#[rustfmt::skip]
macro_rules! row {
    (16, $x:literal, $at:expr, $first:literal, $second:literal) => {
        concat!(
            "vbroadcastss ", $x, ", dword ptr [", $at, "]\n",
            "vfmadd231ps ", $first, ", ymm12, ", $x, "\n",
            "vfmadd231ps ", $second, ", ymm13, ", $x, "\n",
        )
    };
    (8, $x:literal, $at:expr, $first:literal, $second:literal) => {
        concat!(
            "vbroadcastss ", $x, ", dword ptr [", $at, "]\n",
            "vfmadd231ps ", $first, ", ymm12, ", $x, "\n",
        )
    };
}

/// Loads the columns of a step, `$d` steps on.
#[rustfmt::skip]
macro_rules! columns {
    (16, $d:literal) => {
        concat!(
            "vmovups ymm12, [{b} + 64*", $d, "]\n",
            "vmovups ymm13, [{b} + 64*", $d, " + 32]\n",
        )
    };
    (8, $d:literal) => {
        concat!("vmovups ymm12, [{b} + 64*", $d, "]\n")
    };
}

/// One step of the sum, `$d` steps on from where the pointers are.
#[rustfmt::skip]
macro_rules! step {
    ($w:tt, $d:literal) => {
        concat!(
            columns!($w, $d),
            row!($w, "ymm14", concat!("{p0} + 4*", $d), "ymm0", "ymm1"),
            row!($w, "ymm15", concat!("{p0} + {l} + 4*", $d), "ymm2", "ymm3"),
            row!($w, "ymm14", concat!("{p0} + 2*{l} + 4*", $d), "ymm4", "ymm5"),
            row!($w, "ymm15", concat!("{p1} + 4*", $d), "ymm6", "ymm7"),
            row!($w, "ymm14", concat!("{p1} + {l} + 4*", $d), "ymm8", "ymm9"),
            row!($w, "ymm15", concat!("{p1} + 2*{l} + 4*", $d), "ymm10", "ymm11"),
        )
    };
}

/// Adds what is added to a row and stores it, going on to the next row.
#[rustfmt::skip]
macro_rules! finish {
    (16, $first:literal, $second:literal) => {
        concat!(
            "vaddps ", $first, ", ", $first, ", [{add}]\n",
            "vaddps ", $second, ", ", $second, ", [{add} + 32]\n",
            "vmovups [{c}], ", $first, "\n",
            "vmovups [{c} + 32], ", $second, "\n",
            "add {c}, {stride}\n",
            "add {add}, {add_stride}\n",
        )
    };
    (8, $first:literal, $second:literal) => {
        concat!(
            "vaddps ", $first, ", ", $first, ", [{add}]\n",
            "vmovups [{c}], ", $first, "\n",
            "add {c}, {stride}\n",
            "add {add}, {add_stride}\n",
        )
    };
}

/// The whole of a tile of `$w` columns: four steps at a time, single steps, the end.
#[rustfmt::skip]
macro_rules! tile {
    ($w:tt, $a:ident, $l:ident, $b:ident, $steps:ident, $add:ident, $add_stride:ident, $c:ident, $stride:ident) => {
        asm!(
            "vxorps xmm0, xmm0, xmm0",
            "vmovaps ymm1, ymm0", "vmovaps ymm2, ymm0", "vmovaps ymm3, ymm0",
            "vmovaps ymm4, ymm0", "vmovaps ymm5, ymm0", "vmovaps ymm6, ymm0",
            "vmovaps ymm7, ymm0", "vmovaps ymm8, ymm0", "vmovaps ymm9, ymm0",
            "vmovaps ymm10, ymm0", "vmovaps ymm11, ymm0",
            "2:",
            "sub {steps}, 4",
            "jb 3f",
            step!($w, 0), step!($w, 1), step!($w, 2), step!($w, 3),
            "add {p0}, 16", "add {p1}, 16",
            "add {b}, 4*64",
            "jmp 2b",
            "3:",
            "add {steps}, 4",
            "jz 5f",
            "4:",
            step!($w, 0),
            "add {p0}, 4", "add {p1}, 4",
            "add {b}, 64",
            "dec {steps}",
            "jnz 4b",
            "5:",
            finish!($w, "ymm0", "ymm1"), finish!($w, "ymm2", "ymm3"), finish!($w, "ymm4", "ymm5"),
            finish!($w, "ymm6", "ymm7"), finish!($w, "ymm8", "ymm9"), finish!($w, "ymm10", "ymm11"),
            p0 = inout(reg) $a => _,
            p1 = inout(reg) $a.wrapping_add(3 * $l) => _,
            l = in(reg) 4 * $l,
            b = inout(reg) $b => _,
            steps = inout(reg) $steps => _,
            add = inout(reg) $add => _,
            add_stride = in(reg) 4 * $add_stride,
            c = inout(reg) $c => _,
            stride = in(reg) 4 * $stride,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
            out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _,
            out("ymm11") _, out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack),
        )
    };
}

/// Six rows from `a`, `l` elements apart, times sixteen columns, or the first eight if NARROW, of each of
/// so many steps from `b`, and a row from `add`, `add_stride` elements from row to row, to rows from `c`.
///
/// # Safety
/// All of that can be read or written.
#[inline(always)]
pub(super) unsafe fn times<const NARROW: bool>(
    _proof: Avx2,
    Operands {
        a,
        l,
        b,
        steps,
        add,
        add_stride,
        c,
        stride,
    }: Operands,
) {
    if NARROW {
        // SAFETY: reads and writes are those that the caller answers for, and the instructions are
        // those of the token.
        unsafe { tile!(8, a, l, b, steps, add, add_stride, c, stride) }
    } else {
        // SAFETY: as above.
        unsafe { tile!(16, a, l, b, steps, add, add_stride, c, stride) }
    }
}
