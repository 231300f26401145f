//! Batches of images. Per-sample numbers go to the device in stream order, so that nothing waits.

use dis_kernels::images::{AddNoise, Clamp, Combine, Lines, Mix, Terms};
use dis_kernels::statistics::{Rescale, Threshold};
use dis_kernels::{Block, Driver, KernelError};

use super::buffer::DeviceBuf;
use super::{Cuda, mat, mat_mut};
use crate::backend::{Reals, View, ViewMut};
use crate::error::Result;
use crate::images::ImageOps;
use crate::loss::{LossInputs, LossStep};

impl<D: Driver> Cuda<D> {
    /// Puts words that a kernel reads on the device.
    pub(super) fn words(&self, op: &'static str, words: &[u64]) -> Result<Block<D>> {
        let block = self.scratch::<u64>(op, words.len())?;
        if !words.is_empty() {
            let bytes = bytemuck::cast_slice(words);
            self.run(op, |driver| driver.upload(block.address(), bytes))?;
        }
        Ok(block)
    }

    fn refused(&self, op: &'static str) -> impl FnOnce(KernelError) -> crate::TensorError {
        move |error| self.failed(op, error)
    }
}

impl<D: Driver> ImageOps for Cuda<D> {
    fn run_combine(
        &self,
        terms: &[(&[f64], View<'_, Self>)],
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "combine";
        let terms: Vec<_> = terms.iter().map(|(c, x)| (*c, mat(*x))).collect();
        let terms = Terms::new(&terms).map_err(self.refused(OP))?;
        let table = self.words(OP, terms.words())?;
        self.launch(OP, Combine::new(&terms, table.ptr(), mat_mut(out)))
    }

    fn run_clamp(&self, low: f64, high: f64, x: ViewMut<'_, Self>) -> Result<()> {
        let kernel = Clamp::new(mat_mut(x), low as f32, high as f32);
        self.launch("clamp", kernel)
    }

    fn run_add_noise(
        &self,
        noise: View<'_, Self>,
        log_scale: View<'_, Self>,
        slope: &[f64],
        offset: &[f64],
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "add_noise";
        let lines = Lines::new(slope, offset, out.layout.batch).map_err(self.refused(OP))?;
        let at = self.words(OP, lines.words())?;
        let kernel = AddNoise::new(mat(noise), mat(log_scale), &lines, at.ptr(), mat_mut(out));
        self.launch(OP, kernel)
    }

    fn run_mix(
        &self,
        weight: View<'_, Self>,
        a: View<'_, Self>,
        b: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        let kernel = Mix::new(mat(weight), mat(a), mat(b), mat_mut(out));
        self.launch("mix", kernel)
    }

    fn run_rescale(&self, strength: f64, like: View<'_, Self>, x: ViewMut<'_, Self>) -> Result<()> {
        self.launch("rescale", Rescale::new(mat(like), mat_mut(x), strength))
    }

    fn run_threshold(&self, ratio: f64, most: f64, x: ViewMut<'_, Self>) -> Result<()> {
        self.launch("threshold", Threshold::new(mat_mut(x), ratio, most))
    }

    fn run_gaussian_loss(
        &self,
        steps: &[LossStep],
        inputs: LossInputs<'_, Reals<Self>>,
        gradient: ViewMut<'_, Self>,
        sums: &mut DeviceBuf<D, f64>,
        at: usize,
    ) -> Result<()> {
        self.loss(steps, inputs, gradient, sums, at)
    }
}
