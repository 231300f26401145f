//! 256-bit vectors with fused multiply-add: two registers each, which are a vector's two parts.

use super::{LANES, Number, Simd, Vector};
use std::arch::{asm, x86_64::*};
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

/// A register of eight lanes; only an [`Avx2`] token makes the first ones.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct F32x8(__m256);

/// Two registers.
#[derive(Clone, Copy, Debug)]
pub struct F32x16(F32x8, F32x8);

/// Calls an intrinsic without memory operands.
macro_rules! op {
    ($($call:tt)*) => {
        // SAFETY: an `Avx2` token or a vector made by one is at hand, so the processor has the
        // instruction; it touches registers only.
        unsafe { $($call)* }
    };
}

/// Half of the lanes.
const HALF: usize = LANES / 2;

impl Avx2 {
    #[inline(always)]
    fn load8(self, src: &[f32; HALF]) -> F32x8 {
        // SAFETY: `src` is 32 readable bytes, any alignment will do, and the token proves AVX2.
        F32x8(unsafe { _mm256_loadu_ps(src.as_ptr()) })
    }
}

impl F32x8 {
    #[inline(always)]
    fn store8(self, dst: &mut [f32; HALF]) {
        // SAFETY: `dst` is 32 writable bytes, any alignment will do, and `self` proves AVX2.
        unsafe { _mm256_storeu_ps(dst.as_mut_ptr(), self.0) }
    }
}

/// Eight lanes of sixteen.
#[inline(always)]
fn half(row: &[f32; LANES], part: usize) -> &[f32; HALF] {
    &row.as_chunks().0[part % 2]
}

#[inline(always)]
fn half_mut(row: &mut [f32; LANES], part: usize) -> &mut [f32; HALF] {
    &mut row.as_chunks_mut().0[part % 2]
}

impl Simd for Avx2 {
    type V = F32x16;
    type P = F32x8;
    const PARTS: usize = 2;
    const STATE_BLOCK: usize = 4;
    const TOGETHER: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> F32x16 {
        let x = self.splat_part(x);
        F32x16(x, x)
    }

    #[inline(always)]
    fn load(self, src: &[f32; LANES]) -> F32x16 {
        F32x16(self.load_part(src, 0), self.load_part(src, 1))
    }

    #[inline(always)]
    fn load_partial(self, src: &[f32]) -> F32x16 {
        if let Some(all) = src.first_chunk::<LANES>() {
            return self.load(all);
        }
        let (low, high) = src.split_at(src.len().min(HALF));
        // SAFETY: only the lanes below `low.len()` are read, and the others do not fault; the token
        // proves AVX2.
        let low = unsafe { _mm256_maskload_ps(low.as_ptr(), first_lanes(self, low.len())) };
        // SAFETY: only the lanes below `high.len()` are read, and the others do not fault; the
        // token proves AVX2.
        let high = unsafe { _mm256_maskload_ps(high.as_ptr(), first_lanes(self, high.len())) };
        F32x16(F32x8(low), F32x8(high))
    }

    #[inline(always)]
    fn splat_part(self, x: f32) -> F32x8 {
        F32x8(op!(_mm256_set1_ps(x)))
    }

    #[inline(always)]
    fn load_part(self, src: &[f32; LANES], part: usize) -> F32x8 {
        self.load8(half(src, part))
    }

    #[inline(always)]
    fn store_part(self, x: F32x8, dst: &mut [f32; LANES], part: usize) {
        x.store8(half_mut(dst, part));
    }

    #[inline(always)]
    fn fold_second(self, second: F32x8, dst: &mut [f32; LANES], part: usize) {
        let dst = half_mut(dst, 1);
        if part == 0 {
            second.store8(dst);
        } else {
            (self.load8(dst) + second).store8(dst);
        }
    }

    #[inline(always)]
    fn fold_first(self, first: F32x8, dst: &mut [f32; LANES], part: usize) {
        let dst = half_mut(dst, 0);
        if part == 0 {
            first.store8(dst);
        } else {
            (self.load8(dst) + first).store8(dst);
        }
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
        impl $trait for F32x8 {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                Self(op!($intrinsic(self.0, other.0)))
            }
        }

        impl $trait for F32x16 {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                Self(self.0.$name(other.0), self.1.$name(other.1))
            }
        }
    };
}
operator!(Add, add, _mm256_add_ps);
operator!(Sub, sub, _mm256_sub_ps);
operator!(Mul, mul, _mm256_mul_ps);
operator!(Div, div, _mm256_div_ps);

impl Neg for F32x8 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self(op!(_mm256_xor_ps(self.0, _mm256_set1_ps(-0.0))))
    }
}

impl Neg for F32x16 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self(-self.0, -self.1)
    }
}

impl Number for F32x8 {
    const NATIVE_SCALE: bool = false;

    #[inline(always)]
    fn like(self, x: f32) -> Self {
        Self(op!(_mm256_set1_ps(x)))
    }

    #[inline(always)]
    fn fma(self, m: Self, a: Self) -> Self {
        Self(op!(_mm256_fmadd_ps(self.0, m.0, a.0)))
    }

    #[inline(always)]
    fn nmadd(self, m: Self, a: Self) -> Self {
        Self(op!(_mm256_fnmadd_ps(self.0, m.0, a.0)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(op!(_mm256_min_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(op!(_mm256_max_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(op!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0)))
    }

    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        Self(op!(_mm256_round_ps::<NEAREST>(self.0)))
    }

    /// In two factors: one power of two does not reach denormals or the overflow threshold.
    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        let n = op!(_mm256_cvtps_epi32(n.0));
        let half = op!(_mm256_srai_epi32::<1>(n));
        let rest = op!(_mm256_sub_epi32(n, half));
        let bias = op!(_mm256_set1_epi32(127));
        let half = op!(_mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias)));
        let rest = op!(_mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias)));
        let x = op!(_mm256_mul_ps(self.0, _mm256_castsi256_ps(half)));
        Self(op!(_mm256_mul_ps(x, _mm256_castsi256_ps(rest))))
    }

    /// Exponent 0 makes the factor 0.
    #[inline(always)]
    fn scale2_half(self, n: Self) -> Self {
        let n = op!(_mm256_cvtps_epi32(n.0));
        let biased = op!(_mm256_add_epi32(n, _mm256_set1_epi32(126)));
        let bits = op!(_mm256_slli_epi32::<23>(biased));
        Self(op!(_mm256_mul_ps(self.0, _mm256_castsi256_ps(bits))))
    }

    #[inline(always)]
    fn abreast<const K: usize>(mut x: [Self; K]) -> [Self; K] {
        if let [a, b, c, d] = x.as_mut_slice() {
            [a.0, b.0, c.0, d.0] = op!(abreast4(a.0, b.0, c.0, d.0));
        }
        x
    }

    #[inline(always)]
    fn add_exponent(self, shifted: Self) -> Self {
        let n = op!(_mm256_slli_epi32::<23>(_mm256_castps_si256(shifted.0)));
        let sum = op!(_mm256_add_epi32(_mm256_castps_si256(self.0), n));
        Self(op!(_mm256_castsi256_ps(sum)))
    }

    #[inline(always)]
    fn select_lt(a: Self, b: Self, yes: Self, no: Self) -> Self {
        let mask = op!(_mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0));
        Self(op!(_mm256_blendv_ps(no.0, yes.0, mask)))
    }

    #[inline(always)]
    fn fold_within(x: [Self; 4]) -> Self {
        let [a, b, c, d] = x;
        let ab = op!(_mm256_add_ps(
            _mm256_unpacklo_ps(a.0, b.0),
            _mm256_unpackhi_ps(a.0, b.0)
        ));
        let cd = op!(_mm256_add_ps(
            _mm256_unpacklo_ps(c.0, d.0),
            _mm256_unpackhi_ps(c.0, d.0)
        ));
        let even = op!(_mm256_shuffle_ps::<0b01_00_01_00>(ab, cd));
        let odd = op!(_mm256_shuffle_ps::<0b11_10_11_10>(ab, cd));
        Self(op!(_mm256_add_ps(even, odd)))
    }
}

/// Lane j of register i becomes lane i of register j.
#[inline(always)]
fn transpose8(x: [F32x8; HALF]) -> [F32x8; HALF] {
    // Squares of four lanes within halves of registers, then squares of halves.
    let mut within = x;
    for four in within.chunks_exact_mut(4) {
        let (a, b, c, d) = (four[0], four[1], four[2], four[3]);
        let low_ab = op!(_mm256_unpacklo_ps(a.0, b.0));
        let high_ab = op!(_mm256_unpackhi_ps(a.0, b.0));
        let low_cd = op!(_mm256_unpacklo_ps(c.0, d.0));
        let high_cd = op!(_mm256_unpackhi_ps(c.0, d.0));
        four[0] = F32x8(op!(_mm256_shuffle_ps::<0b01_00_01_00>(low_ab, low_cd)));
        four[1] = F32x8(op!(_mm256_shuffle_ps::<0b11_10_11_10>(low_ab, low_cd)));
        four[2] = F32x8(op!(_mm256_shuffle_ps::<0b01_00_01_00>(high_ab, high_cd)));
        four[3] = F32x8(op!(_mm256_shuffle_ps::<0b11_10_11_10>(high_ab, high_cd)));
    }
    let mut out = x;
    for j in 0..4 {
        let (a, b) = (within[j], within[4 + j]);
        out[j] = F32x8(op!(_mm256_permute2f128_ps::<0x20>(a.0, b.0)));
        out[4 + j] = F32x8(op!(_mm256_permute2f128_ps::<0x31>(a.0, b.0)));
    }
    out
}

/// [`Number::abreast`] of four registers.
#[inline]
#[target_feature(enable = "avx2")]
fn abreast4(mut a: __m256, mut b: __m256, mut c: __m256, mut d: __m256) -> [__m256; 4] {
    // SAFETY: no instruction at all.
    unsafe {
        asm!(
            "/* {0} {1} {2} {3} */",
            inout(ymm_reg) a, inout(ymm_reg) b, inout(ymm_reg) c, inout(ymm_reg) d,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    [a, b, c, d]
}

/// Both registers by themselves.
macro_rules! both {
    ($($name:ident($($x:ident),*);)*) => {
        $(#[inline(always)]
        fn $name(self, $($x: Self),*) -> Self {
            Self(self.0.$name($($x.0),*), self.1.$name($($x.1),*))
        })*
    };
}

impl Number for F32x16 {
    const NATIVE_SCALE: bool = false;

    both! {
        fma(m, a);
        nmadd(m, a);
        min(other);
        max(other);
        abs();
        round();
        scale2(n);
        scale2_half(n);
        add_exponent(shifted);
    }

    #[inline(always)]
    fn like(self, x: f32) -> Self {
        let x = self.0.like(x);
        Self(x, x)
    }

    #[inline(always)]
    fn select_lt(a: Self, b: Self, yes: Self, no: Self) -> Self {
        Self(
            F32x8::select_lt(a.0, b.0, yes.0, no.0),
            F32x8::select_lt(a.1, b.1, yes.1, no.1),
        )
    }

    #[inline(always)]
    fn fold_within(x: [Self; 4]) -> Self {
        let [a, b, c, d] = x;
        Self(
            F32x8::fold_within([a.0, b.0, c.0, d.0]),
            F32x8::fold_within([a.1, b.1, c.1, d.1]),
        )
    }
}

impl Vector for F32x16 {
    #[inline(always)]
    fn store(self, dst: &mut [f32; LANES]) {
        self.0.store8(half_mut(dst, 0));
        self.1.store8(half_mut(dst, 1));
    }

    #[inline(always)]
    fn store_low(self, dst: &mut [f32; HALF]) {
        self.0.store8(dst);
    }

    #[inline(always)]
    fn store_partial(self, dst: &mut [f32]) {
        if let Some(all) = dst.first_chunk_mut::<LANES>() {
            return self.store(all);
        }
        let (low, high) = dst.split_at_mut(dst.len().min(HALF));
        let masks = [first_lanes(self, low.len()), first_lanes(self, high.len())];
        // SAFETY: only the lanes below `low.len()` are written, and the others do not fault; `self`
        // proves AVX2.
        unsafe { _mm256_maskstore_ps(low.as_mut_ptr(), masks[0], self.0.0) }
        // SAFETY: only the lanes below `high.len()` are written, and the others do not fault;
        // `self` proves AVX2.
        unsafe { _mm256_maskstore_ps(high.as_mut_ptr(), masks[1], self.1.0) }
    }

    #[inline(always)]
    fn fold_halves(a: Self, b: Self) -> Self {
        Self(a.0 + a.1, b.0 + b.1)
    }

    #[inline(always)]
    fn fold_quarters(a: Self, b: Self) -> Self {
        let neighbours = |x: Self| {
            let even = op!(_mm256_permute2f128_ps::<0x20>(x.0.0, x.1.0));
            let odd = op!(_mm256_permute2f128_ps::<0x31>(x.0.0, x.1.0));
            F32x8(op!(_mm256_add_ps(even, odd)))
        };
        Self(neighbours(a), neighbours(b))
    }

    #[inline(always)]
    fn transpose(x: [Self; LANES], _: impl Simd<V = Self>) -> [Self; LANES] {
        // Four squares of eight lanes.
        let mut out = x;
        for (i, out) in out.chunks_exact_mut(HALF).enumerate() {
            let mut columns = [[x[0].0; HALF]; 2];
            for (j, columns) in columns.iter_mut().enumerate() {
                for k in 0..HALF {
                    let row = x[j * HALF + k];
                    columns[k] = if i == 0 { row.0 } else { row.1 };
                }
                *columns = transpose8(*columns);
            }
            for k in 0..HALF {
                out[k] = Self(columns[0][k], columns[1][k]);
            }
        }
        out
    }
}
