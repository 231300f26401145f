//! Execution of blocks, warp by warp.

mod access;
mod alu;
mod block;
mod convert;
mod lanes;
mod rows;
mod run;
mod slow;
mod step;
mod warp;

pub(crate) use block::{Job, Tally};
pub(crate) use warp::Shape;

use crate::FaultKind;

/// A mistake of one lane; the instruction is known from the warp's program counter.
#[derive(Debug)]
pub(crate) struct Trap {
    pub(crate) kind: FaultKind,
    pub(crate) lane: u32,
    pub(crate) message: String,
}

impl Trap {
    #[cold]
    pub(crate) fn boxed(kind: FaultKind, lane: u32, message: String) -> Box<Self> {
        Box::new(Self {
            kind,
            lane,
            message,
        })
    }
}

/// Lanes of a warp, a bit each.
pub(crate) type Mask = u32;

pub(crate) const FULL: Mask = u32::MAX;

/// Lanes of a mask, ascending.
#[inline(always)]
pub(crate) fn lanes(mut mask: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let lane = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(lane)
    })
}
