//! Normalisation and its backward.

use dis_kernels::norm::{Forward, NormBackward, NormForward, NormParamSums, Saved};
use dis_kernels::{Driver, Mat, MatMut, Ptr};

use super::buffer::{DeviceBuf, mat, mat_mut, vector};
use super::{Cuda, CudaView, CudaViewMut};
use crate::backend::{Norm, NormGrads, NormKind};
use crate::error::Result;

/// Tokens whose parameter gradients are added up first.
const CHUNK: usize = 32;

type Buf<D> = DeviceBuf<D, f32>;

impl<D: Driver> Cuda<D> {
    pub(super) fn norm_forward(
        &self,
        residual: Option<CudaView<'_, D>>,
        hidden: CudaView<'_, D>,
        hidden_scale: Option<CudaView<'_, D>>,
        norm: Norm<'_, Buf<D>>,
        sum: Option<CudaViewMut<'_, D>>,
        stats: Option<CudaViewMut<'_, D>>,
        out: CudaViewMut<'_, D>,
    ) -> Result<()> {
        if hidden.layout.elements() == 0 {
            return Ok(());
        }
        let forward = Forward {
            residual: residual.map(mat),
            hidden: mat(hidden),
            hidden_scale: hidden_scale.map(mat),
            weight: vector(norm.weight),
            bias: vector(norm.bias),
            shift_scale: norm.shift_scale.map(mat),
            sum: sum.map(mat_mut),
            stats: stats.map(mat_mut),
            out: mat_mut(out),
            layer: norm.kind == NormKind::Layer,
            eps: norm.eps as f32,
        };
        self.launch("add_norm", NormForward::new(forward))
    }

    pub(super) fn norm_backward(
        &self,
        x: CudaView<'_, D>,
        stats: CudaView<'_, D>,
        norm: Norm<'_, Buf<D>>,
        dout: CudaView<'_, D>,
        accumulate: bool,
        dx: CudaViewMut<'_, D>,
        grads: Option<NormGrads<'_, Buf<D>>>,
        d_shift_scale: Option<CudaViewMut<'_, D>>,
    ) -> Result<()> {
        const OP: &str = "add_norm_backward";
        let saved = Saved {
            x: mat(x),
            stats: mat(stats),
            weight: vector(norm.weight),
            bias: vector(norm.bias),
            shift_scale: norm.shift_scale.map(mat),
            dout: mat(dout),
        };
        if saved.x.elements() > 0 {
            let layer = norm.kind == NormKind::Layer;
            self.launch(OP, NormBackward::new(saved, layer, accumulate, mat_mut(dx)))?;
        }
        if let Some(grads) = grads {
            self.norm_parameters(OP, saved, grads)?;
        }
        match d_shift_scale {
            Some(out) => self.norm_modulation(OP, saved, mat_mut(out)),
            None => Ok(()),
        }
    }

    /// Adds the gradients of weight and bias.
    fn norm_parameters(
        &self,
        op: &'static str,
        saved: Saved,
        grads: NormGrads<'_, Buf<D>>,
    ) -> Result<()> {
        let [batch, tokens, channels] = saved.x.shape();
        if saved.x.elements() == 0 || (grads.weight.is_none() && grads.bias.is_none()) {
            return Ok(());
        }
        let rows = batch * tokens.div_ceil(CHUNK);
        let scratch = self.scratch::<f32>(op, rows * 2 * channels)?;
        let plain = Saved {
            weight: Ptr::null(),
            bias: Ptr::null(),
            ..saved
        };
        self.launch(op, NormParamSums::new(plain, CHUNK, scratch.ptr_mut()))?;
        let arena = grads.arena.ptr_mut();
        for (offset, first) in [(grads.weight, channels), (grads.bias, 0)] {
            let Some(offset) = offset else { continue };
            let partial = Mat {
                row_stride: 2 * channels,
                ..Mat::dense(scratch.ptr::<f32>().at(first as u64), 1, rows, channels)
            };
            let dst = MatMut::dense(arena.at(offset as u64), 1, 1, channels);
            self.sum_tokens(op, partial, dst, 1.0, true)?;
        }
        Ok(())
    }

    /// Overwrites the gradients of shift and scale.
    fn norm_modulation(&self, op: &'static str, saved: Saved, out: MatMut) -> Result<()> {
        let [batch, tokens, channels] = saved.x.shape();
        let chunks = tokens.div_ceil(CHUNK);
        let scratch = self.scratch::<f32>(op, batch * chunks * 2 * channels)?;
        let plain = Saved {
            shift_scale: None,
            ..saved
        };
        if saved.x.elements() > 0 {
            self.launch(op, NormParamSums::new(plain, CHUNK, scratch.ptr_mut()))?;
        }
        let partial = Mat::dense(scratch.ptr(), batch, chunks, 2 * channels);
        self.sum_tokens(op, partial, out, 1.0, false)
    }
}
