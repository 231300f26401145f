//! Softplus and the gate, relative to their own value at every magnitude.

use super::case::{Device, Direction, Matrix, Placed, PlacedDirection, Problem, Setup};
use super::oracle;
use dis_kernels::scan::{Forward, Variant};
use dis_kernels::sim::{Approx, Options};

/// Values of a wide range, denser near 0.
fn arguments(count: usize, least: f64, most: f64) -> Vec<f32> {
    let unit = |i: usize| i as f64 / (count - 1) as f64;
    let ramp = |i: usize| least + (most - least) * unit(i);
    let near = |i: usize| (2.0 * unit(i) - 1.0).powi(3);
    (0..count)
        .map(|i| if i % 2 == 0 { ramp(i) } else { near(i) } as f32)
        .collect()
}

/// A scan of one token without recurrence, whose output is `step` and `gate` of a channel's numbers.
fn problem(channels: usize) -> Problem {
    let mut problem = Problem::new(&Setup {
        reverse: vec![false],
        bias: false,
        ..Setup::plain([1, 1, channels, 16])
    });
    let dir: &mut Direction = &mut problem.directions[0];
    for m in [&mut dir.bc, &mut dir.a, &mut dir.u] {
        m.data.fill(0.0);
    }
    dir.u.data.fill(1.0);
    dir.a.data.fill(-1.0);
    problem
}

/// The largest error in units in the last place of a float32.
fn ulps(problem: &Problem, variant: Variant, approx: Approx, want: impl Fn(usize) -> f64) -> f64 {
    let device = Device::new(Options {
        approx,
        ..Options::default()
    });
    let placed = PlacedDirection::new(&device, problem, &problem.directions[0]);
    let y = device.put_unwritten(&problem.y);
    let z = problem.z.as_ref().map(|z| device.put(z));
    let z = z.as_ref().map(Placed::mat);
    let walk = [placed.forward(false)];
    let forward = Forward::with_variant(variant, &walk, y.mat_mut(), false, z).unwrap();
    forward.launch(&device.sim).unwrap();
    let y: Matrix = device.get(&y);
    let errors = (0..problem.shape[2]).map(|c| {
        let want = want(c);
        let exponent = (want.abs() as f32).to_bits() >> 23;
        let ulp = 2f64.powi(exponent.max(1) as i32 - 127 - 23);
        (y.get(0, 0, c) - want).abs() / ulp
    });
    errors.fold(0.0, f64::max)
}

const VARIANTS: [Variant; 4] = [
    Variant::N16,
    Variant::Split16,
    Variant::Lanes4,
    Variant::Lanes8,
];

/// The step of a token is its output where u, B and C are 1 and the rest 0.
#[test]
fn softplus_is_accurate_to_a_few_units() {
    let channels = 3001;
    let x = arguments(channels, -86.0, 25.0);
    let mut problem = problem(channels);
    problem.z = None;
    let dir = &mut problem.directions[0];
    dir.d = None;
    dir.bc.set(0, 0, 0, 1.0);
    dir.bc.set(0, 0, 16, 1.0);
    dir.delta.data.copy_from_slice(&x);
    for variant in VARIANTS {
        for (approx, bound) in [
            (Approx::Exact, 2.5),
            (Approx::Low, 5.0),
            (Approx::High, 5.0),
        ] {
            let worst = ulps(&problem, variant, approx, |c| {
                oracle::softplus(f64::from(x[c]))
            });
            assert!(worst < bound, "{variant:?} {approx:?}: {worst} ulp");
        }
    }
}

/// The gate of a token is its output where D and u are 1 and B and C are 0.
#[test]
fn gate_is_accurate_to_a_few_units() {
    let channels = 3001;
    let x = arguments(channels, -80.0, 100.0);
    let mut problem = problem(channels);
    let dir = &mut problem.directions[0];
    if let Some(d) = &mut dir.d {
        d.data.fill(1.0);
    }
    if let Some(z) = &mut problem.z {
        z.data.copy_from_slice(&x);
    }
    for variant in VARIANTS {
        for (approx, bound) in [
            (Approx::Exact, 3.0),
            (Approx::Low, 6.0),
            (Approx::High, 6.0),
        ] {
            let worst = ulps(&problem, variant, approx, |c| oracle::silu(f64::from(x[c])));
            assert!(worst < bound, "{variant:?} {approx:?}: {worst} ulp");
        }
    }
}
