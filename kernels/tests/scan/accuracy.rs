//! Softplus and the gate, relative to their own value at every magnitude.

use super::case::{
    Conv, Device, Direction, Matrix, Placed, PlacedConv, PlacedDirection, Problem, Setup,
};
use super::oracle;
use super::scan::run;
use dis_kernels::launch;
use dis_kernels::scan::{ConvForward, Forward, Variant};
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

/// The largest error of a row of channels in units in the last place of a float32.
fn worst(got: &Matrix, want: impl Fn(usize) -> f64) -> f64 {
    let errors = (0..got.shape[2]).map(|c| {
        let want = want(c);
        let exponent = (want.abs() as f32).to_bits() >> 23;
        let ulp = 2f64.powi(exponent.max(1) as i32 - 127 - 23);
        (got.get(0, 0, c) - want).abs() / ulp
    });
    errors.fold(0.0, f64::max)
}

/// The forward's largest error.
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
    worst(&device.get(&y), want)
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

/// `du` and `ddelta` of one token.
fn gradients(problem: &Problem, approx: Approx, any: bool) -> [Matrix; 2] {
    let device = Device::new(Options {
        approx,
        ..Options::default()
    });
    let results = run(&device, problem, Variant::N16, any).unwrap();
    ["du 0", "ddelta 0"].map(|wanted| {
        let found = results.named.iter().find(|(name, ..)| name == wanted);
        found.unwrap().1.clone()
    })
}

/// With u = B = C = dy = 1 the gradient of u is the step, that of the raw step its slope.
#[test]
fn backward_steps_are_accurate_to_a_few_units() {
    let channels = 3001;
    let x = arguments(channels, -86.0, 25.0);
    let mut problem = problem(channels);
    problem.z = None;
    problem.dout.data.fill(1.0);
    let dir = &mut problem.directions[0];
    dir.d = None;
    dir.bc.set(0, 0, 0, 1.0);
    dir.bc.set(0, 0, 16, 1.0);
    dir.delta.data.copy_from_slice(&x);
    for any in [false, true] {
        for (approx, bound) in [
            (Approx::Exact, 3.0),
            (Approx::Low, 6.0),
            (Approx::High, 6.0),
        ] {
            let [du, ddelta] = gradients(&problem, approx, any);
            let of = |c: usize| f64::from(x[c]);
            let (step, slope) = (
                worst(&du, |c| oracle::softplus(of(c))),
                worst(&ddelta, |c| oracle::sigmoid(of(c))),
            );
            assert!(step < bound, "{any} {approx:?}: step {step} ulp");
            assert!(slope < bound, "{any} {approx:?}: slope {slope} ulp");
        }
    }
}

/// With D = dout = 1 and B = C = 0 the gradient of u is the gate.
#[test]
fn backward_gates_are_accurate_to_a_few_units() {
    let channels = 3001;
    let x = arguments(channels, -80.0, 100.0);
    let mut problem = problem(channels);
    problem.dout.data.fill(1.0);
    if let Some(d) = &mut problem.directions[0].d {
        d.data.fill(1.0);
    }
    if let Some(z) = &mut problem.z {
        z.data.copy_from_slice(&x);
    }
    for any in [false, true] {
        for (approx, bound) in [
            (Approx::Exact, 3.0),
            (Approx::Low, 6.0),
            (Approx::High, 6.0),
        ] {
            let [du, _] = gradients(&problem, approx, any);
            let gate = worst(&du, |c| oracle::silu(f64::from(x[c])));
            assert!(gate < bound, "{any} {approx:?}: {gate} ulp");
        }
    }
}

/// A convolution whose last tap is 1 and whose others are 0 is SiLU, four tokens at a time.
#[test]
fn convolved_silu_is_accurate_to_a_few_units() {
    let channels = 3000;
    let x = arguments(4 * channels, -80.0, 100.0);
    let mut input = Matrix::new([1, 4, channels], 0, || 0.0);
    input.data.copy_from_slice(&x);
    let conv = Conv {
        weight: Matrix::new([1, channels, 2], 0, || 1.0),
        bias: None,
        silu: true,
        reverse: false,
    };
    let mut conv = conv;
    for c in 0..channels {
        conv.weight.set(0, c, 0, 0.0);
    }
    for (approx, bound) in [
        (Approx::Exact, 3.0),
        (Approx::Low, 6.0),
        (Approx::High, 6.0),
    ] {
        let device = Device::new(Options {
            approx,
            ..Options::default()
        });
        let (x, out) = (
            device.put(&input),
            device.put_unwritten(&Matrix::sentinel([1, 4, channels], 0)),
        );
        let placed = PlacedConv::new(&device, &conv);
        let kernel = ConvForward::new(x.mat(), &[(placed.walk(), out.mat_mut())]);
        launch(&device.sim, &kernel.unwrap()).unwrap();
        let mut out = device.get(&out);
        for t in 0..4 {
            let silu = worst(&out, |c| oracle::silu(input.get(0, t, c)));
            assert!(silu < bound, "{approx:?}: {silu} ulp");
            out.offset += out.row_stride;
        }
    }
}
