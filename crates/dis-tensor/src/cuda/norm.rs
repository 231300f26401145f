//! Normalisation and its backward.

use dis_kernels::norm::{CHUNK, NormBackward, NormForward, NormParamSums};
use dis_kernels::{Driver, Kernel, Mat, MatMut, PtrMut};

use super::Cuda;
use super::buffer::{DeviceBuf, mat, mat_mut};
use crate::error::Result;
use crate::operands::{AddNorm, AddNormBackward, NormGrads, NormKind};

type Buf<D> = DeviceBuf<D, f32>;

impl<D: Driver> Cuda<D> {
    pub(super) fn norm_forward(&self, call: AddNorm<'_, Buf<D>>) -> Result<()> {
        if call.hidden.layout.elements() == 0 {
            return Ok(());
        }
        let forward = NormForward {
            residual: call.residual.map(mat),
            hidden: mat(call.hidden),
            hidden_scale: call.hidden_scale.map(mat),
            weight: call.norm.weight.map(mat),
            bias: call.norm.bias.map(mat),
            shift_scale: call.norm.shift_scale.map(mat),
            sum: call.sum.map(mat_mut),
            stats: call.stats.map(mat_mut),
            out: mat_mut(call.out),
            layer: call.norm.kind == NormKind::Layer,
            eps: call.norm.eps as f32,
        };
        self.launch("add_norm", forward.ready())
    }

    pub(super) fn norm_backward(&self, call: AddNormBackward<'_, Buf<D>>) -> Result<()> {
        const OP: &str = "add_norm_backward";
        let norm = call.norm;
        let sums = NormParamSums {
            x: mat(call.x),
            stats: mat(call.stats),
            weight: norm.weight.map(mat),
            bias: norm.bias.map(mat),
            shift_scale: norm.shift_scale.map(mat),
            dout: mat(call.dout),
            // Scratch, later.
            partial: PtrMut::null(),
            chunk: CHUNK,
        };
        if sums.x.elements() > 0 {
            let backward = NormBackward {
                x: sums.x,
                stats: sums.stats,
                weight: sums.weight,
                shift_scale: sums.shift_scale,
                dout: sums.dout,
                dx: mat_mut(call.dx),
                layer: norm.kind == NormKind::Layer,
                accumulate: call.accum.adds(),
            };
            self.launch(OP, backward.ready())?;
        }
        if let Some(grads) = call.grads {
            self.norm_parameters(OP, sums, grads)?;
        }
        match call.d_shift_scale {
            Some(out) => self.norm_modulation(OP, sums, mat_mut(out)),
            None => Ok(()),
        }
    }

    /// Adds the gradients of weight and bias.
    fn norm_parameters(
        &self,
        op: &'static str,
        sums: NormParamSums,
        grads: NormGrads<'_, Buf<D>>,
    ) -> Result<()> {
        let [batch, tokens, channels] = sums.x.shape();
        if sums.x.elements() == 0 || (grads.weight.is_none() && grads.bias.is_none()) {
            return Ok(());
        }
        let rows = batch * tokens.div_ceil(CHUNK);
        let scratch = self.scratch::<f32>(op, rows * 2 * channels)?;
        let plain = NormParamSums {
            weight: None,
            bias: None,
            partial: scratch.ptr_mut(),
            ..sums
        };
        self.launch(op, plain.ready())?;
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
    fn norm_modulation(&self, op: &'static str, sums: NormParamSums, out: MatMut) -> Result<()> {
        let [batch, tokens, channels] = sums.x.shape();
        let chunks = tokens.div_ceil(CHUNK);
        let scratch = self.scratch::<f32>(op, batch * chunks * 2 * channels)?;
        if sums.x.elements() > 0 {
            let plain = NormParamSums {
                shift_scale: None,
                partial: scratch.ptr_mut(),
                ..sums
            };
            self.launch(op, plain.ready())?;
        }
        let partial = Mat::dense(scratch.ptr(), batch, chunks, 2 * channels);
        self.sum_tokens(op, partial, out, 1.0, false)
    }
}
