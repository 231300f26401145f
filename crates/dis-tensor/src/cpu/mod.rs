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

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use self::rows::{Rows, RowsMut};
use self::threads::{Split, Threads};
use crate::backend::{Backend, Element, Precision, View, ViewMut};
use crate::error::{Result, TensorError};
use crate::host::HostBuf;
use crate::layout::Layout;
use crate::operands::{
    Accum, AdamState, AdamW, AddNorm, AddNormBackward, GemmSize, Map, Matrix, Norm, PatchGrid, Sum,
    Zip,
};
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

    /// A backend that works on the threads of a pool that there is.
    pub fn in_pool(pool: Arc<rayon::ThreadPool>) -> Self {
        Self {
            threads: Threads::Own(pool),
            ..Self::new()
        }
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

    /// Whether its instruction set multiplies bfloat16. Where it does not, products of
    /// [`Precision::Bfloat16`] are computed in float32 from rounded operands: the same numbers, no faster.
    pub fn multiplies_bfloat16(&self) -> bool {
        self.level == Level::Avx512 && simd::pairs::has_pairs()
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

    fn within<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.install(f)
    }

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

    fn host_ids<'a>(&self, ids: &'a HostBuf<u32>) -> Cow<'a, [u32]> {
        Cow::Borrowed(ids.as_slice())
    }

    fn run_fill(&self, value: f64, out: ViewMut<'_, Self>) -> Result<()> {
        elementwise::map0(self, rows_mut(out), |out| out.fill(value as f32));
        Ok(())
    }

    fn run_map(&self, f: Map, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        let (x, out, level) = (rows(x), rows_mut(out), self.level);
        match f {
            Map::Copy => elementwise::map1(self, x, out, |x, out| out.copy_from_slice(x)),
            Map::Axpy(alpha) => {
                let alpha = alpha as f32;
                elementwise::map1(self, x, out, |x, out| elementwise::axpy(alpha, x, out));
            }
            Map::Silu => elementwise::map1(self, x, out, |x, out| {
                slices::map(level, slices::Function::Silu, x, out);
            }),
            Map::NegExp => elementwise::map1(self, x, out, |x, out| {
                slices::map(level, slices::Function::NegExp, x, out);
            }),
            Map::Softmax(scale) => softmax::forward(self, scale as f32, x, out),
        }
        Ok(())
    }

    fn run_zip(
        &self,
        f: Zip,
        x: View<'_, Self>,
        y: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        let (x, y, out, level) = (rows(x), rows(y), rows_mut(out), self.level);
        match f {
            Zip::SiluBackward => elementwise::map2(self, x, y, out, |x, dout, dx| {
                slices::silu_backward(level, x, dout, dx)
            }),
            Zip::AddProduct => elementwise::map2(self, x, y, out, elementwise::add_product),
            Zip::SoftmaxBackward(scale) => softmax::backward(self, scale as f32, x, y, out),
        }
        Ok(())
    }

    fn run_sum(&self, over: Sum, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        let (x, mut out) = (rows(x), rows_mut(out));
        match over {
            Sum::Rows => reduce::add_column_sums(self, x, out.row(0)),
            Sum::Samples => reduce::add_batch_sums(self, x, out),
            Sum::Tokens(alpha, accum) => reduce::token_sums(self, alpha as f32, x, accum, out),
        }
        Ok(())
    }

    fn run_scale_samples(
        &self,
        scale: View<'_, Self>,
        x: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        let (x, scale) = (rows(x), rows(scale));
        elementwise::by_row(self, rows_mut(out), |r, out| {
            elementwise::scaled(scale.row(r / x.tokens())[0], x.row(r), out);
        });
        Ok(())
    }

    fn run_gemm(
        &self,
        size: GemmSize,
        a: Matrix<'_, Buf>,
        b: Matrix<'_, Buf>,
        bias: Option<View<'_, Self>>,
        accum: Accum,
        c: ViewMut<'_, Self>,
    ) -> Result<()> {
        let known = &b.view.buf.prepared;
        let b = gemm::right(self, b.map(HostBuf::as_slice), known)?;
        let base = match (bias.map(vector), accum) {
            (Some(bias), _) => gemm::Base::Bias(bias),
            (None, Accum::Add) => gemm::Base::Kept,
            (None, Accum::Replace) => gemm::Base::Zero,
        };
        let (a, c) = (a.map(HostBuf::as_slice), c.map(HostBuf::as_mut_slice));
        gemm::gemm(self, size, a, b, base, c);
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

    fn run_add_norm(&self, call: AddNorm<'_, Buf>) -> Result<()> {
        let inputs = norm::Inputs {
            residual: call.residual.map(rows),
            hidden: rows(call.hidden),
            hidden_scale: call.hidden_scale.map(rows),
            norm: norm_params(&call.norm),
        };
        let (sum, stats) = (call.sum.map(rows_mut), call.stats.map(rows_mut));
        norm::forward(self, inputs, (sum, stats, rows_mut(call.out)));
        Ok(())
    }

    fn run_add_norm_backward(&self, call: AddNormBackward<'_, Buf>) -> Result<()> {
        let saved = norm::Saved {
            x: rows(call.x),
            stats: rows(call.stats),
            norm: norm_params(&call.norm),
            dout: rows(call.dout),
        };
        let grads = call.grads.map(|grads| norm::Grads {
            arena: grads.arena.as_mut_slice(),
            weight: grads.weight,
            bias: grads.bias,
        });
        norm::backward(self, saved, call.accum, rows_mut(call.dx), grads);
        if let Some(out) = call.d_shift_scale {
            norm::backward_shift_scale(self, saved, rows_mut(out));
        }
        Ok(())
    }

    fn run_gather(
        &self,
        table: View<'_, Self>,
        ids: &HostBuf<u32>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        index::gather(self, rows(table), ids.as_slice(), rows_mut(out));
        Ok(())
    }

    fn run_scatter_add(
        &self,
        dout: View<'_, Self>,
        ids: &HostBuf<u32>,
        dtable: ViewMut<'_, Self>,
    ) -> Result<()> {
        index::scatter_add(rows(dout), ids.as_slice(), rows_mut(dtable));
        Ok(())
    }

    fn run_patchify(&self, image: &Buf, grid: PatchGrid, out: ViewMut<'_, Self>) -> Result<()> {
        index::patchify(self, image, &grid, rows_mut(out));
        Ok(())
    }

    fn run_unpatchify(
        &self,
        patches: View<'_, Self>,
        grid: PatchGrid,
        image: &mut Buf,
    ) -> Result<()> {
        index::unpatchify(self, rows(patches), &grid, image);
        Ok(())
    }

    fn run_global_norm(&self, x: &Buf, out: &mut Buf) -> Result<()> {
        out[0] = optim::global_norm(self, x) as f32;
        Ok(())
    }

    fn run_adamw(&self, state: AdamState<'_, Buf>, step: AdamW) -> Result<()> {
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
