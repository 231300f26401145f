//! Random problems, on the host and on the simulated device.

use dis_kernels::scan::{ConvWalk, ForwardWalk, Walk};
use dis_kernels::sim::{Options, Sim};
use dis_kernels::{Block, Driver, Mat, MatMut, Pool};

/// What unwritten memory holds.
pub const SENTINEL: f32 = 777.0;

/// Pseudo-random numbers (splitmix64; Steele, Lea and Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// About normal: a sum of uniform numbers of variance 1.
    pub fn normal(&mut self) -> f64 {
        let unit = |bits: u64| (bits >> 11) as f64 / (1u64 << 53) as f64;
        (0..12).map(|_| unit(self.bits())).sum::<f64>() - 6.0
    }

    pub fn flag(&mut self) -> bool {
        self.bits() >> 63 == 1
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.bits() >> 8) as usize % from.len()]
    }
}

/// A token matrix in memory of its own, with gaps between rows and samples.
#[derive(Clone, Debug)]
pub struct Matrix {
    pub shape: [usize; 3],
    pub offset: usize,
    pub row_stride: usize,
    pub batch_stride: usize,
    pub data: Vec<f32>,
}

impl Matrix {
    pub fn new(shape: [usize; 3], pad: usize, value: impl FnMut() -> f64) -> Self {
        Self::placed(shape, pad, pad, value)
    }

    /// From an offset on, with gaps of `pad` between rows.
    pub fn placed(
        shape: [usize; 3],
        offset: usize,
        pad: usize,
        mut value: impl FnMut() -> f64,
    ) -> Self {
        let [batch, tokens, channels] = shape;
        let row_stride = channels + pad;
        let batch_stride = tokens * row_stride + 2 * pad;
        let len = offset + batch * batch_stride;
        Self {
            shape,
            offset,
            row_stride,
            batch_stride,
            data: (0..len).map(|_| value() as f32).collect(),
        }
    }

    pub fn sentinel(shape: [usize; 3], pad: usize) -> Self {
        Self::new(shape, pad, || f64::from(SENTINEL))
    }

    fn index(&self, b: usize, t: usize, c: usize) -> usize {
        self.offset + b * self.batch_stride + t * self.row_stride + c
    }

    pub fn get(&self, b: usize, t: usize, c: usize) -> f64 {
        f64::from(self.data[self.index(b, t, c)])
    }

    pub fn set(&mut self, b: usize, t: usize, c: usize, value: f32) {
        let index = self.index(b, t, c);
        self.data[index] = value;
    }

    /// Whether each element of the memory belongs to the matrix.
    pub fn inside(&self) -> Vec<bool> {
        let mut inside = vec![false; self.data.len()];
        let [batch, tokens, channels] = self.shape;
        for b in 0..batch {
            for t in 0..tokens {
                let start = self.index(b, t, 0);
                inside[start..start + channels].fill(true);
            }
        }
        inside
    }
}

/// A matrix on the device.
pub struct Placed {
    pub block: Block<Sim>,
    pub host: Matrix,
}

impl Placed {
    pub fn mat(&self) -> Mat {
        let [batch, tokens, channels] = self.host.shape;
        Mat {
            ptr: self.block.ptr().at(self.host.offset as u64),
            batch,
            tokens,
            channels,
            row_stride: self.host.row_stride,
            batch_stride: self.host.batch_stride,
        }
    }

    pub fn mat_mut(&self) -> MatMut {
        let [batch, tokens, channels] = self.host.shape;
        MatMut {
            ptr: self.block.ptr_mut().at(self.host.offset as u64),
            batch,
            tokens,
            channels,
            row_stride: self.host.row_stride,
            batch_stride: self.host.batch_stride,
        }
    }
}

/// A simulated device.
pub struct Device {
    pub sim: Sim,
    pub pool: Pool<Sim>,
}

impl Device {
    pub fn new(options: Options) -> Self {
        let sim = Sim::new(options);
        let pool = Pool::new(sim.clone());
        Self { sim, pool }
    }

    pub fn put(&self, host: &Matrix) -> Placed {
        let block = self.pool.take(4 * host.data.len()).unwrap();
        let bytes = bytemuck::cast_slice(&host.data);
        self.sim.upload(block.address(), bytes).unwrap();
        let host = host.clone();
        Placed { block, host }
    }

    /// A matrix whose elements count as never written: reading them is a fault. What lies around it
    /// is as on the host.
    pub fn put_unwritten(&self, host: &Matrix) -> Placed {
        let placed = self.put(host);
        let [batch, tokens, channels] = host.shape;
        for b in 0..batch {
            for t in 0..tokens {
                let row = placed.block.address() + 4 * host.index(b, t, 0) as u64;
                self.sim.mark_uninitialised(row, 4 * channels);
            }
        }
        placed
    }

    /// Memory that nothing has been written to.
    pub fn raw(&self, elements: usize) -> Block<Sim> {
        self.pool.take(4 * elements).unwrap()
    }

    pub fn get(&self, placed: &Placed) -> Matrix {
        let mut host = placed.host.clone();
        let bytes = bytemuck::cast_slice_mut(&mut host.data);
        self.sim.download(placed.block.address(), bytes).unwrap();
        host
    }
}

/// One direction's operands.
#[derive(Clone, Debug)]
pub struct Direction {
    pub u: Matrix,
    pub delta: Matrix,
    pub a: Matrix,
    pub bc: Matrix,
    pub d: Option<Matrix>,
    pub bias: Option<Matrix>,
    pub softplus: bool,
    pub hold: bool,
    pub reverse: bool,
}

/// A gap of its own for each operand, so that no two have the same strides; none if `pad` is 0.
pub fn gap(pad: usize, operand: usize) -> usize {
    if pad == 0 { 0 } else { pad + operand }
}

/// What a problem has; [`Setup::plain`] is the mixer's.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Batch, tokens, channels, states.
    pub shape: [usize; 4],
    /// Directions of the walks: whether each is the reverse one.
    pub reverse: Vec<bool>,
    pub pad: usize,
    pub hold: bool,
    pub d: bool,
    pub z: bool,
    pub bias: bool,
    pub softplus: bool,
    pub accumulate: bool,
    pub seed: u64,
}

impl Setup {
    pub fn plain(shape: [usize; 4]) -> Self {
        Self {
            shape,
            reverse: vec![false, true],
            pad: 0,
            hold: false,
            d: true,
            z: true,
            bias: true,
            softplus: true,
            accumulate: false,
            seed: 7,
        }
    }

    /// A mixture of everything.
    pub fn random(seed: u64, shape: [usize; 4]) -> Self {
        let rng = &mut Random(seed);
        Self {
            shape,
            reverse: rng.pick(&[&[false][..], &[true], &[false, true]]).to_vec(),
            pad: rng.pick(&[0, 1, 3]),
            hold: rng.flag(),
            d: rng.flag(),
            z: rng.flag(),
            bias: rng.flag(),
            softplus: rng.flag(),
            accumulate: rng.flag(),
            seed,
        }
    }
}

/// Inputs of a scan, forward and backward.
#[derive(Clone, Debug)]
pub struct Problem {
    pub shape: [usize; 4],
    pub pad: usize,
    pub directions: Vec<Direction>,
    pub z: Option<Matrix>,
    pub dout: Matrix,
    pub accumulate: bool,
    /// What y and dz hold before.
    pub y: Matrix,
    pub dz: Matrix,
}

impl Problem {
    pub fn new(setup: &Setup) -> Self {
        let Setup { shape, pad, .. } = *setup;
        let [batch, tokens, channels, states] = shape;
        let (full, vector) = ([batch, tokens, channels], [1, 1, channels]);
        let rng = &mut Random(setup.seed);
        let directions = setup
            .reverse
            .iter()
            .enumerate()
            .map(|(i, &reverse)| Direction {
                u: Matrix::new(full, gap(pad, i), || rng.normal()),
                // Steps without softplus are positive and small.
                delta: Matrix::new(full, gap(pad, 2 + i), || {
                    let x = rng.normal();
                    if setup.softplus {
                        x - 1.0
                    } else {
                        0.3 * x.abs()
                    }
                }),
                // Rows aligned to 16 bytes in memory that is not, and the other way round.
                a: {
                    let (offset, pad) = match (pad, i) {
                        (0, _) => (0, 0),
                        (_, 0) => (4, 1),
                        _ => (1, 4),
                    };
                    let value = || -(0.8 * rng.normal()).exp() * 2.0;
                    Matrix::placed([1, channels, states], offset, pad, value)
                },
                bc: Matrix::new([batch, tokens, 2 * states], gap(pad, 4 + i), || {
                    rng.normal()
                }),
                d: setup.d.then(|| Matrix::new(vector, pad, || rng.normal())),
                bias: setup.bias.then(|| {
                    Matrix::new(vector, pad, || {
                        let x = rng.normal();
                        if setup.softplus {
                            x - 1.0
                        } else {
                            0.1 * x.abs()
                        }
                    })
                }),
                softplus: setup.softplus,
                hold: setup.hold,
                reverse,
            })
            .collect();
        let fresh = |rng: &mut Random, pad| {
            if setup.accumulate {
                Matrix::new(full, pad, || rng.normal())
            } else {
                Matrix::sentinel(full, pad)
            }
        };
        Self {
            shape,
            pad,
            directions,
            z: setup
                .z
                .then(|| Matrix::new(full, 2 * pad, || 2.0 * rng.normal())),
            dout: Matrix::new(full, gap(pad, 7), || rng.normal()),
            accumulate: setup.accumulate,
            y: fresh(rng, gap(pad, 6)),
            dz: fresh(rng, gap(pad, 8)),
        }
    }
}

/// A direction on the device.
pub struct PlacedDirection {
    u: Placed,
    delta: Placed,
    a: Placed,
    bc: Placed,
    d: Option<Placed>,
    bias: Option<Placed>,
    flags: [bool; 3],
    pub checkpoints: Block<Sim>,
    pub last: Placed,
}

impl PlacedDirection {
    pub fn new(device: &Device, problem: &Problem, dir: &Direction) -> Self {
        let [batch, tokens, channels, states] = problem.shape;
        let len = dis_kernels::scan::checkpoint_len(batch, tokens, channels, states);
        let pad = gap(problem.pad, dir.reverse.into());
        let last = Matrix::sentinel([batch, channels, states], pad);
        Self {
            u: device.put(&dir.u),
            delta: device.put(&dir.delta),
            a: device.put(&dir.a),
            bc: device.put(&dir.bc),
            d: dir.d.as_ref().map(|d| device.put(d)),
            bias: dir.bias.as_ref().map(|bias| device.put(bias)),
            flags: [dir.softplus, dir.hold, dir.reverse],
            checkpoints: device.raw(len),
            last: device.put_unwritten(&last),
        }
    }

    pub fn walk(&self) -> Walk {
        let [softplus, hold, reverse] = self.flags;
        Walk {
            u: self.u.mat(),
            delta: self.delta.mat(),
            a: self.a.mat(),
            bc: self.bc.mat(),
            d: self.d.as_ref().map(Placed::mat),
            delta_bias: self.bias.as_ref().map(Placed::mat),
            softplus,
            hold,
            reverse,
        }
    }

    pub fn forward(&self, extras: bool) -> ForwardWalk {
        ForwardWalk {
            walk: self.walk(),
            checkpoints: extras.then(|| self.checkpoints.ptr_mut()),
            last: extras.then(|| self.last.mat_mut()),
        }
    }
}

/// One direction of a convolution.
#[derive(Clone, Debug)]
pub struct Conv {
    pub weight: Matrix,
    pub bias: Option<Matrix>,
    pub silu: bool,
    pub reverse: bool,
}

/// The convolution's operands on the device.
pub struct PlacedConv {
    weight: Placed,
    bias: Option<Placed>,
    silu: bool,
    reverse: bool,
}

impl PlacedConv {
    pub fn new(device: &Device, conv: &Conv) -> Self {
        Self {
            weight: device.put(&conv.weight),
            bias: conv.bias.as_ref().map(|bias| device.put(bias)),
            silu: conv.silu,
            reverse: conv.reverse,
        }
    }

    pub fn walk(&self) -> ConvWalk {
        ConvWalk {
            weight: self.weight.mat(),
            bias: self.bias.as_ref().map(Placed::mat),
            silu: self.silu,
            reverse: self.reverse,
        }
    }
}
