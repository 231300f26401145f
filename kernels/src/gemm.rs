//! Launch contract of `gemm.ptx`, and what products of all types check.

use crate::contract;
use crate::contract::{ContractInfo, Geometry, Params, Ptr, PtrMut, Ready};
use crate::error::{KernelError, Result};
use crate::mat::{Mat, MatMut, grid_limit, shape};

contract! {
    /// `c = op(a) op(b) (+ bias) (+ c)`.
    pub struct Gemm: GEMM, "dis_gemm" {
        a: Ptr<f32>, a_i: u32, a_p: u32,
        b: Ptr<f32>, b_p: u32, b_j: u32,
        c: PtrMut<f32>, c_i: u32,
        bias: Ptr<f32>,
        accumulate: u32,
        m: u32, n: u32, k: u32,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[Gemm::INFO];

/// Side of a tile of c.
const TILE: usize = 64;

/// An operand as it lies in memory.
pub(crate) struct Stored {
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    /// Whether it is the transpose of what is multiplied.
    pub transposed: bool,
}

impl Stored {
    fn extent(&self) -> (usize, usize) {
        if self.transposed {
            (self.columns, self.rows)
        } else {
            (self.rows, self.columns)
        }
    }

    /// Elements from row to row and from column to column of what is multiplied.
    fn strides(&self) -> [u32; 2] {
        let row = self.row_stride as u32;
        if self.transposed { [1, row] } else { [row, 1] }
    }
}

/// Sizes of a product that fits together.
pub(crate) struct Sides {
    pub m: u32,
    pub n: u32,
    pub k: u32,
    pub a: [u32; 2],
    pub b: [u32; 2],
    pub geometry: Geometry,
}

impl Sides {
    /// Checks the shapes of operands that lie in their memory, and what is read and written beside them.
    pub fn of(
        kernel: &'static str,
        a: Stored,
        b: Stored,
        bias: Ptr<f32>,
        c: &MatMut,
    ) -> Result<Self> {
        c.check(kernel, "c")?;
        let ((m, k), (k_b, n)) = (a.extent(), b.extent());
        if k != k_b || [c.tokens, c.channels] != [m, n] || c.batch != 1 {
            let what = format!(
                "{m} x {k} times {k_b} x {n} into {} of {} x {}",
                c.batch, c.tokens, c.channels
            );
            return Err(shape(kernel, what));
        }
        if !bias.is_null() && bias.len() < n as u64 {
            return Err(KernelError::OutOfBounds {
                kernel,
                name: "bias",
                needed: n as u64,
                len: bias.len(),
            });
        }
        let grid = [
            n.div_ceil(TILE) as u32,
            grid_limit(kernel, "the number of row tiles", m.div_ceil(TILE))?,
            1,
        ];
        Ok(Self {
            m: m as u32,
            n: n as u32,
            k: k as u32,
            a: a.strides(),
            b: b.strides(),
            geometry: Geometry::new(grid, [256, 1, 1]),
        })
    }
}

impl Gemm {
    /// Checks the operands, matrices of one sample each. `bias` may be null.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(
        a: Mat,
        transpose_a: bool,
        b: Mat,
        transpose_b: bool,
        bias: Ptr<f32>,
        accumulate: bool,
        c: MatMut,
    ) -> Result<Ready<Self>> {
        const NAME: &str = "dis_gemm";
        a.check(NAME, "a")?;
        b.check(NAME, "b")?;
        if [a.batch, b.batch] != [1; 2] {
            let what = format!("operands of {} and {} samples", a.batch, b.batch);
            return Err(shape(NAME, what));
        }
        let stored = |x: &Mat, transposed: bool| Stored {
            rows: x.tokens,
            columns: x.channels,
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
