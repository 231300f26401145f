//! Every level against float64: largest errors over dense ranges, special values, folds.

use super::slices::{Function, map};
use super::*;

/// Distance of `got` from `want` in units in the last place of `want` as a float32 (those of the
/// smallest normal number below it).
fn ulps(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if got == rounded || (got.is_nan() && want.is_nan()) {
        return 0.0;
    }
    if got.is_nan() || want.is_nan() {
        return f64::INFINITY;
    }
    let magnitude = want.abs().max(f64::from(f32::MIN_POSITIVE));
    let ulp = (magnitude.log2().floor() - 23.0).exp2();
    (f64::from(got) - want).abs() / ulp
}

fn softplus64(x: f64) -> f64 {
    if x > 20.0 {
        x
    } else {
        x.max(0.0) + (-x.abs()).exp().ln_1p()
    }
}

fn sigmoid64(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x < 0.0 {
        e / (1.0 + e)
    } else {
        1.0 / (1.0 + e)
    }
}

/// Every float32 whose bits are a multiple of `step`, in [low, high].
fn range(low: f32, high: f32, step: u32) -> Vec<f32> {
    (0..=u32::MAX / step)
        .map(|i| f32::from_bits(i * step))
        .filter(|x| (low..=high).contains(x))
        .collect()
}

/// Largest error in ulps of a function over [low, high], and where.
fn worst(level: Level, f: Function, low: f32, high: f32, want: impl Fn(f64) -> f64) -> (f64, f32) {
    // Dense in floats near zero, then dense in value.
    let mut xs = range(low, high, 4099);
    xs.extend((0..400_000).map(|i| low + (high - low) * (i as f32 / 400_000.0)));
    let mut out = vec![0.0; xs.len()];
    map(level, f, &xs, &mut out);
    let mut worst = (0.0, 0.0);
    for (&x, &got) in xs.iter().zip(&out) {
        let error = ulps(got, want(f64::from(x)));
        if error > worst.0 {
            worst = (error, x);
        }
    }
    println!("{level} {f:?}: {:.3} ulp at {:e}", worst.0, worst.1);
    worst
}

#[test]
fn matrices_turn_over() {
    for level in supported() {
        for (tokens, width, first) in [
            (0, 16, 0),
            (5, 16, 0),
            (16, 16, 0),
            (53, 40, 7),
            (257, 32, 16),
        ] {
            let rows: Vec<f32> = (0..tokens * width).map(|i| i as f32).collect();
            let mut columns = vec![vec![0.0f32; tokens]; LANES];
            let mut each = columns.iter_mut().map(Vec::as_mut_slice);
            let to = std::array::from_fn(|_| each.next().unwrap());
            rows_to_columns(level, &rows[first.min(rows.len())..], width, to);
            for (c, column) in columns.iter().enumerate() {
                for (t, &x) in column.iter().enumerate() {
                    assert_eq!(x, (t * width + first + c) as f32, "{level} {tokens}");
                }
            }
            let mut back = vec![-1.0; rows.len()];
            let from = std::array::from_fn(|c| columns[c].as_slice());
            columns_to_rows(level, from, &mut back[first.min(rows.len())..], width);
            for (t, row) in back.chunks(width).enumerate() {
                for (c, &x) in row.iter().enumerate() {
                    let inside = (first..first + LANES).contains(&c);
                    let expected = if inside { (t * width + c) as f32 } else { -1.0 };
                    assert_eq!(x, expected, "{level} {tokens}");
                }
            }
        }
    }
}

#[test]
fn accuracy_in_ulps() {
    for level in supported() {
        let check = |f, low, high, bound: f64, want: &dyn Fn(f64) -> f64| {
            let (error, at) = worst(level, f, low, high, want);
            assert!(error <= bound, "{level} {f:?}: {error} ulp at {at:e}");
        };
        check(Function::Exp, -110.0, 88.72, 2.0, &f64::exp);
        check(Function::NegExp, -110.0, 88.72, 2.0, &|x| -x.exp());
        check(Function::Softplus, -87.0, 100.0, 2.5, &softplus64);
        check(Function::Sigmoid, -87.0, 100.0, 2.5, &sigmoid64);
        check(Function::Silu, -87.0, 100.0, 3.0, &|x| x * sigmoid64(x));
        // 1.8e-7 relative is at most 3 units in the last place.
        check(Function::Exp2, -125.0, 127.9, 2.2, &f64::exp2);
    }
}

#[test]
fn exp2_relative_error() {
    for level in supported() {
        let xs: Vec<f32> = (0..1_000_000).map(|i| -20.0 + i as f32 * 2.5e-5).collect();
        let mut out = vec![0.0; xs.len()];
        map(level, Function::Exp2, &xs, &mut out);
        let worst = xs
            .iter()
            .zip(&out)
            .map(|(&x, &y)| (f64::from(y) / f64::from(x).exp2() - 1.0).abs())
            .fold(0.0, f64::max);
        println!("{level} exp2: relative {worst:e}");
        assert!(worst <= 1.8e-7, "{level}: {worst:e}");
    }
}

#[test]
fn silu_derivative_absolute_error() {
    // It crosses zero, so the error is measured against 1, its scale.
    for level in supported() {
        let xs: Vec<f32> = (0..1_000_000).map(|i| -100.0 + i as f32 * 2e-4).collect();
        let mut out = vec![0.0; xs.len()];
        map(level, Function::SiluDerivative, &xs, &mut out);
        for (&x, &y) in xs.iter().zip(&out) {
            let wide = f64::from(x);
            let s = sigmoid64(wide);
            let want = s * (1.0 + wide * sigmoid64(-wide));
            assert!(
                (f64::from(y) - want).abs() <= 3e-7,
                "{level} at {x}: {y} for {want}"
            );
        }
    }
}

#[test]
fn special_values() {
    let inf = f32::INFINITY;
    let cases = [
        (Function::Exp, inf, inf),
        (Function::Exp, -inf, 0.0),
        (Function::Exp, 88.73, inf),
        (Function::Exp, 1e30, inf),
        (Function::Exp, -104.1, 0.0),
        (Function::Exp, 0.0, 1.0),
        (Function::Exp, -0.0, 1.0),
        (Function::Exp2, 0.0, 1.0),
        (Function::Exp2, -0.0, 1.0),
        (Function::Exp2, 1.0, 2.0),
        (Function::Exp2, 127.0, 2.0f32.powi(127)),
        (Function::Exp2, 128.0, inf),
        (Function::Exp2, inf, inf),
        (Function::Exp2, -160.0, 0.0),
        (Function::Exp2, -inf, 0.0),
        (Function::Exp2, -3e38, 0.0),
        (Function::Softplus, inf, inf),
        (Function::Softplus, -inf, 0.0),
        (Function::Softplus, 25.0, 25.0),
        (Function::Softplus, f32::MAX, f32::MAX),
        (Function::Sigmoid, inf, 1.0),
        (Function::Sigmoid, -inf, 0.0),
        (Function::Sigmoid, 0.0, 0.5),
        (Function::Silu, inf, inf),
        (Function::Silu, -inf, 0.0),
        (Function::Silu, 0.0, 0.0),
        (Function::Silu, -f32::MAX, 0.0),
        (Function::SiluDerivative, inf, 1.0),
        (Function::SiluDerivative, -inf, 0.0),
        (Function::SiluDerivative, 0.0, 0.5),
        (Function::SiluDerivative, f32::MAX, 1.0),
    ];
    for level in supported() {
        for (f, x, want) in cases {
            // Alone (a partial vector) and among others (a whole one).
            for count in [1, 16, 19] {
                let mut out = vec![7.0; count];
                map(level, f, &vec![x; count], &mut out);
                assert!(
                    out.iter().all(|&y| y == want),
                    "{level} {f:?}({x}) = {out:?}"
                );
            }
        }
        for f in [
            Function::Exp,
            Function::NegExp,
            Function::Exp2,
            Function::Softplus,
            Function::Sigmoid,
            Function::Silu,
            Function::SiluDerivative,
        ] {
            let mut out = [0.0; 17];
            map(level, f, &[f32::NAN; 17], &mut out);
            assert!(
                out.iter().all(|y| y.is_nan()),
                "{level} {f:?}(NaN) = {out:?}"
            );
        }
    }
}

/// The functions that are not reachable through slices, lane by lane.
struct Holds<'a> {
    delta: &'a [f32],
    a: &'a [f32],
    out: &'a mut Vec<[f32; 3]>,
}

impl Kernel for Holds<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (&delta, &a) in self.delta.iter().zip(self.a) {
            let a = math::hold_rate::<S::V>(a);
            let (delta, a) = (simd.splat(delta), simd.splat(a));
            let inverse = simd.splat(1.0) / a;
            let t = delta * (a * simd.splat(std::f32::consts::LOG2_E));
            let hold = math::hold(t, delta, inverse);
            let by_a = math::hold_gain_by_a(delta * a, delta, hold, inverse);
            let mut rows = [[0.0; LANES]; 3];
            hold.decay.store(&mut rows[0]);
            hold.gain.store(&mut rows[1]);
            by_a.store(&mut rows[2]);
            self.out.push(rows.map(|row| row[5]));
        }
    }
}

#[test]
fn zero_order_hold() {
    // Products delta A from 1e-12 to 90 in magnitude, both signs, A = 0 among them.
    let mut delta = vec![0.5, 3.0];
    let mut a = vec![0.0, 0.0];
    for i in 0..20_000 {
        let x = 10f64.powf(-12.0 + 13.95 * f64::from(i) / 20_000.0);
        let step = 10f64.powf(-4.0 + 5.0 * f64::from(i % 97) / 97.0);
        delta.push(step as f32);
        a.push((if i % 5 == 0 { x.min(80.0) } else { -x } / step) as f32);
    }
    for level in supported() {
        let mut out = Vec::new();
        dispatch(
            level,
            Holds {
                delta: &delta,
                a: &a,
                out: &mut out,
            },
        );
        let mut worst = [0.0f64; 3];
        for ((&delta, &a), got) in delta.iter().zip(&a).zip(out) {
            let (delta, a) = (f64::from(delta), f64::from(a));
            let x = delta * a;
            let series = 0.5 + x / 3.0 + x * x / 8.0 + x * x * x / 30.0;
            let want = [
                x.exp(),
                if x == 0.0 { delta } else { x.exp_m1() / a },
                delta
                    * delta
                    * if x.abs() < 1e-4 {
                        series
                    } else {
                        (x * x.exp() - x.exp_m1()) / (x * x)
                    },
            ];
            for i in 0..3 {
                // The float32 product delta A alone makes a relative error of |x| 2^-23.
                let scale = 1.0 + x.abs();
                let error = (f64::from(got[i]) / want[i] - 1.0).abs() / scale;
                assert!(
                    error <= 1e-6,
                    "{level} {i} at delta {delta} A {a}: {} for {}",
                    got[i],
                    want[i]
                );
                worst[i] = worst[i].max(error);
            }
        }
        println!("{level} hold: {worst:?}");
    }
}

/// Sums of sixteen vectors by the three folds.
struct Fold<'a>(&'a [[f32; LANES]; 16], &'a mut [f32; LANES]);

impl Kernel for Fold<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut parts = [simd.splat(0.0); 4];
        for (part, rows) in parts.iter_mut().zip(self.0.as_chunks::<4>().0) {
            *part = S::V::fold_within(rows.map(|row| simd.load(&row)));
        }
        let [a, b, c, d] = parts;
        S::V::fold_quarters(S::V::fold_halves(a, b), S::V::fold_halves(c, d)).store(self.1);
    }
}

#[test]
fn folds_give_sums_in_order() {
    let rows: [[f32; LANES]; 16] =
        std::array::from_fn(|i| std::array::from_fn(|j| ((i * 16 + j) as f32 * 0.37).sin()));
    let mut first = None;
    for level in supported() {
        let mut out = [0.0; LANES];
        dispatch(level, Fold(&rows, &mut out));
        for (row, &got) in rows.iter().zip(&out) {
            let want: f64 = row.iter().map(|&x| f64::from(x)).sum();
            assert!(
                (f64::from(got) - want).abs() < 1e-6,
                "{level}: {got} for {want}"
            );
        }
        // Only additions in one fixed order: the same bits everywhere.
        assert_eq!(*first.get_or_insert(out), out, "{level}");
    }
}

/// Exponentials together and one by one, over exponents within reach.
struct Together<'a>(&'a [[f32; LANES]], &'a mut Vec<[[f32; LANES]; 6]>);

impl Kernel for Together<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for two in self.0.as_chunks::<2>().0 {
            let t = two.map(|row| simd.load(&row));
            let (delta, inverse) = (t[0].abs(), t.map(|t| simd.splat(1.0) / t));
            let [exp, _] = math::exp2_each(t);
            let [_, hold] = math::hold_each(t, inverse);
            let alone = math::hold(t[1], delta, inverse[1]);
            let mut rows = [[0.0; LANES]; 6];
            let all = [
                exp,
                math::exp2(t[0]),
                hold.decay,
                alone.decay,
                hold.gain,
                alone.gain,
            ];
            for (row, x) in rows.iter_mut().zip(all) {
                x.store(row);
            }
            self.1.push(rows);
        }
    }
}

#[test]
fn exponentials_together_have_the_bits_of_those_alone() {
    // Magnitudes from 1e-9 to 125, both signs, halves and integers among them.
    let number = |i: usize| match i % 7 {
        0 => (i % 250) as f32 * 0.5 - 62.5 + 1e-3,
        1 => (i % 249) as f32 - 124.0 + f32::EPSILON,
        _ => {
            let x = 10f32.powf(-9.0 + 11.09 * (i % 997) as f32 / 997.0);
            if i.is_multiple_of(2) { x } else { -x }
        }
    };
    let rows: Vec<[f32; LANES]> = (0..4000)
        .map(|i| std::array::from_fn(|j| number(i * LANES + j)))
        .collect();
    for level in supported() {
        let mut out = Vec::new();
        dispatch(level, Together(&rows, &mut out));
        for [exp, exp_alone, decay, decay_alone, gain, gain_alone] in out {
            assert_eq!(exp, exp_alone, "{level}");
            // Scaling in one instruction rounds less often.
            if level != Level::Avx512 {
                assert_eq!((decay, gain), (decay_alone, gain_alone), "{level}");
            }
        }
    }
    assert!(math::within_reach(&[125.0; LANES]));
    for beyond in [125.1, f32::INFINITY, f32::NAN] {
        let mut magnitudes = [1.0; LANES];
        magnitudes[11] = beyond;
        assert!(!math::within_reach(&magnitudes));
    }
}

/// The folds of parts, and of whole vectors.
struct FoldParts<'a>(&'a [[f32; LANES]; 8], &'a mut [[f32; LANES]; 2]);

impl Kernel for FoldParts<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(rows, [whole, parts]) = self;
        let four = |first: usize| std::array::from_fn(|i| simd.load(&rows[first + i]));
        let (a, b) = (S::V::fold_within(four(0)), S::V::fold_within(four(4)));
        S::V::fold_halves(a, b).store(whole);
        for part in 0..S::PARTS {
            let four =
                |first: usize| std::array::from_fn(|i| simd.load_part(&rows[first + i], part));
            simd.fold_second(S::P::fold_within(four(4)), parts, part);
            simd.fold_first(S::P::fold_within(four(0)), parts, part);
        }
    }
}

#[test]
fn folds_of_parts_are_those_of_vectors() {
    let rows = std::array::from_fn(|i| std::array::from_fn(|j| ((i * 16 + j) as f32 * 0.71).sin()));
    for level in supported() {
        let mut out = [[0.0; LANES]; 2];
        dispatch(level, FoldParts(&rows, &mut out));
        assert_eq!(out[0], out[1], "{level}");
    }
}

struct Transpose<'a>(&'a mut [[f32; LANES]; LANES]);

impl Kernel for Transpose<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let x = self.0.map(|row| simd.load(&row));
        for (row, x) in self.0.iter_mut().zip(S::V::transpose(x, simd)) {
            x.store(row);
        }
    }
}

#[test]
fn squares_are_transposed() {
    for level in supported() {
        let mut square: [[f32; LANES]; LANES] =
            std::array::from_fn(|i| std::array::from_fn(|j| (i * LANES + j) as f32));
        dispatch(level, Transpose(&mut square));
        for (i, row) in square.iter().enumerate() {
            for (j, &x) in row.iter().enumerate() {
                assert_eq!(x, (j * LANES + i) as f32, "{level}: {i}, {j}");
            }
        }
    }
}

#[test]
fn silu_backward_handles_tails() {
    for level in supported() {
        for len in [0, 1, 15, 16, 17, 40] {
            let x: Vec<f32> = (0..len).map(|i| i as f32 * 0.3 - 4.0).collect();
            let dout: Vec<f32> = (0..len).map(|i| 1.0 + i as f32).collect();
            let (mut dx, mut derivative) = (vec![0.0; len], vec![0.0; len]);
            slices::silu_backward(level, &x, &dout, &mut dx);
            map(level, Function::SiluDerivative, &x, &mut derivative);
            for i in 0..len {
                assert_eq!(dx[i], derivative[i] * dout[i]);
            }
        }
    }
}

#[test]
fn requests_are_followed_or_explained() {
    let best = Selection::from_request(None);
    assert_eq!(best.warning, None);
    for level in supported() {
        let chosen = Selection::from_request(Some(level.name()));
        assert_eq!(
            chosen,
            Selection {
                level,
                warning: None
            }
        );
    }
    let unknown = Selection::from_request(Some("mmx"));
    assert_eq!(unknown.level, best.level);
    let warning = unknown.warning.unwrap();
    assert!(
        warning.contains("DIS_SIMD=mmx") && warning.contains("portable"),
        "{warning}"
    );
    if !Level::Neon.is_supported() {
        let absent = Selection::from_request(Some("neon"));
        assert_eq!(absent.level, best.level);
        assert!(absent.warning.unwrap().contains("not supported"));
    }
}
