//! Numbers with what a device may be off: the scalar in which the oracle bounds every problem.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use dis_tensor::{Element, Scalar};

/// What `ex2.approx` may be off, relative: two units in the last place of float32, which are most
/// against the smallest mantissa.
const EX2: f64 = 1.0 / (1 << 22) as f64;

/// What `rcp.approx` may be off, relative: one unit in the last place.
const RCP: f64 = 1.0 / (1 << 23) as f64;

/// Most that a rounding to float32 changes, relative: half a unit in the last place.
const ROUNDING: f64 = 1.0 / (1 << 24) as f64;

/// From which `|x log2 e|` on `e^x - 1` may be computed from an exponential; below, it is a polynomial
/// of its argument alone.
const SERIES: f64 = 0.49;

/// A number in float64, and what a device may have it off, to first order.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Off {
    /// The number.
    pub value: f64,
    /// With its sign, how far off where all exponentials are too large by their whole bound.
    pub exponentials: f64,
    /// The same of reciprocals: every quotient is taken to be by one, without the step that may refine it.
    pub reciprocals: f64,
    /// The variance that roundings to float32 have at most, one after each operation: they are as often up as
    /// down, so squares add up. It follows the order of the oracle's sums, the plain one; a device's tree
    /// of sums has less.
    pub rounded: f64,
    /// The variance of approximate instructions that err by their whole bound, to either side by chance.
    pub scattered: f64,
}

fn square(x: f64) -> f64 {
    x * x
}

impl Off {
    /// What its terms and their weights in a value bring into it, which itself is rounded.
    fn of<const N: usize>(value: f64, terms: [(Self, f64); N]) -> Self {
        let mut out = Self::from(value);
        for (term, weight) in terms {
            out.exponentials += weight * term.exponentials;
            out.reciprocals += weight * term.reciprocals;
            out.rounded += square(weight) * term.rounded;
            out.scattered += square(weight) * term.scattered;
        }
        out.rounded += square(ROUNDING * value);
        out
    }
}

impl Element for Off {
    const NAME: &'static str = "bounded f64";
}

impl From<f64> for Off {
    fn from(value: f64) -> Self {
        Self {
            value,
            ..Self::default()
        }
    }
}

impl Add for Off {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::of(self.value + other.value, [(self, 1.0), (other, 1.0)])
    }
}

impl AddAssign for Off {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Off {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self::of(self.value - other.value, [(self, 1.0), (other, -1.0)])
    }
}

impl Neg for Off {
    type Output = Self;
    fn neg(self) -> Self {
        Self {
            value: -self.value,
            exponentials: -self.exponentials,
            reciprocals: -self.reciprocals,
            ..self
        }
    }
}

impl Mul for Off {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let (a, b) = (self.value, other.value);
        Self::of(a * b, [(self, b), (other, a)])
    }
}

impl Div for Off {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let by = 1.0 / other.value;
        let value = self.value / other.value;
        let mut out = Self::of(value, [(self, by), (other, -value * by)]);
        let off = value * RCP;
        out.reciprocals += off;
        out.scattered += square(off);
        out
    }
}

impl Scalar for Off {
    fn value(self) -> f64 {
        self.value
    }

    /// By one `ex2` of `x log2 e`, which is rounded.
    fn exp(self) -> Self {
        let value = self.value.exp();
        let mut out = Self::of(value, [(self, value)]);
        let off = value * EX2;
        out.exponentials += off;
        out.scattered += square(off);
        if value > 0.0 {
            out.rounded += square(ROUNDING * value * self.value);
        }
        out
    }

    fn exp_m1(self) -> Self {
        let value = self.value.exp_m1();
        if self.value.abs() * std::f64::consts::LOG2_E < SERIES {
            return Self::of(value, [(self, value + 1.0)]);
        }
        Self {
            value,
            ..self.exp() - 1.0.into()
        }
    }

    fn ln_1p(self) -> Self {
        Self::of(self.value.ln_1p(), [(self, 1.0 / (1.0 + self.value))])
    }

    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        let slope = if value > 0.0 { 0.5 / value } else { 0.0 };
        Self::of(value, [(self, slope)])
    }
}

#[cfg(test)]
mod tests {
    use dis_scan::oracle::{silu_derivative, softplus};
    use dis_tensor::random::{Purpose, Stream};

    use super::*;

    /// `e^-|x|`, by one `ex2` that is off by `s`.
    fn small(x: f64, s: f64) -> f64 {
        (-x.abs()).exp() * (1.0 + s)
    }

    fn sigmoid(x: f64, s: f64) -> f64 {
        let e = small(x, s);
        if x < 0.0 {
            e / (1.0 + e)
        } else {
            1.0 / (1.0 + e)
        }
    }

    #[test]
    fn functions_move_as_their_exponentials_do() {
        type Functions = (fn(Off) -> Off, fn(f64, f64) -> f64);
        // Each with the same where the exponential is off.
        let functions: [Functions; 5] = [
            (Off::sigmoid, sigmoid),
            (softplus, |x, s| x.max(0.0) + small(x, s).ln_1p()),
            (Off::exp, |x, s| x.exp() * (1.0 + s)),
            (silu_derivative, |x, s| {
                sigmoid(x, s) * (1.0 + x * sigmoid(-x, s))
            }),
            // A polynomial near 0.
            (Off::exp_m1, |x, s| {
                x.exp_m1() + if x.abs() > 0.34 { s * x.exp() } else { 0.0 }
            }),
        ];
        for x in [-30.0, -3.0, -0.1, 0.0, 0.4, 5.0, 19.0] {
            for (k, (bounded, moved)) in functions.iter().enumerate() {
                let (off, exact) = (bounded(x.into()), moved(x, 0.0));
                assert!((off.value - exact).abs() <= 1e-14 * exact.abs());
                for s in [-EX2, EX2] {
                    let by = moved(x, s) - exact;
                    let left = by - off.exponentials * s.signum();
                    let most = 1e-5 * by.abs() + 1e-14 * (exact.abs() + 1.0);
                    assert!(left.abs() <= most, "{k} of {x}: {by}, {off:?}");
                    assert!(square(off.exponentials) <= 4.0 * off.scattered + 1e-30);
                }
            }
        }
    }

    #[test]
    fn products_and_quotients_move_as_their_parts_do() {
        let off = |value, by| Off {
            exponentials: by,
            ..Off::from(value)
        };
        let (a, b) = (off(3.0, 1e-6), off(-2.0, 2e-6));
        let moved = [3.000001 * -1.999998 + 6.0, 3.000001 / -1.999998 + 1.5];
        for (out, moved) in [a * b, a / b].into_iter().zip(moved) {
            assert!((out.exponentials / moved - 1.0).abs() < 1e-5, "{out:?}");
        }
        assert_eq!((a * b).reciprocals, 0.0);
        assert_eq!((a / b).reciprocals, -1.5 * RCP);
        // What is subtracted from itself moves nowhere.
        assert_eq!((a - a).exponentials, 0.0);
    }

    /// Roundings of long chains of float32, against the variance that is claimed for them.
    #[test]
    fn roundings_are_as_large_as_said() {
        let mut stream = Stream::new(5, Purpose::Test, 0, 0);
        let (mut squares, mut count, mut most) = (0.0, 0.0, 0.0f64);
        for length in [10, 100, 1000] {
            for _ in 0..50 {
                let (mut single, mut bounded) = (0.0f32, Off::default());
                for _ in 0..length {
                    let [x, y] = [0; 2].map(|_| stream.normal() as f32);
                    single = 0.999 * single + x * y;
                    bounded = Off::from(f64::from(0.999f32)) * bounded
                        + Off::from(f64::from(x)) * Off::from(f64::from(y));
                }
                let off = (f64::from(single) - bounded.value) / bounded.rounded.sqrt();
                most = most.max(off.abs());
                squares += off * off;
                count += 1.0;
            }
        }
        let deviation = f64::sqrt(squares / count);
        assert!((0.2..1.0).contains(&deviation), "{deviation}");
        assert!(most < 4.0, "{most}");
    }
}
