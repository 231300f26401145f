//! The attention mixer against plain loops written from the formula, and the CPU against the float64
//! reference with gradients, over drawn widths and lengths. (Gradients against finite differences,
//! for whole models: dis-model's tests.)

#![allow(clippy::unwrap_used)]

use dis_ssm::{Attention, AttentionConfig, Ctx, ParamTable};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Backend, Cpu, Layout, NormKind, Reference, Tokens, TokensMut};
use proptest::prelude::*;

fn normals(count: usize, key: u64) -> Vec<f32> {
    let mut out = vec![0.0; count];
    Stream::new(6, Purpose::Test, key, 0).fill_normal(&mut out);
    out
}

struct Case {
    table: ParamTable,
    mixer: Attention,
    weights: Vec<f32>,
    layout: Layout,
}

impl Case {
    fn new(config: AttentionConfig, batch: usize, tokens: usize) -> Self {
        let mut table = ParamTable::new();
        let mixer = Attention::new(&mut table, "", config, 1.0);
        let mut weights = table.initial(1);
        let noise = normals(weights.len(), 3);
        for spec in table.specs() {
            for i in spec.offset..spec.offset + spec.len() {
                weights[i] += 0.1 * noise[i];
            }
        }
        Self {
            table,
            mixer,
            weights,
            layout: Layout::dense(batch, tokens, config.d_model),
        }
    }

    fn inputs(&self) -> [Vec<f32>; 3] {
        [1, 2, 4].map(|key| normals(self.layout.elements(), key))
    }

    /// Output; gradients of the stream, of its norm and of the parameters.
    fn run<B: Backend>(&self, backend: &B) -> [Vec<f32>; 4] {
        let l = self.layout;
        let params = backend.from_f32(&self.weights);
        let [sum, normed, dout] = self.inputs().map(|x| backend.from_f32(&x));
        let mut out = backend.alloc(l.elements());
        let saved = self
            .mixer
            .forward(
                Ctx::new(backend, &params),
                Tokens::new(&sum, l),
                Tokens::new(&normed, l),
                Some(TokensMut::new(&mut out, l)),
            )
            .unwrap();
        let mut dsum = backend.zeros(l.elements());
        let mut dnormed = backend.alloc(l.elements());
        let mut grads = backend.zeros(self.weights.len());
        self.mixer
            .backward(
                Ctx::new(backend, &params),
                saved,
                Tokens::new(&normed, l),
                Tokens::new(&dout, l),
                TokensMut::new(&mut dsum, l),
                TokensMut::new(&mut dnormed, l),
                &mut grads,
            )
            .unwrap();
        [out, dsum, dnormed, grads].map(|x| backend.to_f32(&x))
    }

    fn param(&self, name: &str) -> Vec<f64> {
        let Some(spec) = self.table.find(name) else {
            return Vec::new();
        };
        let values = &self.weights[spec.offset..spec.offset + spec.len()];
        values.iter().map(|&w| f64::from(w)).collect()
    }

    /// `x W^T + b`.
    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self.param(&format!("{name}.weight"));
        let bias = self.param(&format!("{name}.bias"));
        weight
            .chunks(x.len())
            .enumerate()
            .map(|(i, row)| {
                let product: f64 = row.iter().zip(x).map(|(w, x)| w * x).sum();
                product + bias.get(i).copied().unwrap_or(0.0)
            })
            .collect()
    }

    /// The norm in front of the perceptron.
    fn norm(&self, x: &[f64]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = match self.mixer.config().norm {
            NormKind::Rms => 0.0,
            NormKind::Layer => x.iter().sum::<f64>() / n,
        };
        let square = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        let (weight, bias) = (self.param("norm.weight"), self.param("norm.bias"));
        (0..x.len())
            .map(|i| {
                let unit = (x[i] - mean) / (square + 1e-5).sqrt();
                unit * weight[i] + bias.get(i).copied().unwrap_or(0.0)
            })
            .collect()
    }

    /// The output by the formula, token by token.
    fn plain(&self) -> Vec<f64> {
        let config = *self.mixer.config();
        let (d, width) = (config.d_model, config.head_width());
        let [batch, tokens, _] = self.layout.shape();
        let [sum, normed, _] = self.inputs();
        let row = |x: &[f32], b: usize, t: usize| -> Vec<f64> {
            let start = (b * tokens + t) * d;
            x[start..start + d].iter().map(|&x| f64::from(x)).collect()
        };
        let mut out = Vec::new();
        for b in 0..batch {
            let qkv: Vec<Vec<f64>> = (0..tokens)
                .map(|t| self.linear("qkv", &row(&normed, b, t)))
                .collect();
            for t in 0..tokens {
                let mut context = vec![0.0; d];
                for head in 0..config.heads {
                    let start = head * width;
                    let score = |other: usize| -> f64 {
                        let dot: f64 = (start..start + width)
                            .map(|c| qkv[t][c] * qkv[other][d + c])
                            .sum();
                        (dot / (width as f64).sqrt()).exp()
                    };
                    let scores: Vec<f64> = (0..tokens).map(score).collect();
                    let total: f64 = scores.iter().sum();
                    for (other, score) in scores.iter().enumerate() {
                        for c in start..start + width {
                            context[c] += score / total * qkv[other][2 * d + c];
                        }
                    }
                }
                let attended = self.linear("proj", &context);
                let stream: Vec<f64> = row(&sum, b, t)
                    .iter()
                    .zip(&attended)
                    .map(|(s, a)| s + a)
                    .collect();
                let hidden = self.linear("mlp.0", &self.norm(&stream));
                let active: Vec<f64> = hidden.iter().map(|h| h / (1.0 + (-h).exp())).collect();
                let mlp = self.linear("mlp.2", &active);
                out.extend(attended.iter().zip(mlp).map(|(a, m)| a + m));
            }
        }
        out
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, x| m.max(x.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn all_agree(
        batch in 1usize..4,
        tokens in 1usize..40,
        heads in 1usize..4,
        width in 3usize..20,
        d_mlp in 1usize..40,
        qkv_bias: bool,
        layer: bool,
    ) {
        let config = AttentionConfig {
            d_model: heads * width,
            heads,
            d_mlp,
            qkv_bias,
            norm: if layer { NormKind::Layer } else { NormKind::Rms },
        };
        let case = Case::new(config, batch, tokens);
        let reference = case.run(&Reference::new());
        let scale = f64::from(largest(&reference[0]));
        for (got, plain) in reference[0].iter().zip(case.plain()) {
            // The reference computes in float64; its output was rounded to float32.
            prop_assert!((f64::from(*got) - plain).abs() <= 1e-7 * scale, "{got} against {plain}");
        }
        let cpu = case.run(&Cpu::new());
        for (name, (got, expected)) in ["output", "stream", "normed", "parameters"]
            .iter()
            .zip(cpu.iter().zip(&reference))
        {
            let scale = largest(expected);
            for (g, e) in got.iter().zip(expected) {
                // The tolerance of the Mamba mixers.
                prop_assert!((g - e).abs() <= 2e-5 * scale, "{name}: {g} against {e}");
            }
        }
        for threads in [1, 3] {
            let other = case.run(&Cpu::with_threads(threads).unwrap());
            prop_assert_eq!(&other, &cpu, "{} threads", threads);
        }
    }
}

/// With one token the weights are 1, whatever query and key: these have no gradient.
#[test]
fn a_single_token_attends_to_itself() {
    let config = AttentionConfig {
        d_model: 4,
        heads: 2,
        d_mlp: 3,
        qkv_bias: true,
        norm: NormKind::Rms,
    };
    let case = Case::new(config, 2, 1);
    let [_, _, _, grads] = case.run(&Reference::new());
    let spec = case.table.find("qkv.weight").unwrap();
    let rows = &grads[spec.offset..spec.offset + spec.len()];
    assert!(rows[..2 * 4 * 4].iter().all(|&g| g == 0.0), "{rows:?}");
    assert!(rows[2 * 4 * 4..].iter().all(|&g| g != 0.0), "{rows:?}");
}
