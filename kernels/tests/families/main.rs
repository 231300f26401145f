//! Every family but scan and convolution through its contracts: odd sizes against the formulas in
//! float64, memory around the operands, and operands that do not fit.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used)]

mod bench;
mod bf16;
mod loss;
mod refused;
mod softmax;

use dis_kernels::elementwise::{
    AddProduct, Axpy, Copy, Fill, NegExp, ScaleSamples, Silu, SiluBackward,
};
use dis_kernels::images::{AddNoise, Clamp, Combine, Lines, Mix, Terms};
use dis_kernels::patch::{Grid, Patchify, Unpatchify};
use dis_kernels::statistics::{Rescale, Threshold};
use dis_kernels::{Kernel, Mat, embed, gemm, norm, optim, reduce};

use bench::{Bench, Field};

/// Shapes that are multiples of nothing, and the smallest.
const SHAPES: [[usize; 3]; 4] = [[1, 1, 1], [3, 5, 37], [2, 1, 300], [1, 9, 33]];

/// float32 in units of one rounding.
const ROUNDING: f64 = 6e-8;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[test]
fn elementwise() {
    for (shape, pad) in SHAPES.into_iter().flat_map(|s| [(s, 0), (s, 3)]) {
        let mut d = Bench::new();
        let (x, y) = (d.field(shape, pad), d.field(shape, pad));
        let scale = d.field([shape[0], 1, 1], pad);
        let outs: Vec<Field> = (0..8).map(|_| d.field(shape, pad)).collect();
        d.run(Fill::new(outs[0].mat_mut(), 0.75));
        d.check("fill", &outs[0], 0.0, |_, _, _| 0.75);
        d.run(Copy::new(x.mat(), outs[1].mat_mut()));
        d.check("copy", &outs[1], 0.0, |b, t, c| x.at(b, t, c));
        d.run(Axpy::new(x.mat(), outs[2].mat_mut(), -0.5));
        d.check("axpy", &outs[2], ROUNDING, |b, t, c| {
            outs[2].at(b, t, c) - 0.5 * x.at(b, t, c)
        });
        d.run(ScaleSamples::new(x.mat(), outs[3].mat_mut(), scale.mat()));
        d.check("scale_samples", &outs[3], ROUNDING, |b, t, c| {
            scale.at(b, 0, 0) * x.at(b, t, c)
        });
        d.run(Silu::new(x.mat(), outs[4].mat_mut()));
        d.check("silu", &outs[4], 4.0 * ROUNDING, |b, t, c| {
            x.at(b, t, c) * sigmoid(x.at(b, t, c))
        });
        d.run(SiluBackward::new(x.mat(), y.mat(), outs[5].mat_mut()));
        d.check("silu_backward", &outs[5], 8.0 * ROUNDING, |b, t, c| {
            let (x, s) = (x.at(b, t, c), sigmoid(x.at(b, t, c)));
            y.at(b, t, c) * s * (1.0 + x * (1.0 - s))
        });
        d.run(NegExp::new(x.mat(), outs[6].mat_mut()));
        d.check("neg_exp", &outs[6], 4.0 * ROUNDING, |b, t, c| {
            -x.at(b, t, c).exp()
        });
        d.run(AddProduct::new(x.mat(), y.mat(), outs[7].mat_mut()));
        d.check("add_product", &outs[7], 2.0 * ROUNDING, |b, t, c| {
            outs[7].at(b, t, c) + x.at(b, t, c) * y.at(b, t, c)
        });
    }
}

#[test]
fn images() {
    for (batch, values, pad) in [(1, 1, 0), (3, 257, 0), (2, 300, 5), (5, 31, 2)] {
        let mut d = Bench::new();
        let shape = [batch, 1, values];
        let fields: Vec<Field> = (0..4).map(|_| d.field(shape, pad)).collect();
        let lists: Vec<Vec<f64>> = (0..3)
            .map(|k| {
                (0..if k == 1 { 1 } else { batch })
                    .map(|b| 0.4 - 0.3 * (b + k) as f64)
                    .collect()
            })
            .collect();
        let of = |k: usize, b: usize| lists[k][if lists[k].len() == 1 { 0 } else { b }];
        let list: Vec<(&[f64], Mat)> = (0..3)
            .map(|k| (lists[k].as_slice(), fields[k].mat()))
            .collect();
        let terms = Terms::new(&list).unwrap();
        let table = d.put(terms.words());
        let out = d.field(shape, pad);
        d.run(Combine::new(&terms, table.ptr(), out.mat_mut()));
        d.check("combine", &out, ROUNDING, |b, t, c| {
            (0..3).map(|k| of(k, b) * fields[k].at(b, t, c)).sum()
        });
        let out = d.field(shape, pad);
        d.run(Clamp::new(out.mat_mut(), -0.5, 0.8));
        d.check("clamp", &out, ROUNDING, |b, t, c| {
            out.at(b, t, c).clamp(-0.5, f64::from(0.8f32))
        });
        let out = d.field(shape, pad);
        let mut offsets = lists[2].clone();
        offsets[batch - 1] = f64::NEG_INFINITY;
        let lines = Lines::new(&lists[0], &offsets, batch).unwrap();
        let words = d.put(lines.words());
        let (noise, log) = (&fields[0], &fields[1]);
        d.run(AddNoise::new(
            noise.mat(),
            log.mat(),
            &lines,
            words.ptr(),
            out.mat_mut(),
        ));
        d.check("add_noise", &out, 4.0 * ROUNDING, |b, t, c| {
            let scale = (of(0, b) * log.at(b, t, c) + offsets[b]).exp();
            out.at(b, t, c) + scale * noise.at(b, t, c)
        });
        let out = d.field(shape, pad);
        d.run(Mix::new(
            fields[2].mat(),
            fields[0].mat(),
            fields[1].mat(),
            out.mat_mut(),
        ));
        d.check("mix", &out, ROUNDING, |b, t, c| {
            let w = fields[2].at(b, t, c);
            w * fields[0].at(b, t, c) + (1.0 - w) * fields[1].at(b, t, c)
        });
    }
}

#[test]
fn statistics_of_samples() {
    for (batch, values, pad) in [(1, 1, 0), (3, 257, 0), (2, 700, 5), (5, 31, 2)] {
        let mut d = Bench::new();
        let shape = [batch, 1, values];
        let (like, x) = (d.field(shape, pad), d.field(shape, pad));
        let row =
            |of: &Field, b: usize| -> Vec<f64> { (0..values).map(|c| of.at(b, 0, c)).collect() };
        let deviation = |of: &Field, b: usize| {
            let (all, n) = (row(of, b), values as f64);
            let mean = all.iter().sum::<f64>() / n;
            (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt()
        };
        d.run(Rescale::new(like.mat(), x.mat_mut(), 0.3));
        d.check("rescale", &x, 2.0 * ROUNDING, |b, t, c| {
            let had = deviation(&x, b);
            let ratio = if had > 0.0 {
                deviation(&like, b) / had
            } else {
                1.0
            };
            x.at(b, t, c) * (0.3 * ratio + 0.7)
        });
        for (ratio, most) in [(0.0, 2.0), (0.9, 9.0), (0.99, 1.1), (1.0, f64::INFINITY)] {
            let x = d.field(shape, pad);
            d.run(Threshold::new(x.mat_mut(), ratio, most));
            d.check("threshold", &x, 2.0 * ROUNDING, |b, t, c| {
                let mut sizes: Vec<f64> = row(&x, b).into_iter().map(f64::abs).collect();
                sizes.sort_by(f64::total_cmp);
                let place = ratio * (values - 1) as f64;
                let (low, next) = (place as usize, (place as usize + 1).min(values - 1));
                let s = sizes[low] + place.fract() * (sizes[next] - sizes[low]);
                let s = s.max(1.0).min(most);
                x.at(b, t, c).clamp(-s, s) / s
            });
        }
    }
}

#[test]
fn sums_and_products() {
    for (m, k, n, pad) in [(1, 1, 1, 0), (5, 7, 3, 2), (65, 17, 70, 1), (3, 130, 66, 0)] {
        for flags in 0..8 {
            let (ta, tb, accumulate) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            let mut d = Bench::new();
            let turned = |t: bool, r, c| if t { [1, c, r] } else { [1, r, c] };
            let (a, b) = (
                d.field(turned(ta, m, k), pad),
                d.field(turned(tb, k, n), pad),
            );
            let (bias, c) = (d.field([1, 1, n], 0), d.field([1, m, n], pad));
            let add = (!accumulate).then(|| bias.mat());
            d.run(gemm::Gemm::new(
                a.mat().factor(ta),
                b.mat().factor(tb),
                c.mat_mut(),
                add,
                accumulate,
            ));
            let get = |x: &Field, t: bool, i, j| if t { x.at(0, j, i) } else { x.at(0, i, j) };
            d.check("gemm", &c, (k as f64 + 2.0) * ROUNDING, |_, i, j| {
                let first = if accumulate {
                    c.at(0, i, j)
                } else {
                    bias.at(0, 0, j)
                };
                first
                    + (0..k)
                        .map(|p| get(&a, ta, i, p) * get(&b, tb, p, j))
                        .sum::<f64>()
            });
        }
    }
    for (shape, chunk) in [
        ([1, 1, 1], 1),
        ([2, 9, 37], 4),
        ([3, 33, 5], 32),
        ([1, 7, 130], 100),
    ] {
        for accumulate in [false, true] {
            let mut d = Bench::new();
            let [batch, tokens, channels] = shape;
            let (x, out) = (
                d.field(shape, 2),
                d.field([batch, tokens.div_ceil(chunk), channels], 1),
            );
            d.run(reduce::SumRows::new(
                x.mat(),
                out.mat_mut(),
                0.5,
                accumulate,
                chunk,
            ));
            d.check(
                "sum_rows",
                &out,
                (tokens as f64 + 2.0) * ROUNDING,
                |b, t, c| {
                    let rows = t * chunk..tokens.min((t + 1) * chunk);
                    let sum: f64 = rows.map(|r| x.at(b, r, c)).sum();
                    0.5 * sum + if accumulate { out.at(b, t, c) } else { 0.0 }
                },
            );
        }
    }
}

#[test]
fn norms() {
    for ([batch, tokens, channels], layer) in
        SHAPES.into_iter().flat_map(|s| [(s, false), (s, true)])
    {
        let mut d = Bench::new();
        let shape = [batch, tokens, channels];
        let (residual, hidden) = (d.field(shape, 2), d.field(shape, 1));
        let (weight, bias) = (d.field([1, 1, channels], 0), d.field([1, 1, channels], 0));
        let (sum, out) = (d.field(shape, 3), d.field(shape, 0));
        let stats = d.field([batch, tokens, 2], 1);
        let kernel = norm::NormForward {
            residual: Some(residual.mat()),
            hidden: hidden.mat(),
            hidden_scale: None,
            weight: Some(weight.mat()),
            bias: Some(bias.mat()),
            shift_scale: None,
            sum: Some(sum.mat_mut()),
            stats: Some(stats.mat_mut()),
            out: out.mat_mut(),
            layer,
            eps: 0.125,
        };
        d.run(kernel.ready());
        let added = |b, t, c| residual.at(b, t, c) + hidden.at(b, t, c);
        d.check("sum", &sum, ROUNDING, added);
        let moments = |b: usize, t: usize| {
            let n = channels as f64;
            let mean = match layer {
                true => (0..channels).map(|c| added(b, t, c)).sum::<f64>() / n,
                false => 0.0,
            };
            let squares = (0..channels)
                .map(|c| (added(b, t, c) - mean).powi(2))
                .sum::<f64>();
            [mean, 1.0 / (squares / n + 0.125).sqrt()]
        };
        let tolerance = (channels as f64).sqrt().max(8.0) * ROUNDING;
        d.check("stats", &stats, tolerance, |b, t, k| moments(b, t)[k]);
        d.check("norm", &out, tolerance, |b, t, c| {
            let [mean, inverse] = moments(b, t);
            (added(b, t, c) - mean) * inverse * weight.at(0, 0, c) + bias.at(0, 0, c)
        });
    }
}

#[test]
fn tables_and_patches() {
    for (ids, entries, channels) in [
        (vec![0u32], 1, 1),
        (vec![4, 0, 4, 2], 5, 37),
        (vec![1; 3], 2, 300),
    ] {
        let mut d = Bench::new();
        let table = d.field([1, entries, channels], 2);
        let (rows, dout) = (
            d.field([ids.len(), 1, channels], 1),
            d.field([ids.len(), 1, channels], 3),
        );
        let at = d.put(&ids);
        d.run(embed::Gather::new(table.mat(), at.ptr(), rows.mat_mut()));
        d.check("gather", &rows, 0.0, |b, _, c| {
            table.at(0, ids[b] as usize, c)
        });
        d.run(embed::ScatterAdd::new(
            dout.mat(),
            at.ptr(),
            table.mat_mut(),
        ));
        d.check("scatter_add", &table, 4.0 * ROUNDING, |_, e, c| {
            let mine = (0..ids.len()).filter(|&i| ids[i] as usize == e);
            table.at(0, e, c) + mine.map(|i| dout.at(i, 0, c)).sum::<f64>()
        });
    }
    for channel_last in [false, true] {
        for (batch, channels, height, width, patch) in
            [(1, 1, 1, 1, 1), (2, 3, 6, 10, 2), (3, 2, 9, 3, 3)]
        {
            let mut d = Bench::new();
            let grid = Grid {
                batch,
                channels,
                height,
                width,
                patch,
                channel_last,
            };
            let tokens = (height / patch) * (width / patch);
            let size = patch * patch * channels;
            let image = d.field([1, 1, batch * channels * height * width], 0);
            let patches = d.field([batch, tokens, size], 2);
            d.run(Patchify::new(image.block.ptr(), patches.mat_mut(), grid));
            let pixel = |b: usize, t: usize, k: usize| {
                let (y, x) = (t / (width / patch), t % (width / patch));
                let (c, i, j) = match channel_last {
                    true => (k % channels, k / channels / patch, k / channels % patch),
                    false => (k / patch / patch, k / patch % patch, k % patch),
                };
                ((b * channels + c) * height + y * patch + i) * width + x * patch + j
            };
            d.check("patchify", &patches, 0.0, |b, t, k| {
                image.at(0, 0, pixel(b, t, k))
            });
            let back = d.field([1, 1, image.host.len()], 0);
            d.run(Unpatchify::new(back.block.ptr_mut(), patches.mat(), grid));
            d.check("unpatchify", &back, 0.0, |_, _, c| image.at(0, 0, c));
        }
    }
}

#[test]
fn the_optimizer() {
    for n in [1usize, 37, 5000] {
        let mut d = Bench::new();
        let mut fields: Vec<Field> = (0..5).map(|_| d.field([1, 1, n], 0)).collect();
        // Second moments are squares.
        let squares: Vec<f32> = fields[3].host.iter().map(|x| x * x).collect();
        fields[3].block = d.put(&squares);
        fields[3].host = squares;
        let [params, grads, m, v, ema] = &fields[..] else {
            panic!()
        };
        let count = optim::norm_partials(n as u64);
        let partial = d.pool.take(8 * count).unwrap();
        let total = d.field([1, 1, 1], 0);
        d.run(optim::SquareSums::new(grads.block.ptr(), partial.ptr_mut()));
        d.run(optim::NormFinish::new(
            partial.ptr(),
            count,
            total.block.ptr_mut(),
        ));
        let square: f64 = (0..n).map(|i| grads.at(0, 0, i).powi(2)).sum();
        d.check("norm", &total, ROUNDING, |_, _, _| square.sqrt());
        let x = optim::AdamW {
            params: params.block.ptr_mut(),
            grads: grads.block.ptr(),
            m: m.block.ptr_mut(),
            v: v.block.ptr_mut(),
            ema: ema.block.ptr_mut(),
            grad_norm: total.block.ptr(),
            grad_scale: 0.5,
            max_norm: Some(0.25),
            keep: 0.99,
            one_minus_beta1: 0.1,
            beta2: 0.99,
            one_minus_beta2: 0.01,
            step: 0.02,
            inverse_root: 2.0,
            eps: 1e-3,
            ema_decay: 0.9,
            one_minus_ema: 0.1,
        };
        d.run(x.ready());
        let wide = f64::from;
        let clip = (0.25 / (square.sqrt() * 0.5 + 1e-6)).min(1.0) * 0.5;
        let g = |i| grads.at(0, 0, i) * clip;
        let first = |i| m.at(0, 0, i) + (g(i) - m.at(0, 0, i)) * wide(x.one_minus_beta1);
        let second = |i| v.at(0, 0, i) * wide(x.beta2) + g(i) * g(i) * wide(x.one_minus_beta2);
        let new = |i| {
            let root = second(i).sqrt() * wide(x.inverse_root) + wide(x.eps);
            params.at(0, 0, i) * wide(x.keep) - wide(x.step) * first(i) / root
        };
        d.check("m", m, 4.0 * ROUNDING, |_, _, i| first(i));
        d.check("v", v, 4.0 * ROUNDING, |_, _, i| second(i));
        d.check("params", params, 16.0 * ROUNDING, |_, _, i| new(i));
        d.check("ema", ema, 8.0 * ROUNDING, |_, _, i| {
            ema.at(0, 0, i) * wide(x.ema_decay) + new(i) * wide(x.one_minus_ema)
        });
    }
}
