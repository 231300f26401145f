//! Instructions that are not a single operator over rows.

use super::alu::{compare_float, compare_int};
use super::block::Job;
use super::convert::{Conversion, convert};
use super::rows::{need32, need64, put32, put64};
use super::warp::Warp;
use super::{Mask, Trap, lanes};
use crate::approx::special;
use crate::isa::{Bin32, Bin64, Cmp, File, Logic, Slot, Sort, Special, Ty, Vector};
use crate::{Approx, FaultKind};

#[inline(always)]
pub(super) fn logic(kind: Logic, x: Mask, y: Mask) -> Mask {
    match kind {
        Logic::And => x & y,
        Logic::Or => x | y,
        Logic::Xor => x ^ y,
    }
}

#[inline(always)]
pub(super) fn wide_product(warp: &Warp, signed: bool, a: Slot, b: Slot) -> [u64; 32] {
    let (x, y) = (&warp.words[a as usize].0, &warp.words[b as usize].0);
    let mut out = [0; 32];
    if signed {
        for lane in 0..32 {
            out[lane] = (i64::from(x[lane] as i32) * i64::from(y[lane] as i32)) as u64;
        }
    } else {
        for lane in 0..32 {
            out[lane] = u64::from(x[lane]) * u64::from(y[lane]);
        }
    }
    out
}

pub(super) fn special_row(kind: Special, ftz: bool, x: &[u32; 32], approx: Approx) -> [u32; 32] {
    x.map(|x| special(kind, ftz, x, approx))
}

pub(super) fn compare(warp: &Warp, cmp: Cmp, ty: Ty, a: Slot, b: Slot) -> Mask {
    macro_rules! rows {
        ($file:ident, $test:expr) => {{
            let (x, y) = (&warp.$file[a as usize].0, &warp.$file[b as usize].0);
            let mut out = 0;
            for lane in 0..32 {
                out |= u32::from($test(x[lane], y[lane])) << lane;
            }
            out
        }};
    }
    match (ty.file(), ty.sort()) {
        (File::Wide, Sort::Float) => {
            rows!(wides, |x, y| compare_float(
                cmp,
                f64::from_bits(x),
                f64::from_bits(y)
            ))
        }
        (File::Wide, Sort::Signed) => rows!(wides, |x, y| compare_int(cmp, x as i64, y as i64)),
        (File::Wide, _) => rows!(wides, |x, y| compare_int(cmp, x, y)),
        (_, Sort::Float) => {
            let wide = |x| f64::from(f32::from_bits(x));
            rows!(words, |x, y| compare_float(cmp, wide(x), wide(y)))
        }
        (_, Sort::Signed) => rows!(words, |x, y| compare_int(cmp, x as i32, y as i32)),
        _ => rows!(words, |x, y| compare_int(cmp, x, y)),
    }
}

pub(super) fn undefined(lane: usize) -> Box<Trap> {
    Trap::boxed(
        FaultKind::Undefined,
        lane as u32,
        "an integer is divided by zero".into(),
    )
}

/// Quotients and remainders of whole numbers of a width.
macro_rules! divide {
    ($name:ident, $kind:ident, $unsigned:ty, $signed:ty, $rows:ident, $need:ident, $put:ident) => {
        pub(super) fn $name(
            warp: &mut Warp,
            kind: $kind,
            (d, a, b): (Slot, Slot, Slot),
            active: Mask,
        ) -> Result<(), Box<Trap>> {
            $need(warp, &[a, b], active)?;
            let (x, y) = (&warp.$rows[a as usize].0, &warp.$rows[b as usize].0);
            let mut out = [0; 32];
            for lane in lanes(active) {
                let (x, y) = (x[lane], y[lane]);
                if y == 0 {
                    return Err(undefined(lane));
                }
                out[lane] = match kind {
                    $kind::DivU => x / y,
                    $kind::RemU => x % y,
                    $kind::DivS => (x as $signed).wrapping_div(y as $signed) as $unsigned,
                    _ => (x as $signed).wrapping_rem(y as $signed) as $unsigned,
                };
            }
            $put(warp, d, &out, active);
            Ok(())
        }
    };
}
divide!(divide32, Bin32, u32, i32, words, need32, put32);
divide!(divide64, Bin64, u64, i64, wides, need64, put64);

pub(super) fn cvt(
    warp: &mut Warp,
    c: Conversion,
    d: Slot,
    a: Slot,
    active: Mask,
) -> Result<(), Box<Trap>> {
    let row: [u64; 32] = match c.from.file() {
        File::Wide => {
            need64(warp, &[a], active)?;
            warp.wides[a as usize].0
        }
        _ => {
            need32(warp, &[a], active)?;
            warp.words[a as usize].0.map(u64::from)
        }
    };
    let out = match (c.to, c.from) {
        (Ty::U64 | Ty::S64, Ty::U32) if !c.sat => row,
        (Ty::U64 | Ty::S64, Ty::S32) if !c.sat => row.map(|x| x as i32 as i64 as u64),
        (Ty::U32 | Ty::S32, Ty::U64 | Ty::S64) if !c.sat => row.map(|x| x & 0xffff_ffff),
        (Ty::F32, Ty::U32) if c.round == crate::isa::Round::Nearest => {
            row.map(|x| u64::from((x as u32 as f32).to_bits()))
        }
        _ => row.map(|x| convert(c, x)),
    };
    match c.to.file() {
        File::Wide => put64(warp, d, &out, active),
        _ => put32(warp, d, &out.map(|x| x as u32), active),
    }
    Ok(())
}

pub(super) fn load_param(
    job: &Job<'_>,
    warp: &mut Warp,
    ty: Ty,
    d: &Vector,
    offset: u32,
    active: Mask,
) {
    let size = ty.bytes();
    for k in 0..d.len as usize {
        let at = offset as usize + k * size;
        let mut raw = [0; 8];
        raw[..size].copy_from_slice(&job.params[at..at + size]);
        let mut value = u64::from_le_bytes(raw);
        if ty.sort() == Sort::Signed {
            let up = 64 - 8 * size as u32;
            value = ((value << up) as i64 >> up) as u64;
        }
        match d.file {
            File::Wide => put64(warp, d.slots[k], &[value; 32], active),
            _ => put32(warp, d.slots[k], &[value as u32; 32], active),
        }
    }
}
