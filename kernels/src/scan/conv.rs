//! Launch contracts of `conv1d.ptx`.

use super::{REVERSE, one_or_two};
use crate::contract::{Contract, Geometry, Kernel, Ready, contract};
use crate::error::Result;
use crate::mat::{Mat, MatMut, grid_limit, shape, shapes};
use crate::pointer::PtrMut;

const SILU: u32 = 2;
/// Tokens that a thread walks.
const TILE: usize = 32;

/// Tiles of the backward: partial sums of dweight are (batch * tiles, channels, width), those of
/// dbias (batch * tiles, channels).
pub const fn conv_tiles(tokens: usize) -> usize {
    tokens.div_ceil(TILE)
}

contract! {
    /// One direction of a convolution.
    pub struct ConvWalk {
        /// Taps, (1, channels, width), width 2 to 4; the last multiplies the current token.
        pub weight: Mat [row],
        /// (1, 1, channels).
        pub bias: Option<Mat> [],
        /// Whether SiLU follows.
        pub host silu: bool,
        /// Whether the tokens are walked from the last.
        pub host reverse: bool,
    }
}

contract! {
    /// A direction with its output, of taps of any width.
    pub struct Alone {
        flat walk: ConvWalk,
        out: MatMut,
        width: usize = |k| k.walk.width(),
        flags: u32 = |k| k.walk.flags(),
    }
}

contract! {
    /// A direction with its output, beside another of the same width.
    pub struct Together {
        flat walk: ConvWalk,
        out: MatMut,
        silu: bool = |k| k.walk.silu,
    }
}

impl ConvWalk {
    fn flags(&self) -> u32 {
        u32::from(self.reverse) * REVERSE + u32::from(self.silu) * SILU
    }

    fn width(&self) -> usize {
        self.weight.channels
    }

    fn fit(&self, kernel: &'static str, channels: usize) -> Result<()> {
        let width = self.width();
        if !(2..=4).contains(&width) {
            let what = format!("weight has width {width}, supported are 2 to 4");
            return Err(shape(kernel, what));
        }
        shapes(
            kernel,
            &[
                ("weight", &self.weight, [1, channels, width]),
                ("bias", &self.bias, [1, 1, channels]),
            ],
        )
    }
}

contract! {
    /// The convolution of one direction or two of the same input; see [`ConvForward::new`].
    pub struct ConvForward: CONV1D, "dis_conv1d_forward" {
        x: Mat,
        tokens: usize = |k| k.x.tokens, channels: usize = |k| k.x.channels,
        tile: usize = |_| TILE,
        directions: usize = |k| 1 + usize::from(k.d1.is_some()),
        d0: Alone,
        d1: Option<Alone>,
    }
}

contract! {
    /// The convolution of both directions of the same input; see [`ConvBoth::new`].
    pub struct ConvBoth: CONV1D, "dis_conv1d_both" {
        x: Mat,
        tokens: usize = |k| k.x.tokens, channels: usize = |k| k.x.channels,
        tile: usize = |_| TILE,
        width: usize = |k| k.f.walk.width(),
        f: Together,
        r: Together,
    }
}

contract! {
    /// Backward of one direction. `dx` is overwritten, or added to; see [`conv_tiles`] for the partial
    /// sums of weight and bias.
    pub struct ConvBackward: CONV1D, "dis_conv1d_backward" {
        x: Mat, dout: Mat, dx: MatMut,
        flat walk: ConvWalk,
        dweight_part: PtrMut<f32>, dbias_part: PtrMut<f32>,
        width: usize = |k| k.walk.width(),
        flags: u32 = |k| k.walk.flags(),
        accumulate: bool,
        tokens: usize = |k| k.x.tokens, channels: usize = |k| k.x.channels,
        tile: usize = |_| TILE,
    }
    pub fn new;
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
        let (first, second) = one_or_two(Self::NAME, directions)?;
        let alone = |(walk, out)| Alone { walk, out };
        let (d0, d1) = (alone(first), second.map(alone));
        Self { x, d0, d1 }.ready()
    }
}

impl Kernel for ConvForward {
    fn fit(&mut self) -> Result<Geometry> {
        for direction in [Some(self.d0), self.d1].into_iter().flatten() {
            direction.walk.fit(Self::NAME, self.x.channels)?;
            shapes(Self::NAME, &[("out", &direction.out, self.x.shape())])?;
        }
        let directions = 1 + usize::from(self.d1.is_some());
        geometry(Self::NAME, self.x.shape(), directions)
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
        if !Self::takes(&directions[0].0, &directions[1].0) {
            let what = "two directions that are not opposite, or of different widths".into();
            return Err(shape(Self::NAME, what));
        }
        let [one, two] = directions.map(|(walk, out)| Together { walk, out });
        let (f, r) = if one.walk.reverse {
            (two, one)
        } else {
            (one, two)
        };
        Self { x, f, r }.ready()
    }

    /// Whether two directions can go together.
    pub fn takes(one: &ConvWalk, two: &ConvWalk) -> bool {
        one.reverse != two.reverse && one.width() == two.width()
    }
}

impl Kernel for ConvBoth {
    fn fit(&mut self) -> Result<Geometry> {
        for direction in [self.f, self.r] {
            direction.walk.fit(Self::NAME, self.x.channels)?;
            shapes(Self::NAME, &[("out", &direction.out, self.x.shape())])?;
        }
        geometry(Self::NAME, self.x.shape(), 1)
    }
}

impl Kernel for ConvBackward {
    fn fit(&mut self) -> Result<Geometry> {
        let whole @ [batch, tokens, channels] = self.x.shape();
        self.walk.fit(Self::NAME, channels)?;
        shapes(
            Self::NAME,
            &[("dout", &self.dout, whole), ("dx", &self.dx, whole)],
        )?;
        let parts = (batch * conv_tiles(tokens) * channels) as u64;
        let weights = parts * self.walk.width() as u64;
        self.dweight_part
            .holds(Self::NAME, "dweight_part", weights)?;
        self.dbias_part.holds(Self::NAME, "dbias_part", parts)?;
        geometry(Self::NAME, whole, 1)
    }
}
