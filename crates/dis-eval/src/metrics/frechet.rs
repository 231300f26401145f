//! The Frechet distance between two Gaussians (Dowson and Landau, 1982), in float64:
//! `|mu1 - mu2|^2 + tr(sigma1) + tr(sigma2) - 2 tr((sigma1 sigma2)^(1/2))`.
//!
//! The usual way takes the square root of the product, which is not symmetric and loses digits when
//! a covariance is singular. Here the last trace is the sum of the singular values of
//! `sigma1^(1/2) sigma2^(1/2)` (whose Gram matrix is `sigma1^(1/2) sigma2 sigma1^(1/2)`, the
//! symmetric form): two symmetric square roots and one SVD, and no square root of a rounding error.

use faer::{Mat, Side};
use ndarray::{Array1, Array2, ArrayView2};

use super::moments::moments;
use super::neighbours::check;
use super::{MetricError, Result};

const METRIC: &str = "Frechet distance";
/// Added to both diagonals when a decomposition fails or gives values that are not finite.
const OFFSET: f64 = 1e-6;

/// Mean and covariance of a set of points.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Mean, (d).
    pub mu: Array1<f64>,
    /// Covariance with divisor n - 1, (d, d).
    pub sigma: Array2<f64>,
}

impl Statistics {
    /// Statistics of `features`, (n, d) with n at least 2.
    ///
    /// # Errors
    /// If there are fewer than two points, or a value is not finite.
    pub fn from_features(features: ArrayView2<'_, f64>) -> Result<Self> {
        let (n, d) = features.dim();
        if n < 2 {
            return Err(MetricError::TooFew {
                metric: METRIC,
                name: "points",
                needed: 2,
                found: n,
            });
        }
        for (row, point) in features.rows().into_iter().enumerate() {
            if !point.iter().all(|v| v.is_finite()) {
                return Err(MetricError::NotFinite {
                    metric: METRIC,
                    name: "points",
                    row,
                });
            }
        }
        let mut mu = Array1::zeros(d);
        for point in features.rows() {
            mu += &point;
        }
        mu /= n as f64;
        let centered = &features - &mu;
        // faer's product, as ndarray has none of its own speed without a BLAS.
        let x = Mat::from_fn(n, d, |i, j| centered[[i, j]]);
        let gram = x.transpose() * &x;
        let sigma = Array2::from_shape_fn((d, d), |(i, j)| {
            // Both halves rounded alike, so that sigma is symmetric to the bit.
            gram[(i.max(j), i.min(j))] / (n - 1) as f64
        });
        Ok(Self { mu, sigma })
    }

    /// Statistics of float32 points, a block at a time: memory does not grow with their number.
    ///
    /// # Errors
    /// As [`Statistics::from_features`].
    pub fn from_points(points: ArrayView2<'_, f32>) -> Result<Self> {
        check(METRIC, "points", points, 2)?;
        let (mu, sigma) = moments(points, None);
        Ok(Self { mu, sigma })
    }

    /// As [`Statistics::from_points`], with row i counted `counts[i]` times, as the bootstrap
    /// draws them.
    ///
    /// # Errors
    /// As [`Statistics::from_points`], or if there is not one count a point.
    pub fn from_counted(points: ArrayView2<'_, f32>, counts: &[u32]) -> Result<Self> {
        check(METRIC, "points", points, 2)?;
        if counts.len() != points.nrows() {
            return Err(MetricError::Mismatch {
                metric: METRIC,
                unit: "rows",
                left_name: "the set of points",
                left: points.nrows(),
                right_name: "their counts",
                right: counts.len(),
            });
        }
        let (mu, sigma) = moments(points, Some(counts));
        Ok(Self { mu, sigma })
    }
}

/// Frechet distance of two Gaussians, at least 0: what rounding puts below it, for equal ones, is 0.
///
/// # Errors
/// If shapes do not agree, or the result is not finite even with the offset.
pub fn frechet_distance(a: &Statistics, b: &Statistics) -> Result<f64> {
    let d = a.mu.len();
    let mismatch = |right| MetricError::Mismatch {
        metric: METRIC,
        unit: "dimensions",
        left_name: "the first mean",
        left: d,
        right_name: "another part",
        right,
    };
    let sides = [
        b.mu.len(),
        a.sigma.nrows(),
        a.sigma.ncols(),
        b.sigma.nrows(),
        b.sigma.ncols(),
    ];
    if let Some(&other) = sides.iter().find(|&&s| s != d) {
        return Err(mismatch(other));
    }
    let means: f64 = a.mu.iter().zip(&b.mu).map(|(x, y)| (x - y).powi(2)).sum();
    let traces = a.sigma.diag().sum() + b.sigma.diag().sum();
    if !(means + traces).is_finite() {
        return Err(MetricError::Invalid {
            metric: METRIC,
            what: "statistics not finite".into(),
        });
    }
    let covariance = root_trace(a, b, 0.0).or_else(|| root_trace(a, b, OFFSET));
    match covariance {
        Some(trace) => Ok((means + traces - 2.0 * trace).max(0.0)),
        None => Err(MetricError::Invalid {
            metric: METRIC,
            what: "a decomposition failed".into(),
        }),
    }
}

/// tr((sigma1 sigma2)^(1/2)) with `offset` on both diagonals; `None` unless finite.
fn root_trace(a: &Statistics, b: &Statistics, offset: f64) -> Option<f64> {
    let product = square_root(&a.sigma, offset)? * square_root(&b.sigma, offset)?;
    let trace: f64 = product.singular_values().ok()?.iter().sum();
    trace.is_finite().then_some(trace)
}

/// The symmetric square root of a covariance; eigenvalues that rounding made negative count as 0.
fn square_root(sigma: &Array2<f64>, offset: f64) -> Option<Mat<f64>> {
    let d = sigma.nrows();
    if !sigma.iter().all(|v| v.is_finite()) {
        return None;
    }
    let m = Mat::from_fn(d, d, |i, j| {
        0.5 * (sigma[[i, j]] + sigma[[j, i]]) + if i == j { offset } else { 0.0 }
    });
    let eigen = m.self_adjoint_eigen(Side::Lower).ok()?;
    let (u, s) = (eigen.U(), eigen.S());
    let scaled = Mat::from_fn(d, d, |i, j| u[(i, j)] * s[j].max(0.0).sqrt());
    Some(scaled * u.transpose())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dis_golden::Golden;
    use dis_tensor::random::{Purpose, Stream};
    use ndarray::array;
    use proptest::prelude::*;

    fn matrix(g: &Golden, name: &str) -> Array2<f64> {
        let (shape, values) = g.f64(name);
        Array2::from_shape_vec((shape[0], shape[1]), values).unwrap()
    }

    fn statistics(g: &Golden, prefix: &str, which: u8) -> Statistics {
        let mu = Array1::from_vec(g.f64(&format!("{prefix}.mu{which}")).1);
        Statistics {
            mu,
            sigma: matrix(g, &format!("{prefix}.sigma{which}")),
        }
    }

    #[test]
    fn equals_the_published_tool() {
        let g = Golden::open("frechet_distance");
        for case in g.manifest["cases"].as_array().unwrap() {
            let singular = case.get("name").is_some();
            let prefix = match singular {
                true => "singular".to_owned(),
                false => format!("d{}", case["dim"]),
            };
            let (a, b) = (statistics(&g, &prefix, 1), statistics(&g, &prefix, 2));
            let ours = frechet_distance(&a, &b).unwrap();
            let check = |key: &str, rtol: f64| {
                let theirs = case[key].as_f64().unwrap();
                println!("{prefix} {key}: {ours} against {theirs}");
                assert!(
                    (ours / theirs - 1.0).abs() <= rtol,
                    "{prefix}: {ours} {theirs}"
                );
            };
            let tolerance = |key: &str| g.manifest["tolerance"][key].as_f64().unwrap();
            if singular {
                check("frechet_distance", tolerance("singular_rtol"));
                check("via_eigenvalues", 1e-7);
            } else {
                check("frechet_distance", tolerance("rtol"));
                let same = frechet_distance(&a, &a).unwrap();
                assert!(same.abs() < 1e-9, "{prefix}: {same}");
            }
        }
        let features = matrix(&g, "d4.features1");
        let ours = Statistics::from_features(features.view()).unwrap();
        let theirs = statistics(&g, "d4", 1);
        for (x, y) in ours
            .sigma
            .iter()
            .chain(&ours.mu)
            .zip(theirs.sigma.iter().chain(&theirs.mu))
        {
            assert!((x - y).abs() < 1e-12);
        }
    }

    fn random(n: usize, d: usize, seed: u64) -> Array2<f64> {
        let mut s = Stream::new(seed, Purpose::Test, 0, 0);
        Array2::from_shape_fn((n, d), |_| s.normal())
    }

    proptest! {
        /// For covariances that share their axes the trace is a sum over axes; axes may be empty.
        #[test]
        fn diagonal_covariances_have_a_closed_form(
            pairs in prop::collection::vec((0.0f64..4.0, 0.0f64..4.0, any::<bool>()), 1..9),
        ) {
            let d = pairs.len();
            let make = |f: &dyn Fn(usize) -> f64| Statistics {
                mu: Array1::zeros(d),
                sigma: Array2::from_shape_fn((d, d), |(i, j)| if i == j { f(i) } else { 0.0 }),
            };
            let first = |i: usize| if pairs[i].2 { pairs[i].0 } else { 0.0 };
            let (a, b) = (make(&first), make(&|i| pairs[i].1));
            let expected: f64 =
                (0..d).map(|i| (first(i).sqrt() - pairs[i].1.sqrt()).powi(2)).sum();
            prop_assert!((frechet_distance(&a, &b).unwrap() - expected).abs() < 1e-10);
        }

        #[test]
        fn symmetric_shift_and_covariance(n in 2usize..30, d in 1usize..12, seed in any::<u64>()) {
            let (x, y) = (random(n, d, seed), random(n + 1, d, seed ^ 1));
            let (a, b) = (
                Statistics::from_features(x.view()).unwrap(),
                Statistics::from_features(y.view()).unwrap(),
            );
            for i in 0..d {
                for j in 0..d {
                    let c: f64 = (0..n)
                        .map(|k| (x[[k, i]] - a.mu[i]) * (x[[k, j]] - a.mu[j]))
                        .sum();
                    prop_assert!((a.sigma[[i, j]] - c / (n - 1) as f64).abs() < 1e-10);
                }
            }
            let (ab, ba) = (frechet_distance(&a, &b).unwrap(), frechet_distance(&b, &a).unwrap());
            prop_assert!((ab - ba).abs() < 1e-9);
            prop_assert!(ab > -1e-9);
            // Moving one set by v adds |v|^2 for equal covariances.
            let moved = Statistics { mu: &a.mu + 2.0, sigma: a.sigma.clone() };
            let fd = frechet_distance(&a, &moved).unwrap();
            prop_assert!((fd - 4.0 * d as f64).abs() < 1e-8);
        }
    }

    #[test]
    fn refuses_what_is_no_statistic() {
        let one = array![[1.0, 2.0]];
        assert!(matches!(
            Statistics::from_features(one.view()),
            Err(MetricError::TooFew { found: 1, .. })
        ));
        let bad = array![[1.0, 2.0], [f64::NAN, 0.0]];
        let e = Statistics::from_features(bad.view()).unwrap_err();
        assert!(matches!(e, MetricError::NotFinite { row: 1, .. }));
        let a = Statistics::from_features(random(9, 3, 0).view()).unwrap();
        let b = Statistics::from_features(random(9, 4, 0).view()).unwrap();
        assert!(matches!(
            frechet_distance(&a, &b),
            Err(MetricError::Mismatch { .. })
        ));
        let inf = Statistics {
            sigma: &a.sigma * f64::INFINITY,
            ..a.clone()
        };
        assert!(matches!(
            frechet_distance(&a, &inf),
            Err(MetricError::Invalid { .. })
        ));
    }
}
