//! Entry points for `ndarray` arrays, in (batch, length, channels) order, that need nothing else of
//! this workspace. They run on the current rayon pool at the process's SIMD level, and copy only
//! arrays that are not contiguous, and B and C, which are put side by side.

use crate::cpu;
use crate::ops::{
    Conv, ConvGrads, Direction, Discretization, Scan, ScanGrads, ScanOut, checkpoint_len,
};
use dis_tensor::{Layout, Result, TensorError, Tokens, TokensMut, same_shape, simd};
use ndarray::{Array1, Array2, Array3, ArrayView, ArrayView1, ArrayView2, ArrayView3, Dimension};
use std::borrow::Cow;

/// The optional parts of a selective scan. The default has none of them, runs forwards, and takes
/// the steps as they are.
#[derive(Clone, Debug)]
pub struct ScanOptions<'a> {
    /// Skip D (channels): `D u` is added to the output.
    pub d: Option<ArrayView1<'a, f32>>,
    /// Gate z (batch, length, channels): the output is multiplied by SiLU(z).
    pub z: Option<ArrayView3<'a, f32>>,
    /// Added to the raw steps (channels).
    pub delta_bias: Option<ArrayView1<'a, f32>>,
    /// Whether steps go through softplus.
    pub delta_softplus: bool,
    /// How B is made discrete.
    pub discretization: Discretization,
    /// Which way the sequence is walked.
    pub direction: Direction,
}

impl Default for ScanOptions<'_> {
    fn default() -> Self {
        Self {
            d: None,
            z: None,
            delta_bias: None,
            delta_softplus: false,
            discretization: Discretization::Mamba,
            direction: Direction::Forward,
        }
    }
}

/// Gradients of a selective scan, each in the shape of its array; absent where the array is.
#[derive(Clone, Debug)]
pub struct ScanGradients {
    /// Of the input (batch, length, channels).
    pub u: Array3<f32>,
    /// Of the raw steps (batch, length, channels).
    pub delta: Array3<f32>,
    /// Of A (channels, states).
    pub a: Array2<f32>,
    /// Of B (batch, length, states).
    pub b: Array3<f32>,
    /// Of C (batch, length, states).
    pub c: Array3<f32>,
    /// Of D (channels).
    pub d: Option<Array1<f32>>,
    /// Of the gate (batch, length, channels).
    pub z: Option<Array3<f32>>,
    /// Of the bias of the steps (channels).
    pub delta_bias: Option<Array1<f32>>,
}

/// Gradients of a convolution, each in the shape of its array.
#[derive(Clone, Debug)]
pub struct ConvGradients {
    /// Of the input (batch, length, channels).
    pub x: Array3<f32>,
    /// Of the taps (channels, width).
    pub weight: Array2<f32>,
    /// Of the bias (channels), if there is one.
    pub bias: Option<Array1<f32>>,
}

/// The elements of an array in row-major order, copied only if they do not lie so.
fn dense<'a, D: Dimension>(array: &'a ArrayView<'_, f32, D>) -> Cow<'a, [f32]> {
    match array.as_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(array.iter().copied().collect()),
    }
}

fn shape3(array: &ArrayView3<'_, f32>) -> [usize; 3] {
    let (batch, length, channels) = array.dim();
    [batch, length, channels]
}

fn layout3([batch, length, channels]: [usize; 3]) -> Layout {
    Layout::dense(batch, length, channels)
}

/// A result in the shape of an argument.
fn array3(op: &'static str, [b, l, c]: [usize; 3], data: Vec<f32>) -> Result<Array3<f32>> {
    Array3::from_shape_vec((b, l, c), data).map_err(|error| TensorError::Invalid {
        op,
        what: error.to_string(),
    })
}

fn array2(op: &'static str, shape: (usize, usize), data: Vec<f32>) -> Result<Array2<f32>> {
    Array2::from_shape_vec(shape, data).map_err(|error| TensorError::Invalid {
        op,
        what: error.to_string(),
    })
}

/// The arrays of a scan as slices.
struct Slices<'a> {
    shape: [usize; 3],
    states: usize,
    u: Cow<'a, [f32]>,
    delta: Cow<'a, [f32]>,
    a: Cow<'a, [f32]>,
    bc: Vec<f32>,
    d: Option<Cow<'a, [f32]>>,
    z: Option<Cow<'a, [f32]>>,
    delta_bias: Option<Cow<'a, [f32]>>,
}

impl<'a> Slices<'a> {
    fn new(
        op: &'static str,
        u: &'a ArrayView3<'_, f32>,
        delta: &'a ArrayView3<'_, f32>,
        a: &'a ArrayView2<'_, f32>,
        b: &ArrayView3<'_, f32>,
        c: &ArrayView3<'_, f32>,
        options: &'a ScanOptions<'_>,
    ) -> Result<Self> {
        let shape = shape3(u);
        let [batch, length, channels] = shape;
        let states = a.ncols();
        let (full, vector) = ("u (batch, length, channels)", "(1, 1, channels)");
        same_shape(op, "delta", shape3(delta), full, shape)?;
        same_shape(
            op,
            "A",
            [1, a.nrows(), states],
            "(1, channels, states)",
            [1, channels, states],
        )?;
        let inputs = [batch, length, states];
        same_shape(op, "B", shape3(b), "(batch, length, states)", inputs)?;
        same_shape(op, "C", shape3(c), "(batch, length, states)", inputs)?;
        for (name, value) in [("D", &options.d), ("delta_bias", &options.delta_bias)] {
            if let Some(value) = value {
                same_shape(op, name, [1, 1, value.len()], vector, [1, 1, channels])?;
            }
        }
        if let Some(z) = &options.z {
            same_shape(op, "z", shape3(z), full, shape)?;
        }
        let mut bc = Vec::with_capacity(batch * length * 2 * states);
        for (b, c) in b.rows().into_iter().zip(c.rows()) {
            bc.extend(b.iter().chain(c.iter()));
        }
        Ok(Self {
            shape,
            states,
            u: dense(u),
            delta: dense(delta),
            a: dense(a),
            bc,
            d: options.d.as_ref().map(dense),
            z: options.z.as_ref().map(dense),
            delta_bias: options.delta_bias.as_ref().map(dense),
        })
    }

    fn scan<'s>(&'s self, options: &ScanOptions<'_>) -> Scan<'s, [f32]> {
        let [batch, length, channels] = self.shape;
        let full = layout3(self.shape);
        let vector = Layout::vector(channels);
        Scan {
            u: Tokens::new(&*self.u, full),
            delta: Tokens::new(&*self.delta, full),
            a: Tokens::new(&*self.a, Layout::matrix(channels, self.states)),
            bc: Tokens::new(&*self.bc, Layout::dense(batch, length, 2 * self.states)),
            d: self.d.as_ref().map(|d| Tokens::new(&**d, vector)),
            z: self.z.as_ref().map(|z| Tokens::new(&**z, full)),
            delta_bias: self
                .delta_bias
                .as_ref()
                .map(|bias| Tokens::new(&**bias, vector)),
            delta_softplus: options.delta_softplus,
            discretization: options.discretization,
            direction: options.direction,
        }
    }

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The selective scan of Mamba (Gu and Dao, arXiv 2312.00752, algorithm 2), see [`Scan`]: `u` and
/// the raw steps `delta` (batch, length, channels), `a` (channels, states), `b` and `c` (batch,
/// length, states). Returns y (batch, length, channels).
///
/// # Errors
/// If shapes do not fit together; the message names the array and both shapes.
pub fn selective_scan(
    u: ArrayView3<'_, f32>,
    delta: ArrayView3<'_, f32>,
    a: ArrayView2<'_, f32>,
    b: ArrayView3<'_, f32>,
    c: ArrayView3<'_, f32>,
    options: &ScanOptions<'_>,
) -> Result<Array3<f32>> {
    const OP: &str = "selective_scan";
    let slices = Slices::new(OP, &u, &delta, &a, &b, &c, options)?;
    let mut y = vec![0.0; slices.elements()];
    let out = ScanOut {
        y: TokensMut::new(&mut y[..], layout3(slices.shape)),
        accumulate: false,
        checkpoints: None,
        last_state: None,
    };
    cpu::scan(simd::level(), slices.scan(options), out)?;
    array3(OP, slices.shape, y)
}

/// Gradients of `sum(dout * selective_scan(...))` by every array; `dout` has the shape of `u`.
///
/// # Errors
/// If shapes do not fit together; the message names the array and both shapes.
pub fn selective_scan_grad(
    u: ArrayView3<'_, f32>,
    delta: ArrayView3<'_, f32>,
    a: ArrayView2<'_, f32>,
    b: ArrayView3<'_, f32>,
    c: ArrayView3<'_, f32>,
    options: &ScanOptions<'_>,
    dout: ArrayView3<'_, f32>,
) -> Result<ScanGradients> {
    const OP: &str = "selective_scan_grad";
    let slices = Slices::new(OP, &u, &delta, &a, &b, &c, options)?;
    let (shape, states) = (slices.shape, slices.states);
    let [batch, length, channels] = shape;
    same_shape(
        OP,
        "dout",
        shape3(&dout),
        "u (batch, length, channels)",
        shape,
    )?;
    let dout = dense(&dout);
    let (scan, full) = (slices.scan(options), layout3(shape));
    let mut checkpoints = vec![0.0; checkpoint_len(batch, length, channels, states)];
    let mut y = vec![0.0; slices.elements()];
    let out = ScanOut {
        y: TokensMut::new(&mut y[..], full),
        accumulate: false,
        checkpoints: Some(&mut checkpoints),
        last_state: None,
    };
    cpu::scan(simd::level(), scan, out)?;

    let [mut du, mut ddelta] = [vec![0.0; slices.elements()], vec![0.0; slices.elements()]];
    let mut dbc = vec![0.0; batch * length * 2 * states];
    let mut da = vec![0.0; channels * states];
    // D first, then delta_bias.
    let mut arena = vec![0.0; 2 * channels];
    let grads = ScanGrads {
        du: TokensMut::new(&mut du[..], full),
        ddelta: TokensMut::new(&mut ddelta[..], full),
        dbc: TokensMut::new(&mut dbc[..], Layout::dense(batch, length, 2 * states)),
        // The output is not needed any more: its memory takes dz.
        dz: Some(TokensMut::new(&mut y[..], full)),
        accumulate_dz: false,
        da: TokensMut::new(&mut da[..], Layout::matrix(channels, states)),
        arena: &mut arena[..],
        d: Some(0),
        delta_bias: Some(channels),
    };
    cpu::scan_backward(
        simd::level(),
        scan,
        &checkpoints,
        Tokens::new(&*dout, full),
        grads,
    )?;

    let half = |skip: usize| -> Vec<f32> {
        let rows = dbc.chunks_exact((2 * states).max(1));
        rows.flat_map(|row| &row[skip..skip + states])
            .copied()
            .collect()
    };
    let inputs = [batch, length, states];
    Ok(ScanGradients {
        u: array3(OP, shape, du)?,
        delta: array3(OP, shape, ddelta)?,
        a: array2(OP, (channels, states), da)?,
        b: array3(OP, inputs, half(0))?,
        c: array3(OP, inputs, half(states))?,
        d: options
            .d
            .as_ref()
            .map(|_| Array1::from(arena[..channels].to_vec())),
        z: options
            .z
            .as_ref()
            .map(|_| array3(OP, shape, y))
            .transpose()?,
        delta_bias: options
            .delta_bias
            .as_ref()
            .map(|_| Array1::from(arena[channels..].to_vec())),
    })
}

/// The arrays of a convolution as slices.
struct ConvSlices<'a> {
    shape: [usize; 3],
    x: Cow<'a, [f32]>,
    weight: Cow<'a, [f32]>,
    width: usize,
    bias: Option<Cow<'a, [f32]>>,
}

impl<'a> ConvSlices<'a> {
    fn new(
        op: &'static str,
        x: &'a ArrayView3<'_, f32>,
        weight: &'a ArrayView2<'_, f32>,
        bias: Option<&'a ArrayView1<'_, f32>>,
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

    fn conv(&self, silu: bool, direction: Direction) -> Conv<'_, [f32]> {
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
pub fn causal_conv1d(
    x: ArrayView3<'_, f32>,
    weight: ArrayView2<'_, f32>,
    bias: Option<ArrayView1<'_, f32>>,
    silu: bool,
    direction: Direction,
) -> Result<Array3<f32>> {
    const OP: &str = "causal_conv1d";
    let slices = ConvSlices::new(OP, &x, &weight, bias.as_ref())?;
    let mut out = vec![0.0; slices.x.len()];
    let to = TokensMut::new(&mut out[..], layout3(slices.shape));
    cpu::conv1d(simd::level(), slices.conv(silu, direction), to)?;
    array3(OP, slices.shape, out)
}

/// Gradients of `sum(dout * causal_conv1d(...))` by every array; `dout` has the shape of `x`.
///
/// # Errors
/// If shapes do not fit together, or the width is not supported.
pub fn causal_conv1d_grad(
    x: ArrayView3<'_, f32>,
    weight: ArrayView2<'_, f32>,
    bias: Option<ArrayView1<'_, f32>>,
    silu: bool,
    direction: Direction,
    dout: ArrayView3<'_, f32>,
) -> Result<ConvGradients> {
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
    let mut dx = vec![0.0; slices.x.len()];
    let mut arena = vec![0.0; channels * (width + 1)];
    let grads = ConvGrads {
        arena: &mut arena[..],
        weight: 0,
        bias: Some(channels * width),
    };
    let full = layout3(shape);
    let to = TokensMut::new(&mut dx[..], full);
    let conv = slices.conv(silu, direction);
    cpu::conv1d_backward(
        simd::level(),
        conv,
        Tokens::new(&*dout, full),
        false,
        to,
        grads,
    )?;
    let dbias = arena.split_off(channels * width);
    Ok(ConvGradients {
        x: array3(OP, shape, dx)?,
        weight: array2(OP, (channels, width), arena)?,
        bias: bias.map(|_| Array1::from(dbias)),
    })
}
