//! Registers and program counters of a warp.

use super::{FULL, Mask};
use crate::code::{Code, Sreg};

/// A register of up to 32 bits in all lanes.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Row32(pub(crate) [u32; 32]);

/// A register of 64 bits in all lanes.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Row64(pub(crate) [u64; 32]);

/// Why a warp stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// All lanes returned.
    Done,
    /// All lanes wait at the barrier of this program counter.
    Barrier(usize),
}

#[derive(Debug)]
pub(crate) struct Warp {
    pub(crate) index: u32,
    pub(crate) words: Vec<Row32>,
    pub(crate) wides: Vec<Row64>,
    pub(crate) preds: Vec<Mask>,
    /// Lanes in which a register was written.
    pub(crate) word_set: Vec<Mask>,
    pub(crate) wide_set: Vec<Mask>,
    pub(crate) pred_set: Vec<Mask>,
    pub(crate) pcs: [u32; 32],
    /// Threads the warp has.
    pub(crate) lanes: Mask,
    /// Threads that did not return.
    pub(crate) live: Mask,
    /// Where a fault happened.
    pub(crate) pc: usize,
    pub(crate) steps: u64,
    /// `bar.warp.sync` passed since the last barrier of the block.
    pub(crate) warp_step: u32,
    pub(crate) stop: Option<Stop>,
}

impl Warp {
    /// A warp with its constants in place.
    pub(crate) fn new(code: &Code, index: u32, threads: u32) -> Self {
        let mut warp = Self {
            index,
            words: vec![Row32([0; 32]); code.words],
            wides: vec![Row64([0; 32]); code.wides],
            preds: vec![0; code.preds],
            word_set: vec![0; code.words],
            wide_set: vec![0; code.wides],
            pred_set: vec![0; code.preds],
            pcs: [0; 32],
            lanes: FULL >> (32 - threads),
            live: 0,
            pc: 0,
            steps: 0,
            warp_step: 0,
            stop: None,
        };
        for &(slot, value) in &code.word_consts {
            warp.words[slot as usize].0 = [value; 32];
        }
        for &(slot, value) in &code.wide_consts {
            warp.wides[slot as usize].0 = [value; 32];
        }
        warp
    }

    /// Thread of the block that a lane is.
    pub(crate) fn thread(&self, lane: u32) -> u32 {
        self.index * 32 + lane
    }

    /// Readies the warp for a block.
    pub(crate) fn start(&mut self, code: &Code, shape: &Shape, block: [u32; 3]) {
        self.word_set.fill(0);
        self.wide_set.fill(0);
        self.pred_set.fill(0);
        for &(slot, _) in &code.word_consts {
            self.word_set[slot as usize] = FULL;
        }
        for &(slot, _) in &code.wide_consts {
            self.wide_set[slot as usize] = FULL;
        }
        for &(slot, sreg) in &code.sregs {
            self.word_set[slot as usize] = FULL;
            let first = self.index * 32;
            for (lane, value) in (0u32..).zip(&mut self.words[slot as usize].0) {
                let tid = shape.thread(first + lane);
                *value = match sreg {
                    Sreg::Tid(k) => tid[k as usize],
                    Sreg::Ntid(k) => shape.block[k as usize],
                    Sreg::Ctaid(k) => block[k as usize],
                    Sreg::Nctaid(k) => shape.grid[k as usize],
                    Sreg::Laneid => lane,
                    Sreg::Warpid => self.index,
                    Sreg::LanemaskEq => 1 << lane,
                    Sreg::LanemaskLt => (1 << lane) - 1,
                    Sreg::LanemaskLe => FULL >> (31 - lane),
                    Sreg::LanemaskGt => !(FULL >> (31 - lane)),
                    Sreg::LanemaskGe => !((1 << lane) - 1),
                };
            }
        }
        self.pcs = [0; 32];
        self.live = self.lanes;
        self.pc = 0;
        self.steps = 0;
        self.warp_step = 0;
        self.stop = None;
    }
}

/// Sizes of a launch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
}

impl Shape {
    /// `%tid` of a thread by its number in the block.
    pub(crate) fn thread(&self, index: u32) -> [u32; 3] {
        let [x, y, _] = self.block;
        [index % x, index / x % y, index / (x * y)]
    }

    /// `%ctaid` of a block by its number.
    pub(crate) fn block(&self, index: u64) -> [u32; 3] {
        let (x, y) = (u64::from(self.grid[0]), u64::from(self.grid[1]));
        [
            (index % x) as u32,
            (index / x % y) as u32,
            (index / (x * y)) as u32,
        ]
    }

    pub(crate) fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.grid.iter().map(|&n| u64::from(n)).product()
    }
}
