//! Every sampler on data whose exact solution is known: observed orders of convergence, moments of
//! the random ones, and the tables of docs/samplers.md.

// Helpers outside #[test] functions may panic in tests too.
#![allow(clippy::unwrap_used)]

mod docs;
mod exact;
mod wide;

use dis_diffusion::{Grid, Level, SamplerSpec};
use exact::{Impulses, Method, NoNoise, PIXELS, deviation, flow, mean, moments};
use ndarray::Array4;

/// Steps of every table.
const STEPS: [usize; 5] = [5, 10, 20, 40, 80];

/// Deterministic samplers with their orders.
///
/// UniPC with a predictor of order p is of order p + 1, thanks to its corrector (Zhao et al., 2023,
/// theorem 3.1). The published third-order DPM-Sampler++ weighs its second difference by half of what
/// order 3 needs, so its order is 2; `dpmpp-3m-exact` is of order 3.
const DETERMINISTIC: [(Method, f64); 11] = [
    (Method::Ddim(0.0), 1.0),
    (Method::Named("euler"), 1.0),
    (Method::Named("dpmpp-1"), 1.0),
    (Method::Named("dpmpp-2m"), 2.0),
    (Method::Named("dpmpp-2m-heun"), 2.0),
    (Method::Named("dpmpp-3m"), 2.0),
    (Method::Named("dpmpp-3m-exact"), 3.0),
    (Method::Named("unipc-1"), 2.0),
    (Method::Named("unipc-2"), 3.0),
    (Method::Named("unipc-2-bh1"), 3.0),
    (Method::Named("unipc-3"), 4.0),
];

/// Heun's method calls the network twice a step, and is shown apart.
const HEUN: (Method, f64) = (Method::Named("heun"), 2.0);

/// Random samplers with the order of the deviation that they reach.
const RANDOM: [(Method, f64); 4] = [
    (Method::Ddim(1.0), 1.0),
    (Method::Named("euler-a"), 1.0),
    (Method::Named("dpmpp-1-sde"), 1.0),
    (Method::Named("dpmpp-2m-sde"), 2.0),
];

/// A grid that refines smoothly from lambda -1 to 3. It begins and ends with small steps, of order
/// h^2, so that neither the low orders of the first steps nor those of the last ones show.
fn smooth(steps: usize) -> Grid {
    let lambda = |i: usize| {
        let u = i as f64 / steps as f64;
        -1.0 + 4.0 * u * u * (3.0 - 2.0 * u)
    };
    let levels = (0..=steps).map(|i| Level::from_lambda(lambda(i)));
    let timesteps = (0..steps).map(|i| (steps - i) as f64);
    Grid::new(timesteps.collect(), levels.collect()).unwrap()
}

/// Images at the grid's first level: some deviations off the mean.
fn start(grid: &Grid) -> Array4<f64> {
    let first = grid.levels()[0];
    Array4::from_shape_fn((4, 1, 1, PIXELS), |(row, _, _, pixel)| {
        let off = [-1.3, -0.4, 0.7, 1.8][row];
        mean(pixel, first) + off * deviation(pixel, first)
    })
}

fn rms(errors: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = errors.fold((0.0, 0.0), |(s, n), e| (s + e * e, n + 1.0));
    f64::sqrt(sum / count)
}

/// Root mean square error of a deterministic sampler.
fn path_error(method: Method, steps: usize) -> f64 {
    let grid = smooth(steps);
    let start = start(&grid);
    let exact = flow(&start, grid.levels()[0], grid.levels()[steps]);
    let ours = method.run(&grid, start, &mut NoNoise);
    rms(ours.iter().zip(&exact).map(|(a, b)| a - b))
}

/// Root mean square error of a random sampler's deviations, relative; its means must be as good.
fn deviation_error(method: Method, steps: usize) -> f64 {
    let grid = smooth(steps);
    let last = grid.levels()[steps];
    let moments = moments(method, &grid);
    let off = rms(moments
        .iter()
        .enumerate()
        .map(|(pixel, (_, had))| had / deviation(pixel, last) - 1.0));
    let mean_off = rms(moments
        .iter()
        .enumerate()
        .map(|(pixel, (had, _))| had - mean(pixel, last)));
    // A run without noise from the true mean stays on the true mean, at any step size.
    assert!(mean_off < 1e-12, "{method:?}: mean off by {mean_off}");
    off
}

fn errors(method: Method, error: impl Fn(Method, usize) -> f64) -> [f64; 5] {
    STEPS.map(|steps| error(method, steps))
}

/// Orders between successive numbers of steps.
fn orders(errors: &[f64; 5]) -> [f64; 4] {
    [0, 1, 2, 3].map(|i| (errors[i] / errors[i + 1]).log2())
}

#[test]
fn deterministic_samplers_have_their_orders() {
    for (method, order) in DETERMINISTIC.into_iter().chain([HEUN]) {
        let errors = errors(method, path_error);
        let observed = orders(&errors)[3];
        assert!(
            (observed - order).abs() < 0.3,
            "{}: order {observed:.2}, expected {order}, from {errors:?}",
            method.label()
        );
    }
}

#[test]
fn random_samplers_reach_the_true_moments() {
    for (method, order) in RANDOM {
        let errors = errors(method, deviation_error);
        let observed = orders(&errors)[3];
        assert!(
            (observed - order).abs() < 0.3,
            "{}: order {observed:.2}, expected {order}, from {errors:?}",
            method.label()
        );
    }
}

/// A sampler that is not measured is one whose order nobody knows.
#[test]
fn every_sampler_is_measured() {
    let measured: Vec<String> = DETERMINISTIC
        .into_iter()
        .chain([HEUN])
        .chain(RANDOM)
        .map(|(method, _)| method.label())
        .collect();
    for name in SamplerSpec::NAMES {
        // Ancestral sampling is DDIM with eta 1, and tested to be.
        let known = name == "ancestral" || measured.iter().any(|label| label == name);
        assert!(known, "{name}");
    }
}

#[test]
fn without_noise_a_random_sampler_says_so() {
    let grid = smooth(5);
    let spec: SamplerSpec = "dpmpp-2m-sde".parse().unwrap();
    assert!(spec.is_stochastic());
    let response =
        Method::Named("dpmpp-2m-sde").run(&grid, Array4::zeros((7, 1, 1, PIXELS)), &mut Impulses);
    // Every draw leaves a trace but is damped on the way.
    for row in 1..6 {
        let trace = response[[row, 0, 0, 2]] - response[[0, 0, 0, 2]];
        assert!(trace > 1e-3 && trace < 1.0, "{row}: {trace}");
    }
}
