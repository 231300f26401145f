//! Vectors in plain Rust, for processors without a path of their own and as a check on the others.

use super::math::MAGIC;
use super::{LANES, Number, Simd, Vector};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Proof of nothing: always available.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

/// Sixteen lanes that the compiler vectorises as it can.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct F32x16([f32; LANES]);

impl Simd for Portable {
    type V = F32x16;
    const STATE_BLOCK: usize = 4;
    const TOGETHER: usize = 1;
    super::undivided!();

    #[inline(always)]
    fn splat(self, x: f32) -> F32x16 {
        F32x16([x; LANES])
    }

    #[inline(always)]
    fn load(self, src: &[f32; LANES]) -> F32x16 {
        F32x16(*src)
    }
}

/// Fused only where that is one instruction: the library's fused fallback is far slower than two.
#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

/// 2^i for i in -126 ..= 127.
#[inline(always)]
fn power_of_two(i: i32) -> f32 {
    f32::from_bits(((i + 127) as u32) << 23)
}

macro_rules! lanes {
    (|$i:ident| $value:expr) => {{
        let mut out = [0.0f32; LANES];
        for $i in 0..LANES {
            out[$i] = $value;
        }
        F32x16(out)
    }};
}

macro_rules! operator {
    ($trait:ident, $name:ident, $op:tt) => {
        impl $trait for F32x16 {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                lanes!(|i| self.0[i] $op other.0[i])
            }
        }
    };
}
operator!(Add, add, +);
operator!(Sub, sub, -);
operator!(Mul, mul, *);
operator!(Div, div, /);

impl Neg for F32x16 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        lanes!(|i| -self.0[i])
    }
}

impl Number for F32x16 {
    const NATIVE_SCALE: bool = false;

    #[inline(always)]
    fn like(self, x: f32) -> Self {
        Self([x; LANES])
    }

    #[inline(always)]
    fn fma(self, m: Self, a: Self) -> Self {
        lanes!(|i| mul_add(self.0[i], m.0[i], a.0[i]))
    }

    #[inline(always)]
    fn nmadd(self, m: Self, a: Self) -> Self {
        lanes!(|i| mul_add(-self.0[i], m.0[i], a.0[i]))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        lanes!(|i| if self.0[i] < other.0[i] {
            self.0[i]
        } else {
            other.0[i]
        })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        lanes!(|i| if self.0[i] > other.0[i] {
            self.0[i]
        } else {
            other.0[i]
        })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        lanes!(|i| self.0[i].abs())
    }

    #[inline(always)]
    fn round(self) -> Self {
        lanes!(|i| (self.0[i] + MAGIC) - MAGIC)
    }

    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        // Two factors, since one power of two does not reach denormals or the overflow threshold.
        lanes!(|i| {
            let n = ((n.0[i] + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
            // NaN in n comes with NaN in self; the bound only keeps the shift meaningful.
            let n = n.clamp(-250, 250);
            self.0[i] * power_of_two(n >> 1) * power_of_two(n - (n >> 1))
        })
    }

    #[inline(always)]
    fn scale2_half(self, n: Self) -> Self {
        lanes!(|i| {
            let bits = (n.0[i] + MAGIC).to_bits();
            self.0[i] * f32::from_bits(bits.wrapping_add(126) << 23)
        })
    }

    #[inline(always)]
    fn add_exponent(self, shifted: Self) -> Self {
        lanes!(|i| {
            let n = shifted.0[i].to_bits() << 23;
            f32::from_bits(self.0[i].to_bits().wrapping_add(n))
        })
    }

    #[inline(always)]
    fn select_lt(a: Self, b: Self, yes: Self, no: Self) -> Self {
        lanes!(|i| if a.0[i] < b.0[i] { yes.0[i] } else { no.0[i] })
    }

    #[inline(always)]
    fn fold_within(x: [Self; 4]) -> Self {
        lanes!(|i| {
            let (q, v) = (i / 4 * 4, &x[i % 4].0);
            (v[q] + v[q + 2]) + (v[q + 1] + v[q + 3])
        })
    }
}

impl Vector for F32x16 {
    #[inline(always)]
    fn store(self, dst: &mut [f32; LANES]) {
        *dst = self.0;
    }

    #[inline(always)]
    fn fold_halves(a: Self, b: Self) -> Self {
        lanes!(|i| {
            let (v, k) = if i < 8 { (&a.0, i) } else { (&b.0, i - 8) };
            v[k] + v[k + 8]
        })
    }

    #[inline(always)]
    fn fold_quarters(a: Self, b: Self) -> Self {
        lanes!(|i| {
            let v = if i < 8 { &a.0 } else { &b.0 };
            let k = i % 8 / 4 * 8 + i % 4;
            v[k] + v[k + 4]
        })
    }
}
