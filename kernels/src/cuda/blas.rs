//! cuBLAS, found by name at run time: it is not part of a driver, and the newest installed version
//! serves. Only four functions are used, whose C signatures have not changed since version 11 (cuBLAS
//! documentation, "cuBLAS Helper Function Reference" and "cublasGemmEx").

use std::ffi::{c_int, c_void};

use libloading::{Library, Symbol};

use super::Precision;
use super::raw::Raw;
use crate::driver::GemmCall;
use crate::error::{KernelError, Result};

type Handle = *mut c_void;
type Create = unsafe extern "C" fn(*mut Handle) -> c_int;
type Destroy = unsafe extern "C" fn(Handle) -> c_int;
type SetStream = unsafe extern "C" fn(Handle, *mut c_void) -> c_int;
type GemmEx = unsafe extern "C" fn(
    Handle,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    *const c_void,
    *const c_void,
    c_int,
    c_int,
    *const c_void,
    c_int,
    c_int,
    *const c_void,
    *mut c_void,
    c_int,
    c_int,
    c_int,
    c_int,
) -> c_int;

/// `CUDA_R_32F`.
const FLOAT32: c_int = 0;
/// `CUDA_R_16BF`.
const BFLOAT16: c_int = 14;
/// `CUBLAS_COMPUTE_32F`.
const COMPUTE_FLOAT32: c_int = 68;
/// `CUBLAS_COMPUTE_32F_FAST_TF32`: operands of float32 are rounded first.
const COMPUTE_TF32: c_int = 77;
/// `CUBLAS_GEMM_DEFAULT`.
const DEFAULT_ALGORITHM: c_int = -1;

/// Newest first; the plain name is what a development package installs.
#[cfg(not(windows))]
const NAMES: &[&str] = &[
    "libcublas.so.13",
    "libcublas.so.12",
    "libcublas.so.11",
    "libcublas.so",
];
#[cfg(windows)]
const NAMES: &[&str] = &["cublas64_13.dll", "cublas64_12.dll", "cublas64_11.dll"];

/// A handle that works on the driver's stream.
pub(super) struct Blas {
    handle: Handle,
    gemm: GemmEx,
    destroy: Destroy,
    name: &'static str,
    precision: Precision,
    /// Keeps the functions loaded.
    _library: Library,
}

// SAFETY: a handle may be used from any thread; calls on one stream are in order, and the host side
// of a call is guarded by the library (cuBLAS documentation, "Thread Safety").
unsafe impl Send for Blas {}
// SAFETY: as for Send.
unsafe impl Sync for Blas {}

impl Blas {
    /// cuBLAS, or nothing where it is missing or will not start.
    pub(super) fn open(raw: &Raw, precision: Precision) -> Option<Self> {
        raw.bind().ok()?;
        NAMES
            .iter()
            .find_map(|name| Self::load(name, raw, precision))
    }

    fn load(name: &'static str, raw: &Raw, precision: Precision) -> Option<Self> {
        // SAFETY: loads a library whose initialisers are trusted as the system's.
        let library = unsafe { Library::new(name) }.ok()?;
        // SAFETY: the type is the documented signature.
        let create: Symbol<'_, Create> = unsafe { library.get(b"cublasCreate_v2") }.ok()?;
        // SAFETY: the type is the documented signature.
        let destroy: Symbol<'_, Destroy> = unsafe { library.get(b"cublasDestroy_v2") }.ok()?;
        // SAFETY: the type is the documented signature.
        let stream: Symbol<'_, SetStream> = unsafe { library.get(b"cublasSetStream_v2") }.ok()?;
        // SAFETY: the type is the documented signature.
        let gemm: Symbol<'_, GemmEx> = unsafe { library.get(b"cublasGemmEx") }.ok()?;
        let (create, destroy, stream, gemm) = (*create, *destroy, *stream, *gemm);
        let mut handle: Handle = std::ptr::null_mut();
        // SAFETY: a context is current; writes one pointer to a live variable.
        if unsafe { create(&raw mut handle) } != 0 {
            return None;
        }
        let blas = Self {
            handle,
            gemm,
            destroy,
            name,
            precision,
            _library: library,
        };
        // SAFETY: the handle was just made; the stream outlives it.
        let streamed = unsafe { stream(blas.handle, raw.stream().cast()) };
        (streamed == 0).then_some(blas)
    }

    pub(super) fn describe(&self) -> String {
        let precision = match self.precision {
            Precision::Full => "float32",
            Precision::Tf32 => "TF32",
        };
        format!("{} in {precision}", self.name)
    }

    /// The product. cuBLAS is column-major, in which a row-major matrix is its transpose: what is
    /// asked for is `c^T = op(b)^T op(a)^T`.
    pub(super) fn gemm(&self, raw: &Raw, call: &GemmCall) -> Result<()> {
        raw.bind()?;
        let operation = |transpose: bool| c_int::from(transpose);
        let (one, beta) = (1.0f32, call.beta);
        let (operands, compute) = match (call.bf16, self.precision) {
            (true, _) => (BFLOAT16, COMPUTE_FLOAT32),
            (false, Precision::Full) => (FLOAT32, COMPUTE_FLOAT32),
            (false, Precision::Tf32) => (FLOAT32, COMPUTE_TF32),
        };
        // SAFETY: the matrices lie in the caller's blocks (their layouts were checked against
        // them); the two factors are read before the call returns (host pointer mode, the default).
        let status = unsafe {
            (self.gemm)(
                self.handle,
                operation(call.transpose_b),
                operation(call.transpose_a),
                call.n as c_int,
                call.m as c_int,
                call.k as c_int,
                (&raw const one).cast(),
                call.b as *const c_void,
                operands,
                call.ldb as c_int,
                call.a as *const c_void,
                operands,
                call.lda as c_int,
                (&raw const beta).cast(),
                call.c as *mut c_void,
                FLOAT32,
                call.ldc as c_int,
                compute,
                DEFAULT_ALGORITHM,
            )
        };
        if status == 0 {
            return Ok(());
        }
        Err(KernelError::Driver {
            action: format!(
                "multiply {} x {} by {} x {}",
                call.m, call.k, call.k, call.n
            ),
            message: format!("cuBLAS status {status}"),
        })
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: nothing uses the handle after its owner.
        let _ = unsafe { (self.destroy)(self.handle) };
    }
}
