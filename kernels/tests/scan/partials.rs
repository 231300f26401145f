//! Sums of partial sums.

use super::case::{Device, Matrix, Random};
use super::check::check;
use super::oracle::Wide;
use dis_kernels::launch;
use dis_kernels::scan::SumPartials;
use dis_kernels::sim::Options;
use dis_kernels::{Driver, KernelError};

#[test]
fn partial_sums_add_up() {
    for (seed, (shape, count)) in [
        ([1, 1, 1], 1),
        ([1, 3, 33], 2),
        ([2, 3, 5], 7),
        ([3, 2, 70], 9),
        ([1, 1, 40], 64),
        ([2, 1, 3], 101),
    ]
    .into_iter()
    .enumerate()
    {
        for (pad, accumulate) in [(0, true), (2, false)] {
            let rng = &mut Random(seed as u64);
            let [batch, rows, columns] = shape;
            let parts = Matrix::new([batch * count, rows, columns], 0, || rng.normal());
            let device = Device::new(Options::default());
            let placed = device.put(&parts);
            let out = device.put(&Matrix::new(shape, pad, || 0.25));
            let kernel = SumPartials::new(placed.block.ptr(), out.mat_mut(), count, accumulate);
            launch(&device.sim, &kernel.unwrap()).unwrap();
            let mut want = Wide::zeros(shape);
            for b in 0..batch {
                for r in 0..rows {
                    for c in 0..columns {
                        let sum: f64 = (0..count).map(|k| parts.get(b * count + k, r, c)).sum();
                        *want.at(b, r, c) = sum + if accumulate { 0.25 } else { 0.0 };
                    }
                }
            }
            check("out", &device.get(&out), &out.host, &want, 3e-7, 1.0).unwrap();
        }
    }
}

#[test]
fn too_few_partial_sums_are_refused() {
    let device = Device::new(Options::default());
    let (parts, out) = (device.raw(19), device.put(&Matrix::sentinel([2, 1, 5], 0)));
    device.sim.zero(parts.address(), 4 * 19).unwrap();
    let error = SumPartials::new(parts.ptr(), out.mat_mut(), 2, false).unwrap_err();
    assert!(matches!(
        error,
        KernelError::OutOfBounds {
            needed: 20,
            len: 19,
            ..
        }
    ));
}
