//! On a machine without a GPU the driver refuses politely.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

use dis_kernels::cuda::{CudaDriver, Precision};
use dis_kernels::{Driver, KernelError};

#[test]
fn a_missing_gpu_is_an_error_and_no_panic() {
    match CudaDriver::open(0, Precision::Full) {
        Ok(driver) => assert!(driver.describe().starts_with("cuda (")),
        Err(error) => {
            assert!(matches!(error, KernelError::Unavailable(_)), "{error:?}");
            assert!(error.to_string().contains("GPU"), "{error}");
        }
    }
}
