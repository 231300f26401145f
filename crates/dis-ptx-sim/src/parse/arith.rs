//! Arithmetic, logic and comparisons.

use super::body::Body;
use super::decode::{Mods, take, unsupported};
use super::operand::Operand;
use crate::isa::{
    Bin32, Bin64, Cmp, Logic, Op, Shift64, Sort, Special, Testp, Tri32, Tri64, Ty, Un32, Un64,
};

type Result = std::result::Result<Op, String>;

/// Operations of both widths whose operands all have the type of the instruction.
macro_rules! operation {
    ($name:ident, $kind:ident, [$($field:ident = $operand:ident),+]) => {
        fn $name(b: &mut Body<'_>, f: $kind, ty: Ty, operands: &[Operand<'_>]) -> Result {
            let [d, $($operand),+] = take(operands)?;
            Ok(Op::$kind {
                f,
                $($field: b.source($operand, ty)?,)+
                d: b.target(d, ty)?,
            })
        }
    };
}
operation!(un32, Un32, [a = x]);
operation!(un64, Un64, [a = x]);
operation!(bin32, Bin32, [a = x, b = y]);
operation!(bin64, Bin64, [a = x, b = y]);
operation!(tri32, Tri32, [a = x, b = y, c = z]);
operation!(tri64, Tri64, [a = x, b = y, c = z]);

/// Whether the type is an integer of 32 or 64 bits that arithmetic takes.
fn integer(ty: Ty) -> bool {
    matches!(ty, Ty::U32 | Ty::S32 | Ty::U64 | Ty::S64)
}

pub(crate) fn add_sub(b: &mut Body<'_>, name: &str, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let rounded = m.eat("rn");
    let ty = m.last_ty()?;
    let add = name == "add";
    if integer(ty) && rounded {
        return Err("integers are not rounded".into());
    }
    match ty {
        Ty::U32 | Ty::S32 => bin32(b, if add { Bin32::Add } else { Bin32::Sub }, ty, o),
        Ty::U64 | Ty::S64 => bin64(b, if add { Bin64::Add } else { Bin64::Sub }, ty, o),
        Ty::F32 => {
            b.unqualified = !rounded;
            bin32(b, if add { Bin32::AddF } else { Bin32::SubF }, ty, o)
        }
        Ty::F64 => {
            b.unqualified = !rounded;
            bin64(b, if add { Bin64::AddF } else { Bin64::SubF }, ty, o)
        }
        _ => Err(unsupported(ty)),
    }
}

pub(crate) fn mul(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let (lo, hi, wide) = (m.eat("lo"), m.eat("hi"), m.eat("wide"));
    let rounded = m.eat("rn");
    let ty = m.last_ty()?;
    match (ty, lo, hi, wide, rounded) {
        (Ty::U32 | Ty::S32, true, false, false, false) => bin32(b, Bin32::MulLo, ty, o),
        (Ty::U32, false, true, false, false) => bin32(b, Bin32::MulHiU, ty, o),
        (Ty::S32, false, true, false, false) => bin32(b, Bin32::MulHiS, ty, o),
        (Ty::U64 | Ty::S64, true, false, false, false) => bin64(b, Bin64::MulLo, ty, o),
        (Ty::U64, false, true, false, false) => bin64(b, Bin64::MulHiU, ty, o),
        (Ty::S64, false, true, false, false) => bin64(b, Bin64::MulHiS, ty, o),
        (Ty::U32 | Ty::S32, false, false, true, false) => {
            let [d, x, y] = take(o)?;
            let (x, y) = (b.source(x, ty)?, b.source(y, ty)?);
            let signed = ty == Ty::S32;
            let to = if signed { Ty::S64 } else { Ty::U64 };
            Ok(Op::MulWide {
                signed,
                a: x,
                b: y,
                d: b.target(d, to)?,
            })
        }
        (Ty::F32, false, false, false, _) => {
            b.unqualified = !rounded;
            bin32(b, Bin32::MulF, ty, o)
        }
        (Ty::F64, false, false, false, _) => {
            b.unqualified = !rounded;
            bin64(b, Bin64::MulF, ty, o)
        }
        _ => Err("this form of `mul` is not supported".into()),
    }
}

pub(crate) fn mad(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let part = m.any()?;
    let ty = m.last_ty()?;
    match (part, ty) {
        ("lo", Ty::U32 | Ty::S32) => tri32(b, Tri32::MadLo, ty, o),
        ("hi", Ty::U32) => tri32(b, Tri32::MadHiU, ty, o),
        ("hi", Ty::S32) => tri32(b, Tri32::MadHiS, ty, o),
        ("lo", Ty::U64 | Ty::S64) => tri64(b, Tri64::MadLo, ty, o),
        ("wide", Ty::U32 | Ty::S32) => {
            let [d, x, y, z] = take(o)?;
            let signed = ty == Ty::S32;
            let to = if signed { Ty::S64 } else { Ty::U64 };
            let (x, y, z) = (b.source(x, ty)?, b.source(y, ty)?, b.source(z, to)?);
            Ok(Op::MadWide {
                signed,
                a: x,
                b: y,
                c: z,
                d: b.target(d, to)?,
            })
        }
        _ => Err("this form of `mad` is not supported".into()),
    }
}

pub(crate) fn fma(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    if !m.eat("rn") {
        return Err("`fma` needs `.rn`".into());
    }
    match m.last_ty()? {
        Ty::F32 => tri32(b, Tri32::FmaF, Ty::F32, o),
        Ty::F64 => tri64(b, Tri64::FmaF, Ty::F64, o),
        ty => Err(unsupported(ty)),
    }
}

pub(crate) fn div(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let (rounded, approx, full) = (m.eat("rn"), m.eat("approx"), m.eat("full"));
    let ftz = (approx || full) && m.eat("ftz");
    let ty = m.last_ty()?;
    match (ty, rounded, approx || full) {
        (Ty::F32, true, false) => bin32(b, Bin32::DivF, ty, o),
        (Ty::F64, true, false) => bin64(b, Bin64::DivF, ty, o),
        (Ty::F32, false, true) => {
            let [d, x, y] = take(o)?;
            let (x, y) = (b.source(x, ty)?, b.source(y, ty)?);
            Ok(Op::DivApprox {
                full,
                ftz,
                a: x,
                b: y,
                d: b.target(d, ty)?,
            })
        }
        (Ty::U32, false, false) => bin32(b, Bin32::DivU, ty, o),
        (Ty::S32, false, false) => bin32(b, Bin32::DivS, ty, o),
        (Ty::U64, false, false) => bin64(b, Bin64::DivU, ty, o),
        (Ty::S64, false, false) => bin64(b, Bin64::DivS, ty, o),
        (Ty::F32 | Ty::F64, false, false) => Err("`div` of floats needs `.rn` or `.approx`".into()),
        _ => Err("this form of `div` is not supported".into()),
    }
}

pub(crate) fn rem(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    match m.last_ty()? {
        Ty::U32 => bin32(b, Bin32::RemU, Ty::U32, o),
        Ty::S32 => bin32(b, Bin32::RemS, Ty::S32, o),
        Ty::U64 => bin64(b, Bin64::RemU, Ty::U64, o),
        Ty::S64 => bin64(b, Bin64::RemS, Ty::S64, o),
        ty => Err(unsupported(ty)),
    }
}

pub(crate) fn min_max(b: &mut Body<'_>, name: &str, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let nan = m.eat("NaN");
    let ty = m.last_ty()?;
    let min = name == "min";
    let pick = |lower, upper| if min { lower } else { upper };
    let pick64 = |lower, upper| if min { lower } else { upper };
    match (ty, nan) {
        (Ty::U32, false) => bin32(b, pick(Bin32::MinU, Bin32::MaxU), ty, o),
        (Ty::S32, false) => bin32(b, pick(Bin32::MinS, Bin32::MaxS), ty, o),
        (Ty::F32, false) => bin32(b, pick(Bin32::MinF, Bin32::MaxF), ty, o),
        (Ty::F32, true) => bin32(b, pick(Bin32::MinNanF, Bin32::MaxNanF), ty, o),
        (Ty::U64, false) => bin64(b, pick64(Bin64::MinU, Bin64::MaxU), ty, o),
        (Ty::S64, false) => bin64(b, pick64(Bin64::MinS, Bin64::MaxS), ty, o),
        (Ty::F64, false) => bin64(b, pick64(Bin64::MinF, Bin64::MaxF), ty, o),
        _ => Err(unsupported(ty)),
    }
}

pub(crate) fn abs_neg(b: &mut Body<'_>, name: &str, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let ty = m.last_ty()?;
    match (ty, name == "abs") {
        (Ty::S32, true) => un32(b, Un32::AbsS, ty, o),
        (Ty::S32, false) => un32(b, Un32::NegS, ty, o),
        (Ty::F32, true) => un32(b, Un32::AbsF, ty, o),
        (Ty::F32, false) => un32(b, Un32::NegF, ty, o),
        (Ty::S64, true) => un64(b, Un64::AbsS, ty, o),
        (Ty::S64, false) => un64(b, Un64::NegS, ty, o),
        (Ty::F64, true) => un64(b, Un64::AbsF, ty, o),
        (Ty::F64, false) => un64(b, Un64::NegF, ty, o),
        _ => Err(unsupported(ty)),
    }
}

/// `sqrt`, `rcp` with IEEE rounding; they and the others as approximations.
pub(crate) fn function(
    b: &mut Body<'_>,
    name: &str,
    m: &mut Mods<'_>,
    o: &[Operand<'_>],
) -> Result {
    if matches!(name, "sqrt" | "rcp") && m.eat("rn") {
        let root = name == "sqrt";
        return match m.last_ty()? {
            Ty::F32 => un32(b, if root { Un32::SqrtF } else { Un32::RcpF }, Ty::F32, o),
            Ty::F64 => un64(b, if root { Un64::SqrtF } else { Un64::RcpF }, Ty::F64, o),
            ty => Err(unsupported(ty)),
        };
    }
    if !m.eat("approx") {
        return Err(format!("`{name}` needs its rounding"));
    }
    let ftz = name != "tanh" && m.eat("ftz");
    let ty = m.last_ty()?;
    if ty != Ty::F32 {
        return Err(unsupported(ty));
    }
    let f = match name {
        "sqrt" => Special::Sqrt,
        "rcp" => Special::Rcp,
        "rsqrt" => Special::Rsqrt,
        "ex2" => Special::Ex2,
        "lg2" => Special::Lg2,
        "sin" => Special::Sin,
        "cos" => Special::Cos,
        _ => Special::Tanh,
    };
    let [d, x] = take(o)?;
    Ok(Op::Special {
        f,
        ftz,
        a: b.source(x, ty)?,
        d: b.target(d, ty)?,
    })
}

pub(crate) fn logic(b: &mut Body<'_>, name: &str, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let ty = m.last_ty()?;
    let (f, f32, f64) = match name {
        "and" => (Logic::And, Bin32::And, Bin64::And),
        "or" => (Logic::Or, Bin32::Or, Bin64::Or),
        _ => (Logic::Xor, Bin32::Xor, Bin64::Xor),
    };
    match ty {
        Ty::Pred => {
            let [d, x, y] = take(o)?;
            Ok(Op::LogicP {
                f,
                a: b.source(x, ty)?,
                b: b.source(y, ty)?,
                d: b.target(d, ty)?,
            })
        }
        Ty::B32 => bin32(b, f32, ty, o),
        Ty::B64 => bin64(b, f64, ty, o),
        _ => Err(unsupported(ty)),
    }
}

pub(crate) fn not(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    match m.last_ty()? {
        Ty::Pred => {
            let [d, x] = take(o)?;
            Ok(Op::NotP {
                a: b.source(x, Ty::Pred)?,
                d: b.target(d, Ty::Pred)?,
            })
        }
        Ty::B32 => un32(b, Un32::Not, Ty::B32, o),
        Ty::B64 => un64(b, Un64::Not, Ty::B64, o),
        ty => Err(unsupported(ty)),
    }
}

pub(crate) fn shift(b: &mut Body<'_>, name: &str, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let ty = m.last_ty()?;
    let left = name == "shl";
    if left && ty.sort() != Sort::Bits {
        return Err(unsupported(ty));
    }
    let signed = ty.sort() == Sort::Signed;
    let [d, x, y] = take(o)?;
    let (a, amount) = (b.source(x, ty)?, b.source(y, Ty::U32)?);
    let d = b.target(d, ty)?;
    match ty {
        Ty::B32 | Ty::U32 | Ty::S32 => {
            let f = match (left, signed) {
                (true, _) => Bin32::Shl,
                (false, true) => Bin32::ShrS,
                (false, false) => Bin32::ShrU,
            };
            Ok(Op::Bin32 { f, d, a, b: amount })
        }
        Ty::B64 | Ty::U64 | Ty::S64 => {
            let f = match (left, signed) {
                (true, _) => Shift64::Shl,
                (false, true) => Shift64::ShrS,
                (false, false) => Shift64::ShrU,
            };
            Ok(Op::Shift64 { f, d, a, b: amount })
        }
        _ => Err(unsupported(ty)),
    }
}

pub(crate) fn count(b: &mut Body<'_>, name: &str, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let ty = m.last_ty()?;
    if ty != Ty::B32 {
        return Err(unsupported(ty));
    }
    let f = match name {
        "popc" => Un32::Popc,
        "clz" => Un32::Clz,
        _ => Un32::Brev,
    };
    let [d, x] = take(o)?;
    let to = if f == Un32::Brev { Ty::B32 } else { Ty::U32 };
    Ok(Op::Un32 {
        f,
        a: b.source(x, ty)?,
        d: b.target(d, to)?,
    })
}

pub(crate) fn fields(b: &mut Body<'_>, name: &str, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let ty = m.last_ty()?;
    match (name, ty) {
        ("bfe", Ty::U32 | Ty::S32) => {
            let f = if ty == Ty::U32 {
                Tri32::BfeU
            } else {
                Tri32::BfeS
            };
            let [d, x, y, z] = take(o)?;
            let (a, p, l) = (
                b.source(x, ty)?,
                b.source(y, Ty::U32)?,
                b.source(z, Ty::U32)?,
            );
            Ok(Op::Tri32 {
                f,
                a,
                b: p,
                c: l,
                d: b.target(d, ty)?,
            })
        }
        ("bfi", Ty::B32) => {
            let [d, x, y, z, w] = take(o)?;
            let (a, base) = (b.source(x, ty)?, b.source(y, ty)?);
            let (c, e) = (b.source(z, Ty::U32)?, b.source(w, Ty::U32)?);
            Ok(Op::Bfi32 {
                a,
                b: base,
                c,
                e,
                d: b.target(d, ty)?,
            })
        }
        ("prmt", Ty::B32) => tri32(b, Tri32::Prmt, ty, o),
        _ => Err(unsupported(ty)),
    }
}

pub(crate) fn copysign(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    match m.last_ty()? {
        Ty::F32 => bin32(b, Bin32::CopysignF, Ty::F32, o),
        Ty::F64 => bin64(b, Bin64::CopysignF, Ty::F64, o),
        ty => Err(unsupported(ty)),
    }
}

pub(crate) fn testp(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let f = match m.any()? {
        "finite" => Testp::Finite,
        "infinite" => Testp::Infinite,
        "number" => Testp::Number,
        "notanumber" => Testp::NotANumber,
        "normal" => Testp::Normal,
        "subnormal" => Testp::Subnormal,
        other => return Err(format!("the test `{other}` does not exist")),
    };
    let ty = m.last_ty()?;
    if !matches!(ty, Ty::F32 | Ty::F64) {
        return Err(unsupported(ty));
    }
    let [d, x] = take(o)?;
    Ok(Op::Testp {
        f,
        ty,
        a: b.source(x, ty)?,
        d: b.target(d, Ty::Pred)?,
    })
}

fn comparison(name: &str, ty: Ty) -> std::result::Result<Cmp, String> {
    let (float, bits) = (ty.sort() == Sort::Float, ty.sort() == Sort::Bits);
    let unsigned = ty.sort() == Sort::Unsigned;
    Ok(match name {
        "eq" => Cmp::Eq,
        "ne" => Cmp::Ne,
        _ if bits => return Err(format!("bits have no order for `.{name}`")),
        "lt" => Cmp::Lt,
        "le" => Cmp::Le,
        "gt" => Cmp::Gt,
        "ge" => Cmp::Ge,
        "lo" if unsigned => Cmp::Lt,
        "ls" if unsigned => Cmp::Le,
        "hi" if unsigned => Cmp::Gt,
        "hs" if unsigned => Cmp::Ge,
        "equ" if float => Cmp::Equ,
        "neu" if float => Cmp::Neu,
        "ltu" if float => Cmp::Ltu,
        "leu" if float => Cmp::Leu,
        "gtu" if float => Cmp::Gtu,
        "geu" if float => Cmp::Geu,
        "num" if float => Cmp::Num,
        "nan" if float => Cmp::Nan,
        other => {
            return Err(format!(
                "the comparison `.{other}` of {ty:?} does not exist"
            ));
        }
    })
}

pub(crate) fn setp(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let name = m.any()?;
    let logic = match m.peek() {
        Some("and") => Some(Logic::And),
        Some("or") => Some(Logic::Or),
        Some("xor") => Some(Logic::Xor),
        _ => None,
    };
    if logic.is_some() {
        m.any()?;
    }
    let ty = m.last_ty()?;
    if !matches!(ty.bytes(), 4 | 8) || matches!(ty, Ty::F16x2 | Ty::Bf16x2) {
        return Err(unsupported(ty));
    }
    let cmp = comparison(name, ty)?;
    let (d, x, y, with) = match (logic, o) {
        (None, [d, x, y]) => (d, x, y, None),
        (Some(logic), [d, x, y, z]) => (d, x, y, Some((logic, b.predicate(z)?))),
        _ => return Err(format!("{} operands", o.len())),
    };
    let (x, y) = (b.source(x, ty)?, b.source(y, ty)?);
    let (d, q) = match d {
        Operand::Pair(p, q) => {
            let q = b.target(&Operand::Name(q), Ty::Pred)?;
            (b.target(&Operand::Name(p), Ty::Pred)?, Some(q))
        }
        _ => (b.target(d, Ty::Pred)?, None),
    };
    Ok(Op::Setp {
        cmp,
        ty,
        d,
        q,
        a: x,
        b: y,
        with,
    })
}

pub(crate) fn selp(b: &mut Body<'_>, m: &mut Mods<'_>, o: &[Operand<'_>]) -> Result {
    let ty = m.last_ty()?;
    if !matches!(ty.bytes(), 4 | 8) {
        return Err(unsupported(ty));
    }
    let [d, x, y, p] = take(o)?;
    let (x, y) = (b.source(x, ty)?, b.source(y, ty)?);
    let p = b.source(p, Ty::Pred)?;
    Ok(Op::Selp {
        file: ty.file(),
        a: x,
        b: y,
        p,
        d: b.target(d, ty)?,
    })
}
