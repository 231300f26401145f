//! Operands on a simulated device, and the comparison of results with formulas in float64.

use dis_kernels::sim::{Options, Sim};
use dis_kernels::{Block, Contract, Driver, Mat, MatMut, Pool, Ready, launch};

pub struct Bench {
    pub sim: Sim,
    pub pool: Pool<Sim>,
    pub next: u64,
}

/// A matrix with room around it, on the device and on the host.
pub struct Field {
    pub block: Block<Sim>,
    pub host: Vec<f32>,
    pub shape: [usize; 3],
    pub pad: usize,
}

impl Field {
    pub fn mat(&self) -> Mat {
        let [batch, tokens, channels] = self.shape;
        let row = channels + self.pad;
        Mat {
            ptr: self.block.ptr::<f32>().at(self.pad as u64),
            batch,
            tokens,
            channels,
            row_stride: row,
            batch_stride: tokens * row + self.pad,
        }
    }

    pub fn mat_mut(&self) -> MatMut {
        let x = self.mat();
        MatMut {
            ptr: self.block.ptr_mut::<f32>().at(self.pad as u64),
            batch: x.batch,
            tokens: x.tokens,
            channels: x.channels,
            row_stride: x.row_stride,
            batch_stride: x.batch_stride,
        }
    }

    pub fn index(&self, b: usize, t: usize, c: usize) -> usize {
        let x = self.mat();
        self.pad + b * x.batch_stride + t * x.row_stride + c
    }

    pub fn at(&self, b: usize, t: usize, c: usize) -> f64 {
        f64::from(self.host[self.index(b, t, c)])
    }
}

impl Bench {
    pub fn new() -> Self {
        let sim = Sim::new(Options::default());
        Self {
            pool: Pool::new(sim.clone()),
            sim,
            next: 1,
        }
    }

    /// Numbers around zero that repeat only after long.
    pub fn number(&mut self) -> f32 {
        self.next = self
            .next
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.next >> 33) as f64 / f64::from(1u32 << 30) - 1.0) as f32 * 2.0
    }

    pub fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }

    pub fn put<T: bytemuck::Pod>(&self, values: &[T]) -> Block<Sim> {
        let block = self.pool.take(size_of_val(values)).unwrap();
        self.sim
            .upload(block.address(), bytemuck::cast_slice(values))
            .unwrap();
        block
    }

    pub fn get(&self, block: &Block<Sim>) -> Vec<f32> {
        let mut values = vec![0.0f32; block.bytes() / 4];
        self.sim
            .download(block.address(), bytemuck::cast_slice_mut(&mut values))
            .unwrap();
        values
    }

    pub fn field(&mut self, shape: [usize; 3], pad: usize) -> Field {
        let [batch, tokens, channels] = shape;
        let stride = tokens * (channels + pad) + pad;
        let host = self.numbers(pad + batch * stride + pad);
        let block = self.put(&host);
        Field {
            block,
            host,
            shape,
            pad,
        }
    }

    pub fn run<C: Contract>(&self, kernel: dis_kernels::Result<Ready<C>>) {
        launch(&self.sim, &kernel.unwrap()).unwrap();
    }

    /// What lies in `out` is `want`, to `tolerance` of the largest, and around it what was there.
    pub fn check(
        &self,
        what: &str,
        out: &Field,
        tolerance: f64,
        want: impl Fn(usize, usize, usize) -> f64,
    ) {
        let got = self.get(&out.block);
        let [batch, tokens, channels] = out.shape;
        let mut expected = vec![None; got.len()];
        for b in 0..batch {
            for t in 0..tokens {
                for c in 0..channels {
                    expected[out.index(b, t, c)] = Some(want(b, t, c));
                }
            }
        }
        let largest = expected
            .iter()
            .flatten()
            .fold(0.0, |m: f64, x| m.max(x.abs()));
        for (i, (&got, want)) in got.iter().zip(&expected).enumerate() {
            match want {
                Some(want) => assert!(
                    (f64::from(got) - want).abs() <= tolerance * largest,
                    "{what} at {i}: {got}, not {want}"
                ),
                None => assert_eq!(
                    got.to_bits(),
                    out.host[i].to_bits(),
                    "{what}: beside, at {i}"
                ),
            }
        }
    }
}
