//! Launch contract of `gemm.ptx`, and what products of all types check.

use crate::contract::{
    Args, Contract, ContractInfo, Geometry, Kernel, Param, ParamInfo, Stride, Strides, contract,
};
use crate::error::Result;
use crate::mat::{Mat, MatMut, grid_limit, shape, shapes};

contract! {
    /// `c = a b (+ bias) (+ c)`, with `bias` (1, 1, columns).
    pub struct Gemm: GEMM, "dis_gemm" {
        a: Factor [row as i, column as p],
        b: Factor [row as p, column as j],
        c: MatMut [row as i],
        bias: Option<Mat> [],
        accumulate: bool,
        m: usize = |k| k.c.tokens, n: usize = |k| k.c.channels, k: usize = |k| k.b.extent()[0],
    }
    pub fn new;
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[Gemm::INFO];

/// Side of the part of c that a block has.
pub const TILE: usize = 64;

/// What is multiplied: a matrix of one sample, or its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Factor<T = f32> {
    stored: Mat<T>,
    transposed: bool,
}

impl<T> Mat<T> {
    /// As a factor of a product: as it is stored, or its transpose.
    pub fn factor(self, transposed: bool) -> Factor<T> {
        Factor {
            stored: self,
            transposed,
        }
    }
}

impl<T> Factor<T> {
    /// Rows and columns of what is multiplied.
    pub(crate) fn extent(&self) -> [usize; 2] {
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

impl Kernel for Gemm {
    fn fit(&mut self) -> Result<Geometry> {
        fit(Self::NAME, [&self.a, &self.b], &self.bias, &self.c)
    }
}
