//! Launch contracts of `bf16.ptx`.

use crate::contract;
use crate::contract::{ContractInfo, Geometry, Params, Ptr, PtrMut, Ready};
use crate::error::{KernelError, Result};
use crate::gemm::{Sides, Stored};
use crate::mat::{Mat, MatMut, shape};

contract! {
    /// `dst = src`, rounded to bfloat16.
    pub struct RoundBf16: BF16, "dis_round_bf16" {
        src: Ptr<f32>, src_row: u32,
        dst: PtrMut<u16>, dst_row: u32,
        rows: u32, columns: u32,
    }
}
contract! {
    /// `c = op(a) op(b) (+ bias) (+ c)` of bfloat16 operands.
    pub struct GemmBf16: BF16, "dis_gemm_bf16" {
        a: Ptr<u16>, a_i: u32, a_p: u32,
        b: Ptr<u16>, b_p: u32, b_j: u32,
        c: PtrMut<f32>, c_i: u32,
        bias: Ptr<f32>,
        accumulate: u32,
        m: u32, n: u32, k: u32,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[RoundBf16::INFO, GemmBf16::INFO];

/// Rows begin at multiples of 16 bytes: only then may cuBLAS load them in the widest accesses, and some
/// versions use tensor cores for nothing else (its documentation, "Tensor Core Usage").
const ALIGNED: usize = 8;

/// Blocks along a row, each of which then walks on: rows fill a GPU, if anything does.
const MOST_BLOCKS: usize = 64;

/// A matrix of bfloat16, to read.
#[derive(Clone, Copy, Debug)]
pub struct Bf16Mat {
    /// The first element.
    pub ptr: Ptr<u16>,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Elements between rows.
    pub row_stride: usize,
}

impl Bf16Mat {
    /// Elements between the rows of a rounded matrix.
    pub fn stride(columns: usize) -> usize {
        columns.next_multiple_of(ALIGNED)
    }

    /// What [`RoundBf16`] leaves at `ptr`.
    pub fn rounded(ptr: Ptr<u16>, rows: usize, columns: usize) -> Self {
        Self {
            ptr,
            rows,
            columns,
            row_stride: Self::stride(columns),
        }
    }

    /// `rows` x `columns` elements from (`row`, `column`) on; nothing where they are not all there.
    pub fn part(self, [row, column]: [usize; 2], [rows, columns]: [usize; 2]) -> Option<Self> {
        let inside = row + rows <= self.rows && column + columns <= self.columns;
        inside.then(|| Self {
            ptr: self.ptr.at((row * self.row_stride + column) as u64),
            rows,
            columns,
            ..self
        })
    }

    /// Checks that the matrix lies in its memory and that sizes fit the kernels' 32-bit arithmetic.
    fn check(&self, kernel: &'static str, name: &'static str) -> Result<()> {
        if self.rows == 0 || self.columns == 0 {
            return Ok(());
        }
        if [self.rows, self.columns, self.row_stride]
            .iter()
            .any(|&size| size > i32::MAX as usize)
        {
            return Err(shape(kernel, format!("{name} is {self:?}")));
        }
        let needed = (self.rows as u64 - 1) * self.row_stride as u64 + self.columns as u64;
        within(kernel, name, needed, self.ptr.len())
    }
}

fn within(kernel: &'static str, name: &'static str, needed: u64, len: u64) -> Result<()> {
    if needed <= len {
        return Ok(());
    }
    Err(KernelError::OutOfBounds {
        kernel,
        name,
        needed,
        len,
    })
}

impl RoundBf16 {
    /// Checks the operands. `src` is one matrix, whose samples count as rows; `dst` gets
    /// [`Bf16Mat::stride`] elements for each row.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(src: Mat, dst: PtrMut<u16>) -> Result<Ready<Self>> {
        const NAME: &str = "dis_round_bf16";
        if !src.is_matrix() {
            return Err(shape(NAME, format!("{src:?} is not one matrix")));
        }
        let src = src.as_matrix();
        src.check(NAME, "src")?;
        let (rows, columns) = (src.tokens, src.channels);
        let stride = Bf16Mat::stride(columns);
        Bf16Mat::rounded(dst.read(), rows, columns).check(NAME, "dst")?;
        // A pair is stored whole, the padding beside an odd column too.
        within(NAME, "dst", rows as u64 * stride as u64, dst.len())?;
        if !dst.address().is_multiple_of(4) {
            return Err(shape(NAME, format!("dst at {:#x}", dst.address())));
        }
        let kernel = Self {
            src: src.ptr,
            src_row: src.row_stride as u32,
            dst,
            dst_row: stride as u32,
            rows: rows as u32,
            columns: columns as u32,
        };
        let pairs = columns.div_ceil(2);
        let width = pairs.next_power_of_two().clamp(32, 256);
        let height = 256 / width;
        let grid = [
            rows.div_ceil(height) as u32,
            pairs.div_ceil(width).min(MOST_BLOCKS) as u32,
            1,
        ];
        let block = [width as u32, height as u32, 1];
        Ok(Ready::new(kernel, Geometry::new(grid, block)))
    }
}

impl GemmBf16 {
    /// Checks the operands. `bias` may be null.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(
        a: Bf16Mat,
        transpose_a: bool,
        b: Bf16Mat,
        transpose_b: bool,
        bias: Ptr<f32>,
        accumulate: bool,
        c: MatMut,
    ) -> Result<Ready<Self>> {
        const NAME: &str = "dis_gemm_bf16";
        a.check(NAME, "a")?;
        b.check(NAME, "b")?;
        let stored = |x: &Bf16Mat, transposed: bool| Stored {
            rows: x.rows,
            columns: x.columns,
            row_stride: x.row_stride,
            transposed,
        };
        let sides = Sides::of(
            NAME,
            stored(&a, transpose_a),
            stored(&b, transpose_b),
            bias,
            &c,
        )?;
        let kernel = Self {
            a: a.ptr,
            a_i: sides.a[0],
            a_p: sides.a[1],
            b: b.ptr,
            b_p: sides.b[0],
            b_j: sides.b[1],
            c: c.ptr,
            c_i: c.row_stride as u32,
            bias,
            accumulate: accumulate.into(),
            m: sides.m,
            n: sides.n,
            k: sides.k,
        };
        Ok(Ready::new(kernel, sides.geometry))
    }
}
