//! Numbers with what they may be off.

use std::ops::{Add, Mul};

/// What `ex2.approx` may be off, relative: two units in the last place of float32, which are most
/// against the smallest mantissa.
const EX2: f64 = 1.0 / (1 << 22) as f64;

/// What `rcp.approx` may be off, relative: one unit in the last place.
const RCP: f64 = 1.0 / (1 << 23) as f64;

/// A number in float64, and how far off a device may have it where every approximate instruction
/// errs by its whole documented bound, whichever way is worst: first-order error analysis, with
/// absolute values, so that nothing cancels. Ordinary roundings are not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Off {
    /// The number.
    pub value: f64,
    /// How far off.
    pub by: f64,
}

impl From<f64> for Off {
    fn from(value: f64) -> Self {
        Self { value, by: 0.0 }
    }
}

impl Add for Off {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            value: self.value + other.value,
            by: self.by + other.by,
        }
    }
}

impl Mul for Off {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self {
            value: self.value * other.value,
            by: self.value.abs() * other.by + other.value.abs() * self.by + self.by * other.by,
        }
    }
}

impl Mul<f64> for Off {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self {
            value: self.value * factor,
            by: self.by * factor.abs(),
        }
    }
}

impl Off {
    /// `e^x` by one `ex2`.
    pub fn exp(self) -> Self {
        let value = self.value.exp();
        Self {
            value,
            by: value * (self.by + EX2),
        }
    }
}

/// `e = e^-|x|`, by one `ex2`, is what all of these are made of.
fn small(x: f64) -> f64 {
    (-x.abs()).exp()
}

/// `1 / (1 + e^-x)`: the division is a `rcp`, at worst without the step that refines it.
pub fn sigmoid(x: f64) -> Off {
    let e = small(x);
    // d/de of 1 / (1 + e) and of e / (1 + e), relative to each.
    let (value, share) = if x < 0.0 {
        (e / (1.0 + e), 1.0 / (1.0 + e))
    } else {
        (1.0 / (1.0 + e), e / (1.0 + e))
    };
    Off {
        value,
        by: value * (share * EX2 + RCP),
    }
}

/// `ln(1 + e^x)`, the identity above 20.
pub fn softplus(x: f64) -> Off {
    if x > 20.0 {
        return x.into();
    }
    let e = small(x);
    Off {
        value: x.max(0.0) + e.ln_1p(),
        by: e / (1.0 + e) * EX2,
    }
}

/// The derivative of [`softplus`].
pub fn softplus_slope(x: f64) -> Off {
    if x > 20.0 { 1.0.into() } else { sigmoid(x) }
}

/// `x sigmoid(x)`.
pub fn silu(x: f64) -> Off {
    sigmoid(x) * x
}

/// The derivative of [`silu`].
pub fn silu_slope(x: f64) -> Off {
    sigmoid(x) * (sigmoid(-x) * x + 1.0.into())
}

/// From which `|x log2 e|` on `(e^x - 1) / A` may be computed from an exponential; below, it is a
/// polynomial of its argument alone.
const SERIES: f64 = 0.49;

/// The gain `g` of `B_bar = g B` by zero-order hold, with its derivatives by delta and by A.
pub fn hold(delta: Off, a: f64) -> [Off; 3] {
    let x = delta.value * a;
    let decay = x.exp();
    // What the exponential itself brings in, where there is one.
    let direct = if x.abs() * std::f64::consts::LOG2_E >= SERIES {
        decay * EX2
    } else {
        0.0
    };
    let [gain, by_a] = hold_values(delta.value, a, x);
    let inverse = if direct > 0.0 { 1.0 / a.abs() } else { 0.0 };
    [
        Off {
            value: gain,
            by: decay * delta.by + direct * inverse,
        },
        (delta * a).exp(),
        Off {
            value: by_a,
            // (delta e^x - g) / A, of which d/ddelta is delta e^x.
            by: delta.value.abs() * decay * delta.by
                + (delta.value.abs() + inverse) * direct * inverse,
        },
    ]
}

/// `(e^x - 1) / A` and its derivative by A, in float64.
fn hold_values(delta: f64, a: f64, x: f64) -> [f64; 2] {
    if x.abs() > 0.05 {
        let gain = x.exp_m1() / a;
        return [gain, (delta * x.exp() - gain) / a];
    }
    // delta (1 + x/2 + x^2/6 + ...) and delta^2 (1/2 + 2 x/6 + 3 x^2/24 + ...).
    let (mut gain, mut by_a, mut term) = (0.0, 0.0, 1.0);
    for k in 0..12 {
        gain += term;
        term /= f64::from(k + 2);
        by_a += term * f64::from(k + 1);
        term *= x;
    }
    [delta * gain, delta * delta * by_a]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value and its derivatives with every exponential multiplied by `1 + s`.
    fn moved(s: f64, delta: f64, a: f64) -> [f64; 3] {
        let x = delta * a;
        let decay = x.exp() * (1.0 + s);
        let gain = (decay - 1.0) / a;
        [gain, decay, (delta * decay - gain) / a]
    }

    #[test]
    fn bounds_hold_for_errors_to_either_side() {
        for (delta, a) in [(0.7, -1.3), (0.1, -9.0), (2.0, -0.4), (0.5, -0.9)] {
            let bounds = hold(delta.into(), a);
            for s in [-EX2, EX2] {
                for (k, value) in moved(s, delta, a).into_iter().enumerate() {
                    let (off, bound) = ((value - bounds[k].value).abs(), bounds[k].by);
                    assert!(
                        off <= bound * 1.0001 + 1e-15,
                        "{k} at {delta}, {a}: {off} of {bound}"
                    );
                    assert!(off >= 0.2 * bound, "{k} at {delta}, {a}: {off} of {bound}");
                }
            }
        }
        for x in [-30.0, -3.0, -0.1, 0.0, 0.4, 5.0, 19.0] {
            for s in [-EX2, EX2] {
                let e = small(x) * (1.0 + s);
                let soft = f64::max(x, 0.0) + e.ln_1p();
                let bound = softplus(x);
                assert!((soft - bound.value).abs() <= bound.by * 1.0001 + 1e-15);
                let sigma = if x < 0.0 {
                    e / (1.0 + e)
                } else {
                    1.0 / (1.0 + e)
                };
                let bound = sigmoid(x);
                assert!((sigma * (1.0 + s / 2.0) - bound.value).abs() <= bound.by * 1.0001);
            }
        }
    }

    #[test]
    fn both_forms_of_the_hold_meet() {
        for delta in [0.03, 0.4] {
            for a in [-0.049 / delta, -0.051 / delta] {
                let [gain, _, by_a] = hold(delta.into(), a).map(|x| x.value);
                let x = delta * a;
                let direct = x.exp_m1() / a;
                assert!((gain / direct - 1.0).abs() < 1e-14);
                let direct = (delta * x.exp() - direct) / a;
                assert!((by_a / direct - 1.0).abs() < 1e-11);
            }
        }
    }
}
