//! Fidelity and diversity from balls around points: precision and recall (Kynkaanniemi et al.,
//! "Improved precision and recall metric for assessing generative models", 2019), density and
//! coverage (Naeem et al., "Reliable fidelity and diversity metrics for generative models", 2020).
//!
//! The ball of a point reaches to its k-th nearest other point of the same set. Its border belongs
//! to it for precision and recall, as their equation 1 has it, and does not for density and
//! coverage, as in the code of their authors.

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::neighbours::{check, check_k, same_width, squared_distance, squared_radii};
use super::{MetricError, Result};

const PRECISION: &str = "precision and recall";
const DENSITY: &str = "density and coverage";
/// Samples and real points of a tile of distances: both fit a core's cache.
const TILE: (usize, usize) = (16, 64);
/// Samples that density and coverage take at least: fewer say nothing of a whole reference.
const FEWEST: usize = 4;

/// Neighbours that make the balls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BallOptions {
    /// For precision and recall; 3 as published.
    pub precision_k: usize,
    /// For density and coverage; 5 as published.
    pub density_k: usize,
}

impl Default for BallOptions {
    fn default() -> Self {
        Self {
            precision_k: 3,
            density_k: 5,
        }
    }
}

/// What each point contributes to precision and recall, which are means of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PrecisionRecall {
    /// For each sample 1 if it lies in the ball of some real point.
    pub precision: Vec<f64>,
    /// For each real point 1 if it lies in the ball of some sample.
    pub recall: Vec<f64>,
}

/// What each point contributes to density and coverage, which are means of it.
#[derive(Clone, Debug, PartialEq)]
pub struct DensityCoverage {
    /// For each sample the number of real points in whose balls it lies, divided by k.
    pub density: Vec<f64>,
    /// For each real point 1 if a sample lies in its ball.
    pub coverage: Vec<f64>,
    /// Real points whose ball holds nothing, not even its centre, since their k nearest equal them.
    pub empty: usize,
}

/// What each point contributes; the metrics are means.
#[derive(Clone, Debug, PartialEq)]
pub struct Balls {
    /// By balls to the `precision_k`-th neighbour, of both sets.
    pub fidelity: PrecisionRecall,
    /// By balls to the `density_k`-th neighbour, of the real points.
    pub density: DensityCoverage,
}

/// Compares `samples` (m, d) with `real` points (n, d) in one pass over their distances.
///
/// # Errors
/// If shapes do not agree, a set has no more points than neighbours are asked for, there are fewer
/// than four samples, k is 0, or a value is not finite.
pub fn balls(
    real: ArrayView2<'_, f32>,
    samples: ArrayView2<'_, f32>,
    options: BallOptions,
) -> Result<Balls> {
    let BallOptions {
        precision_k,
        density_k,
    } = options;
    check_precision(real, samples, precision_k)?;
    check_density(real, samples, density_k)?;
    match compare(real, samples, Some(precision_k), Some(density_k)) {
        (Some(fidelity), Some(density)) => Ok(Balls { fidelity, density }),
        _ => Err(nothing(PRECISION)),
    }
}

/// Precision and recall alone, by balls to the `k`-th neighbour.
///
/// # Errors
/// If shapes do not agree, a set has no more than `k` points, k is 0, or a value is not finite.
pub fn precision_recall(
    real: ArrayView2<'_, f32>,
    samples: ArrayView2<'_, f32>,
    k: usize,
) -> Result<PrecisionRecall> {
    check_precision(real, samples, k)?;
    compare(real, samples, Some(k), None)
        .0
        .ok_or_else(|| nothing(PRECISION))
}

/// Density and coverage alone, by balls to the `k`-th neighbour.
///
/// # Errors
/// If shapes do not agree, there are no more than `k` real points or fewer than four samples, k is 0,
/// or a value is not finite.
pub fn density_coverage(
    real: ArrayView2<'_, f32>,
    samples: ArrayView2<'_, f32>,
    k: usize,
) -> Result<DensityCoverage> {
    check_density(real, samples, k)?;
    compare(real, samples, None, Some(k))
        .1
        .ok_or_else(|| nothing(DENSITY))
}

fn check_precision(
    real: ArrayView2<'_, f32>,
    samples: ArrayView2<'_, f32>,
    k: usize,
) -> Result<()> {
    check_k(PRECISION, k)?;
    check(PRECISION, "reference images", real, k.saturating_add(1))?;
    check(PRECISION, "samples", samples, k.saturating_add(1))?;
    let sides = (("reference images", real), ("samples", samples));
    same_width(PRECISION, sides.0, sides.1)
}

fn check_density(real: ArrayView2<'_, f32>, samples: ArrayView2<'_, f32>, k: usize) -> Result<()> {
    check_k(DENSITY, k)?;
    check(DENSITY, "reference images", real, k.saturating_add(1))?;
    check(DENSITY, "samples", samples, FEWEST)?;
    let sides = (("reference images", real), ("samples", samples));
    same_width(DENSITY, sides.0, sides.1)
}

fn nothing(metric: &'static str) -> MetricError {
    MetricError::Invalid {
        metric,
        what: "balls without radii".into(),
    }
}

/// Of one part of the samples: what they are, and what they do to the real points.
struct Part {
    precision: Vec<f64>,
    density: Vec<f64>,
    recalled: Vec<bool>,
    covered: Vec<bool>,
}

impl Part {
    fn new(samples: usize, real: usize) -> Self {
        Self {
            precision: vec![0.0; samples],
            density: vec![0.0; samples],
            recalled: vec![false; real],
            covered: vec![false; real],
        }
    }

    /// The parts of samples that follow each other, as one.
    fn join(mut self, next: Self) -> Self {
        self.precision.extend(next.precision);
        self.density.extend(next.density);
        let either = |all: &mut Vec<bool>, part: Vec<bool>| {
            all.iter_mut().zip(part).for_each(|(a, b)| *a |= b);
        };
        either(&mut self.recalled, next.recalled);
        either(&mut self.covered, next.covered);
        self
    }
}

/// Both comparisons, each where its number of neighbours is given.
fn compare(
    real: ArrayView2<'_, f32>,
    samples: ArrayView2<'_, f32>,
    precision_k: Option<usize>,
    density_k: Option<usize>,
) -> (Option<PrecisionRecall>, Option<DensityCoverage>) {
    let ks: Vec<usize> = precision_k.into_iter().chain(density_k).collect();
    let mut radii = squared_radii(real, &ks).into_iter();
    // Nothing lies within a radius below 0.
    let absent = |n: usize| vec![-1.0; n];
    let mut side = |k: Option<usize>| k.and_then(|_| radii.next());
    let closed = side(precision_k).unwrap_or_else(|| absent(real.nrows()));
    let open = side(density_k).unwrap_or_else(|| absent(real.nrows()));
    let of_samples = precision_k
        .and_then(|k| squared_radii(samples, &[k]).pop())
        .unwrap_or_else(|| absent(samples.nrows()));
    let starts: Vec<usize> = (0..samples.nrows()).step_by(TILE.0).collect();
    // A part a thread at a time; `any` does not depend on the order in which parts are joined.
    let parts = starts.par_iter().map(|&start| {
        let end = (start + TILE.0).min(samples.nrows());
        let mut part = Part::new(end - start, real.nrows());
        for first in (0..real.nrows()).step_by(TILE.1) {
            let last = (first + TILE.1).min(real.nrows());
            for j in start..end {
                let sample = samples.row(j);
                for i in first..last {
                    let d = squared_distance(sample, real.row(i));
                    if d <= closed[i] {
                        part.precision[j - start] = 1.0;
                    }
                    part.recalled[i] |= d <= of_samples[j];
                    if d < open[i] {
                        part.density[j - start] += 1.0;
                        part.covered[i] = true;
                    }
                }
            }
        }
        part
    });
    // Indexed and in order, so what belongs to samples is joined in their order.
    let whole = parts.reduce(|| Part::new(0, real.nrows()), Part::join);
    let ones = |flags: Vec<bool>| flags.into_iter().map(|f| f64::from(u8::from(f))).collect();
    let fidelity = precision_k.map(|_| PrecisionRecall {
        precision: whole.precision,
        recall: ones(whole.recalled),
    });
    let density = density_k.map(|k| DensityCoverage {
        density: whole.density.into_iter().map(|n| n / k as f64).collect(),
        coverage: ones(whole.covered),
        empty: open.iter().filter(|&&radius| radius == 0.0).count(),
    });
    (fidelity, density)
}

/// The mean of what points contribute; 0 of none.
pub fn mean(values: &[f64]) -> f64 {
    match values.len() {
        0 => 0.0,
        n => values.iter().sum::<f64>() / n as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::coverage;
    use dis_tensor::random::{Purpose, Stream};
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    /// On a coarse lattice, so that points lie on borders.
    fn lattice(n: usize, d: usize, seed: u64) -> Array2<f32> {
        let mut s = Stream::new(seed, Purpose::Test, 0, 0);
        Array2::from_shape_fn((n, d), |_| s.below(5) as f32)
    }

    fn distance(a: &Array2<f32>, i: usize, b: &Array2<f32>, j: usize) -> f64 {
        (0..a.ncols())
            .map(|c| (f64::from(a[[i, c]]) - f64::from(b[[j, c]])).powi(2))
            .sum()
    }

    fn radius(points: &Array2<f32>, i: usize, k: usize) -> f64 {
        let others = (0..points.nrows()).filter(|&j| j != i);
        let mut all: Vec<f64> = others.map(|j| distance(points, i, points, j)).collect();
        all.sort_by(f64::total_cmp);
        all[k - 1]
    }

    proptest! {
        #[test]
        fn equal_their_definitions(
            n in 4usize..80, m in 4usize..60, d in 1usize..6,
            k in 1usize..4, l in 1usize..4, seed in any::<u64>(),
        ) {
            let (real, samples) = (lattice(n, d, seed), lattice(m, d, seed ^ 1));
            let options = BallOptions { precision_k: k, density_k: l };
            let ours = balls(real.view(), samples.view(), options).unwrap();
            for j in 0..m {
                let inside = |i: usize| distance(&real, i, &samples, j) <= radius(&real, i, k);
                prop_assert_eq!(ours.fidelity.precision[j] == 1.0, (0..n).any(inside));
                let count = (0..n)
                    .filter(|&i| distance(&real, i, &samples, j) < radius(&real, i, l))
                    .count();
                prop_assert_eq!(ours.density.density[j], count as f64 / l as f64);
            }
            for i in 0..n {
                let inside = |j: usize| distance(&real, i, &samples, j) <= radius(&samples, j, k);
                prop_assert_eq!(ours.fidelity.recall[i] == 1.0, (0..m).any(inside));
                let open = radius(&real, i, l);
                let covered = (0..m).any(|j| distance(&real, i, &samples, j) < open);
                prop_assert_eq!(ours.density.coverage[i] == 1.0, covered);
            }
            let alone = coverage(real.view(), samples.view(), l).unwrap();
            prop_assert!((mean(&ours.density.coverage) - alone).abs() < 1e-12);
            // Both at once are what each is alone.
            let fidelity = precision_recall(real.view(), samples.view(), k).unwrap();
            let density = density_coverage(real.view(), samples.view(), l).unwrap();
            prop_assert_eq!(ours, Balls { fidelity, density });
        }
    }

    #[test]
    fn a_set_has_full_precision_and_recall_of_itself() {
        let real = lattice(50, 3, 1);
        let same = balls(real.view(), real.view(), BallOptions::default()).unwrap();
        let fidelity = &same.fidelity;
        assert_eq!(
            (mean(&fidelity.precision), mean(&fidelity.recall)),
            (1.0, 1.0)
        );
        let far = &real + 100.0;
        let none = balls(real.view(), far.view(), BallOptions::default()).unwrap();
        let (fidelity, density) = (none.fidelity, none.density);
        let all = [
            fidelity.precision,
            fidelity.recall,
            density.density,
            density.coverage,
        ];
        assert!(all.iter().all(|v| mean(v) == 0.0));
        // One real point many times over: precise, dense, and nothing else.
        let one = Array2::from_shape_fn((50, 3), |(_, c)| real[[0, c]]);
        let one = balls(real.view(), one.view(), BallOptions::default()).unwrap();
        assert_eq!(mean(&one.fidelity.precision), 1.0);
        assert!(mean(&one.fidelity.recall) < 0.2 && mean(&one.density.coverage) < 0.5);
    }

    #[test]
    fn balls_of_equal_points_hold_equal_points_only_where_the_border_is_included() {
        let one = Array2::from_elem((9, 3), 0.5f32);
        let same = balls(one.view(), one.view(), BallOptions::default()).unwrap();
        let fidelity = &same.fidelity;
        assert_eq!(
            (mean(&fidelity.precision), mean(&fidelity.recall)),
            (1.0, 1.0)
        );
        assert_eq!((mean(&same.density.coverage), same.density.empty), (0.0, 9));
        // Pairs: the first neighbour of each equals it, the others do not.
        let pairs = Array2::from_shape_fn((20, 3), |(i, c)| (i / 2 * 3 + c) as f32);
        let own = density_coverage(pairs.view(), pairs.view(), 5).unwrap();
        assert_eq!((mean(&own.coverage), own.empty), (1.0, 0));
        assert_eq!(
            density_coverage(pairs.view(), pairs.view(), 1)
                .unwrap()
                .empty,
            20
        );
    }

    #[test]
    fn same_for_any_number_of_threads() {
        let (real, samples) = (lattice(200, 4, 1), lattice(150, 4, 2));
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let run = || balls(real.view(), samples.view(), BallOptions::default());
            pool.build().unwrap().install(run).unwrap()
        };
        assert_eq!(with(1), with(4));
    }

    #[test]
    fn bad_arguments_are_named() {
        let x = lattice(5, 2, 0);
        let call = |precision_k, density_k| {
            let options = BallOptions {
                precision_k,
                density_k,
            };
            balls(x.view(), x.view(), options)
        };
        assert!(matches!(call(0, 1), Err(MetricError::Invalid { .. })));
        assert!(matches!(
            call(5, 1),
            Err(MetricError::TooFew { needed: 6, .. })
        ));
        assert!(matches!(call(1, 5), Err(MetricError::TooFew { .. })));
        let few = |n| x.slice(ndarray::s![..n, ..]);
        let dc = |samples: usize| density_coverage(x.view(), few(samples), 1);
        assert!(dc(4).is_ok());
        assert!(matches!(dc(3), Err(MetricError::TooFew { needed: 4, .. })));
        // Each alone takes no more points than it needs.
        assert!(precision_recall(few(4), few(4), 3).is_ok());
        assert!(balls(few(4), few(4), BallOptions::default()).is_err());
        let wide = lattice(5, 3, 0);
        assert!(matches!(
            balls(
                x.view(),
                wide.view(),
                BallOptions {
                    precision_k: 1,
                    density_k: 1
                }
            ),
            Err(MetricError::Mismatch { .. })
        ));
        let nan = array![[f32::NAN], [0.0], [1.0], [1.0], [1.0], [1.0], [2.0]];
        assert!(matches!(
            balls(nan.view(), nan.view(), BallOptions::default()),
            Err(MetricError::NotFinite { row: 0, .. })
        ));
    }
}
