//! Float instructions and conversions against their definitions in the PTX ISA.

#![allow(clippy::unwrap_used)]

mod common;

use common::{FLOATS, INTS, pairs, triples, wides, words, words_with};
use dis_ptx_sim::{Approx, Options};
use proptest::prelude::{any, prop_assert_eq, proptest};

const NAN: u32 = 0x7fff_ffff;

fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

/// The canonical NaN of float instructions.
fn bits(x: f32) -> u32 {
    if x.is_nan() { NAN } else { x.to_bits() }
}

fn check(code: &str, want: impl Fn(u32, u32, u32) -> u32) {
    let inputs = triples(&FLOATS);
    for (got, [a, b, c]) in words(code, &inputs).into_iter().zip(inputs) {
        let want = want(a, b, c);
        assert_eq!(got, want, "{code} with {:e}, {:e}, {:e}", f(a), f(b), f(c));
    }
}

/// A float32 result of a float64 one that is exact.
fn narrow(x: f64) -> u32 {
    bits(x as f32)
}

#[test]
fn sums_and_products_round_once() {
    let wide = |x| f64::from(f(x));
    // float64 holds products of float32 exactly, and sums well enough to round once more
    // (53 >= 2 * 24 + 2, Figueroa 1995); so do quotients and roots.
    check("add.rn.f32 %d, %a, %b;", |a, b, _| {
        narrow(wide(a) + wide(b))
    });
    check("sub.rn.f32 %d, %a, %b;", |a, b, _| {
        narrow(wide(a) - wide(b))
    });
    check("mul.rn.f32 %d, %a, %b;", |a, b, _| {
        narrow(wide(a) * wide(b))
    });
    check("div.rn.f32 %d, %a, %b;", |a, b, _| {
        narrow(wide(a) / wide(b))
    });
    check("rcp.rn.f32 %d, %a;", |a, _, _| narrow(1.0 / wide(a)));
    check("sqrt.rn.f32 %d, %a;", |a, _, _| narrow(wide(a).sqrt()));
    check("add.f32 %d, %a, %b;", |a, b, _| narrow(wide(a) + wide(b)));
}

#[test]
fn multiply_add_rounds_once() {
    check("fma.rn.f32 %d, %a, %b, %c;", |a, b, c| {
        bits(libm::fmaf(f(a), f(b), f(c)))
    });
    // (1 + 2^-12)^2 - 1 loses its last bit if the product is rounded.
    let x = 1.0 + 2f32.powi(-12);
    let got = words(
        "fma.rn.f32 %d, %a, %b, %c;",
        &[[x.to_bits(), x.to_bits(), (-1f32).to_bits()]],
    );
    assert_eq!(f(got[0]), 2f32.powi(-11) + 2f32.powi(-24));
}

#[test]
fn signs_are_bits() {
    check("neg.f32 %d, %a;", |a, _, _| a ^ 0x8000_0000);
    check("abs.f32 %d, %a;", |a, _, _| a & 0x7fff_ffff);
    check("copysign.f32 %d, %a, %b;", |a, b, _| {
        a & 0x8000_0000 | b & 0x7fff_ffff
    });
}

/// A NaN gives way to a number, and -0 is less than +0.
#[test]
fn minima_and_maxima_of_floats() {
    let min = |a: u32, b: u32| match (f(a).is_nan(), f(b).is_nan()) {
        (true, true) => NAN,
        (true, false) => b,
        (false, true) => a,
        _ if f(a).total_cmp(&f(b)).is_lt() => a,
        _ => b,
    };
    let max = |a: u32, b: u32| match (f(a).is_nan(), f(b).is_nan()) {
        (true, true) => NAN,
        (true, false) => b,
        (false, true) => a,
        _ if f(a).total_cmp(&f(b)).is_gt() => a,
        _ => b,
    };
    let nan = |a: u32, b: u32| f(a).is_nan() || f(b).is_nan();
    check("min.f32 %d, %a, %b;", |a, b, _| min(a, b));
    check("max.f32 %d, %a, %b;", |a, b, _| max(a, b));
    check("min.NaN.f32 %d, %a, %b;", |a, b, _| {
        if nan(a, b) { NAN } else { min(a, b) }
    });
    check("max.NaN.f32 %d, %a, %b;", |a, b, _| {
        if nan(a, b) { NAN } else { max(a, b) }
    });
}

#[test]
fn comparisons_of_floats_know_nan() {
    let nan = |x: f32, y: f32| x.is_nan() || y.is_nan();
    for (cmp, want) in [
        ("eq", (|x, y| x == y) as fn(f32, f32) -> bool),
        ("lt", |x, y| x < y),
        ("le", |x, y| x <= y),
        ("gt", |x, y| x > y),
        ("ge", |x, y| x >= y),
    ] {
        let code = |c: &str| format!("setp.{c}.f32 %p, %a, %b; selp.u32 %d, 1, 0, %p;");
        check(&code(cmp), |a, b, _| u32::from(want(f(a), f(b))));
        let unordered = format!("{cmp}u");
        check(&code(&unordered), |a, b, _| {
            u32::from(want(f(a), f(b)) || nan(f(a), f(b)))
        });
    }
    let code = |c: &str| format!("setp.{c}.f32 %p, %a, %b; selp.u32 %d, 1, 0, %p;");
    check(&code("ne"), |a, b, _| {
        u32::from(f(a) != f(b) && !nan(f(a), f(b)))
    });
    check(&code("neu"), |a, b, _| u32::from(f(a) != f(b)));
    check(&code("num"), |a, b, _| u32::from(!nan(f(a), f(b))));
    check(&code("nan"), |a, b, _| u32::from(nan(f(a), f(b))));
}

#[test]
fn kinds_of_floats() {
    let code = |t: &str| format!("testp.{t}.f32 %p, %a; selp.u32 %d, 1, 0, %p;");
    check(&code("finite"), |a, _, _| u32::from(f(a).is_finite()));
    check(&code("infinite"), |a, _, _| u32::from(f(a).is_infinite()));
    check(&code("number"), |a, _, _| u32::from(!f(a).is_nan()));
    check(&code("notanumber"), |a, _, _| u32::from(f(a).is_nan()));
    check(&code("subnormal"), |a, _, _| u32::from(f(a).is_subnormal()));
    check(&code("normal"), |a, _, _| {
        u32::from(f(a).is_normal() || f(a) == 0.0)
    });
}

#[test]
fn float64_arithmetic() {
    let values: Vec<u64> = FLOATS
        .iter()
        .map(|&b| (f64::from(f(b)) * 1.1).to_bits())
        .collect();
    let g = f64::from_bits;
    let bits = |x: f64| {
        if x.is_nan() {
            0x7fff_ffff_ffff_ffff
        } else {
            x.to_bits()
        }
    };
    let check = |code: &str, want: &dyn Fn(f64, f64, f64) -> f64| {
        let inputs = triples(&values);
        for (got, [a, b, c]) in wides(code, &inputs).into_iter().zip(inputs) {
            assert_eq!(
                got,
                bits(want(g(a), g(b), g(c))),
                "{code} {:e} {:e}",
                g(a),
                g(b)
            );
        }
    };
    check("add.rn.f64 %d, %a, %b;", &|a, b, _| a + b);
    check("sub.rn.f64 %d, %a, %b;", &|a, b, _| a - b);
    check("mul.rn.f64 %d, %a, %b;", &|a, b, _| a * b);
    check("div.rn.f64 %d, %a, %b;", &|a, b, _| a / b);
    check("sqrt.rn.f64 %d, %a;", &|a, _, _| a.sqrt());
    check("rcp.rn.f64 %d, %a;", &|a, _, _| 1.0 / a);
    check("fma.rn.f64 %d, %a, %b, %c;", &|a, b, c| libm::fma(a, b, c));
    check("min.f64 %d, %a, %b;", &|a, b, _| {
        if a.is_nan() || b.is_nan() {
            a.min(b)
        } else if a.total_cmp(&b).is_lt() {
            a
        } else {
            b
        }
    });
    check("max.f64 %d, %a, %b;", &|a, b, _| {
        if a.is_nan() || b.is_nan() {
            a.max(b)
        } else if a.total_cmp(&b).is_gt() {
            a
        } else {
            b
        }
    });
}

#[test]
fn integers_of_floats_round_and_saturate() {
    type Rounding = fn(f64) -> f64;
    let roundings: [(&str, Rounding); 4] = [
        ("rni", f64::round_ties_even),
        ("rzi", f64::trunc),
        ("rmi", f64::floor),
        ("rpi", f64::ceil),
    ];
    let mut values = FLOATS.to_vec();
    values.extend(
        [
            0.5f32,
            -0.5,
            0.49999997,
            -1.5,
            2147483520.0,
            -2147483648.0,
            -3e9,
            5e9,
        ]
        .map(f32::to_bits),
    );
    let inputs: Vec<[u32; 3]> = values.iter().map(|&v| [v, 0, 0]).collect();
    for (name, round) in roundings {
        for (ty, low, high) in [
            ("s32", -2147483648.0, 2147483647.0),
            ("u32", 0.0, 4294967295.0),
        ] {
            let code = format!("cvt.{name}.{ty}.f32 %d, %a;");
            for (got, &[a, ..]) in words(&code, &inputs).into_iter().zip(&inputs) {
                let x = round(f64::from(f(a))).clamp(low, high);
                let want = if x.is_nan() { 0 } else { x as i64 as u32 };
                assert_eq!(got, want, "{code} of {:e}", f(a));
            }
        }
        let code = format!("cvt.{name}.f32.f32 %d, %a;");
        for (got, &[a, ..]) in words(&code, &inputs).into_iter().zip(&inputs) {
            assert_eq!(
                got,
                bits(round(f64::from(f(a))) as f32),
                "{code} of {:e}",
                f(a)
            );
        }
    }
    // Narrow integers are clamped to their range and extended.
    let got = words(
        "cvt.rzi.s16.f32 %d, %a;",
        &[[1e6f32.to_bits(), 0, 0], [(-1e6f32).to_bits(), 0, 0]],
    );
    assert_eq!(got, [0x7fff, 0xffff_8000]);
    // NaN is zero, but the least value where 64 bits are involved.
    let got = words(
        "cvt.rzi.s64.f32 %w, %a; shr.u64 %w, %w, 32; cvt.u32.u64 %d, %w;",
        &[[NAN, 0, 0]],
    );
    assert_eq!(got, [0x8000_0000]);
}

#[test]
fn floats_of_integers_round_as_told() {
    let mut values = INTS.to_vec();
    values.extend([16_777_217, 16_777_219, 33_554_435, 0xffff_ff80, 0xffff_ff7f]);
    let inputs: Vec<[u32; 3]> = values.iter().map(|&v| [v, 0, 0]).collect();
    for (ty, wide) in [
        ("u32", (|a| i64::from(a)) as fn(u32) -> i64),
        ("s32", |a| i64::from(a as i32)),
    ] {
        for (mode, step) in [("rn", 0), ("rz", 1), ("rm", 2), ("rp", 3)] {
            let code = format!("cvt.{mode}.f32.{ty} %d, %a;");
            for (got, &[a, ..]) in words(&code, &inputs).into_iter().zip(&inputs) {
                let exact = wide(a);
                let (got, want) = (f(got) as i64, exact as f32 as i64);
                let error = got - exact;
                match step {
                    0 => assert_eq!(got, want, "{code} of {a:#x}"),
                    1 => assert!(
                        got.abs() <= exact.abs() && error.abs() < 256,
                        "{code} of {a:#x}"
                    ),
                    2 => assert!((-255..=0).contains(&error), "{code} of {a:#x}"),
                    _ => assert!((0..=255).contains(&error), "{code} of {a:#x}"),
                }
            }
        }
    }
}

#[test]
fn integers_are_cut_extended_or_saturated() {
    let high = "shr.u64 %w, %w, 32; cvt.u32.u64 %d, %w;";
    let inputs: Vec<[u32; 3]> = INTS.iter().map(|&v| [v, 0, 0]).collect();
    for (code, want) in [
        (
            "cvt.u32.u16 %d, %a;".to_string(),
            (|a| a & 0xffff) as fn(u32) -> u32,
        ),
        ("cvt.s32.s16 %d, %a;".into(), |a| a as i16 as u32),
        ("cvt.s32.s8 %d, %a;".into(), |a| a as i8 as u32),
        ("cvt.sat.u8.u32 %d, %a;".into(), |a| a.min(255)),
        ("cvt.sat.s16.s32 %d, %a;".into(), |a| {
            (a as i32).clamp(-32768, 32767) as u32
        }),
        ("cvt.sat.u32.s32 %d, %a;".into(), |a| {
            (a as i32).max(0) as u32
        }),
        (format!("cvt.u64.u32 %w, %a; {high}"), |_| 0),
        (format!("cvt.s64.s32 %w, %a; {high}"), |a| {
            ((a as i32) >> 31) as u32
        }),
    ] {
        for (got, &[a, ..]) in words(&code, &inputs).into_iter().zip(&inputs) {
            assert_eq!(got, want(a), "{code} of {a:#x}");
        }
    }
}

#[test]
fn float64_and_float32_convert() {
    let through =
        |mode: &str| format!("cvt.f64.f32 %w, %a; cvt.f64.f32 %w, %a; cvt.{mode}.f32.f64 %d, %w;");
    check(&through("rn"), |a, _, _| bits(f(a)));
    // A third in float64 lies between two float32.
    let third = 1f64 / 3.0;
    for sign in [1.0, -1.0] {
        let x = sign * third;
        let mut seen = Vec::new();
        for mode in ["rn", "rz", "rm", "rp"] {
            let code = format!("cvt.{mode}.f32.f64 %r, %a; cvt.u64.u32 %d, %r;");
            let y = f(wides(&code, &[[x.to_bits(), 0, 0]])[0] as u32);
            match mode {
                "rz" => assert!(f64::from(y).abs() < third),
                "rm" => assert!(f64::from(y) < x),
                "rp" => assert!(f64::from(y) > x),
                _ => assert_eq!(y, x as f32),
            }
            seen.push(y);
        }
        assert!((seen[2] - seen[3]).abs() <= f32::EPSILON / 4.0);
    }
    check(
        "cvt.sat.rn.f32.f64 %d, %w;"
            .replace("cvt", "cvt.f64.f32 %w, %a; cvt")
            .replace("sat.rn", "rn.sat")
            .as_str(),
        |a, _, _| {
            if f(a).is_nan() {
                0
            } else {
                bits(f(a).clamp(0.0, 1.0))
            }
        },
    );
}

#[test]
fn bf16_is_the_upper_half_rounded_to_even() {
    let code = "cvt.rn.bf16x2.f32 %d, %a, %b;";
    let round = |x: u32| {
        let y = f(x);
        if y.is_nan() {
            return 0x7fff;
        }
        let (down, up) = (x & 0xffff_0000, (x & 0xffff_0000).wrapping_add(0x1_0000));
        let rest = x & 0xffff;
        let nearest = match rest.cmp(&0x8000) {
            std::cmp::Ordering::Less => down,
            std::cmp::Ordering::Greater => up,
            std::cmp::Ordering::Equal if down >> 16 & 1 == 0 => down,
            std::cmp::Ordering::Equal => up,
        };
        nearest >> 16
    };
    check(code, |a, b, _| round(a) << 16 | round(b));
    let single = "{ .reg .b16 %h; cvt.rn.bf16.f32 %h, %a; mov.b32 %d, {%h, %h}; }";
    check(single, |a, _, _| round(a) << 16 | round(a));
}

#[test]
fn special_values_of_approximate_functions() {
    let (inf, zero, one) = (f32::INFINITY, 0f32, 1f32);
    let sub = 1e-40f32;
    for approx in [Approx::Exact, Approx::Low, Approx::High, Approx::Random(3)] {
        let options = Options {
            approx,
            ..Options::default()
        };
        let check = |code: &str, cases: &[(f32, f32)]| {
            let inputs: Vec<_> = cases.iter().map(|(x, _)| [x.to_bits(), 0, 0]).collect();
            let code = format!("{code} %d, %a;");
            for (got, (x, want)) in words_with(&code, &inputs, options).into_iter().zip(cases) {
                assert_eq!(got, bits(*want), "{code} of {x}");
            }
        };
        let nan = f32::NAN;
        check(
            "ex2.approx.ftz.f32",
            &[
                (-inf, zero),
                (inf, inf),
                (nan, nan),
                (zero, one),
                (-zero, one),
                (sub, one),
                (-sub, one),
                (-150.0, zero),
                (-126.5, zero),
                (130.0, inf),
            ],
        );
        check(
            "lg2.approx.ftz.f32",
            &[
                (-inf, nan),
                (-1.0, nan),
                (zero, -inf),
                (-zero, -inf),
                (inf, inf),
                (nan, nan),
                (sub, -inf),
                (-sub, -inf),
            ],
        );
        check(
            "rcp.approx.ftz.f32",
            &[
                (-inf, -zero),
                (inf, zero),
                (zero, inf),
                (-zero, -inf),
                (nan, nan),
                (sub, inf),
                (-sub, -inf),
                (f32::MAX, zero),
            ],
        );
        check(
            "rsqrt.approx.ftz.f32",
            &[
                (-inf, nan),
                (-1.0, nan),
                (zero, inf),
                (-zero, -inf),
                (inf, zero),
                (nan, nan),
            ],
        );
        check(
            "sqrt.approx.ftz.f32",
            &[
                (-inf, nan),
                (-1.0, nan),
                (zero, zero),
                (-zero, -zero),
                (inf, inf),
                (nan, nan),
            ],
        );
        check(
            "tanh.approx.f32",
            &[
                (-inf, -one),
                (inf, one),
                (zero, zero),
                (-zero, -zero),
                (nan, nan),
            ],
        );
        check(
            "sin.approx.ftz.f32",
            &[
                (-inf, nan),
                (inf, nan),
                (zero, zero),
                (-zero, -zero),
                (nan, nan),
            ],
        );
        check(
            "cos.approx.ftz.f32",
            &[
                (-inf, nan),
                (inf, nan),
                (zero, one),
                (-zero, one),
                (nan, nan),
            ],
        );
    }
}

#[test]
fn approximate_functions_straddle_the_exact_result() {
    let inputs: Vec<[u32; 3]> = (1..500)
        .map(|k| [(k as f32 * 0.013).to_bits(), 0, 0])
        .collect();
    for (code, exact, room) in [
        (
            "ex2.approx.ftz.f32",
            (|x| libm::exp2(x)) as fn(f64) -> f64,
            2.4e-7,
        ),
        ("lg2.approx.ftz.f32", |x| libm::log2(x), 2.4e-7),
        ("rcp.approx.ftz.f32", |x| 1.0 / x, 1.2e-7),
        ("rsqrt.approx.ftz.f32", |x| 1.0 / x.sqrt(), 3.7e-7),
        ("sqrt.approx.ftz.f32", |x| x.sqrt(), 1.2e-7),
        ("tanh.approx.f32", |x| libm::tanh(x), 5e-4),
    ] {
        let run = |approx| {
            let options = Options {
                approx,
                ..Options::default()
            };
            words_with(&format!("{code} %d, %a;"), &inputs, options)
        };
        let (low, high) = (run(Approx::Low), run(Approx::High));
        let (one, same, other) = (
            run(Approx::Random(1)),
            run(Approx::Random(1)),
            run(Approx::Random(2)),
        );
        assert!(one == same && one != other);
        for (k, &[x, ..]) in inputs.iter().enumerate() {
            let want = exact(f64::from(f(x)));
            let (low, high) = (f64::from(f(low[k])), f64::from(f(high[k])));
            let least = want - room * want.abs().max(1e-3) - room;
            assert!(
                least <= low && low <= want && want <= high,
                "{code} of {}",
                f(x)
            );
            assert!(
                high <= want + room * want.abs() + room,
                "{code} of {}",
                f(x)
            );
            let one = f64::from(f(one[k]));
            assert!(low <= one && one <= high);
        }
    }
}

#[test]
fn approximate_division() {
    for code in ["div.approx.f32 %d, %a, %b;", "div.full.f32 %d, %a, %b;"] {
        let inputs = pairs(&FLOATS);
        for (got, [a, b, _]) in words(code, &inputs).into_iter().zip(inputs) {
            let (x, y) = (f64::from(f(a)), f64::from(f(b)));
            let huge = code.contains("approx") && y.is_finite() && y.abs() > 2f64.powi(126);
            let want = match (huge, x.is_finite()) {
                (false, _) => x / y,
                (true, true) => 0.0 * x.signum() * y.signum(),
                (true, false) => f64::NAN,
            };
            assert_eq!(got, narrow(want), "{code} {x:e} {y:e}");
        }
    }
}

proptest! {
    #[test]
    fn random_floats_add_multiply_and_fuse(inputs in proptest::collection::vec(any::<[u32; 3]>(), 1..200)) {
        let got = words("fma.rn.f32 %d, %a, %b, %c;", &inputs);
        for (got, &[a, b, c]) in got.into_iter().zip(&inputs) {
            prop_assert_eq!(got, bits(libm::fmaf(f(a), f(b), f(c))));
        }
        let got = words("add.rn.f32 %d, %a, %b; mul.rn.f32 %d, %d, %c;", &inputs);
        for (got, &[a, b, c]) in got.into_iter().zip(&inputs) {
            let sum = (f64::from(f(a)) + f64::from(f(b))) as f32;
            prop_assert_eq!(got, narrow(f64::from(sum) * f64::from(f(c))));
        }
    }

    #[test]
    fn random_conversions(values in proptest::collection::vec(any::<u32>(), 1..200)) {
        let inputs: Vec<[u32; 3]> = values.iter().map(|&v| [v, 0, 0]).collect();
        for (got, v) in words("cvt.rni.s32.f32 %d, %a;", &inputs).into_iter().zip(&values) {
            prop_assert_eq!(got as i32, f(*v).round_ties_even() as i32);
        }
        for (got, v) in words("cvt.rn.f32.s32 %d, %a;", &inputs).into_iter().zip(&values) {
            prop_assert_eq!(f(got), *v as i32 as f32);
        }
    }
}
