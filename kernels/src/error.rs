//! What launching a kernel can refuse, or fail with.

/// Failure of a launch, a transfer or a driver.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The arguments do not fit together or exceed what the kernel handles.
    #[error("{kernel}: {what}")]
    Shape {
        /// Entry point.
        kernel: &'static str,
        /// What is wrong, with the values.
        what: String,
    },
    /// A view reaches outside its memory.
    #[error("{kernel}: {name} needs {needed} elements but its memory has {len}")]
    OutOfBounds {
        /// Entry point.
        kernel: &'static str,
        /// Parameter.
        name: &'static str,
        /// Elements that it spans.
        needed: u64,
        /// Elements that there are.
        len: u64,
    },
    /// No usable GPU: the machine has no driver, or no device.
    #[error("no NVIDIA GPU can be used: {0}")]
    Unavailable(String),
    /// The driver is too old for the kernels' PTX.
    #[error(
        "the NVIDIA driver (CUDA {driver}) cannot load PTX {ptx} of {file}: update the driver (CUDA error 222)"
    )]
    PtxVersion {
        /// The PTX text.
        file: &'static str,
        /// Its `.version`.
        ptx: String,
        /// The CUDA version that the driver supports.
        driver: String,
    },
    /// The driver reported a failure.
    #[error("{action}: {message}")]
    Driver {
        /// What was being done.
        action: String,
        /// The driver's words.
        message: String,
    },
    /// The simulator found a fault in a kernel.
    #[error("{0}")]
    Fault(String),
    /// The device has no memory left.
    #[error("out of device memory: {bytes} bytes were asked for")]
    OutOfMemory {
        /// The request.
        bytes: usize,
    },
}

/// Result of kernel operations.
pub type Result<T> = std::result::Result<T, KernelError>;
