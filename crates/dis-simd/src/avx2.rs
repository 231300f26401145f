//! 256-bit vectors with fused multiply-add: two registers each.

use super::{LANES, Simd, Vector};
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Proof that the processor has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The proof, if it holds.
    #[inline]
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

/// Two registers of eight lanes; only an [`Avx2`] token makes the first ones.
#[derive(Clone, Copy, Debug)]
pub struct F32x16(__m256, __m256);

/// Calls an intrinsic without memory operands.
macro_rules! op {
    ($($call:tt)*) => {
        // SAFETY: an `Avx2` token or a vector made by one is at hand, so the processor has the
        // instruction; it touches registers only.
        unsafe { $($call)* }
    };
}

impl Simd for Avx2 {
    type V = F32x16;
    const STATE_BLOCK: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> F32x16 {
        let x = op!(_mm256_set1_ps(x));
        F32x16(x, x)
    }

    #[inline(always)]
    fn load(self, src: &[f32; LANES]) -> F32x16 {
        let (low, high) = src.split_at(8);
        // SAFETY: `low` is 32 readable bytes, any alignment will do, and the token proves AVX2.
        let low = unsafe { _mm256_loadu_ps(low.as_ptr()) };
        // SAFETY: `high` is 32 readable bytes, any alignment will do, and the token proves AVX2.
        let high = unsafe { _mm256_loadu_ps(high.as_ptr()) };
        F32x16(low, high)
    }

    #[inline(always)]
    fn load_partial(self, src: &[f32]) -> F32x16 {
        if let Some(all) = src.first_chunk::<LANES>() {
            return self.load(all);
        }
        let (low, high) = src.split_at(src.len().min(8));
        // SAFETY: only the lanes below `low.len()` are read, and the others do not fault; the token
        // proves AVX2.
        let low = unsafe { _mm256_maskload_ps(low.as_ptr(), first_lanes(self, low.len())) };
        // SAFETY: only the lanes below `high.len()` are read, and the others do not fault; the
        // token proves AVX2.
        let high = unsafe { _mm256_maskload_ps(high.as_ptr(), first_lanes(self, high.len())) };
        F32x16(low, high)
    }
}

/// All bits set in the first `count` of eight lanes.
#[inline(always)]
fn first_lanes<P>(_proof: P, count: usize) -> __m256i {
    let index = op!(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    op!(_mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), index))
}

macro_rules! operator {
    ($trait:ident, $name:ident, $intrinsic:ident) => {
        impl $trait for F32x16 {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                Self(
                    op!($intrinsic(self.0, other.0)),
                    op!($intrinsic(self.1, other.1)),
                )
            }
        }
    };
}
operator!(Add, add, _mm256_add_ps);
operator!(Sub, sub, _mm256_sub_ps);
operator!(Mul, mul, _mm256_mul_ps);
operator!(Div, div, _mm256_div_ps);

impl Neg for F32x16 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        let sign = op!(_mm256_set1_ps(-0.0));
        Self(
            op!(_mm256_xor_ps(self.0, sign)),
            op!(_mm256_xor_ps(self.1, sign)),
        )
    }
}

/// x * 2^n of eight lanes, in two factors: one power of two does not reach denormals or the
/// overflow threshold.
#[inline(always)]
fn scale(_proof: F32x16, x: __m256, n: __m256) -> __m256 {
    let n = op!(_mm256_cvtps_epi32(n));
    let half = op!(_mm256_srai_epi32::<1>(n));
    let rest = op!(_mm256_sub_epi32(n, half));
    let bias = op!(_mm256_set1_epi32(127));
    let half = op!(_mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias)));
    let rest = op!(_mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias)));
    let x = op!(_mm256_mul_ps(x, _mm256_castsi256_ps(half)));
    op!(_mm256_mul_ps(x, _mm256_castsi256_ps(rest)))
}

/// x * 2^(n - 1) of eight lanes for n in -126 ..= 128; exponent 0 makes the factor 0.
#[inline(always)]
fn scale_half(_proof: F32x16, x: __m256, n: __m256) -> __m256 {
    let n = op!(_mm256_cvtps_epi32(n));
    let biased = op!(_mm256_add_epi32(n, _mm256_set1_epi32(126)));
    let bits = op!(_mm256_slli_epi32::<23>(biased));
    op!(_mm256_mul_ps(x, _mm256_castsi256_ps(bits)))
}

/// Four vectors' sums within quarters, see [`Vector::fold_within`].
#[inline(always)]
fn fold_within(_proof: F32x16, a: __m256, b: __m256, c: __m256, d: __m256) -> __m256 {
    let ab = op!(_mm256_add_ps(
        _mm256_unpacklo_ps(a, b),
        _mm256_unpackhi_ps(a, b)
    ));
    let cd = op!(_mm256_add_ps(
        _mm256_unpacklo_ps(c, d),
        _mm256_unpackhi_ps(c, d)
    ));
    let even = op!(_mm256_shuffle_ps::<0b01_00_01_00>(ab, cd));
    let odd = op!(_mm256_shuffle_ps::<0b11_10_11_10>(ab, cd));
    op!(_mm256_add_ps(even, odd))
}

impl Vector for F32x16 {
    const NATIVE_SCALE: bool = false;

    #[inline(always)]
    fn like(self, x: f32) -> Self {
        let x = op!(_mm256_set1_ps(x));
        Self(x, x)
    }

    #[inline(always)]
    fn store(self, dst: &mut [f32; LANES]) {
        let (low, high) = dst.split_at_mut(8);
        // SAFETY: `low` is 32 writable bytes, any alignment will do, and `self` proves AVX2.
        unsafe { _mm256_storeu_ps(low.as_mut_ptr(), self.0) }
        // SAFETY: `high` is 32 writable bytes, any alignment will do, and `self` proves AVX2.
        unsafe { _mm256_storeu_ps(high.as_mut_ptr(), self.1) }
    }

    #[inline(always)]
    fn store_partial(self, dst: &mut [f32]) {
        if let Some(all) = dst.first_chunk_mut::<LANES>() {
            return self.store(all);
        }
        let (low, high) = dst.split_at_mut(dst.len().min(8));
        let masks = [first_lanes(self, low.len()), first_lanes(self, high.len())];
        // SAFETY: only the lanes below `low.len()` are written, and the others do not fault; `self`
        // proves AVX2.
        unsafe { _mm256_maskstore_ps(low.as_mut_ptr(), masks[0], self.0) }
        // SAFETY: only the lanes below `high.len()` are written, and the others do not fault;
        // `self` proves AVX2.
        unsafe { _mm256_maskstore_ps(high.as_mut_ptr(), masks[1], self.1) }
    }

    #[inline(always)]
    fn fma(self, m: Self, a: Self) -> Self {
        Self(
            op!(_mm256_fmadd_ps(self.0, m.0, a.0)),
            op!(_mm256_fmadd_ps(self.1, m.1, a.1)),
        )
    }

    #[inline(always)]
    fn nmadd(self, m: Self, a: Self) -> Self {
        Self(
            op!(_mm256_fnmadd_ps(self.0, m.0, a.0)),
            op!(_mm256_fnmadd_ps(self.1, m.1, a.1)),
        )
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(
            op!(_mm256_min_ps(self.0, other.0)),
            op!(_mm256_min_ps(self.1, other.1)),
        )
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(
            op!(_mm256_max_ps(self.0, other.0)),
            op!(_mm256_max_ps(self.1, other.1)),
        )
    }

    #[inline(always)]
    fn abs(self) -> Self {
        let sign = op!(_mm256_set1_ps(-0.0));
        Self(
            op!(_mm256_andnot_ps(sign, self.0)),
            op!(_mm256_andnot_ps(sign, self.1)),
        )
    }

    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        Self(
            op!(_mm256_round_ps::<NEAREST>(self.0)),
            op!(_mm256_round_ps::<NEAREST>(self.1)),
        )
    }

    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        Self(scale(self, self.0, n.0), scale(self, self.1, n.1))
    }

    #[inline(always)]
    fn scale2_half(self, n: Self) -> Self {
        Self(scale_half(self, self.0, n.0), scale_half(self, self.1, n.1))
    }

    #[inline(always)]
    fn select_lt(a: Self, b: Self, yes: Self, no: Self) -> Self {
        let low = op!(_mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0));
        let high = op!(_mm256_cmp_ps::<_CMP_LT_OQ>(a.1, b.1));
        Self(
            op!(_mm256_blendv_ps(no.0, yes.0, low)),
            op!(_mm256_blendv_ps(no.1, yes.1, high)),
        )
    }

    #[inline(always)]
    fn fold_within(x: [Self; 4]) -> Self {
        let [a, b, c, d] = x;
        Self(
            fold_within(a, a.0, b.0, c.0, d.0),
            fold_within(a, a.1, b.1, c.1, d.1),
        )
    }

    #[inline(always)]
    fn fold_halves(a: Self, b: Self) -> Self {
        Self(op!(_mm256_add_ps(a.0, a.1)), op!(_mm256_add_ps(b.0, b.1)))
    }

    #[inline(always)]
    fn fold_quarters(a: Self, b: Self) -> Self {
        let neighbours = |x: Self| {
            let even = op!(_mm256_permute2f128_ps::<0x20>(x.0, x.1));
            let odd = op!(_mm256_permute2f128_ps::<0x31>(x.0, x.1));
            op!(_mm256_add_ps(even, odd))
        };
        Self(neighbours(a), neighbours(b))
    }
}
