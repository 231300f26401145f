//! DPM-Sampler++, multistep (Lu et al., "DPM-Sampler++: Fast Sampler for Guided Sampling of Diffusion
//! Probabilistic Models", 2022, equations 9 and 14 to 18, algorithm 2; appendix on SDE solvers).
//!
//! In `lambda = ln(alpha / sigma)` the exact solution over a step of length h is
//! `x' = sigma'/sigma e^(-(k-1) h) x + alpha' k int_0^h e^(-k (h - s)) x_0(s) ds (+ noise)`, with
//! k = 1 for the ordinary and k = 2 for the stochastic equation, whose noise has deviation
//! `sigma' sqrt(1 - e^(-2h))`. The estimates of `x_0` at this and earlier nodes give x_0(s) by
//! differences: with `phi = 1 - e^(-kh)`, `D1 ~ h x_0'` and `D2 ~ h^2 x_0'' / 2`,
//! `x' = sigma'/sigma e^(-(k-1) h) x + alpha' (phi m_0 + (1 - phi / (kh)) D1 + c D2)`.

use std::collections::VecDeque;

use super::{At, Sampler, Step};
use crate::{Error, Noise, Result, State};

/// How a step of order 2 weighs the first difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Correction {
    /// By `phi / 2`.
    #[default]
    Midpoint,
    /// By `1 - phi / (kh)`.
    Heun,
}

/// How a step of order 3 weighs the second difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThirdOrder {
    /// By `c = 1/2 + (phi - h) / h^2`, as the published solver and those made after it. That is
    /// half of what cancels the error of order 3, and the observed order is 2, with a smaller
    /// error than the solver of order 2 has.
    #[default]
    Published,
    /// By twice that, which makes the order 3.
    Exact,
}

/// DPM-Sampler++ as a multistep method.
#[derive(Clone, Debug)]
pub struct DpmSolver<S> {
    options: DpmOptions,
    /// Lambda and estimate of `x_0` at this node and those before, newest first.
    history: VecDeque<(f64, S)>,
}

/// Settings of a [`DpmSolver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DpmOptions {
    /// 1, 2 or 3. The first steps have lower orders, for want of history.
    pub order: usize,
    /// For steps of order 2.
    pub correction: Correction,
    /// For steps of order 3.
    pub third: ThirdOrder,
    /// Solves the stochastic equation; every step then asks for noise. Orders 1 and 2 only.
    pub stochastic: bool,
    /// Lowers the order of the last two steps of a run of fewer than 15, for stability.
    pub lower_order_final: bool,
    /// Lowers the order of the last step to 1. It is 1 anyhow if that step leads to the image.
    pub euler_at_final: bool,
}

impl DpmOptions {
    /// Midpoint correction, published third order, lower orders at the end.
    pub fn new(order: usize) -> Self {
        Self {
            order,
            correction: Correction::default(),
            third: ThirdOrder::default(),
            stochastic: false,
            lower_order_final: true,
            euler_at_final: false,
        }
    }
}

impl<S> DpmSolver<S> {
    /// A solver without history.
    ///
    /// # Errors
    /// An order that does not exist.
    pub fn new(options: DpmOptions) -> Result<Self> {
        let largest = if options.stochastic { 2 } else { 3 };
        if !(1..=largest).contains(&options.order) {
            return Err(Error::Invalid(format!(
                "DPM-Sampler++ of order {}; orders are 1 to {largest}",
                options.order
            )));
        }
        Ok(Self {
            options,
            history: VecDeque::new(),
        })
    }

    fn order(&self, at: &At<'_>) -> usize {
        let short = self.options.lower_order_final && at.steps < 15;
        let left = at.steps - at.node;
        let most = match left {
            1 if short || self.options.euler_at_final || at.next.sigma == 0.0 => 1,
            2 if short => 2,
            _ => self.options.order,
        };
        most.min(self.history.len())
    }
}

impl<S: State> Sampler<S> for DpmSolver<S> {
    fn step(
        &mut self,
        at: &At<'_>,
        x: &S,
        output: &S,
        noise: &mut dyn Noise<S>,
    ) -> Result<Step<S>> {
        let x_start = at.estimate(x, output)?.x_start;
        let lambda = at.here.lambda();
        self.history.truncate(self.options.order - 1);
        self.history.push_front((lambda, x_start.clone()));
        let h = at.next.lambda() - lambda;
        let lambdas: Vec<f64> = self
            .history
            .iter()
            .take(self.order(at))
            .map(|(l, _)| *l)
            .collect();
        let k = if self.options.stochastic { 2.0 } else { 1.0 };
        let weights = weights(&lambdas, h, k, &self.options);

        let decay = if self.options.stochastic {
            (-h).exp()
        } else {
            1.0
        };
        let kept = [at.next.sigma / at.here.sigma * decay];
        let on_starts: Vec<[f64; 1]> = weights.iter().map(|w| [at.next.alpha * w]).collect();
        let spread = [at.next.sigma * (-(-2.0 * h).exp_m1()).sqrt()];
        let draw = if self.options.stochastic && spread[0] > 0.0 {
            Some(noise.draw(at.iteration, x)?)
        } else {
            None
        };
        let mut terms: Vec<(&[f64], &S)> = vec![(&kept, x)];
        for (weight, (_, m)) in on_starts.iter().zip(&self.history) {
            terms.push((weight, m));
        }
        terms.extend(draw.as_ref().map(|z| (&spread[..], z)));
        Ok(Step {
            sample: S::combine(&terms)?,
            pred_xstart: x_start,
        })
    }

    fn reset(&mut self) {
        self.history.clear();
    }
}

/// What the estimates at these lambdas (newest first) add up to over a step h, in units of alpha'.
fn weights(lambdas: &[f64], h: f64, k: f64, options: &DpmOptions) -> Vec<f64> {
    let phi = -(-k * h).exp_m1();
    // Nothing to extrapolate over an empty step.
    if lambdas.len() == 1 || h == 0.0 {
        return vec![phi];
    }
    let r0 = (lambdas[0] - lambdas[1]) / h;
    let first = 1.0 - phi / (k * h);
    if lambdas.len() == 2 {
        let d1 = match options.correction {
            Correction::Midpoint => 0.5 * phi,
            Correction::Heun => first,
        };
        return vec![phi + d1 / r0, -d1 / r0];
    }
    let second = (phi - h) / (h * h) + 0.5;
    let second = match options.third {
        ThirdOrder::Published => second,
        ThirdOrder::Exact => 2.0 * second,
    };
    let r1 = (lambdas[1] - lambdas[2]) / h;
    // D1 = a + r0 / (r0 + r1) (a - b) and D2 = (a - b) / (r0 + r1), with the differences
    // a = (m0 - m1) / r0 and b = (m1 - m2) / r1.
    let both = (first * r0 + second) / (r0 + r1);
    let (on_a, on_b) = (first + both, -both);
    vec![phi + on_a / r0, -on_a / r0 + on_b / r1, -on_b / r1]
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;

    /// The weights integrate what they interpolate: x_0(s) = 1 + p s + q s^2 exactly.
    #[test]
    fn weights_integrate_polynomials() {
        let exact = |h: f64, k: f64, power: i32| {
            let n = 20_000;
            let step = h / f64::from(n);
            (0..n)
                .map(|i| (f64::from(i) + 0.5) * step)
                .map(|s| k * (-k * (h - s)).exp() * s.powi(power) * step)
                .sum::<f64>()
        };
        let nodes: [f64; 3] = [0.0, -0.3, -0.7];
        let h = 0.4;
        let sum = |weights: &[f64], power: i32| -> f64 {
            weights
                .iter()
                .zip(nodes)
                .map(|(w, l)| w * l.powi(power))
                .sum()
        };
        for (order, k) in [(1, 1.0), (2, 1.0), (3, 1.0), (1, 2.0), (2, 2.0)] {
            let options = DpmOptions {
                correction: Correction::Heun,
                third: ThirdOrder::Exact,
                ..DpmOptions::new(order)
            };
            let weights = weights(&nodes[..order], h, k, &options);
            for power in 0..order as i32 {
                let off = sum(&weights, power) - exact(h, k, power);
                assert!(off.abs() < 1e-8, "order {order}, k {k}, s^{power}: {off}");
            }
        }
        // The published weights of order 3 fall short of half of the s^2 term.
        let published = weights(&nodes, h, 1.0, &DpmOptions::new(3));
        let linear = sum(&published, 1) - exact(h, 1.0, 1);
        assert!(linear.abs() < 1e-8);
        let quadratic = sum(&published, 2) / exact(h, 1.0, 2);
        assert!((quadratic - 0.5).abs() < 1e-6, "{quadratic}");
    }

    #[test]
    fn orders_that_do_not_exist_are_refused() {
        let new = |options| DpmSolver::<Array4<f32>>::new(options).is_ok();
        assert!(!new(DpmOptions::new(0)) && !new(DpmOptions::new(4)));
        let stochastic = |order| DpmOptions {
            stochastic: true,
            ..DpmOptions::new(order)
        };
        assert!(new(stochastic(2)) && !new(stochastic(3)));
    }
}
