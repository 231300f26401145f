//! Vector mathematics: exponentials, softplus, the logistic function and SiLU.
//!
//! Largest measured errors in units in the last place of the result, on every level, against
//! float64 (see the tests): `exp` 1.0, `softplus` 2.4, `sigmoid` 2.3, `silu` 2.8 (while the result
//! is a normal number), `exp2` 2.2 (relative 1.8e-7). The coefficients are minimax polynomials from a
//! Remez exchange, for relative error of the whole function.

#![allow(
    clippy::excessive_precision,
    clippy::approx_constant,
    reason = "coefficients are written as the exchange gave them; some are near ln 2"
)]

use super::{LANES, Number};

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts; the first has ten significant bits, so that its product with an exponent is
/// exact even where multiply-adds are not fused.
const LN2_HIGH: f32 = 0.693_359_375;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// Above this softplus is the identity (as in PyTorch).
pub const SOFTPLUS_THRESHOLD: f32 = 20.0;

/// Horner's rule, coefficients from the highest degree down.
#[inline(always)]
fn polynomial<V: Number, const N: usize>(x: V, coefficients: [f32; N]) -> V {
    let mut sum = x.like(coefficients[0]);
    let mut i = 1;
    while i < N {
        sum = sum.fma(x, x.like(coefficients[i]));
        i += 1;
    }
    sum
}

/// e^x, over the whole range: denormals, overflow to infinity, NaN to NaN.
#[inline(always)]
pub fn exp<V: Number>(x: V) -> V {
    // Constants come first in `max` and `min`, so that NaN passes.
    exp_below(x.like(89.5).min(x))
}

/// [`exp`] for `x` at most 110.
#[inline(always)]
fn exp_below<V: Number>(x: V) -> V {
    let x = x.like(-104.5).max(x);
    let n = (x * x.like(LOG2_E)).round();
    exp_reduced(x, n).scale2(n)
}

/// e^(x - n ln 2) for the n that makes it nearest to 1.
#[inline(always)]
fn exp_reduced<V: Number>(x: V, n: V) -> V {
    let r = n.nmadd(x.like(LN2_HIGH), x);
    let r = n.nmadd(x.like(LN2_LOW), r);
    // e^r = 1 + r + r^2 q(r) on [-ln 2 / 2, ln 2 / 2].
    let q = polynomial(
        r,
        [
            1.381_431_6e-3,
            8.368_85e-3,
            4.166_84e-2,
            1.666_652e-1,
            4.999_999_4e-1,
        ],
    );
    (r * r).fma(q, r) + x.like(1.0)
}

/// Coefficients of (2^f - 1) / f on [-1/2, 1/2] such that 1 + f q(f) is 2^f within 9.2e-8.
const EXP2_Q: [f32; 5] = [
    1.326_473_4e-3,
    9.671_512e-3,
    5.550_733_6e-2,
    2.402_224_2e-1,
    6.931_47e-1,
];

/// 2^t for the scan: relative error at most 1.8e-7, exactly 1 at 0; results below 2^-125.5 may be
/// 0 (denormal where scaling is native); infinite above 128; NaN to NaN.
#[inline(always)]
pub fn exp2<V: Number>(t: V) -> V {
    if V::NATIVE_SCALE {
        let n = t.round();
        let f = t - n;
        let p = polynomial(f, EXP2_Q).fma(f, f.like(1.0));
        p.scale2(n)
    } else {
        let t = t.like(-126.0).max(t);
        let t = t.like(128.0).min(t);
        let n = t.round();
        let f = t - n;
        // Twice the polynomial: the scale is then 2^(n - 1), an exponent that always fits.
        const DOUBLE: [f32; 5] = [
            2.0 * EXP2_Q[0],
            2.0 * EXP2_Q[1],
            2.0 * EXP2_Q[2],
            2.0 * EXP2_Q[3],
            2.0 * EXP2_Q[4],
        ];
        let p = polynomial(f, DOUBLE).fma(f, f.like(2.0));
        p.scale2_half(n)
    }
}

/// 1.5 * 2^23: adding it rounds a number to an integer, which the low bits of the sum then hold.
pub const MAGIC: f32 = 12_582_912.0;

/// Magnitude of an exponent up to which [`exp2_each`] and [`hold_each`] serve.
const REACH: f32 = 125.0;

/// Whether the functions that need exponents of small magnitude serve for these.
#[inline(always)]
pub fn within_reach(magnitudes: &[f32; LANES]) -> bool {
    magnitudes.iter().fold(true, |all, &x| all & (x <= REACH))
}

/// Rounds `t` of small magnitude to an integer: that plus [`MAGIC`], and what is left. Additions only,
/// since some processors have units for them beside those for multiply-adds.
#[inline(always)]
fn split<V: Number>(t: V) -> (V, V) {
    let shifted = t + t.like(MAGIC);
    (shifted, t - (shifted - t.like(MAGIC)))
}

/// [`split`] of each.
#[inline(always)]
fn split_each<V: Number, const K: usize>(t: [V; K]) -> ([V; K], [V; K]) {
    let (mut shifted, mut f) = (t, t);
    for k in 0..K {
        (shifted[k], f[k]) = split(t[k]);
    }
    (shifted, V::abreast(f))
}

/// [`polynomial`] of each, a step of all of them before the next one.
#[inline(always)]
fn polynomial_each<V: Number, const K: usize, const N: usize>(
    x: [V; K],
    coefficients: [f32; N],
) -> [V; K] {
    let mut sums = x;
    for k in 0..K {
        sums[k] = x[k].like(coefficients[0]);
    }
    for i in 1..N {
        for k in 0..K {
            sums[k] = sums[k].fma(x[k], x[k].like(coefficients[i]));
        }
        sums = V::abreast(sums);
    }
    sums
}

/// The bits of [`exp2`] where all numbers are [`within_reach`], in fewer instructions: several at a
/// time, since each waits for itself.
#[inline(always)]
pub fn exp2_each<V: Number, const K: usize>(t: [V; K]) -> [V; K] {
    let (shifted, f) = split_each(t);
    let [q0, q1, q2, q3, q4] = EXP2_Q;
    let mut p = polynomial_each(f, [q0, q1, q2, q3, q4, 1.0]);
    for k in 0..K {
        p[k] = p[k].add_exponent(shifted[k]);
    }
    p
}

/// What the zero-order hold needs of one step `x = delta A`.
#[derive(Clone, Copy)]
pub struct Hold<V> {
    /// e^x.
    pub decay: V,
    /// (e^x - 1) / A, which is delta where A is 0.
    pub gain: V,
}

/// Coefficients of (2^f - 1) / f on [-1/2, 1/2], within 1.1e-8.
const HOLD_Q: [f32; 6] = [
    1.540_352_5e-4,
    1.339_073_5e-3,
    9.618_237_6e-3,
    5.550_357_3e-2,
    2.402_265e-1,
    6.931_472e-1,
];

/// The rate A as the zero-order hold takes it: where the gain is `(e^x - 1) / A` for small x too, those
/// that make no difference to it are as large as keeps the division good.
#[inline(always)]
pub fn hold_rate<V: Number>(a: f32) -> f32 {
    const LEAST: f32 = 1.0 / (1u64 << 40) as f32;
    if V::NATIVE_SCALE || a.abs() >= LEAST || a.is_nan() {
        a
    } else {
        LEAST.copysign(a)
    }
}

/// The zero-order hold of a step: `t = delta A log2(e)`, `inverse_a = 1 / A`, A from [`hold_rate`].
/// Relative error of the gain at most 4e-7, also near `t = 0`.
#[inline(always)]
pub fn hold<V: Number>(t: V, delta: V, inverse_a: V) -> Hold<V> {
    let t = t.like(-200.0).max(t);
    let t = t.like(200.0).min(t);
    let n = t.round();
    let f = t - n;
    let q = polynomial(f, HOLD_Q);
    let one = f.like(1.0);
    let fq = f * q;
    let decay = (fq + one).scale2(n);
    // e^x - 1 = 2^n f q + (2^n - 1) keeps all digits; for n = 0 the division by A cancels.
    let minus_one = fq.scale2(n) + (one.scale2(n) - one);
    let mut gain = minus_one * inverse_a;
    if V::NATIVE_SCALE {
        let near = delta * (q * f.like(LOG2_E));
        gain = V::select_lt(n.abs(), f.like(0.5), near, gain);
    }
    Hold { decay, gain }
}

/// The bits of [`hold`] where [`Number::NATIVE_SCALE`] is not and all numbers are [`within_reach`], as
/// [`exp2_each`].
#[inline(always)]
pub fn hold_each<V: Number, const K: usize>(t: [V; K], inverse_a: [V; K]) -> [Hold<V>; K] {
    let (shifted, f) = split_each(t);
    let q = polynomial_each(f, HOLD_Q);
    let mut out = [Hold {
        decay: t[0],
        gain: t[0],
    }; K];
    for k in 0..K {
        let one = f[k].like(1.0);
        let fq = f[k] * q[k];
        let power = one.add_exponent(shifted[k]);
        // The product is exact, so that one rounding is what the sum in `hold` has.
        let minus_one = fq.fma(power, power - one);
        out[k] = Hold {
            decay: (fq + one).add_exponent(shifted[k]),
            gain: minus_one * inverse_a[k],
        };
    }
    out
}

/// d gain / d A of the zero-order hold, `delta^2 (x e^x - e^x + 1) / x^2` with `x = delta A`.
/// Relative error about 1e-6 at worst (where the two forms meet, at |x| = 1).
#[inline(always)]
pub fn hold_gain_by_a<V: Number>(x: V, delta: V, hold: Hold<V>, inverse_a: V) -> V {
    let series = polynomial(
        x,
        [
            2.184_656_8e-5,
            1.785_107_3e-4,
            1.191_379_2e-3,
            6.941_477_3e-3,
            3.333_279_9e-2,
            1.250_005_7e-1,
            3.333_334e-1,
            4.999_999_7e-1,
        ],
    );
    let near = delta * delta * series;
    let far = (delta * hold.decay - hold.gain) * inverse_a;
    V::select_lt(x.abs(), x.like(1.0), near, far)
}

/// log(1 + y) for y in [0, 1], accurate relative to the result down to 0.
#[inline(always)]
fn log1p_unit<V: Number>(y: V) -> V {
    // 2 atanh(s) with s = y / (2 + y) in [0, 1/3], as 2 s + s z P(z), z = s^2.
    let s = y / (y + y.like(2.0));
    let z = s * s;
    let p = polynomial(
        z,
        [2.802_447_7e-1, 2.799_913_6e-1, 4.002_17e-1, 6.666_641e-1],
    );
    (s * z).fma(p, s + s)
}

/// e^x for x in [-87.33, 88.37], where the result is a normal number and scaling is an addition.
#[inline(always)]
fn exp_between<V: Number>(x: V) -> V {
    let shifted = x.fma(x.like(LOG2_E), x.like(MAGIC));
    let n = shifted - x.like(MAGIC);
    exp_reduced(x, n).add_exponent(shifted)
}

/// e^-|x|; where scaling is not native, 0 if that is below 2^-126.
#[inline(always)]
pub fn exp_minus_abs<V: Number>(x: V) -> V {
    let x = -x.abs();
    if V::NATIVE_SCALE {
        return exp_below(x);
    }
    let least = x.like(-87.33);
    V::select_lt(x, least, x.like(0.0), exp_between(least.max(x)))
}

/// log(1 + e^x), the identity above [`SOFTPLUS_THRESHOLD`].
#[inline(always)]
pub fn softplus<V: Number>(x: V) -> V {
    softplus_from(x, exp_minus_abs(x))
}

/// [`softplus`] from [`exp_minus_abs`]. Loops that compute the two apart wait less for either.
#[inline(always)]
pub fn softplus_from<V: Number>(x: V, e: V) -> V {
    let soft = x.like(0.0).max(x) + log1p_unit(e);
    V::select_lt(x.like(SOFTPLUS_THRESHOLD), x, x, soft)
}

/// [`softplus`] and its derivative, 1 where it is the identity, from [`exp_minus_abs`].
#[inline(always)]
pub fn softplus_and_derivative_from<V: Number>(x: V, e: V) -> (V, V) {
    // Above the threshold the logistic function is within 2.1e-9 of 1 and so rounds to it.
    (softplus_from(x, e), sigmoid_from(x, e))
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<V: Number>(x: V) -> V {
    let e = exp_below(-x.abs());
    sigmoid_from(x, e)
}

#[inline(always)]
fn sigmoid_from<V: Number>(x: V, e: V) -> V {
    let one = x.like(1.0);
    V::select_lt(x, x.like(0.0), e, one) / (e + one)
}

/// x / (1 + e^-x); 0 below -88.7, where e^-x is infinite, or below -88.37.
#[inline(always)]
pub fn silu<V: Number>(x: V) -> V {
    silu_from(x, silu_exp(x))
}

/// What [`silu_from`] needs: e^-x or, where it makes no difference, another number.
#[inline(always)]
pub fn silu_exp<V: Number>(x: V) -> V {
    if V::NATIVE_SCALE {
        // The bound keeps minus infinity from giving NaN.
        return exp_below(-x.like(-110.0).max(x));
    }
    let x = x.like(-88.37).max(x);
    exp_between(-x.like(87.33).min(x))
}

/// [`silu`] from [`silu_exp`]. Loops that compute the two apart wait less for either.
#[inline(always)]
pub fn silu_from<V: Number>(x: V, e: V) -> V {
    let one = x.like(1.0);
    if V::NATIVE_SCALE {
        return x.like(-110.0).max(x) / (e + one);
    }
    V::select_lt(x, x.like(-88.37), x.like(0.0), x / (e + one))
}

/// [`silu`] and its derivative `s (1 + x (1 - s))`, s the logistic function.
#[inline(always)]
pub fn silu_and_derivative<V: Number>(x: V) -> (V, V) {
    silu_and_derivative_from(x, exp_minus_abs(x.like(-110.0).max(x)))
}

/// [`silu_and_derivative`] from [`exp_minus_abs`] of x or of 110, whichever is nearer to 0.
#[inline(always)]
pub fn silu_and_derivative_from<V: Number>(x: V, e: V) -> (V, V) {
    let bounded = x.like(-110.0).max(x);
    let one = x.like(1.0);
    let reciprocal = one / (e + one);
    let other = e * reciprocal;
    let zero = x.like(0.0);
    let s = V::select_lt(bounded, zero, other, reciprocal);
    let rest = V::select_lt(bounded, zero, reciprocal, other);
    // Beyond 110 the correction is 0 in float32, and infinity times 0 would not be.
    let reach = x.like(110.0).min(bounded);
    let value = bounded * s;
    (value, s * reach.fma(rest, one))
}
