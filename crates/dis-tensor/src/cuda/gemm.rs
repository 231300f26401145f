//! Matrix products: the driver's library where it has one, our own kernels otherwise.

use dis_kernels::bf16::{Bf16Mat, GemmBf16};
use dis_kernels::driver::GemmCall;
use dis_kernels::elementwise::{Copy, broadcast_tokens};
use dis_kernels::gemm::Gemm;
use dis_kernels::{Driver, Mat, MatMut};

use super::buffer::{DeviceBuf, mat, mat_mut};
use super::{Cuda, CudaView, CudaViewMut, prepared};
use crate::backend::Precision;
use crate::error::{Result, TensorError};
use crate::operands::{Accum, GemmSize, Matrix};

const OP: &str = "gemm";

fn extent(name: &str, value: usize) -> Result<u32> {
    i32::try_from(value)
        .map(|x| x as u32)
        .map_err(|_| TensorError::Invalid {
            op: OP,
            what: format!("{name} is {value}"),
        })
}

/// An operand for a library: its address, and elements between rows.
type Stored = (u64, usize);

/// What a product does beside its operands.
#[derive(Clone, Copy)]
struct Form {
    size: GemmSize,
    transpose_a: bool,
    transpose_b: bool,
    bias: Option<Mat>,
    accum: Accum,
    c: MatMut,
}

impl<D: Driver> Cuda<D> {
    pub(super) fn product(
        &self,
        size: GemmSize,
        a: Matrix<'_, DeviceBuf<D, f32>>,
        b: Matrix<'_, DeviceBuf<D, f32>>,
        bias: Option<CudaView<'_, D>>,
        accum: Accum,
        c: CudaViewMut<'_, D>,
    ) -> Result<()> {
        let GemmSize { m, n, k } = size;
        if m == 0 || n == 0 {
            return Ok(());
        }
        let form = Form {
            size,
            transpose_a: a.transposed,
            transpose_b: b.transposed,
            bias: bias.map(mat),
            accum,
            c: mat_mut(c).as_matrix(),
        };
        let rounded = prepared::find(&b.view.buf.prepared, &b.view.layout);
        let (a, b) = (mat(a.view).as_matrix(), mat(b.view).as_matrix());
        if k > 0 && self.precision == Precision::Bfloat16 {
            return self.bf16_product(form, a, b, rounded);
        }
        if self.by_library() && k > 0 {
            let stored = |x: &Mat| (x.ptr.address(), x.row_stride.max(x.channels));
            return self.library_product(form, stored(&a), stored(&b), false);
        }
        let (a, b) = (a.factor(form.transpose_a), b.factor(form.transpose_b));
        self.launch(OP, Gemm::new(a, b, form.c, form.bias, accum.adds()))
    }

    fn by_library(&self) -> bool {
        !self.ptx_gemm && self.has_library_gemm
    }

    /// Rounds what has not been rounded, into memory that is free again when the product is queued.
    fn bf16_product(&self, form: Form, a: Mat, b: Mat, rounded: Option<Bf16Mat>) -> Result<()> {
        let (_a, a) = self.rounded(OP, a)?;
        let (_b, b) = match rounded {
            Some(b) => (None, b),
            None => {
                let (memory, b) = self.rounded(OP, b)?;
                (Some(memory), b)
            }
        };
        if self.by_library() {
            let stored = |x: &Bf16Mat| (x.ptr.address(), x.row_stride);
            return self.library_product(form, stored(&a), stored(&b), true);
        }
        let (a, b) = (a.factor(form.transpose_a), b.factor(form.transpose_b));
        let kernel = GemmBf16::new(a, b, form.c, form.bias, form.accum.adds());
        self.launch(OP, kernel)
    }

    fn library_product(&self, form: Form, a: Stored, b: Stored, bf16: bool) -> Result<()> {
        let Form { size, bias, c, .. } = form;
        let adds = form.accum.adds() || bias.is_some();
        let call = GemmCall {
            m: extent("the number of rows", size.m)?,
            n: extent("the number of columns", size.n)?,
            k: extent("the inner extent", size.k)?,
            a: a.0,
            lda: extent("a's row stride", a.1)?,
            transpose_a: form.transpose_a,
            b: b.0,
            ldb: extent("b's row stride", b.1)?,
            transpose_b: form.transpose_b,
            c: c.ptr.address(),
            ldc: extent("c's row stride", c.row_stride.max(c.channels))?,
            beta: if adds { 1.0 } else { 0.0 },
            bf16,
        };
        if let Some(bias) = bias {
            // A library's product adds to what is there: the bias first.
            let rows = broadcast_tokens(bias, c.shape());
            self.launch(OP, rows.and_then(|rows| Copy::new(rows, c)))?;
        }
        match self.driver().gemm(&call) {
            Ok(true) => Ok(()),
            Ok(false) => Err(TensorError::Device {
                op: OP,
                what: "the driver's matrix product is gone".into(),
            }),
            Err(error) => Err(self.failed(OP, error)),
        }
    }
}
