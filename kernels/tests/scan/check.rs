//! Comparison of device results with float64 ones.

use super::case::{Matrix, SENTINEL};
use super::oracle::Wide;

/// The largest error of a result as a fraction of the largest magnitude expected (`floor` at
/// least), everywhere; an error if memory outside the matrix was touched or a result is no number.
pub fn error(got: &Matrix, before: &Matrix, want: &Wide, floor: f64) -> Result<f64, String> {
    assert_eq!(got.shape, want.shape);
    for (i, inside) in got.inside().into_iter().enumerate() {
        if !inside && got.data[i].to_bits() != before.data[i].to_bits() {
            return Err(format!("memory outside changed at {i}: {}", got.data[i]));
        }
    }
    let scale = want.data.iter().fold(floor, |m, x| m.max(x.abs()));
    let got = Wide::of(got);
    let mut worst = 0.0f64;
    for (i, (got, want)) in got.data.iter().zip(&want.data).enumerate() {
        let error = (got - want).abs();
        if !error.is_finite() || (*got == f64::from(SENTINEL) && *want != *got) {
            return Err(format!("element {i}: {got} for {want}"));
        }
        worst = worst.max(error / (scale + 1e-30));
    }
    Ok(worst)
}

/// Fails unless the error is within `rtol`.
pub fn check(
    what: &str,
    got: &Matrix,
    before: &Matrix,
    want: &Wide,
    rtol: f64,
    floor: f64,
) -> Result<(), String> {
    match error(got, before, want, floor) {
        Ok(error) if error <= rtol => Ok(()),
        Ok(error) => Err(format!("{what}: error {error:e}, tolerance {rtol:e}")),
        Err(message) => Err(format!("{what}: {message}")),
    }
}
