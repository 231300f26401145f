//! The driver's calls, each checked: with `blas.rs` the only unsafe code of this crate.
//!
//! Addresses given to these functions come from [`crate::Pool`] blocks of the same driver, and what
//! kernels do with them was checked by their contracts; sizes of host memory are those of slices.

use std::ffi::{CString, c_int, c_void};

use cudarc::driver::result::{self, DriverError, stream::StreamKind};
use cudarc::driver::sys::{self, CUdevice_attribute, CUresult, CUstreamCaptureMode};

use crate::contract::Args;
use crate::driver::Launch;
use crate::error::{KernelError, Result};
use crate::ptx::PtxFile;

/// A loaded text.
#[derive(Clone, Copy)]
pub(super) struct Module(sys::CUmodule);

/// An entry of a loaded text.
#[derive(Clone, Copy)]
pub(super) struct Function(sys::CUfunction);

/// A recorded sequence of launches.
pub struct Graph(sys::CUgraphExec);

/// A device with its primary context and one stream.
pub(super) struct Raw {
    pub(super) name: String,
    pub(super) capability: (i32, i32),
    pub(super) multiprocessors: u32,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
}

// SAFETY: handles of modules, contexts, streams and functions may be used from any thread (CUDA
// driver API, "Context Management" and "Stream Management"); a context is made current before use.
unsafe impl Send for Module {}
// SAFETY: as for Send; the handle itself never changes.
unsafe impl Sync for Module {}
// SAFETY: as for Module.
unsafe impl Send for Function {}
// SAFETY: as for Module.
unsafe impl Sync for Function {}
// SAFETY: as for Module.
unsafe impl Send for Graph {}
// SAFETY: as for Module; launches of one graph are ordered by the one stream they go to.
unsafe impl Sync for Graph {}
// SAFETY: as for Module.
unsafe impl Send for Raw {}
// SAFETY: as for Module; the fields never change.
unsafe impl Sync for Raw {}

fn failed(action: impl Into<String>) -> impl FnOnce(DriverError) -> KernelError {
    let action = action.into();
    move |error| KernelError::Driver {
        action,
        message: error.to_string(),
    }
}

/// `12080` as `12.8`.
fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

impl Raw {
    pub(super) fn open(ordinal: u32) -> Result<Self> {
        // SAFETY: loads the driver's library, whose initialisers are trusted as the system's.
        if !unsafe { sys::is_culib_present() } {
            return Err(KernelError::Unavailable(
                "the NVIDIA driver's library (libcuda) is not installed".into(),
            ));
        }
        let unavailable = |error: DriverError| KernelError::Unavailable(error.to_string());
        result::init().map_err(unavailable)?;
        let count = result::device::get_count().map_err(unavailable)?;
        if i64::from(ordinal) >= i64::from(count) {
            return Err(KernelError::Unavailable(format!(
                "GPU number {ordinal} of {count}"
            )));
        }
        let device = result::device::get(ordinal as c_int).map_err(unavailable)?;
        let name = result::device::get_name(device).map_err(unavailable)?;
        let attribute = |which| {
            // SAFETY: `device` was returned by the driver.
            unsafe { result::device::get_attribute(device, which) }.map_err(unavailable)
        };
        let capability = (
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let multiprocessors =
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        // SAFETY: `device` was returned by the driver.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(unavailable)?;
        let mut raw = Self {
            name,
            capability,
            multiprocessors: multiprocessors.max(1) as u32,
            device,
            context,
            stream: std::ptr::null_mut(),
        };
        raw.bind()?;
        raw.stream =
            result::stream::create(StreamKind::NonBlocking).map_err(failed("create a stream"))?;
        Ok(raw)
    }

    /// The CUDA version that the driver supports.
    pub(super) fn version(&self) -> String {
        let mut version = 0;
        // SAFETY: writes one integer to a live variable.
        let status = unsafe { sys::cuDriverGetVersion(&raw mut version) };
        match status.result() {
            Ok(()) => dotted(version),
            Err(_) => "unknown".into(),
        }
    }

    /// An attribute of the device, 0 where the driver does not know it.
    pub(super) fn attribute(&self, which: CUdevice_attribute) -> u32 {
        // SAFETY: `device` was returned by the driver.
        let value = unsafe { result::device::get_attribute(self.device, which) };
        value.map_or(0, |value| value.max(0) as u32)
    }

    /// Bytes that are free, and all.
    pub(super) fn memory(&self) -> Result<(usize, usize)> {
        self.bind()?;
        result::mem_get_info().map_err(failed("ask for the memory"))
    }

    /// The stream, for libraries that work on it.
    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    /// Makes the context the calling thread's.
    pub(super) fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained until `self` is dropped.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("use the GPU"))
    }

    pub(super) fn alloc(&self, bytes: usize) -> Result<u64> {
        self.bind()?;
        // SAFETY: allocates; reading what was never written is the caller's concern, and cannot
        // break the host.
        match unsafe { result::malloc_sync(bytes) } {
            Ok(address) => Ok(address),
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                Err(KernelError::OutOfMemory { bytes })
            }
            Err(error) => Err(failed("allocate memory")(error)),
        }
    }

    pub(super) fn free(&self, address: u64) -> Result<()> {
        self.bind()?;
        // SAFETY: the pool frees each block once; the call waits for kernels that use it.
        unsafe { result::free_sync(address) }.map_err(failed("free memory"))
    }

    pub(super) fn upload(&self, address: u64, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the caller's block has room; pageable memory is staged before the call returns,
        // so `data` need not outlive it.
        unsafe { result::memcpy_htod_async(address, data, self.stream) }
            .map_err(failed("copy to the GPU"))
    }

    pub(super) fn download(&self, address: u64, out: &mut [u8]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the caller's block has that many bytes; `out` lives until the wait below.
        unsafe { result::memcpy_dtoh_async(out, address, self.stream) }
            .map_err(failed("copy from the GPU"))?;
        self.synchronise()
    }

    pub(super) fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: both ranges lie in the caller's blocks.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }
            .map_err(failed("copy on the GPU"))
    }

    pub(super) fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the range lies in the caller's block.
        unsafe { result::memset_d8_async(address, 0, bytes, self.stream) }
            .map_err(failed("clear memory"))
    }

    pub(super) fn load(&self, file: &'static PtxFile) -> Result<Module> {
        self.bind()?;
        let text = CString::new(file.text).map_err(|error| KernelError::Driver {
            action: format!("load {}", file.name),
            message: error.to_string(),
        })?;
        // SAFETY: a text that ends with a zero byte.
        match unsafe { result::module::load_data(text.as_ptr().cast()) } {
            Ok(module) => Ok(Module(module)),
            Err(DriverError(CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION)) => {
                Err(KernelError::PtxVersion {
                    file: file.name,
                    ptx: file.version().to_owned(),
                    driver: self.version(),
                })
            }
            Err(error) => Err(failed(format!("load {}", file.name))(error)),
        }
    }

    pub(super) fn function(&self, module: Module, entry: &'static str) -> Result<Function> {
        self.bind()?;
        let name = CString::new(entry).map_err(|error| KernelError::Driver {
            action: format!("find {entry}"),
            message: error.to_string(),
        })?;
        // SAFETY: modules are never unloaded before the context goes.
        unsafe { result::module::get_function(module.0, name) }
            .map(Function)
            .map_err(failed(format!("find {entry}")))
    }

    pub(super) fn launch(&self, function: Function, launch: &Launch<'_>) -> Result<()> {
        self.bind()?;
        let mut pointers = [std::ptr::null_mut::<c_void>(); Args::MOST];
        for (pointer, arg) in pointers.iter_mut().zip(launch.args) {
            // The driver only reads there.
            *pointer = arg.as_ref().as_ptr().cast_mut().cast();
        }
        let count = launch.args.len().min(pointers.len());
        let [gx, gy, gz] = launch.geometry.grid;
        let [bx, by, bz] = launch.geometry.block;
        let shared = launch.geometry.dynamic_shared;
        // SAFETY: the parameters are those of the entry (tests compare every contract with its
        // text), are copied before the call returns, and name memory that the contract checked.
        unsafe {
            result::launch_kernel(
                function.0,
                (gx, gy, gz),
                (bx, by, bz),
                shared,
                self.stream,
                &mut pointers[..count],
            )
        }
        .map_err(failed(format!("launch {}", launch.entry)))
    }

    pub(super) fn synchronise(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed("wait for the GPU"))
    }

    pub(super) fn begin_capture(&self) -> Result<()> {
        self.bind()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::begin_capture(self.stream, mode) }
            .map_err(failed("record launches"))
    }

    pub(super) fn end_capture(&self) -> Result<Graph> {
        self.bind()?;
        // SAFETY: the stream lives as long as `self`.
        let graph = unsafe { result::stream::end_capture(self.stream) }
            .map_err(failed("record launches"))?;
        // SAFETY: the graph was just returned by the driver.
        let executable =
            unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) }
                .map_err(failed("prepare recorded launches"));
        // SAFETY: the graph is not used again; an executable graph is a copy of it.
        let destroyed = unsafe { result::graph::destroy(graph) };
        destroyed.map_err(failed("forget a recording"))?;
        executable.map(Graph)
    }

    pub(super) fn replay(&self, graph: &Graph) -> Result<()> {
        self.bind()?;
        // SAFETY: both live; what the launches touch is the caller's to keep alive.
        unsafe { result::graph::launch(graph.0, self.stream) }
            .map_err(failed("run recorded launches"))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if self.bind().is_ok() && !self.stream.is_null() {
            // SAFETY: nothing uses the stream after its owner.
            let _ = unsafe { result::stream::destroy(self.stream) };
        }
        // SAFETY: retained once in `open`, released once here.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: nothing uses the graph after its owner.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}
