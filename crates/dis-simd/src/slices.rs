//! The elementary functions over slices, at a given [`Level`].

use super::math;
use super::{Kernel, LANES, Level, Simd, Vector, dispatch};

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// e^x.
    Exp,
    /// -e^x: A from A_log.
    NegExp,
    /// log(1 + e^x), the identity above 20.
    Softplus,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// x / (1 + e^-x).
    Silu,
    /// Derivative of SiLU.
    SiluDerivative,
    /// 2^x as the scan computes it, see [`math::exp2`].
    Exp2,
}

struct Map<'a>(Function, &'a [f32], &'a mut [f32]);

/// Applies an expression to whole vectors, then to the rest. A macro, since closures would not be
/// compiled for the level.
macro_rules! each {
    ($simd:ident, $x:expr, $out:expr, |$v:ident| $value:expr) => {{
        let (xs, x_rest) = $x.as_chunks::<LANES>();
        let (outs, out_rest) = $out.as_chunks_mut::<LANES>();
        for (x, out) in xs.iter().zip(outs) {
            let $v = $simd.load(x);
            $value.store(out);
        }
        if !x_rest.is_empty() {
            let $v = $simd.load_partial(x_rest);
            $value.store_partial(out_rest);
        }
    }};
}

impl Kernel for Map<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(function, x, out) = self;
        match function {
            Function::Exp => each!(simd, x, out, |v| math::exp(v)),
            Function::NegExp => each!(simd, x, out, |v| (-math::exp(v))),
            Function::Softplus => each!(simd, x, out, |v| math::softplus(v)),
            Function::Sigmoid => each!(simd, x, out, |v| math::sigmoid(v)),
            Function::Silu => each!(simd, x, out, |v| math::silu(v)),
            Function::SiluDerivative => each!(simd, x, out, |v| math::silu_and_derivative(v).1),
            Function::Exp2 => each!(simd, x, out, |v| math::exp2(v)),
        }
    }
}

/// `out = function(x)`, elementwise, over the shorter of the two slices.
pub fn map(level: Level, function: Function, x: &[f32], out: &mut [f32]) {
    let len = x.len().min(out.len());
    dispatch(level, Map(function, &x[..len], &mut out[..len]));
}

struct SiluBackward<'a>(&'a [f32], &'a [f32], &'a mut [f32]);

impl Kernel for SiluBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(x, dout, dx) = self;
        for ((x, dout), dx) in x
            .chunks(LANES)
            .zip(dout.chunks(LANES))
            .zip(dx.chunks_mut(LANES))
        {
            let derivative = math::silu_and_derivative(simd.load_partial(x)).1;
            (derivative * simd.load_partial(dout)).store_partial(dx);
        }
    }
}

/// `dx = dout * silu'(x)`, elementwise, over the shortest of the three slices.
pub fn silu_backward(level: Level, x: &[f32], dout: &[f32], dx: &mut [f32]) {
    let len = x.len().min(dout.len()).min(dx.len());
    dispatch(level, SiluBackward(&x[..len], &dout[..len], &mut dx[..len]));
}
