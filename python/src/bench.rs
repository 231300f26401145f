//! How long the library takes for the same arrays, to compare with.

use crate::errors::invalid;
use crate::threads::pool;
use dis_scan::{ScanOptions, selective_scan, selective_scan_grad};
use numpy::{PyReadonlyArray2, PyReadonlyArray3};
use pyo3::prelude::*;
use std::time::Instant;

/// Seconds of dis-scan's functions for arrays of NumPy, (batch, length, channels): the scan, or its gradient if `dout` is
/// given.
#[pyfunction]
pub fn library_seconds(
    py: Python<'_>,
    u: PyReadonlyArray3<'_, f32>,
    delta: PyReadonlyArray3<'_, f32>,
    a: PyReadonlyArray2<'_, f32>,
    b: PyReadonlyArray3<'_, f32>,
    c: PyReadonlyArray3<'_, f32>,
    dout: Option<PyReadonlyArray3<'_, f32>>,
) -> PyResult<f64> {
    let (u, delta, a) = (u.as_array(), delta.as_array(), a.as_array());
    let (b, c) = (b.as_array(), c.as_array());
    let dout = dout.as_ref().map(|dout| dout.as_array());
    let options = ScanOptions {
        delta_softplus: true,
        ..ScanOptions::default()
    };
    let pool = pool()?;
    py.detach(|| {
        pool.install(|| {
            let start = Instant::now();
            match dout {
                None => drop(selective_scan(u, delta, a, b, c, &options).map_err(invalid)?),
                Some(dout) => {
                    drop(
                        selective_scan_grad(u, delta, a, b, c, &options, dout, None)
                            .map_err(invalid)?,
                    );
                }
            }
            Ok(start.elapsed().as_secs_f64())
        })
    })
}
