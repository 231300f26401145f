//! Learning rates over a run.

pub use dis_tensor::published_learning_rate;

/// How the rate moves after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Half a cosine down to `min_lr`.
    #[default]
    Cosine,
    /// Not at all.
    Constant,
}

/// The rate at `position` (from 0) of a schedule of `steps`, counted in steps: the update of step s has
/// the published rate of "epoch" s, so the very first one has rate 0 when there is a warm-up. Where a run
/// keeps to a time, positions lie between steps ([`Pace`](crate::pace::Pace)).
pub fn learning_rate(
    position: f64,
    lr: f64,
    min_lr: f64,
    warmup: u64,
    steps: u64,
    decay: Decay,
) -> f64 {
    let warmup = warmup as f64;
    match decay {
        Decay::Constant if position >= warmup => lr,
        _ => published_learning_rate(position, lr, min_lr, warmup, steps as f64),
    }
}

/// Decay of the moving average at an update (from 1): `decay`, or with `warmup` no more than
/// `(1 + n) / (10 + n)`, so that early weights are forgotten quickly.
pub fn ema_decay(update: u64, decay: f64, warmup: bool) -> f64 {
    if warmup {
        decay.min((1.0 + update as f64) / (10.0 + update as f64))
    } else {
        decay
    }
}

/// The decay whose moving average reaches back over a share of a run of `steps`.
pub fn average_over(share: f64, steps: u64) -> f64 {
    1.0 - 1.0 / (share * steps as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_a_run() {
        let rate = |step, decay| learning_rate(f64::from(step), 1e-3, 1e-5, 10, 110, decay);
        assert_eq!(rate(0, Decay::Cosine), 0.0);
        assert_eq!(rate(5, Decay::Constant), 5e-4);
        assert_eq!(rate(10, Decay::Cosine), 1e-3);
        assert!((rate(60, Decay::Cosine) - (1e-5 + 0.99e-3 / 2.0)).abs() < 1e-12);
        assert_eq!(rate(60, Decay::Constant), 1e-3);
        assert!((rate(200, Decay::Cosine) - 1e-5).abs() < 1e-15);
        assert_eq!(learning_rate(3.0, 1e-3, 0.0, 0, 0, Decay::Cosine), 1e-3);
    }

    #[test]
    fn averages_grow_with_the_run() {
        assert_eq!(average_over(0.1, 1000), 0.99);
        assert_eq!(average_over(0.1, 5), 0.0);
    }

    #[test]
    fn ema_warms_up() {
        assert_eq!(ema_decay(1, 0.999, false), 0.999);
        assert!((ema_decay(1, 0.999, true) - 2.0 / 11.0).abs() < 1e-15);
        assert_eq!(ema_decay(1_000_000, 0.999, true), 0.999);
    }
}
