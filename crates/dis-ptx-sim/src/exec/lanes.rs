//! What lanes of a warp do together: shuffles, votes, barriers.

use super::warp::Warp;
use super::{Mask, Trap, lanes};
use crate::FaultKind;
use crate::isa::{ShflMode, Slot, VoteMode};

/// The mask operand, which all active lanes agree on, and which names exactly lanes that take part.
pub(crate) fn check_mask(
    warp: &Warp,
    slot: Slot,
    active: Mask,
    what: &str,
) -> Result<Mask, Box<Trap>> {
    let row = &warp.words[slot as usize].0;
    let first = active.trailing_zeros();
    let mask = row[first as usize];
    let kind = FaultKind::WarpDivergence;
    for lane in lanes(active) {
        if row[lane] != mask {
            let message = format!("lanes disagree on the mask of the {what}");
            return Err(Trap::boxed(kind, lane as u32, message));
        }
        if mask >> lane & 1 == 0 {
            let message =
                format!("the mask {mask:#010x} of the {what} leaves out its own lane {lane}");
            return Err(Trap::boxed(kind, lane as u32, message));
        }
    }
    let absent = mask & !active;
    if absent != 0 {
        let lane = absent.trailing_zeros();
        let why = if warp.lanes >> lane & 1 == 0 {
            "does not exist in this block"
        } else if warp.live >> lane & 1 == 0 {
            "has returned"
        } else {
            "does not execute it with the others"
        };
        let message = format!("the mask {mask:#010x} of the {what} names lane {lane}, which {why}");
        return Err(Trap::boxed(kind, first, message));
    }
    Ok(mask)
}

/// Source lane and predicate (PTX ISA, "shfl.sync").
pub(crate) fn source_lane(mode: ShflMode, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (offset, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let min = lane & segment;
    let max = min | (clamp & !segment);
    let (j, valid) = match mode {
        ShflMode::Up => {
            let j = lane as i32 - offset as i32;
            (j, j >= max as i32)
        }
        ShflMode::Down => (lane as i32 + offset as i32, lane + offset <= max),
        ShflMode::Bfly => ((lane ^ offset) as i32, lane ^ offset <= max),
        ShflMode::Idx => {
            let j = min | (offset & !segment);
            (j as i32, j <= max)
        }
    };
    if valid {
        (j as u32, true)
    } else {
        (lane, false)
    }
}

/// Result and predicate rows of a shuffle.
pub(crate) fn shuffle(
    warp: &Warp,
    mode: ShflMode,
    (a, b, c): (Slot, Slot, Slot),
    active: Mask,
) -> Result<([u32; 32], Mask), Box<Trap>> {
    let (a, b, c) = (
        &warp.words[a as usize].0,
        &warp.words[b as usize].0,
        &warp.words[c as usize].0,
    );
    let (mut out, mut preds) = ([0; 32], 0);
    for lane in lanes(active) {
        let (from, valid) = source_lane(mode, lane as u32, b[lane], c[lane]);
        if active >> from & 1 == 0 {
            let message =
                format!("lane {lane} reads lane {from}, which takes no part in the shuffle");
            return Err(Trap::boxed(FaultKind::WarpDivergence, lane as u32, message));
        }
        out[lane] = a[from as usize];
        preds |= u32::from(valid) << lane;
    }
    Ok((out, preds))
}

/// The value a vote gives to each lane: all ones or zeros for a predicate, or the ballot.
pub(crate) fn vote(mode: VoteMode, values: Mask, active: Mask) -> Mask {
    let all = if values == active { u32::MAX } else { 0 };
    let any = if values != 0 { u32::MAX } else { 0 };
    match mode {
        VoteMode::Any => any,
        VoteMode::All => all,
        VoteMode::Uni => all | !any,
        VoteMode::Ballot => values,
    }
}
