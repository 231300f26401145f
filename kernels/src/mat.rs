//! Token matrices on a device, and the checks that kernels share.

use crate::contract::{Args, Geometry, Param, ParamInfo, ParamKind, Stride, Strides, joined, one};
use crate::error::{KernelError, Result};
use crate::pointer::{Pointer, Read, Write};

/// A token matrix: element (b, t, c) is at `b * batch_stride + t * row_stride + c` from the pointer, which
/// includes any offset. A stride of zero repeats a row or a sample.
#[derive(Debug)]
pub struct Matrix<T, Access> {
    /// The first element.
    pub ptr: Pointer<T, Access>,
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

/// A token matrix to read.
pub type Mat<T = f32> = Matrix<T, Read>;

/// A token matrix to write.
pub type MatMut<T = f32> = Matrix<T, Write>;

impl<T, Access> Clone for Matrix<T, Access> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, Access> Copy for Matrix<T, Access> {}

impl<T, Access> Matrix<T, Access> {
    /// A dense token matrix.
    pub fn dense(ptr: Pointer<T, Access>, batch: usize, tokens: usize, channels: usize) -> Self {
        Self {
            ptr,
            batch,
            tokens,
            channels,
            row_stride: channels,
            batch_stride: tokens * channels,
        }
    }

    /// The same matrix, to read.
    pub fn read(self) -> Mat<T> {
        Mat {
            ptr: self.ptr.read(),
            batch: self.batch,
            tokens: self.tokens,
            channels: self.channels,
            row_stride: self.row_stride,
            batch_stride: self.batch_stride,
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
        self.is_matrix() && (self.batch * self.tokens <= 1 || self.row_stride == self.channels)
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
}

/// A pointer, and strides that count elements.
impl<T, Access> Param for Matrix<T, Access> {
    const STRIDES: &'static Strides = &[(Stride::Row, "row"), (Stride::Batch, "batch")];
    const ABSENT: Self = Self {
        ptr: Pointer::null(),
        batch: 0,
        tokens: 0,
        channels: 0,
        row_stride: 0,
        batch_stride: 0,
    };

    fn declare(list: &mut Vec<ParamInfo>, name: &str, strides: &Strides) {
        one(list, name, ParamKind::U64);
        for (_, suffix) in strides {
            one(list, &joined(name, suffix), ParamKind::U32);
        }
    }

    fn check(&self, kernel: &'static str, name: &'static str) -> Result<()> {
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
        self.ptr.holds(kernel, name, needed)
    }

    fn pass(&self, args: &mut Args, strides: &Strides) {
        args.push(self.ptr.address().to_le_bytes());
        for (stride, _) in strides {
            let elements = match stride {
                Stride::Row => self.row_stride,
                Stride::Column => 1,
                Stride::Batch => self.batch_stride,
            };
            args.push((elements as u32).to_le_bytes());
        }
    }
}

/// An operand that may be absent, to be compared with the shape that it must have.
pub(crate) trait Shaped {
    fn shape(&self) -> Option<[usize; 3]>;
}

impl<T, Access> Shaped for Matrix<T, Access> {
    fn shape(&self) -> Option<[usize; 3]> {
        Some(self.shape())
    }
}

impl<S: Shaped> Shaped for Option<S> {
    fn shape(&self) -> Option<[usize; 3]> {
        self.as_ref().and_then(Shaped::shape)
    }
}

/// Checks that operands have these shapes, where they are there.
pub(crate) fn shapes(
    kernel: &'static str,
    operands: &[(&'static str, &dyn Shaped, [usize; 3])],
) -> Result<()> {
    for (name, operand, expected) in operands {
        match operand.shape() {
            Some(found) if found != *expected => {
                let what = format!("{name} has shape {found:?}, not {expected:?}");
                return Err(shape(kernel, what));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A shape error of a kernel.
pub(crate) fn shape(kernel: &'static str, what: String) -> KernelError {
    KernelError::Shape { kernel, what }
}

/// Checks that a grid dimension other than the first is possible.
pub(crate) fn grid_limit(kernel: &'static str, name: &'static str, value: usize) -> Result<u32> {
    if value > 65_535 {
        return Err(shape(kernel, format!("{name} is {value}, above 65535")));
    }
    Ok(value as u32)
}

/// Checks that work is cut in chunks of at least one.
pub(crate) fn not_zero(kernel: &'static str, name: &'static str, value: usize) -> Result<()> {
    match value {
        0 => Err(shape(kernel, format!("{name} is 0"))),
        _ => Ok(()),
    }
}

/// The samples and values of a batch of images: a token matrix with one token a sample, which holds all
/// its values.
pub(crate) fn images<T, Access>(kernel: &'static str, x: &Matrix<T, Access>) -> Result<[usize; 2]> {
    let [batch, tokens, values] = x.shape();
    if tokens != 1 {
        let what = format!("images of {tokens} tokens each, not of one");
        return Err(shape(kernel, what));
    }
    Ok([batch, values])
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
