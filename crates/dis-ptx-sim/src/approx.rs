//! Instructions whose results are approximations, and how far they may be off.
//!
//! The bounds are those of the PTX ISA, section 9.7.3 (floating-point instructions), taken at their
//! widest over the versions of that document: 8.8 and, where they say something else, earlier ones. The functions are computed in float64 by code
//! that does not depend on the host.

use crate::Approx;
use crate::isa::Special;

/// Distance from the exact result that an instruction may have.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    Relative(f64),
    Absolute(f64),
    /// Units in the last place of a float32.
    Ulps(f64),
    /// Units in the last place, or relative, whichever is more.
    Wider(f64, f64),
}

impl Bound {
    /// How far an instruction may be from an exact result of this value.
    fn room(self, value: f64) -> f64 {
        match self {
            Self::Relative(r) => r * value.abs(),
            Self::Absolute(a) => a,
            Self::Ulps(u) => u * ulp(value),
            Self::Wider(u, r) => (u * ulp(value)).max(r * value.abs()),
        }
    }
}

/// 2^-20.5
const TRIG: f64 = 6.743_494e-7;
/// 2^-10.987
const TANH: f64 = 4.927_3e-4;
/// 2^-21.4
const RSQRT: f64 = 3.613_8e-7;
/// 2^-22.5
const EX2: f64 = 1.685_9e-7;

fn bound(f: Special, x: f64) -> Bound {
    match f {
        // `ex2`: 2 ulp over the full range; earlier versions say a relative error of 2^-22.5, which is
        // more for large mantissas.
        Special::Ex2 => Bound::Wider(2.0, EX2),
        // `lg2`: absolute error 2^-22 for inputs in [0.5, 2], relative error 2^-22 outside.
        Special::Lg2 if (0.5..=2.0).contains(&x) => Bound::Absolute((-22f64).exp2_exact()),
        Special::Lg2 => Bound::Relative((-22f64).exp2_exact()),
        // `rcp`: 1 ulp.
        Special::Rcp => Bound::Ulps(1.0),
        // `rsqrt`: relative error 2^-22.9; earlier versions say an absolute error of 2^-22.4 for inputs
        // in [1, 4], where results are down to 1/2.
        Special::Rsqrt => Bound::Relative(RSQRT),
        // `sqrt`: relative error 2^-23.
        Special::Sqrt => Bound::Relative((-23f64).exp2_exact()),
        // `sin`, `cos`: absolute error 2^-20.5 in [-2 pi, 2 pi].
        Special::Sin | Special::Cos => Bound::Absolute(TRIG),
        // `tanh`: relative error 2^-10.987.
        Special::Tanh => Bound::Relative(TANH),
    }
}

trait Exp2Exact {
    fn exp2_exact(self) -> f64;
}

impl Exp2Exact for f64 {
    /// Power of two of a small integer.
    fn exp2_exact(self) -> f64 {
        f64::from_bits(((self as i64 + 1023) as u64) << 52)
    }
}

/// The NaN that float instructions return.
pub(crate) const NAN32: u32 = 0x7fff_ffff;

fn flush(x: f32, ftz: bool) -> f32 {
    if ftz && x.is_subnormal() {
        0f32.copysign(x)
    } else {
        x
    }
}

/// Mixes bits (the finaliser of splitmix64, Steele, Lea and Flood 2014).
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// 2^x in float64, to about 1e-14, without a library.
#[inline(always)]
pub(crate) fn exp2(x: f64) -> f64 {
    const C: [f64; 12] = [
        1.0,
        std::f64::consts::LN_2,
        0.240_226_506_959_100_7,
        0.055_504_108_664_821_58,
        0.009_618_129_107_628_477,
        0.001_333_355_814_642_844_3,
        1.540_353_039_338_161e-4,
        1.525_273_380_405_984e-5,
        1.321_548_679_014_431e-6,
        1.017_808_600_923_97e-7,
        7.054_911_620_801_12e-9,
        4.445_538_271_870_81e-10,
    ];
    let x = x.clamp(-300.0, 300.0);
    // Adding and subtracting 1.5 * 2^52 rounds to an integer.
    let shifted = x + 6_755_399_441_055_744.0;
    let n = shifted - 6_755_399_441_055_744.0;
    let f = x - n;
    let mut p = C[11];
    for k in (0..11).rev() {
        p = p * f + C[k];
    }
    let scale = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    p * scale
}

/// `ex2.approx` with exact results, for a whole warp.
#[inline(always)]
pub(crate) fn ex2_row(x: &[u32; 32], ftz: bool) -> [u32; 32] {
    let mut out = [0; 32];
    for (o, &x) in out.iter_mut().zip(x) {
        let x = f32::from_bits(x);
        let y = exp2(f64::from(x)) as f32;
        let bits = if ftz && y < f32::MIN_POSITIVE {
            0
        } else {
            y.to_bits()
        };
        *o = if x.is_nan() { NAN32 } else { bits };
    }
    out
}

/// The exact result, or `None` where the result is listed in the ISA's table of special values
/// and is not approximate; then the second value is it.
fn exact(f: Special, x: f32) -> Result<f64, f32> {
    let wide = f64::from(x);
    if x.is_nan() {
        return Err(f32::from_bits(NAN32));
    }
    let nan = f32::from_bits(NAN32);
    match f {
        Special::Ex2 if x == 0.0 || x.is_subnormal() => Err(1.0),
        Special::Ex2 if x == f32::INFINITY => Err(x),
        Special::Ex2 if x == f32::NEG_INFINITY => Err(0.0),
        Special::Ex2 => Ok(exp2(wide)),
        Special::Lg2 if x == 0.0 => Err(f32::NEG_INFINITY),
        Special::Lg2 if x < 0.0 => Err(nan),
        Special::Lg2 if x.is_infinite() => Err(x),
        Special::Lg2 => Ok(libm::log2(wide)),
        Special::Rcp if x == 0.0 || x.is_infinite() => Err(1.0 / x),
        Special::Rcp => Ok(1.0 / wide),
        Special::Rsqrt if x == 0.0 => Err(f32::INFINITY.copysign(x)),
        Special::Rsqrt if x < 0.0 => Err(nan),
        Special::Rsqrt if x.is_infinite() => Err(0.0),
        Special::Rsqrt => Ok(1.0 / wide.sqrt()),
        Special::Sqrt if x == 0.0 => Err(x),
        Special::Sqrt if x < 0.0 => Err(nan),
        Special::Sqrt if x.is_infinite() => Err(x),
        Special::Sqrt => Ok(wide.sqrt()),
        Special::Sin | Special::Cos if x.is_infinite() => Err(nan),
        Special::Sin if x == 0.0 => Err(x),
        Special::Sin => Ok(libm::sin(wide)),
        Special::Cos if x == 0.0 => Err(1.0),
        Special::Cos => Ok(libm::cos(wide)),
        Special::Tanh if x == 0.0 => Err(x),
        Special::Tanh if x.is_infinite() => Err(1f32.copysign(x)),
        Special::Tanh => Ok(libm::tanh(wide)),
    }
}

fn ulp(value: f64) -> f64 {
    let exponent = ((value.abs().to_bits() >> 52) as i64 - 1023).max(-126);
    f64::from_bits(((exponent - 23 + 1023) as u64) << 52)
}

/// A float32 within the bound of an exact result; `key` stands for instruction and operands.
fn within(value: f64, bound: Bound, approx: Approx, key: u64) -> f32 {
    let nearest = value as f32;
    let room = bound.room(value);
    let (mut low, mut high) = (value - room, value + room);
    // Below the least normal number, an error must not change the sign.
    if !matches!(bound, Bound::Absolute(_)) {
        (low, high) = if value > 0.0 {
            (low.max(0.0), high)
        } else {
            (low, high.min(-0.0))
        };
    }
    let clip = |x: f32| {
        let x = if f64::from(x) < low { x.next_up() } else { x };
        let x = if f64::from(x) > high {
            x.next_down()
        } else {
            x
        };
        // An interval without a float32 in it.
        if f64::from(x) < low { nearest } else { x }
    };
    match approx {
        Approx::Exact => nearest,
        Approx::Low => clip(low as f32),
        Approx::High => clip(high as f32),
        Approx::Random(seed) => {
            let unit = (mix(seed ^ mix(key)) >> 11) as f64 / (1u64 << 53) as f64;
            clip((low + unit * (high - low)) as f32)
        }
    }
}

/// One lane of a special function.
pub(crate) fn special(f: Special, ftz: bool, x: u32, approx: Approx) -> u32 {
    let input = flush(f32::from_bits(x), ftz);
    let y = match exact(f, input) {
        Err(listed) => listed,
        Ok(value) => {
            let key = (f as u64) << 32 | u64::from(x);
            within(value, bound(f, f64::from(input)), approx, key)
        }
    };
    canonical(flush(y, ftz))
}

/// `div.approx` and `div.full`: 2 ulp. For divisors beyond 2^126, `.approx` gives zero, or NaN for
/// an infinite dividend.
pub(crate) fn divide(full: bool, ftz: bool, a: u32, b: u32, approx: Approx) -> u32 {
    let (x, y) = (flush(f32::from_bits(a), ftz), flush(f32::from_bits(b), ftz));
    let quotient = f64::from(x) / f64::from(y);
    if !full && y.abs() > 126f64.exp2_exact() as f32 && y.is_finite() {
        let zero = 0f32.copysign(x) * 1f32.copysign(y);
        return if x.is_finite() { zero.to_bits() } else { NAN32 };
    }
    if !quotient.is_finite() || quotient == 0.0 {
        return canonical(quotient as f32);
    }
    let key = 1 << 63 | mix(u64::from(a) << 32 | u64::from(b)) >> 1;
    canonical(flush(within(quotient, Bound::Ulps(2.0), approx, key), ftz))
}

#[inline(always)]
pub(crate) fn canonical(x: f32) -> u32 {
    if x.is_nan() { NAN32 } else { x.to_bits() }
}

#[cfg(test)]
mod tests {
    use super::{ex2_row, exact, exp2, special, ulp};
    use crate::Approx;
    use crate::isa::Special;

    #[test]
    fn exp2_is_exact_enough() {
        for k in -30_000..30_000 {
            let x = f64::from(k) * 0.0049;
            let want = libm::exp2(x);
            assert!((exp2(x) - want).abs() <= 3e-14 * want, "{x}");
        }
        assert_eq!(exp2(3.0), 8.0);
    }

    #[test]
    fn ex2_of_a_row_is_ex2_of_each() {
        let values = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            127.9,
            128.0,
            300.0,
            -126.0,
            -126.5,
            -149.0,
            -150.5,
            -200.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            1e-40,
            -1e-40,
            1e-9,
            17.25,
        ];
        for ftz in [false, true] {
            let mut row = [0u32; 32];
            for (r, v) in row.iter_mut().zip(values) {
                *r = v.to_bits();
            }
            let out = ex2_row(&row, ftz);
            for (o, x) in out.iter().zip(row) {
                assert_eq!(
                    *o,
                    special(Special::Ex2, ftz, x, Approx::Exact),
                    "{}",
                    f32::from_bits(x)
                );
            }
        }
    }

    #[test]
    fn results_keep_within_their_bounds_and_reach_them() {
        let functions = [
            Special::Ex2,
            Special::Lg2,
            Special::Rcp,
            Special::Rsqrt,
            Special::Sqrt,
            Special::Sin,
            Special::Cos,
            Special::Tanh,
        ];
        for f in functions {
            let (mut least, mut most) = (f64::MAX, f64::MIN);
            for k in 1..2000u32 {
                let x = k as f32 * 0.003_1;
                let want = exact(f, x).unwrap();
                let room = super::bound(f, f64::from(x)).room(want);
                let nearest = f64::from((want as f32).to_bits().abs_diff(0)).min(0.5 * ulp(want));
                for approx in [
                    Approx::Low,
                    Approx::High,
                    Approx::Random(1),
                    Approx::Random(2),
                ] {
                    let got = f64::from(f32::from_bits(special(f, false, x.to_bits(), approx)));
                    assert!(
                        (got - want).abs() <= room.max(nearest),
                        "{f:?} {x} {approx:?}"
                    );
                    least = least.min((got - want) / room);
                    most = most.max((got - want) / room);
                }
            }
            assert!(least < -0.7 && most > 0.7, "{f:?} {least} {most}");
        }
    }
}
