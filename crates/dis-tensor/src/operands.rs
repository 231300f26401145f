//! What operations take: normalisations, matrix products, patches, an optimizer's arenas.

use crate::layout::{Tokens, TokensMut};

/// Whether a result replaces its output or is added to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accum {
    /// `out = result`.
    #[default]
    Replace,
    /// `out += result`.
    Add,
}

impl Accum {
    /// Whether the result is added.
    pub fn adds(self) -> bool {
        self == Self::Add
    }
}

/// An operand of a matrix product: a view, whose samples count as rows, or its transpose
/// ([`Tokens::t`]).
#[derive(Debug)]
pub struct Matrix<'a, Bf: ?Sized> {
    /// As it lies in memory.
    pub view: Tokens<'a, Bf>,
    /// Whether its transpose is meant.
    pub transposed: bool,
}

impl<Bf: ?Sized> Clone for Matrix<'_, Bf> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<Bf: ?Sized> Copy for Matrix<'_, Bf> {}

impl<'a, Bf: ?Sized> Matrix<'a, Bf> {
    /// (rows, columns).
    pub fn extent(&self) -> (usize, usize) {
        let (rows, columns) = (self.view.layout.rows(), self.view.layout.channels);
        if self.transposed {
            (columns, rows)
        } else {
            (rows, columns)
        }
    }

    /// Elements from row to row and from column to column.
    pub fn strides(&self) -> (usize, usize) {
        let stride = self.view.layout.row_stride;
        if self.transposed {
            (1, stride)
        } else {
            (stride, 1)
        }
    }

    /// The same matrix over another form of the same memory.
    pub fn map<T: ?Sized>(self, f: impl FnOnce(&'a Bf) -> &'a T) -> Matrix<'a, T> {
        Matrix {
            view: self.view.map(f),
            transposed: self.transposed,
        }
    }
}

impl<'a, Bf: ?Sized> From<Tokens<'a, Bf>> for Matrix<'a, Bf> {
    fn from(view: Tokens<'a, Bf>) -> Self {
        Self {
            view,
            transposed: false,
        }
    }
}

impl<'a, Bf: ?Sized> Tokens<'a, Bf> {
    /// The transpose, as an operand of a matrix product.
    pub fn t(self) -> Matrix<'a, Bf> {
        Matrix {
            view: self,
            transposed: true,
        }
    }
}

/// Sizes of a matrix product: c (m x n) = a (m x k) b (k x n).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmSize {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
}

/// What a device does to each element of `x`, or to each row, for [`Backend`](crate::Backend)'s operations of
/// one input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Map {
    /// `out = x`.
    Copy,
    /// `out += alpha * x`.
    Axpy(f64),
    /// `out = x * sigmoid(x)`.
    Silu,
    /// `out = -exp(x)`.
    NegExp,
    /// `out(b, t, :) = softmax(scale * x(b, t, :))`.
    Softmax(f64),
}

/// The same for operations of two inputs, x and y.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Zip {
    /// `out = y * silu'(x)`.
    SiluBackward,
    /// `out += x * y`.
    AddProduct,
    /// `out = scale * x * (y - sum over channels of x * y)`.
    SoftmaxBackward(f64),
}

/// What a sum runs over, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sum {
    /// `out(0, 0, c) += sum over b, t of x(b, t, c)`.
    Rows,
    /// `out(0, t, c) += sum over b of x(b, t, c)`.
    Samples,
    /// `out(b, 0, c) = alpha * sum over t of x(b, t, c)`, or added to it.
    Tokens(f64, Accum),
}

/// Kinds of normalisation.
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
    /// RMSNorm or LayerNorm.
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

/// The arguments of [`Backend::add_norm`](crate::Backend::add_norm): `sum = residual + hidden_scale * hidden`, then
/// `out = norm(sum)`.
#[derive(Debug)]
pub struct AddNorm<'a, Bf: ?Sized> {
    /// (batch, tokens, channels); zero where it is absent.
    pub residual: Option<Tokens<'a, Bf>>,
    /// (batch, tokens, channels).
    pub hidden: Tokens<'a, Bf>,
    /// (batch, 1, 1); one where it is absent.
    pub hidden_scale: Option<Tokens<'a, Bf>>,
    /// What is done to the sum.
    pub norm: Norm<'a, Bf>,
    /// Receives the sum, (batch, tokens, channels).
    pub sum: Option<TokensMut<'a, Bf>>,
    /// Receives mean (0 for RMS) and 1 / sqrt(...) for the backward, (batch, tokens, 2).
    pub stats: Option<TokensMut<'a, Bf>>,
    /// (batch, tokens, channels), overwritten.
    pub out: TokensMut<'a, Bf>,
}

/// The arguments of [`Backend::add_norm_backward`](crate::Backend::add_norm_backward).
#[derive(Debug)]
pub struct AddNormBackward<'a, Bf: ?Sized> {
    /// The saved sum, (batch, tokens, channels).
    pub x: Tokens<'a, Bf>,
    /// Of the forward, (batch, tokens, 2).
    pub stats: Tokens<'a, Bf>,
    /// As in the forward.
    pub norm: Norm<'a, Bf>,
    /// The gradient of the forward's output, (batch, tokens, channels).
    pub dout: Tokens<'a, Bf>,
    /// Whether the gradient of x replaces `dx` or is added to it.
    pub accum: Accum,
    /// (batch, tokens, channels).
    pub dx: TokensMut<'a, Bf>,
    /// Where parameter gradients are added.
    pub grads: Option<NormGrads<'a, Bf>>,
    /// (batch, 1, 2 * channels), overwritten; only for a norm with shift and scale.
    pub d_shift_scale: Option<TokensMut<'a, Bf>>,
}

/// Where [`AddNormBackward`] adds its parameter gradients.
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
    /// One element: the global L2 norm of `grads`, from
    /// [`Backend::global_norm`](crate::Backend::global_norm). If it is not
    /// finite the update is skipped altogether.
    pub grad_norm: &'a Bf,
}
