//! Calls that cannot be answered are refused with an error that names what is wrong.

use dis_tensor::{
    Accum, AdamState, AdamW, AddNorm, AddNormBackward, Backend, Cpu, Layout, Norm, NormGrads,
    NormKind,
};
use dis_tensor::{PatchGrid, PatchOrder, Reference, Result, TensorError, Tokens, TokensMut};

/// Expects a refusal whose message contains all of `words`.
fn refused(result: Result<()>, words: &[&str]) {
    let message = result.expect_err("the call was accepted").to_string();
    for word in words {
        assert!(
            message.contains(word),
            "{message:?} does not mention {word:?}"
        );
    }
}

fn dense(batch: usize, tokens: usize, channels: usize) -> Layout {
    Layout::dense(batch, tokens, channels)
}

/// Runs a generic test on every backend.
macro_rules! everywhere {
    ($test:ident) => {{
        $test(&Cpu::with_threads(1).unwrap());
        $test(&Reference::new());
        #[cfg(feature = "sim")]
        $test(&crate::gpu::GPUS[0].backend);
    }};
}

fn views<B: Backend>(b: &B) {
    let x = b.zeros(24);
    let mut y = b.zeros(24);
    let bad = Tokens::new(&x, dense(2, 3, 4).at(1));
    let out = TokensMut::new(&mut y, dense(2, 3, 4));
    let result = b.copy(bad, out);
    assert!(matches!(
        &result,
        Err(TensorError::OutOfBounds {
            op: "copy",
            needed: 25,
            len: 24,
            ..
        })
    ));
    refused(result, &["copy", "25", "24"]);

    let overlapping = Layout {
        row_stride: 3,
        ..dense(1, 6, 4)
    };
    let out = TokensMut::new(&mut y, overlapping);
    refused(b.fill(out, 1.0), &["fill", "overlap"]);

    let (a, out) = (
        Tokens::new(&x, dense(2, 3, 4)),
        TokensMut::new(&mut y, dense(3, 2, 4)),
    );
    refused(
        b.axpy(1.0, a, out),
        &["axpy", "src", "dst", "[2, 3, 4]", "[3, 2, 4]"],
    );
    let (a, out) = (
        Tokens::new(&x, dense(2, 3, 4)),
        TokensMut::new(&mut y, dense(2, 3, 3)),
    );
    refused(b.silu(a, out), &["silu", "[2, 3, 3]"]);
    let (a, out) = (
        Tokens::new(&x, dense(2, 3, 4)),
        TokensMut::new(&mut y, dense(2, 3, 4)),
    );
    refused(
        b.add_product(a, Tokens::new(&x, dense(2, 3, 2)), out),
        &["add_product", "[2, 3, 2]"],
    );
    let (a, out) = (
        Tokens::new(&x, dense(2, 3, 4)),
        TokensMut::new(&mut y, dense(2, 3, 4)),
    );
    let scale = Tokens::new(&x, dense(3, 1, 1));
    refused(
        b.scale_samples(scale, a, out),
        &["scale_samples", "scale", "[3, 1, 1]"],
    );
}

fn reductions<B: Backend>(b: &B) {
    let x = b.zeros(24);
    let mut y = b.zeros(24);
    let a = Tokens::new(&x, dense(2, 3, 4));
    let out = TokensMut::new(&mut y, dense(1, 1, 3));
    refused(
        b.add_column_sums(a, out),
        &["add_column_sums", "[1, 1, 3]", "[1, 1, 4]"],
    );
    let out = TokensMut::new(&mut y, dense(1, 2, 4));
    refused(b.add_batch_sums(a, out), &["add_batch_sums", "[1, 2, 4]"]);
    let out = TokensMut::new(&mut y, dense(1, 1, 4));
    refused(
        b.token_sums(1.0, Accum::Add, a, out),
        &["token_sums", "[1, 1, 4]"],
    );
    let out = TokensMut::new(&mut y, dense(2, 3, 4));
    refused(
        b.add_to_tokens(1.0, Tokens::new(&x, dense(3, 1, 4)), out),
        &["add_to_tokens"],
    );
    let out = TokensMut::new(&mut y, dense(2, 3, 4));
    refused(
        b.add_to_samples(1.0, Tokens::new(&x, dense(2, 3, 4)), out),
        &["add_to_samples"],
    );
}

fn products<B: Backend>(b: &B) {
    let x = b.zeros(100);
    let mut y = b.zeros(100);
    let view = |l| Tokens::new(&x, l);
    let (a, w) = (view(Layout::matrix(3, 5)), view(Layout::matrix(4, 5)));
    let out = TokensMut::new(&mut y, Layout::matrix(3, 4));
    refused(
        b.gemm(a, w, None, Accum::Replace, out),
        &["gemm", "a has", "b has", "[1, 3, 5]", "[1, 4, 5]"],
    );
    let out = TokensMut::new(&mut y, Layout::matrix(4, 3));
    refused(
        b.gemm(a, w.t(), None, Accum::Replace, out),
        &["gemm", "[1, 4, 3]", "[1, 3, 4]"],
    );
    let out = TokensMut::new(&mut y, Layout::matrix(3, 4));
    let bias = Some(view(Layout::vector(4)));
    refused(
        b.gemm(a, w.t(), bias, Accum::Add, out),
        &["gemm", "bias", "Accum::Add"],
    );
    let out = TokensMut::new(&mut y, Layout::matrix(3, 4));
    let bias = Some(view(Layout::vector(3)));
    refused(
        b.gemm(a, w.t(), bias, Accum::Replace, out),
        &["gemm", "bias", "[1, 1, 3]"],
    );
    let apart = view(dense(2, 4, 5).token_range(0, 2));
    let out = TokensMut::new(&mut y, Layout::matrix(4, 4));
    refused(
        b.gemm(apart, w.t(), None, Accum::Replace, out),
        &["gemm", "a is not one matrix"],
    );
}

fn norms<B: Backend>(b: &B) {
    let x = b.zeros(48);
    let (mut y, mut stats, mut arena) = (b.zeros(48), b.zeros(12), b.zeros(8));
    let l = dense(2, 3, 4);
    let hidden = Tokens::new(&x, l);
    let plain = Norm {
        kind: NormKind::Rms,
        eps: 1e-5,
        weight: None,
        bias: None,
        shift_scale: None,
    };
    let weight = Norm {
        weight: Some(Tokens::new(&x, Layout::vector(4))),
        ..plain
    };
    let mut forward = |residual, scale, norm, stats_layout| {
        let stats = Some(TokensMut::new(&mut stats, stats_layout));
        b.add_norm(AddNorm {
            residual,
            hidden,
            hidden_scale: scale,
            norm,
            sum: None,
            stats,
            out: TokensMut::new(&mut y, l),
        })
    };
    let fine = dense(2, 3, 2);
    forward(None, None, plain, fine).unwrap();
    let wrong = Some(Tokens::new(&x, dense(2, 4, 4)));
    refused(
        forward(wrong, None, plain, fine),
        &["add_norm", "residual", "[2, 4, 4]"],
    );
    let wrong = Some(Tokens::new(&x, dense(1, 1, 1)));
    refused(
        forward(None, wrong, plain, fine),
        &["add_norm", "hidden_scale"],
    );
    refused(
        forward(None, None, plain, dense(2, 3, 1)),
        &["add_norm", "stats"],
    );
    let wrong = Norm {
        weight: Some(Tokens::new(&x, Layout::vector(5))),
        ..plain
    };
    refused(forward(None, None, wrong, fine), &["add_norm", "weight"]);
    let wrong = Norm {
        shift_scale: Some(Tokens::new(&x, dense(2, 1, 4))),
        ..plain
    };
    refused(
        forward(None, None, wrong, fine),
        &["add_norm", "shift_scale", "[2, 1, 8]"],
    );
    refused(
        forward(
            None,
            None,
            Norm {
                eps: f64::NAN,
                ..plain
            },
            fine,
        ),
        &["add_norm", "eps"],
    );

    let saved = b.zeros(12);
    let mut backward = |norm, weight, bias, d_both: bool| {
        let mut both = b.zeros(16);
        let grads = Some(NormGrads {
            arena: &mut arena,
            weight,
            bias,
        });
        let d_both = d_both.then_some(TokensMut::new(&mut both, dense(2, 1, 8)));
        let (stats, dx) = (Tokens::new(&saved, fine), TokensMut::new(&mut y, l));
        b.add_norm_backward(AddNormBackward {
            x: hidden,
            stats,
            norm,
            dout: hidden,
            accum: Accum::Replace,
            dx,
            grads,
            d_shift_scale: d_both,
        })
    };
    backward(weight, Some(4), None, false).unwrap();
    refused(
        backward(weight, Some(5), None, false),
        &["add_norm_backward", "9", "8"],
    );
    refused(
        backward(plain, Some(0), None, false),
        &["add_norm_backward", "weight", "lacks"],
    );
    refused(
        backward(plain, None, None, true),
        &["add_norm_backward", "d_shift_scale"],
    );
    let affine = Norm {
        bias: weight.weight,
        ..weight
    };
    refused(
        backward(affine, Some(0), Some(3), false),
        &["add_norm_backward", "overlap"],
    );
}

fn tables<B: Backend>(b: &B) {
    let table = b.zeros(20);
    let mut y = b.zeros(20);
    let ids = b.upload(&[0u32, 5, 4]);
    let (from, to) = (Tokens::new(&table, dense(1, 5, 4)), dense(3, 1, 4));
    refused(
        b.gather(from, &ids, TokensMut::new(&mut y, to)),
        &["gather", "id 5", "table", "5 rows"],
    );
    refused(
        b.gather(from, &b.upload(&[1u32]), TokensMut::new(&mut y, to)),
        &["gather", "out", "[3, 1, 4]", "[1, 1, 4]"],
    );
    let rows = Tokens::new(&table, to);
    let into = TokensMut::new(&mut y, dense(1, 5, 4));
    refused(
        b.scatter_add(rows, &ids, into),
        &["scatter_add", "id 5", "dtable"],
    );

    let grid = PatchGrid {
        batch: 1,
        channels: 1,
        height: 4,
        width: 4,
        patch: 2,
        order: PatchOrder::ChannelFirst,
    };
    let mut image = b.zeros(16);
    let rows = dense(1, 4, 4);
    for patch in [0, 3] {
        let grid = PatchGrid { patch, ..grid };
        refused(
            b.patchify(&image, grid, TokensMut::new(&mut y, rows)),
            &["patchify", "4 x 4"],
        );
    }
    let long = b.zeros(17);
    refused(
        b.patchify(&long, grid, TokensMut::new(&mut y, rows)),
        &["patchify", "17", "16"],
    );
    let wrong = Tokens::new(&table, dense(1, 5, 4));
    refused(
        b.unpatchify(wrong, grid, &mut image),
        &["unpatchify", "patches", "[1, 5, 4]"],
    );
}

fn optimizer<B: Backend>(b: &B) {
    let step = AdamW {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
        step: 1,
        grad_scale: 1.0,
        max_grad_norm: None,
        ema_decay: 0.9,
    };
    let run = |grads: usize, norm: usize, step: AdamW| {
        let (mut params, mut m, mut v, mut ema) = (b.zeros(4), b.zeros(4), b.zeros(4), b.zeros(4));
        let (grads, grad_norm) = (b.zeros(grads), b.zeros(norm));
        let (params, m, v, ema) = (&mut params, &mut m, &mut v, &mut ema);
        b.adamw(
            AdamState {
                params,
                grads: &grads,
                m,
                v,
                ema,
                grad_norm: &grad_norm,
            },
            step,
        )
    };
    run(4, 1, step).unwrap();
    refused(
        run(5, 1, step),
        &["adamw", "grads", "[1, 1, 5]", "[1, 1, 4]"],
    );
    refused(run(4, 0, step), &["adamw", "grad_norm"]);
    refused(run(4, 1, AdamW { step: 0, ..step }), &["adamw", "step"]);
    refused(run(4, 1, AdamW { beta2: 1.0, ..step }), &["adamw", "beta"]);
    refused(
        run(
            4,
            1,
            AdamW {
                lr: f64::NAN,
                ..step
            },
        ),
        &["adamw", "NaN"],
    );
    refused(
        b.global_norm(&b.zeros(3), &mut b.zeros(0)),
        &["global_norm", "out"],
    );
}

#[test]
fn bad_views() {
    everywhere!(views);
}

#[test]
fn bad_reductions() {
    everywhere!(reductions);
}

#[test]
fn bad_products() {
    everywhere!(products);
}

#[test]
fn bad_norms() {
    everywhere!(norms);
}

#[test]
fn bad_tables() {
    everywhere!(tables);
}

#[test]
fn bad_optimizer_steps() {
    everywhere!(optimizer);
}
