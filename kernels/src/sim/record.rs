//! What a simulated device is asked to do, as data: done at once, or recorded and repeated.

use dis_ptx_sim as ptx;

use super::gemm::host_gemm;
use super::{State, fault};
use crate::contract::{Arg, Geometry};
use crate::driver::{GemmCall, Launch};
use crate::error::{KernelError, Result};
use crate::ptx::PtxFile;

/// One thing to do.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Launch {
        file: &'static PtxFile,
        entry: &'static str,
        geometry: Geometry,
        args: Box<[Arg]>,
    },
    Gemm(GemmCall),
    Copy {
        from: u64,
        to: u64,
        bytes: usize,
    },
    Zero {
        address: u64,
        bytes: usize,
    },
    /// Memory changes hands: in a recording too, so that every repetition is checked like the first.
    Lend {
        address: u64,
        bytes: usize,
    },
}

/// A sequence of things to do.
#[derive(Debug)]
pub struct Recording(Vec<Op>);

fn refused(message: String) -> KernelError {
    KernelError::Driver {
        action: "record launches".into(),
        message,
    }
}

impl State {
    /// Does something, or records it.
    pub(super) fn submit(&mut self, op: Op) -> Result<()> {
        match &mut self.recording {
            Some(recording) => {
                recording.push(op);
                Ok(())
            }
            None => self.perform(&op),
        }
    }

    /// Counts a wait, if there was something to wait for.
    pub(super) fn waited(&mut self) {
        self.traffic.waits += u64::from(std::mem::take(&mut self.busy));
    }

    /// Refuses what cannot be repeated.
    pub(super) fn not_recorded(&self, what: &str) -> Result<()> {
        match self.recording {
            Some(_) => Err(refused(format!("{what} cannot be recorded"))),
            None => Ok(()),
        }
    }

    pub(super) fn begin(&mut self) -> Result<bool> {
        self.not_recorded("a recording")?;
        self.recording = Some(Vec::new());
        Ok(true)
    }

    pub(super) fn end(&mut self) -> Result<Recording> {
        let ops = self.recording.take();
        ops.map(Recording)
            .ok_or_else(|| refused("nothing is being recorded".into()))
    }

    pub(super) fn replay(&mut self, recording: &Recording) -> Result<()> {
        self.not_recorded("a repetition")?;
        self.traffic.replays += 1;
        recording.0.iter().try_for_each(|op| self.perform(op))
    }

    /// Launches a kernel, or records it.
    pub(super) fn submit_launch(&mut self, launch: &Launch<'_>) -> Result<()> {
        if self.recording.is_none() {
            self.busy = true;
            self.traffic.launches += 1;
            return self.launch(launch);
        }
        self.submit(Op::Launch {
            file: launch.file,
            entry: launch.entry,
            geometry: launch.geometry,
            args: launch.args.into(),
        })
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<()> {
        let module = self.module(launch.file)?;
        let size = ptx::Launch {
            grid: launch.geometry.grid,
            block: launch.geometry.block,
            dynamic_shared: launch.geometry.dynamic_shared,
        };
        let done = self.device.launch(&module, launch.entry, size, launch.args);
        let cost = done.map_err(fault)?;
        *self.counters.entry(launch.entry).or_default() += cost;
        Ok(())
    }

    fn perform(&mut self, op: &Op) -> Result<()> {
        self.busy = true;
        match op {
            Op::Launch {
                file,
                entry,
                geometry,
                args,
            } => self.launch(&Launch {
                file,
                entry,
                geometry: *geometry,
                args,
            }),
            Op::Gemm(call) => host_gemm(&mut self.device, call),
            Op::Copy { from, to, bytes } => self.device.copy(*to, *from, *bytes).map_err(fault),
            Op::Zero { address, bytes } => self.device.fill(*address, 0, *bytes).map_err(fault),
            Op::Lend { address, bytes } => self.device.lend(*address, *bytes).map_err(fault),
        }
    }
}
