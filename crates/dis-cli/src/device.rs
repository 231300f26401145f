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
    if args.threads == Some(0) {
        bail!("--threads must be at least 1");
    }
    if let Some(warning) = &dis_tensor::simd::selection().warning {
        eprintln!("warning: {warning}");
    }
    // A pool of its own, which `install` enters once instead of at every operation. 0: all cores.
    let cpu = Cpu::with_threads(args.threads.unwrap_or(0))
        .context("--threads: cannot start the threads")?;
    eprintln!("device: {}", cpu.describe());
    Ok(cpu)
}
