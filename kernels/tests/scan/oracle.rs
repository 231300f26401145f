//! The scan and the convolution in float64, as loops written from the formulas.

use super::case::{Conv, Direction, Matrix, Problem};

pub fn softplus(x: f64) -> f64 {
    if x > 20.0 {
        x
    } else {
        x.max(0.0) + (-x.abs()).exp().ln_1p()
    }
}

pub fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x < 0.0 {
        e / (1.0 + e)
    } else {
        1.0 / (1.0 + e)
    }
}

pub fn silu(x: f64) -> f64 {
    // Minus infinity times 0 has the limit 0.
    if x < -1000.0 { 0.0 } else { x * sigmoid(x) }
}

pub fn silu_derivative(x: f64) -> f64 {
    let s = sigmoid(x);
    s * (1.0 + x.clamp(-1000.0, 1000.0) * sigmoid(-x))
}

/// The gain g of `B_bar = g B`, and its derivatives by delta and by A.
fn gain(hold: bool, delta: f64, a: f64) -> [f64; 3] {
    if !hold {
        return [delta, 1.0, 0.0];
    }
    let x = delta * a;
    // (x e^x - (e^x - 1)) / x^2 = sum of x^k (k + 1) / (k + 2)!
    let series = || {
        let (mut term, mut sum) = (0.5, 0.0);
        for k in 0..20 {
            sum += term * f64::from(k + 1);
            term *= x / f64::from(k + 3);
        }
        delta * delta * sum
    };
    let gain = if x == 0.0 { delta } else { x.exp_m1() / a };
    let by_a = if x.abs() < 0.5 {
        series()
    } else {
        (delta * x.exp() - gain) / a
    };
    [gain, x.exp(), by_a]
}

/// A float64 result of the shape of a token matrix.
#[derive(Clone, Debug)]
pub struct Wide {
    pub shape: [usize; 3],
    pub data: Vec<f64>,
}

impl Wide {
    pub fn zeros(shape: [usize; 3]) -> Self {
        let data = vec![0.0; shape.iter().product()];
        Self { shape, data }
    }

    pub fn of(matrix: &Matrix) -> Self {
        let mut wide = Self::zeros(matrix.shape);
        let [batch, tokens, channels] = matrix.shape;
        for b in 0..batch {
            for t in 0..tokens {
                for c in 0..channels {
                    *wide.at(b, t, c) = matrix.get(b, t, c);
                }
            }
        }
        wide
    }

    pub fn at(&mut self, b: usize, t: usize, c: usize) -> &mut f64 {
        let [_, tokens, channels] = self.shape;
        &mut self.data[(b * tokens + t) * channels + c]
    }
}

/// Gradients of one direction's operands.
#[derive(Clone, Debug)]
pub struct Gradients {
    pub du: Wide,
    pub ddelta: Wide,
    pub dbc: Wide,
    pub da: Wide,
    pub dd: Wide,
    pub dbias: Wide,
}

/// All results of a problem.
#[derive(Clone, Debug)]
pub struct Expected {
    pub y: Wide,
    pub last: Vec<Wide>,
    pub dz: Wide,
    pub gradients: Vec<Gradients>,
}

fn of(vector: &Option<Matrix>, c: usize) -> f64 {
    vector.as_ref().map_or(0.0, |v| v.get(0, 0, c))
}

fn token(reverse: bool, tokens: usize, position: usize) -> usize {
    if reverse {
        tokens - 1 - position
    } else {
        position
    }
}

/// delta and its derivative by the raw step.
fn step(dir: &Direction, b: usize, t: usize, c: usize) -> (f64, f64) {
    let raw = dir.delta.get(b, t, c) + of(&dir.bias, c);
    match (dir.softplus, raw > 20.0) {
        (false, _) => (raw, 1.0),
        (true, true) => (raw, 1.0),
        (true, false) => (softplus(raw), sigmoid(raw)),
    }
}

/// States before the first position and after each.
fn states(dir: &Direction, b: usize, c: usize) -> Vec<Vec<f64>> {
    let (tokens, n) = (dir.u.shape[1], dir.a.shape[2]);
    let mut all = vec![vec![0.0; n]];
    for p in 0..tokens {
        let t = token(dir.reverse, tokens, p);
        let (delta, _) = step(dir, b, t, c);
        let u = dir.u.get(b, t, c);
        let next = (0..n)
            .map(|i| {
                let a = dir.a.get(0, c, i);
                let [gain, ..] = gain(dir.hold, delta, a);
                (delta * a).exp() * all[p][i] + gain * dir.bc.get(b, t, i) * u
            })
            .collect();
        all.push(next);
    }
    all
}

pub fn solve(problem: &Problem) -> Expected {
    let [batch, tokens, channels, n] = problem.shape;
    let full = [batch, tokens, channels];
    let mut y = Wide::zeros(full);
    let mut last = Vec::new();
    for dir in &problem.directions {
        let mut end = Wide::zeros([batch, channels, n]);
        for b in 0..batch {
            for c in 0..channels {
                let states = states(dir, b, c);
                for p in 0..tokens {
                    let t = token(dir.reverse, tokens, p);
                    let read = |i: usize| dir.bc.get(b, t, n + i) * states[p + 1][i];
                    let sum: f64 = (0..n).map(read).sum();
                    *y.at(b, t, c) += sum + of(&dir.d, c) * dir.u.get(b, t, c);
                }
                for i in 0..n {
                    *end.at(b, c, i) = states[tokens][i];
                }
            }
        }
        last.push(end);
    }
    let mut dz = if problem.accumulate {
        Wide::of(&problem.dz)
    } else {
        Wide::zeros(full)
    };
    let mut dy = Wide::of(&problem.dout);
    if let Some(z) = &problem.z {
        let z = Wide::of(z);
        for (i, z) in z.data.iter().enumerate() {
            dz.data[i] += dy.data[i] * y.data[i] * silu_derivative(*z);
            dy.data[i] *= silu(*z);
        }
    }
    let gradients = problem
        .directions
        .iter()
        .map(|dir| backward(dir, &mut dy))
        .collect();
    if problem.accumulate {
        let before = Wide::of(&problem.y);
        for (y, before) in y.data.iter_mut().zip(&before.data) {
            *y += before;
        }
    }
    if let Some(z) = &problem.z {
        for (y, z) in y.data.iter_mut().zip(&Wide::of(z).data) {
            *y *= silu(*z);
        }
    }
    Expected {
        y,
        last,
        dz,
        gradients,
    }
}

fn backward(dir: &Direction, dy: &mut Wide) -> Gradients {
    let [batch, tokens, channels] = dir.u.shape;
    let n = dir.a.shape[2];
    let full = dir.u.shape;
    let mut g = Gradients {
        du: Wide::zeros(full),
        ddelta: Wide::zeros(full),
        dbc: Wide::zeros([batch, tokens, 2 * n]),
        da: Wide::zeros([1, channels, n]),
        dd: Wide::zeros([1, 1, channels]),
        dbias: Wide::zeros([1, 1, channels]),
    };
    for b in 0..batch {
        for c in 0..channels {
            let states = states(dir, b, c);
            let mut carry = vec![0.0; n];
            for p in (0..tokens).rev() {
                let t = token(dir.reverse, tokens, p);
                let ((delta, by_raw), u) = (step(dir, b, t, c), dir.u.get(b, t, c));
                let dy = *dy.at(b, t, c);
                let (mut du, mut ddelta) = (of(&dir.d, c) * dy, 0.0);
                *g.dd.at(0, 0, c) += dy * u;
                for i in 0..n {
                    let (a, before) = (dir.a.get(0, c, i), states[p][i]);
                    let (input, read) = (dir.bc.get(b, t, i), dir.bc.get(b, t, n + i));
                    let decay = (delta * a).exp();
                    let [gain, by_delta, by_a] = gain(dir.hold, delta, a);
                    *g.dbc.at(b, t, n + i) += dy * states[p + 1][i];
                    let dh = dy * read + carry[i];
                    let (ddecay, dgain) = (dh * before, dh * input * u);
                    *g.dbc.at(b, t, i) += dh * gain * u;
                    *g.da.at(0, c, i) += ddecay * decay * delta + dgain * by_a;
                    ddelta += ddecay * decay * a + dgain * by_delta;
                    du += dh * gain * input;
                    carry[i] = dh * decay;
                }
                *g.du.at(b, t, c) = du;
                *g.ddelta.at(b, t, c) = ddelta * by_raw;
                *g.dbias.at(0, 0, c) += ddelta * by_raw;
            }
        }
    }
    g
}

/// The convolution before SiLU at a position of the walk.
fn convolved(x: &Matrix, conv: &Conv, b: usize, p: usize, c: usize) -> f64 {
    let width = conv.weight.shape[2];
    let mut sum = of(&conv.bias, c);
    for k in 0..width {
        let back = width - 1 - k;
        if p >= back {
            let t = token(conv.reverse, x.shape[1], p - back);
            sum += conv.weight.get(0, c, k) * x.get(b, t, c);
        }
    }
    sum
}

pub fn convolve(x: &Matrix, conv: &Conv) -> Wide {
    let [batch, tokens, channels] = x.shape;
    let mut out = Wide::zeros(x.shape);
    for b in 0..batch {
        for p in 0..tokens {
            for c in 0..channels {
                let sum = convolved(x, conv, b, p, c);
                let t = token(conv.reverse, tokens, p);
                *out.at(b, t, c) = if conv.silu { silu(sum) } else { sum };
            }
        }
    }
    out
}

/// dx (what it held before is `dx`), dweight, dbias.
pub fn convolve_backward(x: &Matrix, conv: &Conv, dout: &Matrix, dx: Wide) -> [Wide; 3] {
    let [batch, tokens, channels] = x.shape;
    let width = conv.weight.shape[2];
    let mut dx = dx;
    let mut dweight = Wide::zeros([1, channels, width]);
    let mut dbias = Wide::zeros([1, 1, channels]);
    for b in 0..batch {
        for p in 0..tokens {
            for c in 0..channels {
                let t = token(conv.reverse, tokens, p);
                let mut ds = dout.get(b, t, c);
                if conv.silu {
                    ds *= silu_derivative(convolved(x, conv, b, p, c));
                }
                *dbias.at(0, 0, c) += ds;
                for k in 0..width {
                    let back = width - 1 - k;
                    if p >= back {
                        let t = token(conv.reverse, tokens, p - back);
                        *dweight.at(0, c, k) += ds * x.get(b, t, c);
                        *dx.at(b, t, c) += ds * conv.weight.get(0, c, k);
                    }
                }
            }
        }
    }
    [dx, dweight, dbias]
}
