//! Launch contracts of `statistics.ptx`. A batch of images is a token matrix with one token a sample,
//! which holds all its values.

use crate::contract::{Contract, ContractInfo, Geometry, Kernel, Param, contract};
use crate::error::Result;
use crate::mat::{Mat, MatMut, images, shape, shapes};

contract! {
    /// `x *= strength * deviation(like) / deviation(x) + 1 - strength`, for each sample.
    pub struct Rescale: STATISTICS, "dis_rescale" {
        like: Mat [batch], x: MatMut [batch],
        strength: f64,
        n: usize = |k| k.x.channels,
    }
    pub fn new;
}
contract! {
    /// `x = clamp(x, -s, s) / s` with s the quantile of a sample's absolute values at `ratio`, from 0 to 1;
    /// s is at least 1 and at most `most`.
    pub struct Threshold: STATISTICS, "dis_threshold" {
        x: MatMut [batch],
        host ratio: f64,
        // Below n, so that it fits.
        rank: u32 = |k| k.position().floor() as u32,
        fraction: f64 = |k| k.position() - k.position().floor(),
        most: f64,
        n: usize = |k| k.x.channels,
    }
    pub fn new;
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[Rescale::INFO, Threshold::INFO];

/// One block a sample.
fn samples(kernel: &'static str, x: &MatMut) -> Result<Geometry> {
    let [batch, _] = images(kernel, x)?;
    batch.check(kernel, "the number of samples")?;
    Ok(Geometry::new([batch as u32, 1, 1], [256, 1, 1]))
}

impl Kernel for Rescale {
    fn fit(&mut self) -> Result<Geometry> {
        shapes(Self::NAME, &[("like", &self.like, self.x.shape())])?;
        samples(Self::NAME, &self.x)
    }
}

impl Threshold {
    /// Where the quantile is among the sorted values.
    fn position(&self) -> f64 {
        self.ratio * self.x.channels.saturating_sub(1) as f64
    }
}

impl Kernel for Threshold {
    fn fit(&mut self) -> Result<Geometry> {
        if !(0.0..=1.0).contains(&self.ratio) {
            return Err(shape(Self::NAME, format!("a quantile of {}", self.ratio)));
        }
        samples(Self::NAME, &self.x)
    }
}
