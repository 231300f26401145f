//! What arrays may hold, and the code that works on it.

use crate::ops::{Conv, ConvGrads, Scan, ScanGrads, ScanOut};
use crate::{cpu, oracle};
use dis_tensor::{Result, Tokens, TokensMut, simd};

/// Numbers that scans and convolutions compute in: `f32` by the fast code, at the process's SIMD level;
/// `f64` by the [`oracle`]'s plain loops, a hundred times slower, to check against.
pub trait ScanElement:
    Copy + Default + From<f32> + Into<f64> + std::fmt::Debug + 'static + private::Run
{
}

impl ScanElement for f32 {}
impl ScanElement for f64 {}

pub(crate) mod private {
    use super::*;

    /// The operations on slices.
    pub trait Run: Sized {
        fn round(x: f64) -> Self;
        fn scan(scan: Scan<'_, [Self]>, out: ScanOut<'_, [Self]>) -> Result<()>;
        fn scan_backward(
            scan: Scan<'_, [Self]>,
            checkpoints: &[Self],
            dout: Tokens<'_, [Self]>,
            grads: ScanGrads<'_, [Self]>,
        ) -> Result<()>;
        fn conv1d(conv: Conv<'_, [Self]>, out: TokensMut<'_, [Self]>) -> Result<()>;
        fn conv1d_backward(
            conv: Conv<'_, [Self]>,
            dout: Tokens<'_, [Self]>,
            dx: TokensMut<'_, [Self]>,
            grads: ConvGrads<'_, [Self]>,
        ) -> Result<()>;
    }
}

impl private::Run for f32 {
    fn round(x: f64) -> Self {
        x as f32
    }
    fn scan(scan: Scan<'_, [f32]>, out: ScanOut<'_, [f32]>) -> Result<()> {
        cpu::scan(simd::level(), scan, out)
    }
    fn scan_backward(
        scan: Scan<'_, [f32]>,
        checkpoints: &[f32],
        dout: Tokens<'_, [f32]>,
        grads: ScanGrads<'_, [f32]>,
    ) -> Result<()> {
        cpu::scan_backward(simd::level(), scan, checkpoints, dout, grads)
    }
    fn conv1d(conv: Conv<'_, [f32]>, out: TokensMut<'_, [f32]>) -> Result<()> {
        cpu::conv1d(simd::level(), conv, out)
    }
    fn conv1d_backward(
        conv: Conv<'_, [f32]>,
        dout: Tokens<'_, [f32]>,
        dx: TokensMut<'_, [f32]>,
        grads: ConvGrads<'_, [f32]>,
    ) -> Result<()> {
        cpu::conv1d_backward(simd::level(), conv, dout, false, dx, grads)
    }
}

impl private::Run for f64 {
    fn round(x: f64) -> Self {
        x
    }
    fn scan(scan: Scan<'_, [f64]>, out: ScanOut<'_, [f64]>) -> Result<()> {
        oracle::scan(scan, out)
    }
    fn scan_backward(
        scan: Scan<'_, [f64]>,
        _checkpoints: &[f64],
        dout: Tokens<'_, [f64]>,
        grads: ScanGrads<'_, [f64]>,
    ) -> Result<()> {
        oracle::scan_backward(scan, dout, grads)
    }
    fn conv1d(conv: Conv<'_, [f64]>, out: TokensMut<'_, [f64]>) -> Result<()> {
        oracle::conv1d(conv, out)
    }
    fn conv1d_backward(
        conv: Conv<'_, [f64]>,
        dout: Tokens<'_, [f64]>,
        dx: TokensMut<'_, [f64]>,
        grads: ConvGrads<'_, [f64]>,
    ) -> Result<()> {
        oracle::conv1d_backward(conv, dout, false, dx, grads)
    }
}
