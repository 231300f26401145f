//! 128-bit ARM vectors: four registers each. Tested in an emulator: the authors have no such machine.

use super::{LANES, Number, Simd, Vector};
use std::arch::{aarch64::*, asm};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Proof that the processor has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// The proof, if it holds.
    #[inline]
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

/// Four registers of four lanes; only a [`Neon`] token makes the first ones.
#[derive(Clone, Copy, Debug)]
pub struct F32x16([float32x4_t; 4]);

/// Calls an intrinsic without memory operands.
macro_rules! op {
    ($($call:tt)*) => {{
        // SAFETY: a `Neon` token or a vector made by one is at hand, so the processor has the
        // instruction; it touches registers only. (NEON is part of this target's baseline, so
        // some compilers call this block unneeded.)
        #[allow(unused_unsafe)]
        unsafe { $($call)* }
    }};
}

/// Applies an expression to each of the four registers.
macro_rules! quarters {
    (|$i:ident| $value:expr) => {
        F32x16([
            {
                const $i: usize = 0;
                $value
            },
            {
                const $i: usize = 1;
                $value
            },
            {
                const $i: usize = 2;
                $value
            },
            {
                const $i: usize = 3;
                $value
            },
        ])
    };
}

impl Simd for Neon {
    type V = F32x16;
    const STATE_BLOCK: usize = 4;
    const TOGETHER: usize = 2;
    super::undivided!();

    #[inline(always)]
    fn splat(self, x: f32) -> F32x16 {
        F32x16([op!(vdupq_n_f32(x)); 4])
    }

    #[inline(always)]
    fn load(self, src: &[f32; LANES]) -> F32x16 {
        let (quarters, _) = src.as_chunks::<4>();
        quarters!(|I| {
            let quarter: &[f32; 4] = &quarters[I];
            // SAFETY: `quarter` is 16 readable bytes and the token proves NEON.
            unsafe { vld1q_f32(quarter.as_ptr()) }
        })
    }
}

macro_rules! operator {
    ($trait:ident, $name:ident, $intrinsic:ident) => {
        impl $trait for F32x16 {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                quarters!(|I| op!($intrinsic(self.0[I], other.0[I])))
            }
        }
    };
}
operator!(Add, add, vaddq_f32);
operator!(Sub, sub, vsubq_f32);
operator!(Mul, mul, vmulq_f32);
operator!(Div, div, vdivq_f32);

impl Neg for F32x16 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        quarters!(|I| op!(vnegq_f32(self.0[I])))
    }
}

/// 2^i of four lanes, for i in -127 (then 0) ..= 127.
#[inline(always)]
fn power_of_two(i: int32x4_t) -> float32x4_t {
    let biased = op!(vaddq_s32(i, vdupq_n_s32(127)));
    op!(vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased)))
}

impl Number for F32x16 {
    const NATIVE_SCALE: bool = false;

    #[inline(always)]
    fn like(self, x: f32) -> Self {
        Self([op!(vdupq_n_f32(x)); 4])
    }

    #[inline(always)]
    fn fma(self, m: Self, a: Self) -> Self {
        quarters!(|I| op!(vfmaq_f32(a.0[I], self.0[I], m.0[I])))
    }

    #[inline(always)]
    fn nmadd(self, m: Self, a: Self) -> Self {
        quarters!(|I| op!(vfmsq_f32(a.0[I], self.0[I], m.0[I])))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self::select_lt(self, other, self, other)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self::select_lt(other, self, self, other)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        quarters!(|I| op!(vabsq_f32(self.0[I])))
    }

    #[inline(always)]
    fn round(self) -> Self {
        quarters!(|I| op!(vrndnq_f32(self.0[I])))
    }

    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        // Two factors, since one power of two does not reach denormals or the overflow threshold.
        quarters!(|I| {
            let n = op!(vcvtq_s32_f32(n.0[I]));
            let half = op!(vshrq_n_s32::<1>(n));
            let rest = op!(vsubq_s32(n, half));
            let x = op!(vmulq_f32(self.0[I], power_of_two(half)));
            op!(vmulq_f32(x, power_of_two(rest)))
        })
    }

    #[inline(always)]
    fn scale2_half(self, n: Self) -> Self {
        quarters!(|I| {
            let n = op!(vcvtq_s32_f32(n.0[I]));
            let less = op!(vsubq_s32(n, vdupq_n_s32(1)));
            op!(vmulq_f32(self.0[I], power_of_two(less)))
        })
    }

    #[inline(always)]
    fn abreast<const K: usize>(mut x: [Self; K]) -> [Self; K] {
        if let [a, b] = x.as_mut_slice() {
            let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (&mut a.0, &mut b.0);
            // SAFETY: no instruction at all.
            unsafe {
                asm!(
                    "/* {0} {1} {2} {3} {4} {5} {6} {7} */",
                    inout(vreg) * a0,
                    inout(vreg) * a1,
                    inout(vreg) * a2,
                    inout(vreg) * a3,
                    inout(vreg) * b0,
                    inout(vreg) * b1,
                    inout(vreg) * b2,
                    inout(vreg) * b3,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        }
        x
    }

    #[inline(always)]
    fn add_exponent(self, shifted: Self) -> Self {
        quarters!(|I| {
            let n = op!(vshlq_n_s32::<23>(vreinterpretq_s32_f32(shifted.0[I])));
            let sum = op!(vaddq_s32(vreinterpretq_s32_f32(self.0[I]), n));
            op!(vreinterpretq_f32_s32(sum))
        })
    }

    #[inline(always)]
    fn select_lt(a: Self, b: Self, yes: Self, no: Self) -> Self {
        quarters!(|I| {
            let mask = op!(vcltq_f32(a.0[I], b.0[I]));
            op!(vbslq_f32(mask, yes.0[I], no.0[I]))
        })
    }

    #[inline(always)]
    fn fold_within(x: [Self; 4]) -> Self {
        let [a, b, c, d] = x;
        quarters!(|I| {
            let low = |v: F32x16, w: F32x16| op!(vzip1q_f32(v.0[I], w.0[I]));
            let high = |v: F32x16, w: F32x16| op!(vzip2q_f32(v.0[I], w.0[I]));
            // (a0 + a2, b0 + b2, a1 + a3, b1 + b3) and the same of c, d.
            let ab = op!(vreinterpretq_f64_f32(vaddq_f32(low(a, b), high(a, b))));
            let cd = op!(vreinterpretq_f64_f32(vaddq_f32(low(c, d), high(c, d))));
            let even = op!(vreinterpretq_f32_f64(vzip1q_f64(ab, cd)));
            let odd = op!(vreinterpretq_f32_f64(vzip2q_f64(ab, cd)));
            op!(vaddq_f32(even, odd))
        })
    }
}

impl Vector for F32x16 {
    #[inline(always)]
    fn store(self, dst: &mut [f32; LANES]) {
        let (quarters, _) = dst.as_chunks_mut::<4>();
        for (quarter, register) in quarters.iter_mut().zip(self.0) {
            // SAFETY: `quarter` is 16 writable bytes and `self` proves NEON.
            unsafe { vst1q_f32(quarter.as_mut_ptr(), register) }
        }
    }

    #[inline(always)]
    fn fold_halves(a: Self, b: Self) -> Self {
        let half = |x: Self, i: usize| op!(vaddq_f32(x.0[i], x.0[i + 2]));
        Self([half(a, 0), half(a, 1), half(b, 0), half(b, 1)])
    }

    #[inline(always)]
    fn fold_quarters(a: Self, b: Self) -> Self {
        let quarter = |x: Self, i: usize| op!(vaddq_f32(x.0[i], x.0[i + 1]));
        Self([quarter(a, 0), quarter(a, 2), quarter(b, 0), quarter(b, 2)])
    }
}
