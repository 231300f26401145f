//! The CPU backend: float32, parallel over fixed blocks, so that results do not depend on the
//! number of threads.

mod elementwise;
mod gemm;
mod images;
mod index;
mod lanes;
mod loss;
mod norm;
mod optim;
mod reduce;
mod rows;
mod softmax;
pub mod threads;

pub(crate) use self::gemm::Prepared;

use std::ops::Range;
use std::sync::Arc;

use self::rows::{Rows, RowsMut};
use self::threads::{Split, Threads};
use crate::backend::{AdamState, AdamW, Backend, Element, Norm, NormGrads, PatchGrid};
use crate::backend::{Precision, Reals, View, ViewMut};
use crate::check::{self, dst, src};
use crate::error::{Result, TensorError};
use crate::host::HostBuf;
use crate::layout::Layout;
use crate::pool::{Pool, PoolStats};
use crate::simd::{self, Level, slices};

/// The CPU backend. Clones share its threads and its memory pool.
#[derive(Clone, Debug)]
pub struct Cpu {
    threads: Threads,
    pool: Arc<Pool>,
    level: Level,
    precision: Precision,
}

type Buf = HostBuf<f32>;

impl Cpu {
    /// A backend that works in whatever rayon pool it is called from: the global one by default.
    pub fn new() -> Self {
        Self {
            threads: Threads::Current,
            pool: Pool::new(),
            level: simd::level(),
            precision: Precision::default(),
        }
    }

    /// A backend with `threads` threads of its own (0: as many as the machine offers).
    ///
    /// # Errors
    /// If the system refuses that many threads.
    pub fn with_threads(threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("dis-{i}"))
            .build()
            .map_err(|error| TensorError::Invalid {
                op: "with_threads",
                what: format!("cannot start {threads} threads: {error}"),
            })?;
        Ok(Self {
            threads: Threads::Own(Arc::new(pool)),
            pool: Pool::new(),
            level: simd::level(),
            precision: Precision::default(),
        })
    }

    /// The same backend (threads and pool) with code for another instruction set, if the machine
    /// has it.
    pub fn with_level(mut self, level: Level) -> Self {
        if level.is_supported() {
            self.level = level;
        }
        self
    }

    /// The instruction set of its own code: [`simd::level`] unless changed.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The same backend (threads and pool) with matrix products of this precision.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// What matrix products take.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// Runs `f` inside the backend's pool. Worth it around a whole model or training step: the
    /// operations called by `f` then need not enter the pool one by one.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.threads.install(f)
    }

    /// Calls `f(units of a block, their part of out)` for consecutive blocks of `grain` out of
    /// `units`, in any order and on all threads; on the calling thread alone when `work` (in
    /// elements touched) is too small to share. The blocks do not depend on the threads, so
    /// neither does a result whose every part is written by one block.
    pub fn blocks<S: Split>(
        &self,
        units: usize,
        grain: usize,
        work: usize,
        out: S,
        f: impl Fn(Range<usize>, S) + Sync,
    ) {
        self.threads.blocks(units, grain, work, out, f);
    }

    /// What the memory pool has done so far.
    pub fn pool_stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// Returns pooled memory that no buffer uses to the system.
    pub fn trim(&self) {
        self.pool.trim();
    }

    /// Pooled memory of unspecified content, for the time of one call.
    fn scratch<E: Element>(&self, len: usize) -> HostBuf<E> {
        HostBuf::alloc(&self.pool, len)
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

fn rows(x: View<'_, Cpu>) -> Rows<'_> {
    Rows::new(x.map(HostBuf::as_slice))
}

fn rows_mut(x: ViewMut<'_, Cpu>) -> RowsMut<'_> {
    RowsMut::new(x.map(HostBuf::as_mut_slice))
}

/// The elements of a checked view of one row.
fn vector(x: View<'_, Cpu>) -> &[f32] {
    rows(x).row(0)
}

fn norm_params<'a>(norm: &Norm<'a, Buf>) -> norm::Params<'a> {
    norm::Params {
        kind: norm.kind,
        eps: norm.eps as f32,
        weight: norm.weight.map(vector),
        bias: norm.bias.map(vector),
        shift_scale: norm.shift_scale.map(rows),
    }
}

impl Backend for Cpu {
    type Real = f32;
    type Buf<E: Element> = HostBuf<E>;

    fn describe(&self) -> String {
        let threads = self.threads();
        let s = if threads == 1 { "" } else { "s" };
        let products = match self.precision {
            Precision::Float32 => "",
            Precision::Bfloat16 => ", bfloat16 products",
        };
        format!("cpu ({}, {threads} thread{s}{products})", self.level)
    }

    fn alloc<E: Element>(&self, len: usize) -> HostBuf<E> {
        HostBuf::alloc(&self.pool, len)
    }

    fn zeros<E: Element>(&self, len: usize) -> HostBuf<E> {
        HostBuf::zeros(&self.pool, len)
    }

    fn upload<E: Element>(&self, data: &[E]) -> HostBuf<E> {
        HostBuf::from_slice(&self.pool, data)
    }

    fn download<E: Element>(&self, buf: &HostBuf<E>) -> Vec<E> {
        buf.as_slice().to_vec()
    }

    fn write_f32(&self, buf: &mut Buf, offset: usize, data: &[f32]) -> Result<()> {
        buf.range_mut("write_f32", offset, data.len())?
            .copy_from_slice(data);
        Ok(())
    }

    fn write_f64(&self, buf: &mut Buf, offset: usize, data: &[f64]) -> Result<()> {
        let to = buf.range_mut("write_f64", offset, data.len())?;
        for (to, &from) in to.iter_mut().zip(data) {
            *to = from as f32;
        }
        Ok(())
    }

    fn read_f32(&self, buf: &Buf, offset: usize, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(buf.range("read_f32", offset, out.len())?);
        Ok(())
    }

    fn read_f64(&self, buf: &Buf, offset: usize, out: &mut [f64]) -> Result<()> {
        let from = buf.range("read_f64", offset, out.len())?;
        for (to, &from) in out.iter_mut().zip(from) {
            *to = f64::from(from);
        }
        Ok(())
    }

    fn from_f32(&self, data: &[f32]) -> Buf {
        self.upload(data)
    }

    fn to_f32(&self, buf: &Buf) -> Vec<f32> {
        self.download(buf)
    }

    fn fill(&self, out: ViewMut<'_, Self>, value: f64) -> Result<()> {
        check::one("fill", dst("dst", &out))?;
        elementwise::map0(self, rows_mut(out), |out| out.fill(value as f32));
        Ok(())
    }

    fn copy(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("copy", &[src("src", &x), dst("dst", &out)])?;
        elementwise::map1(self, rows(x), rows_mut(out), |x, out| {
            out.copy_from_slice(x)
        });
        Ok(())
    }

    fn axpy(&self, alpha: f64, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("axpy", &[src("src", &x), dst("dst", &out)])?;
        let alpha = alpha as f32;
        elementwise::map1(self, rows(x), rows_mut(out), |x, out| {
            elementwise::axpy(alpha, x, out)
        });
        Ok(())
    }

    fn scale_samples(
        &self,
        scale: View<'_, Self>,
        x: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "scale_samples";
        check::equal(OP, &[src("src", &x), dst("dst", &out)])?;
        check::per_sample(OP, src("scale", &scale), src("src", &x))?;
        let (x, scale) = (rows(x), rows(scale));
        elementwise::by_row(self, rows_mut(out), |r, out| {
            elementwise::scaled(scale.row(r / x.tokens())[0], x.row(r), out);
        });
        Ok(())
    }

    fn gemm(
        &self,
        a: View<'_, Self>,
        transpose_a: bool,
        b: View<'_, Self>,
        transpose_b: bool,
        bias: Option<View<'_, Self>>,
        accumulate: bool,
        c: ViewMut<'_, Self>,
    ) -> Result<()> {
        let size = check::gemm(
            src("a", &a),
            transpose_a,
            src("b", &b),
            transpose_b,
            bias.as_ref().map(|x| src("bias", x)),
            accumulate,
            dst("c", &c),
        )?;
        let known = &b.buf.prepared;
        let b = gemm::right(self, b.map(HostBuf::as_slice), transpose_b, known)?;
        gemm::gemm(
            self,
            size,
            a.map(HostBuf::as_slice),
            transpose_a,
            b,
            bias.map(vector),
            accumulate,
            c.map(HostBuf::as_mut_slice),
        );
        Ok(())
    }

    fn prepare_weights(&self, buf: &mut Buf, weights: &[Layout]) -> Result<()> {
        let mut known = std::mem::take(&mut buf.prepared);
        let outcome = weights
            .iter()
            .try_for_each(|x| gemm::prepare(self, buf.as_mut_slice(), &mut known, *x));
        buf.prepared = known;
        outcome
    }

    fn add_column_sums(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::per_channel("add_column_sums", dst("out", &out), src("x", &x))?;
        reduce::add_column_sums(self, rows(x), rows_mut(out).row(0));
        Ok(())
    }

    fn add_batch_sums(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::per_token("add_batch_sums", dst("out", &out), src("x", &x))?;
        reduce::add_batch_sums(self, rows(x), rows_mut(out));
        Ok(())
    }

    fn token_sums(
        &self,
        alpha: f64,
        x: View<'_, Self>,
        accumulate: bool,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::per_sample_channel("token_sums", dst("out", &out), src("x", &x))?;
        reduce::token_sums(self, alpha as f32, rows(x), accumulate, rows_mut(out));
        Ok(())
    }

    fn add_to_tokens(&self, alpha: f64, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::broadcast_row("add_to_tokens", src("x", &x), dst("dst", &out))?;
        let (one, x, out) = (x.layout.batch == 1, rows(x), rows_mut(out));
        let tokens = out.tokens();
        elementwise::by_row(self, out, |r, out| {
            let row = if one { 0 } else { r / tokens };
            elementwise::axpy(alpha as f32, x.row(row), out);
        });
        Ok(())
    }

    fn add_to_samples(&self, alpha: f64, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::per_token("add_to_samples", src("x", &x), dst("dst", &out))?;
        let x = rows(x);
        elementwise::by_row(self, rows_mut(out), |r, out| {
            elementwise::axpy(alpha as f32, x.row(r % x.tokens()), out);
        });
        Ok(())
    }

    fn silu(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("silu", &[src("x", &x), dst("out", &out)])?;
        elementwise::map1(self, rows(x), rows_mut(out), |x, out| {
            slices::map(self.level, slices::Function::Silu, x, out);
        });
        Ok(())
    }

    fn silu_backward(
        &self,
        x: View<'_, Self>,
        dout: View<'_, Self>,
        dx: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::equal(
            "silu_backward",
            &[src("x", &x), src("dout", &dout), dst("dx", &dx)],
        )?;
        elementwise::map2(self, rows(x), rows(dout), rows_mut(dx), |x, dout, dx| {
            slices::silu_backward(self.level, x, dout, dx)
        });
        Ok(())
    }

    fn neg_exp(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("neg_exp", &[src("x", &x), dst("out", &out)])?;
        elementwise::map1(self, rows(x), rows_mut(out), |x, out| {
            slices::map(self.level, slices::Function::NegExp, x, out);
        });
        Ok(())
    }

    fn add_product(
        &self,
        x: View<'_, Self>,
        y: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::equal(
            "add_product",
            &[src("a", &x), src("b", &y), dst("dst", &out)],
        )?;
        elementwise::map2(
            self,
            rows(x),
            rows(y),
            rows_mut(out),
            elementwise::add_product,
        );
        Ok(())
    }

    fn softmax(&self, scale: f64, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("softmax", &[src("x", &x), dst("out", &out)])?;
        softmax::forward(self, scale as f32, rows(x), rows_mut(out));
        Ok(())
    }

    fn softmax_backward(
        &self,
        scale: f64,
        y: View<'_, Self>,
        dout: View<'_, Self>,
        dx: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::equal(
            "softmax_backward",
            &[src("y", &y), src("dout", &dout), dst("dx", &dx)],
        )?;
        softmax::backward(self, scale as f32, rows(y), rows(dout), rows_mut(dx));
        Ok(())
    }

    fn add_norm(
        &self,
        residual: Option<View<'_, Self>>,
        hidden: View<'_, Self>,
        hidden_scale: Option<View<'_, Self>>,
        norm: Norm<'_, Reals<Self>>,
        sum: Option<ViewMut<'_, Self>>,
        stats: Option<ViewMut<'_, Self>>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::add_norm(
            residual.as_ref(),
            &hidden,
            hidden_scale.as_ref(),
            &norm,
            sum.as_ref(),
            stats.as_ref(),
            &out,
        )?;
        let inputs = norm::Inputs {
            residual: residual.map(rows),
            hidden: rows(hidden),
            hidden_scale: hidden_scale.map(rows),
            norm: norm_params(&norm),
        };
        norm::forward(
            self,
            inputs,
            (sum.map(rows_mut), stats.map(rows_mut), rows_mut(out)),
        );
        Ok(())
    }

    fn add_norm_backward(
        &self,
        x: View<'_, Self>,
        stats: View<'_, Self>,
        norm: Norm<'_, Reals<Self>>,
        dout: View<'_, Self>,
        accumulate: bool,
        dx: ViewMut<'_, Self>,
        grads: Option<NormGrads<'_, Reals<Self>>>,
        d_shift_scale: Option<ViewMut<'_, Self>>,
    ) -> Result<()> {
        check::add_norm_backward(
            &x,
            &stats,
            &norm,
            &dout,
            &dx,
            grads.as_ref(),
            d_shift_scale.as_ref(),
        )?;
        let saved = norm::Saved {
            x: rows(x),
            stats: rows(stats),
            norm: norm_params(&norm),
            dout: rows(dout),
        };
        let grads = grads.map(|grads| norm::Grads {
            arena: grads.arena.as_mut_slice(),
            weight: grads.weight,
            bias: grads.bias,
        });
        norm::backward(self, saved, accumulate, rows_mut(dx), grads);
        if let Some(out) = d_shift_scale {
            norm::backward_shift_scale(self, saved, rows_mut(out));
        }
        Ok(())
    }

    fn gather(
        &self,
        table: View<'_, Self>,
        ids: &HostBuf<u32>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        let ids = ids.as_slice();
        check::lookup("gather", src("table", &table), ids, dst("out", &out))?;
        index::gather(self, rows(table), ids, rows_mut(out));
        Ok(())
    }

    fn scatter_add(
        &self,
        dout: View<'_, Self>,
        ids: &HostBuf<u32>,
        dtable: ViewMut<'_, Self>,
    ) -> Result<()> {
        let ids = ids.as_slice();
        check::lookup(
            "scatter_add",
            dst("dtable", &dtable),
            ids,
            src("dout", &dout),
        )?;
        index::scatter_add(rows(dout), ids, rows_mut(dtable));
        Ok(())
    }

    fn patchify(&self, image: &Buf, grid: PatchGrid, out: ViewMut<'_, Self>) -> Result<()> {
        check::patches("patchify", &grid, image.as_slice().len(), dst("out", &out))?;
        index::patchify(self, image, &grid, rows_mut(out));
        Ok(())
    }

    fn unpatchify(&self, patches: View<'_, Self>, grid: PatchGrid, image: &mut Buf) -> Result<()> {
        check::patches(
            "unpatchify",
            &grid,
            image.as_slice().len(),
            src("patches", &patches),
        )?;
        index::unpatchify(self, rows(patches), &grid, image);
        Ok(())
    }

    fn global_norm(&self, x: &Buf, out: &mut Buf) -> Result<()> {
        check::scalar_out("global_norm", "out", out.as_slice().len())?;
        out[0] = optim::global_norm(self, x) as f32;
        Ok(())
    }

    fn adamw(&self, state: AdamState<'_, Buf>, step: AdamW) -> Result<()> {
        check::adamw(&state, &step)?;
        let norm = state.grad_norm[0];
        let arenas = optim::Arenas {
            params: state.params.as_mut_slice(),
            grads: state.grads.as_slice(),
            m: state.m.as_mut_slice(),
            v: state.v.as_mut_slice(),
            ema: state.ema.as_mut_slice(),
        };
        optim::adamw(self, arenas, norm, &step);
        Ok(())
    }
}
