//! Launch contract of `gemm.ptx`.

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

impl Gemm {
    /// Checks the operands, matrices of one sample each. `bias` may be null.
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
        c.check(NAME, "c")?;
        let extent = |x: &Mat, transpose: bool| {
            if transpose {
                (x.channels, x.tokens)
            } else {
                (x.tokens, x.channels)
            }
        };
        let ((m, k), (k_b, n)) = (extent(&a, transpose_a), extent(&b, transpose_b));
        if k != k_b || [c.tokens, c.channels] != [m, n] || [a.batch, b.batch, c.batch] != [1; 3] {
            let what = format!(
                "{m} x {k} times {k_b} x {n} into {} x {}, in {:?} samples",
                c.tokens,
                c.channels,
                [a.batch, b.batch, c.batch]
            );
            return Err(shape(NAME, what));
        }
        if !bias.is_null() && bias.len() < n as u64 {
            return Err(KernelError::OutOfBounds {
                kernel: NAME,
                name: "bias",
                needed: n as u64,
                len: bias.len(),
            });
        }
        let strides = |x: &Mat, transpose: bool| {
            let row = x.row_stride as u32;
            if transpose { (1, row) } else { (row, 1) }
        };
        let ((a_i, a_p), (b_p, b_j)) = (strides(&a, transpose_a), strides(&b, transpose_b));
        let kernel = Self {
            a: a.ptr,
            a_i,
            a_p,
            b: b.ptr,
            b_p,
            b_j,
            c: c.ptr,
            c_i: c.row_stride as u32,
            bias,
            accumulate: accumulate.into(),
            m: m as u32,
            n: n as u32,
            k: k as u32,
        };
        let grid = [
            n.div_ceil(TILE) as u32,
            grid_limit(NAME, "the number of row tiles", m.div_ceil(TILE))?,
            1,
        ];
        Ok(Ready::new(kernel, Geometry::new(grid, [256, 1, 1])))
    }
}
