//! Random problems in one form for the oracle (float64) and the fast code (float32).

use dis_scan::cpu::{self, Level};
use dis_scan::*;
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Layout, Tokens, TokensMut};

/// What unwritten memory holds.
pub const SENTINEL: f64 = 777.0;

/// A token matrix with its memory in both precisions.
#[derive(Clone, Debug)]
pub struct Matrix {
    pub layout: Layout,
    pub wide: Vec<f64>,
    pub narrow: Vec<f32>,
}

impl Matrix {
    /// Values are float32 numbers, so both forms are equal.
    pub fn new(layout: Layout, wide: Vec<f64>) -> Self {
        let narrow: Vec<f32> = wide.iter().map(|&x| x as f32).collect();
        let wide = narrow.iter().map(|&x| f64::from(x)).collect();
        Self {
            layout,
            wide,
            narrow,
        }
    }

    /// Random memory around a matrix of this shape: rows `pad` longer than needed.
    pub fn random(
        rng: &mut Stream,
        shape: [usize; 3],
        pad: usize,
        mut value: impl FnMut(f64) -> f64,
    ) -> Self {
        let [batch, tokens, channels] = shape;
        let mut layout = Layout::padded(batch, tokens, channels, channels + pad).at(pad);
        layout.batch_stride += 2 * pad;
        let len = layout.end() + pad;
        Self::new(layout, (0..len).map(|_| value(rng.normal())).collect())
    }

    pub fn sentinel(shape: [usize; 3], pad: usize) -> Self {
        Self::random(&mut Stream::new(0, Purpose::Test, 0, 0), shape, pad, |_| {
            SENTINEL
        })
    }

    pub fn wide(&self) -> Tokens<'_, [f64]> {
        Tokens::new(&self.wide, self.layout)
    }
    pub fn narrow(&self) -> Tokens<'_, [f32]> {
        Tokens::new(&self.narrow, self.layout)
    }
    pub fn wide_mut(&mut self) -> TokensMut<'_, [f64]> {
        TokensMut::new(&mut self.wide, self.layout)
    }
    pub fn narrow_mut(&mut self) -> TokensMut<'_, [f32]> {
        TokensMut::new(&mut self.narrow, self.layout)
    }

    /// Which elements of the memory belong to the matrix.
    fn inside(&self) -> Vec<bool> {
        let mut inside = vec![false; self.wide.len()];
        let l = self.layout;
        for b in 0..l.batch {
            for t in 0..l.tokens {
                for c in 0..l.channels {
                    inside[l.row(b, t) + c] = true;
                }
            }
        }
        inside
    }

    /// Largest magnitude of the float64 elements that were written.
    pub fn magnitude(&self) -> f64 {
        let inside = self.inside();
        let elements = self.wide.iter().zip(&inside);
        let written = elements.filter(|&(&x, &inside)| inside && x != SENTINEL);
        written.map(|(x, _)| x.abs()).fold(0.0, f64::max)
    }

    /// Fails unless the float32 memory is within `rtol` of the largest magnitude (`floor` at
    /// least), everywhere, and untouched outside the matrix. The floor is the magnitude of the
    /// terms where a result of few elements may be a small difference of them.
    pub fn check(&self, what: &str, rtol: f64, floor: f64) -> Result<(), String> {
        let inside = self.inside();
        let scale = self.magnitude().max(floor);
        for (i, (&want, &got)) in self.wide.iter().zip(&self.narrow).enumerate() {
            let error = (f64::from(got) - want).abs();
            let bound = if inside[i] { rtol * scale + 1e-36 } else { 0.0 };
            // Also false for NaN.
            if !matches!(
                error.partial_cmp(&bound),
                Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal)
            ) {
                return Err(format!(
                    "{what}[{i}]: {got} for {want}, error {error:e} of scale {scale:e}, inside: {}",
                    inside[i]
                ));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub shape: [usize; 4],
    pub pad: usize,
    pub direction: Direction,
    pub discretization: Discretization,
    pub d: bool,
    pub z: bool,
    pub bias: bool,
    pub softplus: bool,
    pub accumulate: bool,
    /// Whether states enter: one at the start, and the gradient of that at the end.
    pub state: bool,
    /// Factor on the magnitude of everything.
    pub scale: f64,
    pub seed: u64,
}

/// Inputs of a scan.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub options: Options,
    pub u: Matrix,
    pub delta: Matrix,
    pub a: Matrix,
    pub bc: Matrix,
    pub d: Option<Matrix>,
    pub z: Option<Matrix>,
    pub bias: Option<Matrix>,
    pub dout: Matrix,
    /// The initial state and the gradient of the last one.
    pub ends: Option<[Matrix; 2]>,
}

impl Inputs {
    pub fn random(options: &Options) -> Self {
        let Options {
            shape: [batch, tokens, channels, states],
            pad,
            scale,
            ..
        } = *options;
        let rng = &mut Stream::new(options.seed, Purpose::Test, 0, 0);
        let full = [batch, tokens, channels];
        let (softplus, vector) = (options.softplus, [1, 1, channels]);
        Self {
            options: options.clone(),
            u: Matrix::random(rng, full, pad, |x| scale * x),
            // Steps without softplus are positive and small.
            delta: Matrix::random(rng, full, pad, |x| {
                if softplus {
                    scale * x - 1.0
                } else {
                    0.3 * x.abs()
                }
            }),
            a: Matrix::random(rng, [1, channels, states], 0, |x| -(0.8 * x).exp() * 2.0),
            bc: Matrix::random(rng, [batch, tokens, 2 * states], pad, |x| scale * x),
            d: options.d.then(|| Matrix::random(rng, vector, pad, |x| x)),
            z: options
                .z
                .then(|| Matrix::random(rng, full, 2 * pad, |x| 2.0 * x)),
            bias: options.bias.then(|| {
                Matrix::random(rng, vector, pad, |x| {
                    if softplus { x - 1.0 } else { 0.1 * x.abs() }
                })
            }),
            dout: Matrix::random(rng, full, pad, |x| x),
            ends: options.state.then(|| {
                [0, 1].map(|_| Matrix::random(rng, [batch, channels, states], pad, |x| scale * x))
            }),
        }
    }

    /// The same problem with the magnitudes of its inputs, the gate in that of `dout`. Steps and gains are
    /// positive anyway, so its sums are those of the magnitudes of this problem's terms.
    pub fn magnitudes(&self) -> Self {
        let mut inputs = self.clone();
        inputs.options.z = false;
        inputs.options.accumulate = false;
        if let Some(z) = inputs.z.take() {
            let layout = inputs.dout.layout;
            for b in 0..layout.batch {
                for t in 0..layout.tokens {
                    let (to, from) = (layout.row(b, t), z.layout.row(b, t));
                    for c in 0..layout.channels {
                        inputs.dout.wide[to + c] *= oracle::silu(z.wide[from + c]);
                    }
                }
            }
        }
        let vectors = inputs.d.iter_mut().chain(inputs.ends.iter_mut().flatten());
        let matrices = [&mut inputs.u, &mut inputs.bc, &mut inputs.dout];
        for matrix in vectors.chain(matrices) {
            matrix.wide.iter_mut().for_each(|x| *x = x.abs());
        }
        inputs
    }

    pub fn wide(&self) -> Scan<'_, [f64]> {
        Scan {
            u: self.u.wide(),
            delta: self.delta.wide(),
            a: self.a.wide(),
            bc: self.bc.wide(),
            d: self.d.as_ref().map(Matrix::wide),
            z: self.z.as_ref().map(Matrix::wide),
            delta_bias: self.bias.as_ref().map(Matrix::wide),
            initial_state: self.ends.as_ref().map(|[initial, _]| initial.wide()),
            delta_softplus: self.options.softplus,
            discretization: self.options.discretization,
            direction: self.options.direction,
        }
    }

    pub fn narrow(&self) -> Scan<'_, [f32]> {
        Scan {
            u: self.u.narrow(),
            delta: self.delta.narrow(),
            a: self.a.narrow(),
            bc: self.bc.narrow(),
            d: self.d.as_ref().map(Matrix::narrow),
            z: self.z.as_ref().map(Matrix::narrow),
            delta_bias: self.bias.as_ref().map(Matrix::narrow),
            initial_state: self.ends.as_ref().map(|[initial, _]| initial.narrow()),
            delta_softplus: self.options.softplus,
            discretization: self.options.discretization,
            direction: self.options.direction,
        }
    }
}

/// Results of a scan, forward and backward; each matrix holds the oracle's in float64 and the fast
/// code's in float32.
#[derive(Clone, Debug)]
pub struct Outputs {
    pub y: Matrix,
    pub last: Matrix,
    pub du: Matrix,
    pub ddelta: Matrix,
    pub dbc: Matrix,
    pub dz: Matrix,
    pub da: Matrix,
    /// [1, dD, 1, dbias, 1], the ones being 777.
    pub arena: Matrix,
    pub dinitial: Matrix,
}

impl Outputs {
    /// Memory that nothing has been written to, but what is added to.
    pub fn new(inputs: &Inputs) -> Self {
        let Options {
            shape: [batch, tokens, channels, states],
            pad,
            seed,
            ..
        } = inputs.options;
        let rng = &mut Stream::new(seed, Purpose::Test, 1, 0);
        let full = [batch, tokens, channels];
        let add = inputs.options.accumulate;
        let fresh = |rng: &mut Stream| {
            if add {
                Matrix::random(rng, full, pad, |x| x)
            } else {
                Matrix::sentinel(full, pad)
            }
        };
        let mut arena = vec![SENTINEL; 2 * channels + 3];
        arena[1..=channels].fill(0.5);
        arena[channels + 2..2 * channels + 2].fill(-0.25);
        Self {
            y: fresh(rng),
            last: Matrix::sentinel([batch, channels, states], pad),
            du: Matrix::sentinel(full, pad),
            ddelta: Matrix::sentinel(full, 0),
            dbc: Matrix::sentinel([batch, tokens, 2 * states], pad),
            dz: fresh(rng),
            da: Matrix::sentinel([1, channels, states], pad),
            arena: Matrix::new(Layout::vector(2 * channels + 3), arena),
            dinitial: Matrix::sentinel([batch, channels, states], pad),
        }
    }

    pub fn run_oracle(&mut self, inputs: &Inputs) {
        let accumulate = inputs.options.accumulate;
        let out = ScanOut {
            y: self.y.wide_mut(),
            accumulate,
            checkpoints: None,
            last_state: Some(self.last.wide_mut()),
        };
        oracle::scan(inputs.wide(), out).unwrap();
        let channels = inputs.options.shape[2];
        let grads = ScanGrads {
            du: self.du.wide_mut(),
            ddelta: self.ddelta.wide_mut(),
            dbc: self.dbc.wide_mut(),
            dz: inputs.z.as_ref().map(|_| self.dz.wide_mut()),
            accumulate_dz: accumulate,
            da: self.da.wide_mut(),
            arena: &mut self.arena.wide,
            d: Some(1),
            delta_bias: Some(channels + 2),
            dlast_state: inputs.ends.as_ref().map(|[_, last]| last.wide()),
            dinitial_state: inputs.options.state.then(|| self.dinitial.wide_mut()),
        };
        oracle::scan_backward(inputs.wide(), inputs.dout.wide(), grads).unwrap();
    }

    pub fn run_fast(&mut self, level: Level, inputs: &Inputs) {
        let accumulate = inputs.options.accumulate;
        let [batch, tokens, channels, states] = inputs.options.shape;
        let mut checkpoints = vec![f32::NAN; checkpoint_len(batch, tokens, channels, states)];
        let out = ScanOut {
            y: self.y.narrow_mut(),
            accumulate,
            checkpoints: Some(&mut checkpoints),
            last_state: Some(self.last.narrow_mut()),
        };
        cpu::scan(level, inputs.narrow(), out).unwrap();
        let grads = ScanGrads {
            du: self.du.narrow_mut(),
            ddelta: self.ddelta.narrow_mut(),
            dbc: self.dbc.narrow_mut(),
            dz: inputs.z.as_ref().map(|_| self.dz.narrow_mut()),
            accumulate_dz: accumulate,
            da: self.da.narrow_mut(),
            arena: &mut self.arena.narrow,
            d: Some(1),
            delta_bias: Some(channels + 2),
            dlast_state: inputs.ends.as_ref().map(|[_, last]| last.narrow()),
            dinitial_state: inputs.options.state.then(|| self.dinitial.narrow_mut()),
        };
        cpu::scan_backward(
            level,
            inputs.narrow(),
            &checkpoints,
            inputs.dout.narrow(),
            grads,
        )
        .unwrap();
    }

    /// Everything with its name.
    pub fn all(&self) -> [(&'static str, &Matrix); 9] {
        [
            ("y", &self.y),
            ("last_state", &self.last),
            ("du", &self.du),
            ("ddelta", &self.ddelta),
            ("dbc", &self.dbc),
            ("dz", &self.dz),
            ("da", &self.da),
            ("arena", &self.arena),
            ("dinitial_state", &self.dinitial),
        ]
    }
}
