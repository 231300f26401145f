//! Launch contracts of `statistics.ptx`. A batch of images is a token matrix with one token a sample,
//! which holds all its values.

use crate::contract;
use crate::contract::{ContractInfo, Geometry, Params, Ptr, PtrMut, Ready};
use crate::error::Result;
use crate::mat::{Mat, MatMut, shape, to_u32};

contract! {
    /// `x *= strength * deviation(like) / deviation(x) + 1 - strength`, for each sample.
    pub struct Rescale: STATISTICS, "dis_rescale" {
        like: Ptr<f32>, like_batch: u32,
        x: PtrMut<f32>, x_batch: u32,
        strength: f64,
        n: u32,
    }
}
contract! {
    /// `x = clamp(x, -s, s) / s` with s the quantile of a sample's absolute values, at least 1 and at
    /// most `most`.
    pub struct Threshold: STATISTICS, "dis_threshold" {
        x: PtrMut<f32>, x_batch: u32,
        rank: u32,
        fraction: f64,
        most: f64,
        n: u32,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[Rescale::INFO, Threshold::INFO];

/// One block a sample.
fn samples(kernel: &'static str, x: MatMut) -> Result<Geometry> {
    let [batch, tokens, _] = x.shape();
    if tokens != 1 {
        let what = format!("images of {tokens} tokens each, not of one");
        return Err(shape(kernel, what));
    }
    x.check(kernel, "the output")?;
    if batch > i32::MAX as usize {
        return Err(shape(kernel, format!("{batch} samples")));
    }
    Ok(Geometry::new([batch as u32, 1, 1], [256, 1, 1]))
}

impl Rescale {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(strength: f64, like: Mat, x: MatMut) -> Result<Ready<Self>> {
        const NAME: &str = "dis_rescale";
        let geometry = samples(NAME, x)?;
        like.check_shape(NAME, "like", x.shape())?;
        let kernel = Self {
            like: like.ptr,
            like_batch: like.batch_stride as u32,
            x: x.ptr,
            x_batch: x.batch_stride as u32,
            strength,
            n: to_u32(NAME, "the number of values", x.channels)?,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

impl Threshold {
    /// Checks the operands. The quantile is that of a `ratio` between 0 and 1.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(ratio: f64, most: f64, x: MatMut) -> Result<Ready<Self>> {
        const NAME: &str = "dis_threshold";
        let geometry = samples(NAME, x)?;
        if !(0.0..=1.0).contains(&ratio) {
            return Err(shape(NAME, format!("a quantile of {ratio}")));
        }
        let n = to_u32(NAME, "the number of values", x.channels)?;
        let position = ratio * f64::from(n.saturating_sub(1));
        let kernel = Self {
            x: x.ptr,
            x_batch: x.batch_stride as u32,
            // Below n, so that it fits.
            rank: position.floor() as u32,
            fraction: position - position.floor(),
            most,
            n,
        };
        Ok(Ready::new(kernel, geometry))
    }
}
