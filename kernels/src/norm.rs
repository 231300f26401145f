//! Launch contracts of `norm.ptx`.

use crate::contract;
use crate::contract::{ContractInfo, Geometry, Params, Ptr, PtrMut, Ready};
use crate::error::{KernelError, Result};
use crate::mat::{Mat, MatMut, SHARED, grid_limit, shape, warp_a_token};

contract! {
    /// Residual add, normalisation and modulation.
    pub struct NormForward: NORM, "dis_norm_forward" {
        residual: Ptr<f32>, residual_row: u32, residual_batch: u32,
        hidden: Ptr<f32>, hidden_row: u32, hidden_batch: u32,
        hidden_scale: Ptr<f32>, hidden_scale_batch: u32,
        weight: Ptr<f32>,
        bias: Ptr<f32>,
        shift_scale: Ptr<f32>, shift_scale_batch: u32,
        sum: PtrMut<f32>, sum_row: u32, sum_batch: u32,
        stats: PtrMut<f32>, stats_row: u32, stats_batch: u32,
        out: PtrMut<f32>, out_row: u32, out_batch: u32,
        layer: u32, eps: f32,
        tokens: u32, channels: u32,
    }
}
contract! {
    /// The gradient of what was normalised.
    pub struct NormBackward: NORM, "dis_norm_backward" {
        x: Ptr<f32>, x_row: u32, x_batch: u32,
        stats: Ptr<f32>, stats_row: u32, stats_batch: u32,
        weight: Ptr<f32>,
        shift_scale: Ptr<f32>, shift_scale_batch: u32,
        dout: Ptr<f32>, dout_row: u32, dout_batch: u32,
        dx: PtrMut<f32>, dx_row: u32, dx_batch: u32,
        layer: u32, accumulate: u32,
        tokens: u32, channels: u32,
    }
}
contract! {
    /// Sums over chunks of tokens for the gradients of weight and bias, or of shift and scale.
    pub struct NormParamSums: NORM, "dis_norm_param_sums" {
        x: Ptr<f32>, x_row: u32, x_batch: u32,
        stats: Ptr<f32>, stats_row: u32, stats_batch: u32,
        weight: Ptr<f32>,
        bias: Ptr<f32>,
        shift_scale: Ptr<f32>, shift_scale_batch: u32,
        dout: Ptr<f32>, dout_row: u32, dout_batch: u32,
        partial: PtrMut<f32>,
        chunk: u32, tokens: u32, channels: u32,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] =
    &[NormForward::INFO, NormBackward::INFO, NormParamSums::INFO];

/// An optional operand's address and strides: zeros where it is absent.
fn optional(x: Option<Mat>) -> (Ptr<f32>, u32, u32) {
    x.map_or((Ptr::null(), 0, 0), |x| {
        (x.ptr, x.row_stride as u32, x.batch_stride as u32)
    })
}

/// As [`optional`].
fn optional_mut(x: Option<MatMut>) -> (PtrMut<f32>, u32, u32) {
    x.map_or((PtrMut::null(), 0, 0), |x| {
        (x.ptr, x.row_stride as u32, x.batch_stride as u32)
    })
}

/// A vector of `channels`, or null.
fn vector(kernel: &'static str, name: &'static str, x: Ptr<f32>, channels: usize) -> Result<()> {
    if !x.is_null() && x.len() < channels as u64 {
        return Err(KernelError::OutOfBounds {
            kernel,
            name,
            needed: channels as u64,
            len: x.len(),
        });
    }
    Ok(())
}

/// A warp a token; a row must fit in shared memory.
fn geometry(kernel: &'static str, whole: [usize; 3], bytes_per_channel: usize) -> Result<Geometry> {
    let [_, _, channels] = whole;
    let row = channels * bytes_per_channel;
    if row > SHARED {
        let what = format!(
            "{channels} channels, above {}: a row must fit in shared memory",
            SHARED / bytes_per_channel
        );
        return Err(shape(kernel, what));
    }
    warp_a_token(kernel, whole, row)
}

/// The operands of [`NormForward`].
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    /// Added to the scaled hidden stream.
    pub residual: Option<Mat>,
    /// The hidden stream.
    pub hidden: Mat,
    /// (batch, 1, 1).
    pub hidden_scale: Option<Mat>,
    /// Per channel, or null.
    pub weight: Ptr<f32>,
    /// Per channel, or null.
    pub bias: Ptr<f32>,
    /// (batch, 1, 2 * channels).
    pub shift_scale: Option<Mat>,
    /// The sum, to keep.
    pub sum: Option<MatMut>,
    /// (batch, tokens, 2).
    pub stats: Option<MatMut>,
    /// The result.
    pub out: MatMut,
    /// LayerNorm instead of RMSNorm.
    pub layer: bool,
    /// Added to the mean square or variance.
    pub eps: f32,
}

impl NormForward {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(f: Forward) -> Result<Ready<Self>> {
        const NAME: &str = "dis_norm_forward";
        let [batch, tokens, channels] = f.hidden.shape();
        let whole = f.hidden.shape();
        f.hidden.check(NAME, "hidden")?;
        f.out.check_shape(NAME, "out", whole)?;
        for (name, x, expected) in [
            ("residual", f.residual, whole),
            ("hidden_scale", f.hidden_scale, [batch, 1, 1]),
            ("shift_scale", f.shift_scale, [batch, 1, 2 * channels]),
        ] {
            if let Some(x) = x {
                x.check_shape(NAME, name, expected)?;
            }
        }
        for (name, x, expected) in [
            ("sum", f.sum, whole),
            ("stats", f.stats, [batch, tokens, 2]),
        ] {
            if let Some(x) = x {
                x.check_shape(NAME, name, expected)?;
            }
        }
        vector(NAME, "weight", f.weight, channels)?;
        vector(NAME, "bias", f.bias, channels)?;
        let geometry = geometry(NAME, whole, 4)?;
        let (residual, residual_row, residual_batch) = optional(f.residual);
        let (hidden_scale, _, hidden_scale_batch) = optional(f.hidden_scale);
        let (shift_scale, _, shift_scale_batch) = optional(f.shift_scale);
        let (sum, sum_row, sum_batch) = optional_mut(f.sum);
        let (stats, stats_row, stats_batch) = optional_mut(f.stats);
        let kernel = Self {
            residual,
            residual_row,
            residual_batch,
            hidden: f.hidden.ptr,
            hidden_row: f.hidden.row_stride as u32,
            hidden_batch: f.hidden.batch_stride as u32,
            hidden_scale,
            hidden_scale_batch,
            weight: f.weight,
            bias: f.bias,
            shift_scale,
            shift_scale_batch,
            sum,
            sum_row,
            sum_batch,
            stats,
            stats_row,
            stats_batch,
            out: f.out.ptr,
            out_row: f.out.row_stride as u32,
            out_batch: f.out.batch_stride as u32,
            layer: f.layer.into(),
            eps: f.eps,
            tokens: tokens as u32,
            channels: channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

/// What the backward kernels read.
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    /// What was normalised.
    pub x: Mat,
    /// (batch, tokens, 2).
    pub stats: Mat,
    /// Per channel, or null.
    pub weight: Ptr<f32>,
    /// Per channel, or null.
    pub bias: Ptr<f32>,
    /// (batch, 1, 2 * channels).
    pub shift_scale: Option<Mat>,
    /// The gradient of the result.
    pub dout: Mat,
}

impl Saved {
    fn check(&self, kernel: &'static str) -> Result<()> {
        let [batch, tokens, channels] = self.x.shape();
        self.x.check(kernel, "x")?;
        self.dout.check_shape(kernel, "dout", self.x.shape())?;
        self.stats
            .check_shape(kernel, "stats", [batch, tokens, 2])?;
        if let Some(both) = self.shift_scale {
            both.check_shape(kernel, "shift_scale", [batch, 1, 2 * channels])?;
        }
        vector(kernel, "weight", self.weight, channels)?;
        vector(kernel, "bias", self.bias, channels)
    }
}

impl NormBackward {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(s: Saved, layer: bool, accumulate: bool, dx: MatMut) -> Result<Ready<Self>> {
        const NAME: &str = "dis_norm_backward";
        s.check(NAME)?;
        dx.check_shape(NAME, "dx", s.x.shape())?;
        let geometry = geometry(NAME, s.x.shape(), 8)?;
        let (shift_scale, _, shift_scale_batch) = optional(s.shift_scale);
        let kernel = Self {
            x: s.x.ptr,
            x_row: s.x.row_stride as u32,
            x_batch: s.x.batch_stride as u32,
            stats: s.stats.ptr,
            stats_row: s.stats.row_stride as u32,
            stats_batch: s.stats.batch_stride as u32,
            weight: s.weight,
            shift_scale,
            shift_scale_batch,
            dout: s.dout.ptr,
            dout_row: s.dout.row_stride as u32,
            dout_batch: s.dout.batch_stride as u32,
            dx: dx.ptr,
            dx_row: dx.row_stride as u32,
            dx_batch: dx.batch_stride as u32,
            layer: layer.into(),
            accumulate: accumulate.into(),
            tokens: s.x.tokens as u32,
            channels: s.x.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

impl NormParamSums {
    /// Checks the operands; `partial` has room for (batch, chunks, 2, channels) with chunks of
    /// `chunk` tokens. Absent weight, bias or shift and scale count as 1, 0 and 0.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(s: Saved, chunk: usize, partial: PtrMut<f32>) -> Result<Ready<Self>> {
        const NAME: &str = "dis_norm_param_sums";
        s.check(NAME)?;
        let [batch, tokens, channels] = s.x.shape();
        if chunk == 0 || chunk > i32::MAX as usize {
            return Err(shape(NAME, format!("chunks of {chunk} tokens")));
        }
        let chunks = tokens.div_ceil(chunk);
        let needed = (batch * chunks * 2 * channels) as u64;
        if needed > partial.len() {
            return Err(KernelError::OutOfBounds {
                kernel: NAME,
                name: "partial",
                needed,
                len: partial.len(),
            });
        }
        let (shift_scale, _, shift_scale_batch) = optional(s.shift_scale);
        let kernel = Self {
            x: s.x.ptr,
            x_row: s.x.row_stride as u32,
            x_batch: s.x.batch_stride as u32,
            stats: s.stats.ptr,
            stats_row: s.stats.row_stride as u32,
            stats_batch: s.stats.batch_stride as u32,
            weight: s.weight,
            bias: s.bias,
            shift_scale,
            shift_scale_batch,
            dout: s.dout.ptr,
            dout_row: s.dout.row_stride as u32,
            dout_batch: s.dout.batch_stride as u32,
            partial,
            chunk: chunk as u32,
            tokens: tokens as u32,
            channels: channels as u32,
        };
        let geometry = Geometry::new(
            [
                channels.div_ceil(128) as u32,
                grid_limit(NAME, "the number of chunks", chunks)?,
                grid_limit(NAME, "the number of samples", batch)?,
            ],
            [128, 1, 1],
        );
        Ok(Ready::new(kernel, geometry))
    }
}
