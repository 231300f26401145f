//! Integer and bit instructions against their definitions in the PTX ISA.

#![allow(clippy::unwrap_used)]

mod common;

use common::{INTS, pairs, triples, wides, words};

fn check(code: &str, want: impl Fn(u32, u32, u32) -> u32) {
    let inputs = triples(&INTS);
    for (got, [a, b, c]) in words(code, &inputs).into_iter().zip(inputs) {
        assert_eq!(got, want(a, b, c), "{code} with {a:#x}, {b:#x}, {c:#x}");
    }
}

const WIDES: [u64; 14] = [
    0,
    1,
    2,
    31,
    63,
    64,
    65,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xdead_beef_1234_5678,
    0xffff_ffff_8000_0000,
    u64::MAX,
];

fn check64(code: &str, want: impl Fn(u64, u64, u64) -> u64) {
    let inputs = triples(&WIDES);
    for (got, [a, b, c]) in wides(code, &inputs).into_iter().zip(inputs) {
        assert_eq!(got, want(a, b, c), "{code} with {a:#x}, {b:#x}, {c:#x}");
    }
}

#[test]
fn sums_and_products_of_32_bits() {
    let wide = |x: u32| u64::from(x);
    let signed = |x: u32| i64::from(x as i32);
    check("add.u32 %d, %a, %b;", |a, b, _| (wide(a) + wide(b)) as u32);
    check("add.s32 %d, %a, %b;", |a, b, _| {
        (signed(a) + signed(b)) as u32
    });
    check("sub.u32 %d, %a, %b;", |a, b, _| {
        (signed(a) - signed(b)) as u32
    });
    check("mul.lo.u32 %d, %a, %b;", |a, b, _| {
        (wide(a) * wide(b)) as u32
    });
    check("mul.lo.s32 %d, %a, %b;", |a, b, _| {
        (signed(a) * signed(b)) as u32
    });
    check("mul.hi.u32 %d, %a, %b;", |a, b, _| {
        ((wide(a) * wide(b)) >> 32) as u32
    });
    check("mul.hi.s32 %d, %a, %b;", |a, b, _| {
        ((signed(a) * signed(b)) >> 32) as u32
    });
    check("mad.lo.u32 %d, %a, %b, %c;", |a, b, c| {
        (wide(a) * wide(b)).wrapping_add(wide(c)) as u32
    });
    check("mad.hi.u32 %d, %a, %b, %c;", |a, b, c| {
        (((wide(a) * wide(b)) >> 32) + wide(c)) as u32
    });
    check("mad.hi.s32 %d, %a, %b, %c;", |a, b, c| {
        (((signed(a) * signed(b)) >> 32) + signed(c)) as u32
    });
    check("neg.s32 %d, %a;", |a, _, _| (-signed(a)) as u32);
    check("abs.s32 %d, %a;", |a, _, _| signed(a).unsigned_abs() as u32);
}

#[test]
fn wide_products() {
    let high = "shr.u64 %w, %w, 32; cvt.u32.u64 %d, %w;";
    let wide = |x: u32| u64::from(x);
    let signed = |x: u32| i64::from(x as i32);
    check("mul.wide.u32 %w, %a, %b; cvt.u32.u64 %d, %w;", |a, b, _| {
        (wide(a) * wide(b)) as u32
    });
    check(&format!("mul.wide.u32 %w, %a, %b; {high}"), |a, b, _| {
        ((wide(a) * wide(b)) >> 32) as u32
    });
    check(&format!("mul.wide.s32 %w, %a, %b; {high}"), |a, b, _| {
        ((signed(a) * signed(b)) >> 32) as u32
    });
    check(
        &format!("cvt.u64.u32 %w, %c; mad.wide.u32 %w, %a, %b, %w; {high}"),
        |a, b, c| ((wide(a) * wide(b)).wrapping_add(wide(c)) >> 32) as u32,
    );
    check(
        &format!("cvt.s64.s32 %w, %c; mad.wide.s32 %w, %a, %b, %w; {high}"),
        |a, b, c| ((signed(a) * signed(b)).wrapping_add(signed(c)) >> 32) as u32,
    );
}

#[test]
fn division_truncates() {
    let inputs: Vec<_> = pairs(&INTS).into_iter().filter(|p| p[1] != 0).collect();
    for (code, want) in [
        ("div.u32 %d, %a, %b;", (|a, b| a / b) as fn(u32, u32) -> u32),
        ("rem.u32 %d, %a, %b;", |a, b| a % b),
        ("div.s32 %d, %a, %b;", |a, b| {
            (i64::from(a as i32) / i64::from(b as i32)) as u32
        }),
        ("rem.s32 %d, %a, %b;", |a, b| {
            (i64::from(a as i32) % i64::from(b as i32)) as u32
        }),
    ] {
        for (got, [a, b, _]) in words(code, &inputs).into_iter().zip(&inputs) {
            assert_eq!(got, want(*a, *b), "{code} with {a:#x}, {b:#x}");
        }
    }
    let inputs: Vec<_> = pairs(&WIDES).into_iter().filter(|p| p[1] != 0).collect();
    for (code, want) in [
        ("div.u64 %d, %a, %b;", (|a, b| a / b) as fn(u64, u64) -> u64),
        ("rem.u64 %d, %a, %b;", |a, b| a % b),
        ("div.s64 %d, %a, %b;", |a, b| {
            (i128::from(a as i64) / i128::from(b as i64)) as u64
        }),
        ("rem.s64 %d, %a, %b;", |a, b| {
            (i128::from(a as i64) % i128::from(b as i64)) as u64
        }),
    ] {
        for (got, [a, b, _]) in wides(code, &inputs).into_iter().zip(&inputs) {
            assert_eq!(got, want(*a, *b), "{code} with {a:#x}, {b:#x}");
        }
    }
}

#[test]
fn minima_and_maxima() {
    check("min.u32 %d, %a, %b;", |a, b, _| a.min(b));
    check("max.u32 %d, %a, %b;", |a, b, _| a.max(b));
    check("min.s32 %d, %a, %b;", |a, b, _| {
        (a as i32).min(b as i32) as u32
    });
    check("max.s32 %d, %a, %b;", |a, b, _| {
        (a as i32).max(b as i32) as u32
    });
    check64("min.u64 %d, %a, %b;", |a, b, _| a.min(b));
    check64("max.s64 %d, %a, %b;", |a, b, _| {
        (a as i64).max(b as i64) as u64
    });
}

#[test]
fn logic_and_counting() {
    check("and.b32 %d, %a, %b;", |a, b, _| a & b);
    check("or.b32 %d, %a, %b;", |a, b, _| a | b);
    check("xor.b32 %d, %a, %b;", |a, b, _| a ^ b);
    check("not.b32 %d, %a;", |a, _, _| !a);
    check("popc.b32 %d, %a;", |a, _, _| {
        (0..32).map(|k| a >> k & 1).sum()
    });
    check("clz.b32 %d, %a;", |a, _, _| {
        (0..32).rev().take_while(|k| a >> k & 1 == 0).count() as u32
    });
    check("brev.b32 %d, %a;", |a, _, _| {
        (0..32).map(|k| (a >> k & 1) << (31 - k)).sum()
    });
    check64("and.b64 %d, %a, %b;", |a, b, _| a & b);
    check64("or.b64 %d, %a, %b;", |a, b, _| a | b);
    check64("xor.b64 %d, %a, %b;", |a, b, _| a ^ b);
    check64("not.b64 %d, %a;", |a, _, _| !a);
}

/// Amounts beyond the width count as the width.
#[test]
fn shifts_clamp_their_amount() {
    check("shl.b32 %d, %a, %b;", |a, b, _| {
        (u64::from(a) << b.min(32)) as u32
    });
    check("shr.u32 %d, %a, %b;", |a, b, _| {
        (u64::from(a) >> b.min(32)) as u32
    });
    check("shr.b32 %d, %a, %b;", |a, b, _| {
        (u64::from(a) >> b.min(32)) as u32
    });
    check("shr.s32 %d, %a, %b;", |a, b, _| {
        (i64::from(a as i32) >> b.min(32)) as u32
    });
    let amount = |b: u64| (b as u32).min(64);
    check64("shl.b64 %d, %a, %s;", |a, b, _| {
        (u128::from(a) << amount(b)) as u64
    });
    check64("shr.u64 %d, %a, %s;", |a, b, _| {
        (u128::from(a) >> amount(b)) as u64
    });
    check64("shr.s64 %d, %a, %s;", |a, b, _| {
        (i128::from(a as i64) >> amount(b)) as u64
    });
}

#[test]
fn sums_and_products_of_64_bits() {
    let wide = |x: u64| u128::from(x);
    let signed = |x: u64| i128::from(x as i64);
    check64("add.u64 %d, %a, %b;", |a, b, _| (wide(a) + wide(b)) as u64);
    check64("sub.s64 %d, %a, %b;", |a, b, _| {
        (signed(a) - signed(b)) as u64
    });
    check64("mul.lo.u64 %d, %a, %b;", |a, b, _| {
        (wide(a) * wide(b)) as u64
    });
    check64("mul.hi.u64 %d, %a, %b;", |a, b, _| {
        ((wide(a) * wide(b)) >> 64) as u64
    });
    check64("mul.hi.s64 %d, %a, %b;", |a, b, _| {
        ((signed(a) * signed(b)) >> 64) as u64
    });
    check64("mad.lo.s64 %d, %a, %b, %c;", |a, b, c| {
        (wide(a) * wide(b)).wrapping_add(wide(c)) as u64
    });
    check64("neg.s64 %d, %a;", |a, _, _| (-signed(a)) as u64);
    check64("abs.s64 %d, %a;", |a, _, _| signed(a).unsigned_abs() as u64);
}

/// The loop that the ISA gives for `bfe`.
fn bfe(a: u32, b: u32, c: u32, signed: bool) -> u32 {
    let (pos, len) = (b & 255, c & 255);
    let sign = if !signed || len == 0 {
        0
    } else {
        a >> (pos + len - 1).min(31) & 1
    };
    let bit = |i: u32| {
        if i < len && pos + i <= 31 {
            a >> (pos + i) & 1
        } else {
            sign
        }
    };
    (0..32).map(|i| bit(i) << i).sum()
}

#[test]
fn fields_of_bits() {
    check("bfe.u32 %d, %a, %b, %c;", |a, b, c| bfe(a, b, c, false));
    check("bfe.s32 %d, %a, %b, %c;", |a, b, c| bfe(a, b, c, true));
    check("bfi.b32 %d, %a, 0x5a5a5a5a, %b, %c;", |a, b, c| {
        let (pos, len) = (b & 255, c & 255);
        let mut f = 0x5a5a_5a5a_u32;
        for i in (0..len).take_while(|i| pos + i <= 31) {
            f = f & !(1 << (pos + i)) | (a >> i & 1) << (pos + i);
        }
        f
    });
    check("prmt.b32 %d, %a, %b, %c;", |a, b, c| {
        let bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
        let pick = |k: u32| {
            let byte = bytes[(c >> (4 * k) & 7) as usize];
            if c >> (4 * k + 3) & 1 == 0 {
                byte
            } else if byte > 127 {
                255
            } else {
                0
            }
        };
        u32::from_le_bytes([pick(0), pick(1), pick(2), pick(3)])
    });
}

#[test]
fn comparisons_of_integers() {
    let code = |cmp: &str| format!("setp.{cmp} %p, %a, %b; selp.u32 %d, 1, 0, %p;");
    for (cmp, want) in [
        ("eq.u32", (|a, b| a == b) as fn(u32, u32) -> bool),
        ("ne.b32", |a, b| a != b),
        ("lt.u32", |a, b| a < b),
        ("le.u32", |a, b| a <= b),
        ("gt.u32", |a, b| a > b),
        ("ge.u32", |a, b| a >= b),
        ("lo.u32", |a, b| a < b),
        ("ls.u32", |a, b| a <= b),
        ("hi.u32", |a, b| a > b),
        ("hs.u32", |a, b| a >= b),
        ("lt.s32", |a, b| (a as i32) < b as i32),
        ("le.s32", |a, b| a as i32 <= b as i32),
        ("gt.s32", |a, b| a as i32 > b as i32),
        ("ge.s32", |a, b| a as i32 >= b as i32),
    ] {
        check(&code(cmp), |a, b, _| u32::from(want(a, b)));
    }
    let code = |cmp: &str| format!("setp.{cmp} %p, %a, %b; selp.b64 %d, 1, 0, %p;");
    check64(&code("lt.u64"), |a, b, _| u64::from(a < b));
    check64(&code("lt.s64"), |a, b, _| u64::from((a as i64) < b as i64));
    check64(&code("eq.b64"), |a, b, _| u64::from(a == b));
}

/// The second target takes the negated comparison, combined alike.
#[test]
fn comparisons_combine_with_a_predicate() {
    let read = "selp.u32 %d, 1, 0, %p; selp.u32 %a, 2, 0, %q; or.b32 %d, %d, %a;";
    let bits = |p: bool, q: bool| u32::from(p) | u32::from(q) << 1;
    for (logic, f) in [
        ("and", (|x, y| x & y) as fn(bool, bool) -> bool),
        ("or", |x, y| x | y),
        ("xor", |x, y| x ^ y),
    ] {
        for (negate, sign) in [("", false), ("!", true)] {
            let code = format!(
                "setp.ne.u32 %q, %c, 0; setp.lt.{logic}.u32 %p|%q, %a, %b, {negate}%q; {read}"
            );
            check(&code, |a, b, c| {
                let other = (c != 0) ^ sign;
                bits(f(a < b, other), f(a >= b, other))
            });
        }
        let code = format!(
            "setp.lt.u32 %p, %a, %b; setp.ne.u32 %q, %c, 0; {logic}.pred %p, %p, %q;
             not.pred %q, %p; {read}"
        );
        check(&code, |a, b, c| bits(f(a < b, c != 0), !f(a < b, c != 0)));
    }
}

#[test]
fn words_and_halves_are_packed_and_unpacked() {
    check("mov.b64 %w, {%a, %b}; mov.b64 {_, %d}, %w;", |_, b, _| b);
    check("mov.b64 %w, {%a, %b}; mov.b64 {%d, _}, %w;", |a, _, _| a);
    check(
        "mov.b64 %w, {%a, %b}; shr.u64 %w, %w, 16; cvt.u32.u64 %d, %w;",
        |a, b, _| a >> 16 | b << 16,
    );
    let halves = "{ .reg .b16 %l, %h; mov.b32 {%l, %h}, %a; mov.b32 %d, {%h, %l}; }";
    check(halves, |a, _, _| a.rotate_left(16));
}
