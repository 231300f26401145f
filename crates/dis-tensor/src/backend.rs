//! What a device must be able to do for DiS, as one trait.
//!
//! Every operation takes views ([`Tokens`], [`TokensMut`]) of typed buffers and writes into memory
//! that the caller provides; nothing is allocated but by `alloc`, `zeros` and `upload`. Names of
//! arguments say whether an output is overwritten or added to. Where one operation adds to the
//! gradients of several parameters they lie in one arena, given as a buffer and offsets.

use crate::error::Result;
use crate::layout::{Layout, Tokens, TokensMut};

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
pub trait Buffer: Send + Sync + std::fmt::Debug {
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

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// x / sqrt(mean(x^2) + eps).
    Rms,
    /// (x - mean(x)) / sqrt(var(x) + eps).
    Layer,
}

/// A normalisation over channels, `y = xhat * weight + bias`, then `y * (1 + scale) + shift`.
/// Absent parts are left out.
#[derive(Debug)]
pub struct Norm<'a, Bf: ?Sized> {
    /// Which.
    pub kind: NormKind,
    /// Added to the mean square or variance.
    pub eps: f64,
    /// (channels).
    pub weight: Option<Tokens<'a, Bf>>,
    /// (channels).
    pub bias: Option<Tokens<'a, Bf>>,
    /// Per-sample shift and scale side by side: (batch, 1, 2 * channels), shift first.
    pub shift_scale: Option<Tokens<'a, Bf>>,
}

impl<Bf: ?Sized> Clone for Norm<'_, Bf> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<Bf: ?Sized> Copy for Norm<'_, Bf> {}

/// Where [`Backend::add_norm_backward`] adds its parameter gradients.
#[derive(Debug)]
pub struct NormGrads<'a, Bf: ?Sized> {
    /// The gradient arena.
    pub arena: &'a mut Bf,
    /// Offset of d weight, if there is a weight.
    pub weight: Option<usize>,
    /// Offset of d bias, if there is a bias.
    pub bias: Option<usize>,
}

/// How the p * p * C values of an image patch are ordered along channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchOrder {
    /// (channel, row, column): what a convolutional patch embedding's weight expects.
    ChannelFirst,
    /// (row, column, channel): what the decoder produces.
    ChannelLast,
}

/// An image batch (batch, channels, height, width), dense, cut into square patches in row-major
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchGrid {
    /// Images.
    pub batch: usize,
    /// Colour or latent channels.
    pub channels: usize,
    /// Pixels.
    pub height: usize,
    /// Pixels.
    pub width: usize,
    /// Side of a patch in pixels; divides height and width.
    pub patch: usize,
    /// Order within a patch.
    pub order: PatchOrder,
}

impl PatchGrid {
    /// Patches of one image.
    pub fn tokens(&self) -> usize {
        (self.height / self.patch) * (self.width / self.patch)
    }
    /// Values of one patch.
    pub fn patch_len(&self) -> usize {
        self.patch * self.patch * self.channels
    }
    /// Values of the batch.
    pub fn elements(&self) -> usize {
        self.batch * self.channels * self.height * self.width
    }
}

/// One AdamW update (Loshchilov and Hutter, arXiv 1711.05101, in PyTorch's form), with clipping
/// by the global norm and the moving average of the weights in the same pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// 1 for the first update.
    pub step: u64,
    /// Gradients are multiplied by this before anything else (1 / accumulation steps).
    pub grad_scale: f64,
    /// Scale gradients so that their (scaled) norm is at most this: `min(1, max / (norm + 1e-6))`.
    pub max_grad_norm: Option<f64>,
    /// `ema = decay * ema + (1 - decay) * parameter`, after the update.
    pub ema_decay: f64,
}

/// The flat arenas of one optimizer, all of one layout.
#[derive(Debug)]
pub struct AdamState<'a, Bf: ?Sized> {
    /// Parameters, updated.
    pub params: &'a mut Bf,
    /// Gradients, as accumulated.
    pub grads: &'a Bf,
    /// First moments, updated.
    pub m: &'a mut Bf,
    /// Second moments, updated.
    pub v: &'a mut Bf,
    /// Moving average of the parameters, updated.
    pub ema: &'a mut Bf,
    /// One element: the global L2 norm of `grads`, from [`Backend::global_norm`]. If it is not
    /// finite the update is skipped altogether.
    pub grad_norm: &'a Bf,
}

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
    fn fill(&self, dst: ViewMut<'_, Self>, value: f64) -> Result<()>;
    /// `dst = src`.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn copy(&self, src: View<'_, Self>, dst: ViewMut<'_, Self>) -> Result<()>;
    /// `dst += alpha * src`.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn axpy(&self, alpha: f64, src: View<'_, Self>, dst: ViewMut<'_, Self>) -> Result<()>;
    /// `dst(b, t, c) = scale(b) * src(b, t, c)`; scale is (batch, 1, 1).
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn scale_samples(
        &self,
        scale: View<'_, Self>,
        src: View<'_, Self>,
        dst: ViewMut<'_, Self>,
    ) -> Result<()>;

    /// `c = op(a) op(b) + bias`, or `c += op(a) op(b)` when `accumulate` (then without bias).
    /// All three are matrices (batches count as rows; they must be [`Layout::is_matrix`]);
    /// `bias` (columns of c) is added to every row.
    ///
    /// # Errors
    /// If an operand is not a matrix, shapes do not fit, a view leaves its buffer, a bias comes
    /// with `accumulate`, or the device fails.
    fn gemm(
        &self,
        a: View<'_, Self>,
        transpose_a: bool,
        b: View<'_, Self>,
        transpose_b: bool,
        bias: Option<View<'_, Self>>,
        accumulate: bool,
        c: ViewMut<'_, Self>,
    ) -> Result<()>;

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
    fn add_column_sums(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()>;
    /// `out(0, t, c) += sum over b of x(b, t, c)`: the gradient of a position table.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn add_batch_sums(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()>;
    /// `out(b, 0, c) = alpha * sum over t of x(b, t, c)` (added to `out` when `accumulate`).
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn token_sums(
        &self,
        alpha: f64,
        x: View<'_, Self>,
        accumulate: bool,
        out: ViewMut<'_, Self>,
    ) -> Result<()>;
    /// `dst(b, t, c) += alpha * x(b or 0, 0, c)` for every token: broadcasts over tokens, and over
    /// samples too where x has one sample.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn add_to_tokens(&self, alpha: f64, x: View<'_, Self>, dst: ViewMut<'_, Self>) -> Result<()>;
    /// `dst(b, t, c) += alpha * x(0, t, c)`: adds a table over tokens to every sample.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn add_to_samples(&self, alpha: f64, x: View<'_, Self>, dst: ViewMut<'_, Self>) -> Result<()>;

    /// `out = x * sigmoid(x)`.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn silu(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()>;
    /// `dx = dout * silu'(x)`.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn silu_backward(
        &self,
        x: View<'_, Self>,
        dout: View<'_, Self>,
        dx: ViewMut<'_, Self>,
    ) -> Result<()>;
    /// `out = -exp(x)`: A from A_log.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn neg_exp(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()>;
    /// `dst += a * b`, elementwise; with a = A and b = dA this is the gradient of A_log.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn add_product(
        &self,
        a: View<'_, Self>,
        b: View<'_, Self>,
        dst: ViewMut<'_, Self>,
    ) -> Result<()>;

    /// Softmax over channels: `out(b, t, :) = softmax(scale * x(b, t, :))`.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn softmax(&self, scale: f64, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()>;
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
    ) -> Result<()>;

    /// `sum = residual + hidden_scale * hidden`, then `out = norm(sum)`. Without `residual` the
    /// sum is `hidden_scale * hidden`. `sum` may be left out. `hidden_scale` is (batch, 1, 1).
    /// `stats` (batch, tokens, 2) receives mean (0 for RMS) and 1 / sqrt(...) for the backward.
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn add_norm(
        &self,
        residual: Option<View<'_, Self>>,
        hidden: View<'_, Self>,
        hidden_scale: Option<View<'_, Self>>,
        norm: Norm<'_, Reals<Self>>,
        sum: Option<ViewMut<'_, Self>>,
        stats: Option<ViewMut<'_, Self>>,
        out: ViewMut<'_, Self>,
    ) -> Result<()>;

    /// Backward of the normalisation: `x` is the saved sum. Adds the gradient of x to `dx` (or
    /// overwrites it unless `accumulate`); adds to the parameter gradients; overwrites
    /// `d_shift_scale` (batch, 1, 2 * channels).
    ///
    /// # Errors
    /// If shapes do not fit together, a view leaves its buffer, or the device fails.
    fn add_norm_backward(
        &self,
        x: View<'_, Self>,
        stats: View<'_, Self>,
        norm: Norm<'_, Reals<Self>>,
        dout: View<'_, Self>,
        accumulate: bool,
        dx: ViewMut<'_, Self>,
        grads: Option<NormGrads<'_, Reals<Self>>>,
        d_shift_scale: Option<ViewMut<'_, Self>>,
    ) -> Result<()>;

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
    ) -> Result<()>;
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
    ) -> Result<()>;

    /// Image (dense buffer) to patches (batch, tokens, patch_len).
    ///
    /// # Errors
    /// If the patch does not divide the image, sizes do not fit, a view leaves its buffer, or the
    /// device fails.
    fn patchify(&self, image: &Reals<Self>, grid: PatchGrid, out: ViewMut<'_, Self>) -> Result<()>;
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
    ) -> Result<()>;

    /// `out[0] = sqrt(sum of squares)`, summed in float64 in a fixed order.
    ///
    /// # Errors
    /// If `out` is empty, or the device fails.
    fn global_norm(&self, x: &Reals<Self>, out: &mut Reals<Self>) -> Result<()>;
    /// AdamW, clipping and EMA in one pass; nothing changes if the norm is not finite.
    ///
    /// # Errors
    /// If arenas differ in length, a number is outside its domain, or the device fails.
    fn adamw(&self, state: AdamState<'_, Reals<Self>>, step: AdamW) -> Result<()>;
}

/// Checks that a view lies inside its buffer.
///
/// # Errors
/// If it does not.
pub fn check_view<Bf: Buffer>(op: &'static str, layout: &Layout, buf: &Bf) -> Result<()> {
    layout.check(op, buf.len())
}
