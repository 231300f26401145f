//! The operations of dis-tensor.

use anyhow::Result;
use dis_tensor::{
    Accum, AdamState, AdamW, AddNorm, AddNormBackward, Matrix, Norm, NormGrads, NormKind,
    PatchGrid, PatchOrder,
};

use super::data::{Draw, Outputs, Probe, plain, read};

/// Elementwise operations, sums and softmax over (batch, tokens, channels).
pub fn elementwise<B: Probe>(b: &B, shape: [usize; 3], seed: u64) -> Result<Outputs> {
    let mut d = Draw::new(b, seed, (seed % 4) as usize);
    let [batch, tokens, channels] = shape;
    let mut outputs = Outputs::new();
    let (x, y) = (d.field(shape, |x| 3.0 * x), d.field(shape, plain));
    macro_rules! into {
        ($name:literal, $shape:expr, |$out:ident| $body:expr) => {{
            let mut $out = d.field($shape, plain);
            $body?;
            outputs.push(($name, read(b, &$out.buf)));
        }};
    }
    into!("fill", shape, |o| b.fill(o.view_mut(), 0.3));
    into!("copy", shape, |o| b.copy(x.view(), o.view_mut()));
    into!("axpy", shape, |o| b.axpy(-0.7, x.view(), o.view_mut()));
    let scale = d.field([batch, 1, 1], plain);
    into!("scale_samples", shape, |o| b.scale_samples(
        scale.view(),
        x.view(),
        o.view_mut()
    ));
    let (row, rows) = (
        d.field([1, 1, channels], plain),
        d.field([batch, 1, channels], plain),
    );
    into!("add_to_tokens", shape, |o| b.add_to_tokens(
        0.4,
        row.view(),
        o.view_mut()
    ));
    into!("add_to_tokens", shape, |o| b.add_to_tokens(
        0.4,
        rows.view(),
        o.view_mut()
    ));
    let table = d.field([1, tokens, channels], plain);
    into!("add_to_samples", shape, |o| b.add_to_samples(
        0.4,
        table.view(),
        o.view_mut()
    ));
    into!("silu", shape, |o| b.silu(x.view(), o.view_mut()));
    into!("silu_backward", shape, |o| b.silu_backward(
        x.view(),
        y.view(),
        o.view_mut()
    ));
    into!("neg_exp", shape, |o| b.neg_exp(x.view(), o.view_mut()));
    into!("add_product", shape, |o| b.add_product(
        x.view(),
        y.view(),
        o.view_mut()
    ));
    into!("add_column_sums", [1, 1, channels], |o| b
        .add_column_sums(x.view(), o.view_mut()));
    into!("add_batch_sums", [1, tokens, channels], |o| b
        .add_batch_sums(x.view(), o.view_mut()));
    into!("token_sums", [batch, 1, channels], |o| b.token_sums(
        0.3,
        Accum::Replace,
        x.view(),
        o.view_mut()
    ));
    into!("token_sums", [batch, 1, channels], |o| b.token_sums(
        0.3,
        Accum::Add,
        x.view(),
        o.view_mut()
    ));
    into!("softmax", shape, |o| b.softmax(
        -0.8,
        x.view(),
        o.view_mut()
    ));
    // So spread that exponentials overflow unless it is the largest that is subtracted.
    into!("softmax", shape, |o| b.softmax(
        60.0,
        x.view(),
        o.view_mut()
    ));
    into!("softmax_backward", shape, |o| b.softmax_backward(
        0.3,
        x.view(),
        y.view(),
        o.view_mut()
    ));
    Ok(outputs)
}

/// Matrix products with `rows` rows, `k` inside and `columns` columns, of normals through `f`.
pub fn products<B: Probe>(
    b: &B,
    [rows, k, columns]: [usize; 3],
    seed: u64,
    f: fn(f64) -> f64,
) -> Result<Outputs> {
    let mut d = Draw::new(b, seed, (seed % 4) as usize);
    let mut outputs = Outputs::new();
    for flags in 0..4 {
        let (ta, tb) = (flags & 1 != 0, flags & 2 != 0);
        let turn = |t: bool, r: usize, c: usize| if t { [1, c, r] } else { [1, r, c] };
        let left = d.matrix(turn(ta, rows, k), f);
        let right = d.matrix(turn(tb, k, columns), f);
        let bias = d.matrix([1, 1, columns], plain);
        for (bias, accum) in [
            (None, Accum::Replace),
            (Some(&bias), Accum::Replace),
            (None, Accum::Add),
        ] {
            let mut out = d.matrix([1, rows, columns], plain);
            b.gemm(
                Matrix {
                    view: left.view(),
                    transposed: ta,
                },
                Matrix {
                    view: right.view(),
                    transposed: tb,
                },
                bias.map(|bias| bias.view()),
                accum,
                out.view_mut(),
            )?;
            outputs.push(("gemm", read(b, &out.buf)));
        }
    }
    Ok(outputs)
}

/// Norms over (batch, tokens, channels); bits of `seed` say which parts there are.
pub fn norms<B: Probe>(b: &B, shape: [usize; 3], seed: u64) -> Result<Outputs> {
    let mut d = Draw::new(b, seed, (seed % 3) as usize);
    let [batch, tokens, channels] = shape;
    let has = |bit: u64| seed >> bit & 1 == 1;
    let (residual, hidden) = (d.field(shape, plain), d.field(shape, plain));
    let scale = d.field([batch, 1, 1], |x| 1.0 + 0.1 * x);
    let (weight, bias) = (
        d.field([1, 1, channels], plain),
        d.field([1, 1, channels], plain),
    );
    let both = d.field([batch, 1, 2 * channels], plain);
    let norm = Norm {
        kind: if has(8) {
            NormKind::Layer
        } else {
            NormKind::Rms
        },
        eps: 1e-3,
        weight: has(9).then(|| weight.view()),
        bias: has(10).then(|| bias.view()),
        shift_scale: has(11).then(|| both.view()),
    };
    let (mut sum, mut out) = (d.field(shape, plain), d.field(shape, plain));
    let mut stats = d.field([batch, tokens, 2], plain);
    b.add_norm(AddNorm {
        residual: has(12).then(|| residual.view()),
        hidden: hidden.view(),
        hidden_scale: has(13).then(|| scale.view()),
        norm,
        sum: Some(sum.view_mut()),
        stats: Some(stats.view_mut()),
        out: out.view_mut(),
    })?;
    let (dout, mut dx) = (d.field(shape, plain), d.field(shape, plain));
    let mut arena = d.dense([1, 1, 2 * channels + 5], plain);
    let mut d_both = d.field([batch, 1, 2 * channels], plain);
    // From given statistics, so that the backward is compared by itself.
    let given = d.field([batch, tokens, 2], |x| 0.5 + 0.1 * x.abs());
    let x = d.field(shape, plain);
    b.add_norm_backward(AddNormBackward {
        x: x.view(),
        stats: given.view(),
        norm,
        dout: dout.view(),
        accum: if has(14) { Accum::Add } else { Accum::Replace },
        dx: dx.view_mut(),
        grads: Some(NormGrads {
            arena: &mut arena.buf,
            weight: has(9).then_some(2),
            bias: has(10).then_some(channels + 3),
        }),
        d_shift_scale: has(11).then(|| d_both.view_mut()),
    })?;
    Ok(vec![
        ("norm sum", read(b, &sum.buf)),
        ("norm stats", read(b, &stats.buf)),
        ("norm", read(b, &out.buf)),
        ("norm dx", read(b, &dx.buf)),
        ("norm dweight, dbias", read(b, &arena.buf)),
        ("norm dshift, dscale", read(b, &d_both.buf)),
    ])
}

/// Tables and patches.
pub fn tables<B: Probe>(
    b: &B,
    [count, entries, channels]: [usize; 3],
    seed: u64,
) -> Result<Outputs> {
    let mut d = Draw::new(b, seed, (seed % 4) as usize);
    let ids = d.ids(count, entries);
    let ids = b.upload(&ids);
    let mut table = d.field([1, entries, channels], plain);
    let mut rows = d.field([count, 1, channels], plain);
    b.gather(table.view(), &ids, rows.view_mut())?;
    let gathered = read(b, &rows.buf);
    let dout = d.field([count, 1, channels], plain);
    b.scatter_add(dout.view(), &ids, table.view_mut())?;
    let mut outputs = vec![("gather", gathered), ("scatter_add", read(b, &table.buf))];
    for order in [PatchOrder::ChannelFirst, PatchOrder::ChannelLast] {
        let patch = 1 + (seed % 3) as usize;
        let grid = PatchGrid {
            batch: count,
            channels: 1 + entries % 4,
            height: 3 * patch,
            width: (1 + channels % 41) * patch,
            patch,
            order,
        };
        let shape = [grid.batch, grid.tokens(), grid.patch_len()];
        let image = d.dense([1, 1, grid.elements()], plain);
        let image = exactly(b, &image.buf, grid.elements())?;
        let mut patches = d.field(shape, plain);
        b.patchify(&image, grid, patches.view_mut())?;
        outputs.push(("patchify", read(b, &patches.buf)));
        let other = d.field(shape, plain);
        let mut back = b.zeros(grid.elements());
        b.unpatchify(other.view(), grid, &mut back)?;
        outputs.push(("unpatchify", read(b, &back)));
    }
    Ok(outputs)
}

/// The first `len` elements as a buffer of their own.
fn exactly<B: Probe>(
    b: &B,
    buf: &dis_tensor::Reals<B>,
    len: usize,
) -> Result<dis_tensor::Reals<B>> {
    let mut values = vec![0.0f32; len];
    b.read_f32(buf, 0, &mut values)?;
    Ok(b.from_f32(&values))
}

/// Global norm and AdamW over `n` parameters.
pub fn optimizer<B: Probe>(b: &B, n: usize, seed: u64) -> Result<Outputs> {
    let mut d = Draw::new(b, seed, 0);
    let row = [1, 1, n];
    let (mut params, grads) = (d.dense(row, plain), d.dense(row, plain));
    let (mut m, mut v) = (d.dense(row, plain), d.dense(row, f64::abs));
    let mut ema = d.dense(row, plain);
    let mut norm = b.zeros(1);
    b.global_norm(&grads.buf, &mut norm)?;
    let mut outputs = vec![("global_norm", read(b, &norm))];
    let step = AdamW {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        step: 1 + seed % 1000,
        grad_scale: 0.5,
        max_grad_norm: seed.is_multiple_of(2).then_some(1.0),
        ema_decay: 0.99,
    };
    b.adamw(
        AdamState {
            params: &mut params.buf,
            grads: &grads.buf,
            m: &mut m.buf,
            v: &mut v.buf,
            ema: &mut ema.buf,
            grad_norm: &norm,
        },
        step,
    )?;
    // A norm that is not finite: nothing may change.
    let infinite = b.from_f32(&[f32::INFINITY]);
    b.adamw(
        AdamState {
            params: &mut params.buf,
            grads: &grads.buf,
            m: &mut m.buf,
            v: &mut v.buf,
            ema: &mut ema.buf,
            grad_norm: &infinite,
        },
        step,
    )?;
    for (name, field) in [
        ("adamw", params),
        ("adamw m", m),
        ("adamw v", v),
        ("ema", ema),
    ] {
        outputs.push((name, read(b, &field.buf)));
    }
    Ok(outputs)
}
