//! The reference's backward passes against central differences of its forward passes, in float64.

use dis_tensor::NormKind;
use dis_tensor::{Accum, Backend, Reals, Reference};
use proptest::prelude::*;

use crate::draw::{Draw, Operand};
use crate::operation::{NormParts, Operation};

const STEP: f64 = 1e-5;
/// Truncation (h^2) and rounding (eps / h) of a central difference of functions of order one.
const TOLERANCE: f64 = 1e-7;

fn upload(b: &Reference, operands: &[Operand]) -> Vec<Reals<Reference>> {
    operands.iter().map(|x| b.from_f32(&x.data)).collect()
}

/// `sum of dout * out` after running `operation`.
fn loss(
    operation: &Operation,
    operands: &[Operand],
    change: Option<(usize, usize, f64)>,
    out: usize,
    dout: &Operand,
) -> f64 {
    let b = Reference::new();
    let mut buffers = upload(&b, operands);
    if let Some((operand, place, by)) = change {
        buffers[operand][place] += by;
    }
    let layouts: Vec<_> = operands.iter().map(|x| x.layout).collect();
    operation.run(&b, &layouts, &mut buffers).unwrap();
    let l = operands[out].layout;
    let mut sum = 0.0;
    for bt in 0..l.batch {
        for t in 0..l.tokens {
            for c in 0..l.channels {
                sum += buffers[out][l.row(bt, t) + c]
                    * f64::from(dout.data[dout.layout.row(bt, t) + c]);
            }
        }
    }
    sum
}

/// Compares `got`, at the elements of operand `input`, with central differences.
fn compare(
    operation: &Operation,
    operands: &[Operand],
    input: usize,
    out: usize,
    dout: &Operand,
    got: impl Fn(usize, usize, usize) -> f64,
) {
    let l = operands[input].layout;
    for b in 0..l.batch {
        for t in 0..l.tokens {
            for c in 0..l.channels {
                let place = l.row(b, t) + c;
                let at = |by| loss(operation, operands, Some((input, place, by)), out, dout);
                let want = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                let got = got(b, t, c);
                assert!(
                    (got - want).abs() <= TOLERANCE * want.abs().max(1.0),
                    "{operation:?}: operand {input} ({b}, {t}, {c}): {got} instead of {want}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn norm_backward_is_the_derivative(
        layer: bool,
        weight: bool,
        bias: bool,
        shift_scale: bool,
        accum in prop_oneof![Just(Accum::Replace), Just(Accum::Add)],
        batch in 1usize..3,
        tokens in 1usize..4,
        channels in 2usize..6,
        seed: u64,
    ) {
        let kind = if layer { NormKind::Layer } else { NormKind::Rms };
        let parts = NormParts { kind, eps: 0.1, weight, bias, shift_scale };
        let mut d = Draw::new(seed);
        let operands = [
            d.view(batch, tokens, channels),
            d.view(batch, tokens, channels),
            d.view(batch, 1, 1),
            d.view(1, 1, channels),
            d.view(1, 1, channels),
            d.view(batch, 1, 2 * channels),
            d.view(batch, tokens, channels),
            d.view(batch, tokens, 2),
            d.view(batch, tokens, channels),
        ];
        let forward = Operation::AddNorm {
            parts,
            residual: false,
            hidden_scale: false,
            sum: false,
            stats: true,
        };
        let b = Reference::new();
        let layouts: Vec<_> = operands.iter().map(|x| x.layout).collect();
        let mut saved = upload(&b, &operands);
        forward.run(&b, &layouts, &mut saved).unwrap();

        let dout = d.view(batch, tokens, channels);
        let dx = d.view(batch, tokens, channels);
        let arena = d.dense(2 * channels + 1);
        let d_both = d.view(batch, 1, 2 * channels);
        let backward = Operation::AddNormBackward {
            parts,
            accum,
            grads: Some([channels + 1, 0]),
        };
        let layouts = [
            operands[1].layout,
            operands[7].layout,
            operands[3].layout,
            operands[4].layout,
            operands[5].layout,
            dout.layout,
            dx.layout,
            arena.layout,
            d_both.layout,
        ];
        let mut buffers = vec![b.from_f32(&operands[1].data), b.upload(&saved[7])];
        buffers.extend(upload(&b, &operands[3..6]));
        let rest = [dout.clone(), dx.clone(), arena.clone(), d_both.clone()];
        buffers.extend(upload(&b, &rest));
        backward.run(&b, &layouts, &mut buffers).unwrap();

        let start = |x: &Operand, place: usize| f64::from(x.data[place]);
        compare(&forward, &operands, 1, 8, &dout, |b, t, c| {
            let place = dx.layout.row(b, t) + c;
            buffers[6][place] - if accum.adds() { start(&dx, place) } else { 0.0 }
        });
        for (present, input, offset) in [(weight, 3, channels + 1), (bias, 4, 0)] {
            if present {
                compare(&forward, &operands, input, 8, &dout, |_, _, c| {
                    buffers[7][offset + c] - start(&arena, offset + c)
                });
            } else {
                for c in 0..channels {
                    prop_assert_eq!(buffers[7][offset + c], start(&arena, offset + c));
                }
            }
        }
        if shift_scale {
            compare(&forward, &operands, 5, 8, &dout, |b, _, c| {
                buffers[8][d_both.layout.row(b, 0) + c]
            });
        }
    }

    #[test]
    fn silu_backward_is_the_derivative(channels in 1usize..9, seed: u64) {
        let mut d = Draw::new(seed);
        let (mut x, dout, out) = (d.dense(channels), d.dense(channels), d.dense(channels));
        x.data.iter_mut().for_each(|x| *x *= 3.0);
        let b = Reference::new();
        let mut buffers = upload(&b, &[x.clone(), dout.clone(), out.clone()]);
        let layouts = [x.layout, dout.layout, out.layout];
        Operation::SiluBackward.run(&b, &layouts, &mut buffers).unwrap();
        compare(&Operation::Silu, &[x, out], 0, 1, &dout, |_, _, c| buffers[2][c]);
    }
}
