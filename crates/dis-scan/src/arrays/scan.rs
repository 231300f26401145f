//! The selective scan, its gradients, and its step by step form.

use super::matrix::Rows;
use super::{ScanElement, ScanMatrix, array, dense, layout3, shape3};
use crate::ops::{Direction, Discretization, Scan, ScanGrads, ScanOut, checkpoint_len};
use dis_tensor::{Layout, Result, TensorError, Tokens, TokensMut, same_shape};
use ndarray::{Array1, Array2, Array3, ArrayD, ArrayView1, ArrayView2, ArrayView3, ArrayViewMut3};
use std::borrow::Cow;

/// The optional parts of a selective scan. The default has none of them, runs forwards, and takes
/// the steps as they are.
#[derive(Clone, Debug)]
pub struct ScanOptions<'a, T = f32> {
    /// Skip D (channels): `D u` is added to the output.
    pub d: Option<ArrayView1<'a, T>>,
    /// Gate z (batch, length, channels): the output is multiplied by SiLU(z).
    pub z: Option<ArrayView3<'a, T>>,
    /// Added to the raw steps (channels).
    pub delta_bias: Option<ArrayView1<'a, T>>,
    /// Whether steps go through softplus.
    pub delta_softplus: bool,
    /// How B is made discrete.
    pub discretization: Discretization,
    /// Which way the sequence is walked.
    pub direction: Direction,
    /// The state before the first token walked (batch, channels, states); zero where it is absent.
    /// A sequence in pieces, each beginning with the last state of the one before, has the outputs of
    /// the whole, bit for bit.
    pub initial_state: Option<ArrayView3<'a, T>>,
}

impl<T> Default for ScanOptions<'_, T> {
    fn default() -> Self {
        Self {
            d: None,
            z: None,
            delta_bias: None,
            delta_softplus: false,
            discretization: Discretization::Mamba,
            direction: Direction::Forward,
            initial_state: None,
        }
    }
}

/// What a selective scan gives.
#[derive(Clone, Debug)]
pub struct ScanOutput<T = f32> {
    /// (batch, length, channels).
    pub y: Array3<T>,
    /// The state after the last token walked (batch, channels, states).
    pub last_state: Array3<T>,
}

/// Gradients of a selective scan, each in the shape of its array; absent where the array is.
#[derive(Clone, Debug)]
pub struct ScanGradients<T = f32> {
    /// Of the input (batch, length, channels).
    pub u: Array3<T>,
    /// Of the raw steps (batch, length, channels).
    pub delta: Array3<T>,
    /// Of A (channels, states).
    pub a: Array2<T>,
    /// Of B, in whichever of its forms it was given.
    pub b: ArrayD<T>,
    /// Of C, in whichever of its forms it was given.
    pub c: ArrayD<T>,
    /// Of D (channels).
    pub d: Option<Array1<T>>,
    /// Of the gate (batch, length, channels).
    pub z: Option<Array3<T>>,
    /// Of the bias of the steps (channels).
    pub delta_bias: Option<Array1<T>>,
    /// Of the initial state (batch, channels, states).
    pub initial_state: Option<Array3<T>>,
}

/// The arrays of a scan as slices.
struct Slices<'a, T: Copy> {
    shape: [usize; 3],
    states: usize,
    u: Cow<'a, [T]>,
    delta: Cow<'a, [T]>,
    a: Cow<'a, [T]>,
    b: Rows<'a, T>,
    c: Rows<'a, T>,
    /// Groups of channels that have their own B or C.
    groups: usize,
    d: Option<Cow<'a, [T]>>,
    z: Option<Cow<'a, [T]>>,
    delta_bias: Option<Cow<'a, [T]>>,
    initial_state: Option<Cow<'a, [T]>>,
    delta_softplus: bool,
    discretization: Discretization,
    direction: Direction,
}

impl<'a, T: ScanElement> Slices<'a, T> {
    fn new(
        op: &'static str,
        u: &'a ArrayView3<'_, T>,
        delta: &'a ArrayView3<'_, T>,
        a: &'a ArrayView2<'_, T>,
        b: &'a ScanMatrix<'_, T>,
        c: &'a ScanMatrix<'_, T>,
        options: &'a ScanOptions<'_, T>,
        initial_state: Option<&'a ArrayView3<'_, T>>,
    ) -> Result<Self> {
        let shape = shape3(u);
        let [batch, _, channels] = shape;
        let states = a.ncols();
        if states == 0 {
            let what = "A has no states".into();
            return Err(TensorError::Invalid { op, what });
        }
        let (full, vector) = ("u (batch, length, channels)", "(1, 1, channels)");
        same_shape(op, "delta", shape3(delta), full, shape)?;
        same_shape(
            op,
            "A",
            [1, a.nrows(), states],
            "(1, channels, states)",
            [1, channels, states],
        )?;
        let b = Rows::new(op, "B", b, shape, states)?;
        let c = Rows::new(op, "C", c, shape, states)?;
        for (name, value) in [("D", &options.d), ("delta_bias", &options.delta_bias)] {
            if let Some(value) = value {
                same_shape(op, name, [1, 1, value.len()], vector, [1, 1, channels])?;
            }
        }
        if let Some(z) = &options.z {
            same_shape(op, "z", shape3(z), full, shape)?;
        }
        if let Some(state) = initial_state {
            let expected = [batch, channels, states];
            let name = "(batch, channels, states)";
            same_shape(op, "initial_state", shape3(state), name, expected)?;
        }
        Ok(Self {
            shape,
            states,
            u: dense(u),
            delta: dense(delta),
            a: dense(a),
            groups: least_common_multiple(b.groups, c.groups),
            b,
            c,
            d: options.d.as_ref().map(dense),
            z: options.z.as_ref().map(dense),
            delta_bias: options.delta_bias.as_ref().map(dense),
            initial_state: initial_state.map(dense),
            delta_softplus: options.delta_softplus,
            discretization: options.discretization,
            direction: options.direction,
        })
    }

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn state(&self) -> [usize; 3] {
        [self.shape[0], self.shape[2], self.states]
    }

    /// The parts of all arrays that belong to each group.
    fn parts(&self) -> impl Iterator<Item = Part> {
        let count = self.shape[2] / self.groups.max(1);
        let [batch, length, _] = self.shape;
        let states = self.states;
        (0..self.groups).map(move |group| Part {
            group,
            first: group * count,
            count,
            bc: Layout::dense(batch, length, 2 * states),
        })
    }

    /// Puts a group's B and C side by side.
    fn join(&self, part: Part, bc: &mut [T]) {
        let [_, length, _] = self.shape;
        for (i, row) in bc.chunks_exact_mut(2 * self.states).enumerate() {
            let (b, t) = (i / length, i % length);
            let (to_b, to_c) = row.split_at_mut(self.states);
            to_b.copy_from_slice(self.b.row(b, t, part.group, self.groups));
            to_c.copy_from_slice(self.c.row(b, t, part.group, self.groups));
        }
    }

    /// The scan of a group's channels.
    fn scan<'s>(&'s self, part: Part, bc: &'s [T]) -> Scan<'s, [T]> {
        let channels = self.shape[2];
        let full = part.columns(layout3(self.shape));
        let vector = part.columns(Layout::vector(channels));
        let of =
            |x: &'s Option<Cow<'a, [T]>>, layout| x.as_ref().map(|x| Tokens::new(&**x, layout));
        Scan {
            u: Tokens::new(&*self.u, full),
            delta: Tokens::new(&*self.delta, full),
            a: Tokens::new(&*self.a, part.rows(Layout::matrix(channels, self.states))),
            bc: Tokens::new(bc, part.bc),
            d: of(&self.d, vector),
            z: of(&self.z, full),
            delta_bias: of(&self.delta_bias, vector),
            initial_state: of(&self.initial_state, part.rows(layout3(self.state()))),
            delta_softplus: self.delta_softplus,
            discretization: self.discretization,
            direction: self.direction,
        }
    }

    fn run(&self, op: &'static str) -> Result<ScanOutput<T>> {
        let mut y = vec![T::default(); self.elements()];
        let mut last = vec![T::default(); self.state().iter().product()];
        let mut bc = Vec::new();
        for part in self.parts() {
            bc.resize(part.bc.elements(), T::default());
            self.join(part, &mut bc);
            let state = part.rows(layout3(self.state()));
            let out = ScanOut {
                y: TokensMut::new(&mut y[..], part.columns(layout3(self.shape))),
                accumulate: false,
                checkpoints: None,
                last_state: Some(TokensMut::new(&mut last[..], state)),
            };
            T::scan(self.scan(part, &bc), out)?;
        }
        Ok(ScanOutput {
            y: array(op, self.shape, y)?,
            last_state: array(op, self.state(), last)?,
        })
    }
}

/// The channels that share B and C.
#[derive(Clone, Copy)]
struct Part {
    group: usize,
    first: usize,
    count: usize,
    bc: Layout,
}

impl Part {
    fn columns(&self, layout: Layout) -> Layout {
        layout.columns(self.first, self.count)
    }

    fn rows(&self, layout: Layout) -> Layout {
        layout.token_range(self.first, self.count)
    }
}

/// Both divide the number of channels, so this does too.
fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
}

/// The selective scan of Mamba (Gu and Dao, arXiv 2312.00752, algorithm 2), see [`Scan`]: `u` and
/// the raw steps `delta` (batch, length, channels), `a` (channels, states), `b` and `c` in any form of
/// [`ScanMatrix`].
///
/// # Errors
/// If shapes do not fit together; the message names the array and both shapes.
pub fn selective_scan<'b, 'c, T: ScanElement>(
    u: ArrayView3<'_, T>,
    delta: ArrayView3<'_, T>,
    a: ArrayView2<'_, T>,
    b: impl Into<ScanMatrix<'b, T>>,
    c: impl Into<ScanMatrix<'c, T>>,
    options: &ScanOptions<'_, T>,
) -> Result<ScanOutput<T>> {
    const OP: &str = "selective_scan";
    let (b, c, initial) = (b.into(), c.into(), options.initial_state.as_ref());
    Slices::new(OP, &u, &delta, &a, &b, &c, options, initial)?.run(OP)
}

/// The same from a state that is kept: advances `state` (batch, channels, states) by the tokens of `u`,
/// usually one, and returns y. Sequences that are known as a whole are faster in one [`selective_scan`].
///
/// # Errors
/// As [`selective_scan`]; if `options` has an initial state of its own. The state then is what it was.
pub fn selective_state_update<'b, 'c, T: ScanElement>(
    mut state: ArrayViewMut3<'_, T>,
    u: ArrayView3<'_, T>,
    delta: ArrayView3<'_, T>,
    a: ArrayView2<'_, T>,
    b: impl Into<ScanMatrix<'b, T>>,
    c: impl Into<ScanMatrix<'c, T>>,
    options: &ScanOptions<'_, T>,
) -> Result<Array3<T>> {
    const OP: &str = "selective_state_update";
    if options.initial_state.is_some() {
        return Err(TensorError::Invalid {
            op: OP,
            what: "initial_state in the options beside the state to update".into(),
        });
    }
    let (b, c, before) = (b.into(), c.into(), state.view());
    let out = Slices::new(OP, &u, &delta, &a, &b, &c, options, Some(&before))?.run(OP)?;
    state.assign(&out.last_state);
    Ok(out.y)
}

/// Gradients by every array of `sum(dout * y)`, to which `sum(dlast_state * last_state)` is added if given:
/// `dout` has the shape of `u`, `dlast_state` is (batch, channels, states). So the gradient of a piece's initial
/// state is what enters the piece before it.
///
/// # Errors
/// If shapes do not fit together; the message names the array and both shapes.
pub fn selective_scan_grad<'b, 'c, T: ScanElement>(
    u: ArrayView3<'_, T>,
    delta: ArrayView3<'_, T>,
    a: ArrayView2<'_, T>,
    b: impl Into<ScanMatrix<'b, T>>,
    c: impl Into<ScanMatrix<'c, T>>,
    options: &ScanOptions<'_, T>,
    dout: ArrayView3<'_, T>,
    dlast_state: Option<ArrayView3<'_, T>>,
) -> Result<ScanGradients<T>> {
    const OP: &str = "selective_scan_grad";
    let (b, c, initial) = (b.into(), c.into(), options.initial_state.as_ref());
    let slices = Slices::new(OP, &u, &delta, &a, &b, &c, options, initial)?;
    let (shape, states, ends) = (slices.shape, slices.states, slices.state());
    let [batch, length, channels] = shape;
    let full = "u (batch, length, channels)";
    same_shape(OP, "dout", shape3(&dout), full, shape)?;
    if let Some(last) = &dlast_state {
        let name = "(batch, channels, states)";
        same_shape(OP, "dlast_state", shape3(last), name, ends)?;
    }
    let dout = dense(&dout);
    let dlast = dlast_state.as_ref().map(dense);
    let zeros = |len: usize| vec![T::default(); len];
    let [mut y, mut du, mut ddelta] = [slices.elements(); 3].map(zeros);
    let mut dinitial = zeros(ends.iter().product());
    let mut da = zeros(channels * states);
    // D first, then delta_bias.
    let mut arena = zeros(2 * channels);
    let (mut db, mut dc) = (slices.b.gradient(), slices.c.gradient());
    let (mut bc, mut dbc, mut checkpoints) = (Vec::new(), Vec::new(), Vec::new());
    for part in slices.parts() {
        bc.resize(part.bc.elements(), T::default());
        dbc.resize(part.bc.elements(), T::default());
        let len = checkpoint_len(batch, length, part.count, states);
        checkpoints.resize(len, T::default());
        slices.join(part, &mut bc);
        let scan = slices.scan(part, &bc);
        let (columns, ends) = (part.columns(layout3(shape)), part.rows(layout3(ends)));
        let out = ScanOut {
            y: TokensMut::new(&mut y[..], columns),
            accumulate: false,
            checkpoints: Some(&mut checkpoints[..]),
            last_state: None,
        };
        T::scan(scan, out)?;
        let matrix = part.rows(Layout::matrix(channels, states));
        let grads = ScanGrads {
            du: TokensMut::new(&mut du[..], columns),
            ddelta: TokensMut::new(&mut ddelta[..], columns),
            dbc: TokensMut::new(&mut dbc[..], part.bc),
            // The output is not needed any more: its memory takes dz.
            dz: Some(TokensMut::new(&mut y[..], columns)),
            accumulate_dz: false,
            da: TokensMut::new(&mut da[..], matrix),
            arena: &mut arena[..],
            d: Some(part.first),
            delta_bias: Some(channels + part.first),
            dlast_state: dlast.as_ref().map(|x| Tokens::new(&**x, ends)),
            dinitial_state: Some(TokensMut::new(&mut dinitial[..], ends)),
        };
        T::scan_backward(scan, &checkpoints, Tokens::new(&*dout, columns), grads)?;
        for (i, row) in dbc.chunks_exact(2 * states).enumerate() {
            let at = [i / length, i % length, part.group, slices.groups];
            slices.b.add(&mut db, at, &row[..states]);
            slices.c.add(&mut dc, at, &row[states..]);
        }
    }
    let dbias = arena.split_off(channels);
    Ok(ScanGradients {
        u: array(OP, shape, du)?,
        delta: array(OP, shape, ddelta)?,
        a: array(OP, [channels, states], da)?,
        b: slices.b.shaped(OP, db)?,
        c: slices.c.shaped(OP, dc)?,
        d: options.d.as_ref().map(|_| Array1::from(arena)),
        z: options
            .z
            .as_ref()
            .map(|_| array(OP, shape, y))
            .transpose()?,
        delta_bias: options.delta_bias.as_ref().map(|_| Array1::from(dbias)),
        initial_state: options
            .initial_state
            .as_ref()
            .map(|_| array(OP, ends, dinitial))
            .transpose()?,
    })
}
