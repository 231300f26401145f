//! The GPU backend: float32 but for the operands of matrix products where that is asked for, all launch
//! logic, over any [`Driver`]: a GPU or the simulator.
//!
//! Nothing here waits for the device but reads and downloads. Kernels are launched in the order of one
//! stream.
//!
//! What a device reports late, or where the interface has no room for an error (allocation, upload,
//! download), is recorded: every later operation fails with it, and [`Backend::failure`] tells it.
//! Meanwhile such a download is all ones bits, which is NaN in floats.

mod buffer;
mod gemm;
mod images;
mod loss;
mod norm;
mod optim;
mod prepared;
mod record;
mod sums;

use std::any::TypeId;
use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use dis_kernels::elementwise as kernels;
use dis_kernels::embed::{Gather, ScatterAdd};
use dis_kernels::memory::Stats;
use dis_kernels::patch::{self, Patchify, Unpatchify};
use dis_kernels::softmax::{SoftmaxBackward, SoftmaxForward};
use dis_kernels::{Block, Contract, Driver, KernelError, Pool, Ready};

pub use self::buffer::{DeviceBuf, mat, mat_mut};
pub use self::record::DeviceRecording;
use crate::backend::{Backend, Element, Precision, View, ViewMut};
use crate::error::{Result, TensorError};
use crate::layout::{Layout, Tokens, TokensMut};
use crate::operands::{
    Accum, AdamState, AdamW, AddNorm, AddNormBackward, GemmSize, Map, Matrix, PatchGrid,
    PatchOrder, Sum, Zip,
};

/// A view of reals on a device.
pub type CudaView<'a, D> = Tokens<'a, DeviceBuf<D, f32>>;
/// A writable view of reals on a device.
pub type CudaViewMut<'a, D> = TokensMut<'a, DeviceBuf<D, f32>>;

type Buf<D> = DeviceBuf<D, f32>;

/// The GPU backend. Clones share the device, its stream and the memory pool.
pub struct Cuda<D: Driver> {
    pool: Pool<D>,
    failure: Arc<OnceLock<String>>,
    ptx_gemm: bool,
    has_library_gemm: bool,
    precision: Precision,
}

impl<D: Driver> Clone for Cuda<D> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            failure: Arc::clone(&self.failure),
            ..*self
        }
    }
}

impl<D: Driver> fmt::Debug for Cuda<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cuda({:?})", self.driver())
    }
}

impl<D: Driver> Cuda<D> {
    /// A backend on this device.
    pub fn new(driver: D) -> Self {
        let has_library_gemm = driver.has_gemm();
        Self {
            pool: Pool::new(driver),
            failure: Arc::default(),
            ptx_gemm: false,
            has_library_gemm,
            precision: Precision::default(),
        }
    }

    /// The same backend with matrix products by our own kernel, whatever the driver has.
    pub fn with_ptx_gemm(mut self, ptx_gemm: bool) -> Self {
        self.ptx_gemm = ptx_gemm;
        self
    }

    /// The same backend with matrix products of operands of this precision.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The device.
    pub fn driver(&self) -> &D {
        self.pool.driver()
    }

    /// What the memory pool has done so far.
    pub fn pool_stats(&self) -> Stats {
        self.pool.stats()
    }

    /// Returns pooled memory that no buffer uses to the device.
    pub fn trim(&self) {
        self.pool.trim();
    }

    /// Scratch memory for one operation; in stream order, so that it may be dropped at once.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn scratch<T>(&self, op: &'static str, len: usize) -> Result<Block<D>> {
        self.pool
            .take(len * size_of::<T>())
            .map_err(|error| self.failed(op, error))
    }

    /// Launches what a contract's constructor returned.
    ///
    /// # Errors
    /// What the contract refused or the driver reported.
    pub fn launch<K: Contract>(
        &self,
        op: &'static str,
        kernel: dis_kernels::Result<Ready<K>>,
    ) -> Result<()> {
        self.run(op, |driver| dis_kernels::launch(driver, &kernel?))
    }

    /// Runs launches on the device, unless something failed before.
    ///
    /// # Errors
    /// The earlier failure, or what `f` gave.
    pub fn run(
        &self,
        op: &'static str,
        f: impl FnOnce(&D) -> dis_kernels::Result<()>,
    ) -> Result<()> {
        if let Some(what) = self.failure.get() {
            let what = format!("an earlier failure: {what}");
            return Err(TensorError::Device { op, what });
        }
        f(self.driver()).map_err(|error| self.failed(op, error))
    }

    /// An error of an operation.
    fn failed(&self, op: &'static str, error: KernelError) -> TensorError {
        TensorError::Device {
            op,
            what: error.to_string(),
        }
    }

    /// Keeps a failure for the next operation to report.
    fn record(&self, error: &KernelError) {
        let _ = self.failure.set(error.to_string());
    }

    fn buffer<E: Element>(&self, len: usize) -> DeviceBuf<D, E> {
        match self.pool.take(len * size_of::<E>()) {
            Ok(block) => DeviceBuf::new((len > 0).then_some(block), len),
            Err(error) => {
                self.record(&error);
                DeviceBuf::new(None, len)
            }
        }
    }

    /// The address of elements `offset .. offset + len`; 0 when there are none.
    fn range(&self, op: &'static str, buf: &Buf<D>, offset: usize, len: usize) -> Result<u64> {
        if offset.saturating_add(len) > buf.len {
            return Err(TensorError::OutOfBounds {
                op,
                layout: Layout::vector(len).at(offset),
                needed: offset.saturating_add(len),
                len: buf.len,
            });
        }
        if buf.block.is_none() && len > 0 {
            let what = self.failure().unwrap_or_else(|| "no memory".into());
            return Err(TensorError::Device { op, what });
        }
        Ok(buf.address() + 4 * offset as u64)
    }
}

fn patch_grid(grid: &PatchGrid) -> patch::Grid {
    patch::Grid {
        batch: grid.batch,
        channels: grid.channels,
        height: grid.height,
        width: grid.width,
        patch: grid.patch,
        channel_last: grid.order == PatchOrder::ChannelLast,
    }
}

impl<D: Driver> Backend for Cuda<D> {
    type Real = f32;
    type Buf<E: Element> = DeviceBuf<D, E>;

    fn on_host(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        let products = match self.precision {
            Precision::Float32 => "",
            Precision::Bfloat16 => ", bfloat16 products",
        };
        self.driver().describe() + products
    }

    fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    fn alloc<E: Element>(&self, len: usize) -> DeviceBuf<D, E> {
        self.buffer(len)
    }

    fn zeros<E: Element>(&self, len: usize) -> DeviceBuf<D, E> {
        let buf = self.buffer(len);
        if let Some(block) = &buf.block
            && let Err(error) = self.driver().zero(block.address(), block.bytes())
        {
            self.record(&error);
        }
        buf
    }

    fn upload<E: Element>(&self, data: &[E]) -> DeviceBuf<D, E> {
        let mut buf = self.buffer(data.len());
        if let Some(block) = &buf.block
            && let Err(error) = self
                .driver()
                .upload(block.address(), bytemuck::cast_slice(data))
        {
            self.record(&error);
        }
        if TypeId::of::<E>() == TypeId::of::<u32>() {
            buf.ids = Some(bytemuck::cast_slice::<E, u32>(data).into());
        }
        buf
    }

    fn download<E: Element>(&self, buf: &DeviceBuf<D, E>) -> Vec<E> {
        let mut data = vec![E::zeroed(); buf.len];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut data);
        let done = match &buf.block {
            Some(block) => self.driver().download(block.address(), bytes),
            None => Ok(()),
        };
        if let Err(error) = done {
            self.record(&error);
            bytes.fill(0xFF);
        } else if buf.block.is_none() {
            bytes.fill(0xFF);
        }
        data
    }

    fn write_f32(&self, buf: &mut Buf<D>, offset: usize, data: &[f32]) -> Result<()> {
        const OP: &str = "write_f32";
        buf.prepared.clear();
        let place = self.range(OP, buf, offset, data.len())?;
        self.driver()
            .upload(place, bytemuck::cast_slice(data))
            .map_err(|error| self.failed(OP, error))
    }

    fn write_f64(&self, buf: &mut Buf<D>, offset: usize, data: &[f64]) -> Result<()> {
        const OP: &str = "write_f64";
        buf.prepared.clear();
        let place = self.range(OP, buf, offset, data.len())?;
        let rounded: Vec<f32> = data.iter().map(|&x| x as f32).collect();
        self.driver()
            .upload(place, bytemuck::cast_slice(&rounded))
            .map_err(|error| self.failed(OP, error))
    }

    fn read_f32(&self, buf: &Buf<D>, offset: usize, out: &mut [f32]) -> Result<()> {
        const OP: &str = "read_f32";
        let place = self.range(OP, buf, offset, out.len())?;
        self.driver()
            .download(place, bytemuck::cast_slice_mut(out))
            .map_err(|error| self.failed(OP, error))
    }

    fn read_f64(&self, buf: &Buf<D>, offset: usize, out: &mut [f64]) -> Result<()> {
        const OP: &str = "read_f64";
        let place = self.range(OP, buf, offset, out.len())?;
        let mut rounded = vec![0.0f32; out.len()];
        self.driver()
            .download(place, bytemuck::cast_slice_mut(&mut rounded))
            .map_err(|error| self.failed(OP, error))?;
        for (to, from) in out.iter_mut().zip(rounded) {
            *to = f64::from(from);
        }
        Ok(())
    }

    fn from_f32(&self, data: &[f32]) -> Buf<D> {
        self.upload(data)
    }

    fn to_f32(&self, buf: &Buf<D>) -> Vec<f32> {
        self.download(buf)
    }

    /// Known where they were uploaded.
    fn host_ids<'a>(&self, ids: &'a DeviceBuf<D, u32>) -> Cow<'a, [u32]> {
        match &ids.ids {
            Some(ids) => Cow::Borrowed(ids),
            None => Cow::Owned(self.download(ids)),
        }
    }

    fn run_fill(&self, value: f64, out: ViewMut<'_, Self>) -> Result<()> {
        self.launch("fill", kernels::Fill::new(mat_mut(out), value as f32))
    }

    fn run_map(&self, f: Map, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        let (x, out) = (mat(x), mat_mut(out));
        match f {
            Map::Copy => self.launch("copy", kernels::Copy::new(x, out)),
            Map::Axpy(alpha) => self.launch("axpy", kernels::Axpy::new(x, out, alpha as f32)),
            Map::Silu => self.launch("silu", kernels::Silu::new(x, out)),
            Map::NegExp => self.launch("neg_exp", kernels::NegExp::new(x, out)),
            Map::Softmax(scale) => {
                self.launch("softmax", SoftmaxForward::new(x, out, scale as f32))
            }
        }
    }

    fn run_zip(
        &self,
        f: Zip,
        x: View<'_, Self>,
        y: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        let (x, y, out) = (mat(x), mat(y), mat_mut(out));
        match f {
            Zip::SiluBackward => {
                self.launch("silu_backward", kernels::SiluBackward::new(x, y, out))
            }
            Zip::AddProduct => self.launch("add_product", kernels::AddProduct::new(x, y, out)),
            Zip::SoftmaxBackward(scale) => {
                let kernel = SoftmaxBackward::new(x, y, out, scale as f32);
                self.launch("softmax_backward", kernel)
            }
        }
    }

    fn run_sum(&self, over: Sum, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        let (x, out) = (mat(x), mat_mut(out));
        match over {
            Sum::Rows => self.add_all_rows("add_column_sums", x, out),
            Sum::Samples => self.add_over_samples("add_batch_sums", x, out),
            Sum::Tokens(alpha, accum) => {
                self.sum_tokens("token_sums", x, out, alpha as f32, accum.adds())
            }
        }
    }

    fn run_scale_samples(
        &self,
        scale: View<'_, Self>,
        x: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        let kernel = kernels::ScaleSamples::new(mat(x), mat_mut(out), mat(scale));
        self.launch("scale_samples", kernel)
    }

    fn run_gemm(
        &self,
        size: GemmSize,
        a: Matrix<'_, Buf<D>>,
        b: Matrix<'_, Buf<D>>,
        bias: Option<View<'_, Self>>,
        accum: Accum,
        c: ViewMut<'_, Self>,
    ) -> Result<()> {
        self.product(size, a, b, bias, accum, c)
    }

    /// Rounds copies, which the next write to the buffer ends.
    fn prepare_weights(&self, buf: &mut Buf<D>, weights: &[Layout]) -> Result<()> {
        match self.precision {
            Precision::Float32 => Ok(()),
            Precision::Bfloat16 => weights.iter().try_for_each(|&x| self.prepare(buf, x)),
        }
    }

    fn run_add_norm(&self, call: AddNorm<'_, Buf<D>>) -> Result<()> {
        self.norm_forward(call)
    }

    fn run_add_norm_backward(&self, call: AddNormBackward<'_, Buf<D>>) -> Result<()> {
        self.norm_backward(call)
    }

    fn run_gather(
        &self,
        table: View<'_, Self>,
        ids: &DeviceBuf<D, u32>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        self.launch("gather", Gather::new(mat(table), ids.ptr(), mat_mut(out)))
    }

    fn run_scatter_add(
        &self,
        dout: View<'_, Self>,
        ids: &DeviceBuf<D, u32>,
        dtable: ViewMut<'_, Self>,
    ) -> Result<()> {
        let kernel = ScatterAdd::new(mat(dout), ids.ptr(), mat_mut(dtable));
        self.launch("scatter_add", kernel)
    }

    fn run_patchify(&self, image: &Buf<D>, grid: PatchGrid, out: ViewMut<'_, Self>) -> Result<()> {
        let kernel = Patchify::new(image.ptr(), mat_mut(out), patch_grid(&grid));
        self.launch("patchify", kernel)
    }

    fn run_unpatchify(
        &self,
        patches: View<'_, Self>,
        grid: PatchGrid,
        image: &mut Buf<D>,
    ) -> Result<()> {
        let kernel = Unpatchify::new(image.ptr_mut(), mat(patches), patch_grid(&grid));
        self.launch("unpatchify", kernel)
    }

    fn run_global_norm(&self, x: &Buf<D>, out: &mut Buf<D>) -> Result<()> {
        self.norm_of(x, out)
    }

    fn run_adamw(&self, state: AdamState<'_, Buf<D>>, step: AdamW) -> Result<()> {
        self.update(state, &step)
    }
}
