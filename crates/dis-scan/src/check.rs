//! Checks of arguments, shared by the fast code and the oracle: every view lies in its buffer, and
//! all shapes fit together.

use crate::ops::{Conv, ConvGrads, Scan, ScanGrads, ScanOut, checkpoint_len};
use dis_tensor::{Layout, Result, TensorError, Tokens, same_shape};

/// Memory of a known length.
pub(crate) trait Extent {
    /// Elements.
    fn extent(&self) -> usize;
}

impl<E> Extent for [E] {
    fn extent(&self) -> usize {
        self.len()
    }
}

#[cfg(feature = "gpu")]
impl<D: dis_kernels::Driver> Extent for dis_tensor::cuda::DeviceBuf<D, f32> {
    fn extent(&self) -> usize {
        dis_tensor::Buffer::len(self)
    }
}

fn view<Bf: Extent + ?Sized>(op: &'static str, tokens: &Tokens<'_, Bf>) -> Result<()> {
    tokens.layout.check(op, tokens.buf.extent())
}

fn invalid<T>(op: &'static str, what: String) -> Result<T> {
    Err(TensorError::Invalid { op, what })
}

/// Checks an optional view against a shape.
fn optional<Bf: Extent + ?Sized>(
    op: &'static str,
    name: &'static str,
    tokens: &Option<Tokens<'_, Bf>>,
    expected: &'static str,
    shape: [usize; 3],
) -> Result<()> {
    if let Some(tokens) = tokens {
        view(op, tokens)?;
        same_shape(op, name, tokens.shape(), expected, shape)?;
    }
    Ok(())
}

/// Checks that a vector of parameter gradients is there if it is needed, and inside the arena.
fn in_arena(
    op: &'static str,
    name: &'static str,
    offset: Option<usize>,
    needed: bool,
    len: usize,
    arena: usize,
) -> Result<()> {
    match offset {
        Some(offset) if needed => Layout::vector(len).at(offset).check(op, arena),
        None if needed => invalid(
            op,
            format!("the gradient of {name} needs an offset in the arena"),
        ),
        _ => Ok(()),
    }
}

/// Shape of a convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvShape {
    pub batch: usize,
    pub tokens: usize,
    pub channels: usize,
    pub width: usize,
}

/// Checks a convolution's inputs.
pub(crate) fn conv<Bf: Extent + ?Sized>(
    op: &'static str,
    conv: &Conv<'_, Bf>,
) -> Result<ConvShape> {
    view(op, &conv.x)?;
    view(op, &conv.weight)?;
    let [batch, tokens, channels] = conv.x.shape();
    let width = conv.weight.layout.channels;
    same_shape(
        op,
        "weight",
        conv.weight.shape(),
        "(1, channels, width)",
        [1, channels, width],
    )?;
    if !(2..=4).contains(&width) {
        return invalid(
            op,
            format!("weight has width {width}, supported are 2 to 4"),
        );
    }
    optional(op, "bias", &conv.bias, "(1, 1, channels)", [1, 1, channels])?;
    Ok(ConvShape {
        batch,
        tokens,
        channels,
        width,
    })
}

/// Checks an output or gradient of x's shape.
pub(crate) fn like(
    op: &'static str,
    name: &'static str,
    layout: &Layout,
    len: usize,
    expected: &'static str,
    shape: [usize; 3],
) -> Result<()> {
    layout.check(op, len)?;
    same_shape(op, name, layout.shape(), expected, shape)
}

/// Checks where the convolution's parameter gradients go.
pub(crate) fn conv_grads<Bf: Extent + ?Sized>(
    op: &'static str,
    shape: &ConvShape,
    bias: bool,
    grads: &ConvGrads<'_, Bf>,
) -> Result<()> {
    let arena = grads.arena.extent();
    Layout::vector(shape.channels * shape.width)
        .at(grads.weight)
        .check(op, arena)?;
    in_arena(op, "bias", grads.bias, bias, shape.channels, arena)
}

/// Shape of a scan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScanShape {
    pub batch: usize,
    pub tokens: usize,
    pub channels: usize,
    pub states: usize,
}

impl ScanShape {
    pub(crate) fn tokens3(&self) -> [usize; 3] {
        [self.batch, self.tokens, self.channels]
    }
}

const TOKENS: &str = "u";
const STATES: &str = "(batch, channels, states)";

/// Checks a scan's inputs.
pub(crate) fn scan<Bf: Extent + ?Sized>(
    op: &'static str,
    scan: &Scan<'_, Bf>,
) -> Result<ScanShape> {
    view(op, &scan.u)?;
    view(op, &scan.delta)?;
    view(op, &scan.a)?;
    view(op, &scan.bc)?;
    let [batch, tokens, channels] = scan.u.shape();
    let states = scan.a.layout.channels;
    if states == 0 {
        return invalid(op, "A has no states".into());
    }
    same_shape(op, "delta", scan.delta.shape(), TOKENS, scan.u.shape())?;
    same_shape(
        op,
        "A",
        scan.a.shape(),
        "(1, channels, states)",
        [1, channels, states],
    )?;
    let expected = "(batch, tokens, 2 * states)";
    same_shape(
        op,
        "B and C",
        scan.bc.shape(),
        expected,
        [batch, tokens, 2 * states],
    )?;
    optional(op, "D", &scan.d, "(1, 1, channels)", [1, 1, channels])?;
    optional(op, "z", &scan.z, TOKENS, scan.u.shape())?;
    optional(
        op,
        "delta_bias",
        &scan.delta_bias,
        "(1, 1, channels)",
        [1, 1, channels],
    )?;
    optional(
        op,
        "initial_state",
        &scan.initial_state,
        STATES,
        [batch, channels, states],
    )?;
    Ok(ScanShape {
        batch,
        tokens,
        channels,
        states,
    })
}

/// Checks that a checkpoint buffer is long enough.
pub(crate) fn checkpoints(op: &'static str, shape: &ScanShape, len: usize) -> Result<()> {
    let needed = checkpoint_len(shape.batch, shape.tokens, shape.channels, shape.states);
    if len < needed {
        let layout = Layout::vector(needed);
        return Err(TensorError::OutOfBounds {
            op,
            layout,
            needed,
            len,
        });
    }
    Ok(())
}

/// Checks a scan's outputs.
pub(crate) fn scan_out<Bf: Extent + ?Sized>(
    op: &'static str,
    shape: &ScanShape,
    out: &ScanOut<'_, Bf>,
) -> Result<()> {
    like(
        op,
        "y",
        &out.y.layout,
        out.y.buf.extent(),
        TOKENS,
        shape.tokens3(),
    )?;
    if let Some(buf) = &out.checkpoints {
        checkpoints(op, shape, buf.extent())?;
    }
    if let Some(last) = &out.last_state {
        let expected = [shape.batch, shape.channels, shape.states];
        like(
            op,
            "last_state",
            &last.layout,
            last.buf.extent(),
            STATES,
            expected,
        )?;
    }
    Ok(())
}

/// Checks where a scan's gradients go.
pub(crate) fn scan_grads<Bf: Extent + ?Sized>(
    op: &'static str,
    scan: &Scan<'_, Bf>,
    shape: &ScanShape,
    dout: &Tokens<'_, Bf>,
    grads: &ScanGrads<'_, Bf>,
) -> Result<()> {
    let ScanShape {
        batch,
        tokens,
        channels,
        states,
    } = *shape;
    let full = shape.tokens3();
    like(op, "dout", &dout.layout, dout.buf.extent(), TOKENS, full)?;
    like(
        op,
        "du",
        &grads.du.layout,
        grads.du.buf.extent(),
        TOKENS,
        full,
    )?;
    like(
        op,
        "ddelta",
        &grads.ddelta.layout,
        grads.ddelta.buf.extent(),
        TOKENS,
        full,
    )?;
    let expected = "(batch, tokens, 2 * states)";
    let bc = [batch, tokens, 2 * states];
    like(
        op,
        "dB and dC",
        &grads.dbc.layout,
        grads.dbc.buf.extent(),
        expected,
        bc,
    )?;
    let a = [1, channels, states];
    like(
        op,
        "dA",
        &grads.da.layout,
        grads.da.buf.extent(),
        "(1, channels, states)",
        a,
    )?;
    match &grads.dz {
        Some(dz) if scan.z.is_some() => {
            like(op, "dz", &dz.layout, dz.buf.extent(), TOKENS, full)?;
        }
        None if scan.z.is_some() => return invalid(op, "a gated scan needs dz".into()),
        _ => {}
    }
    let ends = [batch, channels, states];
    optional(op, "dlast_state", &grads.dlast_state, STATES, ends)?;
    if let Some(to) = &grads.dinitial_state {
        let len = to.buf.extent();
        like(op, "dinitial_state", &to.layout, len, STATES, ends)?;
    }
    let arena = grads.arena.extent();
    in_arena(op, "D", grads.d, scan.d.is_some(), channels, arena)?;
    in_arena(
        op,
        "delta_bias",
        grads.delta_bias,
        scan.delta_bias.is_some(),
        channels,
        arena,
    )
}
