//! A block from its start to its end.

use super::Trap;
use super::warp::{Shape, Stop, Warp};
use crate::approx::mix;
use crate::code::Code;
use crate::memory::{Memory, Region};
use crate::{Approx, FaultKind, Order};

/// What instructions did, by their place in the code.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Warps that executed it with at least one lane.
    pub(crate) warps: Vec<u64>,
    /// Lanes that executed it.
    pub(crate) lanes: Vec<u64>,
    pub(crate) load_sectors: u64,
    pub(crate) store_sectors: u64,
    pub(crate) bank_conflicts: u64,
    pub(crate) divergent: u64,
}

/// All that the warps of a block share.
pub(crate) struct Job<'a> {
    pub(crate) code: &'a Code,
    pub(crate) params: &'a [u8],
    pub(crate) memory: &'a mut Memory,
    pub(crate) shared: Vec<Region>,
    pub(crate) shape: Shape,
    pub(crate) checks: bool,
    pub(crate) approx: Approx,
    pub(crate) order: Order,
    pub(crate) max_steps: u64,
    pub(crate) tally: Tally,
    /// Segments (see `shadow`): of the launch's start, of the block's start, and now.
    pub(crate) launch_segment: u32,
    pub(crate) block_segment: u32,
    pub(crate) segment: u32,
}

/// A mistake, and where.
pub(crate) struct Crash {
    pub(crate) trap: Box<Trap>,
    pub(crate) pc: usize,
    pub(crate) thread: u32,
}

impl Job<'_> {
    pub(crate) fn warps(&self) -> Vec<Warp> {
        let threads = self.shape.threads();
        (0..threads.div_ceil(32))
            .map(|w| Warp::new(self.code, w, (threads - w * 32).min(32)))
            .collect()
    }

    pub(crate) fn run_block(&mut self, warps: &mut [Warp], number: u64) -> Result<(), Crash> {
        let block = self.shape.block(number);
        self.segment += 1;
        self.block_segment = self.segment;
        for region in &mut self.shared {
            region.written.fill(0);
        }
        for warp in &mut *warps {
            warp.start(self.code, &self.shape, block);
        }
        let mut order: Vec<usize> = (0..warps.len()).collect();
        loop {
            self.arrange(&mut order, number);
            for &w in &order {
                let warp = &mut warps[w];
                match super::run::run(self, warp) {
                    Ok(stop) => warp.stop = Some(stop),
                    Err(trap) => {
                        let thread = warp.thread(trap.lane);
                        return Err(Crash {
                            pc: warp.pc,
                            thread,
                            trap,
                        });
                    }
                }
            }
            if self.release(warps)? {
                return Ok(());
            }
        }
    }

    /// Order of the warps up to the next barrier.
    fn arrange(&self, order: &mut [usize], number: u64) {
        match self.order {
            Order::InOrder => {}
            Order::Reversed => order.sort_unstable_by(|a, b| b.cmp(a)),
            Order::Shuffled(seed) => {
                let key = mix(seed ^ mix(number)) ^ u64::from(self.segment - self.block_segment);
                order.sort_unstable_by_key(|&w| mix(key ^ mix(w as u64)));
            }
        }
    }

    /// After all warps stopped: whether the block is done; otherwise its barrier is passed.
    fn release(&mut self, warps: &mut [Warp]) -> Result<bool, Crash> {
        let waiting = |w: &Warp| match w.stop {
            Some(Stop::Barrier(pc)) => Some(pc),
            _ => None,
        };
        let Some((first, pc)) = warps.iter().find_map(|w| Some((w, waiting(w)?))) else {
            return Ok(true);
        };
        let crash = |w: &Warp, pc: usize, message: String| {
            let trap = Trap::boxed(
                FaultKind::BarrierDivergence,
                w.live.trailing_zeros(),
                message,
            );
            Err(Crash {
                pc,
                thread: w.thread(trap.lane),
                trap,
            })
        };
        for w in &*warps {
            match waiting(w) {
                Some(other) if other == pc => {}
                Some(other) => {
                    let line = self.code.insts[pc].line;
                    let message = format!("another warp of the block waits at line {line}");
                    return crash(w, other, message);
                }
                None => {
                    let message = format!("warp {} of the block returned without it", w.index);
                    return crash(first, pc, message);
                }
            }
        }
        self.segment += 1;
        for w in warps {
            w.warp_step = 0;
            w.stop = None;
            w.pcs = [pc as u32 + 1; 32];
        }
        Ok(false)
    }
}
