//! Picks the device, once.

use anyhow::{Context, Result, bail};
use dis_tensor::{Backend, Cpu};

use crate::args::{DeviceArgs, DeviceKind};

/// The backend to use; says which on stderr.
pub fn open(args: &DeviceArgs) -> Result<Cpu> {
    match args.device {
        DeviceKind::Auto | DeviceKind::Cpu => {}
        DeviceKind::Cuda => {
            bail!("--device cuda: this build has no CUDA backend; use --device cpu")
        }
        DeviceKind::Sim => bail!("--device sim: this build has no GPU simulator; use --device cpu"),
    }
    if let Some(threads) = args.threads {
        if threads == 0 {
            bail!("--threads must be at least 1");
        }
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("--threads: cannot start the threads")?;
    }
    if let Some(warning) = &dis_tensor::simd::selection().warning {
        eprintln!("warning: {warning}");
    }
    let cpu = Cpu::new();
    eprintln!("device: {}", cpu.describe());
    Ok(cpu)
}
