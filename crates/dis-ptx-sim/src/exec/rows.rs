//! Registers of all lanes at once: what must have been written, what is written now.

use super::warp::Warp;
use super::{FULL, Mask, Trap};
use crate::FaultKind;
use crate::isa::{Addr, Base, File, PredIn, Slot, Vector};

/// Writing registers of a width, and asking for those that were written.
macro_rules! registers {
    ($put:ident, $need:ident, $value:ty, $rows:ident, $set:ident) => {
        #[inline(always)]
        pub(super) fn $put(warp: &mut Warp, d: Slot, row: &[$value; 32], active: Mask) {
            let d = d as usize;
            if active == FULL {
                warp.$rows[d].0 = *row;
            } else {
                for (lane, (to, from)) in warp.$rows[d].0.iter_mut().zip(row).enumerate() {
                    *to = if active >> lane & 1 != 0 { *from } else { *to };
                }
            }
            warp.$set[d] |= active;
        }

        #[inline(always)]
        pub(super) fn $need(warp: &Warp, slots: &[Slot], active: Mask) -> Result<(), Box<Trap>> {
            let of = |s: Slot| warp.$set[s as usize];
            let set = slots.iter().fold(FULL, |m, &s| m & of(s));
            if set & active == active {
                return Ok(());
            }
            let bad = slots.iter().position(|&s| of(s) & active != active);
            Err(unset(OPERANDS[bad.unwrap_or(0)], set, active))
        }
    };
}
registers!(put32, need32, u32, words, word_set);
registers!(put64, need64, u64, wides, wide_set);

#[inline(always)]
pub(super) fn put_pred(warp: &mut Warp, d: Slot, value: Mask, active: Mask) {
    let d = d as usize;
    warp.preds[d] = (warp.preds[d] & !active) | (value & active);
    warp.pred_set[d] |= active;
}

#[cold]
pub(super) fn unset(what: &str, set: Mask, active: Mask) -> Box<Trap> {
    let lane = (active & !set).trailing_zeros();
    let message = format!("the {what} was not written by this thread");
    Trap::boxed(FaultKind::UninitialisedRegister, lane, message)
}

pub(super) const OPERANDS: [&str; 4] = [
    "first operand",
    "second operand",
    "third operand",
    "fourth operand",
];

#[inline(always)]
pub(super) fn need_pred(warp: &Warp, slots: &[Slot], active: Mask) -> Result<(), Box<Trap>> {
    let set = slots
        .iter()
        .fold(FULL, |m, &s| m & warp.pred_set[s as usize]);
    if set & active == active {
        Ok(())
    } else {
        Err(unset("predicate", set, active))
    }
}

#[inline(always)]
pub(super) fn need_address(warp: &Warp, addr: &Addr, active: Mask) -> Result<(), Box<Trap>> {
    let set = match addr.base {
        Base::Absolute => FULL,
        Base::Word(slot) => warp.word_set[slot as usize],
        Base::Wide(slot) => warp.wide_set[slot as usize],
    };
    if set & active == active {
        Ok(())
    } else {
        Err(unset("address", set, active))
    }
}

pub(super) fn need_vector(warp: &Warp, v: &Vector, active: Mask) -> Result<(), Box<Trap>> {
    let slots = &v.slots[..v.len as usize];
    match v.file {
        File::Wide => need64(warp, slots, active),
        _ => need32(warp, slots, active),
    }
}

#[inline(always)]
pub(super) fn read_pred(warp: &Warp, p: PredIn) -> Mask {
    let value = warp.preds[p.slot as usize];
    if p.negated { !value } else { value }
}
