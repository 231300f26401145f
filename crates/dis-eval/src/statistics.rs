//! Statistics of features in a file, in the layout that other evaluators read and write.

use std::path::Path;

use ndarray::{Array1, Array2};

use crate::error::{EvalError, Result};
use crate::metrics::Statistics;
use dis_data::{FloatArray, npz_names, read_float_arrays, write_float_arrays};

/// Mean and covariance of features (`mu`, `sigma`) and maybe of spatial ones (`mu_s`, `sigma_s`, as
/// the evaluator of ADM names them).
#[derive(Clone, Debug, PartialEq)]
pub struct SavedStatistics {
    /// Of the features.
    pub features: Statistics,
    /// Of the spatial features.
    pub spatial: Option<Statistics>,
}

impl SavedStatistics {
    /// Whether an `.npz` file holds statistics and no images.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn is_file(path: &Path) -> Result<bool> {
        let names = npz_names(path)?;
        let has = |name: &str| names.iter().any(|n| n == name);
        Ok(has("mu") && has("sigma") && !has("arr_0"))
    }

    /// Reads `mu` (d) and `sigma` (d, d), and the spatial ones if they are there.
    ///
    /// # Errors
    /// If the file cannot be read, or does not hold these.
    pub fn load(path: &Path) -> Result<Self> {
        let mut arrays = read_float_arrays(path, &["mu", "sigma", "mu_s", "sigma_s"])?;
        let mut pair = |mu: &str, sigma: &str| -> Result<Option<Statistics>> {
            match (arrays.remove(mu), arrays.remove(sigma)) {
                (Some(m), Some(s)) => statistics(m, s)
                    .map(Some)
                    .map_err(|what| refuse(path, &format!("{mu} and {sigma}: {what}"))),
                (None, None) => Ok(None),
                _ => Err(refuse(path, &format!("has only one of {mu} and {sigma}"))),
            }
        };
        let features = pair("mu", "sigma")?;
        Ok(Self {
            features: features.ok_or_else(|| refuse(path, "has no arrays mu and sigma"))?,
            spatial: pair("mu_s", "sigma_s")?,
        })
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let (mu, sigma) = arrays(&self.features);
        let mut all = vec![("mu", &mu), ("sigma", &sigma)];
        let spatial = self.spatial.as_ref().map(arrays);
        if let Some((mu, sigma)) = &spatial {
            all.extend([("mu_s", mu), ("sigma_s", sigma)]);
        }
        Ok(write_float_arrays(path, &all)?)
    }
}

fn refuse(path: &Path, what: &str) -> EvalError {
    EvalError::config(format!("{}: {what}", path.display()))
}

fn statistics(mu: FloatArray, sigma: FloatArray) -> std::result::Result<Statistics, String> {
    let d = mu.values.len();
    if mu.shape != [d] || sigma.shape != [d, d] || d == 0 {
        return Err(format!(
            "their shapes are {:?} and {:?}, not (d) and (d, d)",
            mu.shape, sigma.shape
        ));
    }
    if !mu.values.iter().chain(&sigma.values).all(|v| v.is_finite()) {
        return Err("a value is not finite".into());
    }
    Ok(Statistics {
        mu: Array1::from_vec(mu.values),
        sigma: Array2::from_shape_vec((d, d), sigma.values).map_err(|e| e.to_string())?,
    })
}

fn arrays(statistics: &Statistics) -> (FloatArray, FloatArray) {
    let d = statistics.mu.len();
    (
        FloatArray {
            shape: vec![d],
            values: statistics.mu.iter().copied().collect(),
        },
        FloatArray {
            shape: vec![d, d],
            values: statistics.sigma.iter().copied().collect(),
        },
    )
}
