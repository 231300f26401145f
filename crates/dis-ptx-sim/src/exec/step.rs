//! What each instruction does to the registers of a warp.

use super::alu::{
    bfe, bfi, canonical64, pick32, pick32_nan, pick64, prmt, sar, shl, shr, test32, test64,
};
use super::block::Job;
use super::convert::{Conversion, bf16};
use super::lanes::{check_mask, shuffle, vote};
use super::rows::{
    need_address, need_pred, need_vector, need32, need64, put_pred, put32, put64, read_pred,
};
use super::slow::{compare, cvt, divide32, divide64, load_param, logic, special_row, wide_product};
use super::warp::Warp;
use super::{Mask, Trap};
use crate::approx::{canonical, divide, ex2_row};
use crate::isa::{
    Bin32, Bin64, File, Op, Shift64, Special, Tri32, Tri64, Ty, Un32, Un64, VoteMode,
};
use crate::{Approx, FaultKind};

/// Everything that does not move program counters.
#[inline(always)]
pub(super) fn step(
    job: &mut Job<'_>,
    warp: &mut Warp,
    op: &Op,
    active: Mask,
) -> Result<(), Box<Trap>> {
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
                ((u64::from(x) * u64::from(y)) >> 32) as u32
            ),
            Bin32::MulHiS => {
                map32!(
                    d,
                    [x = a, y = b],
                    ((i64::from(x as i32) * i64::from(y as i32)) >> 32) as u32
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
                (((u64::from(x) * u64::from(y)) >> 32) as u32).wrapping_add(z)
            ),
            Tri32::MadHiS => map32!(
                d,
                [x = a, y = b, z = c],
                (((i64::from(x as i32) * i64::from(y as i32)) >> 32) as u32).wrapping_add(z)
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
                    ((u128::from(x) * u128::from(y)) >> 64) as u64
                )
            }
            Bin64::MulHiS => {
                map64!(
                    d,
                    [x = a, y = b],
                    ((i128::from(x as i64) * i128::from(y as i64)) >> 64) as u64
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
