//! What approximate instructions may do to a scan: a bound for each element of each output, computed
//! beside the float64 oracle by walking the recurrence, its adjoint and all sums on [`Off`].

use anyhow::Result;
use dis_scan::{Direction, Discretization, Scan};
use dis_tensor::{HostBuf, Layout, Reference, Tokens};

use super::data::{Draw, Field, plain};
use super::off::{Off, hold, silu, silu_slope, softplus, softplus_slope};
use super::state_space::{Inputs, ScanCase};

type Scans<'a> = Scan<'a, HostBuf<f64>>;
type View<'a> = Tokens<'a, HostBuf<f64>>;

fn at(x: &View<'_>, b: usize, t: usize, c: usize) -> f64 {
    x.buf[x.layout.row(b, t) + c]
}

fn of(x: &Option<View<'_>>, c: usize) -> f64 {
    x.as_ref().map_or(0.0, |x| at(x, 0, 0, c))
}

/// A dense token matrix.
#[derive(Clone)]
struct Dense {
    shape: [usize; 3],
    data: Vec<Off>,
}

impl Dense {
    fn new(shape: [usize; 3]) -> Self {
        let data = vec![Off::default(); shape.iter().product()];
        Self { shape, data }
    }

    fn get(&self, b: usize, t: usize, c: usize) -> Off {
        let [_, tokens, channels] = self.shape;
        self.data[(b * tokens + t) * channels + c]
    }

    fn at(&mut self, b: usize, t: usize, c: usize) -> &mut Off {
        let [_, tokens, channels] = self.shape;
        &mut self.data[(b * tokens + t) * channels + c]
    }

    fn map(&self, f: impl Fn(usize, usize, usize, Off) -> Off) -> Self {
        let mut out = self.clone();
        let [batch, tokens, channels] = self.shape;
        for b in 0..batch {
            for t in 0..tokens {
                for c in 0..channels {
                    let x = out.at(b, t, c);
                    *x = f(b, t, c, *x);
                }
            }
        }
        out
    }

    /// Adds what the elements may be off to a buffer, where they lie in it.
    fn place(&self, layout: Layout, into: &mut [f64]) {
        let [batch, tokens, channels] = self.shape;
        for b in 0..batch {
            for t in 0..tokens {
                for c in 0..channels {
                    into[layout.row(b, t) + c] += self.get(b, t, c).by;
                }
            }
        }
    }
}

/// What one scan gives, forward.
struct Forward {
    /// Before the gate.
    y: Dense,
    /// (batch, channels, states).
    last: Dense,
}

/// What one scan gives, backward.
struct Backward {
    du: Dense,
    ddelta: Dense,
    dbc: Dense,
    da: Dense,
    /// Gradients of the skip, then of the bias of delta.
    vectors: Vec<Off>,
}

fn token(direction: Direction, tokens: usize, position: usize) -> usize {
    match direction {
        Direction::Forward => position,
        Direction::Reverse => tokens - 1 - position,
    }
}

/// The step at a token, with its derivative by the raw one.
fn step(scan: &Scans<'_>, b: usize, t: usize, c: usize) -> [Off; 2] {
    let raw = at(&scan.delta, b, t, c) + of(&scan.delta_bias, c);
    if scan.delta_softplus {
        [softplus(raw), softplus_slope(raw)]
    } else {
        [raw.into(), 1.0.into()]
    }
}

/// Gain of the input, with its derivatives by delta and by A.
fn gain(scan: &Scans<'_>, delta: Off, a: f64) -> [Off; 3] {
    match scan.discretization {
        Discretization::Mamba => [delta, 1.0.into(), 0.0.into()],
        Discretization::ZeroOrderHold => hold(delta, a),
    }
}

/// States of one channel: before the first token, then after each of the walk.
fn states(scan: &Scans<'_>, b: usize, c: usize) -> Vec<Vec<Off>> {
    let (tokens, n) = (scan.u.layout.tokens, scan.a.layout.channels);
    let mut all = vec![vec![Off::default(); n]];
    for p in 0..tokens {
        let t = token(scan.direction, tokens, p);
        let ([delta, _], u) = (step(scan, b, t, c), at(&scan.u, b, t, c));
        let next = |i: usize| {
            let a = at(&scan.a, 0, c, i);
            let [gain, ..] = gain(scan, delta, a);
            (delta * a).exp() * all[p][i] + gain * (at(&scan.bc, b, t, i) * u)
        };
        let next = (0..n).map(next).collect();
        all.push(next);
    }
    all
}

fn forward(scan: &Scans<'_>) -> Forward {
    let [batch, tokens, channels] = scan.u.layout.shape();
    let n = scan.a.layout.channels;
    let mut out = Forward {
        y: Dense::new([batch, tokens, channels]),
        last: Dense::new([batch, channels, n]),
    };
    for b in 0..batch {
        for c in 0..channels {
            let states = states(scan, b, c);
            for p in 0..tokens {
                let t = token(scan.direction, tokens, p);
                let mut y = Off::from(of(&scan.d, c) * at(&scan.u, b, t, c));
                for (i, &h) in states[p + 1].iter().enumerate() {
                    y = y + h * at(&scan.bc, b, t, n + i);
                }
                *out.y.at(b, t, c) = y;
            }
            for (i, &h) in states[tokens].iter().enumerate() {
                *out.last.at(b, c, i) = h;
            }
        }
    }
    out
}

/// `dy` is the gradient of what [`forward`] gives, before the gate.
fn backward(scan: &Scans<'_>, dy: &Dense) -> Backward {
    let [batch, tokens, channels] = scan.u.layout.shape();
    let n = scan.a.layout.channels;
    let mut out = Backward {
        du: Dense::new([batch, tokens, channels]),
        ddelta: Dense::new([batch, tokens, channels]),
        dbc: Dense::new([batch, tokens, 2 * n]),
        da: Dense::new([1, channels, n]),
        vectors: vec![Off::default(); 2 * channels],
    };
    let add = |to: &mut Off, x: Off| *to = *to + x;
    for b in 0..batch {
        for c in 0..channels {
            let states = states(scan, b, c);
            let mut carry = vec![Off::default(); n];
            for p in (0..tokens).rev() {
                let t = token(scan.direction, tokens, p);
                let ([delta, slope], u) = (step(scan, b, t, c), at(&scan.u, b, t, c));
                let dy = dy.get(b, t, c);
                let (mut du, mut ddelta) = (dy * of(&scan.d, c), Off::default());
                add(&mut out.vectors[c], dy * u);
                for i in 0..n {
                    let a = at(&scan.a, 0, c, i);
                    let (input, read) = (at(&scan.bc, b, t, i), at(&scan.bc, b, t, n + i));
                    let decay = (delta * a).exp();
                    let [gain, by_delta, by_a] = gain(scan, delta, a);
                    let dh = dy * read + carry[i];
                    let (ddecay, dgain) = (dh * states[p][i] * decay, dh * (input * u));
                    add(out.dbc.at(b, t, n + i), dy * states[p + 1][i]);
                    add(out.dbc.at(b, t, i), dh * gain * u);
                    add(out.da.at(0, c, i), ddecay * delta + dgain * by_a);
                    ddelta = ddelta + ddecay * a + dgain * by_delta;
                    du = du + dh * gain * input;
                    carry[i] = dh * decay;
                }
                ddelta = ddelta * slope;
                *out.du.at(b, t, c) = du;
                *out.ddelta.at(b, t, c) = ddelta;
                add(&mut out.vectors[channels + c], ddelta);
            }
        }
    }
    out
}

/// A gate and what passes it.
struct Gate<'a>(Option<View<'a>>);

impl Gate<'_> {
    fn through(&self, y: &Dense) -> Dense {
        y.map(|b, t, c, y| match &self.0 {
            Some(z) => y * silu(at(z, b, t, c)),
            None => y,
        })
    }

    /// The gradient before the gate, of one behind it.
    fn back(&self, dout: &View<'_>) -> Dense {
        let given = Dense::new(dout.layout.shape()).map(|b, t, c, _| at(dout, b, t, c).into());
        self.through(&given)
    }

    /// The gradient of the gate, of what it was given.
    fn slope(&self, y: &Dense, dout: &View<'_>) -> Dense {
        y.map(|b, t, c, y| match &self.0 {
            Some(z) => y * silu_slope(at(z, b, t, c)) * at(dout, b, t, c),
            None => Off::default(),
        })
    }
}

/// As many zeros as a field has elements, with the bounds of `x` where it lies.
fn placed(field: &Field<Reference>, x: Dense) -> Vec<f64> {
    let mut out = vec![0.0; field.buf.len()];
    x.place(field.layout, &mut out);
    out
}

/// For each output of [`super::state_space::scan`], in its order, what each element of its buffer
/// may be off. Operands are drawn as there.
pub fn scan(case: &ScanCase, seed: u64) -> Result<Vec<Vec<f64>>> {
    let reference = Reference::new();
    let mut d = Draw::new(&reference, seed, (seed % 4) as usize);
    let [batch, tokens, channels] = case.shape;
    let (states, pairs) = (case.states, [batch, tokens, 2 * case.states]);
    let inputs = Inputs::new(&mut d, case);
    let one = inputs.scan(case, case.direction);
    let (y, last) = (
        d.field(case.shape, plain),
        d.field([batch, channels, states], plain),
    );
    let dout = d.field(case.shape, plain);
    let (du, ddelta) = (d.field(case.shape, plain), d.field(case.shape, plain));
    let dbc = d.field(pairs, plain);
    let dz = d.field(case.shape, plain);
    let da = d.field([1, channels, states], plain);
    let arena = d.dense([1, 1, 2 * channels + 3], plain);
    let gate = Gate(one.z);
    let run = forward(&one);
    // What is added to has no error, but the gate has one of the sum.
    let summed = match case.accumulate {
        true => run.y.map(|b, t, c, x| x + at(&y.view(), b, t, c).into()),
        false => run.y.clone(),
    };
    let grads = backward(&one, &gate.back(&dout.view()));
    let vectors = |parts: [(&Backward, [usize; 2]); 2], len: usize| {
        let mut out = vec![0.0; len];
        for (grads, starts) in parts.into_iter().filter(|_| case.full) {
            for (start, part) in starts.into_iter().zip(grads.vectors.chunks(channels)) {
                for (to, x) in out[start..].iter_mut().zip(part) {
                    *to = x.by;
                }
            }
        }
        out
    };
    let places = [1, channels + 2];
    let mut out = vec![
        placed(&y, gate.through(&summed)),
        placed(&last, run.last),
        placed(&du, grads.du.clone()),
        placed(&ddelta, grads.ddelta.clone()),
        placed(&dbc, grads.dbc.clone()),
        placed(&dz, gate.slope(&run.y, &dout.view())),
        placed(&da, grads.da.clone()),
        vectors([(&grads, places), (&grads, places)], arena.buf.len()),
    ];

    let other = Inputs::new(&mut d, case);
    let both = d.field(case.shape, plain);
    let scans = [
        inputs.scan(case, Direction::Forward),
        other.scan(case, Direction::Reverse),
    ];
    let gate = Gate(case.full.then(|| inputs.z.view()));
    let [first, second] = scans.each_ref().map(|scan| forward(scan).y);
    let sum = first.map(|b, t, c, x| x + second.get(b, t, c));
    out.push(placed(&both, gate.through(&sum)));
    let dy = gate.back(&dout.view());
    let grads = scans.each_ref().map(|scan| backward(scan, &dy));
    for grads in &grads {
        // As drawn there: of each scan du, ddelta, dB and dC, dA.
        let fields = [case.shape, case.shape, pairs, [1, channels, states]];
        let parts = [&grads.du, &grads.ddelta, &grads.dbc, &grads.da];
        for (shape, part) in fields.into_iter().zip(parts) {
            out.push(placed(&d.field(shape, plain), part.clone()));
        }
    }
    let dz = d.field(case.shape, plain);
    out.push(placed(&dz, gate.slope(&sum, &dout.view())));
    let arena = d.dense([1, 1, 4 * channels], plain);
    let places = [[0, channels], [2 * channels, 3 * channels]];
    out.push(vectors(
        [(&grads[0], places[0]), (&grads[1], places[1])],
        arena.buf.len(),
    ));
    Ok(out)
}
