//! The scan, forward and backward, against the oracle.

use super::case::{Device, Matrix, Placed, PlacedDirection, Problem, Setup, gap};
use super::check::check;
use super::oracle::{self, Expected, Gradients};
use dis_kernels::launch;
use dis_kernels::scan::{Backward, BackwardWalk, Forward, PartialSums, SumPartials, Variant};
use dis_kernels::sim::{Approx, Options, Order, Sim};
use dis_kernels::{Block, MatMut};

/// Largest error, as a fraction of the largest magnitude (1 at least), with exact special functions.
/// Measured worst over the problems of this file: 1.8e-6 for dA over 1026 tokens, 9e-7 for the rest.
pub const RTOL: f64 = 3e-6;
/// The same where every special function is off by its full bound, always to one side: two units in
/// the last place of every decay add up over the tokens that a state remembers. Measured: 2.7e-6.
pub const RTOL_APPROX: f64 = 6e-6;

/// Results as they lie in memory, each with what was there before.
pub struct Results {
    pub named: Vec<(String, Matrix, Matrix)>,
}

/// The results' counterparts in a solution, in the order of [`run`].
fn expected(problem: &Problem, want: &Expected) -> Vec<oracle::Wide> {
    let mut all = vec![want.y.clone()];
    all.extend(want.last.iter().cloned());
    if problem.z.is_some() {
        all.push(want.dz.clone());
    }
    for (dir, g) in problem.directions.iter().zip(&want.gradients) {
        let Gradients {
            du,
            ddelta,
            dbc,
            da,
            dd,
            dbias,
        } = g.clone();
        all.extend([du, ddelta, dbc, da]);
        for (there, mut sum) in [(dir.d.is_some(), dd), (dir.bias.is_some(), dbias)] {
            if there {
                // Sums that are added to what is there.
                sum.data.iter_mut().for_each(|x| *x += BEFORE);
                all.push(sum);
            }
        }
    }
    all
}

const BEFORE: f64 = 0.5;

fn sum(
    device: &Device,
    parts: &Block<Sim>,
    count: usize,
    out: MatMut,
    accumulate: bool,
) -> Result<(), String> {
    let kernel = SumPartials::new(parts.ptr(), out, count, accumulate).unwrap();
    launch(&device.sim, &kernel).map_err(|e| e.to_string())
}

/// Forward by an entry, then backward (by the one for any number of states if `any`).
pub fn run(
    device: &Device,
    problem: &Problem,
    variant: Variant,
    any: bool,
) -> Result<Results, String> {
    let [batch, tokens, channels, states] = problem.shape;
    let pad = problem.pad;
    let placed: Vec<PlacedDirection> = problem
        .directions
        .iter()
        .map(|dir| PlacedDirection::new(device, problem, dir))
        .collect();
    let z = problem.z.as_ref().map(|z| device.put(z));
    let place = if problem.accumulate {
        Device::put
    } else {
        Device::put_unwritten
    };
    let y = place(device, &problem.y);
    let walks: Vec<_> = placed.iter().map(|dir| dir.forward(true)).collect();
    let forward = Forward::with_variant(
        variant,
        &walks,
        y.mat_mut(),
        problem.accumulate,
        z.as_ref().map(Placed::mat),
    )
    .unwrap();
    forward.launch(&device.sim).map_err(|e| e.to_string())?;

    let full = [batch, tokens, channels];
    let dout = device.put(&problem.dout);
    let dz = place(device, &problem.dz);
    let blocks = PartialSums::blocks(channels, states);
    let fresh = |shape, operand| device.put_unwritten(&Matrix::sentinel(shape, gap(pad, operand)));
    let grads: Vec<_> = (0..placed.len())
        .map(|i| {
            let parts = PartialSums::lens(full, states).map(|len| device.raw(len));
            (fresh(full, i), fresh(full, 2 + i), parts)
        })
        .collect();
    let walks: Vec<_> = placed
        .iter()
        .zip(&grads)
        .map(|(dir, (du, ddelta, [dbc, da, dd, dbias]))| BackwardWalk {
            walk: dir.walk(),
            checkpoints: dir.checkpoints.ptr(),
            du: du.mat_mut(),
            ddelta: ddelta.mat_mut(),
            sums: PartialSums {
                dbc: dbc.ptr_mut(),
                da: da.ptr_mut(),
                dd: dd.ptr_mut(),
                dbias: dbias.ptr_mut(),
            },
        })
        .collect();
    let gate = z.as_ref().map(|z| (z.mat(), dz.mat_mut()));
    let new = if any {
        Backward::new_any
    } else {
        Backward::new
    };
    let backward = new(&walks, dout.mat(), gate, problem.accumulate).unwrap();
    backward.launch(&device.sim).map_err(|e| e.to_string())?;

    let mut named = Vec::new();
    let mut add = |name: String, placed: &Placed| {
        named.push((name, device.get(placed), placed.host.clone()));
    };
    add("y".into(), &y);
    for (i, dir) in placed.iter().enumerate() {
        add(format!("last state {i}"), &dir.last);
    }
    if z.is_some() {
        add("dz".into(), &dz);
    }
    for (i, (dir, (du, ddelta, [dbc, da, dd, dbias]))) in
        problem.directions.iter().zip(&grads).enumerate()
    {
        add(format!("du {i}"), du);
        add(format!("ddelta {i}"), ddelta);
        let out = fresh([batch, tokens, 2 * states], 0);
        sum(device, dbc, blocks, out.mat_mut(), false)?;
        add(format!("dbc {i}"), &out);
        let out = fresh([1, channels, states], 0);
        sum(device, da, batch, out.mat_mut(), false)?;
        add(format!("da {i}"), &out);
        for (name, there, parts) in [
            ("dD", dir.d.is_some(), dd),
            ("dbias", dir.bias.is_some(), dbias),
        ] {
            if there {
                let out = device.put(&Matrix::new([1, 1, channels], pad, || BEFORE));
                sum(device, parts, batch, out.mat_mut(), true)?;
                add(format!("{name} {i}"), &out);
            }
        }
    }
    Ok(Results { named })
}

fn compare(
    setup: &Setup,
    problem: &Problem,
    options: Options,
    variant: Variant,
    any: bool,
    rtol: f64,
) {
    let want = expected(problem, &oracle::solve(problem));
    let context = format!("{setup:?} {variant:?} any={any} {options:?}");
    let device = Device::new(options);
    let results = run(&device, problem, variant, any).unwrap_or_else(|e| panic!("{e}\n{context}"));
    assert_eq!(results.named.len(), want.len());
    for ((name, got, before), want) in results.named.iter().zip(&want) {
        // Terms are of magnitude 1 at least; sums of few may cancel.
        if std::env::var_os("DIS_MEASURE").is_some() {
            let error = super::check::error(got, before, want, 1.0).unwrap_or(9.0);
            println!(
                "{error:9.2e} {name} {variant:?} {any} {:?} {:?}",
                setup.shape, options.approx
            );
        }
        check(name, got, before, want, rtol, 1.0).unwrap_or_else(|e| panic!("{e}\n{context}"));
    }
}

fn exact() -> Options {
    Options::default()
}

/// The entries that take this number of states.
fn variants(states: usize) -> Vec<Variant> {
    let mut all = vec![Variant::Lanes8];
    if states <= 128 {
        all.push(Variant::Lanes4);
    }
    if states == 16 {
        all.extend([Variant::N16, Variant::Split16]);
    }
    all
}

#[test]
fn odd_shapes_agree_with_float64() {
    let mut seed = 1;
    for states in [1, 8, 16, 32] {
        for tokens in [1, 5, 33] {
            for (batch, channels) in [(1, 24), (3, 37)] {
                for variant in variants(states) {
                    seed += 1;
                    let setup = Setup::random(seed, [batch, tokens, channels, states]);
                    let problem = Problem::new(&setup);
                    compare(&setup, &problem, exact(), variant, seed % 2 == 0, RTOL);
                }
            }
        }
    }
}

#[test]
fn long_sequences_agree_with_float64() {
    for (shape, variant, hold) in [
        ([1, 257, 736, 16], Variant::N16, false),
        ([1, 258, 37, 16], Variant::N16, true),
        ([1, 257, 37, 16], Variant::Split16, false),
        ([1, 258, 37, 16], Variant::Split16, true),
        ([1, 257, 37, 16], Variant::Lanes4, false),
        ([2, 258, 24, 16], Variant::Lanes8, true),
        ([1, 1026, 24, 16], Variant::N16, false),
        ([1, 258, 24, 32], Variant::Lanes8, false),
    ] {
        let setup = Setup {
            hold,
            ..Setup::plain(shape)
        };
        let problem = Problem::new(&setup);
        compare(&setup, &problem, exact(), variant, false, RTOL);
    }
}

/// Several blocks of channels where one lane has all states of a channel, or few have.
#[test]
fn few_states_of_many_channels_agree_with_float64() {
    for (seed, states) in [(1, 1), (2, 4), (3, 5), (4, 8), (5, 9)] {
        let setup = Setup::random(seed, [1, 3, 300, states]);
        let problem = Problem::new(&setup);
        for variant in variants(states) {
            compare(&setup, &problem, exact(), variant, true, RTOL);
        }
    }
}

/// More states than a launch of the backward takes, with and without padding.
#[test]
fn many_states_agree_with_float64() {
    for (seed, states) in [(1, 64), (2, 65), (3, 100), (4, 128), (5, 200), (6, 256)] {
        let setup = Setup::random(seed, [2, 18, 5, states]);
        let problem = Problem::new(&setup);
        for variant in variants(states) {
            compare(&setup, &problem, exact(), variant, false, RTOL);
        }
    }
}

#[test]
fn worst_approximations_and_any_order_stay_within_their_tolerance() {
    let approximations = [
        Approx::Low,
        Approx::High,
        Approx::Random(1),
        Approx::Random(2),
    ];
    let orders = [Order::Reversed, Order::Shuffled(5), Order::InOrder];
    let mut seed = 100;
    for (i, approx) in approximations.into_iter().enumerate() {
        for shape in [[1, 70, 37, 16], [3, 20, 24, 8]] {
            for variant in variants(shape[3]) {
                seed += 1;
                let options = Options {
                    approx,
                    order: orders[(i + seed as usize) % 3],
                    ..exact()
                };
                for hold in [false, true] {
                    let setup = Setup {
                        hold,
                        seed,
                        ..Setup::plain(shape)
                    };
                    let problem = Problem::new(&setup);
                    let any = seed % 2 == 0;
                    compare(&setup, &problem, options, variant, any, RTOL_APPROX);
                }
            }
        }
    }
}

/// Where the two walks meet: the lengths around a tile's.
#[test]
fn walks_that_meet_agree_with_float64() {
    for tokens in [1, 2, 4, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65] {
        for accumulate in [false, true] {
            let setup = Setup {
                accumulate,
                z: tokens % 3 != 0,
                ..Setup::plain([1, tokens, 9, 16])
            };
            let problem = Problem::new(&setup);
            for order in [Order::InOrder, Order::Reversed, Order::Shuffled(9)] {
                let options = Options { order, ..exact() };
                compare(
                    &setup,
                    &problem,
                    options,
                    Variant::Split16,
                    accumulate,
                    RTOL,
                );
            }
        }
    }
}

/// The order of blocks and warps changes no bit: there is nothing for it to change.
#[test]
fn results_do_not_depend_on_the_order_of_blocks_and_warps() {
    let setup = Setup::plain([2, 40, 150, 16]);
    let problem = Problem::new(&setup);
    for (variant, any) in [
        (Variant::N16, false),
        (Variant::Lanes4, true),
        (Variant::Split16, false),
    ] {
        let run = |order| {
            let device = Device::new(Options { order, ..exact() });
            run(&device, &problem, variant, any).unwrap()
        };
        let first = run(Order::InOrder);
        for order in [Order::Reversed, Order::Shuffled(1), Order::Shuffled(2)] {
            for ((name, a, _), (_, b, _)) in first.named.iter().zip(&run(order).named) {
                let same = a.data.iter().zip(&b.data);
                let same = same.into_iter().all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{name} {variant:?} {order:?}");
            }
        }
    }
}

/// A sample gives the same among others as alone.
#[test]
fn results_do_not_depend_on_the_batch() {
    let of = |problem: &Problem| {
        let device = Device::new(exact());
        let results = run(&device, problem, Variant::N16, false).unwrap();
        oracle::Wide::of(&results.named[0].1).data
    };
    let problem = Problem::new(&Setup::plain([3, 40, 40, 16]));
    let all = of(&problem);
    let mut alone = problem.clone();
    alone.shape[0] = 1;
    let last = |m: &mut Matrix| {
        m.shape[0] = 1;
        m.offset += 2 * m.batch_stride;
    };
    for dir in &mut alone.directions {
        last(&mut dir.u);
        last(&mut dir.delta);
        last(&mut dir.bc);
    }
    alone.z.iter_mut().for_each(last);
    for m in [&mut alone.dout, &mut alone.y, &mut alone.dz] {
        last(m);
    }
    assert_eq!(all[2 * 40 * 40..], of(&alone));
}

fn map(matrix: &mut Matrix, mut f: impl FnMut(usize, f32) -> f32) {
    for (i, x) in matrix.data.iter_mut().enumerate() {
        *x = f(i, *x);
    }
}

/// Steps of any magnitude: states vanish at once, or never; nothing turns into NaN.
#[test]
fn extreme_magnitudes_stay_finite_and_right() {
    for hold in [false, true] {
        for (factor, shift) in [(30.0, 0.0), (1.0, -60.0), (1.0, 80.0), (300.0, 0.0)] {
            let setup = Setup {
                hold,
                reverse: vec![true],
                ..Setup::plain([1, 20, 20, 16])
            };
            let mut problem = Problem::new(&setup);
            map(&mut problem.directions[0].delta, |_, x| factor * x + shift);
            if let Some(z) = &mut problem.z {
                map(z, |_, x| 40.0 * x);
            }
            for variant in variants(16) {
                compare(
                    &setup,
                    &problem,
                    exact(),
                    variant,
                    variant != Variant::N16,
                    RTOL,
                );
            }
        }
    }
}

/// A = 0 and products delta A around 0, where the zero-order hold divides 0 by 0.
#[test]
fn vanishing_decay_is_exact() {
    for hold in [false, true] {
        let setup = Setup {
            hold,
            ..Setup::plain([2, 20, 20, 16])
        };
        let mut problem = Problem::new(&setup);
        for dir in &mut problem.directions {
            map(&mut dir.a, |i, a| match i % 3 {
                0 => 0.0,
                _ => a * 10f32.powi(-((i % 41) as i32)),
            });
        }
        for variant in variants(16) {
            compare(
                &setup,
                &problem,
                exact(),
                variant,
                variant != Variant::N16,
                RTOL,
            );
        }
    }
}

/// A non-finite input gives a non-finite output, never a plausible number; other channels keep
/// theirs.
#[test]
fn nan_is_not_hidden() {
    for variant in variants(16) {
        for which in 0..4 {
            let mut problem = Problem::new(&Setup::plain([1, 20, 17, 16]));
            let dir = &mut problem.directions[0];
            let matrix = match which {
                0 => &mut dir.u,
                1 => &mut dir.delta,
                2 => &mut dir.bc,
                _ => problem.z.as_mut().unwrap(),
            };
            matrix.set(0, 5, 2, f32::NAN);
            let device = Device::new(exact());
            let results = run(&device, &problem, variant, false).unwrap();
            let y = &results.named[0].1;
            assert!(y.get(0, 5, 2).is_nan(), "{variant:?} input {which}");
            if which != 2 {
                assert!(y.get(0, 5, 3).is_finite(), "{variant:?} input {which}");
            }
        }
    }
}

/// Infinite gates and steps have limits.
#[test]
fn infinite_gates_and_steps_have_their_limits() {
    for variant in variants(16) {
        let mut problem = Problem::new(&Setup {
            reverse: vec![false],
            ..Setup::plain([1, 3, 20, 16])
        });
        let z = problem.z.as_mut().unwrap();
        z.set(0, 1, 2, f32::NEG_INFINITY);
        z.set(0, 1, 3, -200.0);
        z.set(0, 1, 4, f32::INFINITY);
        problem.directions[0].delta.set(0, 2, 5, f32::NEG_INFINITY);
        let device = Device::new(exact());
        let results = run(&device, &problem, variant, false).unwrap();
        let y = &results.named[0].1;
        assert_eq!(y.get(0, 1, 2), 0.0, "{variant:?}");
        assert_eq!(y.get(0, 1, 3), 0.0, "{variant:?}");
        assert!(y.get(0, 1, 4).is_infinite(), "{variant:?}");
        assert!(y.get(0, 2, 5).is_finite(), "{variant:?}");
    }
}

/// Neither checkpoints nor last states are needed.
#[test]
fn sampling_needs_no_extras() {
    for variant in variants(16) {
        let problem = Problem::new(&Setup::plain([2, 20, 37, 16]));
        let device = Device::new(exact());
        let placed: Vec<_> = problem
            .directions
            .iter()
            .map(|dir| PlacedDirection::new(&device, &problem, dir))
            .collect();
        let walks: Vec<_> = placed.iter().map(|dir| dir.forward(false)).collect();
        let y = device.put(&problem.y);
        let z = problem.z.as_ref().map(|z| device.put(z));
        let z = z.as_ref().map(Placed::mat);
        let forward = Forward::with_variant(variant, &walks, y.mat_mut(), false, z).unwrap();
        forward.launch(&device.sim).unwrap();
        let want = oracle::solve(&problem).y;
        check("y", &device.get(&y), &y.host, &want, RTOL, 1.0).unwrap();
    }
}
