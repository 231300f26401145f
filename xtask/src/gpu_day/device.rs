//! The device of the day, and what is known of it.

use anyhow::Result;
use clap::ValueEnum;
use dis_kernels::Driver;
use dis_kernels::sim::{Options, Sim};
use serde_json::json;

use super::section::{Section, Table};

/// What the day is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// An NVIDIA GPU.
    Cuda,
    /// The simulator, to try the task itself: its times mean nothing.
    Sim,
}

/// What reports and bounds need of a device.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Name, for files.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Their clock, in kHz.
    pub clock_khz: u32,
    /// Bytes that can be used.
    pub free_bytes: u64,
    /// Everything, in words.
    pub lines: Vec<(&'static str, String)>,
}

impl Facts {
    /// Fused multiply-adds a clock and multiprocessor (CUDA C++ Programming Guide, "Arithmetic
    /// Instructions", throughput of native instructions).
    pub fn fma_a_clock(&self) -> f64 {
        if self.capability == (8, 0) {
            64.0
        } else {
            128.0
        }
    }

    /// Clocks of all multiprocessors in a second.
    pub fn clocks(&self) -> f64 {
        f64::from(self.multiprocessors) * f64::from(self.clock_khz) * 1e3
    }

    /// The first step of the day.
    pub fn section(&self) -> Section {
        let mut table = Table::new(&["what", "value"]);
        for (what, value) in &self.lines {
            table.push([(*what).to_string(), value.clone()]);
        }
        let data = self.lines.iter().map(|(k, v)| ((*k).into(), json!(v)));
        Section {
            tables: vec![table],
            data: serde_json::Value::Object(data.collect()),
            ..Section::default()
        }
    }
}

/// The simulator. For bounds it passes as an H100 (SXM), whose sizes are those of docs/kernels.md.
pub fn open_sim() -> (Sim, Facts) {
    let sim = Sim::new(Options::default());
    let lines = vec![
        ("name", sim.describe()),
        ("bounds", "as of an H100 (SXM), nominal".into()),
    ];
    let facts = Facts {
        name: "sim".into(),
        capability: (9, 0),
        multiprocessors: 132,
        clock_khz: 1_755_000,
        free_bytes: 4 << 30,
        lines,
    };
    (sim, facts)
}

/// The GPU.
#[cfg(feature = "cuda")]
pub fn open_cuda() -> Result<(dis_kernels::cuda::CudaDriver, Facts)> {
    use dis_kernels::cuda::{CudaDriver, Precision};
    let driver = CudaDriver::open(0, Precision::Full)?;
    let f = driver.facts()?;
    let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
    let (major, minor) = f.capability;
    let mut lines = vec![
        ("name", f.name.clone()),
        ("compute capability", format!("{major}.{minor}")),
        ("CUDA version of the driver", f.cuda.clone()),
        ("products", f.products.clone()),
        ("memory", gib(f.memory_bytes)),
        ("free memory", gib(f.free_bytes)),
        ("multiprocessors", f.multiprocessors.to_string()),
        ("highest clock", format!("{} MHz", f.clock_khz / 1000)),
        (
            "highest memory clock",
            format!("{} MHz", f.memory_clock_khz / 1000),
        ),
        ("memory bus", format!("{} bits", f.bus_bits)),
        ("second-level cache", format!("{} KiB", f.cache_bytes >> 10)),
    ];
    if let Some(version) = kernel_module() {
        lines.push(("driver", version));
    }
    let facts = Facts {
        name: f.name,
        capability: f.capability,
        multiprocessors: f.multiprocessors,
        clock_khz: f.clock_khz,
        free_bytes: f.free_bytes,
        lines,
    };
    Ok((driver, facts))
}

/// What this build says where there can be no GPU.
#[cfg(not(feature = "cuda"))]
pub fn open_cuda() -> Result<(Sim, Facts)> {
    anyhow::bail!(
        "--device cuda: xtask was built without the cargo feature `cuda`; --device sim tries the task itself"
    )
}

/// The first line of what the driver's kernel module says of itself, on Linux.
#[cfg(feature = "cuda")]
fn kernel_module() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let line = text.lines().next()?;
    Some(line.trim_start_matches("NVRM version:").trim().into())
}
