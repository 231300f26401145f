//! Copies of reference images: samples that are nearer to one than these are to each other.

use ndarray::ArrayView2;

use super::Result;
use super::neighbours::{
    check, each_row, fraction, nearest_distances, nearest_other_distances, percentile,
    squared_distance,
};

/// Share of the distances between reference images, in percent, that lie below the threshold.
const PERCENT: f64 = 1.0;

/// When a sample counts as a copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyRule {
    /// A sample nearer than this to a reference image is a copy of it; so is one at distance 0.
    pub threshold: f64,
    /// Reference images that equal another one, where they are so many that the 1st percentile of
    /// all distances is 0 and `threshold` is that of distances between different images. Otherwise 0.
    pub twins: usize,
}

impl CopyRule {
    /// The rule that a reference (n, d) makes: the 1st percentile of the distances of its points to
    /// their nearest other point. Where that is 0, equal points are left out of it; where all are
    /// equal the threshold is 0 and only equality makes a copy.
    ///
    /// # Errors
    /// If there are fewer than two points or a value is not finite.
    pub fn of(reference: ArrayView2<'_, f32>) -> Result<Self> {
        check("copies", "reference images", reference, 2)?;
        let distances = nearest_other_distances(reference)?;
        let threshold = percentile(&distances, PERCENT).unwrap_or(0.0);
        if threshold > 0.0 {
            return Ok(Self {
                threshold,
                twins: 0,
            });
        }
        let different = each_row(reference, |_, point| {
            let others = reference
                .rows()
                .into_iter()
                .map(|other| squared_distance(other, point));
            others.filter(|d| *d > 0.0).reduce(f64::min).map(f64::sqrt)
        });
        let different: Vec<f64> = different.into_iter().flatten().collect();
        Ok(Self {
            threshold: percentile(&different, PERCENT).unwrap_or(0.0),
            twins: distances.iter().filter(|d| **d == 0.0).count(),
        })
    }

    /// Whether a sample at this distance from its nearest reference image is a copy.
    pub fn is_copy(self, distance: f64) -> bool {
        distance == 0.0 || distance < self.threshold
    }

    /// For each of `samples` (m, d) whether it is a copy of a point of `reference` (n, d).
    ///
    /// # Errors
    /// As [`nearest_distances`].
    pub fn copies(
        self,
        reference: ArrayView2<'_, f32>,
        samples: ArrayView2<'_, f32>,
    ) -> Result<Vec<bool>> {
        let distances = nearest_distances(reference, samples)?;
        Ok(distances.into_iter().map(|d| self.is_copy(d)).collect())
    }

    /// Fraction of `samples` that are copies.
    ///
    /// # Errors
    /// As [`nearest_distances`].
    pub fn rate(self, reference: ArrayView2<'_, f32>, samples: ArrayView2<'_, f32>) -> Result<f64> {
        Ok(fraction(self.copies(reference, samples)?.into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::MetricError;
    use ndarray::{Array2, array};

    #[test]
    fn copies_are_nearer_than_training_points_are() {
        let train = Array2::from_shape_fn((101, 1), |(i, _)| (i * i) as f32);
        // Nearest other distances are 1, 1, 3, 5, ..., 199, so the first percentile is 1.
        let rule = CopyRule::of(train.view()).unwrap();
        assert_eq!((rule.threshold, rule.twins), (1.0, 0));
        let samples = array![[0.5f32], [5.0], [16.2], [20.0]];
        assert_eq!(rule.rate(train.view(), samples.view()).unwrap(), 0.5);
        // Training images themselves are all copies.
        assert_eq!(rule.rate(train.view(), train.view()).unwrap(), 1.0);
    }

    #[test]
    fn twins_in_the_reference_hide_no_copy() {
        // 40 points two apart, three of them twice: the percentile of all distances is 0.
        let train = Array2::from_shape_fn((43, 1), |(i, _)| 2.0 * (i % 40) as f32);
        let rule = CopyRule::of(train.view()).unwrap();
        assert_eq!((rule.threshold, rule.twins), (2.0, 6));
        assert_eq!(rule.rate(train.view(), train.view()).unwrap(), 1.0);
        let near = array![[0.5f32], [-3.0], [79.5], [100.0]];
        assert_eq!(rule.rate(train.view(), near.view()).unwrap(), 0.5);
    }

    #[test]
    fn of_one_image_many_times_only_that_image_is_a_copy() {
        let train = Array2::from_elem((9, 4), 0.25f32);
        let rule = CopyRule::of(train.view()).unwrap();
        assert_eq!((rule.threshold, rule.twins), (0.0, 9));
        let samples = array![[0.25f32; 4], [0.250_001; 4]];
        assert_eq!(rule.rate(train.view(), samples.view()).unwrap(), 0.5);
    }

    #[test]
    fn a_single_image_gives_no_rule() {
        let one = array![[0.0f32, 1.0]];
        let error = CopyRule::of(one.view()).unwrap_err();
        assert!(matches!(error, MetricError::TooFew { needed: 2, .. }));
    }
}
