//! Sums and row-wise arithmetic as plain loops, to be inlined into a
//! [`Kernel`](crate::simd::Kernel), where the compiler vectorises them for the level. Sums have a
//! fixed number of lanes and nothing is fused, so every level gives the same bits.

use crate::operands::Accum;

/// Partial sums of a row.
const LANES: usize = 16;

/// Adds up lanes pairwise.
#[inline(always)]
fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Sum of an expression over slices of one length. A macro, since a closure might not be inlined.
macro_rules! sum {
    (|$($x:ident),+| $value:expr) => {{
        let mut lanes = [0.0f32; LANES];
        let length = [$($x.len()),+][0];
        let whole = length / LANES * LANES;
        let mut start = 0;
        while start < whole {
            $(let $x = &$x[start..start + LANES];)+
            for i in 0..LANES {
                $(let $x = $x[i];)+
                lanes[i] += $value;
            }
            start += LANES;
        }
        for i in whole..length {
            $(let $x = $x[i];)+
            lanes[i - whole] += $value;
        }
        fold(lanes)
    }};
}

/// `sum of x`.
#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    sum!(|x| x)
}

/// `sum of (x - mean)^2`.
#[inline(always)]
pub(super) fn sum_squares(x: &[f32], mean: f32) -> f32 {
    sum!(|x| (x - mean) * (x - mean))
}

/// `sum of x y`.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let y = &y[..x.len()];
    sum!(|x, y| x * y)
}

/// Sum of squares in float64.
#[inline(always)]
pub(super) fn sum_squares_f64(x: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += f64::from(chunk[i]) * f64::from(chunk[i]);
        }
    }
    for i in 0..rest.len() {
        lanes[i] += f64::from(rest[i]) * f64::from(rest[i]);
    }
    lanes.iter().sum()
}

/// `out = x + factor * y`.
#[inline(always)]
pub(super) fn add_scaled(x: &[f32], factor: f32, y: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (x, y) = (&x[..n], &y[..n]);
    for i in 0..n {
        out[i] = x[i] + factor * y[i];
    }
}

/// `out = factor * x`.
#[inline(always)]
pub(super) fn scaled(factor: f32, x: &[f32], out: &mut [f32]) {
    let x = &x[..out.len()];
    for i in 0..out.len() {
        out[i] = factor * x[i];
    }
}

/// `x = (x - mean) * inverse * weight`.
#[inline(always)]
pub(super) fn normalise(x: &mut [f32], mean: f32, inverse: f32, weight: Option<&[f32]>) {
    match weight {
        Some(weight) => {
            let weight = &weight[..x.len()];
            for i in 0..x.len() {
                x[i] = (x[i] - mean) * inverse * weight[i];
            }
        }
        None => {
            for i in 0..x.len() {
                x[i] = (x[i] - mean) * inverse;
            }
        }
    }
}

/// `out = (x - mean) * inverse`.
#[inline(always)]
pub(super) fn normalised(x: &[f32], mean: f32, inverse: f32, out: &mut [f32]) {
    let x = &x[..out.len()];
    for i in 0..out.len() {
        out[i] = (x[i] - mean) * inverse;
    }
}

/// `out += x`.
#[inline(always)]
pub(super) fn add(x: &[f32], out: &mut [f32]) {
    let x = &x[..out.len()];
    for i in 0..out.len() {
        out[i] += x[i];
    }
}

/// `out += x * y`.
#[inline(always)]
pub(super) fn add_product(x: &[f32], y: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (x, y) = (&x[..n], &y[..n]);
    for i in 0..n {
        out[i] += x[i] * y[i];
    }
}

/// `out *= x`.
#[inline(always)]
pub(super) fn multiply(x: &[f32], out: &mut [f32]) {
    let x = &x[..out.len()];
    for i in 0..out.len() {
        out[i] *= x[i];
    }
}

/// `x = x * (1 + scale) + shift`.
#[inline(always)]
pub(super) fn modulate(shift: &[f32], scale: &[f32], x: &mut [f32]) {
    let n = x.len();
    let (shift, scale) = (&shift[..n], &scale[..n]);
    for i in 0..n {
        x[i] = x[i] * (1.0 + scale[i]) + shift[i];
    }
}

/// `out = x * (1 + scale)`.
#[inline(always)]
pub(super) fn times_one_plus(x: &[f32], scale: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (x, scale) = (&x[..n], &scale[..n]);
    for i in 0..n {
        out[i] = x[i] * (1.0 + scale[i]);
    }
}

/// `dx = inverse * (g - mean_g - xhat * mean_gx)`, or added to it.
#[inline(always)]
pub(super) fn norm_gradient(
    g: &[f32],
    xhat: &[f32],
    [inverse, mean_g, mean_gx]: [f32; 3],
    accum: Accum,
    dx: &mut [f32],
) {
    let n = dx.len();
    let (g, xhat) = (&g[..n], &xhat[..n]);
    if accum.adds() {
        for i in 0..n {
            dx[i] += inverse * (g[i] - mean_g - xhat[i] * mean_gx);
        }
    } else {
        for i in 0..n {
            dx[i] = inverse * (g[i] - mean_g - xhat[i] * mean_gx);
        }
    }
}
