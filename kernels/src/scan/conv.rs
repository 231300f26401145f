//! Launch contracts of `conv1d.ptx`.

use super::optional;
use crate::contract;
use crate::contract::{Geometry, Ptr, PtrMut, Ready};
use crate::error::{KernelError, Result};
use crate::mat::{Mat, MatMut, grid_limit, shape};

const REVERSE: u32 = 1;
const SILU: u32 = 2;
/// Tokens that a thread walks.
const TILE: usize = 32;

/// Tiles of the backward: partial sums of dweight are (batch * tiles, channels, width), those of
/// dbias (batch * tiles, channels).
pub const fn conv_tiles(tokens: usize) -> usize {
    tokens.div_ceil(TILE)
}

/// One direction of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvWalk {
    /// Taps, (1, channels, width), width 2 to 4; the last multiplies the current token.
    pub weight: Mat,
    /// (1, 1, channels).
    pub bias: Option<Mat>,
    /// Whether SiLU follows.
    pub silu: bool,
    /// Whether the tokens are walked from the last.
    pub reverse: bool,
}

impl ConvWalk {
    fn flags(&self) -> u32 {
        u32::from(self.reverse) * REVERSE + u32::from(self.silu) * SILU
    }

    fn check(&self, kernel: &'static str, channels: usize) -> Result<()> {
        let width = self.weight.channels;
        if !(2..=4).contains(&width) {
            let what = format!("weight has width {width}, supported are 2 to 4");
            return Err(shape(kernel, what));
        }
        self.weight
            .check_shape(kernel, "weight", [1, channels, width])?;
        match self.bias {
            Some(bias) => bias.check_shape(kernel, "bias", [1, 1, channels]),
            None => Ok(()),
        }
    }
}

contract! {
    /// The convolution of one direction or two of the same input; see [`ConvForward::new`].
    pub struct ConvForward: CONV1D, "dis_conv1d_forward" {
        x: Ptr<f32>, x_row: u32, x_batch: u32,
        tokens: u32, channels: u32, tile: u32, directions: u32,
        d0_weight: Ptr<f32>, d0_weight_row: u32, d0_bias: Ptr<f32>,
        d0_out: PtrMut<f32>, d0_out_row: u32, d0_out_batch: u32,
        d0_width: u32, d0_flags: u32,
        d1_weight: Ptr<f32>, d1_weight_row: u32, d1_bias: Ptr<f32>,
        d1_out: PtrMut<f32>, d1_out_row: u32, d1_out_batch: u32,
        d1_width: u32, d1_flags: u32,
    }
}

contract! {
    /// The convolution of both directions of the same input; see [`ConvBoth::new`].
    pub struct ConvBoth: CONV1D, "dis_conv1d_both" {
        x: Ptr<f32>, x_row: u32, x_batch: u32,
        tokens: u32, channels: u32, tile: u32, width: u32,
        f_weight: Ptr<f32>, f_weight_row: u32, f_bias: Ptr<f32>,
        f_out: PtrMut<f32>, f_out_row: u32, f_out_batch: u32,
        f_silu: u32,
        r_weight: Ptr<f32>, r_weight_row: u32, r_bias: Ptr<f32>,
        r_out: PtrMut<f32>, r_out_row: u32, r_out_batch: u32,
        r_silu: u32,
    }
}

contract! {
    /// Backward of one direction; see [`ConvBackward::new`].
    pub struct ConvBackward: CONV1D, "dis_conv1d_backward" {
        x: Ptr<f32>, x_row: u32, x_batch: u32,
        dout: Ptr<f32>, dout_row: u32, dout_batch: u32,
        dx: PtrMut<f32>, dx_row: u32, dx_batch: u32,
        weight: Ptr<f32>, weight_row: u32, bias: Ptr<f32>,
        dweight_part: PtrMut<f32>, dbias_part: PtrMut<f32>,
        width: u32, flags: u32, accumulate: u32,
        tokens: u32, channels: u32, tile: u32,
    }
}

fn geometry(kernel: &'static str, of: [usize; 3], directions: usize) -> Result<Geometry> {
    let [batch, tokens, channels] = of;
    let grid = [
        channels.div_ceil(128) as u32,
        grid_limit(kernel, "the number of tiles", conv_tiles(tokens))?,
        grid_limit(kernel, "the number of samples", batch * directions)?,
    ];
    Ok(Geometry::new(grid, [128, 1, 1]))
}

impl ConvForward {
    /// Checks the operands: one direction or two, each with its output of the shape of `x`.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(x: Mat, directions: &[(ConvWalk, MatMut)]) -> Result<Ready<Self>> {
        const NAME: &str = "dis_conv1d_forward";
        x.check(NAME, "x")?;
        for (walk, out) in directions {
            walk.check(NAME, x.channels)?;
            out.check_shape(NAME, "out", x.shape())?;
        }
        let ((w0, out0), (w1, out1)) = match directions {
            [one] => (one, one),
            [one, two] => (one, two),
            _ => return Err(shape(NAME, format!("{} directions", directions.len()))),
        };
        let kernel = Self {
            x: x.ptr,
            x_row: x.row_stride as u32,
            x_batch: x.batch_stride as u32,
            tokens: x.tokens as u32,
            channels: x.channels as u32,
            tile: TILE as u32,
            directions: directions.len() as u32,
            d0_weight: w0.weight.ptr,
            d0_weight_row: w0.weight.row_stride as u32,
            d0_bias: optional(w0.bias),
            d0_out: out0.ptr,
            d0_out_row: out0.row_stride as u32,
            d0_out_batch: out0.batch_stride as u32,
            d0_width: w0.weight.channels as u32,
            d0_flags: w0.flags(),
            d1_weight: w1.weight.ptr,
            d1_weight_row: w1.weight.row_stride as u32,
            d1_bias: optional(w1.bias),
            d1_out: out1.ptr,
            d1_out_row: out1.row_stride as u32,
            d1_out_batch: out1.batch_stride as u32,
            d1_width: w1.weight.channels as u32,
            d1_flags: w1.flags(),
        };
        let geometry = geometry(NAME, x.shape(), directions.len())?;
        Ok(Ready::new(kernel, geometry))
    }
}

impl ConvBoth {
    /// Checks the operands: two opposite directions with taps of one width, each with its output of
    /// the shape of `x`, which is read once.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(x: Mat, directions: &[(ConvWalk, MatMut); 2]) -> Result<Ready<Self>> {
        const NAME: &str = "dis_conv1d_both";
        x.check(NAME, "x")?;
        for (walk, out) in directions {
            walk.check(NAME, x.channels)?;
            out.check_shape(NAME, "out", x.shape())?;
        }
        if !Self::takes(&directions[0].0, &directions[1].0) {
            let what = "two directions that are not opposite, or of different widths".into();
            return Err(shape(NAME, what));
        }
        let [one, two] = directions;
        let ((f, f_out), (r, r_out)) = if one.0.reverse {
            (two, one)
        } else {
            (one, two)
        };
        let kernel = Self {
            x: x.ptr,
            x_row: x.row_stride as u32,
            x_batch: x.batch_stride as u32,
            tokens: x.tokens as u32,
            channels: x.channels as u32,
            tile: TILE as u32,
            width: f.weight.channels as u32,
            f_weight: f.weight.ptr,
            f_weight_row: f.weight.row_stride as u32,
            f_bias: optional(f.bias),
            f_out: f_out.ptr,
            f_out_row: f_out.row_stride as u32,
            f_out_batch: f_out.batch_stride as u32,
            f_silu: f.silu.into(),
            r_weight: r.weight.ptr,
            r_weight_row: r.weight.row_stride as u32,
            r_bias: optional(r.bias),
            r_out: r_out.ptr,
            r_out_row: r_out.row_stride as u32,
            r_out_batch: r_out.batch_stride as u32,
            r_silu: r.silu.into(),
        };
        Ok(Ready::new(kernel, geometry(NAME, x.shape(), 1)?))
    }

    /// Whether two directions can go together.
    pub fn takes(one: &ConvWalk, two: &ConvWalk) -> bool {
        one.reverse != two.reverse && one.weight.channels == two.weight.channels
    }
}

impl ConvBackward {
    /// Checks the operands. `dx` is overwritten, or added to; see [`conv_tiles`] for the partial sums
    /// of weight and bias.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(
        x: Mat,
        walk: ConvWalk,
        dout: Mat,
        accumulate: bool,
        dx: MatMut,
        dweight_part: PtrMut<f32>,
        dbias_part: PtrMut<f32>,
    ) -> Result<Ready<Self>> {
        const NAME: &str = "dis_conv1d_backward";
        x.check(NAME, "x")?;
        walk.check(NAME, x.channels)?;
        dout.check_shape(NAME, "dout", x.shape())?;
        dx.check_shape(NAME, "dx", x.shape())?;
        let parts = x.batch * conv_tiles(x.tokens) * x.channels;
        let width = walk.weight.channels;
        for (name, part, needed) in [
            ("dweight_part", dweight_part, parts * width),
            ("dbias_part", dbias_part, parts),
        ] {
            let (needed, len) = (needed as u64, part.len());
            if len < needed {
                return Err(KernelError::OutOfBounds {
                    kernel: NAME,
                    name,
                    needed,
                    len,
                });
            }
        }
        let kernel = Self {
            x: x.ptr,
            x_row: x.row_stride as u32,
            x_batch: x.batch_stride as u32,
            dout: dout.ptr,
            dout_row: dout.row_stride as u32,
            dout_batch: dout.batch_stride as u32,
            dx: dx.ptr,
            dx_row: dx.row_stride as u32,
            dx_batch: dx.batch_stride as u32,
            weight: walk.weight.ptr,
            weight_row: walk.weight.row_stride as u32,
            bias: optional(walk.bias),
            dweight_part,
            dbias_part,
            width: width as u32,
            flags: walk.flags(),
            accumulate: accumulate.into(),
            tokens: x.tokens as u32,
            channels: x.channels as u32,
            tile: TILE as u32,
        };
        Ok(Ready::new(kernel, geometry(NAME, x.shape(), 1)?))
    }
}
