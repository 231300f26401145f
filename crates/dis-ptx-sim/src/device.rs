//! Memory and launches.

use crate::{Counters, Coverage, Fault, FaultKind, MemoryError, Module, Options};

/// Size of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Bytes of `.extern .shared` memory.
    pub dynamic_shared: u32,
}

/// A simulated device.
#[derive(Debug)]
pub struct Device {
    options: Options,
}

impl Device {
    /// A device without allocations.
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    /// How the device behaves.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Changes how the device behaves from now on.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Allocates; the contents count as never written. The address is a multiple of 256.
    pub fn alloc(&mut self, bytes: usize) -> u64 {
        let _ = bytes;
        0
    }

    /// Frees an allocation; its addresses are never used again.
    pub fn free(&mut self, ptr: u64) -> Result<(), MemoryError> {
        Err(MemoryError::NotAnAllocation { ptr })
    }

    /// Declares that a range counts as never written from now on.
    pub fn mark_uninitialised(&mut self, ptr: u64, bytes: usize) -> Result<(), MemoryError> {
        Err(MemoryError::OutOfBounds { ptr, bytes })
    }

    /// Copies from the host.
    pub fn write(&mut self, ptr: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        Err(MemoryError::OutOfBounds {
            ptr,
            bytes: bytes.len(),
        })
    }

    /// Copies to the host; with checks, every byte must have been written.
    pub fn read(&self, ptr: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        Err(MemoryError::OutOfBounds {
            ptr,
            bytes: bytes.len(),
        })
    }

    /// Copies to the host without asking whether anything was written; what was not is zero.
    pub fn read_lossy(&self, ptr: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        Err(MemoryError::OutOfBounds {
            ptr,
            bytes: bytes.len(),
        })
    }

    /// Sets each byte of a range.
    pub fn fill(&mut self, ptr: u64, value: u8, bytes: usize) -> Result<(), MemoryError> {
        let _ = value;
        Err(MemoryError::OutOfBounds { ptr, bytes })
    }

    /// Copies within the device; what was never written stays so.
    pub fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), MemoryError> {
        let _ = to;
        Err(MemoryError::OutOfBounds { ptr: from, bytes })
    }

    /// Runs an entry to its end. `args` has the bytes of each parameter, little-endian.
    pub fn launch(
        &mut self,
        module: &Module,
        entry: &str,
        launch: Launch,
        args: &[Vec<u8>],
    ) -> Result<Counters, Fault> {
        let _ = (launch, args);
        Err(Fault {
            kind: FaultKind::Launch,
            file: module.file.clone(),
            line: 1,
            instruction: entry.into(),
            block: [0; 3],
            thread: [0; 3],
            message: "the simulator is not there yet".into(),
        })
    }

    /// Sum of the counters of all launches so far.
    pub fn totals(&self) -> Counters {
        Counters::default()
    }

    /// Which lines of a text this device executed.
    pub fn coverage(&self, module: &Module) -> Coverage {
        Coverage {
            file: module.file.clone(),
            lines: Vec::new(),
        }
    }
}
