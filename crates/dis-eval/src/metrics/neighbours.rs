//! Metrics from Euclidean nearest neighbours: classification, coverage, distances.
//!
//! Distances are exact sums of squared differences in float64. Rows are spread over threads; each
//! result belongs to one row, so the number of threads changes nothing.

use ndarray::{ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use super::{MetricError, Result};

pub(super) fn check(
    metric: &'static str,
    name: &'static str,
    points: ArrayView2<'_, f32>,
    needed: usize,
) -> Result<()> {
    let found = points.nrows();
    if found < needed {
        return Err(MetricError::TooFew {
            metric,
            name,
            needed,
            found,
        });
    }
    match points
        .rows()
        .into_iter()
        .position(|p| !p.iter().all(|v| v.is_finite()))
    {
        Some(row) => Err(MetricError::NotFinite { metric, name, row }),
        None => Ok(()),
    }
}

fn same(
    metric: &'static str,
    unit: &'static str,
    (left_name, left): (&'static str, usize),
    (right_name, right): (&'static str, usize),
) -> Result<()> {
    if left == right {
        return Ok(());
    }
    Err(MetricError::Mismatch {
        metric,
        unit,
        left_name,
        left,
        right_name,
        right,
    })
}

pub(super) fn same_width(
    metric: &'static str,
    a: (&'static str, ArrayView2<'_, f32>),
    b: (&'static str, ArrayView2<'_, f32>),
) -> Result<()> {
    same(metric, "dimensions", (a.0, a.1.ncols()), (b.0, b.1.ncols()))
}

pub(super) fn squared_distance(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f64 {
    let square = |x: &f32, y: &f32| (f64::from(*x) - f64::from(*y)).powi(2);
    let (Some(a), Some(b)) = (a.to_slice(), b.to_slice()) else {
        return a.iter().zip(b).map(|(x, y)| square(x, y)).sum();
    };
    // Independent sums, so that the compiler may use vectors.
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let tail: f64 = tail.map(|(x, y)| square(x, y)).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for (sum, (x, y)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += square(x, y);
        }
    }
    sums.iter().sum::<f64>() + tail
}

/// The `k` points nearest to `query` as (squared distance, row), nearest first, equal distances by
/// row; without row `skip`.
fn nearest(
    points: ArrayView2<'_, f32>,
    query: ArrayView1<'_, f32>,
    skip: Option<usize>,
    k: usize,
) -> Vec<(f64, usize)> {
    let mut best: Vec<(f64, usize)> = Vec::with_capacity(k + 1);
    for (row, point) in points.rows().into_iter().enumerate() {
        if Some(row) == skip {
            continue;
        }
        let d = squared_distance(point, query);
        if best.len() == k && best.last().is_none_or(|worst| d >= worst.0) {
            continue;
        }
        let at = best.partition_point(|b| b.0 <= d);
        best.insert(at, (d, row));
        best.truncate(k);
    }
    best
}

/// The squared distance of every point to its k-th nearest other point, for each of `ks`, which must
/// be smaller than the number of points.
pub(super) fn squared_radii(points: ArrayView2<'_, f32>, ks: &[usize]) -> Vec<Vec<f64>> {
    let most = ks.iter().copied().max().unwrap_or(0);
    let all = each_row(points, |i, point| nearest(points, point, Some(i), most));
    let radius = |near: &Vec<(f64, usize)>, k: usize| near.get(k - 1).map_or(0.0, |n| n.0);
    ks.iter()
        .map(|&k| all.iter().map(|near| radius(near, k)).collect())
        .collect()
}

/// Runs `f` on every row, in parallel, results in order of rows.
pub(super) fn each_row<T: Send>(
    points: ArrayView2<'_, f32>,
    f: impl Fn(usize, ArrayView1<'_, f32>) -> T + Sync,
) -> Vec<T> {
    let rows: Vec<_> = points.axis_iter(Axis(0)).collect();
    rows.into_par_iter()
        .enumerate()
        .map(|(i, row)| f(i, row))
        .collect()
}

/// The label most frequent among neighbours; of equally frequent ones that whose nearest member is
/// nearest.
fn vote(neighbours: &[(f64, usize)], labels: &[u32]) -> u32 {
    let count = |label: u32| neighbours.iter().filter(|n| labels[n.1] == label).count();
    let mut winner = (0, 0);
    for &(_, row) in neighbours {
        let votes = count(labels[row]);
        if votes > winner.0 {
            winner = (votes, labels[row]);
        }
    }
    winner.1
}

pub(super) fn fraction(hits: impl Iterator<Item = bool>) -> f64 {
    let (mut n, mut yes) = (0usize, 0usize);
    for hit in hits {
        n += 1;
        yes += usize::from(hit);
    }
    if n == 0 { 0.0 } else { yes as f64 / n as f64 }
}

/// Labels `queries` (m, d) by majority among their `k` nearest labelled `points` (n, d).
///
/// # Errors
/// If shapes do not agree, there are fewer than `k` points, k is 0, or a value is not finite.
pub fn knn_classify(
    points: ArrayView2<'_, f32>,
    labels: &[u32],
    queries: ArrayView2<'_, f32>,
    k: usize,
) -> Result<Vec<u32>> {
    const METRIC: &str = "nearest-neighbour classifier";
    check_k(METRIC, k)?;
    check(METRIC, "reference images", points, k)?;
    check(METRIC, "samples", queries, 0)?;
    same_width(METRIC, ("reference images", points), ("samples", queries))?;
    same(
        METRIC,
        "rows",
        ("reference images", points.nrows()),
        ("their labels", labels.len()),
    )?;
    Ok(each_row(queries, |_, query| {
        vote(&nearest(points, query, None, k), labels)
    }))
}

/// Fraction of `queries` that [`knn_classify`] labels as `expected`.
///
/// # Errors
/// As [`knn_classify`], or if `expected` does not have one label a query, or there is no query.
pub fn knn_accuracy(
    points: ArrayView2<'_, f32>,
    labels: &[u32],
    queries: ArrayView2<'_, f32>,
    expected: &[u32],
    k: usize,
) -> Result<f64> {
    const METRIC: &str = "nearest-neighbour accuracy";
    check(METRIC, "samples", queries, 1)?;
    same(
        METRIC,
        "rows",
        ("samples", queries.nrows()),
        ("labels asked for", expected.len()),
    )?;
    let found = knn_classify(points, labels, queries, k)?;
    Ok(fraction(found.iter().zip(expected).map(|(a, b)| a == b)))
}

/// Fraction of labelled `points` that their `k` nearest *other* points label right.
///
/// # Errors
/// If shapes do not agree, there are no more than `k` points, k is 0, or a value is not finite.
pub fn leave_one_out_accuracy(
    points: ArrayView2<'_, f32>,
    labels: &[u32],
    k: usize,
) -> Result<f64> {
    const METRIC: &str = "leave-one-out accuracy";
    check_k(METRIC, k)?;
    check(METRIC, "points", points, k.saturating_add(1))?;
    same(
        METRIC,
        "rows",
        ("points", points.nrows()),
        ("their labels", labels.len()),
    )?;
    let hits = each_row(points, |i, point| {
        vote(&nearest(points, point, Some(i), k), labels) == labels[i]
    });
    Ok(fraction(hits.into_iter()))
}

pub(super) fn check_k(metric: &'static str, k: usize) -> Result<()> {
    if k == 0 {
        return Err(MetricError::Invalid {
            metric,
            what: "k must be at least 1, not 0".into(),
        });
    }
    Ok(())
}

/// Coverage (Naeem et al., "Reliable fidelity and diversity metrics for generative models", ICML
/// 2020): the fraction of real points in whose ball lies a sample. The ball of a real point reaches
/// to its `k`-th nearest other real point, border excluded.
///
/// # Errors
/// If shapes do not agree, there are no more than `k` real points, k is 0, or a value is not
/// finite.
pub fn coverage(real: ArrayView2<'_, f32>, samples: ArrayView2<'_, f32>, k: usize) -> Result<f64> {
    const METRIC: &str = "coverage";
    check_k(METRIC, k)?;
    check(METRIC, "reference images", real, k.saturating_add(1))?;
    check(METRIC, "samples", samples, 1)?;
    same_width(METRIC, ("reference images", real), ("samples", samples))?;
    let hits = each_row(real, |i, point| {
        let radius = nearest(real, point, Some(i), k).last().map_or(0.0, |n| n.0);
        samples
            .rows()
            .into_iter()
            .any(|s| squared_distance(s, point) < radius)
    });
    Ok(fraction(hits.into_iter()))
}

/// Distance of each query to its nearest point.
///
/// # Errors
/// If shapes do not agree, there is no point, or a value is not finite.
pub fn nearest_distances(
    points: ArrayView2<'_, f32>,
    queries: ArrayView2<'_, f32>,
) -> Result<Vec<f64>> {
    const METRIC: &str = "nearest distances";
    check(METRIC, "points", points, 1)?;
    check(METRIC, "queries", queries, 0)?;
    same_width(METRIC, ("points", points), ("queries", queries))?;
    Ok(each_row(queries, |_, q| root(&nearest(points, q, None, 1))))
}

/// Distance of each point to its nearest other point.
///
/// # Errors
/// If there are fewer than two points or a value is not finite.
pub fn nearest_other_distances(points: ArrayView2<'_, f32>) -> Result<Vec<f64>> {
    check("nearest distances", "points", points, 2)?;
    Ok(each_row(points, |i, p| {
        root(&nearest(points, p, Some(i), 1))
    }))
}

fn root(neighbours: &[(f64, usize)]) -> f64 {
    neighbours.last().map_or(f64::INFINITY, |n| n.0.sqrt())
}

/// The `percent`-th percentile, linear between the two nearest ranks. `None` without values, or if
/// `percent` is outside 0 to 100.
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    if values.is_empty() || !(0.0..=100.0).contains(&percent) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = percent / 100.0 * (sorted.len() - 1) as f64;
    let low = sorted[at.floor() as usize];
    let high = sorted[at.ceil() as usize];
    Some(low + (high - low) * (at - at.floor()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dis_tensor::random::{Purpose, Stream};
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    /// Points on a coarse lattice, so that equal distances happen.
    fn lattice(n: usize, d: usize, seed: u64) -> Array2<f32> {
        let mut s = Stream::new(seed, Purpose::Test, 0, 0);
        Array2::from_shape_fn((n, d), |_| s.below(4) as f32)
    }

    fn oracle(
        points: &Array2<f32>,
        query: usize,
        from: &Array2<f32>,
        skip: bool,
    ) -> Vec<(f64, usize)> {
        let mut all: Vec<(f64, usize)> = (0..points.nrows())
            .filter(|&i| !(skip && i == query))
            .map(|i| {
                let mut sum = 0.0;
                for j in 0..points.ncols() {
                    sum += f64::from(points[[i, j]] - from[[query, j]]).powi(2);
                }
                (sum, i)
            })
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        all
    }

    proptest! {
        #[test]
        fn neighbours_equal_a_full_sort(
            n in 2usize..30, m in 1usize..10, d in 1usize..20, k in 1usize..7, seed in any::<u64>(),
        ) {
            let k = k.min(n - 1);
            let (points, queries) = (lattice(n, d, seed), lattice(m, d, seed ^ 1));
            for q in 0..m {
                let ours = nearest(points.view(), queries.row(q), None, k);
                prop_assert_eq!(&ours[..], &oracle(&points, q, &queries, false)[..k]);
            }
            let mut covered = 0;
            for i in 0..n {
                let others = oracle(&points, i, &points, true);
                let ours = nearest(points.view(), points.row(i), Some(i), k);
                prop_assert_eq!(&ours[..], &others[..k]);
                let best = oracle(&queries, i, &points, false)[0].0;
                covered += usize::from(best < others[k - 1].0);
            }
            let ours = coverage(points.view(), queries.view(), k).unwrap();
            prop_assert_eq!(ours, covered as f64 / n as f64);
        }
    }

    #[test]
    fn majority_then_nearest() {
        let points = array![[1.0f32], [2.0], [3.0], [4.0], [5.0]];
        let labels = [7, 3, 3, 7, 9];
        let query = array![[0.0f32]];
        let classify = |k| knn_classify(points.view(), &labels, query.view(), k).unwrap()[0];
        assert_eq!(classify(1), 7);
        // 7 and 3 have one vote each, then 3 leads, then both have two and 7 has the nearest.
        assert_eq!(classify(2), 7);
        assert_eq!(classify(3), 3);
        assert_eq!(classify(4), 7);
        assert_eq!(classify(5), 7);
        let accuracy = knn_accuracy(points.view(), &labels, query.view(), &[3], 3).unwrap();
        assert_eq!(accuracy, 1.0);
    }

    #[test]
    fn coverage_excludes_the_border_and_itself() {
        let real = array![[0.0f32], [1.0], [10.0]];
        // With k = 1 the balls are (-1, 1), (0, 2) and (1, 19).
        let covered = |x: f32| coverage(real.view(), array![[x]].view(), 1).unwrap();
        assert_eq!(covered(1.0), 1.0 / 3.0);
        assert_eq!(covered(1.5), 2.0 / 3.0);
        assert_eq!(covered(0.5), 2.0 / 3.0);
        assert_eq!(covered(-3.0), 0.0);
    }

    #[test]
    fn percentiles_are_linear_between_ranks() {
        let v = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(percentile(&v, 0.0), Some(1.0));
        assert_eq!(percentile(&v, 50.0), Some(2.5));
        assert_eq!(percentile(&v, 100.0), Some(4.0));
        assert!((percentile(&v, 1.0).unwrap() - 1.03).abs() < 1e-12);
        assert_eq!(percentile(&[], 1.0), None);
        assert_eq!(percentile(&v, 101.0), None);
        assert_eq!(percentile(&v, f64::NAN), None);
    }

    #[test]
    fn bad_arguments_are_named() {
        let p = lattice(5, 2, 0);
        let v = p.view();
        let bad = array![[0.0f32, 0.0], [0.0, f32::NAN]];
        let wide = lattice(5, 3, 0);
        assert!(matches!(
            coverage(v, bad.view(), 1),
            Err(MetricError::NotFinite { row: 1, .. })
        ));
        assert!(matches!(
            coverage(v, wide.view(), 1),
            Err(MetricError::Mismatch { .. })
        ));
        assert!(matches!(
            coverage(v, v, 5),
            Err(MetricError::TooFew { needed: 6, .. })
        ));
        assert!(matches!(
            coverage(v, v, 0),
            Err(MetricError::Invalid { .. })
        ));
        assert!(matches!(
            coverage(v, v.slice(ndarray::s![..0, ..]), 1),
            Err(MetricError::TooFew { .. })
        ));
        assert!(matches!(
            knn_classify(v, &[0; 4], v, 1),
            Err(MetricError::Mismatch { .. })
        ));
        assert!(matches!(
            knn_classify(v, &[0; 5], v, 6),
            Err(MetricError::TooFew { .. })
        ));
        assert!(matches!(
            knn_accuracy(v, &[0; 5], v, &[0], 1),
            Err(MetricError::Mismatch { .. })
        ));
        assert!(matches!(
            leave_one_out_accuracy(v, &[0; 5], 5),
            Err(MetricError::TooFew { .. })
        ));
        assert!(matches!(
            leave_one_out_accuracy(v, &[0; 5], usize::MAX),
            Err(MetricError::TooFew { .. })
        ));
    }
}
