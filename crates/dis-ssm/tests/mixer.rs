//! The mixer on the CPU against the float64 reference, over drawn widths and lengths. (Gradients
//! against finite differences, for whole models: dis-model's tests.)

#![allow(clippy::unwrap_used)]

use dis_scan::{Discretization, ScanBackend};
use dis_ssm::{CausalMixer, Ctx, Mixer, MixerConfig, MixerInit, ParamTable, TokenBuf};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Cpu, Layout, Reference, Tokens, TokensMut};
use proptest::prelude::*;

fn normals(count: usize, scale: f64, key: u64) -> Vec<f32> {
    let mut stream = Stream::new(5, Purpose::Test, key, 0);
    (0..count)
        .map(|_| (scale * stream.normal()) as f32)
        .collect()
}

/// Output, gradient of the input, gradients of the parameters.
fn run<B: ScanBackend>(
    backend: &B,
    mixer: &Mixer,
    weights: &[f32],
    batch: usize,
    tokens: usize,
) -> [Vec<f32>; 3] {
    let layout = Layout::dense(batch, tokens, mixer.config().d_model);
    let params = backend.from_f32(weights);
    let input = backend.from_f32(&normals(layout.elements(), 1.0, 1));
    let dout = backend.from_f32(&normals(layout.elements(), 1.0, 2));
    let mut out = backend.alloc(layout.elements());
    let mut dinput = backend.alloc(layout.elements());
    let mut grads = backend.zeros(weights.len());
    let input = Tokens::new(&input, layout);
    let saved = mixer
        .forward_saved(
            Ctx::new(backend, &params),
            input,
            Some(TokensMut::new(&mut out, layout)),
        )
        .unwrap();
    let mut again = backend.alloc(layout.elements());
    mixer
        .forward(
            Ctx::new(backend, &params),
            input,
            TokensMut::new(&mut again, layout),
        )
        .unwrap();
    assert_eq!(
        backend.to_f32(&again),
        backend.to_f32(&out),
        "saving changes nothing"
    );
    mixer
        .backward(
            Ctx::new(backend, &params),
            saved,
            input,
            Tokens::new(&dout, layout),
            TokensMut::new(&mut dinput, layout),
            &mut grads,
        )
        .unwrap();
    [out, dinput, grads].map(|x| backend.to_f32(&x))
}

/// A causal mixer over pieces of so many tokens: outputs, then both states.
fn advance<B: ScanBackend>(
    backend: &B,
    mixer: &CausalMixer,
    weights: &[f32],
    batch: usize,
    pieces: &[usize],
) -> [Vec<f32>; 3] {
    let (tokens, d) = (pieces.iter().sum(), mixer.config().d_model);
    let layout = Layout::dense(batch, tokens, d);
    let params = backend.from_f32(weights);
    let input = TokenBuf::from_f32(backend, layout, &normals(layout.elements(), 1.0, 4));
    let mut out = TokenBuf::new(backend, layout);
    let mut state = mixer.start(backend, batch);
    let mut start = 0;
    for &count in pieces {
        let mut x = TokenBuf::dense(backend, batch, count, d);
        backend
            .copy(input.tokens(start, count), x.view_mut())
            .unwrap();
        let mut y = TokenBuf::dense(backend, batch, count, d);
        mixer
            .advance(
                Ctx::new(backend, &params),
                &mut state,
                x.view(),
                y.view_mut(),
            )
            .unwrap();
        backend
            .copy(y.view(), out.tokens_mut(start, count))
            .unwrap();
        start += count;
    }
    [out.buf, state.conv.buf, state.ssm.buf].map(|x| backend.to_f32(&x))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_causal_mixer_goes_on_where_it_stopped(
        batch in 1usize..3,
        pieces in prop::collection::vec(1usize..7, 1..5),
        d_model in 1usize..24,
        d_state in 1usize..18,
        d_conv in 2usize..5,
        dt_rank in 1usize..4,
        bias: bool,
        conv_bias: bool,
    ) {
        let config = MixerConfig {
            d_state, d_conv, dt_rank, bias, conv_bias,
            ..MixerConfig::new(d_model)
        };
        let mut table = ParamTable::new();
        let mixer = CausalMixer::new(&mut table, "", config, 1.0);
        let weights = table.initial(2);
        let tokens: usize = pieces.iter().sum();
        let cpu = Cpu::new();
        let whole = advance(&cpu, &mixer, &weights, batch, &[tokens]);
        prop_assert_eq!(&whole, &advance(&cpu, &mixer, &weights, batch, &pieces));
        let expected = advance(&Reference::new(), &mixer, &weights, batch, &pieces);
        for (got, expected) in whole.iter().zip(&expected) {
            let largest = expected.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
            for (g, e) in got.iter().zip(expected) {
                prop_assert!((g - e).abs() <= 2e-5 * largest, "{} against {}", g, e);
            }
        }
    }

    #[test]
    fn cpu_agrees_with_the_reference(
        batch in 1usize..3,
        tokens in 1usize..40,
        d_model in 1usize..24,
        expand in 1usize..3,
        d_state in prop::sample::select(vec![1usize, 5, 8, 16, 17]),
        d_conv in 2usize..5,
        dt_rank in 1usize..4,
        bias: bool,
        conv_bias: bool,
        hold: bool,
    ) {
        let config = MixerConfig {
            d_model,
            d_inner: expand * d_model,
            d_state,
            d_conv,
            dt_rank,
            bias,
            conv_bias,
            discretization: if hold { Discretization::ZeroOrderHold } else { Discretization::Mamba },
        };
        let mut table = ParamTable::new();
        let init = MixerInit { repaired_reverse_step: true };
        let mixer = Mixer::new(&mut table, "", config, init, 1.0);
        let noise = normals(table.len(), 0.1, 3);
        let mut weights = table.initial(1);
        for spec in table.specs() {
            for i in spec.offset..spec.offset + spec.len() {
                weights[i] += noise[i];
            }
        }
        let got = run(&Cpu::new(), &mixer, &weights, batch, tokens);
        let expected = run(&Reference::new(), &mixer, &weights, batch, tokens);
        for (name, got, expected) in [
            ("output", &got[0], &expected[0]),
            ("input gradient", &got[1], &expected[1]),
            ("parameter gradients", &got[2], &expected[2]),
        ] {
            let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
            for (g, e) in got.iter().zip(expected) {
                // The golden mixers' tolerance.
                prop_assert!((g - e).abs() <= 2e-5 * largest, "{}: {} against {}", name, g, e);
            }
        }
    }
}
