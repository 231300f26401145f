//! The causal convolution, its gradients, and its step by step form.

use super::{ScanElement, array, dense, layout3, shape3};
use crate::ops::{Conv, ConvGrads, Direction};
use dis_tensor::{Layout, Result, Tokens, TokensMut, same_shape};
use ndarray::{
    Array1, Array2, Array3, ArrayView1, ArrayView2, ArrayView3, ArrayViewMut3, Axis, concatenate, s,
};
use std::borrow::Cow;

/// Gradients of a convolution, each in the shape of its array.
#[derive(Clone, Debug)]
pub struct ConvGradients<T = f32> {
    /// Of the input (batch, length, channels).
    pub x: Array3<T>,
    /// Of the taps (channels, width).
    pub weight: Array2<T>,
    /// Of the bias (channels), if there is one.
    pub bias: Option<Array1<T>>,
}

/// The arrays of a convolution as slices.
struct ConvSlices<'a, T: Copy> {
    shape: [usize; 3],
    x: Cow<'a, [T]>,
    weight: Cow<'a, [T]>,
    width: usize,
    bias: Option<Cow<'a, [T]>>,
}

impl<'a, T: ScanElement> ConvSlices<'a, T> {
    fn new(
        op: &'static str,
        x: &'a ArrayView3<'_, T>,
        weight: &'a ArrayView2<'_, T>,
        bias: Option<&'a ArrayView1<'_, T>>,
    ) -> Result<Self> {
        let shape = shape3(x);
        let (channels, width) = (shape[2], weight.ncols());
        let expected = [1, channels, width];
        same_shape(
            op,
            "weight",
            [1, weight.nrows(), width],
            "(1, channels, width)",
            expected,
        )?;
        if let Some(bias) = bias {
            same_shape(
                op,
                "bias",
                [1, 1, bias.len()],
                "(1, 1, channels)",
                [1, 1, channels],
            )?;
        }
        Ok(Self {
            shape,
            x: dense(x),
            weight: dense(weight),
            width,
            bias: bias.map(dense),
        })
    }

    fn conv(&self, silu: bool, direction: Direction) -> Conv<'_, [T]> {
        let channels = self.shape[2];
        Conv {
            x: Tokens::new(&*self.x, layout3(self.shape)),
            weight: Tokens::new(&*self.weight, Layout::matrix(channels, self.width)),
            bias: self
                .bias
                .as_ref()
                .map(|bias| Tokens::new(&**bias, Layout::vector(channels))),
            silu,
            direction,
        }
    }
}

/// Causal depthwise convolution of `x` (batch, length, channels) with `weight` (channels, width),
/// width 2 to 4, the last tap on the current position; then SiLU if asked. In the reverse direction
/// "causal" means that later positions are seen.
///
/// # Errors
/// If shapes do not fit together, or the width is not supported.
pub fn causal_conv1d<T: ScanElement>(
    x: ArrayView3<'_, T>,
    weight: ArrayView2<'_, T>,
    bias: Option<ArrayView1<'_, T>>,
    silu: bool,
    direction: Direction,
) -> Result<Array3<T>> {
    const OP: &str = "causal_conv1d";
    let slices = ConvSlices::new(OP, &x, &weight, bias.as_ref())?;
    let mut out = vec![T::default(); slices.x.len()];
    let to = TokensMut::new(&mut out[..], layout3(slices.shape));
    T::conv1d(slices.conv(silu, direction), to)?;
    array(OP, slices.shape, out)
}

/// The same from the inputs that went before: `state` (batch, width, channels) holds the last `width` of
/// them, newest last (zeros before the first token), and is advanced by the tokens of `x`, usually one. A
/// sequence in pieces has the outputs of the whole, bit for bit.
///
/// # Errors
/// As [`causal_conv1d`]; if the state has another shape. The state then is what it was.
pub fn causal_conv1d_update<T: ScanElement>(
    mut state: ArrayViewMut3<'_, T>,
    x: ArrayView3<'_, T>,
    weight: ArrayView2<'_, T>,
    bias: Option<ArrayView1<'_, T>>,
    silu: bool,
    direction: Direction,
) -> Result<Array3<T>> {
    const OP: &str = "causal_conv1d_update";
    let [batch, length, channels] = shape3(&x);
    let width = weight.ncols();
    let expected = [batch, width, channels];
    let name = "(batch, width, channels)";
    same_shape(OP, "state", shape3(&state.view()), name, expected)?;
    // In the order of the walk, so that the state stands in front.
    let walked = |mut x: Array3<T>| {
        if direction == Direction::Reverse {
            x.invert_axis(Axis(1));
        }
        x
    };
    let x = walked(x.to_owned());
    let all = concatenate(Axis(1), &[state.view(), x.view()]).map_err(|error| {
        dis_tensor::TensorError::Invalid {
            op: OP,
            what: error.to_string(),
        }
    })?;
    let out = causal_conv1d(all.view(), weight, bias, silu, Direction::Forward)?;
    state.assign(&all.slice(s![.., length.., ..]));
    let out = walked(out.slice(s![.., width.., ..]).to_owned());
    Ok(out.as_standard_layout().into_owned())
}

/// Gradients of `sum(dout * causal_conv1d(...))` by every array; `dout` has the shape of `x`.
///
/// # Errors
/// If shapes do not fit together, or the width is not supported.
pub fn causal_conv1d_grad<T: ScanElement>(
    x: ArrayView3<'_, T>,
    weight: ArrayView2<'_, T>,
    bias: Option<ArrayView1<'_, T>>,
    silu: bool,
    direction: Direction,
    dout: ArrayView3<'_, T>,
) -> Result<ConvGradients<T>> {
    const OP: &str = "causal_conv1d_grad";
    let slices = ConvSlices::new(OP, &x, &weight, bias.as_ref())?;
    let (shape, channels, width) = (slices.shape, slices.shape[2], slices.width);
    same_shape(
        OP,
        "dout",
        shape3(&dout),
        "x (batch, length, channels)",
        shape,
    )?;
    let dout = dense(&dout);
    let mut dx = vec![T::default(); slices.x.len()];
    let mut arena = vec![T::default(); channels * (width + 1)];
    let grads = ConvGrads {
        arena: &mut arena[..],
        weight: 0,
        bias: Some(channels * width),
    };
    let full = layout3(shape);
    let to = TokensMut::new(&mut dx[..], full);
    let conv = slices.conv(silu, direction);
    T::conv1d_backward(conv, Tokens::new(&*dout, full), to, grads)?;
    let dbias = arena.split_off(channels * width);
    Ok(ConvGradients {
        x: array(OP, shape, dx)?,
        weight: array(OP, [channels, width], arena)?,
        bias: bias.map(|_| Array1::from(dbias)),
    })
}
