//! Launch contracts of the selective scan and the causal convolution.
//!
//! A [`Walk`] is one direction's operands. [`Forward`] and [`Backward`] choose among the entries of
//! `scan_forward.ptx` and `scan_backward.ptx`; both take one direction or two. Backward passes leave
//! sums over blocks and samples as partial sums, which [`SumPartials`] adds up in a fixed order.

mod backward;
mod conv;
mod forward;
mod partials;

pub use backward::{Backward, BackwardWalk, PartialSums, ScanBackwardAny, ScanBackwardN16};
pub use conv::{ConvBackward, ConvBoth, ConvForward, ConvWalk, conv_tiles};
pub use forward::{
    Forward, ForwardWalk, ScanForwardLanes4, ScanForwardLanes8, ScanForwardN16, ScanForwardSplit16,
    Variant,
};
pub use partials::SumPartials;

use crate::contract::{Contract, ContractInfo, contract};
use crate::error::Result;
use crate::mat::{Mat, shape, shapes};

/// Tokens between two checkpoints.
pub const CHUNK: usize = 16;
/// The most states that the forward kernels take.
pub const MAX_STATES: usize = 256;

const REVERSE: u32 = 1;
const SOFTPLUS: u32 = 2;
const HOLD: u32 = 4;

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[
    ScanForwardN16::INFO,
    ScanForwardSplit16::INFO,
    ScanForwardLanes4::INFO,
    ScanForwardLanes8::INFO,
    ScanBackwardN16::INFO,
    ScanBackwardAny::INFO,
    ConvForward::INFO,
    ConvBoth::INFO,
    ConvBackward::INFO,
    SumPartials::INFO,
];

contract! {
    /// What one direction of a scan reads.
    pub struct Walk {
        /// Input, (batch, tokens, channels).
        pub u: Mat,
        /// Raw step, of the same shape.
        pub delta: Mat,
        /// State matrix, (1, channels, states).
        pub a: Mat [row],
        /// B and C side by side, (batch, tokens, 2 states).
        pub bc: Mat,
        /// Skip, (1, 1, channels).
        pub d: Option<Mat> [],
        /// Added to the raw step, (1, 1, channels).
        pub delta_bias: Option<Mat> [] as bias,
        /// Whether the step goes through softplus.
        pub host softplus: bool,
        /// Whether B is made discrete by the zero-order hold; else by `B_bar = delta B`.
        pub host hold: bool,
        /// Whether the tokens are walked from the last.
        pub host reverse: bool,
    }
}

/// Shape of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    batch: usize,
    tokens: usize,
    channels: usize,
    states: usize,
}

impl Shape {
    fn tokens3(&self) -> [usize; 3] {
        [self.batch, self.tokens, self.channels]
    }

    fn is_empty(&self) -> bool {
        self.tokens3().contains(&0)
    }

    fn checkpoint_len(&self) -> usize {
        checkpoint_len(self.batch, self.tokens, self.channels, self.states)
    }
}

/// Elements of a checkpoint buffer, `[sample][chunk][state][channel]`, channels padded to 16.
pub const fn checkpoint_len(batch: usize, tokens: usize, channels: usize, states: usize) -> usize {
    batch * tokens.div_ceil(CHUNK) * channels.next_multiple_of(16) * states
}

impl Walk {
    fn flags(&self) -> u32 {
        u32::from(self.reverse) * REVERSE
            + u32::from(self.softplus) * SOFTPLUS
            + u32::from(self.hold) * HOLD
    }

    fn shape(&self, kernel: &'static str) -> Result<Shape> {
        let whole @ [batch, tokens, channels] = self.u.shape();
        let states = self.a.channels;
        if states == 0 || states > MAX_STATES {
            let what = format!("{states} states, supported are 1 to {MAX_STATES}");
            return Err(shape(kernel, what));
        }
        shapes(
            kernel,
            &[
                ("delta", &self.delta, whole),
                ("a", &self.a, [1, channels, states]),
                ("bc", &self.bc, [batch, tokens, 2 * states]),
                ("d", &self.d, [1, 1, channels]),
                ("delta_bias", &self.delta_bias, [1, 1, channels]),
            ],
        )?;
        // Rows of checkpoints, (sample, chunk, state), are counted in 32 bits.
        let rows = batch as u64 * tokens.div_ceil(CHUNK) as u64 * states as u64;
        if rows > u64::from(u32::MAX) {
            return Err(shape(kernel, format!("u of {whole:?} is too large")));
        }
        Ok(Shape {
            batch,
            tokens,
            channels,
            states,
        })
    }
}

/// One direction or two.
fn one_or_two<T: Copy>(kernel: &'static str, directions: &[T]) -> Result<(T, Option<T>)> {
    match directions {
        [one] => Ok((*one, None)),
        [one, two] => Ok((*one, Some(*two))),
        _ => {
            let what = format!("{} directions, not one or two", directions.len());
            Err(shape(kernel, what))
        }
    }
}

/// The one shape of one direction or two.
fn same(kernel: &'static str, first: Shape, second: Option<Shape>) -> Result<Shape> {
    match second {
        Some(second) if second != first => {
            let what = format!("the second direction is of {second:?}, the first of {first:?}");
            Err(shape(kernel, what))
        }
        _ => Ok(first),
    }
}
