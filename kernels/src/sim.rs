//! The simulator as a driver: kernels run on the CPU, at once, and every memory access is checked.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dis_ptx_sim as ptx;
pub use dis_ptx_sim::{Approx, Counters, Coverage, Options, Order};

use crate::driver::{Driver, GemmCall, Launch};
use crate::error::{KernelError, Result};
use crate::ptx::PtxFile;

struct State {
    device: ptx::Device,
    modules: HashMap<&'static str, Arc<ptx::Module>>,
    replaced: HashMap<&'static str, Arc<str>>,
    counters: BTreeMap<&'static str, Counters>,
    multiprocessors: u32,
}

/// A simulated GPU.
#[derive(Clone)]
pub struct Sim {
    state: Arc<Mutex<State>>,
    host_gemm: bool,
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sim({:?})", self.lock().device.options())
    }
}

fn fault(error: impl fmt::Display) -> KernelError {
    KernelError::Fault(error.to_string())
}

impl Sim {
    /// A device without memory in use.
    pub fn new(options: Options) -> Self {
        let state = State {
            device: ptx::Device::new(options),
            modules: HashMap::new(),
            replaced: HashMap::new(),
            counters: BTreeMap::new(),
            multiprocessors: 132,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            host_gemm: true,
        }
    }

    /// The same device, whose matrix products are computed on the host (the default, for speed)
    /// or by the PTX kernel.
    pub fn with_host_gemm(mut self, host_gemm: bool) -> Self {
        self.host_gemm = host_gemm;
        self
    }

    /// The same device with other texts in place of these, by file name.
    pub fn with_texts(self, texts: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let mut state = self.lock();
        for (name, text) in texts {
            state.replaced.insert(name, text.into());
            state.modules.remove(name);
        }
        drop(state);
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in the simulator leaves memory as the kernel had it, which is still memory.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes checks, approximations or order from now on.
    pub fn set_options(&self, options: Options) {
        self.lock().device.set_options(options);
    }

    /// Says how many multiprocessors the device has: it computes the same, but launches divide
    /// their work accordingly.
    pub fn set_multiprocessors(&self, count: u32) {
        self.lock().multiprocessors = count;
    }

    /// What each entry has cost so far.
    pub fn counters(&self) -> BTreeMap<&'static str, Counters> {
        self.lock().counters.clone()
    }

    /// Which lines of a text have been executed; nothing where it was never launched.
    pub fn coverage(&self, file: &PtxFile) -> Option<Coverage> {
        let state = self.lock();
        let module = state.modules.get(file.name)?;
        Some(state.device.coverage(module))
    }

    /// The decoded text.
    pub fn module(&self, file: &'static PtxFile) -> Result<Arc<ptx::Module>> {
        let mut state = self.lock();
        if let Some(module) = state.modules.get(file.name) {
            return Ok(Arc::clone(module));
        }
        let module = match state.replaced.get(file.name) {
            Some(text) => ptx::Module::parse(file.name, text),
            None => ptx::Module::parse(file.name, file.text),
        };
        let module = Arc::new(module.map_err(fault)?);
        state.modules.insert(file.name, Arc::clone(&module));
        Ok(module)
    }
}

/// A matrix on the host, read or written row by row.
fn read_rows(
    device: &ptx::Device,
    address: u64,
    rows: u32,
    columns: u32,
    stride: u32,
) -> Result<Vec<f32>> {
    let mut data = vec![0.0f32; rows as usize * columns as usize];
    if columns > 0 {
        for (r, row) in data.chunks_exact_mut(columns as usize).enumerate() {
            let place = address + 4 * r as u64 * u64::from(stride);
            device
                .read(place, bytemuck::cast_slice_mut(row))
                .map_err(fault)?;
        }
    }
    Ok(data)
}

/// The transpose of a `rows` x `columns` matrix.
fn transposed(data: &[f32], rows: u32, columns: u32) -> Vec<f32> {
    let (rows, columns) = (rows as usize, columns as usize);
    let mut out = vec![0.0; data.len()];
    for r in 0..rows {
        for c in 0..columns {
            out[c * rows + r] = data[r * columns + c];
        }
    }
    out
}

fn host_gemm(device: &mut ptx::Device, call: &GemmCall) -> Result<()> {
    let GemmCall { m, n, k, .. } = *call;
    let a = if call.transpose_a {
        transposed(&read_rows(device, call.a, k, m, call.lda)?, k, m)
    } else {
        read_rows(device, call.a, m, k, call.lda)?
    };
    let b = if call.transpose_b {
        transposed(&read_rows(device, call.b, n, k, call.ldb)?, n, k)
    } else {
        read_rows(device, call.b, k, n, call.ldb)?
    };
    let old = if call.beta == 0.0 {
        None
    } else {
        Some(read_rows(device, call.c, m, n, call.ldc)?)
    };
    let (n, k) = (n as usize, k as usize);
    let mut row = vec![0.0f32; n];
    for i in 0..m as usize {
        row.fill(0.0);
        for p in 0..k {
            let factor = a[i * k + p];
            for (out, x) in row.iter_mut().zip(&b[p * n..]) {
                *out += factor * x;
            }
        }
        if let Some(old) = &old {
            for (out, x) in row.iter_mut().zip(&old[i * n..]) {
                *out += call.beta * x;
            }
        }
        let place = call.c + 4 * i as u64 * u64::from(call.ldc);
        device
            .write(place, bytemuck::cast_slice(&row))
            .map_err(fault)?;
    }
    Ok(())
}

impl Driver for Sim {
    type Graph = std::convert::Infallible;

    fn describe(&self) -> String {
        let options = self.lock().device.options();
        let checks = if options.checks { "on" } else { "off" };
        format!("PTX simulator, checks {checks}")
    }

    fn multiprocessors(&self) -> u32 {
        self.lock().multiprocessors
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        Ok(self.lock().device.alloc(bytes))
    }

    fn free(&self, address: u64) {
        // Only blocks of a pool are freed, each once, so there is no failure to report.
        let _ = self.lock().device.free(address);
    }

    fn mark_uninitialised(&self, address: u64, bytes: usize) {
        let _ = self.lock().device.mark_uninitialised(address, bytes);
    }

    fn upload(&self, address: u64, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.lock().device.write(address, data).map_err(fault)
    }

    fn download(&self, address: u64, out: &mut [u8]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        self.lock().device.read(address, out).map_err(fault)
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.lock().device.copy(to, from, bytes).map_err(fault)
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.lock().device.fill(address, 0, bytes).map_err(fault)
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let module = self.module(launch.file)?;
        let geometry = launch.geometry;
        let size = ptx::Launch {
            grid: geometry.grid,
            block: geometry.block,
            dynamic_shared: geometry.dynamic_shared,
        };
        let mut state = self.lock();
        let counters = state
            .device
            .launch(&module, launch.entry, size, launch.args)
            .map_err(fault)?;
        *state.counters.entry(launch.entry).or_default() += counters;
        Ok(())
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }

    fn has_gemm(&self) -> bool {
        self.host_gemm
    }

    fn gemm(&self, call: &GemmCall) -> Result<bool> {
        if self.host_gemm {
            host_gemm(&mut self.lock().device, call)?;
        }
        Ok(self.host_gemm)
    }

    fn begin_capture(&self) -> Result<bool> {
        Ok(false)
    }

    fn end_capture(&self) -> Result<Self::Graph> {
        Err(KernelError::Driver {
            action: "end a capture".into(),
            message: "the simulator does not record".into(),
        })
    }

    fn replay(&self, graph: &Self::Graph) -> Result<()> {
        match *graph {}
    }
}
