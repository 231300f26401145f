//! The check of samples of the digits: four criteria that must all hold, since each alone can be
//! gamed (by copying, by blurring, by one picture a class).

use dis_tensor::random::{Purpose, Stream};
use ndarray::{ArrayView2, Axis};
use serde::Serialize;

use super::{
    CopyRule, MetricError, Result, Statistics, coverage, frechet_distance, knn_accuracy,
    leave_one_out_accuracy,
};
use dis_data::{Dataset, MemoryDataset, digits, digits_split};

const METRIC: &str = "digits check";
/// Neighbours asked for labels and for coverage.
const K: usize = 5;
/// Keys the halves of the real data apart from other permutations.
const HALVES_STREAM: u64 = u64::MAX - 1;

/// What samples must reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DigitsLimits {
    /// Least fraction labelled as asked.
    pub accuracy: f64,
    /// Largest Frechet distance on pixels in [0, 1].
    pub frechet: f64,
    /// Least coverage.
    pub coverage: f64,
    /// How much the rate of copies may exceed that of held-out real images.
    pub copies_above_real: f64,
}

impl Default for DigitsLimits {
    fn default() -> Self {
        Self {
            accuracy: 0.93,
            frechet: 0.5,
            coverage: 0.5,
            copies_above_real: 0.02,
        }
    }
}

/// Figures of [`digits_check`] with what real images reach.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DigitsReport {
    /// Number of samples.
    pub samples: usize,
    /// Seed of the split into training and held-out images.
    pub seed: u64,
    /// Fraction of samples that the 5 nearest real images label as asked.
    pub accuracy: f64,
    /// The same for real images, each left out in turn.
    pub accuracy_real: f64,
    /// Frechet distance of samples and all real images, on pixels in [0, 1].
    pub frechet: f64,
    /// The same between two halves of the real images.
    pub frechet_real: f64,
    /// Fraction of real images in whose ball (5th nearest other real image) lies a sample.
    pub coverage: f64,
    /// Coverage of the training images by the held-out ones, for comparison; there are fewer of
    /// these than of samples.
    pub coverage_held_out: f64,
    /// Distance to a training image below which a picture counts as its copy.
    pub copy_threshold: f64,
    /// Fraction of samples that are copies of training images.
    pub copies: f64,
    /// Fraction of held-out real images that would count as copies.
    pub copies_held_out: f64,
    /// What was asked for.
    pub limits: DigitsLimits,
}

impl DigitsReport {
    /// Each criterion: its name, figure, limit, what real images reach, and whether it holds.
    pub fn criteria(&self) -> [(&'static str, f64, f64, f64, bool); 4] {
        let l = &self.limits;
        let most = self.copies_held_out + l.copies_above_real;
        [
            (
                "labelled as asked (at least)",
                self.accuracy,
                l.accuracy,
                self.accuracy_real,
                self.accuracy >= l.accuracy,
            ),
            (
                "Frechet distance (at most)",
                self.frechet,
                l.frechet,
                self.frechet_real,
                self.frechet <= l.frechet,
            ),
            (
                "coverage (at least)",
                self.coverage,
                l.coverage,
                self.coverage_held_out,
                self.coverage >= l.coverage,
            ),
            (
                "copies (at most)",
                self.copies,
                most,
                self.copies_held_out,
                self.copies <= most,
            ),
        ]
    }

    /// Whether all four criteria hold.
    pub fn passed(&self) -> bool {
        self.criteria().iter().all(|c| c.4)
    }
}

/// A table for people.
impl std::fmt::Display for DigitsReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{:30} {:>8} {:>8} {:>8}",
            "criterion", "samples", "limit", "real"
        )?;
        for (name, value, limit, real, holds) in self.criteria() {
            let verdict = if holds { "ok" } else { "FAILED" };
            writeln!(f, "{name:30} {value:8.4} {limit:8.4} {real:8.4}  {verdict}")?;
        }
        let verdict = if self.passed() { "passed" } else { "failed" };
        write!(
            f,
            "digits check {verdict}: {} samples, split seed {}",
            self.samples, self.seed
        )
    }
}

/// Judges `samples` (n, 64) of the digits, pixels in [0, 1] row by row, that were asked to be of
/// the classes `asked`. `seed` is that of the split whose training part the model has seen
/// ([`dis_data::DIGITS_SPLIT_SEED`] for `digits-train`).
///
/// # Errors
/// If there are fewer than two samples, lengths do not fit, a label is above 9, or a pixel is not
/// in [0, 1].
pub fn digits_check(samples: &[f32], asked: &[u32], seed: u64) -> Result<DigitsReport> {
    let all = digits()?;
    let d = all.shape().len();
    let n = samples.len() / d;
    let invalid = |what: String| MetricError::Invalid {
        metric: METRIC,
        what,
    };
    if n * d != samples.len() || n != asked.len() {
        return Err(invalid(format!(
            "{} pixels are not {} samples of {d}",
            samples.len(),
            asked.len()
        )));
    }
    if n < 2 {
        return Err(MetricError::TooFew {
            metric: METRIC,
            name: "samples",
            needed: 2,
            found: n,
        });
    }
    if let Some(label) = asked.iter().find(|&&l| l > 9) {
        return Err(invalid(format!("label {label} is no digit")));
    }
    if let Some(i) = samples.iter().position(|v| !(0.0..=1.0).contains(v)) {
        return Err(invalid(format!(
            "sample {} has pixel {} outside 0 to 1",
            i / d,
            samples[i]
        )));
    }
    let (train, held) = digits_split(seed)?;
    let (all_x, train_x, held_x) = (all.unit_pixels(), train.unit_pixels(), held.unit_pixels());
    let real = points(&all_x, d)?;
    let (train_x, held_x) = (points(&train_x, d)?, points(&held_x, d)?);
    let samples = points(samples, d)?;
    let labels = labels(&all)?;
    let rule = CopyRule::of(train_x)?;
    Ok(DigitsReport {
        samples: n,
        seed,
        accuracy: knn_accuracy(real, labels, samples, asked, K)?,
        accuracy_real: leave_one_out_accuracy(real, labels, K)?,
        frechet: distance(samples, real)?,
        frechet_real: halves_distance(real, seed)?,
        coverage: coverage(real, samples, K)?,
        coverage_held_out: coverage(train_x, held_x, K)?,
        copy_threshold: rule.threshold,
        copies: rule.rate(train_x, samples)?,
        copies_held_out: rule.rate(train_x, held_x)?,
        limits: DigitsLimits::default(),
    })
}

fn points(values: &[f32], d: usize) -> Result<ArrayView2<'_, f32>> {
    ArrayView2::from_shape((values.len() / d, d), values).map_err(|e| MetricError::Invalid {
        metric: METRIC,
        what: e.to_string(),
    })
}

fn labels(data: &MemoryDataset) -> Result<&[u32]> {
    data.labels().ok_or_else(|| MetricError::Invalid {
        metric: METRIC,
        what: "digits lost labels".into(),
    })
}

fn distance(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>) -> Result<f64> {
    frechet_distance(&Statistics::from_points(a)?, &Statistics::from_points(b)?)
}

fn halves_distance(real: ArrayView2<'_, f32>, seed: u64) -> Result<f64> {
    let n = real.nrows();
    let order = Stream::new(seed, Purpose::Shuffle, HALVES_STREAM, 0).permutation(n);
    let order: Vec<usize> = order.into_iter().map(|i| i as usize).collect();
    let (a, b) = order.split_at(n / 2);
    distance(
        real.select(Axis(0), a).view(),
        real.select(Axis(0), b).view(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(data: &MemoryDataset, n: usize) -> (Vec<f32>, Vec<u32>) {
        let labels = data.labels().unwrap();
        (data.unit_pixels()[..n * 64].to_vec(), labels[..n].to_vec())
    }

    /// What the check says about real images, printed in the documentation of the training.
    #[test]
    fn real_images_reach_the_published_figures() {
        let (_, held) = digits_split(0).unwrap();
        let (x, y) = real(&held, 297);
        let report = digits_check(&x, &y, 0).unwrap();
        println!("{report}");
        assert!((report.accuracy_real - 0.988).abs() < 0.001, "{report}");
        assert!((report.frechet_real - 0.07).abs() < 0.02, "{report}");
        assert!((report.copies - report.copies_held_out).abs() < 1e-12);
        assert!(report.copies_held_out < 0.05);
    }

    /// Fresh real images would pass but for their number; noise on them hides the copies.
    #[test]
    fn slightly_noisy_training_images_fail_only_as_copies() {
        let (train, _) = digits_split(0).unwrap();
        let (mut x, y) = real(&train, 1000);
        let passed = |r: &DigitsReport| r.criteria().map(|c| c.4);
        let report = digits_check(&x, &y, 0).unwrap();
        assert_eq!(passed(&report), [true, true, true, false], "{report}");
        assert_eq!(report.copies, 1.0);
        let mut s = Stream::new(0, Purpose::Test, 0, 0);
        for v in &mut x {
            *v = (*v + 0.02 * s.normal() as f32).clamp(0.0, 1.0);
        }
        let report = digits_check(&x, &y, 0).unwrap();
        assert_eq!(passed(&report), [true, true, true, false], "{report}");
        assert!(!report.passed());
    }

    #[test]
    fn each_criterion_can_fail() {
        let (_, held) = digits_split(0).unwrap();
        let (x, y) = real(&held, 297);
        // Labels shifted by one: only the labels are wrong.
        let wrong: Vec<u32> = y.iter().map(|l| (l + 1) % 10).collect();
        let report = digits_check(&x, &wrong, 0).unwrap();
        assert!(report.accuracy < 0.05 && !report.passed());
        // One picture a class, repeated: neither spread nor coverage.
        let mut repeated = Vec::new();
        for l in &y {
            let i = y.iter().position(|m| m == l).unwrap();
            repeated.extend_from_slice(&x[i * 64..][..64]);
        }
        let report = digits_check(&repeated, &y, 0).unwrap();
        assert!(
            report.coverage < 0.1 && report.frechet > 0.5 && !report.passed(),
            "{report}"
        );
        // Grey pictures.
        let report = digits_check(&vec![0.5; x.len()], &y, 0).unwrap();
        assert!(report.frechet > 1.0 && report.coverage == 0.0, "{report}");
    }

    #[test]
    fn bad_samples_are_named() {
        let x = vec![0.5; 128];
        assert!(matches!(
            digits_check(&x, &[1], 0),
            Err(MetricError::Invalid { .. })
        ));
        assert!(matches!(
            digits_check(&x[..127], &[1, 2], 0),
            Err(MetricError::Invalid { .. })
        ));
        assert!(matches!(
            digits_check(&x[..64], &[1], 0),
            Err(MetricError::TooFew { .. })
        ));
        assert!(
            digits_check(&x, &[1, 10], 0)
                .unwrap_err()
                .to_string()
                .contains("label 10")
        );
        for bad in [f32::NAN, -0.01, 1.5] {
            let mut x = x.clone();
            x[70] = bad;
            let e = digits_check(&x, &[1, 2], 0).unwrap_err().to_string();
            assert!(e.contains("sample 1 has pixel"), "{e}");
        }
    }
}
