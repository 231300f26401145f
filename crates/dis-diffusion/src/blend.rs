//! Between two noises, and between two conditions.

use ndarray::{Array4, Axis};

use crate::state::same_dims;
use crate::{Conditional, Error, Result, State};

/// Spherical interpolation between two arrays of noise, sample by sample (White, "Sampling
/// Generative Networks", 2016): `(sin((1 - w) o) a + sin(w o) b) / sin(o)` with o the angle between
/// them, so that the result is as long as noise should be. Weight 0 gives `a`, 1 gives `b`; one
/// weight for each sample, or one for all. Nearly parallel arrays are interpolated linearly.
///
/// # Errors
/// Shapes that differ, or a wrong number of weights.
pub fn slerp(a: &Array4<f32>, b: &Array4<f32>, weights: &[f64]) -> Result<Array4<f32>> {
    same_dims("second noise", b, a)?;
    let batch = a.dim().0;
    if weights.len() != 1 && weights.len() != batch {
        return Err(Error::Count {
            what: "interpolation weights",
            got: weights.len(),
            expected: batch,
        });
    }
    let (mut on_a, mut on_b) = (Vec::with_capacity(batch), Vec::with_capacity(batch));
    for row in 0..batch {
        let w = weights[if weights.len() == 1 { 0 } else { row }];
        let (a, b) = (a.index_axis(Axis(0), row), b.index_axis(Axis(0), row));
        let pairs = || {
            a.iter()
                .zip(&b)
                .map(|(a, b)| (f64::from(*a), f64::from(*b)))
        };
        let dot: f64 = pairs().map(|(a, b)| a * b).sum();
        let squares = pairs().fold((0.0, 0.0), |(s, t), (a, b)| (s + a * a, t + b * b));
        let angle = (dot / (squares.0 * squares.1).sqrt())
            .clamp(-1.0, 1.0)
            .acos();
        // Also where one of the two is zero and there is no angle. Exact at both ends.
        if angle.sin() < 1e-6 || angle.is_nan() || w == 0.0 || w == 1.0 {
            on_a.push(1.0 - w);
            on_b.push(w);
        } else {
            on_a.push(((1.0 - w) * angle).sin() / angle.sin());
            on_b.push((w * angle).sin() / angle.sin());
        }
    }
    Array4::combine(&[(&on_a, a), (&on_b, b)])
}

/// A network between two conditions: the output is `(1 - w)` times that under the first and w times
/// that under the second. Only outputs are blended, so any conditional network will do. The network
/// is called a second time, for the samples whose weight asks for it.
///
/// Sample i of the batch is seen between conditions `pairs[i].0` and `pairs[i].1` of the network
/// inside, which number what it holds (labels, for a model).
#[derive(Clone, Debug)]
pub struct Blended<D> {
    network: D,
    pairs: Vec<(usize, usize)>,
    weights: Vec<f64>,
}

impl<D> Blended<D> {
    /// A pair of conditions and a weight in [0, 1] for each sample.
    ///
    /// # Errors
    /// Not as many weights as pairs, or weights outside [0, 1].
    pub fn new(network: D, pairs: Vec<(usize, usize)>, weights: Vec<f64>) -> Result<Self> {
        if pairs.len() != weights.len() {
            return Err(Error::Count {
                what: "blend weights",
                got: weights.len(),
                expected: pairs.len(),
            });
        }
        if let Some(w) = weights.iter().find(|w| !(0.0..=1.0).contains(*w)) {
            return Err(Error::Invalid(format!("blend weight {w} is not in [0, 1]")));
        }
        Ok(Self {
            network,
            pairs,
            weights,
        })
    }

    fn sample(&self, row: usize) -> Result<(usize, usize, f64)> {
        match (self.pairs.get(row), self.weights.get(row)) {
            (Some((first, second)), Some(weight)) => Ok((*first, *second, *weight)),
            _ => Err(Error::Invalid(format!(
                "sample {row} has no conditions to blend: {} were given",
                self.pairs.len()
            ))),
        }
    }
}

impl<S: State, D: Conditional<S>> Conditional<S> for Blended<D> {
    fn predict_rows(&mut self, x: &S, t: &[f64], conditions: &[Option<usize>]) -> Result<S> {
        let rows = x.dims()[0];
        for (what, got) in [("timesteps", t.len()), ("conditions", conditions.len())] {
            if got != rows {
                return Err(Error::Count {
                    what,
                    got,
                    expected: rows,
                });
            }
        }
        // Per row: the condition that counts most at weight 0, and the other with its weight.
        let mut first = Vec::with_capacity(rows);
        let mut second = Vec::with_capacity(rows);
        for condition in conditions {
            let (a, b) = match condition {
                None => (None, None),
                Some(row) => match self.sample(*row)? {
                    (a, _, 0.0) => (Some(a), None),
                    (_, b, 1.0) => (Some(b), None),
                    (a, b, w) => (Some(a), Some((b, w))),
                },
            };
            first.push(a);
            second.push(b);
        }
        let output = self.network.predict_rows(x, t, &first)?;
        // Runs of rows that need the second condition go together in one call.
        let runs = runs(&second);
        if runs.is_empty() {
            return Ok(output);
        }
        let mut parts = Vec::new();
        for run in &runs {
            parts.push(x.rows(run.clone())?);
        }
        let picked: Vec<(f64, usize, f64)> = t
            .iter()
            .zip(&second)
            .filter_map(|(t, pair)| pair.map(|(b, w)| (*t, b, w)))
            .collect();
        let again = self.network.predict_rows(
            &S::stack(&parts.iter().collect::<Vec<_>>())?,
            &picked.iter().map(|p| p.0).collect::<Vec<_>>(),
            &picked.iter().map(|p| Some(p.1)).collect::<Vec<_>>(),
        )?;
        let (mut pieces, mut end, mut used) = (Vec::new(), 0, 0);
        for run in runs {
            if end < run.start {
                pieces.push(output.rows(end..run.start)?);
            }
            let count = run.len();
            let weights: Vec<f64> = picked[used..used + count].iter().map(|p| p.2).collect();
            let rest: Vec<f64> = weights.iter().map(|w| 1.0 - w).collect();
            pieces.push(S::combine(&[
                (&rest, &output.rows(run.clone())?),
                (&weights, &again.rows(used..used + count)?),
            ])?);
            (end, used) = (run.end, used + count);
        }
        if end < rows {
            pieces.push(output.rows(end..rows)?);
        }
        S::stack(&pieces.iter().collect::<Vec<_>>())
    }
}

/// Stretches of consecutive rows that are there.
fn runs<T>(rows: &[Option<T>]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (row, _) in rows.iter().enumerate().filter(|(_, r)| r.is_some()) {
        match runs.last_mut() {
            Some(run) if run.end == row => run.end += 1,
            _ => runs.push(row..row + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SeededNoise, from_conditional_fn};

    #[test]
    fn slerp_keeps_the_length_of_noise() {
        let noise = |seed| SeededNoise::new(seed, 0..3).start([3, 16, 16]);
        let (a, b) = (noise(1), noise(2));
        assert_eq!(slerp(&a, &b, &[0.0]).unwrap(), a);
        assert_eq!(slerp(&a, &b, &[1.0]).unwrap(), b);
        let mid = slerp(&a, &b, &[0.0, 0.5, 0.3]).unwrap();
        assert_eq!(mid.rows(0..1).unwrap(), a.rows(0..1).unwrap());
        let length = |x: &Array4<f32>, row| {
            let row = x.index_axis(Axis(0), row);
            row.iter()
                .map(|v| f64::from(*v).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        for row in 0..3 {
            let (low, high) = (
                length(&a, row).min(length(&b, row)),
                length(&a, row).max(length(&b, row)),
            );
            assert!((low - 1e-3..high + 1e-3).contains(&length(&mid, row)));
        }
        // The same noise twice has no angle.
        let same = slerp(&a, &a, &[0.4]).unwrap();
        assert!(same.iter().zip(&a).all(|(x, y)| (x - y).abs() < 1e-6));
        assert!(slerp(&a, &b, &[0.1, 0.2]).is_err());
    }

    #[test]
    fn outputs_are_blended_where_asked_and_nowhere_else() {
        let mut calls = Vec::new();
        let inner = from_conditional_fn(|x: &Array4<f32>, _: &[f64], rows: &[Option<usize>]| {
            calls.push(rows.to_vec());
            Array4::from_shape_fn(x.dim(), |(row, ..)| rows[row].map_or(-1.0, |c| c as f32))
        });
        let pairs = vec![(10, 20), (10, 20), (10, 20), (30, 50)];
        let mut network = Blended::new(inner, pairs, vec![0.0, 0.25, 1.0, 0.5]).unwrap();
        let rows = [Some(0), Some(1), None, Some(2), Some(3)];
        let x = Array4::zeros((5, 1, 1, 1));
        let y = network.predict_rows(&x, &[1.0; 5], &rows).unwrap();
        assert_eq!(
            y.into_raw_vec_and_offset().0,
            [10.0, 12.5, -1.0, 20.0, 40.0]
        );
        assert!(network.predict_rows(&x, &[1.0; 5], &[Some(4); 5]).is_err());
        drop(network);
        assert_eq!(calls[1], [Some(20), Some(50)]);
    }

    #[test]
    fn weights_outside_the_range_are_refused() {
        assert!(Blended::new((), vec![(0, 1)], vec![1.5]).is_err());
        assert!(Blended::new((), vec![(0, 1)], vec![]).is_err());
    }
}
