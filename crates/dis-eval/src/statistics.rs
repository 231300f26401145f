//! Statistics of features in a file, in the layout that other evaluators read and write.

use std::path::Path;

use dis_files::npz::{Array, NpzFile, write_npz};
use ndarray::{Array1, Array2};

use crate::error::{EvalError, Result};
use crate::metrics::Statistics;

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
        let file = NpzFile::open(path)?;
        Ok(file.contains("mu") && file.contains("sigma") && !file.contains("arr_0"))
    }

    /// Reads `mu` (d) and `sigma` (d, d), and the spatial ones if they are there.
    ///
    /// # Errors
    /// If the file cannot be read, or does not hold these.
    pub fn load(path: &Path) -> Result<Self> {
        let mut file = NpzFile::open(path)?;
        let mut pair = |mu: &str, sigma: &str| -> Result<Option<Statistics>> {
            match (file.contains(mu), file.contains(sigma)) {
                (true, true) => statistics(&file.array(mu)?, &file.array(sigma)?)
                    .map(Some)
                    .map_err(|what| refuse(path, &format!("{mu} and {sigma}: {what}"))),
                (false, false) => Ok(None),
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
        let (mu, sigma) = arrays(&self.features)?;
        let mut all = vec![("mu", &mu), ("sigma", &sigma)];
        let spatial = self.spatial.as_ref().map(arrays).transpose()?;
        if let Some((mu, sigma)) = &spatial {
            all.extend([("mu_s", mu), ("sigma_s", sigma)]);
        }
        Ok(write_npz(path, &all)?)
    }
}

fn refuse(path: &Path, what: &str) -> EvalError {
    EvalError::config(format!("{}: {what}", path.display()))
}

fn statistics(mu: &Array, sigma: &Array) -> std::result::Result<Statistics, String> {
    let means = mu.to_f64().map_err(|e| e.to_string())?;
    let values = sigma.to_f64().map_err(|e| e.to_string())?;
    let d = means.len();
    if mu.shape() != [d] || sigma.shape() != [d, d] || d == 0 {
        return Err(format!(
            "their shapes are {:?} and {:?}, not (d) and (d, d)",
            mu.shape(),
            sigma.shape()
        ));
    }
    if !means.iter().chain(&values).all(|v| v.is_finite()) {
        return Err("a value is not finite".into());
    }
    Ok(Statistics {
        mu: Array1::from_vec(means),
        sigma: Array2::from_shape_vec((d, d), values).map_err(|e| e.to_string())?,
    })
}

fn arrays(statistics: &Statistics) -> Result<(Array, Array)> {
    let d = statistics.mu.len();
    let array = |shape: &[usize], values: Vec<f64>| {
        Array::from_f64(shape, &values).map_err(|e| EvalError::config(format!("statistics: {e}")))
    };
    Ok((
        array(&[d], statistics.mu.iter().copied().collect())?,
        array(&[d, d], statistics.sigma.iter().copied().collect())?,
    ))
}
