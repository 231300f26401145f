//! Operands, and how registers agree with the types of instructions.

use super::cursor::Cursor;
use crate::ParseError;
use crate::code::Sreg;
use crate::isa::{Sort, Ty};
use crate::lex::Token;

/// A constant as written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Int { value: u64, negative: bool },
    F32(u32),
    F64(u64),
    Decimal(f64),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand<'a> {
    /// Register, label, parameter or shared variable.
    Name(&'a str),
    Sreg(Sreg),
    Number(Number),
    /// `!%p1`
    Not(&'a str),
    /// `%p1|%p2`
    Pair(&'a str, &'a str),
    /// `{%f1, %f2}`
    Vector(Vec<Operand<'a>>),
    /// `[%rd1+16]`
    Address {
        base: &'a str,
        offset: i64,
    },
    /// `_`
    Sink,
}

pub(crate) fn operand<'a>(cursor: &mut Cursor<'a>) -> Result<Operand<'a>, ParseError> {
    let line = cursor.line();
    if cursor.accept('!') {
        return Ok(Operand::Not(cursor.word("a predicate")?));
    }
    if cursor.accept('{') {
        let mut parts = vec![operand(cursor)?];
        while cursor.accept(',') {
            parts.push(operand(cursor)?);
        }
        cursor.mark('}')?;
        return Ok(Operand::Vector(parts));
    }
    if cursor.accept('[') {
        let base = cursor.word("an address")?;
        let mut offset = 0;
        let plus = cursor.accept('+');
        let minus = cursor.accept('-');
        if plus || minus {
            let value = cursor.int("an offset")?;
            let Ok(value) = i32::try_from(value) else {
                return Err(cursor.fail_at(line, "an offset has 32 bits"));
            };
            offset = if minus {
                -i64::from(value)
            } else {
                i64::from(value)
            };
        }
        cursor.mark(']')?;
        return Ok(Operand::Address { base, offset });
    }
    let negative = cursor.accept('-');
    let number = match cursor.peek() {
        Some(Token::Int(value)) => Some(Number::Int { value, negative }),
        Some(Token::Decimal(v)) => Some(Number::Decimal(if negative { -v } else { v })),
        Some(Token::F32(bits)) if !negative => Some(Number::F32(bits)),
        Some(Token::F64(bits)) if !negative => Some(Number::F64(bits)),
        _ => None,
    };
    if let Some(number) = number {
        cursor.advance();
        return Ok(Operand::Number(number));
    }
    if negative {
        return Err(cursor.fail_at(line, "a sign before what is no number"));
    }
    let word = cursor.word("an operand")?;
    if word == "_" {
        return Ok(Operand::Sink);
    }
    if let Some(sreg) = Sreg::parse(word) {
        return Ok(Operand::Sreg(sreg));
    }
    if cursor.accept('|') {
        return Ok(Operand::Pair(word, cursor.word("a predicate")?));
    }
    Ok(Operand::Name(word))
}

/// Whether a register of type `reg` may stand where an instruction says `inst`. Loads, stores and
/// conversions also take wider registers (`wider`).
pub(crate) fn agrees(reg: Ty, inst: Ty, wider: bool) -> bool {
    let (r, i) = (reg.sort(), inst.sort());
    if r == Sort::Pred || i == Sort::Pred {
        return r == i;
    }
    let same_sort = match (r, i) {
        (Sort::Bits, _) | (_, Sort::Bits) => true,
        (Sort::Float, Sort::Float) => reg == inst,
        (Sort::Float, _) | (_, Sort::Float) => false,
        _ => true,
    };
    let size = reg.bytes() == inst.bytes()
        || (wider && r != Sort::Float && i != Sort::Float && reg.bytes() > inst.bytes())
        || (wider && inst.bytes() == 2 && reg.bytes() == 4 && r != Sort::Float);
    same_sort && size
}

/// Bits of a constant as a value of a type.
pub(crate) fn constant(number: Number, ty: Ty) -> Result<u64, String> {
    let wrong = || format!("a constant that is no {ty:?}");
    match number {
        Number::Int { value, negative } => {
            if ty.sort() == Sort::Float || ty.sort() == Sort::Pred {
                return Err(wrong());
            }
            let bits = 8 * ty.bytes() as u32;
            let limit = if bits == 64 {
                u64::MAX
            } else {
                (1 << bits) - 1
            };
            let fits = if negative {
                value <= limit / 2 + 1
            } else {
                value <= limit
            };
            if !fits {
                return Err(format!("a constant beyond {bits} bits"));
            }
            Ok(if negative {
                value.wrapping_neg() & limit
            } else {
                value
            })
        }
        Number::F32(bits) => match ty {
            Ty::F32 | Ty::B32 => Ok(u64::from(bits)),
            _ => Err(wrong()),
        },
        Number::F64(bits) => match ty {
            Ty::F64 | Ty::B64 => Ok(bits),
            Ty::F32 => Ok(u64::from((f64::from_bits(bits) as f32).to_bits())),
            _ => Err(wrong()),
        },
        Number::Decimal(value) => match ty {
            Ty::F32 => Ok(u64::from((value as f32).to_bits())),
            Ty::F64 => Ok(value.to_bits()),
            _ => Err(wrong()),
        },
    }
}
