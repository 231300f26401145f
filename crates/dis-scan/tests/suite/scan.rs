//! The fast scan against the oracle.

use super::case::{Inputs, Matrix, Options, Outputs};
use dis_scan::cpu;
use dis_scan::{Direction, Discretization};
use dis_tensor::simd;
use proptest::prelude::*;

/// Measured worst over 4000 problems at every level: 1.8e-6 for dA, 8.3e-7 for the rest.
const RTOL: f64 = 3e-6;

fn options() -> impl Strategy<Value = Options> {
    let shape = (1..4usize, 1..70usize, 1..40usize, 1..37usize);
    let flags = proptest::array::uniform9(any::<bool>());
    (shape, 0..5usize, flags, any::<u64>()).prop_map(|((b, l, d, n), pad, f, seed)| Options {
        shape: [b, l, d, n],
        pad,
        direction: if f[0] {
            Direction::Forward
        } else {
            Direction::Reverse
        },
        discretization: if f[1] {
            Discretization::Mamba
        } else {
            Discretization::ZeroOrderHold
        },
        d: f[2],
        z: f[3],
        bias: f[4],
        softplus: f[5],
        accumulate: f[6],
        scale: if f[7] { 1.0 } else { 3.0 },
        state: f[8],
        seed,
    })
}

fn compare(options: &Options, floor: f64) -> Result<(), TestCaseError> {
    let inputs = Inputs::random(options);
    let mut fresh = Outputs::new(&inputs);
    let start = fresh.clone();
    fresh.run_oracle(&inputs);
    let magnitudes = inputs.magnitudes();
    let mut sums = Outputs::new(&magnitudes);
    sums.run_oracle(&magnitudes);
    // dA is a sum over tokens of products of two sums over tokens.
    let da_terms = sums.da.magnitude();
    let check = |what: &str, rtol: f64, run: &dyn Fn(&mut Outputs)| -> Result<(), TestCaseError> {
        let mut fast = fresh.clone();
        for ((_, to), (_, from)) in fast_fields(&mut fast).into_iter().zip(start.all()) {
            to.narrow.clone_from(&from.narrow);
        }
        run(&mut fast);
        // Sums over tokens may cancel: their error is that of the terms.
        let terms = fast.du.magnitude().max(fast.ddelta.magnitude());
        for (name, matrix) in fast.all() {
            let floor = match name {
                "da" if floor > 0.0 => terms.max(floor).max(da_terms),
                "arena" if floor > 0.0 => terms.max(floor),
                _ => floor,
            };
            matrix
                .check(name, rtol, floor)
                .map_err(|e| TestCaseError::fail(format!("{what}: {e}")))?;
        }
        Ok(())
    };
    for level in simd::supported() {
        check(&level.to_string(), RTOL, &|fast| {
            fast.run_fast(level, &inputs)
        })?;
    }
    #[cfg(feature = "sim")]
    if !options.state {
        // One of the simulated devices each time, for speed.
        let i = options.seed as usize % super::gpu::GPUS.len();
        let gpu = &super::gpu::GPUS[i];
        // Where every exponential errs to one side, so do sums of thousands of them.
        let rtol = if i == 0 { RTOL } else { 5.0 * RTOL };
        check(&format!("simulated GPU {i}"), rtol, &|fast| {
            fast.run_gpu(gpu, &inputs)
        })?;
    }
    Ok(())
}

fn fast_fields(x: &mut Outputs) -> [(&'static str, &mut Matrix); 9] {
    [
        ("y", &mut x.y),
        ("last_state", &mut x.last),
        ("du", &mut x.du),
        ("ddelta", &mut x.ddelta),
        ("dbc", &mut x.dbc),
        ("dz", &mut x.dz),
        ("da", &mut x.da),
        ("arena", &mut x.arena),
        ("dinitial_state", &mut x.dinitial),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn fast_scan_agrees_with_the_oracle(options in options()) {
        // Terms of y are products of three inputs.
        compare(&options, options.scale.powi(3))?;
    }
}

pub fn plain(shape: [usize; 4]) -> Options {
    Options {
        shape,
        pad: 0,
        direction: Direction::Forward,
        discretization: Discretization::Mamba,
        d: true,
        z: true,
        bias: true,
        softplus: true,
        accumulate: false,
        state: false,
        scale: 1.0,
        seed: 7,
    }
}

#[test]
fn published_shapes_agree_with_the_oracle() {
    for direction in [Direction::Forward, Direction::Reverse] {
        for states in [8, 16] {
            compare(
                &Options {
                    direction,
                    ..plain([1, 257, 64, states])
                },
                0.0,
            )
            .unwrap();
        }
    }
    // More groups than blocks of the backward.
    compare(&plain([1, 3, 65 * 16 + 1, 4]), 0.0).unwrap();
    // More samples than a slab.
    compare(&plain([515, 2, 3, 2]), 0.0).unwrap();
}

#[test]
fn results_do_not_depend_on_threads() {
    for level in simd::supported() {
        for discretization in [Discretization::Mamba, Discretization::ZeroOrderHold] {
            let inputs = Inputs::random(&Options {
                discretization,
                ..plain([3, 130, 200, 16])
            });
            let mut first: Option<Outputs> = None;
            for threads in [1, 2, 5] {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let mut outputs = Outputs::new(&inputs);
                pool.install(|| outputs.run_fast(level, &inputs));
                let first = first.get_or_insert_with(|| outputs.clone());
                for ((name, a), (_, b)) in first.all().into_iter().zip(outputs.all()) {
                    let same = a
                        .narrow
                        .iter()
                        .zip(&b.narrow)
                        .all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{name} with {threads} threads at {level}");
                }
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_batch() {
    // The last sample alone gives what it gives among others (sums over samples excepted).
    for level in simd::supported() {
        let inputs = Inputs::random(&plain([4, 40, 48, 16]));
        let mut all = Outputs::new(&inputs);
        all.run_fast(level, &inputs);
        let mut alone = inputs.clone();
        alone.options.shape[0] = 1;
        for m in [
            &mut alone.u,
            &mut alone.delta,
            &mut alone.bc,
            &mut alone.dout,
        ] {
            m.layout = m.layout.sample_range(3, 1);
        }
        if let Some(z) = &mut alone.z {
            z.layout = z.layout.sample_range(3, 1);
        }
        let mut one = Outputs::new(&alone);
        one.run_fast(level, &alone);
        for (whole, part) in [
            (&all.y, &one.y),
            (&all.du, &one.du),
            (&all.ddelta, &one.ddelta),
            (&all.dbc, &one.dbc),
        ] {
            assert_eq!(whole.narrow[whole.layout.row(3, 0)..], part.narrow);
        }
    }
}

/// Two directions gated together equal the gate on the sum of two ungated scans, and so do the
/// gradients.
#[test]
fn two_directions_share_one_gate() {
    let options = plain([2, 33, 20, 16]);
    let forward = Inputs::random(&options);
    let reverse = Inputs {
        options: Options {
            direction: Direction::Reverse,
            ..options.clone()
        },
        ..forward.clone()
    };
    let ungated = |inputs: &Inputs| {
        let inputs = Inputs {
            z: None,
            ..inputs.clone()
        };
        let mut outputs = Outputs::new(&inputs);
        outputs.run_fast(cpu::level(), &inputs);
        outputs
    };
    let (yf, yb) = (ungated(&forward).y, ungated(&reverse).y);
    let mut outputs = Outputs::new(&forward);
    outputs.run_fast(cpu::level(), &forward);
    let mut both = reverse.clone();
    both.options.accumulate = true;
    outputs.y.narrow.copy_from_slice(&yf.narrow);
    let dz = outputs.dz.narrow.clone();
    outputs.run_fast(cpu::level(), &both);
    let z = &forward.z.as_ref().unwrap().narrow;
    for i in 0..z.len() {
        let (z, sum) = (
            f64::from(z[i]),
            f64::from(yf.narrow[i]) + f64::from(yb.narrow[i]),
        );
        let want = sum * dis_scan::oracle::silu(z);
        assert!((f64::from(outputs.y.narrow[i]) - want).abs() < 2e-5, "{i}");
        let want = f64::from(forward.dout.narrow[i]) * sum * dis_scan::oracle::silu_derivative(z);
        assert!(
            (f64::from(outputs.dz.narrow[i]) - want).abs() < 2e-5,
            "{i}: {dz:?}"
        );
    }
}

/// Steps of any magnitude: states vanish at once, or never; nothing turns into NaN.
#[test]
fn extreme_magnitudes_stay_finite_and_right() {
    for discretization in [Discretization::Mamba, Discretization::ZeroOrderHold] {
        for (factor, shift) in [(30.0, 0.0), (1.0, -60.0), (1.0, 80.0), (300.0, 0.0)] {
            let options = Options {
                discretization,
                ..plain([1, 40, 20, 16])
            };
            let mut inputs = Inputs::random(&options);
            let delta: Vec<f64> = inputs
                .delta
                .wide
                .iter()
                .map(|x| x * factor + shift)
                .collect();
            inputs.delta = Matrix::new(inputs.delta.layout, delta);
            let mut outputs = Outputs::new(&inputs);
            outputs.run_oracle(&inputs);
            for level in simd::supported() {
                outputs.run_fast(level, &inputs);
                for (name, matrix) in outputs.all() {
                    if name != "arena" {
                        matrix
                            .check(name, RTOL, 0.0)
                            .unwrap_or_else(|e| panic!("{level} {factor} {shift}: {e}"));
                    }
                }
            }
        }
    }
}

/// A = 0 and products delta A around 0, where the zero-order hold divides 0 by 0.
#[test]
fn vanishing_decay_is_exact() {
    for discretization in [Discretization::Mamba, Discretization::ZeroOrderHold] {
        let options = Options {
            discretization,
            ..plain([2, 40, 20, 16])
        };
        let mut inputs = Inputs::random(&options);
        let a = inputs.a.wide.iter().enumerate();
        let a = a.map(|(i, a)| {
            if i % 3 == 0 {
                0.0
            } else {
                a * 10f64.powi(-((i % 41) as i32))
            }
        });
        inputs.a = Matrix::new(inputs.a.layout, a.collect());
        let mut outputs = Outputs::new(&inputs);
        outputs.run_oracle(&inputs);
        for level in simd::supported() {
            outputs.run_fast(level, &inputs);
            for (name, matrix) in outputs.all() {
                if name != "arena" {
                    matrix
                        .check(name, RTOL, 0.0)
                        .unwrap_or_else(|e| panic!("{level}: {e}"));
                }
            }
        }
    }
}

/// A non-finite input gives a non-finite output, never a plausible number.
#[test]
fn nan_is_not_hidden() {
    for level in simd::supported() {
        for which in 0..4 {
            let mut inputs = Inputs::random(&plain([1, 20, 17, 16]));
            let matrix = match which {
                0 => &mut inputs.u,
                1 => &mut inputs.delta,
                2 => &mut inputs.bc,
                _ => inputs.z.as_mut().unwrap(),
            };
            let at = matrix.layout.row(0, 5) + 2;
            matrix.narrow[at] = f32::NAN;
            let mut outputs = Outputs::new(&inputs);
            outputs.run_fast(level, &inputs);
            let y = outputs.y.narrow[outputs.y.layout.row(0, 5) + 2];
            assert!(y.is_nan(), "{level} input {which}: {y}");
        }
    }
}

/// Where exponents are small, fewer instructions do; a token whose exponents are not leaves the bits of
/// others in its chunk alone.
#[test]
fn a_large_step_leaves_other_tokens_alone() {
    const TOKENS: usize = 20;
    const CHANNELS: usize = 19;
    for discretization in [Discretization::Mamba, Discretization::ZeroOrderHold] {
        let inputs = Inputs::random(&Options {
            discretization,
            bias: false,
            ..plain([1, TOKENS, CHANNELS, 13])
        });
        let mut large = inputs.clone();
        // The last token of the first chunk: a step of 90, and exponents beyond -126.
        let at = large.delta.layout.row(0, 15) + 3;
        large.delta.narrow[at] = 90.0;
        for level in simd::supported() {
            let [mut one, mut other] = [Outputs::new(&inputs), Outputs::new(&inputs)];
            one.run_fast(level, &inputs);
            other.run_fast(level, &large);
            for (t, c) in (0..TOKENS).flat_map(|t| (0..CHANNELS).map(move |c| (t, c))) {
                let i = one.y.layout.row(0, t) + c;
                let same = one.y.narrow[i].to_bits() == other.y.narrow[i].to_bits();
                assert_eq!(same, c != 3 || t < 15, "{level} {discretization:?} {t} {c}");
            }
        }
    }
}
