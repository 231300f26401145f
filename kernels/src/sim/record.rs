//! What a simulated device is asked to do, as data: done at once, or recorded and repeated.

use dis_ptx_sim as ptx;

use super::gemm::host_gemm;
use super::{State, fault};
use crate::contract::Geometry;
use crate::driver::GemmCall;
use crate::error::{KernelError, Result};
use crate::ptx::PtxFile;

/// One thing to do.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Launch {
        file: &'static PtxFile,
        entry: &'static str,
        geometry: Geometry,
        args: Vec<Vec<u8>>,
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

    fn perform(&mut self, op: &Op) -> Result<()> {
        self.busy = true;
        match op {
            Op::Launch {
                file,
                entry,
                geometry,
                args,
            } => {
                let module = self.module(file)?;
                let size = ptx::Launch {
                    grid: geometry.grid,
                    block: geometry.block,
                    dynamic_shared: geometry.dynamic_shared,
                };
                let done = self.device.launch(&module, entry, size, args);
                let cost = done.map_err(fault)?;
                *self.counters.entry(entry).or_default() += cost;
                Ok(())
            }
            Op::Gemm(call) => host_gemm(&mut self.device, call),
            Op::Copy { from, to, bytes } => self.device.copy(*to, *from, *bytes).map_err(fault),
            Op::Zero { address, bytes } => self.device.fill(*address, 0, *bytes).map_err(fault),
            Op::Lend { address, bytes } => self.device.lend(*address, *bytes).map_err(fault),
        }
    }
}
