//! Mean and covariance of many points in float64, a block of rows at a time.

use faer::Mat;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;

/// Rows that are widened to float64 together. Fixed, since sums are cut here.
const BLOCK: usize = 512;
/// Blocks whose products are held at once: bounds memory by this many covariances.
const GROUP: usize = 4;

/// Mean (d) and covariance with divisor n - 1 (d, d) of `points` (rows, d), row i counted
/// `weights[i]` times; n is the sum of the weights. Without weights each row counts once.
///
/// Blocks are added in their order, so the number of threads changes nothing.
pub(super) fn moments(
    points: ArrayView2<'_, f32>,
    weights: Option<&[u32]>,
) -> (Array1<f64>, Array2<f64>) {
    let (rows, d) = points.dim();
    let weight = |row: usize| weights.map_or(1, |w| w.get(row).copied().unwrap_or(0));
    let mut mu = Array1::<f64>::zeros(d);
    let mut n = 0u64;
    for (row, point) in points.rows().into_iter().enumerate() {
        let w = weight(row);
        if w > 0 {
            n += u64::from(w);
            mu.zip_mut_with(&point, |m, x| *m += f64::from(w) * f64::from(*x));
        }
    }
    mu /= (n as f64).max(1.0);
    let starts: Vec<usize> = (0..rows).step_by(BLOCK).collect();
    let mut gram = Mat::<f64>::zeros(d, d);
    for group in starts.chunks(GROUP) {
        let products: Vec<Mat<f64>> = group
            .par_iter()
            .map(|&start| {
                let used = (start..(start + BLOCK).min(rows)).filter(|&row| weight(row) > 0);
                product(points, &used.collect::<Vec<_>>(), &weight, &mu)
            })
            .collect();
        for product in products {
            gram += product;
        }
    }
    let sigma = Array2::from_shape_fn((d, d), |(i, j)| {
        // Both halves rounded alike, so that sigma is symmetric to the bit.
        gram[(i.max(j), i.min(j))] / (n as f64 - 1.0).max(1.0)
    });
    (mu, sigma)
}

/// The sum over `rows` of weight times the outer product of what is left without the mean.
fn product(
    points: ArrayView2<'_, f32>,
    rows: &[usize],
    weight: &impl Fn(usize) -> u32,
    mu: &Array1<f64>,
) -> Mat<f64> {
    let centred = |row: usize, j: usize| f64::from(points[[rows[row], j]]) - mu[j];
    let x = Mat::from_fn(rows.len(), points.len_of(Axis(1)), centred);
    let weighted = Mat::from_fn(x.nrows(), x.ncols(), |i, j| {
        f64::from(weight(rows[i])) * x[(i, j)]
    });
    x.transpose() * weighted
}

#[cfg(test)]
mod tests {
    use super::*;
    use dis_tensor::random::{Purpose, Stream};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Against the plain formula over repeated rows, across borders of blocks and groups.
        #[test]
        fn equal_the_plain_formula(
            n in 2usize..1300, d in 1usize..9, weighted: bool, seed in any::<u64>(),
        ) {
            let mut s = Stream::new(seed, Purpose::Test, 0, 0);
            let points = Array2::from_shape_fn((n, d), |_| 3.0 + s.normal() as f32);
            let mut weights: Vec<u32> = (0..n).map(|_| s.below(4) as u32).collect();
            weights[0] = 2;
            let repeated: Vec<usize> = match weighted {
                true => (0..n).flat_map(|i| (0..weights[i]).map(move |_| i)).collect(),
                false => (0..n).collect(),
            };
            let (mu, sigma) = moments(points.view(), weighted.then_some(&weights[..]));
            let count = repeated.len() as f64;
            let x = |i: usize, j: usize| f64::from(points[[i, j]]);
            let mean = |j: usize| repeated.iter().map(|&i| x(i, j)).sum::<f64>() / count;
            for a in 0..d {
                prop_assert!((mu[a] - mean(a)).abs() < 1e-12);
                for b in 0..d {
                    let (ma, mb) = (mean(a), mean(b));
                    let sum: f64 = repeated.iter().map(|&i| (x(i, a) - ma) * (x(i, b) - mb)).sum();
                    prop_assert!((sigma[[a, b]] - sum / (count - 1.0)).abs() < 1e-11);
                    prop_assert_eq!(sigma[[a, b]], sigma[[b, a]]);
                }
            }
        }
    }

    #[test]
    fn same_bits_for_any_number_of_threads() {
        let mut s = Stream::new(3, Purpose::Test, 0, 0);
        let points = Array2::from_shape_fn((3000, 7), |_| s.normal() as f32);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build()
                .unwrap()
                .install(|| moments(points.view(), None))
        };
        assert_eq!(with(1), with(3));
    }
}
