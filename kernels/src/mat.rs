//! Token matrices on a device, and the checks that contracts share.

use crate::contract::{Geometry, Ptr, PtrMut};
use crate::error::{KernelError, Result};

/// A token matrix to read: element (b, t, c) is at `b * batch_stride + t * row_stride + c` from
/// the pointer, which includes any offset. A stride of zero repeats a row or a sample.
#[derive(Clone, Copy, Debug)]
pub struct Mat {
    /// The first element.
    pub ptr: Ptr<f32>,
    /// Samples.
    pub batch: usize,
    /// Tokens of a sample.
    pub tokens: usize,
    /// Channels of a token.
    pub channels: usize,
    /// Elements between tokens.
    pub row_stride: usize,
    /// Elements between samples.
    pub batch_stride: usize,
}

/// A token matrix to write.
#[derive(Clone, Copy, Debug)]
pub struct MatMut {
    /// The first element.
    pub ptr: PtrMut<f32>,
    /// Samples.
    pub batch: usize,
    /// Tokens of a sample.
    pub tokens: usize,
    /// Channels of a token.
    pub channels: usize,
    /// Elements between tokens.
    pub row_stride: usize,
    /// Elements between samples.
    pub batch_stride: usize,
}

macro_rules! common {
    ($name:ident, $ptr:ident) => {
        impl $name {
            /// A dense token matrix.
            pub fn dense(ptr: $ptr<f32>, batch: usize, tokens: usize, channels: usize) -> Self {
                Self {
                    ptr,
                    batch,
                    tokens,
                    channels,
                    row_stride: channels,
                    batch_stride: tokens * channels,
                }
            }
            /// (batch, tokens, channels).
            pub fn shape(&self) -> [usize; 3] {
                [self.batch, self.tokens, self.channels]
            }
            /// Elements.
            pub fn elements(&self) -> usize {
                self.batch * self.tokens * self.channels
            }
            /// Whether rows of all samples lie at one stride.
            pub fn is_matrix(&self) -> bool {
                self.batch <= 1 || self.batch_stride == self.tokens * self.row_stride
            }
            /// Whether the elements are contiguous.
            pub fn is_dense(&self) -> bool {
                self.is_matrix()
                    && (self.batch * self.tokens <= 1 || self.row_stride == self.channels)
            }
            /// All samples as one, where [`Self::is_matrix`].
            pub fn as_matrix(self) -> Self {
                let rows = self.batch * self.tokens;
                Self {
                    batch: 1,
                    tokens: rows,
                    batch_stride: rows * self.row_stride,
                    ..self
                }
            }
            /// All elements as one row, where [`Self::is_dense`].
            pub fn as_row(self) -> Self {
                let n = self.elements();
                Self::dense(self.ptr, 1, 1, n)
            }
            /// The elements of each sample as one row, where its rows are contiguous.
            pub fn sample_as_row(self) -> Self {
                let n = self.tokens * self.channels;
                Self {
                    tokens: 1,
                    channels: n,
                    row_stride: n,
                    ..self
                }
            }
            /// Checks that the matrix lies in its memory and that sizes and strides fit the
            /// kernels' 32-bit arithmetic.
            ///
            /// # Errors
            /// If it does not, or they do not.
            pub fn check(&self, kernel: &'static str, name: &'static str) -> Result<()> {
                if self.elements() == 0 {
                    return Ok(());
                }
                for (what, value) in [
                    ("samples", self.batch),
                    ("tokens", self.tokens),
                    ("channels", self.channels),
                    ("row stride", self.row_stride),
                    ("batch stride", self.batch_stride),
                ] {
                    if value > i32::MAX as usize {
                        return Err(shape(kernel, format!("{name} has {what} {value}")));
                    }
                }
                let needed = (self.batch as u64 - 1) * self.batch_stride as u64
                    + (self.tokens as u64 - 1) * self.row_stride as u64
                    + self.channels as u64;
                if needed > self.ptr.len() {
                    return Err(KernelError::OutOfBounds {
                        kernel,
                        name,
                        needed,
                        len: self.ptr.len(),
                    });
                }
                Ok(())
            }
            /// Checks as [`Self::check`] and that the shape is this.
            ///
            /// # Errors
            /// If they do not, or it is not.
            pub fn check_shape(
                &self,
                kernel: &'static str,
                name: &'static str,
                expected: [usize; 3],
            ) -> Result<()> {
                if self.shape() != expected {
                    return Err(shape(
                        kernel,
                        format!("{name} has shape {:?}, not {expected:?}", self.shape()),
                    ));
                }
                self.check(kernel, name)
            }
        }
    };
}
common!(Mat, Ptr);
common!(MatMut, PtrMut);

impl MatMut {
    /// The same matrix, to read.
    pub fn read(self) -> Mat {
        Mat {
            ptr: self.ptr.read(),
            batch: self.batch,
            tokens: self.tokens,
            channels: self.channels,
            row_stride: self.row_stride,
            batch_stride: self.batch_stride,
        }
    }
}

/// A shape error of a kernel.
pub(crate) fn shape(kernel: &'static str, what: String) -> KernelError {
    KernelError::Shape { kernel, what }
}

/// A size as a kernel parameter.
pub(crate) fn to_u32(kernel: &'static str, name: &'static str, value: usize) -> Result<u32> {
    u32::try_from(value).map_err(|_| shape(kernel, format!("{name} is {value}")))
}

/// Checks that a grid dimension other than the first is possible.
pub(crate) fn grid_limit(kernel: &'static str, name: &'static str, value: usize) -> Result<u32> {
    if value > 65_535 {
        return Err(shape(kernel, format!("{name} is {value}, above 65535")));
    }
    Ok(value as u32)
}

/// Shared memory that every GPU gives a block without being asked for more.
pub(crate) const SHARED: usize = 48 * 1024;

/// A launch with a warp a token: as many tokens a block as shared memory holds with `row` bytes each, at
/// most four.
pub(crate) fn warp_a_token(
    kernel: &'static str,
    [batch, tokens, channels]: [usize; 3],
    row: usize,
) -> Result<Geometry> {
    let rows = (SHARED / row.max(1)).clamp(1, 4).min(tokens.max(1));
    let groups = match channels {
        0 => 0,
        _ => tokens.div_ceil(rows) as u32,
    };
    Ok(Geometry {
        grid: [
            groups,
            grid_limit(kernel, "the number of samples", batch)?,
            1,
        ],
        block: [32, rows as u32, 1],
        dynamic_shared: (row * rows) as u32,
    })
}
