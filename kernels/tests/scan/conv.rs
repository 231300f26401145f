//! The convolution, forward and backward, against the oracle.

use super::case::{Conv, Device, Matrix, PlacedConv, Random, gap};
use super::check::check;
use super::oracle::{self, Wide};
use dis_kernels::scan::{ConvBackward, ConvBoth, ConvForward, SumPartials, conv_tiles};
use dis_kernels::sim::{Approx, Options, Order};
use dis_kernels::{launch, ptx};

/// Largest error as a fraction of the largest magnitude. Measured worst: 4e-7.
const RTOL: f64 = 1e-6;

struct Case {
    x: Matrix,
    convs: Vec<Conv>,
    dout: Matrix,
    dx: Matrix,
    accumulate: bool,
    pad: usize,
}

fn case(seed: u64, shape: [usize; 3], width: usize) -> Case {
    let rng = &mut Random(seed);
    let channels = shape[2];
    let (pad, accumulate) = (rng.pick(&[0, 2]), rng.flag());
    let (silu, bias) = (rng.flag() || rng.flag(), rng.flag());
    let convs = [false, true].map(|reverse| Conv {
        // Strides of its own for each operand.
        weight: Matrix::new(
            [1, channels, width],
            gap(pad, 1 + usize::from(reverse)),
            || rng.normal(),
        ),
        bias: bias.then(|| Matrix::new([1, 1, channels], pad, || rng.normal())),
        silu,
        reverse,
    });
    Case {
        x: Matrix::new(shape, pad, || 2.0 * rng.normal()),
        convs: convs.to_vec(),
        dout: Matrix::new(shape, gap(pad, 3), || rng.normal()),
        dx: if accumulate {
            Matrix::new(shape, gap(pad, 4), || rng.normal())
        } else {
            Matrix::sentinel(shape, gap(pad, 4))
        },
        accumulate,
        pad,
    }
}

fn forward(case: &Case, device: &Device, directions: &[usize]) -> Result<(), String> {
    let x = device.put(&case.x);
    let placed: Vec<_> = directions
        .iter()
        .map(|&i| {
            let out = Matrix::sentinel(case.x.shape, gap(case.pad, 5 + i));
            let out = device.put_unwritten(&out);
            (PlacedConv::new(device, &case.convs[i]), out)
        })
        .collect();
    let walks: Vec<_> = placed
        .iter()
        .map(|(conv, out)| (conv.walk(), out.mat_mut()))
        .collect();
    launch(&device.sim, &ConvForward::new(x.mat(), &walks).unwrap()).map_err(|e| e.to_string())?;
    for (&i, (_, out)) in directions.iter().zip(&placed) {
        let want = oracle::convolve(&case.x, &case.convs[i]);
        check("out", &device.get(out), &out.host, &want, RTOL, 1.0)?;
    }
    Ok(())
}

fn both(case: &Case, device: &Device) -> Result<(), String> {
    let x = device.put(&case.x);
    let placed = [1, 0].map(|i| {
        let out = Matrix::sentinel(case.x.shape, gap(case.pad, 5 + i));
        let conv = PlacedConv::new(device, &case.convs[i]);
        (i, conv, device.put_unwritten(&out))
    });
    let walks = [&placed[0], &placed[1]].map(|(_, conv, out)| (conv.walk(), out.mat_mut()));
    launch(&device.sim, &ConvBoth::new(x.mat(), &walks).unwrap()).map_err(|e| e.to_string())?;
    for (i, _, out) in &placed {
        let want = oracle::convolve(&case.x, &case.convs[*i]);
        check("out of both", &device.get(out), &out.host, &want, RTOL, 1.0)?;
    }
    Ok(())
}

fn backward(case: &Case, device: &Device, conv: &Conv) -> Result<(), String> {
    let [batch, tokens, channels] = case.x.shape;
    let width = conv.weight.shape[2];
    let (x, dout) = (device.put(&case.x), device.put(&case.dout));
    let dx = if case.accumulate {
        device.put(&case.dx)
    } else {
        device.put_unwritten(&case.dx)
    };
    let placed = PlacedConv::new(device, conv);
    let count = batch * conv_tiles(tokens);
    let dweight_part = device.raw(count * channels * width);
    let dbias_part = device.raw(count * channels);
    let kernel = ConvBackward::new(
        x.mat(),
        dout.mat(),
        dx.mat_mut(),
        placed.walk(),
        dweight_part.ptr_mut(),
        dbias_part.ptr_mut(),
        case.accumulate,
    );
    launch(&device.sim, &kernel.unwrap()).map_err(|e| e.to_string())?;
    let dweight = device.put(&Matrix::new([1, channels, width], case.pad, || 0.5));
    let dbias = device.put(&Matrix::new([1, 1, channels], case.pad, || -1.0));
    for (parts, out) in [(&dweight_part, &dweight), (&dbias_part, &dbias)] {
        let kernel = SumPartials::new(parts.ptr(), out.mat_mut(), count, true).unwrap();
        launch(&device.sim, &kernel).map_err(|e| e.to_string())?;
    }
    let before = if case.accumulate {
        Wide::of(&case.dx)
    } else {
        Wide::zeros(case.x.shape)
    };
    let [want_dx, mut want_dweight, mut want_dbias] =
        oracle::convolve_backward(&case.x, conv, &case.dout, before);
    want_dweight.data.iter_mut().for_each(|x| *x += 0.5);
    want_dbias.data.iter_mut().for_each(|x| *x -= 1.0);
    for (name, placed, want) in [
        ("dx", &dx, want_dx),
        ("dweight", &dweight, want_dweight),
        ("dbias", &dbias, want_dbias),
    ] {
        check(name, &device.get(placed), &placed.host, &want, RTOL, 1.0)?;
    }
    Ok(())
}

#[test]
fn convolution_agrees_with_float64() {
    let mut seed = 0;
    let approximations = [Approx::Exact, Approx::Low, Approx::High, Approx::Random(3)];
    let orders = [Order::InOrder, Order::Reversed, Order::Shuffled(1)];
    for width in [2, 3, 4] {
        for shape in [
            [1, 1, 24],
            [3, 2, 37],
            [1, 3, 5],
            [2, 5, 37],
            [1, 35, 130],
            [1, 66, 24],
            [1, 257, 37],
        ] {
            for _ in 0..2 {
                seed += 1;
                let case = case(seed, shape, width);
                let options = Options {
                    approx: approximations[seed as usize % 4],
                    order: orders[seed as usize % 3],
                    ..Options::default()
                };
                let device = Device::new(options);
                let context = format!("seed {seed} {shape:?} width {width}");
                for directions in [&[0][..], &[1], &[0, 1]] {
                    forward(&case, &device, directions)
                        .unwrap_or_else(|e| panic!("{e} {context} {directions:?}"));
                }
                both(&case, &device).unwrap_or_else(|e| panic!("{e} {context}"));
                for conv in &case.convs {
                    backward(&case, &device, conv).unwrap_or_else(|e| panic!("{e} {context}"));
                }
            }
        }
    }
}

/// A tap that does not exist is not a product with zero: infinities stay in their window.
#[test]
fn infinities_stay_in_their_window() {
    let shape = [1, 12, 3];
    for (width, reach) in [(2, 1), (3, 2), (4, 3)] {
        for at in 0..8 {
            let case = case(9, shape, width);
            let conv = |silu| Conv {
                silu,
                ..case.convs[0].clone()
            };
            let spoiled = |matrix: &Matrix| {
                let mut matrix = matrix.clone();
                matrix.set(0, at, 1, f32::INFINITY);
                matrix
            };
            let device = Device::new(Options::default());
            let x = device.put(&spoiled(&case.x));
            let out = device.put(&Matrix::sentinel(shape, 0));
            let placed = PlacedConv::new(&device, &conv(false));
            let kernel = ConvForward::new(x.mat(), &[(placed.walk(), out.mat_mut())]);
            launch(&device.sim, &kernel.unwrap()).unwrap();
            let out = device.get(&out);
            for t in 0..12 {
                let within = (at..=at + reach).contains(&t);
                assert_eq!(out.get(0, t, 1).is_finite(), !within, "{width} {at} {t}");
            }
            let reverse = PlacedConv::new(
                &device,
                &Conv {
                    silu: false,
                    ..case.convs[1].clone()
                },
            );
            let fresh = || device.put(&Matrix::sentinel(shape, 0));
            let (f_out, r_out) = (fresh(), fresh());
            let walks = [
                (placed.walk(), f_out.mat_mut()),
                (reverse.walk(), r_out.mat_mut()),
            ];
            launch(&device.sim, &ConvBoth::new(x.mat(), &walks).unwrap()).unwrap();
            let (f_out, r_out) = (device.get(&f_out), device.get(&r_out));
            for t in 0..12 {
                let (f, r) = (at..=at + reach, at.saturating_sub(reach)..=at);
                assert_eq!(
                    f_out.get(0, t, 1).is_finite(),
                    !f.contains(&t),
                    "{width} {at} {t}"
                );
                assert_eq!(
                    r_out.get(0, t, 1).is_finite(),
                    !r.contains(&t),
                    "{width} {at} {t}"
                );
            }
            // Backward: of the input only the slope of SiLU is seen, which has limits; of the
            // output's gradient all taps.
            for (x, dout, infinite) in [
                (spoiled(&case.x), case.dout.clone(), 0..0),
                (
                    case.x.clone(),
                    spoiled(&case.dout),
                    at.saturating_sub(reach)..at + 1,
                ),
            ] {
                let (x, dout) = (device.put(&x), device.put(&dout));
                let dx = device.put(&Matrix::sentinel(shape, 0));
                let placed = PlacedConv::new(&device, &conv(true));
                let parts = [device.raw(3 * width), device.raw(3)];
                let kernel = ConvBackward::new(
                    x.mat(),
                    dout.mat(),
                    dx.mat_mut(),
                    placed.walk(),
                    parts[0].ptr_mut(),
                    parts[1].ptr_mut(),
                    false,
                );
                launch(&device.sim, &kernel.unwrap()).unwrap();
                let dx = device.get(&dx);
                for t in 0..12 {
                    let finite = !infinite.contains(&t);
                    assert_eq!(dx.get(0, t, 1).is_finite(), finite, "{width} {at} {t}");
                }
            }
        }
    }
}

/// Both directions give the bits that each gives alone, and must be opposite.
#[test]
fn both_directions_are_those_of_each_alone() {
    let case = case(3, [2, 70, 37], 4);
    let device = Device::new(Options::default());
    let x = device.put(&case.x);
    let placed = [0, 1].map(|i| PlacedConv::new(&device, &case.convs[i]));
    let fresh = || device.put(&Matrix::sentinel(case.x.shape, 0));
    let (alone, together) = ([fresh(), fresh()], [fresh(), fresh()]);
    for (conv, out) in placed.iter().zip(&alone) {
        let kernel = ConvForward::new(x.mat(), &[(conv.walk(), out.mat_mut())]);
        launch(&device.sim, &kernel.unwrap()).unwrap();
    }
    let walks = [0, 1].map(|i| (placed[i].walk(), together[i].mat_mut()));
    launch(&device.sim, &ConvBoth::new(x.mat(), &walks).unwrap()).unwrap();
    for (a, b) in alone.iter().zip(&together) {
        assert_eq!(device.get(a).data, device.get(b).data);
    }
    let error = ConvBoth::new(x.mat(), &[walks[0], walks[0]]).unwrap_err();
    assert!(error.to_string().contains("not opposite"), "{error}");
}

#[test]
fn every_line_of_the_convolution_runs() {
    let device = Device::new(Options::default());
    for seed in 0..6 {
        for width in [2, 3, 4] {
            let case = case(seed, [1, 37, 5], width);
            forward(&case, &device, &[0, 1]).unwrap();
            both(&case, &device).unwrap();
            for conv in &case.convs {
                backward(&case, &device, conv).unwrap();
            }
        }
    }
    let coverage = device.sim.coverage(&ptx::CONV1D).unwrap();
    let missed: Vec<_> = coverage.uncovered().collect();
    assert!(missed.is_empty(), "{missed:?}");
}
