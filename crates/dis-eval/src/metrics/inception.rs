//! The Inception score (Salimans et al., "Improved techniques for training GANs", 2016):
//! `exp(mean over x of KL(p(y | x) || p(y)))`, with the class probabilities of some classifier.

use ndarray::{Array2, ArrayView2, Axis};
use serde::Serialize;

use super::{MetricError, Result};

const METRIC: &str = "Inception score";

/// Mean and standard deviation (divisor: number of splits) over splits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct InceptionScore {
    /// Mean of the splits' scores.
    pub mean: f64,
    /// Their standard deviation.
    pub std: f64,
}

/// The score of `probabilities` (n, classes), rows that add up to 1. Row `i` belongs to split
/// `i * splits / n`: samples must come in random order, since samples in order of their classes
/// would make splits of few classes.
///
/// # Errors
/// If there are fewer rows than splits, no split, or rows that are no probabilities.
pub fn inception_score(
    probabilities: ArrayView2<'_, f64>,
    splits: usize,
) -> Result<InceptionScore> {
    let n = probabilities.nrows();
    if splits == 0 {
        return Err(MetricError::Invalid {
            metric: METRIC,
            what: "splits must be at least 1, not 0".into(),
        });
    }
    if n < splits {
        return Err(MetricError::TooFew {
            metric: METRIC,
            name: "samples, one a split,",
            needed: splits,
            found: n,
        });
    }
    for (row, p) in probabilities.rows().into_iter().enumerate() {
        if p.iter().any(|v| !v.is_finite()) {
            return Err(MetricError::NotFinite {
                metric: METRIC,
                name: "samples",
                row,
            });
        }
        if p.iter().any(|v| *v < 0.0) || (p.sum() - 1.0).abs() > 1e-4 {
            return Err(MetricError::Invalid {
                metric: METRIC,
                what: format!(
                    "row {row} holds no probabilities (their sum is {})",
                    p.sum()
                ),
            });
        }
    }
    let scores: Vec<f64> = (0..splits)
        .map(|i| {
            let (start, end) = (i * n / splits, (i + 1) * n / splits);
            score(probabilities.slice(ndarray::s![start..end, ..]))
        })
        .collect();
    let mean = scores.iter().sum::<f64>() / splits as f64;
    let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / splits as f64;
    Ok(InceptionScore {
        mean,
        std: variance.sqrt(),
    })
}

fn score(part: ArrayView2<'_, f64>) -> f64 {
    let n = part.nrows() as f64;
    let marginal = part.sum_axis(Axis(0)) / n;
    let mut sum = 0.0;
    for row in part.rows() {
        for (p, q) in row.iter().zip(&marginal) {
            // The limit of p ln p at 0 is 0.
            if *p > 0.0 {
                sum += p * (p.ln() - q.ln());
            }
        }
    }
    // A divergence is not negative; rounding can make it so where all rows are equal.
    (sum / n).max(0.0).exp()
}

/// Probabilities (n, classes) of logits of the same shape.
pub fn softmax(logits: ArrayView2<'_, f32>) -> Array2<f64> {
    let mut out = logits.mapv(f64::from);
    for mut row in out.rows_mut() {
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row.mapv_inplace(|v| (v - most).exp());
        let sum = row.sum();
        row /= sum;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    #[test]
    fn certain_and_even_samples_reach_the_number_of_classes() {
        let eye = Array2::<f64>::eye(5);
        let score = inception_score(eye.view(), 1).unwrap();
        assert!((score.mean - 5.0).abs() < 1e-12 && score.std == 0.0);
        // One class only: nothing is learned from a sample.
        let same = array![[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]];
        assert_eq!(inception_score(same.view(), 1).unwrap().mean, 1.0);
        // In order of classes each split holds one class, which is why samples are shuffled.
        assert_eq!(inception_score(eye.view(), 5).unwrap().mean, 1.0);
    }

    proptest! {
        #[test]
        fn lies_between_one_and_the_number_of_classes(
            n in 1usize..40, classes in 1usize..8, seed in any::<u64>(), splits in 1usize..5,
        ) {
            use dis_tensor::random::{Purpose, Stream};
            let mut s = Stream::new(seed, Purpose::Test, 0, 0);
            let logits = Array2::from_shape_fn((n, classes), |_| 4.0 * s.normal() as f32);
            let p = softmax(logits.view());
            for row in p.rows() {
                prop_assert!((row.sum() - 1.0).abs() < 1e-12);
            }
            let splits = splits.min(n);
            let score = inception_score(p.view(), splits).unwrap();
            prop_assert!(score.mean > 1.0 - 1e-12 && score.mean < classes as f64 + 1e-9);
        }
    }

    #[test]
    fn refuses_what_are_no_probabilities() {
        let bad = array![[0.5, 0.5], [0.7, 0.7]];
        let e = inception_score(bad.view(), 1).unwrap_err().to_string();
        assert!(e.contains("row 1"), "{e}");
        let good = array![[0.5, 0.5]];
        assert!(matches!(
            inception_score(good.view(), 2),
            Err(MetricError::TooFew { .. })
        ));
        assert!(inception_score(good.view(), 0).is_err());
        let nan = array![[f64::NAN, 0.5]];
        assert!(matches!(
            inception_score(nan.view(), 1),
            Err(MetricError::NotFinite { row: 0, .. })
        ));
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let p = softmax(array![[1e30f32, -1e30], [3e38, 3e38]].view());
        assert_eq!(p, array![[1.0, 0.0], [0.5, 0.5]]);
    }
}
