//! bfloat16 pairs: a lane of 32 bits holds two numbers, the first in its low half, and one
//! instruction adds the products of both halves to a float32 sum.

#[cfg(doc)]
use super::Kernel;
#[cfg(target_arch = "x86_64")]
use super::LANES;
use super::Simd;

/// The nearest bfloat16 (ties to even) of each number, as float32. NaN stays NaN.
pub fn round_to_bf16(values: &mut [f32]) {
    for x in values {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) & 0xFFFF_0000;
        *x = if x.is_nan() {
            f32::NAN
        } else {
            f32::from_bits(rounded)
        };
    }
}

/// Instructions that have products of pairs.
pub trait Pairs: Simd {
    /// Lanes of the nearest bfloat16 of `even` (low halves) and `odd`.
    fn pair(self, even: Self::V, odd: Self::V) -> Self::V;
    /// Sixteen pairs of neighbours among thirty-two numbers, rounded as by [`Pairs::pair`].
    fn pair_neighbours(self, first: Self::V, second: Self::V) -> Self::V;
    /// `sum + x.low * y.low + x.high * y.high` in every lane; products are exact, sums are float32,
    /// numbers below the least normal one count as zero.
    fn dot(self, x: Self::V, y: Self::V, sum: Self::V) -> Self::V;
}

/// Code to be compiled for pairs.
pub trait PairKernel {
    /// The code, under the conditions of [`Kernel::run`].
    fn run<S: Pairs>(self, simd: S);
}

/// Whether this processor multiplies pairs.
pub fn has_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        hardware::Avx512Bf16::detect().is_some()
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Runs a kernel, if the processor has pairs; says whether it did.
pub fn dispatch_pairs<K: PairKernel>(kernel: K) -> bool {
    #[cfg(target_arch = "x86_64")]
    if let Some(token) = hardware::Avx512Bf16::detect() {
        // SAFETY: the token proves that the processor has the shell's features.
        unsafe { hardware::shell(token, kernel) };
        return true;
    }
    let _ = kernel;
    false
}

#[cfg(target_arch = "x86_64")]
mod hardware {
    use super::super::avx512::{Avx512, F32x16};
    use super::{LANES, PairKernel, Pairs, Simd};
    use crate::{Vector, undivided};
    use std::arch::x86_64::*;

    /// Proof that the processor has AVX-512 with BF16.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx512Bf16(Avx512);

    impl Avx512Bf16 {
        #[inline]
        pub fn detect() -> Option<Self> {
            let token = Avx512::detect()?;
            is_x86_feature_detected!("avx512bf16").then_some(Self(token))
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    pub fn shell<K: PairKernel>(token: Avx512Bf16, kernel: K) {
        kernel.run(token);
    }

    impl Simd for Avx512Bf16 {
        type V = F32x16;
        const STATE_BLOCK: usize = Avx512::STATE_BLOCK;
        const TOGETHER: usize = Avx512::TOGETHER;
        undivided!();

        #[inline(always)]
        fn splat(self, x: f32) -> F32x16 {
            self.0.splat(x)
        }

        #[inline(always)]
        fn load(self, src: &[f32; LANES]) -> F32x16 {
            self.0.load(src)
        }

        #[inline(always)]
        fn load_partial(self, src: &[f32]) -> F32x16 {
            self.0.load_partial(src)
        }
    }

    /// Calls an intrinsic without memory operands.
    macro_rules! op {
        ($($call:tt)*) => {
            // SAFETY: an `Avx512Bf16` token is at hand, so the processor has the instruction; it
            // touches registers only.
            unsafe { $($call)* }
        };
    }

    /// The bits of a vector as thirty-two bfloat16.
    #[inline(always)]
    fn as_pairs(x: F32x16) -> __m512bh {
        let bits: __m512 = x.into();
        // SAFETY: both are 512 bits of plain data, for which every value is valid.
        unsafe { std::mem::transmute::<__m512, __m512bh>(bits) }
    }

    /// The nearest bfloat16 of each lane, in its low half.
    #[inline(always)]
    fn half(_proof: Avx512Bf16, x: F32x16) -> __m512i {
        let rounded = op!(_mm512_cvtneps_pbh(x.into()));
        // SAFETY: both are 256 bits of plain data, for which every value is valid.
        let bits = unsafe { std::mem::transmute::<__m256bh, __m256i>(rounded) };
        op!(_mm512_cvtepu16_epi32(bits))
    }

    impl Pairs for Avx512Bf16 {
        #[inline(always)]
        fn pair(self, even: F32x16, odd: F32x16) -> F32x16 {
            let (low, high) = (half(self, even), half(self, odd));
            let high = op!(_mm512_slli_epi32::<16>(high));
            let both = op!(_mm512_or_si512(low, high));
            F32x16::new(self.0, op!(_mm512_castsi512_ps(both)))
        }

        #[inline(always)]
        fn pair_neighbours(self, first: F32x16, second: F32x16) -> F32x16 {
            let both = op!(_mm512_cvtne2ps_pbh(second.into(), first.into()));
            // SAFETY: both are 512 bits of plain data, for which every value is valid.
            let bits = unsafe { std::mem::transmute::<__m512bh, __m512>(both) };
            F32x16::new(self.0, bits)
        }

        #[inline(always)]
        fn dot(self, x: F32x16, y: F32x16, sum: F32x16) -> F32x16 {
            let (x, y) = (as_pairs(x), as_pairs(y));
            F32x16::new(self.0, op!(_mm512_dpbf16_ps(sum.into(), x, y)))
        }
    }
}
