//! The two operations of a state space model, as [`ScanBackend`], with their arguments.
//!
//! Shapes are (batch, tokens, channels); D is the number of channels, N that of states. Both
//! directions read and write the same memory: [`Direction::Reverse`] walks it from the end.

use dis_tensor::{Backend, Reals, Result, Tokens, TokensMut, ViewMut};

/// Which way the tokens are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first token to the last.
    Forward,
    /// From the last token to the first.
    Reverse,
}

/// How the continuous system is made discrete. In both, `A_bar = exp(delta A)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Discretization {
    /// `B_bar = delta B`, as Mamba's code does and published checkpoints expect.
    #[default]
    Mamba,
    /// `B_bar = (delta A)^-1 (exp(delta A) - 1) delta B`, the exact zero-order hold (the paper's
    /// equation for B_bar).
    ZeroOrderHold,
}

/// `u`'s causal depthwise convolution over tokens (zero-padded on the side the walk starts from),
/// then optionally SiLU. The last tap multiplies the current token.
#[derive(Debug)]
pub struct Conv<'a, Bf: ?Sized> {
    /// (batch, tokens, D).
    pub x: Tokens<'a, Bf>,
    /// (1, D, width), width 2 to 4.
    pub weight: Tokens<'a, Bf>,
    /// (1, 1, D).
    pub bias: Option<Tokens<'a, Bf>>,
    /// Whether SiLU follows.
    pub silu: bool,
    /// Which way is causal.
    pub direction: Direction,
}

impl<Bf: ?Sized> Clone for Conv<'_, Bf> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<Bf: ?Sized> Copy for Conv<'_, Bf> {}

/// Where the convolution's backward adds parameter gradients.
#[derive(Debug)]
pub struct ConvGrads<'a, Bf: ?Sized> {
    /// The gradient arena.
    pub arena: &'a mut Bf,
    /// Offset of d weight (D, width).
    pub weight: usize,
    /// Offset of d bias (D); required when there is a bias.
    pub bias: Option<usize>,
}

/// The selective scan (Gu and Dao, arXiv 2312.00752, algorithm 2):
/// `h_t = exp(delta A) h_(t-1) + B_bar u_t`, `y_t = C h_t + D u_t`, with
/// `delta = softplus(raw + bias)`.
#[derive(Debug)]
pub struct Scan<'a, Bf: ?Sized> {
    /// Input, (batch, tokens, D).
    pub u: Tokens<'a, Bf>,
    /// Raw step, (batch, tokens, D).
    pub delta: Tokens<'a, Bf>,
    /// State matrix, negative: (1, D, N), dense.
    pub a: Tokens<'a, Bf>,
    /// B and C side by side, (batch, tokens, 2 N).
    pub bc: Tokens<'a, Bf>,
    /// Skip, (1, 1, D).
    pub d: Option<Tokens<'a, Bf>>,
    /// Gate, (batch, tokens, D): the output is multiplied by SiLU(z).
    pub z: Option<Tokens<'a, Bf>>,
    /// Added to the raw step, (1, 1, D).
    pub delta_bias: Option<Tokens<'a, Bf>>,
    /// The state before the first token walked, (batch, D, N); zero where it is absent.
    pub initial_state: Option<Tokens<'a, Bf>>,
    /// Whether softplus (the identity above 20) is applied to the step.
    pub delta_softplus: bool,
    /// Which discretisation of B.
    pub discretization: Discretization,
    /// Which way the tokens are walked.
    pub direction: Direction,
}

impl<Bf: ?Sized> Clone for Scan<'_, Bf> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<Bf: ?Sized> Copy for Scan<'_, Bf> {}

/// Where the forward scan writes.
#[derive(Debug)]
pub struct ScanOut<'a, Bf: ?Sized> {
    /// (batch, tokens, D). Overwritten with `y * silu(z)`, or with `(out + y) * silu(z)` when
    /// `accumulate`: so the second direction joins the first and gates both.
    pub y: TokensMut<'a, Bf>,
    /// Whether `y` is added to.
    pub accumulate: bool,
    /// If given (at least [`checkpoint_len`] elements), receives the states the backward starts
    /// its chunks from; their order is the backend's own.
    pub checkpoints: Option<&'a mut Bf>,
    /// If given, (batch, D, N): the state after the last token walked.
    pub last_state: Option<TokensMut<'a, Bf>>,
}

/// Where the backward scan writes. With a gate, `dout` is the gradient of `y * silu(z)`, and for
/// two directions gated together the gradients of both calls add up to the right ones.
#[derive(Debug)]
pub struct ScanGrads<'a, Bf: ?Sized> {
    /// (batch, tokens, D), overwritten.
    pub du: TokensMut<'a, Bf>,
    /// Gradient of the raw step, (batch, tokens, D), overwritten.
    pub ddelta: TokensMut<'a, Bf>,
    /// (batch, tokens, 2 N), overwritten.
    pub dbc: TokensMut<'a, Bf>,
    /// (batch, tokens, D); required when there is a gate.
    pub dz: Option<TokensMut<'a, Bf>>,
    /// Whether `dz` is added to.
    pub accumulate_dz: bool,
    /// (1, D, N), overwritten.
    pub da: TokensMut<'a, Bf>,
    /// The gradient arena for D and delta_bias.
    pub arena: &'a mut Bf,
    /// Offset of dD in it, added to; required when there is a skip.
    pub d: Option<usize>,
    /// Offset of d delta_bias, added to; required when there is a bias.
    pub delta_bias: Option<usize>,
    /// Read, not written: the gradient of the last state, (batch, D, N); zero where it is absent.
    pub dlast_state: Option<Tokens<'a, Bf>>,
    /// If given, (batch, D, N), overwritten: the gradient of the state before the first token walked.
    pub dinitial_state: Option<TokensMut<'a, Bf>>,
}

/// Tokens between two stored states.
pub const CHUNK: usize = 16;

/// Elements of the checkpoint buffer of a scan: states before every chunk of [`CHUNK`] tokens,
/// with channels padded to a multiple of 16.
pub const fn checkpoint_len(batch: usize, tokens: usize, channels: usize, states: usize) -> usize {
    batch * tokens.div_ceil(CHUNK) * channels.next_multiple_of(16) * states
}

/// Two scans of one shape, in one call where the backend can: `y = (first + second) * silu(z)`. The
/// scans themselves carry no gate.
#[derive(Debug)]
pub struct ScanPair<'a, Bf: ?Sized> {
    /// What each direction reads; their `z` is not used.
    pub scans: [Scan<'a, Bf>; 2],
    /// Gate, (batch, tokens, D).
    pub z: Option<Tokens<'a, Bf>>,
    /// (batch, tokens, D), overwritten.
    pub y: TokensMut<'a, Bf>,
    /// If given, receives the states for the backward of each.
    pub checkpoints: Option<[&'a mut Bf; 2]>,
}

/// Where the backward of one scan of a pair writes: as [`ScanGrads`], but for what both share.
#[derive(Debug)]
pub struct OneOfPair<'a, Bf: ?Sized> {
    /// (batch, tokens, D), overwritten.
    pub du: TokensMut<'a, Bf>,
    /// Gradient of the raw step, (batch, tokens, D), overwritten.
    pub ddelta: TokensMut<'a, Bf>,
    /// (batch, tokens, 2 N), overwritten.
    pub dbc: TokensMut<'a, Bf>,
    /// (1, D, N), overwritten.
    pub da: TokensMut<'a, Bf>,
    /// Offset of dD in the arena.
    pub d: Option<usize>,
    /// Offset of d delta_bias in the arena.
    pub delta_bias: Option<usize>,
}

impl<'a, Bf: ?Sized> OneOfPair<'a, Bf> {
    /// All gradients of this scan.
    pub(crate) fn with<'b>(
        self,
        dz: Option<&'b mut TokensMut<'a, Bf>>,
        accumulate_dz: bool,
        arena: &'b mut Bf,
    ) -> ScanGrads<'b, Bf>
    where
        'a: 'b,
    {
        ScanGrads {
            du: self.du,
            ddelta: self.ddelta,
            dbc: self.dbc,
            dz: dz.map(TokensMut::reborrow),
            accumulate_dz,
            da: self.da,
            arena,
            d: self.d,
            delta_bias: self.delta_bias,
            dlast_state: None,
            dinitial_state: None,
        }
    }
}

/// Where the backward of a pair of scans writes.
#[derive(Debug)]
pub struct ScanPairGrads<'a, Bf: ?Sized> {
    /// What each has of its own.
    pub each: [OneOfPair<'a, Bf>; 2],
    /// Gradient of the gate, (batch, tokens, D), overwritten; required when there is one.
    pub dz: Option<TokensMut<'a, Bf>>,
    /// The gradient arena.
    pub arena: &'a mut Bf,
}

/// What a state space model needs of a backend besides the other operations.
pub trait ScanBackend: Backend {
    /// Causal depthwise convolution and SiLU; `out` (batch, tokens, D) is overwritten.
    ///
    /// # Errors
    /// If shapes do not fit, a view leaves its buffer, the device lacks what is asked for, or the
    /// device fails.
    fn conv1d(&self, conv: Conv<'_, Reals<Self>>, out: ViewMut<'_, Self>) -> Result<()>;

    /// Two convolutions of the same input.
    ///
    /// # Errors
    /// If shapes do not fit, a view leaves its buffer, the device lacks what is asked for, or the
    /// device fails.
    fn conv1d_pair(
        &self,
        first: Conv<'_, Reals<Self>>,
        second: Conv<'_, Reals<Self>>,
        first_out: ViewMut<'_, Self>,
        second_out: ViewMut<'_, Self>,
    ) -> Result<()> {
        self.conv1d(first, first_out)?;
        self.conv1d(second, second_out)
    }

    /// Its backward; `dx` is overwritten, or added to when `accumulate`.
    ///
    /// # Errors
    /// If shapes do not fit, a view leaves its buffer, an offset or dz is missing, the device lacks
    /// what is asked for, or the device fails.
    fn conv1d_backward(
        &self,
        conv: Conv<'_, Reals<Self>>,
        dout: dis_tensor::View<'_, Self>,
        accumulate: bool,
        dx: ViewMut<'_, Self>,
        grads: ConvGrads<'_, Reals<Self>>,
    ) -> Result<()>;

    /// The selective scan.
    ///
    /// # Errors
    /// If shapes do not fit, a view leaves its buffer, the device lacks what is asked for, or the
    /// device fails.
    fn scan(&self, scan: Scan<'_, Reals<Self>>, out: ScanOut<'_, Reals<Self>>) -> Result<()>;

    /// Both directions, gated together.
    ///
    /// # Errors
    /// If shapes do not fit, a view leaves its buffer, the device lacks what is asked for, or the
    /// device fails.
    fn scan_pair(&self, pair: ScanPair<'_, Reals<Self>>) -> Result<()> {
        let ScanPair {
            scans: [first, second],
            z,
            mut y,
            checkpoints,
        } = pair;
        let (one, two) = match checkpoints {
            Some([one, two]) => (Some(one), Some(two)),
            None => (None, None),
        };
        let mut run = |scan, accumulate, checkpoints| {
            let y = y.reborrow();
            let last_state = None;
            self.scan(
                scan,
                ScanOut {
                    y,
                    accumulate,
                    checkpoints,
                    last_state,
                },
            )
        };
        run(Scan { z: None, ..first }, false, one)?;
        run(Scan { z, ..second }, true, two)
    }

    /// Its backward, from the checkpoints of the forward with the same arguments.
    ///
    /// # Errors
    /// If shapes do not fit, a view leaves its buffer, an offset or dz is missing, the device lacks
    /// what is asked for, or the device fails.
    fn scan_backward(
        &self,
        scan: Scan<'_, Reals<Self>>,
        checkpoints: &Reals<Self>,
        dout: dis_tensor::View<'_, Self>,
        grads: ScanGrads<'_, Reals<Self>>,
    ) -> Result<()>;

    /// The backward of [`ScanBackend::scan_pair`].
    ///
    /// # Errors
    /// If shapes do not fit, a view leaves its buffer, an offset or dz is missing, the device lacks
    /// what is asked for, or the device fails.
    fn scan_backward_pair(
        &self,
        scans: [Scan<'_, Reals<Self>>; 2],
        z: Option<dis_tensor::View<'_, Self>>,
        checkpoints: [&Reals<Self>; 2],
        dout: dis_tensor::View<'_, Self>,
        grads: ScanPairGrads<'_, Reals<Self>>,
    ) -> Result<()> {
        let ScanPairGrads {
            each: [first, second],
            mut dz,
            arena,
        } = grads;
        let [one, two] = scans.map(|scan| Scan { z, ..scan });
        let first = first.with(dz.as_mut(), false, &mut *arena);
        self.scan_backward(one, checkpoints[0], dout, first)?;
        let second = second.with(dz.as_mut(), true, &mut *arena);
        self.scan_backward(two, checkpoints[1], dout, second)
    }
}
