//! UniPC (Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of
//! Diffusion Models", 2023, section 3 and algorithms 5 to 8), multistep, on estimates of `x_0`.
//!
//! Over a step h of lambda, from a node with estimate `m_0` and with earlier estimates `m_k` at
//! `lambda_0 + r_k h`,
//! `x' = sigma'/sigma x - alpha' ((e^-h - 1) m_0 + B(h) sum_k rho_k (m_k - m_0) / r_k)`
//! with rho solving `sum_k rho_k r_k^(i-1) = i! phi_i / B(h)` for as many i. The predictor uses
//! what is known; the corrector, once the network has been called at `x'`, repeats the step with
//! that estimate added (r = 1), which costs no call and raises the order by one.

use std::collections::VecDeque;

use super::{At, Level, Sampler, Step};
use crate::{Error, Noise, Result, State};

/// The function B(h) of UniPC; it changes higher-order terms only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UniPcKind {
    /// `B(h) = h`.
    Bh1,
    /// `B(h) = e^h - 1`.
    #[default]
    Bh2,
}

/// Settings of a [`UniPc`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniPcOptions {
    /// Order of the predictor, 1 to 4; the corrector's is one more.
    pub order: usize,
    /// Which B(h).
    pub kind: UniPcKind,
    /// Lowers the orders of the last steps to 3, 2, 1, for stability. The last is 1 anyhow if it
    /// leads to the image.
    pub lower_order_final: bool,
    /// Steps that are not corrected.
    pub uncorrected: Vec<usize>,
}

impl UniPcOptions {
    /// With `e^h - 1`, lower orders at the end, every step corrected.
    pub fn new(order: usize) -> Self {
        Self {
            order,
            kind: UniPcKind::default(),
            lower_order_final: true,
            uncorrected: Vec::new(),
        }
    }
}

/// The predictor and corrector.
#[derive(Clone, Debug)]
pub struct UniPc<S> {
    options: UniPcOptions,
    /// Level and estimate of `x_0` of the nodes so far, newest first.
    history: VecDeque<(Level, S)>,
    /// The image that the last step started from, and its order.
    last: Option<(S, usize)>,
}

impl<S> UniPc<S> {
    /// A solver without history.
    ///
    /// # Errors
    /// An order that does not exist.
    pub fn new(options: UniPcOptions) -> Result<Self> {
        if !(1..=4).contains(&options.order) {
            return Err(Error::Invalid(format!(
                "UniPC of order {}; orders are 1 to 4",
                options.order
            )));
        }
        Ok(Self {
            options,
            history: VecDeque::new(),
            last: None,
        })
    }
}

impl<S: State> Sampler<S> for UniPc<S> {
    fn step(&mut self, at: &At<'_>, x: &S, output: &S, _: &mut dyn Noise<S>) -> Result<Step<S>> {
        let x_start = at.estimate(x, output)?.x_start;
        let corrected = match self.last.take() {
            Some((before, order))
                if at.node > 0 && !self.options.uncorrected.contains(&(at.node - 1)) =>
            {
                self.update(&before, at.here, order, Some(&x_start))?
            }
            _ => x.clone(),
        };
        self.history.truncate(self.options.order - 1);
        self.history.push_front((at.here, x_start.clone()));

        let left = at.steps - at.node;
        let most = match left {
            // Where lambda is infinite there is nothing to interpolate over.
            _ if at.next.sigma == 0.0 => 1,
            _ if self.options.lower_order_final => self.options.order.min(left),
            _ => self.options.order,
        };
        let order = most.min(self.history.len());
        let sample = self.update(&corrected, at.next, order, None)?;
        self.last = Some((corrected, order));
        Ok(Step {
            sample,
            pred_xstart: x_start,
        })
    }

    fn replaced(&mut self) {
        // A correction would go back to the image before, and undo the change.
        self.last = None;
    }

    fn reset(&mut self) {
        self.history.clear();
        self.last = None;
    }
}

impl<S: State> UniPc<S> {
    /// A step of `order` from the newest node to the level `to`, predicted, or corrected with the
    /// estimate at its end.
    fn update(&self, x: &S, to: Level, order: usize, end: Option<&S>) -> Result<S> {
        let Some((from, m0)) = self.history.front() else {
            return Err(Error::Invalid("UniPC without history".to_owned()));
        };
        let h = to.lambda() - from.lambda();
        let earlier: Vec<(f64, &S)> = self
            .history
            .iter()
            .skip(1)
            .take(order - 1)
            .map(|(level, m)| ((level.lambda() - from.lambda()) / h, m))
            .collect();
        let mut nodes: Vec<f64> = earlier.iter().map(|(r, _)| *r).collect();
        nodes.extend(end.map(|_| 1.0));
        let weights = weights(&nodes, h, self.options.kind)?;

        let kept = [to.sigma / from.sigma];
        let mut on_m0 = -(-h).exp_m1();
        let mut on_others = Vec::new();
        for (weight, r) in weights.iter().zip(&nodes) {
            on_m0 += weight / r;
            on_others.push([-to.alpha * weight / r]);
        }
        let on_m0 = [to.alpha * on_m0];
        let mut terms: Vec<(&[f64], &S)> = vec![(&kept, x), (&on_m0, m0)];
        let others = earlier.iter().map(|(_, m)| *m).chain(end);
        terms.extend(on_others.iter().map(|w| &w[..]).zip(others));
        S::combine(&terms)
    }
}

/// `B(h) rho_k` for the nodes at `r_k h`, the last of which is the end of the step if corrected.
fn weights(nodes: &[f64], h: f64, kind: UniPcKind) -> Result<Vec<f64>> {
    let count = nodes.len();
    let hh = -h;
    let b_h = match kind {
        UniPcKind::Bh1 => hh,
        UniPcKind::Bh2 => hh.exp_m1(),
    };
    // One unknown is taken to be 1/2, which suffices for its order; exact is phi_2 / B(h).
    if count == 1 {
        return Ok(vec![0.5 * b_h]);
    }
    // phi_(i+1) = (phi_i - 1 / i!) / hh, with phi_1 = (e^hh - 1) / hh; here times hh.
    let mut phi = hh.exp_m1() / hh - 1.0;
    let mut factorial = 1.0;
    let mut rows = Vec::with_capacity(count);
    for i in 0..count {
        let mut row: Vec<f64> = nodes.iter().map(|r| r.powi(i as i32)).collect();
        row.push(phi * factorial);
        rows.push(row);
        factorial *= (i + 2) as f64;
        phi = phi / hh - 1.0 / factorial;
    }
    solve(rows).ok_or_else(|| Error::Invalid(format!("UniPC with nodes {nodes:?} h apart")))
}

/// Solves a small linear system, given as rows with their right-hand side, by elimination with
/// pivots.
fn solve(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let n = rows.len();
    for column in 0..n {
        let pivot =
            (column..n).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()))?;
        rows.swap(column, pivot);
        let scale = rows[column][column];
        if scale == 0.0 || !scale.is_finite() {
            return None;
        }
        for other in 0..n {
            if other == column {
                continue;
            }
            let factor = rows[other][column] / scale;
            for k in column..=n {
                rows[other][k] -= factor * rows[column][k];
            }
        }
    }
    Some((0..n).map(|i| rows[i][n] / rows[i][i]).collect())
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;

    #[test]
    fn solves_small_systems() {
        let rows = vec![
            vec![0.0, 2.0, 1.0, 7.0],
            vec![1.0, 1.0, 1.0, 6.0],
            vec![3.0, -1.0, 2.0, 7.0],
        ];
        let x = solve(rows).unwrap();
        for (x, exact) in x.iter().zip([1.0, 2.0, 3.0]) {
            assert!((x - exact).abs() < 1e-12);
        }
        assert_eq!(solve(vec![vec![1.0, 1.0, 1.0], vec![2.0, 2.0, 2.0]]), None);
    }

    /// With all unknowns solved for, the step integrates polynomials through the nodes exactly:
    /// `-(weights) . s^p = int_0^h e^(-(h - s)) s^p ds`, p from 1.
    #[test]
    fn weights_integrate_polynomials() {
        let h: f64 = 0.5;
        let nodes: [f64; 3] = [-0.8, -1.7, 1.0];
        let weights = weights(&nodes, h, UniPcKind::Bh1).unwrap();
        for power in 1..=3 {
            let n = 20_000;
            let step = h / f64::from(n);
            let exact: f64 = (0..n)
                .map(|i| (f64::from(i) + 0.5) * step)
                .map(|s| (s - h).exp() * s.powi(power) * step)
                .sum();
            let ours: f64 = weights
                .iter()
                .zip(nodes)
                .map(|(w, r)| -w / r * (r * h).powi(power))
                .sum();
            assert!((ours - exact).abs() < 1e-8, "s^{power}: {ours} of {exact}");
        }
    }

    #[test]
    fn orders_that_do_not_exist_are_refused() {
        let new = |order| UniPc::<Array4<f32>>::new(UniPcOptions::new(order)).is_ok();
        assert!(!new(0) && new(1) && new(4) && !new(5));
    }
}
