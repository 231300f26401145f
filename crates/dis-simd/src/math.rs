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

use super::Vector;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts; the first has ten significant bits, so that its product with an exponent is
/// exact even where multiply-adds are not fused.
const LN2_HIGH: f32 = 0.693_359_375;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// Above this softplus is the identity (as in PyTorch).
pub const SOFTPLUS_THRESHOLD: f32 = 20.0;

/// Horner's rule, coefficients from the highest degree down.
#[inline(always)]
fn polynomial<V: Vector, const N: usize>(x: V, coefficients: [f32; N]) -> V {
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
pub fn exp<V: Vector>(x: V) -> V {
    // Constants come first in `max` and `min`, so that NaN passes.
    exp_below(x.like(89.5).min(x))
}

/// [`exp`] for `x` at most 110.
#[inline(always)]
fn exp_below<V: Vector>(x: V) -> V {
    let x = x.like(-104.5).max(x);
    let n = (x * x.like(LOG2_E)).round();
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
    let p = (r * r).fma(q, r) + x.like(1.0);
    p.scale2(n)
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
pub fn exp2<V: Vector>(t: V) -> V {
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

/// What the zero-order hold needs of one step `x = delta A`.
#[derive(Clone, Copy)]
pub struct Hold<V> {
    /// e^x.
    pub decay: V,
    /// (e^x - 1) / A, which is delta where A is 0.
    pub gain: V,
}

/// The zero-order hold of a step: `t = delta A log2(e)`, `inverse_a = 1 / A` (anything where A
/// is 0). Relative error of the gain at most 4e-7, also near `t = 0`.
#[inline(always)]
pub fn hold<V: Vector>(t: V, delta: V, inverse_a: V) -> Hold<V> {
    let t = t.like(-200.0).max(t);
    let t = t.like(200.0).min(t);
    let n = t.round();
    let f = t - n;
    // (2^f - 1) / f, within 1.1e-8.
    let q = polynomial(
        f,
        [
            1.540_352_5e-4,
            1.339_073_5e-3,
            9.618_237_6e-3,
            5.550_357_3e-2,
            2.402_265e-1,
            6.931_472e-1,
        ],
    );
    let one = f.like(1.0);
    let fq = f * q;
    let decay = (fq + one).scale2(n);
    // e^x - 1 = 2^n f q + (2^n - 1) keeps all digits; for n = 0 the division by A cancels.
    let minus_one = fq.scale2(n) + (one.scale2(n) - one);
    let near = delta * (q * f.like(LOG2_E));
    let gain = V::select_lt(n.abs(), f.like(0.5), near, minus_one * inverse_a);
    Hold { decay, gain }
}

/// d gain / d A of the zero-order hold, `delta^2 (x e^x - e^x + 1) / x^2` with `x = delta A`.
/// Relative error about 1e-6 at worst (where the two forms meet, at |x| = 1).
#[inline(always)]
pub fn hold_gain_by_a<V: Vector>(x: V, delta: V, hold: Hold<V>, inverse_a: V) -> V {
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
fn log1p_unit<V: Vector>(y: V) -> V {
    // 2 atanh(s) with s = y / (2 + y) in [0, 1/3], as 2 s + s z P(z), z = s^2.
    let s = y / (y + y.like(2.0));
    let z = s * s;
    let p = polynomial(
        z,
        [2.802_447_7e-1, 2.799_913_6e-1, 4.002_17e-1, 6.666_641e-1],
    );
    (s * z).fma(p, s + s)
}

/// log(1 + e^x), the identity above [`SOFTPLUS_THRESHOLD`].
#[inline(always)]
pub fn softplus<V: Vector>(x: V) -> V {
    let e = exp_below(-x.abs());
    softplus_from(x, e)
}

#[inline(always)]
fn softplus_from<V: Vector>(x: V, e: V) -> V {
    let soft = x.like(0.0).max(x) + log1p_unit(e);
    V::select_lt(x.like(SOFTPLUS_THRESHOLD), x, x, soft)
}

/// [`softplus`] and its derivative, 1 where it is the identity.
#[inline(always)]
pub fn softplus_and_derivative<V: Vector>(x: V) -> (V, V) {
    let e = exp_below(-x.abs());
    // Above the threshold the logistic function is within 2.1e-9 of 1 and so rounds to it.
    (softplus_from(x, e), sigmoid_from(x, e))
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<V: Vector>(x: V) -> V {
    let e = exp_below(-x.abs());
    sigmoid_from(x, e)
}

#[inline(always)]
fn sigmoid_from<V: Vector>(x: V, e: V) -> V {
    let one = x.like(1.0);
    V::select_lt(x, x.like(0.0), e, one) / (e + one)
}

/// x / (1 + e^-x); 0 where e^-x is infinite, below -88.7.
#[inline(always)]
pub fn silu<V: Vector>(x: V) -> V {
    // The bound keeps minus infinity from giving NaN.
    let x = x.like(-110.0).max(x);
    x / (exp_below(-x) + x.like(1.0))
}

/// [`silu`] and its derivative `s (1 + x (1 - s))`, s the logistic function.
#[inline(always)]
pub fn silu_and_derivative<V: Vector>(x: V) -> (V, V) {
    let bounded = x.like(-110.0).max(x);
    let e = exp_below(-bounded.abs());
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
