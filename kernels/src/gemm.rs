//! Launch contract of `gemm.ptx`, and what products of all types check.

use crate::contract::{
    Args, Contract, ContractInfo, Geometry, Kernel, Param, ParamInfo, Ready, Stride, Strides,
    contract,
};
use crate::error::Result;
use crate::mat::{Mat, MatMut, grid_limit, shape, shapes};

contract! {
    /// `c = op(a) op(b) (+ bias) (+ c)`.
    pub struct Gemm: GEMM, "dis_gemm" {
        a: Factor<f32> [row as i, column as p],
        b: Factor<f32> [row as p, column as j],
        c: MatMut [row as i],
        bias: Option<Mat> [],
        accumulate: bool,
        m: usize = |k| k.c.tokens, n: usize = |k| k.c.channels, k: usize = |k| k.b.extent()[0],
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[Gemm::INFO];

/// Side of the part of c that a block has.
pub const TILE: usize = 64;

/// What is multiplied: a matrix of one sample, or its transpose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factor<T> {
    pub stored: Mat<T>,
    pub transposed: bool,
}

impl<T> Factor<T> {
    /// Rows and columns of what is multiplied.
    pub fn extent(&self) -> [usize; 2] {
        let [_, rows, columns] = self.stored.shape();
        if self.transposed {
            [columns, rows]
        } else {
            [rows, columns]
        }
    }
}

/// A pointer, and the strides of what is multiplied.
impl<T: Copy> Param for Factor<T> {
    const ABSENT: Self = Self {
        stored: Mat::ABSENT,
        transposed: false,
    };

    fn declare(list: &mut Vec<ParamInfo>, name: &str, strides: &Strides) {
        Mat::<T>::declare(list, name, strides);
    }

    fn check(&self, kernel: &'static str, name: &'static str) -> Result<()> {
        self.stored.check(kernel, name)
    }

    fn pass(&self, args: &mut Args, strides: &Strides) {
        args.push(self.stored.ptr.address().to_le_bytes());
        for (stride, _) in strides {
            let along_rows = (*stride == Stride::Row) != self.transposed;
            let elements = if along_rows {
                self.stored.row_stride
            } else {
                1
            };
            args.push((elements as u32).to_le_bytes());
        }
    }
}

/// Checks the shapes of a product.
pub(crate) fn fit<T>(
    kernel: &'static str,
    [a, b]: [&Factor<T>; 2],
    bias: &Option<Mat>,
    c: &MatMut,
) -> Result<Geometry> {
    let samples = [a.stored.batch, b.stored.batch, c.batch];
    if samples != [1; 3] {
        return Err(shape(kernel, format!("operands of {samples:?} samples")));
    }
    let ([m, k], [k_b, n]) = (a.extent(), b.extent());
    if k != k_b || [c.tokens, c.channels] != [m, n] {
        let what = format!(
            "{m} x {k} times {k_b} x {n} into {} x {}",
            c.tokens, c.channels
        );
        return Err(shape(kernel, what));
    }
    shapes(kernel, &[("bias", bias, [1, 1, n])])?;
    let grid = [
        n.div_ceil(TILE) as u32,
        grid_limit(kernel, "the number of row tiles", m.div_ceil(TILE))?,
        1,
    ];
    Ok(Geometry::new(grid, [256, 1, 1]))
}

impl Gemm {
    /// Checks the operands, matrices of one sample each; `bias` is (1, 1, columns).
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(
        a: Mat,
        transpose_a: bool,
        b: Mat,
        transpose_b: bool,
        bias: Option<Mat>,
        accumulate: bool,
        c: MatMut,
    ) -> Result<Ready<Self>> {
        let factor = |stored, transposed| Factor { stored, transposed };
        let (a, b) = (factor(a, transpose_a), factor(b, transpose_b));
        Self {
            a,
            b,
            c,
            bias,
            accumulate,
        }
        .ready()
    }
}

impl Kernel for Gemm {
    fn fit(&mut self) -> Result<Geometry> {
        fit(Self::NAME, [&self.a, &self.b], &self.bias, &self.c)
    }
}
