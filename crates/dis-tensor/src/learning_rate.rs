//! The learning rate over a run.

use std::f64::consts::PI;

/// The published schedule at a fractional epoch: linear from 0 over the warm-up, then half a cosine
/// from `lr` down to `min_lr` at `epochs`.
///
/// ```
/// use dis_tensor::published_learning_rate as rate;
///
/// assert_eq!(rate(0.0, 1e-4, 1e-6, 5.0, 1000.0), 0.0);
/// assert_eq!(rate(5.0, 1e-4, 1e-6, 5.0, 1000.0), 1e-4);
/// assert_eq!(rate(1000.0, 1e-4, 1e-6, 5.0, 1000.0), 1e-6);
/// ```
pub fn published_learning_rate(
    epoch: f64,
    lr: f64,
    min_lr: f64,
    warmup_epochs: f64,
    epochs: f64,
) -> f64 {
    if epoch < warmup_epochs {
        return lr * epoch / warmup_epochs;
    }
    // A run no longer than its warm-up ends at the full rate.
    let progress = if epochs > warmup_epochs {
        ((epoch - warmup_epochs) / (epochs - warmup_epochs)).min(1.0)
    } else {
        0.0
    };
    min_lr + (lr - min_lr) * 0.5 * (1.0 + (PI * progress).cos())
}
