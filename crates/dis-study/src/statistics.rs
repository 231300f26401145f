//! Means over seeds with their intervals, and what paired differences say of a claim.

/// Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom; beyond, the normal's.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// A mean and how far it may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Number of values.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Half of the 95 % interval of the mean, by Student's t; none for a single value.
    pub half: Option<f64>,
}

impl Summary {
    /// Of these values; none if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let half = (count > 1).then(|| {
            let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
            let deviation = (squares / (count - 1) as f64).sqrt();
            let t = T.get(count - 2).copied().unwrap_or(1.96);
            t * deviation / (count as f64).sqrt()
        });
        Some(Self { count, mean, half })
    }

    /// As text with `digits` decimals.
    pub fn text(&self, digits: usize) -> String {
        match self.half {
            Some(half) => format!("{:.digits$} ± {half:.digits$}", self.mean),
            None => format!("{:.digits$}", self.mean),
        }
    }
}

/// What was measured of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The interval lies on the claim's side of zero.
    Agrees,
    /// The interval lies on the other side.
    Disagrees,
    /// The interval holds zero, or there is none.
    Undecided,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Agrees => "agrees",
            Self::Disagrees => "disagrees",
            Self::Undecided => "undecided",
        })
    }
}

/// Of differences that the claim says are positive.
pub fn verdict(differences: &Summary) -> Verdict {
    match differences.half {
        Some(half) if differences.mean - half > 0.0 => Verdict::Agrees,
        Some(half) if differences.mean + half < 0.0 => Verdict::Disagrees,
        _ => Verdict::Undecided,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_of_four_values() {
        // scipy.stats.t.interval(0.95, 3, mean, sem) of 1, 2, 4, 7: 3.5 with half width 4.2100.
        let s = Summary::of(&[1.0, 2.0, 4.0, 7.0]).unwrap();
        assert_eq!((s.count, s.mean), (4, 3.5));
        assert!((s.half.unwrap() - 4.2100).abs() < 1e-3, "{s:?}");
        assert_eq!(Summary::of(&[2.0]).unwrap().half, None);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn verdicts_need_an_interval_on_one_side() {
        let of = |values: &[f64]| verdict(&Summary::of(values).unwrap());
        assert_eq!(of(&[1.0, 1.1, 0.9]), Verdict::Agrees);
        assert_eq!(of(&[-1.0, -1.1, -0.9]), Verdict::Disagrees);
        assert_eq!(of(&[1.0, -1.1, 0.9]), Verdict::Undecided);
        assert_eq!(of(&[1.0]), Verdict::Undecided);
    }
}
