//! Launch contracts of `softmax.ptx`.

use crate::contract;
use crate::contract::{ContractInfo, Geometry, Params, Ptr, PtrMut, Ready};
use crate::error::Result;
use crate::mat::{Mat, MatMut, SHARED, warp_a_token};

contract! {
    /// `out = softmax(scale * x)` over channels.
    pub struct SoftmaxForward: SOFTMAX, "dis_softmax_forward" {
        x: Ptr<f32>, x_row: u32, x_batch: u32,
        out: PtrMut<f32>, out_row: u32, out_batch: u32,
        scale: f32, kept: u32,
        tokens: u32, channels: u32,
    }
}
contract! {
    /// `dx = scale * y * (dout - sum of y * dout)`, where y is the softmax.
    pub struct SoftmaxBackward: SOFTMAX, "dis_softmax_backward" {
        y: Ptr<f32>, y_row: u32, y_batch: u32,
        dout: Ptr<f32>, dout_row: u32, dout_batch: u32,
        dx: PtrMut<f32>, dx_row: u32, dx_batch: u32,
        scale: f32, kept: u32,
        tokens: u32, channels: u32,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[SoftmaxForward::INFO, SoftmaxBackward::INFO];

/// Geometry, and whether rows are kept in shared memory: those are that fit.
fn geometry(
    kernel: &'static str,
    shape: [usize; 3],
    bytes_per_channel: usize,
) -> Result<(Geometry, bool)> {
    let row = shape[2] * bytes_per_channel;
    let kept = row <= SHARED;
    let geometry = warp_a_token(kernel, shape, if kept { row } else { 0 })?;
    Ok((geometry, kept))
}

impl SoftmaxForward {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(scale: f32, x: Mat, out: MatMut) -> Result<Ready<Self>> {
        const NAME: &str = "dis_softmax_forward";
        x.check(NAME, "x")?;
        out.check_shape(NAME, "out", x.shape())?;
        let (geometry, kept) = geometry(NAME, x.shape(), 4)?;
        let kernel = Self {
            x: x.ptr,
            x_row: x.row_stride as u32,
            x_batch: x.batch_stride as u32,
            out: out.ptr,
            out_row: out.row_stride as u32,
            out_batch: out.batch_stride as u32,
            scale,
            kept: kept.into(),
            tokens: x.tokens as u32,
            channels: x.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

impl SoftmaxBackward {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(scale: f32, y: Mat, dout: Mat, dx: MatMut) -> Result<Ready<Self>> {
        const NAME: &str = "dis_softmax_backward";
        y.check(NAME, "y")?;
        dout.check_shape(NAME, "dout", y.shape())?;
        dx.check_shape(NAME, "dx", y.shape())?;
        let (geometry, kept) = geometry(NAME, y.shape(), 8)?;
        let kernel = Self {
            y: y.ptr,
            y_row: y.row_stride as u32,
            y_batch: y.batch_stride as u32,
            dout: dout.ptr,
            dout_row: dout.row_stride as u32,
            dout_batch: dout.batch_stride as u32,
            dx: dx.ptr,
            dx_row: dx.row_stride as u32,
            dx_batch: dx.batch_stride as u32,
            scale,
            kept: kept.into(),
            tokens: y.tokens as u32,
            channels: y.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}
