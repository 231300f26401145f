//! Matrix products: the driver's library where it has one, our own kernel otherwise.

use dis_kernels::driver::GemmCall;
use dis_kernels::elementwise::{Copy, broadcast_tokens};
use dis_kernels::gemm::Gemm;
use dis_kernels::{Driver, Mat, MatMut, Ptr};

use super::Cuda;
use crate::check::GemmSize;
use crate::error::{Result, TensorError};

const OP: &str = "gemm";

fn extent(name: &str, value: usize) -> Result<u32> {
    i32::try_from(value)
        .map(|x| x as u32)
        .map_err(|_| TensorError::Invalid {
            op: OP,
            what: format!("{name} is {value}"),
        })
}

impl<D: Driver> Cuda<D> {
    pub(super) fn product(
        &self,
        size: GemmSize,
        a: Mat,
        transpose_a: bool,
        b: Mat,
        transpose_b: bool,
        bias: Option<Mat>,
        accumulate: bool,
        c: MatMut,
    ) -> Result<()> {
        let GemmSize { m, n, k } = size;
        if m == 0 || n == 0 {
            return Ok(());
        }
        let (a, b, c) = (a.as_matrix(), b.as_matrix(), c.as_matrix());
        if !self.ptx_gemm && k > 0 {
            let call = GemmCall {
                m: extent("the number of rows", m)?,
                n: extent("the number of columns", n)?,
                k: extent("the inner extent", k)?,
                a: a.ptr.address(),
                lda: extent("a's row stride", a.row_stride.max(a.channels))?,
                transpose_a,
                b: b.ptr.address(),
                ldb: extent("b's row stride", b.row_stride.max(b.channels))?,
                transpose_b,
                c: c.ptr.address(),
                ldc: extent("c's row stride", c.row_stride.max(c.channels))?,
                beta: if accumulate || bias.is_some() {
                    1.0
                } else {
                    0.0
                },
            };
            if self.has_library_gemm {
                if let Some(bias) = bias {
                    // A library's product adds to what is there: the bias first.
                    let rows = broadcast_tokens(bias, c.shape());
                    self.launch(OP, rows.and_then(|rows| Copy::new(rows, c)))?;
                }
                return match self.driver().gemm(&call) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(TensorError::Device {
                        op: OP,
                        what: "the driver's matrix product is gone".into(),
                    }),
                    Err(error) => Err(self.failed(OP, error)),
                };
            }
        }
        let bias = bias.map_or(Ptr::null(), |bias| bias.ptr);
        self.launch(
            OP,
            Gemm::new(a, transpose_a, b, transpose_b, bias, accumulate, c),
        )
    }
}
