//! The operations of a backend as data, so that one function compares them all.

use dis_tensor::{
    Accum, AdamState, AdamW, AddNorm, AddNormBackward, Backend, ImageOps, Layout, LossInputs,
    LossStep, Matrix, Norm, NormGrads, NormKind, PatchGrid, Reals, Result, Tokens, TokensMut,
};

/// Which optional parts of a normalisation are there.
#[derive(Clone, Copy, Debug)]
pub struct NormParts {
    pub kind: NormKind,
    pub eps: f64,
    pub weight: bool,
    pub bias: bool,
    pub shift_scale: bool,
}

/// An operation and its numbers. Operands come in the order of the trait's arguments, absent ones
/// included.
#[derive(Clone, Debug)]
pub enum Operation {
    Fill(f64),
    Copy,
    Axpy(f64),
    ScaleSamples,
    Gemm {
        transpose_a: bool,
        transpose_b: bool,
        bias: bool,
        accum: Accum,
    },
    AddColumnSums,
    AddBatchSums,
    TokenSums {
        alpha: f64,
        accum: Accum,
    },
    AddToTokens(f64),
    AddToSamples(f64),
    Silu,
    SiluBackward,
    NegExp,
    AddProduct,
    /// Coefficients of each term; operands are the terms, then the output.
    Combine(Vec<Vec<f64>>),
    Clamp(f64, f64),
    Rescale(f64),
    Threshold(f64, f64),
    /// Slopes and offsets; noise, log scale, output.
    ExpNoise(Vec<f64>, Vec<f64>),
    /// weight, a, b, output.
    Mix,
    /// x_start, noise, output, gradient, sums (as reals).
    GaussianLoss(Vec<LossStep>),
    Softmax(f64),
    /// y, dout, dx.
    SoftmaxBackward(f64),
    /// residual, hidden, hidden_scale, weight, bias, shift_scale, sum, stats, out.
    AddNorm {
        parts: NormParts,
        residual: bool,
        hidden_scale: bool,
        sum: bool,
        stats: bool,
    },
    /// x, stats, weight, bias, shift_scale, dout, dx, arena, d_shift_scale.
    AddNormBackward {
        parts: NormParts,
        accum: Accum,
        grads: Option<[usize; 2]>,
    },
    Gather(Vec<u32>),
    ScatterAdd(Vec<u32>),
    Patchify(PatchGrid),
    Unpatchify(PatchGrid),
    GlobalNorm,
    /// params, grads, m, v, ema, grad_norm.
    AdamW(AdamW),
}

impl Operation {
    /// Runs it on buffers with these views.
    pub fn run<B: Backend + ImageOps>(
        &self,
        backend: &B,
        layouts: &[Layout],
        buffers: &mut [Reals<B>],
    ) -> Result<()> {
        let l = layouts;
        match (self, buffers) {
            (Self::Fill(value), [out]) => backend.fill(TokensMut::new(out, l[0]), *value),
            (Self::Copy, [x, out]) => backend.copy(Tokens::new(x, l[0]), TokensMut::new(out, l[1])),
            (Self::Axpy(alpha), [x, out]) => {
                backend.axpy(*alpha, Tokens::new(x, l[0]), TokensMut::new(out, l[1]))
            }
            (Self::ScaleSamples, [scale, x, out]) => backend.scale_samples(
                Tokens::new(scale, l[0]),
                Tokens::new(x, l[1]),
                TokensMut::new(out, l[2]),
            ),
            (
                Self::Gemm {
                    transpose_a,
                    transpose_b,
                    bias: with,
                    accum,
                },
                [a, b, bias, c],
            ) => backend.gemm(
                Matrix {
                    view: Tokens::new(a, l[0]),
                    transposed: *transpose_a,
                },
                Matrix {
                    view: Tokens::new(b, l[1]),
                    transposed: *transpose_b,
                },
                with.then_some(Tokens::new(bias, l[2])),
                *accum,
                TokensMut::new(c, l[3]),
            ),
            (Self::AddColumnSums, [x, out]) => {
                backend.add_column_sums(Tokens::new(x, l[0]), TokensMut::new(out, l[1]))
            }
            (Self::AddBatchSums, [x, out]) => {
                backend.add_batch_sums(Tokens::new(x, l[0]), TokensMut::new(out, l[1]))
            }
            (Self::TokenSums { alpha, accum }, [x, out]) => backend.token_sums(
                *alpha,
                *accum,
                Tokens::new(x, l[0]),
                TokensMut::new(out, l[1]),
            ),
            (Self::AddToTokens(alpha), [x, out]) => {
                backend.add_to_tokens(*alpha, Tokens::new(x, l[0]), TokensMut::new(out, l[1]))
            }
            (Self::AddToSamples(alpha), [x, out]) => {
                backend.add_to_samples(*alpha, Tokens::new(x, l[0]), TokensMut::new(out, l[1]))
            }
            (Self::Silu, [x, out]) => backend.silu(Tokens::new(x, l[0]), TokensMut::new(out, l[1])),
            (Self::SiluBackward, [x, dout, dx]) => backend.silu_backward(
                Tokens::new(x, l[0]),
                Tokens::new(dout, l[1]),
                TokensMut::new(dx, l[2]),
            ),
            (Self::NegExp, [x, out]) => {
                backend.neg_exp(Tokens::new(x, l[0]), TokensMut::new(out, l[1]))
            }
            (Self::AddProduct, [a, b, out]) => backend.add_product(
                Tokens::new(a, l[0]),
                Tokens::new(b, l[1]),
                TokensMut::new(out, l[2]),
            ),
            (Self::Combine(coefficients), [terms @ .., out]) => {
                let terms: Vec<_> = coefficients
                    .iter()
                    .zip(terms.iter().zip(l))
                    .map(|(c, (x, l))| (c.as_slice(), Tokens::new(x, *l)))
                    .collect();
                backend.combine(&terms, TokensMut::new(out, l[terms.len()]))
            }
            (Self::Clamp(low, high), [x]) => {
                ImageOps::clamp(backend, *low, *high, TokensMut::new(x, l[0]))
            }
            (Self::Rescale(strength), [like, x]) => {
                backend.rescale(*strength, Tokens::new(like, l[0]), TokensMut::new(x, l[1]))
            }
            (Self::Threshold(ratio, most), [x]) => {
                backend.threshold(*ratio, *most, TokensMut::new(x, l[0]))
            }
            (Self::ExpNoise(slope, offset), [noise, log_scale, out]) => backend.add_noise(
                Tokens::new(noise, l[0]),
                Tokens::new(log_scale, l[1]),
                slope,
                offset,
                TokensMut::new(out, l[2]),
            ),
            (Self::Mix, [weight, a, b, out]) => backend.mix(
                Tokens::new(weight, l[0]),
                Tokens::new(a, l[1]),
                Tokens::new(b, l[2]),
                TokensMut::new(out, l[3]),
            ),
            (Self::GaussianLoss(steps), [x_start, noise, output, gradient, sums]) => {
                let inputs = LossInputs {
                    x_start: Tokens::new(x_start, l[0]),
                    noise: Tokens::new(noise, l[1]),
                    output: Tokens::new(output, l[2]),
                };
                let gradient = TokensMut::new(gradient, l[3]);
                let mut wide = backend.alloc(2 * steps.len());
                backend.gaussian_loss(steps, inputs, gradient, &mut wide, 0)?;
                backend.write_f64(sums, l[4].offset, &backend.download(&wide))
            }
            (Self::Softmax(scale), [x, out]) => {
                backend.softmax(*scale, Tokens::new(x, l[0]), TokensMut::new(out, l[1]))
            }
            (Self::SoftmaxBackward(scale), [y, dout, dx]) => backend.softmax_backward(
                *scale,
                Tokens::new(y, l[0]),
                Tokens::new(dout, l[1]),
                TokensMut::new(dx, l[2]),
            ),
            (
                Self::AddNorm {
                    parts,
                    residual: r,
                    hidden_scale: h,
                    sum: s,
                    stats: st,
                },
                [
                    residual,
                    hidden,
                    scale,
                    weight,
                    bias,
                    shift_scale,
                    sum,
                    stats,
                    out,
                ],
            ) => backend.add_norm(AddNorm {
                residual: r.then_some(Tokens::new(residual, l[0])),
                hidden: Tokens::new(hidden, l[1]),
                hidden_scale: h.then_some(Tokens::new(scale, l[2])),
                norm: norm::<B>(parts, weight, bias, shift_scale, &l[3..6]),
                sum: s.then_some(TokensMut::new(sum, l[6])),
                stats: st.then_some(TokensMut::new(stats, l[7])),
                out: TokensMut::new(out, l[8]),
            }),
            (
                Self::AddNormBackward {
                    parts,
                    accum,
                    grads,
                },
                [
                    x,
                    stats,
                    weight,
                    bias,
                    shift_scale,
                    dout,
                    dx,
                    arena,
                    d_shift_scale,
                ],
            ) => backend.add_norm_backward(AddNormBackward {
                x: Tokens::new(x, l[0]),
                stats: Tokens::new(stats, l[1]),
                norm: norm::<B>(parts, weight, bias, shift_scale, &l[2..5]),
                dout: Tokens::new(dout, l[5]),
                accum: *accum,
                dx: TokensMut::new(dx, l[6]),
                grads: grads.map(|[weight, bias]| NormGrads {
                    arena,
                    weight: parts.weight.then_some(weight),
                    bias: parts.bias.then_some(bias),
                }),
                d_shift_scale: parts
                    .shift_scale
                    .then_some(TokensMut::new(d_shift_scale, l[8])),
            }),
            (Self::Gather(ids), [table, out]) => backend.gather(
                Tokens::new(table, l[0]),
                &backend.upload(ids),
                TokensMut::new(out, l[1]),
            ),
            (Self::ScatterAdd(ids), [dout, dtable]) => backend.scatter_add(
                Tokens::new(dout, l[0]),
                &backend.upload(ids),
                TokensMut::new(dtable, l[1]),
            ),
            (Self::Patchify(grid), [image, out]) => {
                backend.patchify(image, *grid, TokensMut::new(out, l[1]))
            }
            (Self::Unpatchify(grid), [patches, image]) => {
                backend.unpatchify(Tokens::new(patches, l[0]), *grid, image)
            }
            (Self::GlobalNorm, [x, out]) => backend.global_norm(x, out),
            (Self::AdamW(step), [params, grads, m, v, ema, grad_norm]) => backend.adamw(
                AdamState {
                    params,
                    grads,
                    m,
                    v,
                    ema,
                    grad_norm,
                },
                *step,
            ),
            (operation, buffers) => {
                panic!("{operation:?} does not take {} operands", buffers.len())
            }
        }
    }
}

fn norm<'a, B: Backend>(
    parts: &NormParts,
    weight: &'a Reals<B>,
    bias: &'a Reals<B>,
    shift_scale: &'a Reals<B>,
    l: &[Layout],
) -> Norm<'a, Reals<B>> {
    Norm {
        kind: parts.kind,
        eps: parts.eps,
        weight: parts.weight.then_some(Tokens::new(weight, l[0])),
        bias: parts.bias.then_some(Tokens::new(bias, l[1])),
        shift_scale: parts.shift_scale.then_some(Tokens::new(shift_scale, l[2])),
    }
}
