//! Fourteen rows on AVX-512: all thirty-two registers.
//!
//! Rows are three to a pointer, `[p]`, `[p + l]` and `[p + 2 l]`, so that five pointers reach all fourteen
//! and every other register of the loop has its place. Per step and panel of two vectors: 2 loads, 14
//! broadcasts, 28 multiply-adds, which is what the processor's multiply-add units take.

use super::Operands;
use crate::avx512::Avx512;
use std::arch::asm;

/// One row's part of a step: its element broadcast and multiplied with the step's vectors.
#[rustfmt::skip]
macro_rules! row {
    (2, $mul:literal, $x:literal, $at:expr, $first:literal, $second:literal) => {
        concat!(
            "vbroadcastss ", $x, ", dword ptr [", $at, "]\n",
            $mul, " ", $first, ", zmm28, ", $x, "\n",
            $mul, " ", $second, ", zmm29, ", $x, "\n",
        )
    };
    (1, $mul:literal, $x:literal, $at:expr, $first:literal, $second:literal) => {
        concat!($mul, " ", $first, ", zmm28, dword ptr [", $at, "]{{1to16}}\n")
    };
}

/// Loads the vectors of a step, `$d` steps on.
#[rustfmt::skip]
macro_rules! columns {
    (2, $d:literal) => {
        concat!(
            "vmovups zmm28, [{b} + 128*", $d, "]\n",
            "vmovups zmm29, [{b} + 128*", $d, " + 64]\n",
        )
    };
    (1, $d:literal) => {
        concat!("vmovups zmm28, [{b} + 64*", $d, "]\n")
    };
}

/// One step of the sum, `$d` steps on from where the pointers are.
#[rustfmt::skip]
macro_rules! step {
    ($v:tt, $mul:literal, $d:literal) => {
        concat!(
            columns!($v, $d),
            row!($v, $mul, "zmm30", concat!("{p0} + 4*", $d), "zmm0", "zmm1"),
            row!($v, $mul, "zmm31", concat!("{p0} + {l} + 4*", $d), "zmm2", "zmm3"),
            row!($v, $mul, "zmm30", concat!("{p0} + 2*{l} + 4*", $d), "zmm4", "zmm5"),
            row!($v, $mul, "zmm31", concat!("{p1} + 4*", $d), "zmm6", "zmm7"),
            row!($v, $mul, "zmm30", concat!("{p1} + {l} + 4*", $d), "zmm8", "zmm9"),
            row!($v, $mul, "zmm31", concat!("{p1} + 2*{l} + 4*", $d), "zmm10", "zmm11"),
            row!($v, $mul, "zmm30", concat!("{p2} + 4*", $d), "zmm12", "zmm13"),
            row!($v, $mul, "zmm31", concat!("{p2} + {l} + 4*", $d), "zmm14", "zmm15"),
            row!($v, $mul, "zmm30", concat!("{p2} + 2*{l} + 4*", $d), "zmm16", "zmm17"),
            row!($v, $mul, "zmm31", concat!("{p3} + 4*", $d), "zmm18", "zmm19"),
            row!($v, $mul, "zmm30", concat!("{p3} + {l} + 4*", $d), "zmm20", "zmm21"),
            row!($v, $mul, "zmm31", concat!("{p3} + 2*{l} + 4*", $d), "zmm22", "zmm23"),
            row!($v, $mul, "zmm30", concat!("{p4} + 4*", $d), "zmm24", "zmm25"),
            row!($v, $mul, "zmm31", concat!("{p4} + {l} + 4*", $d), "zmm26", "zmm27"),
        )
    };
}

/// Adds what is added to a row and stores it, going on to the next row.
#[rustfmt::skip]
macro_rules! finish {
    (2, $first:literal, $second:literal) => {
        concat!(
            "vaddps ", $first, ", ", $first, ", [{add}]\n",
            "vaddps ", $second, ", ", $second, ", [{add} + 64]\n",
            "vmovups [{c}], ", $first, "\n",
            "vmovups [{c} + 64], ", $second, "\n",
            "add {c}, {stride}\n",
            "add {add}, {add_stride}\n",
        )
    };
    (1, $first:literal, $second:literal) => {
        concat!(
            "vaddps ", $first, ", ", $first, ", [{add}]\n",
            "vmovups [{c}], ", $first, "\n",
            "add {c}, {stride}\n",
            "add {add}, {add_stride}\n",
        )
    };
}

/// The whole of a tile: four steps at a time, single steps, the end.
#[rustfmt::skip]
macro_rules! tile {
    ($v:tt, $mul:literal, $a:ident, $l:ident, $b:ident, $steps:ident, $add:ident, $add_stride:ident, $c:ident, $stride:ident) => {
        asm!(
            "vpxord zmm0, zmm0, zmm0",
            "vmovaps zmm1, zmm0", "vmovaps zmm2, zmm0", "vmovaps zmm3, zmm0",
            "vmovaps zmm4, zmm0", "vmovaps zmm5, zmm0", "vmovaps zmm6, zmm0",
            "vmovaps zmm7, zmm0", "vmovaps zmm8, zmm0", "vmovaps zmm9, zmm0",
            "vmovaps zmm10, zmm0", "vmovaps zmm11, zmm0", "vmovaps zmm12, zmm0",
            "vmovaps zmm13, zmm0", "vmovaps zmm14, zmm0", "vmovaps zmm15, zmm0",
            "vmovaps zmm16, zmm0", "vmovaps zmm17, zmm0", "vmovaps zmm18, zmm0",
            "vmovaps zmm19, zmm0", "vmovaps zmm20, zmm0", "vmovaps zmm21, zmm0",
            "vmovaps zmm22, zmm0", "vmovaps zmm23, zmm0", "vmovaps zmm24, zmm0",
            "vmovaps zmm25, zmm0", "vmovaps zmm26, zmm0", "vmovaps zmm27, zmm0",
            "2:",
            "sub {steps}, 4",
            "jb 3f",
            step!($v, $mul, 0), step!($v, $mul, 1), step!($v, $mul, 2), step!($v, $mul, 3),
            "add {p0}, 16", "add {p1}, 16", "add {p2}, 16", "add {p3}, 16", "add {p4}, 16",
            concat!("add {b}, 4*64*", $v),
            "jmp 2b",
            "3:",
            "add {steps}, 4",
            "jz 5f",
            "4:",
            step!($v, $mul, 0),
            "add {p0}, 4", "add {p1}, 4", "add {p2}, 4", "add {p3}, 4", "add {p4}, 4",
            concat!("add {b}, 64*", $v),
            "dec {steps}",
            "jnz 4b",
            "5:",
            finish!($v, "zmm0", "zmm1"), finish!($v, "zmm2", "zmm3"),
            finish!($v, "zmm4", "zmm5"), finish!($v, "zmm6", "zmm7"),
            finish!($v, "zmm8", "zmm9"), finish!($v, "zmm10", "zmm11"),
            finish!($v, "zmm12", "zmm13"), finish!($v, "zmm14", "zmm15"),
            finish!($v, "zmm16", "zmm17"), finish!($v, "zmm18", "zmm19"),
            finish!($v, "zmm20", "zmm21"), finish!($v, "zmm22", "zmm23"),
            finish!($v, "zmm24", "zmm25"), finish!($v, "zmm26", "zmm27"),
            p0 = inout(reg) $a => _,
            p1 = inout(reg) $a.wrapping_add(3 * $l) => _,
            p2 = inout(reg) $a.wrapping_add(6 * $l) => _,
            p3 = inout(reg) $a.wrapping_add(9 * $l) => _,
            p4 = inout(reg) $a.wrapping_add(12 * $l) => _,
            l = in(reg) 4 * $l,
            b = inout(reg) $b => _,
            steps = inout(reg) $steps => _,
            add = inout(reg) $add => _,
            add_stride = in(reg) 4 * $add_stride,
            c = inout(reg) $c => _,
            stride = in(reg) 4 * $stride,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
            out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _,
            out("zmm11") _, out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _,
            out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _, out("zmm20") _,
            out("zmm21") _, out("zmm22") _, out("zmm23") _, out("zmm24") _, out("zmm25") _,
            out("zmm26") _, out("zmm27") _, out("zmm28") _, out("zmm29") _, out("zmm30") _,
            out("zmm31") _,
            options(nostack),
        )
    };
}
/// Fourteen rows from `a`, `l` elements apart, times `V` (1 or 2) vectors of each of so many steps from
/// `b`, and a row from `add`, `add_stride` elements from row to row, to rows from `c`; elements are pairs
/// if PAIRS.
///
/// # Safety
/// All of that can be read or written, and the processor has BF16 if PAIRS.
#[inline(always)]
pub(super) unsafe fn times<const V: usize, const PAIRS: bool>(
    _proof: Avx512,
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
    match (V, PAIRS) {
        // SAFETY: reads and writes are those that the caller answers for, the instructions those of
        // the token, and of BF16, for which the caller answers too.
        (2, false) => unsafe {
            tile!(2, "vfmadd231ps", a, l, b, steps, add, add_stride, c, stride)
        },
        // SAFETY: as above.
        (2, true) => unsafe { tile!(2, "vdpbf16ps", a, l, b, steps, add, add_stride, c, stride) },
        // SAFETY: as above.
        (_, false) => unsafe {
            tile!(1, "vfmadd231ps", a, l, b, steps, add, add_stride, c, stride)
        },
        // SAFETY: as above.
        (_, true) => unsafe { tile!(1, "vdpbf16ps", a, l, b, steps, add, add_stride, c, stride) },
    }
}
