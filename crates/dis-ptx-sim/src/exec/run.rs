//! The loop that executes a warp until it returns or waits at a barrier.

use super::alu::{
    bfe, bfi, canonical64, compare_float, compare_int, pick32, pick32_nan, pick64, prmt, sar, shl,
    shr, test32, test64,
};
use super::block::Job;
use super::convert::{Conversion, bf16, convert};
use super::lanes::{check_mask, shuffle, vote};
use super::warp::{Stop, Warp};
use super::{FULL, Mask, Trap, lanes};
use crate::approx::{canonical, divide, ex2_row, special};
use crate::isa::{
    Addr, Base, Bin32, Bin64, Cmp, File, Logic, Op, PredIn, Shift64, Slot, Sort, Special, Tri32,
    Tri64, Ty, Un32, Un64, Vector, VoteMode,
};
use crate::{Approx, FaultKind};

/// Executes a warp until it stops.
pub(crate) fn run(job: &mut Job<'_>, warp: &mut Warp) -> Result<Stop, Box<Trap>> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the two features that the function needs were just detected.
        return unsafe { run_avx2(job, warp) };
    }
    run_inline(job, warp)
}

/// The same loop, with rows of lanes in vector registers and hardware multiply-adds.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2(job: &mut Job<'_>, warp: &mut Warp) -> Result<Stop, Box<Trap>> {
    run_inline(job, warp)
}

#[inline(always)]
fn put32(warp: &mut Warp, d: Slot, row: &[u32; 32], active: Mask) {
    let d = d as usize;
    if active == FULL {
        warp.words[d].0 = *row;
    } else {
        for (lane, (to, from)) in warp.words[d].0.iter_mut().zip(row).enumerate() {
            *to = if active >> lane & 1 != 0 { *from } else { *to };
        }
    }
    warp.word_set[d] |= active;
}

#[inline(always)]
fn put64(warp: &mut Warp, d: Slot, row: &[u64; 32], active: Mask) {
    let d = d as usize;
    if active == FULL {
        warp.wides[d].0 = *row;
    } else {
        for (lane, (to, from)) in warp.wides[d].0.iter_mut().zip(row).enumerate() {
            *to = if active >> lane & 1 != 0 { *from } else { *to };
        }
    }
    warp.wide_set[d] |= active;
}

#[inline(always)]
fn put_pred(warp: &mut Warp, d: Slot, value: Mask, active: Mask) {
    let d = d as usize;
    warp.preds[d] = (warp.preds[d] & !active) | (value & active);
    warp.pred_set[d] |= active;
}

#[cold]
fn unset(what: &str, set: Mask, active: Mask) -> Box<Trap> {
    let lane = (active & !set).trailing_zeros();
    let message = format!("the {what} was not written by this thread");
    Trap::boxed(FaultKind::UninitialisedRegister, lane, message)
}

const OPERANDS: [&str; 4] = [
    "first operand",
    "second operand",
    "third operand",
    "fourth operand",
];

#[inline(always)]
fn need32(warp: &Warp, slots: &[Slot], active: Mask) -> Result<(), Box<Trap>> {
    let set = slots
        .iter()
        .fold(FULL, |m, &s| m & warp.word_set[s as usize]);
    if set & active == active {
        return Ok(());
    }
    let bad = slots
        .iter()
        .position(|&s| warp.word_set[s as usize] & active != active);
    Err(unset(OPERANDS[bad.unwrap_or(0)], set, active))
}

#[inline(always)]
fn need64(warp: &Warp, slots: &[Slot], active: Mask) -> Result<(), Box<Trap>> {
    let set = slots
        .iter()
        .fold(FULL, |m, &s| m & warp.wide_set[s as usize]);
    if set & active == active {
        return Ok(());
    }
    let bad = slots
        .iter()
        .position(|&s| warp.wide_set[s as usize] & active != active);
    Err(unset(OPERANDS[bad.unwrap_or(0)], set, active))
}

#[inline(always)]
fn need_pred(warp: &Warp, slots: &[Slot], active: Mask) -> Result<(), Box<Trap>> {
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
fn need_address(warp: &Warp, addr: &Addr, active: Mask) -> Result<(), Box<Trap>> {
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

fn need_vector(warp: &Warp, v: &Vector, active: Mask) -> Result<(), Box<Trap>> {
    let slots = &v.slots[..v.len as usize];
    match v.file {
        File::Wide => need64(warp, slots, active),
        _ => need32(warp, slots, active),
    }
}

#[inline(always)]
fn read_pred(warp: &Warp, p: PredIn) -> Mask {
    let value = warp.preds[p.slot as usize];
    if p.negated { !value } else { value }
}

/// Lanes at the lowest program counter, that counter, and the next higher one.
#[inline(always)]
fn lowest(warp: &Warp) -> (usize, Mask, usize) {
    let mut pc = u32::MAX;
    for lane in lanes(warp.live) {
        pc = pc.min(warp.pcs[lane]);
    }
    let (mut mask, mut next) = (0, u32::MAX);
    for lane in lanes(warp.live) {
        if warp.pcs[lane] == pc {
            mask |= 1 << lane;
        } else {
            next = next.min(warp.pcs[lane]);
        }
    }
    (pc as usize, mask, next as usize)
}

#[inline(always)]
fn set_pcs(warp: &mut Warp, mask: Mask, pc: usize) {
    for (lane, p) in warp.pcs.iter_mut().enumerate() {
        *p = if mask >> lane & 1 != 0 { pc as u32 } else { *p };
    }
}

#[inline(always)]
fn run_inline(job: &mut Job<'_>, warp: &mut Warp) -> Result<Stop, Box<Trap>> {
    let code = job.code;
    while warp.live != 0 {
        let (mut pc, mask, next) = lowest(warp);
        // One group of lanes runs on until it parts, meets others, or stops.
        loop {
            warp.pc = pc;
            let inst = &code.insts[pc];
            warp.steps += 1;
            if warp.steps > job.max_steps {
                let message = format!("more than {} steps of one warp", job.max_steps);
                return Err(Trap::boxed(
                    FaultKind::Runaway,
                    mask.trailing_zeros(),
                    message,
                ));
            }
            let mut active = mask;
            if let Some(guard) = inst.guard {
                need_pred(warp, &[guard.slot], mask)?;
                active &= read_pred(warp, guard);
            }
            if active == 0 {
                pc += 1;
                if pc >= next {
                    set_pcs(warp, mask, pc);
                    break;
                }
                continue;
            }
            job.tally.warps[pc] += 1;
            job.tally.lanes[pc] += u64::from(active.count_ones());
            match inst.op {
                Op::Bra { target, uni } => {
                    let target = target as usize;
                    if active == mask {
                        pc = target;
                        if pc >= next {
                            set_pcs(warp, mask, pc);
                            break;
                        }
                        continue;
                    }
                    if uni {
                        let lane = (mask & !active).trailing_zeros();
                        let message = "lanes of the warp disagree on the branch".into();
                        return Err(Trap::boxed(FaultKind::NonUniformBranch, lane, message));
                    }
                    job.tally.divergent += 1;
                    set_pcs(warp, mask & !active, pc + 1);
                    set_pcs(warp, active, target);
                    break;
                }
                Op::Ret => {
                    warp.live &= !active;
                    set_pcs(warp, mask & !active, pc + 1);
                    break;
                }
                Op::Bar => {
                    let kind = FaultKind::BarrierDivergence;
                    if warp.live != warp.lanes {
                        let lane = (warp.lanes & !warp.live).trailing_zeros();
                        let message =
                            format!("lane {lane} of the warp returned without the barrier");
                        return Err(Trap::boxed(kind, active.trailing_zeros(), message));
                    }
                    if active != warp.live {
                        let lane = (warp.live & !active).trailing_zeros();
                        let message = format!("lane {lane} of the warp is elsewhere");
                        return Err(Trap::boxed(kind, active.trailing_zeros(), message));
                    }
                    return Ok(Stop::Barrier(pc));
                }
                ref op => step(job, warp, op, active)?,
            }
            pc += 1;
            if pc >= next {
                set_pcs(warp, mask, pc);
                break;
            }
        }
    }
    Ok(Stop::Done)
}

/// Everything that does not move program counters.
#[inline(always)]
fn step(job: &mut Job<'_>, warp: &mut Warp, op: &Op, active: Mask) -> Result<(), Box<Trap>> {
    macro_rules! map32 {
        ($d:expr, [$($v:ident = $slot:expr),+], $e:expr) => {{
            need32(warp, &[$($slot),+], active)?;
            let mut out = [0u32; 32];
            {
                $(let $v = &warp.words[$slot as usize].0;)+
                for lane in 0..32 {
                    $(let $v = $v[lane];)+
                    out[lane] = $e;
                }
            }
            put32(warp, $d, &out, active);
        }};
    }
    macro_rules! map64 {
        ($d:expr, [$($v:ident = $slot:expr),+], $e:expr) => {{
            need64(warp, &[$($slot),+], active)?;
            let mut out = [0u64; 32];
            {
                $(let $v = &warp.wides[$slot as usize].0;)+
                for lane in 0..32 {
                    $(let $v = $v[lane];)+
                    out[lane] = $e;
                }
            }
            put64(warp, $d, &out, active);
        }};
    }
    // Floats of a lane.
    let f = f32::from_bits;
    let g = f64::from_bits;
    match *op {
        Op::Mov32 { d, a } => map32!(d, [x = a], x),
        Op::Mov64 { d, a } => map64!(d, [x = a], x),
        Op::MovP { d, a } => {
            need_pred(warp, &[a], active)?;
            put_pred(warp, d, warp.preds[a as usize], active);
        }
        Op::Un32 { f: kind, d, a } => match kind {
            Un32::Not => map32!(d, [x = a], !x),
            Un32::NegS => map32!(d, [x = a], x.wrapping_neg()),
            Un32::AbsS => map32!(d, [x = a], (x as i32).wrapping_abs() as u32),
            Un32::NegF => map32!(d, [x = a], x ^ 0x8000_0000),
            Un32::AbsF => map32!(d, [x = a], x & 0x7fff_ffff),
            Un32::SqrtF => map32!(d, [x = a], canonical(f(x).sqrt())),
            Un32::RcpF => map32!(d, [x = a], canonical(1.0 / f(x))),
            Un32::Popc => map32!(d, [x = a], x.count_ones()),
            Un32::Clz => map32!(d, [x = a], x.leading_zeros()),
            Un32::Brev => map32!(d, [x = a], x.reverse_bits()),
        },
        Op::Bin32 { f: kind, d, a, b } => match kind {
            Bin32::Add => map32!(d, [x = a, y = b], x.wrapping_add(y)),
            Bin32::Sub => map32!(d, [x = a, y = b], x.wrapping_sub(y)),
            Bin32::MulLo => map32!(d, [x = a, y = b], x.wrapping_mul(y)),
            Bin32::MulHiU => map32!(
                d,
                [x = a, y = b],
                (u64::from(x) * u64::from(y) >> 32) as u32
            ),
            Bin32::MulHiS => {
                map32!(
                    d,
                    [x = a, y = b],
                    (i64::from(x as i32) * i64::from(y as i32) >> 32) as u32
                )
            }
            Bin32::DivU | Bin32::DivS | Bin32::RemU | Bin32::RemS => {
                divide32(warp, kind, (d, a, b), active)?;
            }
            Bin32::MinU => map32!(d, [x = a, y = b], x.min(y)),
            Bin32::MaxU => map32!(d, [x = a, y = b], x.max(y)),
            Bin32::MinS => map32!(d, [x = a, y = b], (x as i32).min(y as i32) as u32),
            Bin32::MaxS => map32!(d, [x = a, y = b], (x as i32).max(y as i32) as u32),
            Bin32::And => map32!(d, [x = a, y = b], x & y),
            Bin32::Or => map32!(d, [x = a, y = b], x | y),
            Bin32::Xor => map32!(d, [x = a, y = b], x ^ y),
            Bin32::Shl => map32!(d, [x = a, y = b], shl(x, y)),
            Bin32::ShrU => map32!(d, [x = a, y = b], shr(x, y)),
            Bin32::ShrS => map32!(d, [x = a, y = b], sar(x, y)),
            Bin32::AddF => map32!(d, [x = a, y = b], canonical(f(x) + f(y))),
            Bin32::SubF => map32!(d, [x = a, y = b], canonical(f(x) - f(y))),
            Bin32::MulF => map32!(d, [x = a, y = b], canonical(f(x) * f(y))),
            Bin32::DivF => map32!(d, [x = a, y = b], canonical(f(x) / f(y))),
            Bin32::MinF => map32!(d, [x = a, y = b], pick32(x, y, false)),
            Bin32::MaxF => map32!(d, [x = a, y = b], pick32(x, y, true)),
            Bin32::MinNanF => map32!(d, [x = a, y = b], pick32_nan(x, y, false)),
            Bin32::MaxNanF => map32!(d, [x = a, y = b], pick32_nan(x, y, true)),
            // The sign of the first, the magnitude of the second.
            Bin32::CopysignF => {
                map32!(d, [x = a, y = b], (x & 0x8000_0000) | (y & 0x7fff_ffff))
            }
        },
        Op::Tri32 {
            f: kind,
            d,
            a,
            b,
            c,
        } => match kind {
            Tri32::MadLo => map32!(d, [x = a, y = b, z = c], x.wrapping_mul(y).wrapping_add(z)),
            Tri32::MadHiU => map32!(
                d,
                [x = a, y = b, z = c],
                ((u64::from(x) * u64::from(y) >> 32) as u32).wrapping_add(z)
            ),
            Tri32::MadHiS => map32!(
                d,
                [x = a, y = b, z = c],
                ((i64::from(x as i32) * i64::from(y as i32) >> 32) as u32).wrapping_add(z)
            ),
            Tri32::FmaF => map32!(
                d,
                [x = a, y = b, z = c],
                canonical(f(x).mul_add(f(y), f(z)))
            ),
            Tri32::BfeU => map32!(d, [x = a, y = b, z = c], bfe(x, y, z, false)),
            Tri32::BfeS => map32!(d, [x = a, y = b, z = c], bfe(x, y, z, true)),
            Tri32::Prmt => map32!(d, [x = a, y = b, z = c], prmt(x, y, z)),
        },
        Op::Bfi32 { d, a, b, c, e } => map32!(d, [x = a, y = b, z = c, w = e], bfi(x, y, z, w)),
        Op::Un64 { f: kind, d, a } => match kind {
            Un64::Not => map64!(d, [x = a], !x),
            Un64::NegS => map64!(d, [x = a], x.wrapping_neg()),
            Un64::AbsS => map64!(d, [x = a], (x as i64).wrapping_abs() as u64),
            Un64::NegF => map64!(d, [x = a], x ^ (1 << 63)),
            Un64::AbsF => map64!(d, [x = a], x & !(1 << 63)),
            Un64::SqrtF => map64!(d, [x = a], canonical64(g(x).sqrt())),
            Un64::RcpF => map64!(d, [x = a], canonical64(1.0 / g(x))),
        },
        Op::Bin64 { f: kind, d, a, b } => match kind {
            Bin64::Add => map64!(d, [x = a, y = b], x.wrapping_add(y)),
            Bin64::Sub => map64!(d, [x = a, y = b], x.wrapping_sub(y)),
            Bin64::MulLo => map64!(d, [x = a, y = b], x.wrapping_mul(y)),
            Bin64::MulHiU => {
                map64!(
                    d,
                    [x = a, y = b],
                    (u128::from(x) * u128::from(y) >> 64) as u64
                )
            }
            Bin64::MulHiS => {
                map64!(
                    d,
                    [x = a, y = b],
                    (i128::from(x as i64) * i128::from(y as i64) >> 64) as u64
                )
            }
            Bin64::DivU | Bin64::DivS | Bin64::RemU | Bin64::RemS => {
                divide64(warp, kind, (d, a, b), active)?;
            }
            Bin64::MinU => map64!(d, [x = a, y = b], x.min(y)),
            Bin64::MaxU => map64!(d, [x = a, y = b], x.max(y)),
            Bin64::MinS => map64!(d, [x = a, y = b], (x as i64).min(y as i64) as u64),
            Bin64::MaxS => map64!(d, [x = a, y = b], (x as i64).max(y as i64) as u64),
            Bin64::And => map64!(d, [x = a, y = b], x & y),
            Bin64::Or => map64!(d, [x = a, y = b], x | y),
            Bin64::Xor => map64!(d, [x = a, y = b], x ^ y),
            Bin64::AddF => map64!(d, [x = a, y = b], canonical64(g(x) + g(y))),
            Bin64::SubF => map64!(d, [x = a, y = b], canonical64(g(x) - g(y))),
            Bin64::MulF => map64!(d, [x = a, y = b], canonical64(g(x) * g(y))),
            Bin64::DivF => map64!(d, [x = a, y = b], canonical64(g(x) / g(y))),
            Bin64::MinF => map64!(d, [x = a, y = b], pick64(x, y, false)),
            Bin64::MaxF => map64!(d, [x = a, y = b], pick64(x, y, true)),
            Bin64::CopysignF => map64!(d, [x = a, y = b], (x & (1 << 63)) | (y & !(1 << 63))),
        },
        Op::Tri64 {
            f: kind,
            d,
            a,
            b,
            c,
        } => match kind {
            Tri64::MadLo => map64!(d, [x = a, y = b, z = c], x.wrapping_mul(y).wrapping_add(z)),
            Tri64::FmaF => map64!(
                d,
                [x = a, y = b, z = c],
                canonical64(g(x).mul_add(g(y), g(z)))
            ),
        },
        Op::Shift64 { f: kind, d, a, b } => {
            need64(warp, &[a], active)?;
            need32(warp, &[b], active)?;
            let (x, n) = (&warp.wides[a as usize].0, &warp.words[b as usize].0);
            let mut out = [0; 32];
            for lane in 0..32 {
                let (x, n) = (x[lane], n[lane]);
                out[lane] = match kind {
                    Shift64::Shl => {
                        if n > 63 {
                            0
                        } else {
                            x << n
                        }
                    }
                    Shift64::ShrU => {
                        if n > 63 {
                            0
                        } else {
                            x >> n
                        }
                    }
                    Shift64::ShrS => ((x as i64) >> n.min(63)) as u64,
                };
            }
            put64(warp, d, &out, active);
        }
        Op::MulWide { signed, d, a, b } => {
            need32(warp, &[a, b], active)?;
            let out = wide_product(warp, signed, a, b);
            put64(warp, d, &out, active);
        }
        Op::MadWide { signed, d, a, b, c } => {
            need32(warp, &[a, b], active)?;
            need64(warp, &[c], active)?;
            let mut out = wide_product(warp, signed, a, b);
            for (o, c) in out.iter_mut().zip(&warp.wides[c as usize].0) {
                *o = o.wrapping_add(*c);
            }
            put64(warp, d, &out, active);
        }
        Op::LogicP { f: kind, d, a, b } => {
            need_pred(warp, &[a, b], active)?;
            let (x, y) = (warp.preds[a as usize], warp.preds[b as usize]);
            put_pred(warp, d, logic(kind, x, y), active);
        }
        Op::NotP { d, a } => {
            need_pred(warp, &[a], active)?;
            put_pred(warp, d, !warp.preds[a as usize], active);
        }
        Op::Setp {
            cmp,
            ty,
            d,
            q,
            a,
            b,
            with,
        } => {
            match ty.file() {
                File::Wide => need64(warp, &[a, b], active)?,
                _ => need32(warp, &[a, b], active)?,
            }
            let value = compare(warp, cmp, ty, a, b);
            let (mut p, mut n) = (value, !value);
            if let Some((f, other)) = with {
                need_pred(warp, &[other.slot], active)?;
                let other = read_pred(warp, other);
                (p, n) = (logic(f, p, other), logic(f, n, other));
            }
            put_pred(warp, d, p, active);
            if let Some(q) = q {
                put_pred(warp, q, n, active);
            }
        }
        Op::Testp { f: kind, ty, d, a } => {
            let mut out = 0;
            if ty == Ty::F32 {
                need32(warp, &[a], active)?;
                for (lane, x) in warp.words[a as usize].0.iter().enumerate() {
                    out |= u32::from(test32(kind, f(*x))) << lane;
                }
            } else {
                need64(warp, &[a], active)?;
                for (lane, x) in warp.wides[a as usize].0.iter().enumerate() {
                    out |= u32::from(test64(kind, g(*x))) << lane;
                }
            }
            put_pred(warp, d, out, active);
        }
        Op::Selp { file, d, a, b, p } => {
            need_pred(warp, &[p], active)?;
            let p = warp.preds[p as usize];
            if file == File::Wide {
                need64(warp, &[a], active & p)?;
                need64(warp, &[b], active & !p)?;
                let (x, y) = (&warp.wides[a as usize].0, &warp.wides[b as usize].0);
                let mut out = [0; 32];
                for lane in 0..32 {
                    out[lane] = if p >> lane & 1 != 0 { x[lane] } else { y[lane] };
                }
                put64(warp, d, &out, active);
            } else {
                need32(warp, &[a], active & p)?;
                need32(warp, &[b], active & !p)?;
                let (x, y) = (&warp.words[a as usize].0, &warp.words[b as usize].0);
                let mut out = [0; 32];
                for lane in 0..32 {
                    out[lane] = if p >> lane & 1 != 0 { x[lane] } else { y[lane] };
                }
                put32(warp, d, &out, active);
            }
        }
        Op::Cvt {
            to,
            from,
            round,
            integral: _,
            sat,
            ftz,
            d,
            a,
        } => {
            cvt(
                warp,
                Conversion {
                    to,
                    from,
                    round,
                    sat,
                    ftz,
                },
                d,
                a,
                active,
            )?;
        }
        Op::CvtPair { d, a, b } => map32!(
            d,
            [x = a, y = b],
            u32::from(bf16(f(x))) << 16 | u32::from(bf16(f(y)))
        ),
        Op::Special { f: kind, ftz, d, a } => {
            need32(warp, &[a], active)?;
            let x = &warp.words[a as usize].0;
            let out = if kind == Special::Ex2 && job.approx == Approx::Exact {
                ex2_row(x, ftz)
            } else {
                special_row(kind, ftz, x, job.approx)
            };
            put32(warp, d, &out, active);
        }
        Op::DivApprox { full, ftz, d, a, b } => {
            let approx = job.approx;
            map32!(d, [x = a, y = b], divide(full, ftz, x, y, approx));
        }
        Op::Pack64 { d, lo, hi } => {
            need32(warp, &[lo, hi], active)?;
            let (lo, hi) = (&warp.words[lo as usize].0, &warp.words[hi as usize].0);
            let mut out = [0; 32];
            for lane in 0..32 {
                out[lane] = u64::from(hi[lane]) << 32 | u64::from(lo[lane]);
            }
            put64(warp, d, &out, active);
        }
        Op::Unpack64 { lo, hi, a } => {
            need64(warp, &[a], active)?;
            let row = warp.wides[a as usize].0;
            if let Some(lo) = lo {
                put32(warp, lo, &row.map(|x| x as u32), active);
            }
            if let Some(hi) = hi {
                put32(warp, hi, &row.map(|x| (x >> 32) as u32), active);
            }
        }
        Op::Pack32 { d, lo, hi } => map32!(d, [x = lo, y = hi], y << 16 | x & 0xffff),
        Op::Unpack32 { lo, hi, a } => {
            need32(warp, &[a], active)?;
            let row = warp.words[a as usize].0;
            if let Some(lo) = lo {
                put32(warp, lo, &row.map(|x| x & 0xffff), active);
            }
            if let Some(hi) = hi {
                put32(warp, hi, &row.map(|x| x >> 16), active);
            }
        }
        Op::LdParam { ty, d, offset } => load_param(job, warp, ty, &d, offset, active),
        Op::Ld { space, ty, d, addr } => {
            need_address(warp, &addr, active)?;
            job.load(warp, space, ty, &d, &addr, active)?;
        }
        Op::St { space, ty, s, addr } => {
            need_address(warp, &addr, active)?;
            need_vector(warp, &s, active)?;
            job.store(warp, space, ty, &s, &addr, active)?;
        }
        Op::BarWarp { mask } => {
            need32(warp, &[mask], active)?;
            check_mask(warp, mask, active, "warp barrier")?;
            if active != warp.live {
                let lane = (warp.live & !active).trailing_zeros();
                let message = format!("a warp barrier without lane {lane}");
                let first = active.trailing_zeros();
                return Err(Trap::boxed(FaultKind::WarpDivergence, first, message));
            }
            warp.warp_step += 1;
        }
        Op::Shfl {
            mode,
            d,
            p,
            a,
            b,
            c,
            mask,
        } => {
            need32(warp, &[a, b, c, mask], active)?;
            check_mask(warp, mask, active, "shuffle")?;
            let (out, preds) = shuffle(warp, mode, (a, b, c), active)?;
            put32(warp, d, &out, active);
            if let Some(p) = p {
                put_pred(warp, p, preds, active);
            }
        }
        Op::Vote { mode, d, a, mask } => {
            need_pred(warp, &[a.slot], active)?;
            need32(warp, &[mask], active)?;
            check_mask(warp, mask, active, "vote")?;
            let out = vote(mode, read_pred(warp, a) & active, active);
            if mode == VoteMode::Ballot {
                put32(warp, d, &[out; 32], active);
            } else {
                put_pred(warp, d, out, active);
            }
        }
        Op::ActiveMask { d } => put32(warp, d, &[active; 32], active),
        Op::Bra { .. } | Op::Bar | Op::Ret => {}
    }
    Ok(())
}

#[inline(always)]
fn logic(kind: Logic, x: Mask, y: Mask) -> Mask {
    match kind {
        Logic::And => x & y,
        Logic::Or => x | y,
        Logic::Xor => x ^ y,
    }
}

#[inline(always)]
fn wide_product(warp: &Warp, signed: bool, a: Slot, b: Slot) -> [u64; 32] {
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

fn special_row(kind: Special, ftz: bool, x: &[u32; 32], approx: Approx) -> [u32; 32] {
    x.map(|x| special(kind, ftz, x, approx))
}

fn compare(warp: &Warp, cmp: Cmp, ty: Ty, a: Slot, b: Slot) -> Mask {
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

fn undefined(lane: usize) -> Box<Trap> {
    Trap::boxed(
        FaultKind::Undefined,
        lane as u32,
        "an integer is divided by zero".into(),
    )
}

fn divide32(
    warp: &mut Warp,
    kind: Bin32,
    (d, a, b): (Slot, Slot, Slot),
    active: Mask,
) -> Result<(), Box<Trap>> {
    need32(warp, &[a, b], active)?;
    let (x, y) = (&warp.words[a as usize].0, &warp.words[b as usize].0);
    let mut out = [0; 32];
    for lane in lanes(active) {
        let (x, y) = (x[lane], y[lane]);
        if y == 0 {
            return Err(undefined(lane));
        }
        out[lane] = match kind {
            Bin32::DivU => x / y,
            Bin32::RemU => x % y,
            Bin32::DivS => (x as i32).wrapping_div(y as i32) as u32,
            _ => (x as i32).wrapping_rem(y as i32) as u32,
        };
    }
    put32(warp, d, &out, active);
    Ok(())
}

fn divide64(
    warp: &mut Warp,
    kind: Bin64,
    (d, a, b): (Slot, Slot, Slot),
    active: Mask,
) -> Result<(), Box<Trap>> {
    need64(warp, &[a, b], active)?;
    let (x, y) = (&warp.wides[a as usize].0, &warp.wides[b as usize].0);
    let mut out = [0; 32];
    for lane in lanes(active) {
        let (x, y) = (x[lane], y[lane]);
        if y == 0 {
            return Err(undefined(lane));
        }
        out[lane] = match kind {
            Bin64::DivU => x / y,
            Bin64::RemU => x % y,
            Bin64::DivS => (x as i64).wrapping_div(y as i64) as u64,
            _ => (x as i64).wrapping_rem(y as i64) as u64,
        };
    }
    put64(warp, d, &out, active);
    Ok(())
}

fn cvt(warp: &mut Warp, c: Conversion, d: Slot, a: Slot, active: Mask) -> Result<(), Box<Trap>> {
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

fn load_param(job: &Job<'_>, warp: &mut Warp, ty: Ty, d: &Vector, offset: u32, active: Mask) {
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
