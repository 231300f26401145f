//! The one error type of tensor operations.

use crate::Layout;

/// What a tensor operation can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// Two operands do not fit together.
    #[error("{op}: {left_name} has shape {left:?} but {right_name} has shape {right:?}")]
    Mismatch {
        /// Operation that was asked for.
        op: &'static str,
        /// Name of the first operand.
        left_name: &'static str,
        /// Its (batch, tokens, channels).
        left: [usize; 3],
        /// Name of the second operand.
        right_name: &'static str,
        /// Its (batch, tokens, channels), or what was expected.
        right: [usize; 3],
    },
    /// A view reaches outside its buffer.
    #[error("{op}: view {layout:?} needs {needed} elements but its buffer has {len}")]
    OutOfBounds {
        /// Operation that was asked for.
        op: &'static str,
        /// The offending view.
        layout: Layout,
        /// Elements that the view spans from the start of the buffer.
        needed: usize,
        /// Elements in the buffer.
        len: usize,
    },
    /// The device, or the driver of it, failed.
    #[error("{op}: {what}")]
    Device {
        /// Operation that was asked for.
        op: &'static str,
        /// What the device reports.
        what: String,
    },
    /// The device has no code for it.
    #[error("{op}: not on this device: {what}")]
    Unsupported {
        /// Operation that was asked for.
        op: &'static str,
        /// What is missing, and where it is to be had.
        what: &'static str,
    },
    /// An argument is outside its domain.
    #[error("{op}: {what}")]
    Invalid {
        /// Operation that was asked for.
        op: &'static str,
        /// What is wrong, naming the argument and its value.
        what: String,
    },
}

/// Result of tensor operations.
pub type Result<T, E = TensorError> = std::result::Result<T, E>;
