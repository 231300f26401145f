//! From an opcode with modifiers and operands to an operation.

use super::body::Body;
use super::operand::Operand;
use super::{arith, data};
use crate::isa::{Op, Ty};

/// The modifiers of an opcode, read from left to right.
pub(crate) struct Mods<'a> {
    parts: Vec<&'a str>,
    at: usize,
}

impl<'a> Mods<'a> {
    /// Reads a modifier if it is next.
    pub(crate) fn eat(&mut self, name: &str) -> bool {
        let found = self.parts.get(self.at) == Some(&name);
        self.at += usize::from(found);
        found
    }

    /// The next modifier, whatever it is.
    pub(crate) fn any(&mut self) -> Result<&'a str, String> {
        let part = self.parts.get(self.at).ok_or("a modifier is missing")?;
        self.at += 1;
        Ok(part)
    }

    pub(crate) fn peek(&self) -> Option<&'a str> {
        self.parts.get(self.at).copied()
    }

    pub(crate) fn ty(&mut self) -> Result<Ty, String> {
        let part = self.any().map_err(|_| "a type is missing")?;
        Ty::parse(part).ok_or_else(|| format!("the modifier `.{part}` is not supported here"))
    }

    /// The last modifier, a type.
    pub(crate) fn last_ty(&mut self) -> Result<Ty, String> {
        let ty = self.ty()?;
        self.end()?;
        Ok(ty)
    }

    pub(crate) fn end(&self) -> Result<(), String> {
        match self.peek() {
            None => Ok(()),
            Some(part) => Err(format!("the modifier `.{part}` is not supported here")),
        }
    }
}

/// Exactly `N` operands.
pub(crate) fn take<'o, 'a, const N: usize>(
    operands: &'o [Operand<'a>],
) -> Result<&'o [Operand<'a>; N], String> {
    operands
        .try_into()
        .map_err(|_| format!("{} operands where {N} belong", operands.len()))
}

pub(crate) fn unsupported(ty: Ty) -> String {
    format!("the type {ty:?} is not supported here")
}

pub(crate) fn decode(
    body: &mut Body<'_>,
    opcode: &str,
    operands: &[Operand<'_>],
    at: usize,
    line: u32,
) -> Result<Op, String> {
    let mut parts = opcode.split('.');
    let name = parts.next().unwrap_or_default();
    let mut mods = Mods {
        parts: parts.collect(),
        at: 0,
    };
    let m = &mut mods;
    match name {
        "add" | "sub" => arith::add_sub(body, name, m, operands),
        "mul" => arith::mul(body, m, operands),
        "mad" => arith::mad(body, m, operands),
        "fma" => arith::fma(body, m, operands),
        "div" => arith::div(body, m, operands),
        "rem" => arith::rem(body, m, operands),
        "min" | "max" => arith::min_max(body, name, m, operands),
        "abs" | "neg" => arith::abs_neg(body, name, m, operands),
        "sqrt" | "rcp" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => {
            arith::function(body, name, m, operands)
        }
        "and" | "or" | "xor" => arith::logic(body, name, m, operands),
        "not" => arith::not(body, m, operands),
        "shl" | "shr" => arith::shift(body, name, m, operands),
        "popc" | "clz" | "brev" => arith::count(body, name, m, operands),
        "bfe" | "bfi" | "prmt" => arith::fields(body, name, m, operands),
        "copysign" => arith::copysign(body, m, operands),
        "testp" => arith::testp(body, m, operands),
        "setp" => arith::setp(body, m, operands),
        "selp" => arith::selp(body, m, operands),
        "mov" => data::mov(body, m, operands),
        "cvt" => data::cvt(body, m, operands),
        "ld" => data::load(body, m, operands),
        "st" => data::store(body, m, operands),
        "shfl" => data::shfl(body, m, operands),
        "vote" => data::vote(body, m, operands),
        "activemask" => {
            let ty = m.last_ty()?;
            let [d] = take(operands)?;
            if ty != Ty::B32 {
                return Err(unsupported(ty));
            }
            Ok(Op::ActiveMask {
                d: body.target(d, ty)?,
            })
        }
        "bar" => data::bar(body, m, operands),
        "bra" => {
            let uni = m.eat("uni");
            m.end()?;
            let [Operand::Name(label)] = take(operands)? else {
                return Err("a branch goes to a label".into());
            };
            body.jump(at, label, line);
            Ok(Op::Bra { target: 0, uni })
        }
        "ret" | "exit" => {
            m.end()?;
            let [] = take(operands)?;
            Ok(Op::Ret)
        }
        other => Err(format!("the instruction `{other}` is not supported")),
    }
}
