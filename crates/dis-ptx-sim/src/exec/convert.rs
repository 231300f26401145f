//! `cvt`, one value at a time (PTX ISA, "Data Movement and Conversion Instructions: cvt").

use crate::approx::NAN32;
use crate::isa::{Round, Sort, Ty};

const NAN64: u64 = 0x7fff_ffff_ffff_ffff;

/// A conversion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conversion {
    pub(crate) to: Ty,
    pub(crate) from: Ty,
    pub(crate) round: Round,
    pub(crate) sat: bool,
    pub(crate) ftz: bool,
}

fn integral(x: f64, round: Round) -> f64 {
    match round {
        Round::Nearest | Round::None => x.round_ties_even(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
    }
}

/// Least and greatest value of an integer type.
fn range(ty: Ty) -> (i128, i128) {
    let bits = 8 * ty.bytes() as u32;
    if ty.sort() == Sort::Signed {
        (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
    } else {
        (0, (1i128 << bits) - 1)
    }
}

fn read_int(bits: u64, ty: Ty) -> i128 {
    let shift = 64 - 8 * ty.bytes() as u32;
    if ty.sort() == Sort::Signed {
        i128::from((bits << shift) as i64 >> shift)
    } else {
        i128::from(bits << shift >> shift)
    }
}

/// Corrects a value rounded to nearest, given how it compares with the exact one.
macro_rules! direct {
    ($name:ident, $float:ty) => {
        fn $name(nearest: $float, exact_is: std::cmp::Ordering, round: Round) -> $float {
            use std::cmp::Ordering::{Equal, Greater, Less};
            let down = match round {
                Round::Nearest | Round::None => return nearest,
                Round::Down => true,
                Round::Up => false,
                // Towards zero.
                Round::Zero => nearest > 0.0,
            };
            match exact_is {
                Equal => nearest,
                Less if down => nearest.next_down(),
                Greater if !down => nearest.next_up(),
                _ => nearest,
            }
        }
    };
}
direct!(direct32, f32);
direct!(direct64, f64);

/// A float32 as the upper half of its bits, to nearest even; NaN becomes 0x7fff.
pub(crate) fn bf16(x: f32) -> u16 {
    if x.is_nan() {
        return 0x7fff;
    }
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

fn store32(x: f32, ftz: bool) -> u64 {
    let x = if ftz && x.is_subnormal() {
        0f32.copysign(x)
    } else {
        x
    };
    u64::from(if x.is_nan() { NAN32 } else { x.to_bits() })
}

fn store64(x: f64) -> u64 {
    if x.is_nan() { NAN64 } else { x.to_bits() }
}

/// The result, sign- or zero-extended to 64 bits.
pub(crate) fn convert(c: Conversion, bits: u64) -> u64 {
    let Conversion {
        to,
        from,
        round,
        sat,
        ftz,
    } = c;
    if from.sort() != Sort::Float {
        let value = read_int(bits, from);
        return match to {
            Ty::F32 => {
                let nearest = value as f32;
                let near = nearest as i128;
                store32(direct32(nearest, value.cmp(&near), round), false)
            }
            Ty::F64 => {
                let nearest = value as f64;
                store64(direct64(nearest, value.cmp(&(nearest as i128)), round))
            }
            _ => {
                let (low, high) = range(to);
                let value = if sat { value.clamp(low, high) } else { value };
                read_int(value as u64, to) as u64
            }
        };
    }
    let value = if from == Ty::F32 {
        let x = f32::from_bits(bits as u32);
        f64::from(if ftz && x.is_subnormal() {
            0f32.copysign(x)
        } else {
            x
        })
    } else {
        f64::from_bits(bits)
    };
    match to {
        Ty::F32 if from == Ty::F32 => {
            let x = integral(value, round) as f32;
            store32(if sat { saturate32(x) } else { x }, ftz)
        }
        Ty::F32 => {
            let nearest = value as f32;
            let order = value
                .partial_cmp(&f64::from(nearest))
                .unwrap_or(std::cmp::Ordering::Equal);
            let x = direct32(nearest, order, round);
            store32(if sat { saturate32(x) } else { x }, ftz)
        }
        Ty::F64 => {
            let x = if from == Ty::F64 {
                integral(value, round)
            } else {
                value
            };
            store64(match sat {
                true if x.is_nan() => 0.0,
                true => x.clamp(0.0, 1.0),
                false => x,
            })
        }
        Ty::Bf16 => u64::from(bf16(value as f32)),
        _ => {
            // NaN becomes zero, but the least value where 64 bits are involved on either side.
            if value.is_nan() {
                let wide = from == Ty::F64 || to.bytes() == 8;
                let bits = 8 * to.bytes() as u32;
                return if wide {
                    read_int(1u64 << (bits - 1), to) as u64
                } else {
                    0
                };
            }
            // `as` saturates, and 128 bits hold the range of every integer type.
            let (low, high) = range(to);
            read_int((integral(value, round) as i128).clamp(low, high) as u64, to) as u64
        }
    }
}

fn saturate32(x: f32) -> f32 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) }
}
