//! A number of things divided over kinds: images over classes, images over pictures.

/// `total` things divided over `kinds`, as evenly as can be: counts differ by at most one.
///
/// If there are at least as many things as kinds, every kind has one, and the first kinds have the
/// one more. If there are fewer, the kinds that have one are spread evenly over all of them, the
/// first among them: thing i is of kind `i * kinds / total`, rounded down.
///
/// What thing i is depends on `(i, total, kinds)` alone, so that a part of the things can be made
/// anywhere.
///
/// ```
/// use dis_model::classes::Division;
///
/// let division = Division::new(5, 3);
/// let blocks: Vec<usize> = (0..5).map(|i| division.in_blocks(i)).collect();
/// assert_eq!(blocks, [0, 0, 1, 1, 2]);
/// let turns: Vec<usize> = (0..5).map(|i| division.in_turn(i)).collect();
/// assert_eq!(turns, [0, 1, 2, 0, 1]);
/// let few = Division::new(2, 10);
/// assert_eq!((few.in_blocks(0), few.in_blocks(1)), (0, 5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    total: usize,
    kinds: usize,
}

impl Division {
    /// Divides `total` things over `kinds`; none is taken for one.
    pub fn new(total: usize, kinds: usize) -> Self {
        Self {
            total,
            kinds: kinds.max(1),
        }
    }

    /// Things of `kind`.
    pub fn share(&self, kind: usize) -> usize {
        if kind >= self.kinds {
            return 0;
        }
        if self.total >= self.kinds {
            return self.total / self.kinds + usize::from(kind < self.total % self.kinds);
        }
        // The first thing whose kind is not below this one, if it is of this one.
        let first = (kind as u128 * self.total as u128).div_ceil(self.kinds as u128) as usize;
        usize::from(first < self.total && self.spread(first) == kind)
    }

    /// Kind of thing `i` where those of a kind follow each other: 0 0 1 1 2.
    pub fn in_blocks(&self, i: usize) -> usize {
        if self.total < self.kinds {
            return self.spread(i);
        }
        let (each, more) = (self.total / self.kinds, self.total % self.kinds);
        let long = more * (each + 1);
        if i < long {
            i / (each + 1)
        } else {
            (more + (i - long) / each).min(self.kinds - 1)
        }
    }

    /// Kind of thing `i` where kinds take turns: 0 1 2 0 1.
    pub fn in_turn(&self, i: usize) -> usize {
        if self.total < self.kinds {
            self.spread(i)
        } else {
            i % self.kinds
        }
    }

    /// Kinds that have nothing.
    pub fn empty(&self) -> usize {
        self.kinds.saturating_sub(self.total)
    }

    /// Kind of thing `i` of fewer things than kinds.
    fn spread(&self, i: usize) -> usize {
        let kind = i as u128 * self.kinds as u128 / self.total.max(1) as u128;
        (kind as usize).min(self.kinds - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Things of each kind, counted.
    fn counts(total: usize, kinds: usize, kind: impl Fn(usize) -> usize) -> Vec<usize> {
        let mut counts = vec![0; kinds];
        (0..total).for_each(|i| counts[kind(i)] += 1);
        counts
    }

    #[test]
    fn twelve_images_of_ten_classes() {
        let division = Division::new(12, 10);
        let found = counts(12, 10, |i| division.in_blocks(i));
        assert_eq!(found, [2, 2, 1, 1, 1, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn nothing_and_the_largest_numbers_are_divided() {
        assert_eq!(Division::new(0, 3).share(0), 0);
        assert_eq!(Division::new(3, 0).share(0), 3);
        let most = Division::new(usize::MAX, usize::MAX);
        assert_eq!(most.in_blocks(usize::MAX - 1), usize::MAX - 1);
        let few = Division::new(usize::MAX - 1, usize::MAX);
        assert!(few.in_blocks(usize::MAX - 2) < usize::MAX);
        assert_eq!(few.share(0), 1);
    }

    proptest! {
        #[test]
        fn counts_differ_by_at_most_one_in_every_order(total in 0usize..400, kinds in 1usize..90) {
            let division = Division::new(total, kinds);
            let shares: Vec<usize> = (0..kinds).map(|k| division.share(k)).collect();
            prop_assert_eq!(&counts(total, kinds, |i| division.in_blocks(i)), &shares);
            prop_assert_eq!(&counts(total, kinds, |i| division.in_turn(i)), &shares);
            prop_assert_eq!(shares.iter().filter(|&&s| s == 0).count(), division.empty());
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(most - least <= 1);
            if total >= kinds {
                prop_assert!(shares.is_sorted_by(|a, b| a >= b), "the first have the one more");
            } else if total > 0 {
                // No gap between two kinds that are there is twice another.
                let there: Vec<usize> = (0..total).map(|i| division.in_blocks(i)).collect();
                let gaps: Vec<usize> = there.windows(2).map(|w| w[1] - w[0]).collect();
                let even = kinds / total..=kinds.div_ceil(total);
                prop_assert!(gaps.iter().all(|g| even.contains(g)) && there[0] == 0);
            }
        }

        #[test]
        fn multiples_are_blocks_of_one_length(each in 1usize..20, kinds in 1usize..40) {
            let division = Division::new(each * kinds, kinds);
            for i in 0..each * kinds {
                prop_assert_eq!(division.in_blocks(i), i / each);
                prop_assert_eq!(division.in_turn(i), i % kinds);
            }
        }
    }
}
