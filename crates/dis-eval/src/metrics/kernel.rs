//! The kernel distance, KID (Binkowski et al., "Demystifying MMD GANs", 2018): the unbiased
//! estimate of the squared maximum mean discrepancy under the kernel `(x . y / d + 1)^3`, averaged
//! over random subsets.

use dis_tensor::random::{Purpose, Stream};
use faer::Mat;
use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;
use serde::Serialize;

use super::neighbours::{check, same_width};
use super::{MetricError, Result};

const METRIC: &str = "kernel distance";
/// Rows of a kernel matrix that are held at once.
const BLOCK: usize = 256;
/// Keys the two draws of a subset apart from those of other metrics.
const STREAM: u64 = 1 << 40;

/// How subsets are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KernelOptions {
    /// Number of subsets.
    pub subsets: usize,
    /// Points of each set in a subset, drawn without putting back; at most all there are.
    pub size: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self {
            subsets: 100,
            size: 1000,
            seed: 0,
        }
    }
}

/// The distance over subsets. As an unbiased estimate it may be below zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KernelDistance {
    /// Mean over subsets.
    pub mean: f64,
    /// Standard deviation over subsets (divisor: their number).
    pub std: f64,
    /// Number of subsets.
    pub subsets: usize,
    /// Points of each set in a subset.
    pub size: usize,
}

/// KID of `real` (n, d) and `samples` (m, d).
///
/// # Errors
/// If shapes do not agree, a set has fewer than two points, a value is not finite, or there are no
/// subsets.
pub fn kernel_distance(
    real: ArrayView2<'_, f32>,
    samples: ArrayView2<'_, f32>,
    options: KernelOptions,
) -> Result<KernelDistance> {
    check(METRIC, "reference images", real, 2)?;
    check(METRIC, "samples", samples, 2)?;
    same_width(METRIC, ("reference images", real), ("samples", samples))?;
    let size = options.size.min(real.nrows()).min(samples.nrows());
    if options.subsets == 0 || size < 2 {
        return Err(MetricError::Invalid {
            metric: METRIC,
            what: format!(
                "{} subsets of {size} points: it takes one subset of two points",
                options.subsets
            ),
        });
    }
    let values: Vec<f64> = (0..options.subsets as u64)
        .into_par_iter()
        .map(|subset| {
            let pick = |points: ArrayView2<'_, f32>, which: u64| {
                let mut stream = Stream::new(options.seed, Purpose::Metric, STREAM + which, subset);
                let rows = choose(&mut stream, points.nrows(), size);
                wide(points.select(Axis(0), &rows).view())
            };
            discrepancy(&pick(real, 0), &pick(samples, 1))
        })
        .collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
    Ok(KernelDistance {
        mean,
        std: variance.sqrt(),
        subsets: options.subsets,
        size,
    })
}

/// The unbiased squared discrepancy of all of `x` (n, d) and `y` (m, d), without subsets.
///
/// # Errors
/// As [`kernel_distance`].
pub fn squared_discrepancy(x: ArrayView2<'_, f32>, y: ArrayView2<'_, f32>) -> Result<f64> {
    check(METRIC, "reference images", x, 2)?;
    check(METRIC, "samples", y, 2)?;
    same_width(METRIC, ("reference images", x), ("samples", y))?;
    Ok(discrepancy(&wide(x), &wide(y)))
}

fn wide(points: ArrayView2<'_, f32>) -> Mat<f64> {
    Mat::from_fn(points.nrows(), points.ncols(), |i, j| {
        f64::from(points[[i, j]])
    })
}

fn discrepancy(x: &Mat<f64>, y: &Mat<f64>) -> f64 {
    let (n, m) = (x.nrows() as f64, y.nrows() as f64);
    // Without the diagonal where a point would meet itself.
    kernel_sum(x, x, true) / (n * (n - 1.0)) + kernel_sum(y, y, true) / (m * (m - 1.0))
        - 2.0 * kernel_sum(x, y, false) / (n * m)
}

/// Sum of the kernel over all pairs, or over all pairs of different rows.
fn kernel_sum(x: &Mat<f64>, y: &Mat<f64>, different: bool) -> f64 {
    let d = x.ncols().max(1) as f64;
    let mut sum = 0.0;
    for start in (0..x.nrows()).step_by(BLOCK) {
        let rows = BLOCK.min(x.nrows() - start);
        let products = x.subrows(start, rows) * y.transpose();
        for j in 0..y.nrows() {
            let mut column = 0.0;
            for i in 0..rows {
                if !(different && start + i == j) {
                    let k = products[(i, j)] / d + 1.0;
                    column += k * k * k;
                }
            }
            sum += column;
        }
    }
    sum
}

/// `size` different rows of `n`, in the order drawn (the beginning of a Fisher-Yates shuffle).
fn choose(stream: &mut Stream, n: usize, size: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in 0..size {
        let other = i + stream.below((n - i) as u64) as usize;
        order.swap(i, other);
    }
    order.truncate(size);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use proptest::prelude::*;

    fn random(n: usize, d: usize, seed: u64) -> Array2<f32> {
        let mut s = Stream::new(seed, Purpose::Test, 0, 0);
        Array2::from_shape_fn((n, d), |_| s.normal() as f32)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn equals_the_double_sum(
            n in 2usize..300, m in 2usize..40, d in 1usize..9, seed in any::<u64>(),
        ) {
            let (x, y) = (random(n, d, seed), random(m, d, seed ^ 1));
            let kernel = |a: usize, b: usize, p: &Array2<f32>, q: &Array2<f32>| {
                let mut dot = 0.0;
                for j in 0..d {
                    dot += f64::from(p[[a, j]]) * f64::from(q[[b, j]]);
                }
                (dot / d as f64 + 1.0).powi(3)
            };
            let mean = |p: &Array2<f32>, q: &Array2<f32>, same: bool| {
                let (mut sum, mut pairs) = (0.0, 0.0);
                for a in 0..p.nrows() {
                    for b in 0..q.nrows() {
                        if !(same && a == b) {
                            sum += kernel(a, b, p, q);
                            pairs += 1.0;
                        }
                    }
                }
                sum / pairs
            };
            let expected = mean(&x, &x, true) + mean(&y, &y, true) - 2.0 * mean(&x, &y, false);
            let ours = squared_discrepancy(x.view(), y.view()).unwrap();
            prop_assert!((ours - expected).abs() < 1e-10 * (1.0 + expected.abs()));
        }
    }

    #[test]
    fn subsets_of_everything_are_the_whole() {
        let (x, y) = (random(20, 3, 1), random(20, 3, 2));
        let options = KernelOptions {
            subsets: 4,
            ..KernelOptions::default()
        };
        let over = kernel_distance(x.view(), y.view(), options).unwrap();
        let whole = squared_discrepancy(x.view(), y.view()).unwrap();
        assert_eq!((over.size, over.subsets), (20, 4));
        assert!((over.mean - whole).abs() < 1e-12 && over.std < 1e-12);
    }

    #[test]
    fn equal_distributions_are_near_zero_and_shifted_ones_are_not() {
        let (x, y) = (random(600, 8, 1), random(600, 8, 2));
        let options = KernelOptions {
            subsets: 30,
            size: 200,
            seed: 5,
        };
        let same = kernel_distance(x.view(), y.view(), options).unwrap();
        let moved = kernel_distance(x.view(), (&y + 0.5).view(), options).unwrap();
        // The mean over subsets spreads less than one of them.
        assert!(same.mean.abs() < 3.0 * same.std, "{same:?}");
        assert!(moved.mean > 10.0 * same.std, "{moved:?} {same:?}");
        assert_eq!(
            same,
            kernel_distance(x.view(), y.view(), options).unwrap(),
            "a seed gives the same subsets"
        );
    }

    #[test]
    fn draws_are_different_rows() {
        let mut stream = Stream::new(0, Purpose::Test, 0, 0);
        for (n, size) in [(1, 1), (5, 3), (9, 9), (7, 0)] {
            let mut rows = choose(&mut stream, n, size);
            rows.sort_unstable();
            rows.dedup();
            assert_eq!(rows.len(), size);
            assert!(rows.iter().all(|&r| r < n));
        }
    }

    #[test]
    fn bad_arguments_are_named() {
        let x = random(5, 3, 0);
        let none = KernelOptions {
            subsets: 0,
            ..KernelOptions::default()
        };
        assert!(kernel_distance(x.view(), x.view(), none).is_err());
        let wide = random(5, 4, 0);
        assert!(matches!(
            squared_discrepancy(x.view(), wide.view()),
            Err(MetricError::Mismatch { .. })
        ));
        assert!(matches!(
            squared_discrepancy(x.view(), x.slice(ndarray::s![..1, ..])),
            Err(MetricError::TooFew { .. })
        ));
    }
}
