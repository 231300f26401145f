//! What the arguments of every operation must satisfy.

use crate::backend::Buffer;
use crate::error::{Result, TensorError};
use crate::layout::{Layout, Tokens, TokensMut, same_shape};
use crate::operands::{
    Accum, AdamState, AdamW, AddNorm, AddNormBackward, GemmSize, Matrix, Norm, PatchGrid,
};

/// An operand's name in messages, its place and the length of its buffer.
#[derive(Clone, Copy)]
pub(crate) struct Operand {
    name: &'static str,
    layout: Layout,
    len: usize,
}

/// Describes an operand that is read.
pub(crate) fn src<Bf: Buffer>(name: &'static str, view: &Tokens<'_, Bf>) -> Operand {
    Operand {
        name,
        layout: view.layout,
        len: view.buf.len(),
    }
}

/// Describes an operand that is written.
pub(crate) fn dst<Bf: Buffer>(name: &'static str, view: &TokensMut<'_, Bf>) -> Operand {
    Operand {
        name,
        layout: view.layout,
        len: view.buf.len(),
    }
}

pub(crate) fn invalid(op: &'static str, what: String) -> TensorError {
    TensorError::Invalid { op, what }
}

fn inside(op: &'static str, x: Operand) -> Result<()> {
    // What has no elements can neither overlap nor reach outside.
    if x.layout.elements() == 0 {
        Ok(())
    } else {
        x.layout.check(op, x.len)
    }
}

/// `x` lies inside its buffer and has the shape `expected`, which `why` names.
pub(crate) fn shaped(
    op: &'static str,
    x: Operand,
    why: &'static str,
    expected: [usize; 3],
) -> Result<()> {
    inside(op, x)?;
    same_shape(op, x.name, x.layout.shape(), why, expected)
}

/// One operand, of any shape.
pub(crate) fn one(op: &'static str, x: Operand) -> Result<()> {
    inside(op, x)
}

/// All operands have the shape of the first.
pub(crate) fn equal(op: &'static str, operands: &[Operand]) -> Result<()> {
    if let Some((first, rest)) = operands.split_first() {
        inside(op, *first)?;
        for x in rest {
            shaped(op, *x, first.name, first.layout.shape())?;
        }
    }
    Ok(())
}

/// All operands have the shape of the first, which is one token a sample.
pub(crate) fn images(op: &'static str, operands: &[Operand]) -> Result<()> {
    equal(op, operands)?;
    match operands.first() {
        Some(first) if first.layout.tokens != 1 => Err(invalid(
            op,
            format!(
                "{} has {} tokens a sample, not one",
                first.name, first.layout.tokens
            ),
        )),
        _ => Ok(()),
    }
}

/// There are at least `least` of something.
pub(crate) fn count(op: &'static str, what: &str, got: usize, least: usize) -> Result<()> {
    if got < least {
        return Err(invalid(
            op,
            format!("{got} {what}, at least {least} expected"),
        ));
    }
    Ok(())
}

/// A list has one entry for each sample of `of`, or one for all.
pub(crate) fn sample_list(op: &'static str, what: &str, got: usize, of: Operand) -> Result<()> {
    let batch = of.layout.batch;
    if got != 1 && got != batch {
        return Err(invalid(op, format!("{got} {what} for {batch} samples")));
    }
    Ok(())
}

/// `x` is (batch, 1, 1) of `of`.
pub(crate) fn per_sample(op: &'static str, x: Operand, of: Operand) -> Result<()> {
    shaped(op, x, "one per sample", [of.layout.batch, 1, 1])
}

/// `x` is (1, 1, channels) of `of`.
pub(crate) fn per_channel(op: &'static str, x: Operand, of: Operand) -> Result<()> {
    inside(op, of)?;
    shaped(op, x, "one per channel", [1, 1, of.layout.channels])
}

/// `x` is (1, tokens, channels) of `of`.
pub(crate) fn per_token(op: &'static str, x: Operand, of: Operand) -> Result<()> {
    inside(op, of)?;
    shaped(
        op,
        x,
        "one sample",
        [1, of.layout.tokens, of.layout.channels],
    )
}

/// `x` is (batch, 1, channels) of `of`.
pub(crate) fn per_sample_channel(op: &'static str, x: Operand, of: Operand) -> Result<()> {
    inside(op, of)?;
    shaped(
        op,
        x,
        "one row per sample",
        [of.layout.batch, 1, of.layout.channels],
    )
}

/// `x` is (batch or 1, 1, channels) of `of`.
pub(crate) fn broadcast_row(op: &'static str, x: Operand, of: Operand) -> Result<()> {
    inside(op, of)?;
    let batch = if x.layout.batch == 1 {
        1
    } else {
        of.layout.batch
    };
    shaped(
        op,
        x,
        "one row, or one per sample",
        [batch, 1, of.layout.channels],
    )
}

/// A matrix product.
pub(crate) fn gemm<Bf: Buffer>(
    a: &Matrix<'_, Bf>,
    b: &Matrix<'_, Bf>,
    bias: Option<&Tokens<'_, Bf>>,
    accum: Accum,
    c: &TokensMut<'_, Bf>,
) -> Result<GemmSize> {
    const OP: &str = "gemm";
    for x in [src("a", &a.view), src("b", &b.view), dst("c", c)] {
        inside(OP, x)?;
        if !x.layout.is_matrix() {
            return Err(invalid(
                OP,
                format!(
                    "{} is not one matrix: {:?} (its samples are apart)",
                    x.name, x.layout
                ),
            ));
        }
    }
    let (m, k) = a.extent();
    let (k_b, n) = b.extent();
    if k != k_b {
        return Err(TensorError::Mismatch {
            op: OP,
            left_name: if a.transposed { "a transposed" } else { "a" },
            left: [1, m, k],
            right_name: if b.transposed { "b transposed" } else { "b" },
            right: [1, k_b, n],
        });
    }
    let found = [1, c.layout.rows(), c.layout.channels];
    same_shape(OP, "c", found, "a b", [1, m, n])?;
    if let Some(bias) = bias {
        if accum.adds() {
            return Err(invalid(OP, "a bias together with Accum::Add".into()));
        }
        shaped(OP, src("bias", bias), "one per column of c", [1, 1, n])?;
    }
    Ok(GemmSize { m, n, k })
}

fn norm<Bf: Buffer>(op: &'static str, norm: &Norm<'_, Bf>, x: Operand) -> Result<()> {
    if !(norm.eps >= 0.0 && norm.eps.is_finite()) {
        return Err(invalid(op, format!("eps is {}", norm.eps)));
    }
    if let Some(weight) = &norm.weight {
        per_channel(op, src("weight", weight), x)?;
    }
    if let Some(bias) = &norm.bias {
        per_channel(op, src("bias", bias), x)?;
    }
    if let Some(both) = &norm.shift_scale {
        let expected = [x.layout.batch, 1, 2 * x.layout.channels];
        shaped(
            op,
            src("shift_scale", both),
            "shift and scale per sample",
            expected,
        )?;
    }
    Ok(())
}

fn stats(op: &'static str, stats: Operand, x: Operand) -> Result<()> {
    let [batch, tokens, _] = x.layout.shape();
    shaped(
        op,
        stats,
        "mean and inverse deviation per row",
        [batch, tokens, 2],
    )
}

/// Residual add and normalisation.
pub(crate) fn add_norm<Bf: Buffer>(call: &AddNorm<'_, Bf>) -> Result<()> {
    const OP: &str = "add_norm";
    let x = src("hidden", &call.hidden);
    equal(OP, &[x, dst("out", &call.out)])?;
    if let Some(residual) = &call.residual {
        equal(OP, &[x, src("residual", residual)])?;
    }
    if let Some(scale) = &call.hidden_scale {
        per_sample(OP, src("hidden_scale", scale), x)?;
    }
    if let Some(sum) = &call.sum {
        equal(OP, &[x, dst("sum", sum)])?;
    }
    if let Some(stat) = &call.stats {
        stats(OP, dst("stats", stat), x)?;
    }
    norm(OP, &call.norm, x)
}

/// Backward of the normalisation.
pub(crate) fn add_norm_backward<Bf: Buffer>(call: &AddNormBackward<'_, Bf>) -> Result<()> {
    const OP: &str = "add_norm_backward";
    let n = &call.norm;
    let x = src("x", &call.x);
    equal(OP, &[x, src("dout", &call.dout), dst("dx", &call.dx)])?;
    stats(OP, src("stats", &call.stats), x)?;
    norm(OP, n, x)?;
    if let Some(grads) = &call.grads {
        let channels = x.layout.channels;
        let places = [
            ("weight", grads.weight, n.weight.is_some()),
            ("bias", grads.bias, n.bias.is_some()),
        ];
        for (name, offset, present) in places {
            let Some(offset) = offset else { continue };
            if !present {
                return Err(invalid(
                    OP,
                    format!("a gradient of the {name}, which the norm lacks"),
                ));
            }
            let layout = Layout::vector(channels).at(offset);
            inside(
                OP,
                Operand {
                    name,
                    layout,
                    len: grads.arena.len(),
                },
            )?;
        }
        if let (Some(w), Some(b)) = (grads.weight, grads.bias)
            && w < b + channels
            && b < w + channels
        {
            return Err(invalid(
                OP,
                format!("gradients of weight at {w} and bias at {b} overlap ({channels} channels)"),
            ));
        }
    }
    if let Some(both) = &call.d_shift_scale {
        if n.shift_scale.is_none() {
            return Err(invalid(
                OP,
                "d_shift_scale for a norm without shift and scale".into(),
            ));
        }
        let expected = [x.layout.batch, 1, 2 * x.layout.channels];
        shaped(
            OP,
            dst("d_shift_scale", both),
            "shift and scale per sample",
            expected,
        )?;
    }
    Ok(())
}

/// Rows of a table by ids: `rows` is (ids, 1, channels), `table` (1, entries, channels).
pub(crate) fn lookup(op: &'static str, table: Operand, ids: &[u32], rows: Operand) -> Result<()> {
    inside(op, table)?;
    shaped(
        op,
        rows,
        "one table row per id",
        [ids.len(), 1, table.layout.channels],
    )?;
    let entries = table.layout.tokens;
    same_shape(
        op,
        table.name,
        table.layout.shape(),
        "a table",
        [1, entries, table.layout.channels],
    )?;
    match ids.iter().position(|&id| id as usize >= entries) {
        Some(at) => Err(invalid(
            op,
            format!(
                "id {} (number {at}) is not in {} of {entries} rows",
                ids[at], table.name
            ),
        )),
        None => Ok(()),
    }
}

/// Image and patches.
pub(crate) fn patches(
    op: &'static str,
    grid: &PatchGrid,
    image_len: usize,
    rows: Operand,
) -> Result<()> {
    let p = grid.patch;
    if p == 0 || !grid.height.is_multiple_of(p) || !grid.width.is_multiple_of(p) {
        return Err(invalid(
            op,
            format!(
                "an image of {} x {} in patches of {p}",
                grid.height, grid.width
            ),
        ));
    }
    if image_len != grid.elements() {
        return Err(invalid(
            op,
            format!(
                "the image has {image_len} values, {grid:?} needs {}",
                grid.elements()
            ),
        ));
    }
    shaped(
        op,
        rows,
        "the patch grid",
        [grid.batch, grid.tokens(), grid.patch_len()],
    )
}

/// A buffer that receives one value.
pub(crate) fn scalar_out(op: &'static str, name: &'static str, len: usize) -> Result<()> {
    if len == 0 {
        Err(invalid(op, format!("{name} is empty")))
    } else {
        Ok(())
    }
}

/// The optimizer's arenas and numbers.
pub(crate) fn adamw<Bf: Buffer>(state: &AdamState<'_, Bf>, step: &AdamW) -> Result<()> {
    const OP: &str = "adamw";
    let n = state.params.len();
    for (name, len) in [
        ("grads", state.grads.len()),
        ("m", state.m.len()),
        ("v", state.v.len()),
        ("ema", state.ema.len()),
    ] {
        same_shape(OP, name, [1, 1, len], "params", [1, 1, n])?;
    }
    scalar_out(OP, "grad_norm", state.grad_norm.len())?;
    if step.step == 0 {
        return Err(invalid(OP, "step is 0, the first is 1".into()));
    }
    let unit = |x: f64| (0.0..1.0).contains(&x);
    if !unit(step.beta1) || !unit(step.beta2) {
        return Err(invalid(
            OP,
            format!("betas are {} and {}", step.beta1, step.beta2),
        ));
    }
    let finite = [
        step.lr,
        step.eps,
        step.weight_decay,
        step.grad_scale,
        step.ema_decay,
    ];
    if !finite.iter().all(|x| x.is_finite()) || step.max_grad_norm.is_some_and(f64::is_nan) {
        return Err(invalid(OP, format!("a number is not finite in {step:?}")));
    }
    Ok(())
}
