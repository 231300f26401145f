//! What the oracles compute in.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use crate::backend::Element;

/// A number that the oracles can compute with: float64, or one that carries more, such as what a device may
/// be off. Branches depend on the [`Scalar::value`] alone.
pub trait Scalar:
    Element
    + Default
    + PartialEq
    + From<f64>
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The number itself.
    fn value(self) -> f64;
    /// e^x.
    fn exp(self) -> Self;
    /// e^x - 1.
    fn exp_m1(self) -> Self;
    /// ln(1 + x).
    fn ln_1p(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;

    /// |x|.
    fn abs(self) -> Self {
        if self.value().is_sign_negative() {
            -self
        } else {
            self
        }
    }

    /// 1 / (1 + e^-x), whose exponential does not overflow.
    fn sigmoid(self) -> Self {
        let (e, one) = ((-self.abs()).exp(), Self::from(1.0));
        if self.value() < 0.0 {
            e / (one + e)
        } else {
            one / (one + e)
        }
    }

    /// A sum in the order of its terms.
    fn sum(terms: impl IntoIterator<Item = Self>) -> Self {
        terms.into_iter().fold(Self::default(), |sum, x| sum + x)
    }
}

impl Scalar for f64 {
    fn value(self) -> f64 {
        self
    }
    fn exp(self) -> Self {
        self.exp()
    }
    fn exp_m1(self) -> Self {
        self.exp_m1()
    }
    fn ln_1p(self) -> Self {
        self.ln_1p()
    }
    fn sqrt(self) -> Self {
        self.sqrt()
    }
}
