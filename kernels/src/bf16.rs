//! Launch contracts of `bf16.ptx`.

use crate::contract::{Contract, ContractInfo, Geometry, Kernel, contract};
use crate::error::Result;
use crate::gemm::{Factor, fit};
use crate::mat::{Mat, MatMut, shape};
use crate::pointer::{Ptr, PtrMut};

contract! {
    /// `dst = src`, rounded to bfloat16. `src` is one matrix, whose samples count as rows; `dst` gets
    /// [`Bf16Mat::stride`] elements for each row.
    pub struct RoundBf16: BF16, "dis_round_bf16" {
        src: Mat [row],
        dst: PtrMut<u16>, dst_row: usize = |k| Bf16Mat::stride(k.src.channels),
        rows: usize = |k| k.src.tokens, columns: usize = |k| k.src.channels,
    }
    pub fn new;
}
contract! {
    /// `c = a b (+ bias) (+ c)` of bfloat16 factors, with `bias` (1, 1, columns).
    pub struct GemmBf16: BF16, "dis_gemm_bf16" {
        a: Factor<u16> [row as i, column as p],
        b: Factor<u16> [row as p, column as j],
        c: MatMut [row as i],
        bias: Option<Mat> [],
        accumulate: bool,
        m: usize = |k| k.c.tokens, n: usize = |k| k.c.channels, k: usize = |k| k.b.extent()[0],
    }
    pub fn new;
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[RoundBf16::INFO, GemmBf16::INFO];

/// Rows begin at multiples of 16 bytes: only then may cuBLAS load them in the widest accesses, and some
/// versions use tensor cores for nothing else (its documentation, "Tensor Core Usage").
const ALIGNED: usize = 8;

/// Blocks along a row, each of which then walks on: rows fill a GPU, if anything does.
const MOST_BLOCKS: usize = 64;

/// A matrix of bfloat16, to read: one sample.
pub type Bf16Mat = Mat<u16>;

impl Bf16Mat {
    /// Elements between the rows of a rounded matrix.
    pub fn stride(columns: usize) -> usize {
        columns.next_multiple_of(ALIGNED)
    }

    /// What [`RoundBf16`] leaves at `ptr`.
    pub fn rounded(ptr: Ptr<u16>, rows: usize, columns: usize) -> Self {
        let row_stride = Self::stride(columns);
        Self {
            row_stride,
            batch_stride: rows * row_stride,
            ..Self::dense(ptr, 1, rows, columns)
        }
    }

    /// `rows` x `columns` elements from (`row`, `column`) on; nothing where they are not all there.
    pub fn part(self, [row, column]: [usize; 2], [rows, columns]: [usize; 2]) -> Option<Self> {
        let inside = row + rows <= self.tokens && column + columns <= self.channels;
        inside.then(|| Self {
            ptr: self.ptr.at((row * self.row_stride + column) as u64),
            tokens: rows,
            channels: columns,
            ..self
        })
    }
}

impl Kernel for RoundBf16 {
    fn fit(&mut self) -> Result<Geometry> {
        if !self.src.is_matrix() {
            let what = format!("{:?} is not one matrix", self.src);
            return Err(shape(Self::NAME, what));
        }
        self.src = self.src.as_matrix();
        let [_, rows, columns] = self.src.shape();
        // A pair is stored whole, the padding beside an odd column too.
        let needed = rows as u64 * Bf16Mat::stride(columns) as u64;
        self.dst.holds(Self::NAME, "dst", needed)?;
        if !self.dst.address().is_multiple_of(4) {
            let what = format!("dst at {:#x}", self.dst.address());
            return Err(shape(Self::NAME, what));
        }
        let pairs = columns.div_ceil(2);
        let width = pairs.next_power_of_two().clamp(32, 256);
        let height = 256 / width;
        let grid = [
            rows.div_ceil(height) as u32,
            pairs.div_ceil(width).min(MOST_BLOCKS) as u32,
            1,
        ];
        Ok(Geometry::new(grid, [width as u32, height as u32, 1]))
    }
}

impl Kernel for GemmBf16 {
    fn fit(&mut self) -> Result<Geometry> {
        fit(Self::NAME, [&self.a, &self.b], &self.bias, &self.c)
    }
}
