//! The simulator as a driver: kernels run on the CPU, at once, and every memory access is checked.

mod gemm;
mod record;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dis_ptx_sim as ptx;
pub use dis_ptx_sim::{Approx, Counters, Coverage, Options, Order};

use self::record::Op;
pub use self::record::Recording;
use crate::driver::{Driver, GemmCall, Launch};
use crate::error::{KernelError, Result};
use crate::ptx::PtxFile;

/// What a device has been asked to do so far, beside what kernels cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Blocks of memory allocated.
    pub allocations: u64,
    /// Copies from the host, which do not wait.
    pub uploads: u64,
    /// Copies to the host, each of which waits for the device.
    pub downloads: u64,
    /// Waits for the device without a copy.
    pub synchronisations: u64,
    /// Of both those that had work to wait for, queued since the one before.
    pub waits: u64,
    /// Kernels and products launched by the host, those in recordings not counted.
    pub launches: u64,
    /// Recordings repeated.
    pub replays: u64,
}

struct State {
    device: ptx::Device,
    traffic: Traffic,
    /// Whether work was queued since the host last waited.
    busy: bool,
    /// What is being recorded, if anything is.
    recording: Option<Vec<Op>>,
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
            traffic: Traffic::default(),
            busy: false,
            recording: None,
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

    /// What the host has asked for so far.
    pub fn traffic(&self) -> Traffic {
        self.lock().traffic
    }

    /// Says that a range counts as never written.
    pub fn mark_uninitialised(&self, address: u64, bytes: usize) {
        let _ = self.lock().device.mark_uninitialised(address, bytes);
    }

    /// What each entry has cost so far.
    pub fn counters(&self) -> BTreeMap<&'static str, Counters> {
        self.lock().counters.clone()
    }

    /// The same, counting anew from here.
    pub fn take_counters(&self) -> BTreeMap<&'static str, Counters> {
        std::mem::take(&mut self.lock().counters)
    }

    /// Which lines of a text have been executed; nothing where it was never launched.
    pub fn coverage(&self, file: &PtxFile) -> Option<Coverage> {
        let state = self.lock();
        let module = state.modules.get(file.name)?;
        Some(state.device.coverage(module))
    }

    /// The decoded text.
    ///
    /// # Errors
    /// If the text is not PTX that the simulator takes.
    pub fn module(&self, file: &'static PtxFile) -> Result<Arc<ptx::Module>> {
        self.lock().module(file)
    }
}

impl State {
    fn module(&mut self, file: &'static PtxFile) -> Result<Arc<ptx::Module>> {
        if let Some(module) = self.modules.get(file.name) {
            return Ok(Arc::clone(module));
        }
        let module = match self.replaced.get(file.name) {
            Some(text) => ptx::Module::parse(file.name, text),
            None => ptx::Module::parse(file.name, file.text),
        };
        let module = Arc::new(module.map_err(fault)?);
        self.modules.insert(file.name, Arc::clone(&module));
        Ok(module)
    }
}

impl Driver for Sim {
    type Graph = Recording;

    fn describe(&self) -> String {
        let options = self.lock().device.options();
        let checks = if options.checks { "on" } else { "off" };
        format!("PTX simulator, checks {checks}")
    }

    fn multiprocessors(&self) -> u32 {
        self.lock().multiprocessors
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        let mut state = self.lock();
        state.not_recorded("an allocation")?;
        state.traffic.allocations += 1;
        Ok(state.device.alloc(bytes))
    }

    fn free(&self, address: u64) {
        // Only blocks of a pool are freed, each once, so there is no failure to report.
        let _ = self.lock().device.free(address);
    }

    fn lend(&self, address: u64, bytes: usize) {
        // What fails here is found by the first access.
        let _ = self.lock().submit(Op::Lend { address, bytes });
    }

    fn upload(&self, address: u64, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        state.not_recorded("a copy from the host")?;
        state.traffic.uploads += 1;
        state.device.write(address, data).map_err(fault)
    }

    fn download(&self, address: u64, out: &mut [u8]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        state.not_recorded("a copy to the host")?;
        state.traffic.downloads += 1;
        state.waited();
        state.device.read(address, out).map_err(fault)
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.lock().submit(Op::Copy { from, to, bytes })
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.lock().submit(Op::Zero { address, bytes })
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        self.lock().submit_launch(launch)
    }

    fn synchronise(&self) -> Result<()> {
        let mut state = self.lock();
        state.not_recorded("a wait")?;
        state.traffic.synchronisations += 1;
        state.waited();
        Ok(())
    }

    fn has_gemm(&self) -> bool {
        self.host_gemm
    }

    fn gemm(&self, call: &GemmCall) -> Result<bool> {
        if self.host_gemm {
            let mut state = self.lock();
            state.traffic.launches += u64::from(state.recording.is_none());
            state.submit(Op::Gemm(*call))?;
        }
        Ok(self.host_gemm)
    }

    fn begin_capture(&self) -> Result<bool> {
        self.lock().begin()
    }

    fn end_capture(&self) -> Result<Recording> {
        self.lock().end()
    }

    fn replay(&self, graph: &Recording) -> Result<()> {
        self.lock().replay(graph)
    }
}
