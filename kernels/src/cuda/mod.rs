//! A real GPU as a driver.

mod blas;
mod facts;
mod raw;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use self::blas::Blas;
use self::raw::{Function, Module, Raw};
use crate::driver::{Driver, GemmCall, Launch};
use crate::error::{KernelError, Result};
use crate::ptx::PtxFile;

pub use self::facts::Facts;
pub use self::raw::Graph;

/// How matrix products of float32 are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// float32 throughout.
    #[default]
    Full,
    /// Inputs rounded to TF32 (10 bits of mantissa) on tensor cores.
    Tf32,
}

/// What has been loaded of the kernels' texts.
#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, Module>,
    functions: HashMap<&'static str, Function>,
}

struct Shared {
    // Dropped in this order: what lives in the context before the context.
    blas: Option<Blas>,
    loaded: Mutex<Loaded>,
    raw: Raw,
}

/// An NVIDIA GPU, through the driver's own library; nothing else need be installed. Products use
/// cuBLAS where it is found.
#[derive(Clone)]
pub struct CudaDriver {
    shared: Arc<Shared>,
}

impl fmt::Debug for CudaDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaDriver({})", self.describe())
    }
}

impl CudaDriver {
    /// The GPU of this number.
    ///
    /// # Errors
    /// [`KernelError::Unavailable`] where there is no driver, no such GPU, or one before compute
    /// capability 8.0, which the kernels are written for.
    pub fn open(ordinal: u32, precision: Precision) -> Result<Self> {
        let raw = Raw::open(ordinal)?;
        let (major, minor) = raw.capability;
        if major < 8 {
            return Err(KernelError::Unavailable(format!(
                "{} has compute capability {major}.{minor}, the kernels need 8.0",
                raw.name
            )));
        }
        let blas = Blas::open(&raw, precision);
        Ok(Self {
            shared: Arc::new(Shared {
                blas,
                loaded: Mutex::default(),
                raw,
            }),
        })
    }

    /// Whether cuBLAS was found.
    pub fn has_cublas(&self) -> bool {
        self.shared.blas.is_some()
    }

    /// What computes products.
    fn products(&self) -> String {
        match &self.shared.blas {
            Some(blas) => blas.describe(),
            None => "cuBLAS not found: own matrix product".into(),
        }
    }

    fn function(&self, file: &'static PtxFile, entry: &'static str) -> Result<Function> {
        let shared = &self.shared;
        // Loading cannot leave the maps half-changed.
        let mut loaded = shared.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = loaded.functions.get(entry) {
            return Ok(function);
        }
        let module = match loaded.modules.get(file.name) {
            Some(&module) => module,
            None => {
                let module = shared.raw.load(file)?;
                loaded.modules.insert(file.name, module);
                module
            }
        };
        let function = shared.raw.function(module, entry)?;
        loaded.functions.insert(entry, function);
        Ok(function)
    }
}

impl Driver for CudaDriver {
    type Graph = Graph;

    fn describe(&self) -> String {
        let raw = &self.shared.raw;
        let ((major, minor), driver) = (raw.capability, raw.version());
        let products = self.products();
        format!(
            "cuda ({}, compute capability {major}.{minor}, driver CUDA {driver}, {products})",
            raw.name
        )
    }

    fn multiprocessors(&self) -> u32 {
        self.shared.raw.multiprocessors
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        self.shared.raw.alloc(bytes)
    }

    fn free(&self, address: u64) {
        // A failure here is one of earlier work, which the next call reports as well.
        let _ = self.shared.raw.free(address);
    }

    fn lend(&self, _address: u64, _bytes: usize) {}

    fn upload(&self, address: u64, data: &[u8]) -> Result<()> {
        self.shared.raw.upload(address, data)
    }

    fn download(&self, address: u64, out: &mut [u8]) -> Result<()> {
        self.shared.raw.download(address, out)
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.shared.raw.copy(from, to, bytes)
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        self.shared.raw.zero(address, bytes)
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let function = self.function(launch.file, launch.entry)?;
        self.shared.raw.launch(function, launch)
    }

    fn synchronise(&self) -> Result<()> {
        self.shared.raw.synchronise()
    }

    fn has_gemm(&self) -> bool {
        self.has_cublas()
    }

    fn gemm(&self, call: &GemmCall) -> Result<bool> {
        match &self.shared.blas {
            Some(blas) => blas.gemm(&self.shared.raw, call).map(|()| true),
            None => Ok(false),
        }
    }

    fn begin_capture(&self) -> Result<bool> {
        self.shared.raw.begin_capture().map(|()| true)
    }

    fn end_capture(&self) -> Result<Graph> {
        self.shared.raw.end_capture()
    }

    fn replay(&self, graph: &Graph) -> Result<()> {
        self.shared.raw.replay(graph)
    }
}
