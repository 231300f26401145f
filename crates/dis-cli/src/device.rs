//! Picks the device, once.

use anyhow::{Context, Result, bail, ensure};
use dis_tensor::{Backend, Cpu, Precision};

use crate::args::{DeviceArgs, DeviceKind, PrecisionKind};
use crate::{note, warning};

/// Most threads: no machine has more cores.
const MOST_THREADS: usize = 4096;

/// Evaluates an expression with the backend that models run on.
macro_rules! with_backend {
    ($device:expr, |$backend:ident| $body:expr) => {
        match &$device.model {
            $crate::device::ModelDevice::Cpu => {
                let $backend = &$device.cpu;
                $body
            }
            #[cfg(feature = "cuda")]
            $crate::device::ModelDevice::Cuda($backend) => $body,
            #[cfg(feature = "sim")]
            $crate::device::ModelDevice::Sim($backend) => $body,
        }
    };
}
pub(crate) use with_backend;

/// A processor, and what is to compute on it.
pub struct Device {
    /// The processor: for whatever a GPU has no part in.
    pub cpu: Cpu,
    /// The model's device.
    pub model: ModelDevice,
}

impl Device {
    /// Whether models lie in the processor's memory.
    pub fn on_host(&self) -> bool {
        with_backend!(self, |backend| backend.on_host())
    }

    /// What results depend on, bit for bit: an instruction set, or a device.
    pub fn instruction_set(&self) -> String {
        match &self.model {
            ModelDevice::Cpu => {
                let level = self.cpu.level().name();
                match self.cpu.precision() {
                    Precision::Float32 => level.into(),
                    Precision::Bfloat16 => format!("{level} and bfloat16 products"),
                }
            }
            #[cfg(any(feature = "cuda", feature = "sim"))]
            _ => with_backend!(self, |backend| backend.describe()),
        }
    }
}

/// Where models run.
pub enum ModelDevice {
    /// On the processor.
    Cpu,
    /// On an NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(dis_tensor::Cuda<dis_kernels::cuda::CudaDriver>),
    /// On the simulator.
    #[cfg(feature = "sim")]
    Sim(dis_tensor::Cuda<dis_kernels::sim::Sim>),
}

/// The device to use; says which on stderr.
pub fn open(args: &DeviceArgs, precision: PrecisionKind) -> Result<Device> {
    if args
        .threads
        .is_some_and(|n| !(1..=MOST_THREADS).contains(&n))
    {
        bail!("--threads must be 1 to {MOST_THREADS}");
    }
    let model = model_device(args.device, precision)?;
    if let Some(warning) = &dis_tensor::simd::selection().warning {
        warning!("{warning}");
    }
    // A pool of its own, which `install` enters once instead of at every operation. 0: all cores.
    let cpu = Cpu::with_threads(args.threads.unwrap_or(0))
        .context("--threads: cannot start the threads")?;
    let cpu = match (&model, precision) {
        (ModelDevice::Cpu, PrecisionKind::Bf16) => {
            ensure!(
                cpu.multiplies_bfloat16(),
                "--precision bf16: {} has no products of bfloat16; rounding for them would take time (1 % \
                 of a forward pass, 5 % of a training step) and save none: leave --precision away",
                cpu.level()
            );
            cpu.with_precision(Precision::Bfloat16)
        }
        (ModelDevice::Cpu, PrecisionKind::Tf32) => {
            bail!("--precision tf32: only GPUs have it; the processor takes f32 and bf16")
        }
        _ => cpu,
    };
    let device = Device { cpu, model };
    note!(
        "device: {}",
        with_backend!(device, |backend| backend.describe())
    );
    Ok(device)
}

/// For commands that only the processor serves.
pub fn open_cpu(args: &DeviceArgs) -> Result<Cpu> {
    match args.device {
        DeviceKind::Auto | DeviceKind::Cpu => {}
        DeviceKind::Cuda | DeviceKind::Sim => {
            bail!("--device: this command runs on the processor only; use --device cpu")
        }
    }
    let cpu = DeviceArgs {
        device: DeviceKind::Cpu,
        ..args.clone()
    };
    open(&cpu, PrecisionKind::F32).map(|device| device.cpu)
}

fn model_device(kind: DeviceKind, precision: PrecisionKind) -> Result<ModelDevice> {
    match kind {
        DeviceKind::Cpu => Ok(ModelDevice::Cpu),
        DeviceKind::Auto => Ok(automatic(precision)),
        DeviceKind::Cuda => cuda(precision),
        DeviceKind::Sim => sim(precision),
    }
}

/// A GPU where this build and the machine have one; says so where it has none.
#[cfg(feature = "cuda")]
fn automatic(precision: PrecisionKind) -> ModelDevice {
    cuda(precision).unwrap_or_else(|error| {
        note!("using the processor: {error:#}");
        ModelDevice::Cpu
    })
}

#[cfg(not(feature = "cuda"))]
fn automatic(_: PrecisionKind) -> ModelDevice {
    ModelDevice::Cpu
}

#[cfg(feature = "cuda")]
fn cuda(precision: PrecisionKind) -> Result<ModelDevice> {
    use dis_kernels::cuda::{self, CudaDriver};
    let (of_float32, precision) = match precision {
        PrecisionKind::F32 => (cuda::Precision::Full, Precision::Float32),
        PrecisionKind::Tf32 => (cuda::Precision::Tf32, Precision::Float32),
        PrecisionKind::Bf16 => (cuda::Precision::Full, Precision::Bfloat16),
    };
    let driver = CudaDriver::open(0, of_float32)?;
    let backend = dis_tensor::Cuda::new(driver).with_precision(precision);
    Ok(ModelDevice::Cuda(backend))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: PrecisionKind) -> Result<ModelDevice> {
    bail!("--device cuda: this build has no CUDA backend (cargo feature `cuda`); use --device cpu")
}

#[cfg(feature = "sim")]
fn sim(precision: PrecisionKind) -> Result<ModelDevice> {
    use dis_kernels::sim::{Options, Sim};
    let precision = match precision {
        PrecisionKind::F32 => Precision::Float32,
        PrecisionKind::Bf16 => Precision::Bfloat16,
        PrecisionKind::Tf32 => bail!("--precision tf32: the simulator takes f32 and bf16"),
    };
    let sim = Sim::new(Options::default());
    let backend = dis_tensor::Cuda::new(sim).with_precision(precision);
    Ok(ModelDevice::Sim(backend))
}

#[cfg(not(feature = "sim"))]
fn sim(_: PrecisionKind) -> Result<ModelDevice> {
    bail!("--device sim: this build has no GPU simulator (cargo feature `sim`); use --device cpu")
}
