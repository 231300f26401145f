//! What a GPU is, for reports.

use cudarc::driver::sys::CUdevice_attribute as Attribute;

use super::CudaDriver;
use crate::error::Result;

/// A GPU and its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Product name.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// The CUDA version that the driver supports.
    pub cuda: String,
    /// How products are computed.
    pub products: String,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Highest clock of the multiprocessors, in kHz.
    pub clock_khz: u32,
    /// Highest clock of the memory, in kHz.
    pub memory_clock_khz: u32,
    /// Width of the memory's bus, in bits.
    pub bus_bits: u32,
    /// Second-level cache, in bytes.
    pub cache_bytes: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// How much of it is free.
    pub free_bytes: u64,
}

impl CudaDriver {
    /// What the GPU is.
    ///
    /// # Errors
    /// If the driver does not tell its memory.
    pub fn facts(&self) -> Result<Facts> {
        let raw = &self.shared.raw;
        let (free, all) = raw.memory()?;
        Ok(Facts {
            name: raw.name.clone(),
            capability: raw.capability,
            cuda: raw.version(),
            products: self.products(),
            multiprocessors: raw.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
            clock_khz: raw.attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
            memory_clock_khz: raw.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE),
            bus_bits: raw.attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH),
            cache_bytes: raw.attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE),
            memory_bytes: all as u64,
            free_bytes: free as u64,
        })
    }
}
