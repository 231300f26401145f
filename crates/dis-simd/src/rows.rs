//! Fourteen rows of a matrix, where they lie, times a panel of packed columns: the inner loop of
//! products on AVX-512, as hand-written assembly. Elements are float32, or pairs of bfloat16.
//!
//! Intrinsics do not do here: with so many streams the compiler moves sums to memory. Rows are three
//! to a pointer, `[p]`, `[p + l]` and `[p + 2 l]`, so that five pointers reach all fourteen and every
//! other register of the loop has its place. Per step and panel of two vectors: 2 loads,
//! 14 broadcasts, 28 multiply-adds, which is what the processor's multiply-add units take.

use super::LANES;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512 as Proof;
#[cfg(target_arch = "x86_64")]
use std::arch::asm;
#[cfg(not(target_arch = "x86_64"))]
use std::convert::Infallible as Proof;

/// Rows of a tile.
pub const ROWS: usize = 14;

/// Proof that the processor can do this, for float32 or for pairs.
#[derive(Clone, Copy, Debug)]
pub struct InPlace {
    proof: Proof,
    pairs: bool,
}

/// What is added to the sums of a tile.
#[derive(Clone, Copy, Debug)]
pub enum Addend<'a> {
    /// To every row the first numbers of these.
    Row(&'a [f32]),
    /// What is in the result.
    Kept,
}

/// Where a tile of a result goes: [`ROWS`] rows of `V` vectors, `stride` elements apart.
#[derive(Debug)]
pub struct Tile<'a, const V: usize> {
    start: *mut f32,
    stride: usize,
    memory: std::marker::PhantomData<&'a mut [f32]>,
}

impl<'a, const V: usize> Tile<'a, V> {
    /// All of an array.
    pub fn of(rows: &'a mut [[[f32; LANES]; V]; ROWS]) -> Self {
        Self {
            start: rows.as_flattened_mut().as_flattened_mut().as_mut_ptr(),
            stride: V * LANES,
            memory: std::marker::PhantomData,
        }
    }

    /// # Safety
    /// For the time of the borrow, elements `i * stride .. i * stride + V * LANES` from `start`,
    /// i below [`ROWS`], belong to this tile alone.
    pub unsafe fn new(start: *mut f32, stride: usize) -> Self {
        Self {
            start,
            stride,
            memory: std::marker::PhantomData,
        }
    }
}

/// One row's part of a step: its element broadcast and multiplied with the step's vectors.
#[cfg(target_arch = "x86_64")]
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
#[cfg(target_arch = "x86_64")]
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
#[cfg(target_arch = "x86_64")]
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
#[cfg(target_arch = "x86_64")]
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
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
macro_rules! tile {
    ($v:tt, $mul:literal, $a:ident, $l:ident, $b:ident, $steps:ident, $add:ident, $add_stride:ident, $c:ident) => {
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
            c = inout(reg) $c.start => _,
            stride = in(reg) 4 * $c.stride,
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

impl InPlace {
    /// The proof, if it holds; of the instructions for pairs, if asked for.
    pub fn detect(pairs: bool) -> Option<Self> {
        if pairs && !super::pairs::has_pairs() {
            return None;
        }
        #[cfg(target_arch = "x86_64")]
        return Proof::detect().map(|proof| Self { proof, pairs });
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Whether elements are pairs of bfloat16.
    pub fn pairs(self) -> bool {
        self.pairs
    }

    /// Rows of `a`, `stride` elements apart, times the `V` vectors of every step in `b`, which has as
    /// many steps as are summed, and what is added, to `c`. V is 1 or 2.
    ///
    /// # Panics
    /// If `a` or the row that is added is too short.
    #[inline]
    pub fn times<const V: usize>(
        self,
        a: &[f32],
        stride: usize,
        b: &[[[f32; LANES]; V]],
        addend: Addend<'_>,
        c: Tile<'_, V>,
    ) {
        const { assert!(V == 1 || V == 2) };
        let Self { proof, pairs } = self;
        let needed = stride
            .checked_mul(ROWS - 1)
            .and_then(|x| x.checked_add(b.len()));
        assert!(
            needed.is_some_and(|needed| needed <= a.len()),
            "rows beyond a matrix"
        );
        let (add, add_stride) = match addend {
            Addend::Row(row) => (row[..V * LANES].as_ptr(), 0),
            Addend::Kept => (c.start.cast_const(), c.stride),
        };
        let (a, steps, b) = (a.as_ptr(), b.len(), b.as_ptr());
        #[cfg(target_arch = "x86_64")]
        {
            let Proof { .. } = proof;
            match (V, pairs) {
                // SAFETY: the token proves AVX-512, and BF16 for pairs. Reads of rows lie in `a`
                // (asserted), reads of columns end with `b`; the addend is a row (its length asserted)
                // or the tile's own elements, each read before it is written; writes are those that
                // `Tile` owns.
                (2, false) => unsafe {
                    tile!(2, "vfmadd231ps", a, stride, b, steps, add, add_stride, c)
                },
                // SAFETY: as above.
                (2, true) => unsafe {
                    tile!(2, "vdpbf16ps", a, stride, b, steps, add, add_stride, c)
                },
                // SAFETY: as above.
                (_, false) => unsafe {
                    tile!(1, "vfmadd231ps", a, stride, b, steps, add, add_stride, c)
                },
                // SAFETY: as above.
                (_, true) => unsafe {
                    tile!(1, "vdpbf16ps", a, stride, b, steps, add, add_stride, c)
                },
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (a, stride, steps, b, add, add_stride, pairs);
            match proof {}
        }
    }
}
