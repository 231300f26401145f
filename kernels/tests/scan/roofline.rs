//! What each kernel costs at the shape of the design, beside an H100's bounds: the table of
//! docs/kernels.md.

use super::case::{
    Conv, Device, Matrix, Placed, PlacedConv, PlacedDirection, Problem, Random, Setup,
};
use super::scan::run;
use dis_kernels::launch;
use dis_kernels::scan::{ConvBoth, ConvForward, Forward, ForwardWalk, Variant};
use dis_kernels::sim::{Counters, Options};

/// Samples of the design's shape; one is simulated, and all cost the same.
const BATCH: f64 = 64.0;
const TOKENS: usize = 258;
const CHANNELS: usize = 1536;

/// An H100 (SXM): bytes a second of a measured copy; 132 multiprocessors at 1.755 GHz with, a clock,
/// 16 special results, 128 fused multiply-adds and 4 warp instructions each.
const BYTES: f64 = 3.0e12;
const CLOCKS: f64 = 132.0 * 1.755e9;

fn row(name: &str, cost: &Counters) -> String {
    let elements = (TOKENS * CHANNELS) as f64;
    let bytes = (cost.global_load_bytes + cost.global_store_bytes) as f64;
    let per = |x: f64| x / elements;
    let micros = |x: f64, rate: f64| BATCH * x / rate * 1e6;
    let instructions = cost.warp_instructions as f64 * 32.0;
    format!(
        "| {name} | {:.1} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |\n",
        per(bytes),
        per(cost.special as f64),
        per(cost.fma as f64),
        per(instructions),
        micros(bytes, BYTES),
        micros(cost.special as f64, 16.0 * CLOCKS),
        micros(cost.fma as f64, 128.0 * CLOCKS),
        micros(cost.warp_instructions as f64, 4.0 * CLOCKS),
    )
}

/// With `DIS_WRITE=1` it is written instead.
#[test]
fn table_is_that_of_the_counters() {
    const MARKS: [&str; 2] = ["<!-- cost -->\n", "<!-- end of cost -->"];
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kernels.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (head, rest) = text.split_once(MARKS[0]).unwrap();
    let (old, tail) = rest.split_once(MARKS[1]).unwrap();
    let new = table();
    if std::env::var_os("DIS_WRITE").is_some() {
        let [begin, end] = MARKS;
        std::fs::write(path, format!("{head}{begin}{new}{end}{tail}")).unwrap();
        return;
    }
    assert!(
        old == new,
        "the table of docs/kernels.md is out of date; run this test with DIS_WRITE=1 to write it anew: {new}"
    );
}

fn table() -> String {
    let options = Options {
        checks: false,
        ..Options::default()
    };
    let mut out = String::from(
        "| kernel | bytes | special | FMA | instructions | us: bytes | special | FMA | issue |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (name, variant, reverse, hold, extras) in [
        ("one direction", Variant::N16, &[false][..], false, false),
        ("both", Variant::N16, &[false, true], false, false),
        (
            "both, checkpoints",
            Variant::N16,
            &[false, true],
            false,
            true,
        ),
        (
            "both, zero-order hold",
            Variant::N16,
            &[false, true],
            true,
            false,
        ),
        ("both", Variant::Split16, &[false, true], false, false),
        ("both", Variant::Lanes4, &[false, true], false, false),
        ("both", Variant::Lanes8, &[false, true], false, false),
    ] {
        let device = Device::new(options);
        let problem = Problem::new(&Setup {
            reverse: reverse.to_vec(),
            hold,
            ..Setup::plain([1, TOKENS, CHANNELS, 16])
        });
        let placed: Vec<_> = problem
            .directions
            .iter()
            .map(|dir| PlacedDirection::new(&device, &problem, dir))
            .collect();
        let walks: Vec<_> = placed
            .iter()
            .map(|dir| ForwardWalk {
                last: None,
                ..dir.forward(extras)
            })
            .collect();
        let (y, z) = (
            device.put(&problem.y),
            problem.z.as_ref().map(|z| device.put(z)),
        );
        let z = z.as_ref().map(Placed::mat);
        let forward = Forward::with_variant(variant, &walks, y.mat_mut(), false, z).unwrap();
        forward.launch(&device.sim).unwrap();
        for (entry, cost) in device.sim.counters() {
            out += &row(&format!("`{entry}`, {name}"), &cost);
        }
    }
    for (name, reverse, hold, any) in [
        ("one direction", &[false][..], false, false),
        ("both", &[false, true], false, false),
        ("both, zero-order hold", &[false, true], true, false),
        ("both", &[false, true], false, true),
    ] {
        let device = Device::new(options);
        let problem = Problem::new(&Setup {
            reverse: reverse.to_vec(),
            hold,
            ..Setup::plain([1, TOKENS, CHANNELS, 16])
        });
        run(&device, &problem, Variant::N16, any).unwrap();
        for (entry, cost) in device.sim.counters() {
            if !entry.contains("forward") {
                out += &row(&format!("`{entry}`, {name}"), &cost);
            }
        }
    }
    let rng = &mut Random(1);
    let device = Device::new(options);
    let shape = [1, TOKENS, CHANNELS];
    let x = device.put(&Matrix::new(shape, 0, || rng.normal()));
    let placed = [false, true].map(|reverse| {
        let conv = Conv {
            weight: Matrix::new([1, CHANNELS, 4], 0, || rng.normal()),
            bias: Some(Matrix::new([1, 1, CHANNELS], 0, || rng.normal())),
            silu: true,
            reverse,
        };
        (
            PlacedConv::new(&device, &conv),
            device.put(&Matrix::sentinel(shape, 0)),
        )
    });
    let walks: Vec<_> = placed
        .iter()
        .map(|(conv, out)| (conv.walk(), out.mat_mut()))
        .collect();
    launch(
        &device.sim,
        &ConvForward::new(x.mat(), &walks[..1]).unwrap(),
    )
    .unwrap();
    let walks = [walks[0], walks[1]];
    launch(&device.sim, &ConvBoth::new(x.mat(), &walks).unwrap()).unwrap();
    let dx = device.put(&Matrix::sentinel(shape, 0));
    let count = dis_kernels::scan::conv_tiles(TOKENS);
    let (dweight, dbias) = (
        device.raw(count * CHANNELS * 4),
        device.raw(count * CHANNELS),
    );
    let kernel = dis_kernels::scan::ConvBackward::new(
        x.mat(),
        placed[1].1.mat_mut().read(),
        dx.mat_mut(),
        placed[0].0.walk(),
        dweight.ptr_mut(),
        dbias.ptr_mut(),
        false,
    );
    launch(&device.sim, &kernel.unwrap()).unwrap();
    for (entry, cost) in device.sim.counters() {
        out += &row(&format!("`{entry}`"), &cost);
    }
    out
}
