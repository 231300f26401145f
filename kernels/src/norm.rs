//! Launch contracts of `norm.ptx`.

use crate::contract::{Contract, ContractInfo, Geometry, Kernel, contract};
use crate::error::Result;
use crate::mat::{Mat, MatMut, SHARED, grid_limit, not_zero, shape, shapes, warp_a_token};
use crate::pointer::PtrMut;

contract! {
    /// Residual add, normalisation and modulation.
    pub struct NormForward: NORM, "dis_norm_forward" {
        /// Added to the scaled hidden stream.
        pub residual: Option<Mat>,
        /// The hidden stream, (batch, tokens, channels).
        pub hidden: Mat,
        /// (batch, 1, 1).
        pub hidden_scale: Option<Mat> [batch],
        /// (1, 1, channels); 1 where there is none.
        pub weight: Option<Mat> [],
        /// (1, 1, channels); 0 where there is none.
        pub bias: Option<Mat> [],
        /// (batch, 1, 2 * channels).
        pub shift_scale: Option<Mat> [batch],
        /// The sum, to keep.
        pub sum: Option<MatMut>,
        /// Mean and reciprocal deviation, (batch, tokens, 2).
        pub stats: Option<MatMut>,
        /// The result.
        pub out: MatMut,
        /// LayerNorm instead of RMSNorm.
        pub layer: bool,
        /// Added to the mean square or variance.
        pub eps: f32,
        tokens: usize = |k| k.hidden.tokens,
        channels: usize = |k| k.hidden.channels,
    }
}
contract! {
    /// The gradient of what was normalised.
    pub struct NormBackward: NORM, "dis_norm_backward" {
        /// What was normalised, (batch, tokens, channels).
        pub x: Mat,
        /// (batch, tokens, 2), as the forward left it.
        pub stats: Mat,
        /// (1, 1, channels); 1 where there is none.
        pub weight: Option<Mat> [],
        /// (batch, 1, 2 * channels).
        pub shift_scale: Option<Mat> [batch],
        /// The gradient of the result.
        pub dout: Mat,
        /// The gradient of `x`.
        pub dx: MatMut,
        /// LayerNorm instead of RMSNorm.
        pub layer: bool,
        /// Whether `dx` is added to.
        pub accumulate: bool,
        tokens: usize = |k| k.x.tokens,
        channels: usize = |k| k.x.channels,
    }
}
contract! {
    /// Sums over chunks of tokens for the gradients of weight and bias, or of shift and scale.
    pub struct NormParamSums: NORM, "dis_norm_param_sums" {
        /// What was normalised, (batch, tokens, channels).
        pub x: Mat,
        /// (batch, tokens, 2), as the forward left it.
        pub stats: Mat,
        /// (1, 1, channels); 1 where there is none.
        pub weight: Option<Mat> [],
        /// (1, 1, channels); 0 where there is none.
        pub bias: Option<Mat> [],
        /// (batch, 1, 2 * channels); 0 where there is none.
        pub shift_scale: Option<Mat> [batch],
        /// The gradient of the result.
        pub dout: Mat,
        /// (batch, chunks, 2, channels).
        pub partial: PtrMut<f32>,
        /// Tokens of a chunk.
        pub chunk: usize,
        tokens: usize = |k| k.x.tokens,
        channels: usize = |k| k.x.channels,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] =
    &[NormForward::INFO, NormBackward::INFO, NormParamSums::INFO];

/// Tokens whose sums for the gradients of parameters are added up first, by those who launch.
pub const CHUNK: usize = 32;

/// A warp a token; a row must fit in shared memory.
fn geometry(kernel: &'static str, whole: [usize; 3], bytes_per_channel: usize) -> Result<Geometry> {
    let [_, _, channels] = whole;
    let row = channels * bytes_per_channel;
    if row > SHARED {
        let what = format!(
            "{channels} channels, above {}: a row must fit in shared memory",
            SHARED / bytes_per_channel
        );
        return Err(shape(kernel, what));
    }
    warp_a_token(kernel, whole, row)
}

impl Kernel for NormForward {
    fn fit(&mut self) -> Result<Geometry> {
        let whole @ [batch, tokens, channels] = self.hidden.shape();
        shapes(
            Self::NAME,
            &[
                ("out", &self.out, whole),
                ("residual", &self.residual, whole),
                ("hidden_scale", &self.hidden_scale, [batch, 1, 1]),
                ("weight", &self.weight, [1, 1, channels]),
                ("bias", &self.bias, [1, 1, channels]),
                ("shift_scale", &self.shift_scale, [batch, 1, 2 * channels]),
                ("sum", &self.sum, whole),
                ("stats", &self.stats, [batch, tokens, 2]),
            ],
        )?;
        geometry(Self::NAME, whole, 4)
    }
}

impl Kernel for NormBackward {
    fn fit(&mut self) -> Result<Geometry> {
        let whole @ [batch, tokens, channels] = self.x.shape();
        shapes(
            Self::NAME,
            &[
                ("dout", &self.dout, whole),
                ("stats", &self.stats, [batch, tokens, 2]),
                ("weight", &self.weight, [1, 1, channels]),
                ("shift_scale", &self.shift_scale, [batch, 1, 2 * channels]),
                ("dx", &self.dx, whole),
            ],
        )?;
        geometry(Self::NAME, whole, 8)
    }
}

impl Kernel for NormParamSums {
    fn fit(&mut self) -> Result<Geometry> {
        let whole @ [batch, tokens, channels] = self.x.shape();
        shapes(
            Self::NAME,
            &[
                ("dout", &self.dout, whole),
                ("stats", &self.stats, [batch, tokens, 2]),
                ("weight", &self.weight, [1, 1, channels]),
                ("bias", &self.bias, [1, 1, channels]),
                ("shift_scale", &self.shift_scale, [batch, 1, 2 * channels]),
            ],
        )?;
        not_zero(Self::NAME, "the number of tokens of a chunk", self.chunk)?;
        let chunks = tokens.div_ceil(self.chunk);
        let needed = (batch * chunks * 2 * channels) as u64;
        self.partial.holds(Self::NAME, "partial", needed)?;
        let grid = [
            channels.div_ceil(128) as u32,
            grid_limit(Self::NAME, "the number of chunks", chunks)?,
            grid_limit(Self::NAME, "the number of samples", batch)?,
        ];
        Ok(Geometry::new(grid, [128, 1, 1]))
    }
}
