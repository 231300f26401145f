//! Every line of the texts runs, and contracts refuse what does not fit.

use super::case::{Device, Matrix, PlacedDirection, Problem, Setup};
use super::scan::run;
use dis_kernels::scan::{Forward, Variant};
use dis_kernels::sim::Options;
use dis_kernels::{KernelError, ptx};

#[test]
fn every_line_of_the_scan_runs() {
    let device = Device::new(Options::default());
    for (tokens, states, variant) in [
        (40, 16, Variant::N16),
        (1, 16, Variant::N16),
        (18, 16, Variant::Split16),
        (40, 16, Variant::Split16),
        (20, 16, Variant::Lanes4),
        (20, 16, Variant::Lanes8),
        (20, 70, Variant::Lanes8),
    ] {
        for (i, hold) in [false, true].into_iter().enumerate() {
            // Everything that is optional is there once and absent once.
            let setup = Setup {
                hold,
                pad: i,
                d: hold,
                bias: hold,
                softplus: hold,
                z: true,
                ..Setup::plain([2, tokens, 5, states])
            };
            run(&device, &Problem::new(&setup), variant, states != 16).unwrap();
        }
    }
    // Many samples: sums of many partial sums.
    let many = Problem::new(&Setup::plain([40, 1, 2, 16]));
    run(&device, &many, Variant::N16, false).unwrap();
    let setup = Setup {
        z: false,
        ..Setup::plain([1, 3, 5, 16])
    };
    for any in [false, true] {
        run(&device, &Problem::new(&setup), Variant::N16, any).unwrap();
    }
    for file in [&ptx::SCAN_FORWARD, &ptx::SCAN_BACKWARD, &ptx::PARTIALS] {
        let coverage = device.sim.coverage(file).unwrap();
        let missed: Vec<_> = coverage.uncovered().collect();
        assert!(missed.is_empty(), "{}: {missed:?}", file.name);
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let problem = Problem::new(&Setup::plain([2, 20, 5, 16]));
    let device = Device::new(Options::default());
    let placed = PlacedDirection::new(&device, &problem, &problem.directions[0]);
    let (y, small) = (
        device.put(&problem.y),
        device.put(&Matrix::sentinel([2, 19, 5], 0)),
    );
    let good = placed.forward(true);
    let shape_error = |error: KernelError, what: &str| {
        let text = error.to_string();
        assert!(
            matches!(error, KernelError::Shape { .. }) && text.contains(what),
            "{text}"
        );
    };
    let error = Forward::new(&[good], small.mat_mut(), false, None, 132).unwrap_err();
    shape_error(error, "y has shape [2, 19, 5]");
    let mut bad = good;
    bad.walk.delta = small.mat();
    let error = Forward::new(&[bad], y.mat_mut(), false, None, 132).unwrap_err();
    shape_error(error, "delta has shape");
    let error = Forward::new(&[], y.mat_mut(), false, None, 132).unwrap_err();
    shape_error(error, "0 directions");
    let error = Forward::new(&[good; 3], y.mat_mut(), false, None, 132).unwrap_err();
    shape_error(error, "3 directions");
    let with = Forward::with_variant;
    let error = with(Variant::Split16, &[good; 2], y.mat_mut(), false, None).unwrap_err();
    shape_error(error, "not opposite");
    let mut short = good;
    short.checkpoints = good.checkpoints.map(|c| c.at(1));
    let error = Forward::new(&[short], y.mat_mut(), false, None, 132).unwrap_err();
    assert!(
        matches!(
            error,
            KernelError::OutOfBounds {
                name: "checkpoints",
                ..
            }
        ),
        "{error}"
    );
}

/// The entry follows the work: many threads for few channels.
#[test]
fn small_batches_split_states_over_lanes() {
    assert_eq!(Variant::choose(64, 1536, 16, 132), Variant::N16);
    assert_eq!(Variant::choose(1, 736, 16, 132), Variant::Split16);
    assert_eq!(Variant::choose(64, 1536, 32, 132), Variant::Lanes8);
    assert_eq!(Variant::choose(1, 736, 200, 132), Variant::Lanes8);
}
