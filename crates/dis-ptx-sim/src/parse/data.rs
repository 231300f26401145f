//! Moves, conversions, memory, and what lanes and warps do together.

use super::body::Body;
use super::decode::{Mods, take, unsupported};
use super::operand::{Number, Operand};
use crate::isa::{Addr, Base, File, Op, Round, ShflMode, Sort, Space, Ty, Vector, VoteMode};

type Result<T = Op> = std::result::Result<T, String>;

pub(crate) fn mov(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let ty = m.last_ty()?;
    match take(o)? {
        [d, Operand::Vector(parts)] => pack(b, ty, d, parts),
        [Operand::Vector(parts), a] => unpack(b, ty, parts, a),
        [d, a] => match ty.bytes() {
            0 => Ok(Op::MovP {
                a: b.source(a, ty)?,
                d: b.target(d, ty)?,
            }),
            8 => Ok(Op::Mov64 {
                a: b.source(a, ty)?,
                d: b.target(d, ty)?,
            }),
            2 | 4 => Ok(Op::Mov32 {
                a: b.source(a, ty)?,
                d: b.target(d, ty)?,
            }),
            _ => Err(unsupported(ty)),
        },
    }
}

fn pack(b: &mut Body<'_>, ty: Ty, d: &Operand<'_>, parts: &[Operand<'_>]) -> Result {
    let [lo, hi] = take(parts)?;
    match ty {
        Ty::B64 => {
            let (lo, hi) = (b.source(lo, Ty::B32)?, b.source(hi, Ty::B32)?);
            Ok(Op::Pack64 {
                lo,
                hi,
                d: b.target(d, ty)?,
            })
        }
        Ty::B32 => {
            let (lo, hi) = (b.source(lo, Ty::B16)?, b.source(hi, Ty::B16)?);
            Ok(Op::Pack32 {
                lo,
                hi,
                d: b.target(d, ty)?,
            })
        }
        _ => Err(unsupported(ty)),
    }
}

fn unpack(b: &mut Body<'_>, ty: Ty, parts: &[Operand<'_>], a: &Operand<'_>) -> Result {
    let [lo, hi] = take(parts)?;
    let part = match ty {
        Ty::B64 => Ty::B32,
        Ty::B32 => Ty::B16,
        _ => return Err(unsupported(ty)),
    };
    let a = b.source(a, ty)?;
    let mut half = |operand: &Operand<'_>| match operand {
        Operand::Sink => Ok(None),
        _ => b.target(operand, part).map(Some),
    };
    let (lo, hi) = (half(lo)?, half(hi)?);
    Ok(if ty == Ty::B64 {
        Op::Unpack64 { lo, hi, a }
    } else {
        Op::Unpack32 { lo, hi, a }
    })
}

/// Reads a rounding: of a float result, or to an integral value.
fn rounding(m: &mut Mods<'_>) -> (Round, bool) {
    let found = match m.peek() {
        Some("rn") => (Round::Nearest, false),
        Some("rz") => (Round::Zero, false),
        Some("rm") => (Round::Down, false),
        Some("rp") => (Round::Up, false),
        Some("rni") => (Round::Nearest, true),
        Some("rzi") => (Round::Zero, true),
        Some("rmi") => (Round::Down, true),
        Some("rpi") => (Round::Up, true),
        _ => return (Round::None, false),
    };
    let _ = m.any();
    found
}

pub(crate) fn cvt(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let (round, integral) = rounding(m);
    let ftz = m.eat("ftz");
    let sat = m.eat("sat");
    let to = m.ty()?;
    let from = m.last_ty()?;
    if (to, from) == (Ty::Bf16x2, Ty::F32) {
        if round != Round::Nearest || integral || sat || ftz {
            return Err("a pair of bf16 is rounded by `.rn`".into());
        }
        let [d, x, y] = take(o)?;
        let (x, y) = (b.source(x, from)?, b.source(y, from)?);
        return Ok(Op::CvtPair {
            a: x,
            b: y,
            d: b.target(d, Ty::B32)?,
        });
    }
    let wrong = |text: &str| Err(format!("`cvt` {text}"));
    let known = |ty: Ty| {
        !matches!(ty.sort(), Sort::Bits | Sort::Pred)
            && !matches!(ty, Ty::F16 | Ty::F16x2 | Ty::Bf16x2)
    };
    if !known(to) || !known(from) {
        return wrong("between these types is not supported");
    }
    let (tf, ff) = (to.sort() == Sort::Float, from.sort() == Sort::Float);
    let expected = match (tf, ff) {
        (false, false) => round == Round::None,
        (false, true) => integral,
        (true, false) => round != Round::None && !integral,
        (true, true) if to == from => integral,
        (true, true) if to.bytes() > from.bytes() => round == Round::None,
        (true, true) => round != Round::None && !integral,
    };
    if !expected {
        return wrong("between these types wants another rounding");
    }
    if to == Ty::Bf16 && (from != Ty::F32 || round != Round::Nearest) {
        return wrong("to bf16 goes from f32 by `.rn`");
    }
    if from == Ty::Bf16 {
        return wrong("from bf16 needs sm_90: shift the bits");
    }
    if ftz && to != Ty::F32 && from != Ty::F32 {
        return wrong("has `.ftz` for f32 only");
    }
    let [d, a] = take(o)?;
    let a = b.typed_source(a, from, true)?.0;
    let d = b.typed_target(d, to, true)?;
    // A wider register takes the result extended, as `.s16` in 32 bits.
    if d.1.bytes() > to.bytes() && d.1.file() != to.file() {
        return wrong("into a register of another size is not supported");
    }
    Ok(Op::Cvt {
        to,
        from,
        round,
        integral,
        sat,
        ftz,
        a,
        d: d.0,
    })
}

fn address(b: &mut Body<'_>, operand: &Operand<'_>, shared: bool) -> Result<Addr> {
    let Operand::Address { base, offset } = operand else {
        return Err("an address in brackets belongs here".into());
    };
    if shared && let Some(address) = b.shared_address(base) {
        return Ok(Addr {
            base: Base::Absolute,
            offset: i64::from(address) + offset,
        });
    }
    let name = Operand::Name(base);
    if shared && let Ok((slot, _)) = b.typed_source(&name, Ty::B32, false) {
        return Ok(Addr {
            base: Base::Word(slot),
            offset: *offset,
        });
    }
    let (slot, _) = b.typed_source(&name, Ty::B64, false)?;
    Ok(Addr {
        base: Base::Wide(slot),
        offset: *offset,
    })
}

/// State space, number of values, type.
fn access(m: &mut Mods<'_>, load: bool) -> Result<(Space, usize, Ty)> {
    let space = match m.any()? {
        "global" => {
            let nc = load && m.eat("nc");
            let hints: &[&str] = if load {
                &["ca", "cg", "cs", "lu"]
            } else {
                &["wb", "cg", "cs", "wt"]
            };
            if m.peek().is_some_and(|p| hints.contains(&p)) {
                m.any()?;
            }
            for hint in [
                "L1::evict_normal",
                "L1::evict_first",
                "L1::evict_last",
                "L1::no_allocate",
            ] {
                if m.eat(hint) {
                    break;
                }
            }
            Space::Global { nc }
        }
        "shared" => Space::Shared,
        other => return Err(format!("the space `.{other}` is not supported")),
    };
    let len = match m.peek() {
        Some("v2") => 2,
        Some("v4") => 4,
        _ => 1,
    };
    if len > 1 {
        m.any()?;
    }
    let ty = m.last_ty()?;
    if ty.bytes() == 0 || matches!(ty, Ty::F16 | Ty::Bf16 | Ty::F16x2 | Ty::Bf16x2) {
        return Err(unsupported(ty));
    }
    if ty.bytes() * len > 16 {
        return Err("an access of more than 16 bytes".into());
    }
    Ok((space, len, ty))
}

fn fits(ty: Ty, vector: &Vector) -> Result<()> {
    match (ty.bytes(), vector.file) {
        (_, File::Pred) => Err("predicates do not live in memory".into()),
        (8, File::Word) => Err("a register too small".into()),
        (1 | 2 | 4, File::Wide) => Err("a 64-bit register for a narrower value".into()),
        _ => Ok(()),
    }
}

pub(crate) fn load(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    if m.eat("param") {
        return load_param(b, m, o);
    }
    let (space, len, ty) = access(m, true)?;
    let [d, a] = take(o)?;
    let addr = address(b, a, space == Space::Shared)?;
    let d = b.vector(d, ty, len, true)?;
    fits(ty, &d)?;
    Ok(Op::Ld { space, ty, d, addr })
}

fn load_param(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let len = if m.eat("v2") {
        2
    } else if m.eat("v4") {
        4
    } else {
        1
    };
    let ty = m.last_ty()?;
    if ty.bytes() == 0 {
        return Err(unsupported(ty));
    }
    let [d, Operand::Address { base, offset }] = take(o)? else {
        return Err("a parameter in brackets belongs here".into());
    };
    let (start, size) = b
        .param(base)
        .ok_or_else(|| format!("no parameter `{base}`"))?;
    let bytes = (ty.bytes() * len) as i64;
    if *offset < 0 || offset + bytes > size as i64 {
        return Err(format!("`{base}` has {size} bytes"));
    }
    if offset % bytes != 0 {
        return Err("a misaligned parameter".into());
    }
    let d = b.vector(d, ty, len, true)?;
    fits(ty, &d)?;
    Ok(Op::LdParam {
        ty,
        d,
        offset: (start as i64 + offset) as u32,
    })
}

pub(crate) fn store(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let (space, len, ty) = access(m, false)?;
    let [a, s] = take(o)?;
    let addr = address(b, a, space == Space::Shared)?;
    let s = b.vector(s, ty, len, false)?;
    fits(ty, &s)?;
    Ok(Op::St { space, ty, s, addr })
}

pub(crate) fn shfl(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    if !m.eat("sync") {
        return Err("`shfl` needs `.sync`".into());
    }
    let mode = match m.any()? {
        "up" => ShflMode::Up,
        "down" => ShflMode::Down,
        "bfly" => ShflMode::Bfly,
        "idx" => ShflMode::Idx,
        other => return Err(format!("the mode `.{other}` of `shfl` does not exist")),
    };
    let ty = m.last_ty()?;
    if ty != Ty::B32 {
        return Err(unsupported(ty));
    }
    let [d, a, lane, clamp, mask] = take(o)?;
    let a = b.source(a, ty)?;
    let (lane, clamp) = (b.source(lane, Ty::U32)?, b.source(clamp, Ty::U32)?);
    let mask = b.source(mask, Ty::B32)?;
    let (d, p) = match d {
        Operand::Pair(d, p) => {
            let p = b.target(&Operand::Name(p), Ty::Pred)?;
            (b.target(&Operand::Name(d), ty)?, Some(p))
        }
        _ => (b.target(d, ty)?, None),
    };
    Ok(Op::Shfl {
        mode,
        d,
        p,
        a,
        b: lane,
        c: clamp,
        mask,
    })
}

pub(crate) fn vote(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    if !m.eat("sync") {
        return Err("`vote` needs `.sync`".into());
    }
    let mode = match m.any()? {
        "any" => VoteMode::Any,
        "all" => VoteMode::All,
        "uni" => VoteMode::Uni,
        "ballot" => VoteMode::Ballot,
        other => return Err(format!("the mode `.{other}` of `vote` does not exist")),
    };
    let ty = m.last_ty()?;
    let wanted = if mode == VoteMode::Ballot {
        Ty::B32
    } else {
        Ty::Pred
    };
    if ty != wanted {
        return Err(unsupported(ty));
    }
    let [d, a, mask] = take(o)?;
    let a = b.predicate(a)?;
    let mask = b.source(mask, Ty::B32)?;
    Ok(Op::Vote {
        mode,
        a,
        mask,
        d: b.target(d, ty)?,
    })
}

pub(crate) fn bar(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    if m.eat("warp") {
        if !m.eat("sync") {
            return Err("`bar.warp` needs `.sync`".into());
        }
        m.end()?;
        let [mask] = take(o)?;
        return Ok(Op::BarWarp {
            mask: b.source(mask, Ty::B32)?,
        });
    }
    if !m.eat("sync") {
        return Err("`bar` needs `.sync`".into());
    }
    m.end()?;
    match take(o)? {
        [
            Operand::Number(Number::Int {
                value: 0..=15,
                negative: false,
            }),
        ] => Ok(Op::Bar),
        _ => Err("a barrier has a number from 0 to 15, for the whole block".into()),
    }
}
