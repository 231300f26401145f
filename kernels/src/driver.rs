//! What executes kernels.

use std::fmt;

use crate::contract::{Arg, Geometry};
use crate::error::Result;
use crate::ptx::PtxFile;

/// A launch as a driver sees it: already checked by its contract.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The text.
    pub file: &'static PtxFile,
    /// The entry point.
    pub entry: &'static str,
    /// Grid, block and dynamic shared memory.
    pub geometry: Geometry,
    /// One for each parameter.
    pub args: &'a [Arg],
}

/// A matrix product in row-major terms: `c (m x n) = op(a) (m x k) op(b) (k x n) + beta c`.
#[derive(Clone, Copy, Debug)]
pub struct GemmCall {
    /// Rows of c.
    pub m: u32,
    /// Columns of c.
    pub n: u32,
    /// Inner extent.
    pub k: u32,
    /// Address of a.
    pub a: u64,
    /// Elements between rows of a as stored.
    pub lda: u32,
    /// Whether a is stored transposed.
    pub transpose_a: bool,
    /// Address of b.
    pub b: u64,
    /// Elements between rows of b as stored.
    pub ldb: u32,
    /// Whether b is stored transposed.
    pub transpose_b: bool,
    /// Address of c.
    pub c: u64,
    /// Elements between rows of c.
    pub ldc: u32,
    /// 0 to overwrite c, 1 to add to it.
    pub beta: f32,
    /// Whether a and b are bfloat16 in memory instead of float32. Sums and c are float32.
    pub bf16: bool,
}

/// A device: memory, transfers and launches, all in the order of one stream.
///
/// Clones are handles of the same device and stream.
pub trait Driver: Clone + fmt::Debug + Send + Sync + 'static {
    /// A sequence of launches that can be repeated.
    type Graph: Send + Sync + 'static;

    /// What runs, such as `cuda (NVIDIA H100, CUDA 12.8)`.
    fn describe(&self) -> String;

    /// Multiprocessors, by which launches choose how finely to divide their work.
    fn multiprocessors(&self) -> u32;

    /// New memory, 256-aligned, of unspecified contents.
    ///
    /// # Errors
    /// If the device has no memory left, or fails.
    fn alloc(&self, bytes: usize) -> Result<u64>;
    /// Returns memory from [`Driver::alloc`], once everything before in the stream has run.
    fn free(&self, address: u64);
    /// Says that the first `bytes` bytes of memory from [`Driver::alloc`] have a new user: what lies
    /// there is stale, and the rest belongs to nobody. A checking driver reports reads before the next
    /// write, and accesses to the rest.
    fn lend(&self, address: u64, bytes: usize);

    /// Copies host bytes to the device, in stream order; `data` may change after the return.
    ///
    /// # Errors
    /// If the range is not inside an allocation, or the device fails.
    fn upload(&self, address: u64, data: &[u8]) -> Result<()>;
    /// Copies device bytes to the host, after everything before; waits for that.
    ///
    /// # Errors
    /// If the range is not inside an allocation, or something that was asked for before failed.
    fn download(&self, address: u64, out: &mut [u8]) -> Result<()>;
    /// Copies on the device, in stream order.
    ///
    /// # Errors
    /// If a range is not inside an allocation, or the device fails.
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()>;
    /// Sets bytes to zero, in stream order.
    ///
    /// # Errors
    /// If the range is not inside an allocation, or the device fails.
    fn zero(&self, address: u64, bytes: usize) -> Result<()>;

    /// Launches a kernel; the text is loaded at its first use.
    ///
    /// # Errors
    /// If the text cannot be loaded or the launch is refused; on a checking driver, if the kernel
    /// is at fault.
    fn launch(&self, launch: &Launch<'_>) -> Result<()>;
    /// Waits for everything so far.
    ///
    /// # Errors
    /// If something that was asked for before failed.
    fn synchronise(&self) -> Result<()>;

    /// Whether the driver has a matrix product of its own, such as the vendor's library.
    fn has_gemm(&self) -> bool;
    /// That product; `false` (and nothing done) where there is none.
    ///
    /// # Errors
    /// If the device or its library fails.
    fn gemm(&self, call: &GemmCall) -> Result<bool>;

    /// Begins recording what is asked for instead of doing it; `false` where that cannot be done.
    /// Until the end, memory must not be allocated, and nothing may go from or to the host: what a
    /// host's memory holds is not recorded.
    ///
    /// # Errors
    /// If the device fails.
    fn begin_capture(&self) -> Result<bool>;
    /// Ends recording.
    ///
    /// # Errors
    /// If nothing is being recorded, or the device fails.
    fn end_capture(&self) -> Result<Self::Graph>;
    /// Does what was recorded, in stream order.
    ///
    /// # Errors
    /// If the device fails.
    fn replay(&self, graph: &Self::Graph) -> Result<()>;
}
