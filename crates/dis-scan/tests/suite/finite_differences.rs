//! The oracle's gradients against central differences, for both discretisations, with products
//! delta A from nearly 0 to large.

use super::case::{Inputs, Matrix, Options, Outputs};
use dis_scan::{Direction, Discretization};

fn loss(inputs: &Inputs) -> f64 {
    let mut outputs = Outputs::new(inputs);
    outputs.run_oracle(inputs);
    let (l, d) = (outputs.y.layout, inputs.dout.layout);
    let mut sum = 0.0;
    for b in 0..l.batch {
        for t in 0..l.tokens {
            for c in 0..l.channels {
                sum += outputs.y.wide[l.row(b, t) + c] * inputs.dout.wide[d.row(b, t) + c];
            }
        }
    }
    if let Some([_, dlast]) = &inputs.ends {
        let terms = outputs.last.wide.iter().zip(&dlast.wide);
        sum += terms.map(|(last, dlast)| last * dlast).sum::<f64>();
    }
    sum
}

/// Picks one input matrix.
type Pick = fn(&mut Inputs) -> Option<&mut Matrix>;

fn check(inputs: &Inputs, name: &str, pick: Pick, gradient: &[f64], start: usize) {
    let mut probe = inputs.clone();
    let Some(matrix) = pick(&mut probe) else {
        return;
    };
    let layout = matrix.layout;
    assert!(layout.is_dense());
    let scale = gradient
        .iter()
        .fold(0.0f64, |m, x| m.max(x.abs()))
        .max(1e-3);
    for i in 0..layout.elements() {
        let mut at = |value: f64| {
            if let Some(m) = pick(&mut probe) {
                m.wide[i] = value;
            }
            loss(&probe)
        };
        let x = match pick(&mut inputs.clone()) {
            Some(m) => m.wide[i],
            None => return,
        };
        // A step relative to tiny values of A, so that its sign and scale are kept.
        let h = if name == "A" { 1e-4 * x.abs() } else { 1e-5 };
        let (up, down) = (at(x + h), at(x - h));
        at(x);
        let want = (up - down) / (2.0 * h);
        let got = gradient[start + i];
        // Rounding of the loss, divided by the step.
        let noise = 1e-13 * (up.abs() + 1.0) / h;
        assert!(
            (got - want).abs() <= 2e-7 * scale + noise,
            "{name}[{i}] at {x:e}: {got} for {want}"
        );
    }
}

#[test]
fn oracle_gradients_are_right() {
    for discretization in [Discretization::Mamba, Discretization::ZeroOrderHold] {
        for direction in [Direction::Forward, Direction::Reverse] {
            for (softplus, log_a) in [
                (true, 0.0),
                (false, 0.0),
                (true, -5.0),
                (true, -12.0),
                (true, 2.5),
            ] {
                let options = Options {
                    shape: [2, 5, 3, 2],
                    pad: 0,
                    direction,
                    discretization,
                    d: true,
                    z: true,
                    bias: true,
                    softplus,
                    accumulate: false,
                    state: true,
                    scale: 1.0,
                    seed: 11,
                };
                let mut inputs = Inputs::random(&options);
                for a in &mut inputs.a.wide {
                    *a *= f64::exp(log_a);
                }
                let mut outputs = Outputs::new(&inputs);
                outputs.arena.wide.fill(0.0);
                outputs.run_oracle(&inputs);
                check(&inputs, "u", |x| Some(&mut x.u), &outputs.du.wide, 0);
                check(
                    &inputs,
                    "delta",
                    |x| Some(&mut x.delta),
                    &outputs.ddelta.wide,
                    0,
                );
                check(&inputs, "BC", |x| Some(&mut x.bc), &outputs.dbc.wide, 0);
                check(&inputs, "z", |x| x.z.as_mut(), &outputs.dz.wide, 0);
                let state: Pick = |x| x.ends.as_mut().map(|[initial, _]| initial);
                check(&inputs, "initial", state, &outputs.dinitial.wide, 0);
                check(&inputs, "A", |x| Some(&mut x.a), &outputs.da.wide, 0);
                check(&inputs, "D", |x| x.d.as_mut(), &outputs.arena.wide, 1);
                check(
                    &inputs,
                    "bias",
                    |x| x.bias.as_mut(),
                    &outputs.arena.wide,
                    3 + 2,
                );
            }
        }
    }
}
