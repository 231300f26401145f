//! What a device must be able to do for DiS, as one trait.
//!
//! Every operation takes views ([`Tokens`], [`TokensMut`]) of typed buffers and writes into memory
//! that the caller provides; nothing is allocated but by `alloc`, `zeros` and `upload`. Names of
//! arguments say whether an output is overwritten or added to. Where one operation adds to the
//! gradients of several parameters they lie in one arena, given as a buffer and offsets.
//!
//! Operations check their arguments here, once for all devices, so that all refuse the same calls with
//! the same words. What a device implements are the methods whose names begin with `run_`: they are
//! called with arguments that fit.

use std::borrow::Cow;

use crate::check::{self, dst, src};
use crate::error::Result;
use crate::layout::{Layout, Tokens, TokensMut};
use crate::operands::{
    Accum, AdamState, AdamW, AddNorm, AddNormBackward, GemmSize, Map, Matrix, PatchGrid, Sum, Zip,
};

/// Element types that buffers can hold.
pub trait Element: bytemuck::Pod + Send + Sync + std::fmt::Debug + 'static {
    /// Name in messages.
    const NAME: &'static str;
}

impl Element for f32 {
    const NAME: &'static str = "f32";
}
impl Element for f64 {
    const NAME: &'static str = "f64";
}
impl Element for u32 {
    const NAME: &'static str = "u32";
}

/// Memory on a device.
pub trait Buffer: Send + Sync + std::fmt::Debug + 'static {
    /// Number of elements.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What matrix products take. Sums, and everything else, are float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// Operands as they are.
    #[default]
    Float32,
    /// Operands rounded to bfloat16 (8 bits of significand): twice as fast where the processor has
    /// instructions for it, the same rounding elsewhere. On a GPU they lie in memory as that.
    Bfloat16,
}

/// The buffer of reals of a backend.
pub type Reals<B> = <B as Backend>::Buf<<B as Backend>::Real>;
/// A view of reals of a backend.
pub type View<'a, B> = Tokens<'a, Reals<B>>;
/// A writable view of reals of a backend.
pub type ViewMut<'a, B> = TokensMut<'a, Reals<B>>;

/// A device with the operations of DiS except those of the state space (see dis-scan).
pub trait Backend: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// What it computes in.
    type Real: Element;
    /// Its memory.
    type Buf<E: Element>: Buffer;

    /// What runs, for the first log line, such as `cpu (AVX-512, 2 threads)`.
    fn describe(&self) -> String;

    /// What the device reported where the interface has no room for an error, in allocations and
    /// whole transfers. Every later operation fails too.
    fn failure(&self) -> Option<String> {
        None
    }

    /// Whether its memory is that of the processor.
    fn on_host(&self) -> bool {
        true
    }

    /// Runs `f`, of many operations, where each costs least to begin: on a processor with threads of the
    /// backend's own, on one of these.
    fn within<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        f()
    }

    /// A buffer whose contents are unspecified. Taken from a pool where possible.
    fn alloc<E: Element>(&self, len: usize) -> Self::Buf<E>;
    /// A buffer of zeros.
    fn zeros<E: Element>(&self, len: usize) -> Self::Buf<E>;
    /// A buffer with these elements.
    fn upload<E: Element>(&self, data: &[E]) -> Self::Buf<E>;
    /// All elements.
    fn download<E: Element>(&self, buf: &Self::Buf<E>) -> Vec<E>;

    /// Writes host values at `offset`, rounding to what the backend computes in.
    ///
    /// # Errors
    /// If the range leaves the buffer, or the device fails.
    fn write_f32(&self, buf: &mut Reals<Self>, offset: usize, data: &[f32]) -> Result<()>;
    /// Writes host values at `offset`, rounding to what the backend computes in.
    ///
    /// # Errors
    /// If the range leaves the buffer, or the device fails.
    fn write_f64(&self, buf: &mut Reals<Self>, offset: usize, data: &[f64]) -> Result<()>;
    /// Reads values at `offset`, rounding to float32.
    ///
    /// # Errors
    /// If the range leaves the buffer, or the device fails.
    fn read_f32(&self, buf: &Reals<Self>, offset: usize, out: &mut [f32]) -> Result<()>;
    /// Reads values at `offset`.
    ///
    /// # Errors
    /// If the range leaves the buffer, or the device fails.
    fn read_f64(&self, buf: &Reals<Self>, offset: usize, out: &mut [f64]) -> Result<()>;

    /// A buffer of reals with these values.
    #[allow(clippy::wrong_self_convention)] // The backend makes the buffer, whatever the name.
    fn from_f32(&self, data: &[f32]) -> Reals<Self>;
    /// All values, rounded to float32.
    fn to_f32(&self, buf: &Reals<Self>) -> Vec<f32>;

    /// `dst = value`.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn fill(&self, out: ViewMut<'_, Self>, value: f64) -> Result<()> {
        check::one("fill", dst("dst", &out))?;
        self.run_fill(value, out)
    }
    /// `out = x`.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn copy(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("copy", &[src("src", &x), dst("dst", &out)])?;
        self.run_map(Map::Copy, x, out)
    }
    /// `out += alpha * x`.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn axpy(&self, alpha: f64, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("axpy", &[src("src", &x), dst("dst", &out)])?;
        self.run_map(Map::Axpy(alpha), x, out)
    }
    /// `out(b, t, c) = scale(b) * x(b, t, c)`; scale is (batch, 1, 1).
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn scale_samples(
        &self,
        scale: View<'_, Self>,
        x: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "scale_samples";
        check::equal(OP, &[src("src", &x), dst("dst", &out)])?;
        check::per_sample(OP, src("scale", &scale), src("src", &x))?;
        self.run_scale_samples(scale, x, out)
    }

    /// `c = a b + bias`, or `c += a b` with [`Accum::Add`] (then without bias). All three are matrices
    /// (batches count as rows; they must be [`Layout::is_matrix`]), a and b may be transposed views
    /// ([`Tokens::t`]); `bias` (columns of c) is added to every row.
    ///
    /// # Errors
    /// If an operand is not a matrix, shapes do not fit, a view leaves its buffer, a bias comes
    /// with [`Accum::Add`], or the device fails.
    fn gemm<'a>(
        &self,
        a: impl Into<Matrix<'a, Reals<Self>>>,
        b: impl Into<Matrix<'a, Reals<Self>>>,
        bias: Option<View<'_, Self>>,
        accum: Accum,
        c: ViewMut<'_, Self>,
    ) -> Result<()> {
        let (a, b) = (a.into(), b.into());
        let size = check::gemm(&a, &b, bias.as_ref(), accum, &c)?;
        self.run_gemm(size, a, b, bias, accum, c)
    }

    /// Says that these dense matrices of a buffer will be used as the right operands, transposed, of
    /// many products ([`Backend::gemm`]), whole or some of their columns, and for nothing else: a
    /// backend may reorder them for speed. From then on other uses fail or see other values, and
    /// products are for backends of the same precision only. Products have the same bits as before.
    ///
    /// # Errors
    /// If a layout is not dense or leaves the buffer, or the device fails.
    fn prepare_weights(&self, buf: &mut Reals<Self>, weights: &[Layout]) -> Result<()> {
        let _ = (buf, weights);
        Ok(())
    }

    /// `out(c) += sum over b, t of x(b, t, c)`: the gradient of a bias.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn add_column_sums(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::per_channel("add_column_sums", dst("out", &out), src("x", &x))?;
        self.run_sum(Sum::Rows, x, out)
    }
    /// `out(0, t, c) += sum over b of x(b, t, c)`: the gradient of a position table.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn add_batch_sums(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::per_token("add_batch_sums", dst("out", &out), src("x", &x))?;
        self.run_sum(Sum::Samples, x, out)
    }
    /// `out(b, 0, c) = alpha * sum over t of x(b, t, c)`, or added to it.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn token_sums(
        &self,
        alpha: f64,
        accum: Accum,
        x: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::per_sample_channel("token_sums", dst("out", &out), src("x", &x))?;
        self.run_sum(Sum::Tokens(alpha, accum), x, out)
    }
    /// `out(b, t, c) += alpha * x(b or 0, 0, c)` for every token: broadcasts over tokens, and over
    /// samples too where x has one sample.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn add_to_tokens(&self, alpha: f64, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::broadcast_row("add_to_tokens", src("x", &x), dst("dst", &out))?;
        let repeated = Layout {
            batch: out.layout.batch,
            tokens: out.layout.tokens,
            row_stride: 0,
            batch_stride: if x.layout.batch == 1 {
                0
            } else {
                x.layout.batch_stride
            },
            ..x.layout
        };
        self.run_map(Map::Axpy(alpha), Tokens::new(x.buf, repeated), out)
    }
    /// `out(b, t, c) += alpha * x(0, t, c)`: adds a table over tokens to every sample.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn add_to_samples(&self, alpha: f64, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::per_token("add_to_samples", src("x", &x), dst("dst", &out))?;
        let repeated = Layout {
            batch: out.layout.batch,
            batch_stride: 0,
            ..x.layout
        };
        self.run_map(Map::Axpy(alpha), Tokens::new(x.buf, repeated), out)
    }

    /// `out = x * sigmoid(x)`.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn silu(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("silu", &[src("x", &x), dst("out", &out)])?;
        self.run_map(Map::Silu, x, out)
    }
    /// `dx = dout * silu'(x)`.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn silu_backward(
        &self,
        x: View<'_, Self>,
        dout: View<'_, Self>,
        dx: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::equal(
            "silu_backward",
            &[src("x", &x), src("dout", &dout), dst("dx", &dx)],
        )?;
        self.run_zip(Zip::SiluBackward, x, dout, dx)
    }
    /// `out = -exp(x)`: A from A_log.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn neg_exp(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("neg_exp", &[src("x", &x), dst("out", &out)])?;
        self.run_map(Map::NegExp, x, out)
    }
    /// `out += a * b`, elementwise; with a = A and b = dA this is the gradient of A_log.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn add_product(
        &self,
        a: View<'_, Self>,
        b: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::equal(
            "add_product",
            &[src("a", &a), src("b", &b), dst("dst", &out)],
        )?;
        self.run_zip(Zip::AddProduct, a, b, out)
    }

    /// Softmax over channels: `out(b, t, :) = softmax(scale * x(b, t, :))`.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn softmax(&self, scale: f64, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("softmax", &[src("x", &x), dst("out", &out)])?;
        self.run_map(Map::Softmax(scale), x, out)
    }
    /// `dx = scale * y * (dout - sum over channels of y * dout)`, where y is the softmax.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn softmax_backward(
        &self,
        scale: f64,
        y: View<'_, Self>,
        dout: View<'_, Self>,
        dx: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::equal(
            "softmax_backward",
            &[src("y", &y), src("dout", &dout), dst("dx", &dx)],
        )?;
        self.run_zip(Zip::SoftmaxBackward(scale), y, dout, dx)
    }

    /// `sum = residual + hidden_scale * hidden`, then `out = norm(sum)`; what is absent is left out.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn add_norm(&self, call: AddNorm<'_, Reals<Self>>) -> Result<()> {
        check::add_norm(&call)?;
        self.run_add_norm(call)
    }
    /// Backward of the normalisation: the gradient of x to `dx`, added to parameter gradients, and
    /// `d_shift_scale`.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn add_norm_backward(&self, call: AddNormBackward<'_, Reals<Self>>) -> Result<()> {
        check::add_norm_backward(&call)?;
        self.run_add_norm_backward(call)
    }

    /// `out(b, 0, :) = table(0, ids[b], :)`. Ids are checked against the table.
    ///
    /// # Errors
    /// If shapes do not fit, an id is not in the table, a view leaves its buffer, or the device
    /// fails.
    fn gather(
        &self,
        table: View<'_, Self>,
        ids: &Self::Buf<u32>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::lookup(
            "gather",
            src("table", &table),
            &self.host_ids(ids),
            dst("out", &out),
        )?;
        self.run_gather(table, ids, out)
    }
    /// `dtable(0, ids[b], :) += dout(b, 0, :)`, in the order of b.
    ///
    /// # Errors
    /// If shapes do not fit, an id is not in the table, a view leaves its buffer, or the device
    /// fails.
    fn scatter_add(
        &self,
        dout: View<'_, Self>,
        ids: &Self::Buf<u32>,
        dtable: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::lookup(
            "scatter_add",
            dst("dtable", &dtable),
            &self.host_ids(ids),
            src("dout", &dout),
        )?;
        self.run_scatter_add(dout, ids, dtable)
    }

    /// Image (dense buffer) to patches (batch, tokens, patch_len).
    ///
    /// # Errors
    /// If the patch does not divide the image, sizes do not fit, a view leaves its buffer, or the
    /// device fails.
    fn patchify(&self, image: &Reals<Self>, grid: PatchGrid, out: ViewMut<'_, Self>) -> Result<()> {
        check::patches("patchify", &grid, image.len(), dst("out", &out))?;
        self.run_patchify(image, grid, out)
    }
    /// Patches to image; the exact inverse, and so also the adjoint, of `patchify`.
    ///
    /// # Errors
    /// If the patch does not divide the image, sizes do not fit, a view leaves its buffer, or the
    /// device fails.
    fn unpatchify(
        &self,
        patches: View<'_, Self>,
        grid: PatchGrid,
        image: &mut Reals<Self>,
    ) -> Result<()> {
        check::patches("unpatchify", &grid, image.len(), src("patches", &patches))?;
        self.run_unpatchify(patches, grid, image)
    }

    /// `out[0] = sqrt(sum of squares)`, summed in float64 in a fixed order.
    ///
    /// # Errors
    /// If `out` is empty, or the device fails.
    fn global_norm(&self, x: &Reals<Self>, out: &mut Reals<Self>) -> Result<()> {
        check::scalar_out("global_norm", "out", out.len())?;
        self.run_global_norm(x, out)
    }
    /// AdamW, clipping and EMA in one pass; nothing changes if the norm is not finite.
    ///
    /// # Errors
    /// If arenas differ in length, a number is outside its domain, or the device fails.
    fn adamw(&self, state: AdamState<'_, Reals<Self>>, step: AdamW) -> Result<()> {
        check::adamw(&state, &step)?;
        self.run_adamw(state, step)
    }

    /// What a buffer of ids holds.
    fn host_ids<'a>(&self, ids: &'a Self::Buf<u32>) -> Cow<'a, [u32]>;
    /// [`Backend::fill`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_fill(&self, value: f64, out: ViewMut<'_, Self>) -> Result<()>;
    /// Any [`Map`]. Strides of x may be 0, which repeats a row or a sample.
    ///
    /// # Errors
    /// If the device fails.
    fn run_map(&self, f: Map, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()>;
    /// Any [`Zip`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_zip(
        &self,
        f: Zip,
        x: View<'_, Self>,
        y: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()>;
    /// Any [`Sum`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_sum(&self, over: Sum, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()>;
    /// [`Backend::scale_samples`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_scale_samples(
        &self,
        scale: View<'_, Self>,
        x: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()>;
    /// [`Backend::gemm`].
    ///
    /// # Errors
    /// If b has been prepared and is used otherwise, or the device fails.
    fn run_gemm(
        &self,
        size: GemmSize,
        a: Matrix<'_, Reals<Self>>,
        b: Matrix<'_, Reals<Self>>,
        bias: Option<View<'_, Self>>,
        accum: Accum,
        c: ViewMut<'_, Self>,
    ) -> Result<()>;
    /// [`Backend::add_norm`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_add_norm(&self, call: AddNorm<'_, Reals<Self>>) -> Result<()>;
    /// [`Backend::add_norm_backward`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_add_norm_backward(&self, call: AddNormBackward<'_, Reals<Self>>) -> Result<()>;
    /// [`Backend::gather`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_gather(
        &self,
        table: View<'_, Self>,
        ids: &Self::Buf<u32>,
        out: ViewMut<'_, Self>,
    ) -> Result<()>;
    /// [`Backend::scatter_add`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_scatter_add(
        &self,
        dout: View<'_, Self>,
        ids: &Self::Buf<u32>,
        dtable: ViewMut<'_, Self>,
    ) -> Result<()>;
    /// [`Backend::patchify`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_patchify(
        &self,
        image: &Reals<Self>,
        grid: PatchGrid,
        out: ViewMut<'_, Self>,
    ) -> Result<()>;
    /// [`Backend::unpatchify`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_unpatchify(
        &self,
        patches: View<'_, Self>,
        grid: PatchGrid,
        image: &mut Reals<Self>,
    ) -> Result<()>;
    /// [`Backend::global_norm`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_global_norm(&self, x: &Reals<Self>, out: &mut Reals<Self>) -> Result<()>;
    /// [`Backend::adamw`].
    ///
    /// # Errors
    /// If the device fails.
    fn run_adamw(&self, state: AdamState<'_, Reals<Self>>, step: AdamW) -> Result<()>;
}

/// Checks that a view lies inside its buffer.
///
/// # Errors
/// If it does not.
pub fn check_view<Bf: Buffer>(op: &'static str, layout: &Layout, buf: &Bf) -> Result<()> {
    layout.check(op, buf.len())
}
