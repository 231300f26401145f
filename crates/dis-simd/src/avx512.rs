//! 512-bit vectors: one register each.

use super::{LANES, Number, Simd, Vector};
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Proof that the processor has AVX-512 F, VL, BW and DQ.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The proof, if it holds.
    #[inline]
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma"))
        .then_some(Self(()))
    }
}

/// One register of sixteen lanes; only an [`Avx512`] token makes the first one.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct F32x16(__m512);

/// Calls an intrinsic without memory operands.
macro_rules! op {
    ($($call:tt)*) => {
        // SAFETY: an `Avx512` token or a vector made by one is at hand, so the processor has the
        // instruction; it touches registers only.
        unsafe { $($call)* }
    };
}

impl Simd for Avx512 {
    type V = F32x16;
    const STATE_BLOCK: usize = 16;
    const TOGETHER: usize = 1;
    super::undivided!();

    #[inline(always)]
    fn splat(self, x: f32) -> F32x16 {
        F32x16(op!(_mm512_set1_ps(x)))
    }

    #[inline(always)]
    fn load(self, src: &[f32; LANES]) -> F32x16 {
        // SAFETY: `src` is 64 readable bytes, any alignment will do, and the token proves AVX-512.
        F32x16(unsafe { _mm512_loadu_ps(src.as_ptr()) })
    }

    #[inline(always)]
    fn load_partial(self, src: &[f32]) -> F32x16 {
        if let Some(all) = src.first_chunk::<LANES>() {
            return self.load(all);
        }
        // SAFETY: only the lanes below `src.len()` are read, and the others do not fault; the token
        // proves AVX-512.
        F32x16(unsafe { _mm512_maskz_loadu_ps(first_lanes(src.len()), src.as_ptr()) })
    }
}

/// The mask of the first `count` lanes.
#[inline(always)]
fn first_lanes(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as __mmask16
}

impl From<F32x16> for __m512 {
    #[inline(always)]
    fn from(x: F32x16) -> Self {
        x.0
    }
}

impl F32x16 {
    /// From a register; the token proves that there are such.
    #[inline(always)]
    pub(super) fn new(_proof: Avx512, x: __m512) -> Self {
        Self(x)
    }
}

macro_rules! operator {
    ($trait:ident, $name:ident, $intrinsic:ident) => {
        impl $trait for F32x16 {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                Self(op!($intrinsic(self.0, other.0)))
            }
        }
    };
}
operator!(Add, add, _mm512_add_ps);
operator!(Sub, sub, _mm512_sub_ps);
operator!(Mul, mul, _mm512_mul_ps);
operator!(Div, div, _mm512_div_ps);

impl Neg for F32x16 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        let sign = self.like(-0.0);
        Self(op!(_mm512_xor_ps(self.0, sign.0)))
    }
}

impl F32x16 {
    /// Pairs of 32-bit lanes `(a0 + a2, b0 + b2, a1 + a3, b1 + b3)` in every quarter.
    #[inline(always)]
    fn add_halves(a: Self, b: Self) -> Self {
        let low = op!(_mm512_unpacklo_ps(a.0, b.0));
        let high = op!(_mm512_unpackhi_ps(a.0, b.0));
        Self(op!(_mm512_add_ps(low, high)))
    }
}

impl Number for F32x16 {
    const NATIVE_SCALE: bool = true;

    #[inline(always)]
    fn like(self, x: f32) -> Self {
        Self(op!(_mm512_set1_ps(x)))
    }

    #[inline(always)]
    fn fma(self, m: Self, a: Self) -> Self {
        Self(op!(_mm512_fmadd_ps(self.0, m.0, a.0)))
    }

    #[inline(always)]
    fn nmadd(self, m: Self, a: Self) -> Self {
        Self(op!(_mm512_fnmadd_ps(self.0, m.0, a.0)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(op!(_mm512_min_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(op!(_mm512_max_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(op!(_mm512_abs_ps(self.0)))
    }

    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        Self(op!(_mm512_roundscale_ps::<NEAREST>(self.0)))
    }

    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        Self(op!(_mm512_scalef_ps(self.0, n.0)))
    }

    #[inline(always)]
    fn scale2_half(self, n: Self) -> Self {
        let one = self.like(1.0);
        self.scale2(n - one)
    }

    #[inline(always)]
    fn add_exponent(self, shifted: Self) -> Self {
        let n = op!(_mm512_slli_epi32::<23>(_mm512_castps_si512(shifted.0)));
        let sum = op!(_mm512_add_epi32(_mm512_castps_si512(self.0), n));
        Self(op!(_mm512_castsi512_ps(sum)))
    }

    #[inline(always)]
    fn select_lt(a: Self, b: Self, yes: Self, no: Self) -> Self {
        let mask = op!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a.0, b.0));
        Self(op!(_mm512_mask_blend_ps(mask, no.0, yes.0)))
    }

    #[inline(always)]
    fn fold_within(x: [Self; 4]) -> Self {
        // A transpose of 4 x 4 blocks with the additions folded in.
        let ab = Self::add_halves(x[0], x[1]);
        let cd = Self::add_halves(x[2], x[3]);
        let even = op!(_mm512_shuffle_ps::<0b01_00_01_00>(ab.0, cd.0));
        let odd = op!(_mm512_shuffle_ps::<0b11_10_11_10>(ab.0, cd.0));
        Self(op!(_mm512_add_ps(even, odd)))
    }
}

impl Vector for F32x16 {
    #[inline(always)]
    fn store(self, dst: &mut [f32; LANES]) {
        // SAFETY: `dst` is 64 writable bytes, any alignment will do, and `self` proves AVX-512.
        unsafe { _mm512_storeu_ps(dst.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn store_partial(self, dst: &mut [f32]) {
        if let Some(all) = dst.first_chunk_mut::<LANES>() {
            return self.store(all);
        }
        // SAFETY: only the lanes below `dst.len()` are written, and the others do not fault; `self`
        // proves AVX-512.
        unsafe { _mm512_mask_storeu_ps(dst.as_mut_ptr(), first_lanes(dst.len()), self.0) }
    }

    #[inline(always)]
    fn fold_halves(a: Self, b: Self) -> Self {
        let first = op!(_mm512_shuffle_f32x4::<0b01_00_01_00>(a.0, b.0));
        let second = op!(_mm512_shuffle_f32x4::<0b11_10_11_10>(a.0, b.0));
        Self(op!(_mm512_add_ps(first, second)))
    }

    #[inline(always)]
    fn fold_quarters(a: Self, b: Self) -> Self {
        let even = op!(_mm512_shuffle_f32x4::<0b10_00_10_00>(a.0, b.0));
        let odd = op!(_mm512_shuffle_f32x4::<0b11_01_11_01>(a.0, b.0));
        Self(op!(_mm512_add_ps(even, odd)))
    }

    #[inline(always)]
    fn transpose(x: [Self; LANES], _: impl Simd<V = Self>) -> [Self; LANES] {
        // Squares of four lanes within quarters of registers, then squares of quarters.
        let mut within = x;
        for four in within.chunks_exact_mut(4) {
            let (a, b, c, d) = (four[0], four[1], four[2], four[3]);
            let low_ab = op!(_mm512_unpacklo_ps(a.0, b.0));
            let high_ab = op!(_mm512_unpackhi_ps(a.0, b.0));
            let low_cd = op!(_mm512_unpacklo_ps(c.0, d.0));
            let high_cd = op!(_mm512_unpackhi_ps(c.0, d.0));
            four[0] = Self(op!(_mm512_shuffle_ps::<0b01_00_01_00>(low_ab, low_cd)));
            four[1] = Self(op!(_mm512_shuffle_ps::<0b11_10_11_10>(low_ab, low_cd)));
            four[2] = Self(op!(_mm512_shuffle_ps::<0b01_00_01_00>(high_ab, high_cd)));
            four[3] = Self(op!(_mm512_shuffle_ps::<0b11_10_11_10>(high_ab, high_cd)));
        }
        let mut out = x;
        for j in 0..4 {
            let (a, b, c, d) = (within[j], within[4 + j], within[8 + j], within[12 + j]);
            let low_ab = op!(_mm512_shuffle_f32x4::<0b01_00_01_00>(a.0, b.0));
            let high_ab = op!(_mm512_shuffle_f32x4::<0b11_10_11_10>(a.0, b.0));
            let low_cd = op!(_mm512_shuffle_f32x4::<0b01_00_01_00>(c.0, d.0));
            let high_cd = op!(_mm512_shuffle_f32x4::<0b11_10_11_10>(c.0, d.0));
            out[j] = Self(op!(_mm512_shuffle_f32x4::<0b10_00_10_00>(low_ab, low_cd)));
            out[4 + j] = Self(op!(_mm512_shuffle_f32x4::<0b11_01_11_01>(low_ab, low_cd)));
            out[8 + j] = Self(op!(_mm512_shuffle_f32x4::<0b10_00_10_00>(high_ab, high_cd)));
            out[12 + j] = Self(op!(_mm512_shuffle_f32x4::<0b11_01_11_01>(high_ab, high_cd)));
        }
        out
    }
}
