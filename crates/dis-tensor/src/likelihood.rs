//! Terms of the variational bound for one element, in nats, with their derivatives.

use std::f64::consts::PI;

/// A term and its derivatives with respect to the model's mean and log variance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// The term.
    pub value: f64,
    /// Its derivative by the mean of the model.
    pub d_mean: f64,
    /// Its derivative by the log variance of the model.
    pub d_log_variance: f64,
}

/// Divergence of N(mean, exp(log_variance)) from the true N(true_mean, exp(true_log_variance)):
/// `(ln v - ln v' + (v' + (m' - m)^2) / v - 1) / 2`.
pub fn kl(true_mean: f64, true_log_variance: f64, mean: f64, log_variance: f64) -> Term {
    let ratio = (true_log_variance - log_variance).exp();
    let precision = (-log_variance).exp();
    let apart = mean - true_mean;
    let spread = ratio + apart * apart * precision;
    Term {
        value: 0.5 * (log_variance - true_log_variance + spread - 1.0),
        d_mean: apart * precision,
        d_log_variance: 0.5 * (1.0 - spread),
    }
}

/// Probabilities below this are taken for it, so that logarithms stay finite.
const FLOOR: f64 = 1e-12;
/// Half the width of one of 256 grey levels on [-1, 1].
const HALF_BIN: f64 = 1.0 / 255.0;
/// Grey values beyond this are in the outermost bin, whose outer side is open.
const OPEN: f64 = 0.999;

/// Negative log likelihood of the grey value `x` in [-1, 1], one of 256, under a Gaussian
/// (Ho et al., "Denoising Diffusion Probabilistic Models", 2020, equation 13, with the tanh
/// approximation of the normal distribution function that the published code uses).
pub fn discretised_nll(x: f64, mean: f64, log_variance: f64) -> Term {
    let inverse = (-0.5 * log_variance).exp();
    let upper = inverse * (x - mean + HALF_BIN);
    let lower = inverse * (x - mean - HALF_BIN);
    // d probability / d upper, d probability / d lower, and the probability itself.
    let (probability, d_upper, d_lower) = if x < -OPEN {
        let (p, d) = normal_cdf(upper);
        (p, d, 0.0)
    } else if x > OPEN {
        // 1 - cdf(lower) = cdf(-lower) without cancellation.
        let (p, d) = normal_cdf(-lower);
        (p, 0.0, -d)
    } else {
        // On the positive side both values are near 1 and their difference would cancel; the
        // mirrored values are small instead.
        let (sign, near, far) = if lower > 0.0 {
            (-1.0, -lower, -upper)
        } else {
            (1.0, upper, lower)
        };
        let ((p_near, d_near), (p_far, d_far)) = (normal_cdf(near), normal_cdf(far));
        let (d_upper, d_lower) = if sign > 0.0 {
            (d_near, -d_far)
        } else {
            (d_far, -d_near)
        };
        (p_near - p_far, d_upper, d_lower)
    };
    if probability < FLOOR {
        return Term {
            value: -FLOOR.ln(),
            d_mean: 0.0,
            d_log_variance: 0.0,
        };
    }
    // Both bounds move by -inverse with the mean, and by half their own value with -log_variance.
    let d_log = -1.0 / probability;
    let scaled = |slope: f64, bound: f64| if slope == 0.0 { 0.0 } else { slope * bound };
    Term {
        value: -probability.ln(),
        d_mean: d_log * -inverse * (d_upper + d_lower),
        d_log_variance: d_log * -0.5 * (scaled(d_upper, upper) + scaled(d_lower, lower)),
    }
}

/// `(1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2` and its derivative, through the logistic
/// function, which keeps the lower tail's digits.
fn normal_cdf(x: f64) -> (f64, f64) {
    let root = (2.0 / PI).sqrt();
    let argument = 2.0 * root * (x + 0.044715 * x * x * x);
    let below = 1.0 / (1.0 + (-argument).exp());
    let above = 1.0 / (1.0 + argument.exp());
    (
        below,
        below * above * 2.0 * root * (1.0 + 3.0 * 0.044715 * x * x),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(term: impl Fn(f64, f64) -> Term, mean: f64, log_variance: f64) {
        let h = 1e-5;
        let here = term(mean, log_variance);
        let d_mean =
            (term(mean + h, log_variance).value - term(mean - h, log_variance).value) / (2.0 * h);
        let d_log =
            (term(mean, log_variance + h).value - term(mean, log_variance - h).value) / (2.0 * h);
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
        assert!(
            close(here.d_mean, d_mean),
            "d_mean {} against {d_mean}",
            here.d_mean
        );
        assert!(
            close(here.d_log_variance, d_log),
            "d_log {} against {d_log}",
            here.d_log_variance
        );
    }

    proptest! {
        #[test]
        fn kl_derivatives(a in -2.0..2.0f64, b in -4.0..1.0f64, m in -2.0..2.0f64, v in -4.0..1.0f64) {
            check(|m, v| kl(a, b, m, v), m, v);
            prop_assert!(kl(a, b, m, v).value >= -1e-12);
        }

        #[test]
        fn likelihood_derivatives(grey in 0..256u32, m in -1.0..1.0f64, v in -3.0..1.0f64) {
            let x = f64::from(grey) / 127.5 - 1.0;
            check(|m, v| discretised_nll(x, m, v), m, v);
        }

        #[test]
        fn narrow_likelihood_derivatives(grey in 0..256u32, off in -0.01..0.01f64, v in -9.5..-7.0f64) {
            // The scale at step 0 of the published schedule, near the data.
            let x = f64::from(grey) / 127.5 - 1.0;
            let (m, h) = (x + off, 1e-6);
            let here = discretised_nll(x, m, v);
            let numeric = (discretised_nll(x, m + h, v).value - discretised_nll(x, m - h, v).value) / (2.0 * h);
            prop_assert!((here.d_mean - numeric).abs() <= 1e-4 * (1.0 + numeric.abs()));
            let numeric = (discretised_nll(x, m, v + h).value - discretised_nll(x, m, v - h).value) / (2.0 * h);
            prop_assert!((here.d_log_variance - numeric).abs() <= 1e-4 * (1.0 + numeric.abs()));
        }
    }

    #[test]
    fn probabilities_of_all_grey_values_add_up() {
        for (mean, log_variance) in [(0.0, -2.0), (0.7, -6.0), (-1.3, 0.5), (3.0, -3.0)] {
            let sum: f64 = (0..256)
                .map(|g| {
                    (-discretised_nll(f64::from(g) / 127.5 - 1.0, mean, log_variance).value).exp()
                })
                .sum();
            assert!((sum - 1.0).abs() < 1e-8, "{sum} at {mean}, {log_variance}");
        }
    }

    #[test]
    fn absurd_arguments_stay_finite() {
        for x in [-1.0, 0.1, 1.0] {
            for mean in [-1e6, 1e6] {
                let term = discretised_nll(x, mean, -20.0);
                assert!(
                    term.value.is_finite()
                        && term.d_mean.is_finite()
                        && term.d_log_variance.is_finite()
                );
            }
        }
    }
}
