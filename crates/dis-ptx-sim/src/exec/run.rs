//! The loop that executes a warp until it returns or waits at a barrier.

use super::block::Job;
use super::rows::{need_pred, read_pred};
use super::step::step;
use super::warp::{Stop, Warp};
use super::{Mask, Trap, lanes};
use crate::FaultKind;
use crate::isa::Op;

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
