//! Launch contracts of `softmax.ptx`.

use crate::contract::{Contract, ContractInfo, Geometry, Kernel, contract};
use crate::error::Result;
use crate::mat::{Mat, MatMut, SHARED, shapes, warp_a_token};

contract! {
    /// `out = softmax(scale * x)` over channels.
    pub struct SoftmaxForward: SOFTMAX, "dis_softmax_forward" {
        x: Mat, out: MatMut, scale: f32,
        kept: bool = |k| kept_row(k.x.channels, 4) > 0,
        tokens: usize = |k| k.x.tokens, channels: usize = |k| k.x.channels,
    }
    pub fn new;
}
contract! {
    /// `dx = scale * y * (dout - sum of y * dout)`, where y is the softmax.
    pub struct SoftmaxBackward: SOFTMAX, "dis_softmax_backward" {
        y: Mat, dout: Mat, dx: MatMut, scale: f32,
        kept: bool = |k| kept_row(k.y.channels, 8) > 0,
        tokens: usize = |k| k.y.tokens, channels: usize = |k| k.y.channels,
    }
    pub fn new;
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[SoftmaxForward::INFO, SoftmaxBackward::INFO];

/// Bytes of a row in shared memory, where those are kept that fit.
fn kept_row(channels: usize, bytes_per_channel: usize) -> usize {
    let row = channels * bytes_per_channel;
    if row <= SHARED { row } else { 0 }
}

impl Kernel for SoftmaxForward {
    fn fit(&mut self) -> Result<Geometry> {
        let whole = self.x.shape();
        shapes(Self::NAME, &[("out", &self.out, whole)])?;
        warp_a_token(Self::NAME, whole, kept_row(whole[2], 4))
    }
}

impl Kernel for SoftmaxBackward {
    fn fit(&mut self) -> Result<Geometry> {
        let whole = self.y.shape();
        shapes(
            Self::NAME,
            &[("dout", &self.dout, whole), ("dx", &self.dx, whole)],
        )?;
        warp_a_token(Self::NAME, whole, kept_row(whole[2], 8))
    }
}
