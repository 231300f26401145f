//! Both implementations against recorded results of the published code (tests/golden), at the
//! manifests' tolerances.

use super::case::{Inputs, Matrix, Options, Outputs};
use dis_golden::Golden;
use dis_scan::cpu;
use dis_scan::{Conv, ConvGrads, Direction, Discretization, oracle};
use dis_tensor::{Layout, simd};

/// Token matrices of a set.
trait Matrices {
    fn rtol(&self) -> f64;
    /// A tensor with its shape, if it is there.
    fn tensor(&self, name: &str) -> Option<(Vec<usize>, Vec<f64>)>;
    /// A (B, C, L) tensor as a (B, L, C) token matrix.
    fn channels_last(&self, name: &str) -> Option<Matrix>;
    /// A vector or matrix as it lies.
    fn plain(&self, name: &str) -> Option<Matrix>;
}

impl Matrices for Golden {
    fn rtol(&self) -> f64 {
        self.manifest["tolerance"]["rtol"].as_f64().unwrap()
    }

    fn tensor(&self, name: &str) -> Option<(Vec<usize>, Vec<f64>)> {
        self.get(name).map(|_| self.f64(name))
    }

    fn channels_last(&self, name: &str) -> Option<Matrix> {
        let (shape, values) = self.tensor(name)?;
        let [batch, channels, tokens] = shape[..] else {
            panic!("{name} has shape {shape:?}")
        };
        let layout = Layout::dense(batch, tokens, channels);
        let mut out = vec![0.0; values.len()];
        for b in 0..batch {
            for c in 0..channels {
                for t in 0..tokens {
                    out[layout.row(b, t) + c] = values[(b * channels + c) * tokens + t];
                }
            }
        }
        Some(Matrix::new(layout, out))
    }

    fn plain(&self, name: &str) -> Option<Matrix> {
        let (shape, values) = self.tensor(name)?;
        let layout = match shape[..] {
            [len] => Layout::vector(len),
            [rows, cols] => Layout::matrix(rows, cols),
            [batch, rows, cols] => Layout::dense(batch, rows, cols),
            _ => panic!("{name} has shape {shape:?}"),
        };
        Some(Matrix::new(layout, values))
    }
}

/// Puts B and C, each (B, L, N), side by side.
fn join(b: &Matrix, c: &Matrix) -> Matrix {
    let n = b.layout.channels;
    let layout = Layout::dense(b.layout.batch, b.layout.tokens, 2 * n);
    let rows = b.wide.chunks(n).zip(c.wide.chunks(n));
    Matrix::new(layout, rows.flat_map(|(b, c)| [b, c].concat()).collect())
}

/// Compares what was computed (in a matrix's float64 or float32 memory) with a recorded tensor.
fn compare(what: &str, got: &[f64], want: &Matrix, rtol: f64) {
    assert_eq!(got.len(), want.wide.len(), "{what}");
    let scale = want.wide.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (i, (&got, &want)) in got.iter().zip(&want.wide).enumerate() {
        let error = (got - want).abs();
        assert!(
            error <= rtol * scale,
            "{what}[{i}]: {got} for {want}, error {error:e} of {scale:e}"
        );
    }
}

fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn scan_case(golden: &Golden, name: &str, prefix: &str, direction: Direction) -> usize {
    let get = |name: &str| golden.channels_last(name).unwrap();
    let bc = join(&get("B"), &get("C"));
    let (u, a) = (get("u"), golden.plain("A").unwrap());
    let [batch, tokens, channels] = u.layout.shape();
    let options = Options {
        shape: [batch, tokens, channels, a.layout.channels],
        pad: 0,
        direction,
        discretization: Discretization::Mamba,
        d: golden.plain("D").is_some(),
        z: golden.channels_last("z").is_some(),
        bias: golden.plain("delta_bias").is_some(),
        softplus: golden.manifest["config"]["delta_softplus"]
            .as_bool()
            .unwrap(),
        accumulate: false,
        state: false,
        scale: 1.0,
        seed: 0,
    };
    let inputs = Inputs {
        options,
        u,
        delta: get("delta"),
        a,
        bc,
        d: golden.plain("D"),
        z: golden.channels_last("z"),
        bias: golden.plain("delta_bias"),
        dout: get("dout"),
        ends: None,
    };
    let mut compared = 0;
    let mut check = |what: &str, outputs: &Outputs, narrow: bool| {
        let of = |m: &Matrix| {
            if narrow {
                widen(&m.narrow)
            } else {
                m.wide.clone()
            }
        };
        let arena = of(&outputs.arena);
        let dbc = golden.channels_last(&format!("{prefix}grad_B"));
        let dbc = dbc.map(|db| join(&db, &get(&format!("{prefix}grad_C"))));
        let columns = |name: &str| golden.channels_last(&format!("{prefix}{name}"));
        let plain = |name: &str| golden.plain(&format!("{prefix}{name}"));
        for (name, got, want) in [
            ("out", of(&outputs.y), columns("out")),
            ("last_state", of(&outputs.last), plain("last_state")),
            ("du", of(&outputs.du), columns("grad_u")),
            ("ddelta", of(&outputs.ddelta), columns("grad_delta")),
            ("dz", of(&outputs.dz), columns("grad_z")),
            ("dA", of(&outputs.da), plain("grad_A")),
            ("dBC", of(&outputs.dbc), dbc),
            ("dD", arena[1..=channels].to_vec(), plain("grad_D")),
            (
                "dbias",
                arena[channels + 2..2 * channels + 2].to_vec(),
                plain("grad_delta_bias"),
            ),
        ] {
            if let Some(want) = want {
                compare(
                    &format!("{what} {prefix}{name}"),
                    &got,
                    &want,
                    golden.rtol(),
                );
                compared += 1;
            }
        }
    };
    let fresh = || {
        let mut outputs = Outputs::new(&inputs);
        outputs.arena.wide.fill(0.0);
        outputs.arena.narrow.fill(0.0);
        outputs
    };
    let mut outputs = fresh();
    outputs.run_oracle(&inputs);
    check(&format!("{name} oracle"), &outputs, false);
    for level in simd::supported() {
        let mut outputs = fresh();
        outputs.run_fast(level, &inputs);
        check(&format!("{name} {level}"), &outputs, true);
    }
    compared
}

#[test]
fn recorded_scans() {
    let mut compared = 0;
    for entry in std::fs::read_dir(dis_golden::path("")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if let Some(set) = name
            .strip_suffix(".json")
            .filter(|set| set.starts_with("selective_scan_"))
        {
            let golden = Golden::open(set);
            if golden.manifest["kind"] != "selective_scan" {
                continue;
            }
            compared += scan_case(&golden, &name, "", Direction::Forward);
            compared += scan_case(&golden, &name, "rev_", Direction::Reverse);
        }
    }
    assert!(compared > 400, "only {compared} tensors compared");
}

#[test]
fn recorded_convolutions() {
    let golden = Golden::open("causal_conv1d");
    let cases = golden.manifest["cases"].as_array().unwrap();
    for case in cases {
        let name = case["case"].as_str().unwrap();
        let get = |field: &str| golden.channels_last(&format!("{name}.{field}"));
        let plain = |field: &str| golden.plain(&format!("{name}.{field}"));
        let (x, dout, weight, bias) = (
            get("x").unwrap(),
            get("dout").unwrap(),
            plain("weight").unwrap(),
            plain("bias"),
        );
        let (channels, taps) = (x.layout.channels, weight.wide.len());
        let silu = case["silu"].as_bool().unwrap();
        let check = |what: &str, out: &[f64], dx: &[f64], arena: &[f64]| {
            let rtol = golden.rtol();
            compare(
                &format!("{name} {what} out"),
                out,
                &get("out").unwrap(),
                rtol,
            );
            compare(
                &format!("{name} {what} dx"),
                dx,
                &get("grad_x").unwrap(),
                rtol,
            );
            compare(
                &format!("{name} {what} dw"),
                &arena[..taps],
                &plain("grad_weight").unwrap(),
                rtol,
            );
            if let Some(want) = plain("grad_bias") {
                compare(&format!("{name} {what} db"), &arena[taps..], &want, rtol);
            }
        };
        let fresh = || {
            (
                Matrix::sentinel(x.layout.shape(), 0),
                Matrix::sentinel(x.layout.shape(), 0),
            )
        };
        let (mut out, mut dx) = fresh();
        let mut arena = vec![0.0; taps + channels];
        let conv = Conv {
            x: x.wide(),
            weight: weight.wide(),
            bias: bias.as_ref().map(Matrix::wide),
            silu,
            direction: Direction::Forward,
        };
        oracle::conv1d(conv, out.wide_mut()).unwrap();
        let grads = ConvGrads {
            arena: &mut arena[..],
            weight: 0,
            bias: Some(taps),
        };
        oracle::conv1d_backward(conv, dout.wide(), false, dx.wide_mut(), grads).unwrap();
        check("oracle", &out.wide, &dx.wide, &arena);
        for level in simd::supported() {
            let (mut out, mut dx) = fresh();
            let mut arena = vec![0.0f32; taps + channels];
            let conv = Conv {
                x: x.narrow(),
                weight: weight.narrow(),
                bias: bias.as_ref().map(Matrix::narrow),
                silu,
                direction: Direction::Forward,
            };
            cpu::conv1d(level, conv, out.narrow_mut()).unwrap();
            let grads = ConvGrads {
                arena: &mut arena[..],
                weight: 0,
                bias: Some(taps),
            };
            cpu::conv1d_backward(level, conv, dout.narrow(), false, dx.narrow_mut(), grads)
                .unwrap();
            check(
                &level.to_string(),
                &widen(&out.narrow),
                &widen(&dx.narrow),
                &widen(&arena),
            );
        }
    }
}
