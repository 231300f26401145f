//! Arithmetic of single lanes where it is more than an operator.

use crate::approx::{NAN32, canonical};
use crate::isa::{Cmp, Testp};

const NAN64: u64 = 0x7fff_ffff_ffff_ffff;

#[inline(always)]
pub(crate) fn canonical64(x: f64) -> u64 {
    if x.is_nan() { NAN64 } else { x.to_bits() }
}

/// Minimum or maximum of floats: NaN gives way to a number, and -0 is below +0.
#[inline(always)]
pub(crate) fn pick32(a: u32, b: u32, max: bool) -> u32 {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    let ordered = if x == y {
        if max { a & b } else { a | b }
    } else if (x < y) != max {
        a
    } else {
        b
    };
    let other = if x.is_nan() { canonical(y) } else { a };
    if x.is_nan() || y.is_nan() {
        other
    } else {
        ordered
    }
}

/// As [`pick32`], but NaN wins.
#[inline(always)]
pub(crate) fn pick32_nan(a: u32, b: u32, max: bool) -> u32 {
    if f32::from_bits(a).is_nan() || f32::from_bits(b).is_nan() {
        NAN32
    } else {
        pick32(a, b, max)
    }
}

#[inline(always)]
pub(crate) fn pick64(a: u64, b: u64, max: bool) -> u64 {
    let (x, y) = (f64::from_bits(a), f64::from_bits(b));
    if x.is_nan() {
        return canonical64(y);
    }
    if y.is_nan() {
        return a;
    }
    if x == y {
        return if max { a & b } else { a | b };
    }
    if (x < y) != max { a } else { b }
}

#[inline(always)]
pub(crate) fn shl(a: u32, n: u32) -> u32 {
    if n > 31 { 0 } else { a << n }
}

#[inline(always)]
pub(crate) fn shr(a: u32, n: u32) -> u32 {
    if n > 31 { 0 } else { a >> n }
}

#[inline(always)]
pub(crate) fn sar(a: u32, n: u32) -> u32 {
    ((a as i32) >> n.min(31)) as u32
}

/// `bfe`: `length` bits from `position`, with zeros or the sign above them.
pub(crate) fn bfe(a: u32, position: u32, length: u32, signed: bool) -> u32 {
    let (position, length) = (position & 255, length & 255);
    if length == 0 {
        return 0;
    }
    let wide = if signed {
        i64::from(a as i32)
    } else {
        i64::from(a)
    };
    let shifted = if position > 31 {
        wide >> 32
    } else {
        wide >> position
    };
    if length >= 32 {
        return shifted as u32;
    }
    let up = 64 - length;
    if signed {
        ((shifted << up) >> up) as u32
    } else {
        (((shifted as u64) << up) >> up) as u32
    }
}

/// `bfi`: the low `length` bits of `a` at `position` of `b`.
pub(crate) fn bfi(a: u32, b: u32, position: u32, length: u32) -> u32 {
    let (position, length) = (position & 255, length & 255);
    if position > 31 || length == 0 {
        return b;
    }
    let ones = if length > 31 {
        u32::MAX
    } else {
        (1 << length) - 1
    };
    let mask = ones << position;
    (b & !mask) | ((a << position) & mask)
}

/// `prmt` in its default mode: each nibble of `c` picks a byte of {b, a}, or its sign.
pub(crate) fn prmt(a: u32, b: u32, c: u32) -> u32 {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    let mut out = [0; 4];
    for (k, o) in out.iter_mut().enumerate() {
        let nibble = c >> (4 * k) & 15;
        let byte = bytes[(nibble & 7) as usize];
        *o = if nibble & 8 == 0 {
            byte
        } else {
            ((byte as i8) >> 7) as u8
        };
    }
    u32::from_le_bytes(out)
}

/// Comparison of floats.
#[inline(always)]
pub(crate) fn compare_float(cmp: Cmp, x: f64, y: f64) -> bool {
    let unordered = x.is_nan() || y.is_nan();
    match cmp {
        Cmp::Eq => x == y,
        Cmp::Ne => x != y && !unordered,
        Cmp::Lt => x < y,
        Cmp::Le => x <= y,
        Cmp::Gt => x > y,
        Cmp::Ge => x >= y,
        Cmp::Equ => x == y || unordered,
        Cmp::Neu => x != y || unordered,
        Cmp::Ltu => x < y || unordered,
        Cmp::Leu => x <= y || unordered,
        Cmp::Gtu => x > y || unordered,
        Cmp::Geu => x >= y || unordered,
        Cmp::Num => !unordered,
        Cmp::Nan => unordered,
    }
}

/// Comparison of integers.
#[inline(always)]
pub(crate) fn compare_int<T: Ord>(cmp: Cmp, x: T, y: T) -> bool {
    match cmp {
        Cmp::Eq | Cmp::Equ => x == y,
        Cmp::Ne | Cmp::Neu => x != y,
        Cmp::Lt | Cmp::Ltu => x < y,
        Cmp::Le | Cmp::Leu => x <= y,
        Cmp::Gt | Cmp::Gtu => x > y,
        Cmp::Ge | Cmp::Geu => x >= y,
        Cmp::Num => true,
        Cmp::Nan => false,
    }
}

macro_rules! test {
    ($name:ident, $float:ty) => {
        pub(crate) fn $name(f: Testp, x: $float) -> bool {
            match f {
                Testp::Finite => x.is_finite(),
                Testp::Infinite => x.is_infinite(),
                Testp::Number => !x.is_nan(),
                Testp::NotANumber => x.is_nan(),
                // The ISA counts zero as normal.
                Testp::Normal => x.is_normal() || x == 0.0,
                Testp::Subnormal => x.is_subnormal(),
            }
        }
    };
}
test!(test32, f32);
test!(test64, f64);
