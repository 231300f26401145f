//! The kernels that are timed, with operands of their own: the same code makes them for a GPU and
//! for the simulator that counts what they cost.

use anyhow::Result;
use dis_kernels::bf16::{Bf16Mat, GemmBf16, RoundBf16};
use dis_kernels::driver::GemmCall;
use dis_kernels::elementwise::{
    AddProduct, Axpy, Copy, Fill, NegExp, ScaleSamples, Silu, SiluBackward,
};
use dis_kernels::embed::{Gather, ScatterAdd};
use dis_kernels::gemm::Gemm;
use dis_kernels::norm::{self, NormBackward, NormForward, NormParamSums};
use dis_kernels::optim::{AdamW, NormFinish, SquareSums, norm_partials};
use dis_kernels::patch::{Grid, Patchify, Unpatchify};
use dis_kernels::reduce::{self, SumRows};
use dis_kernels::softmax::{SoftmaxBackward, SoftmaxForward};
use dis_kernels::{
    Block, Contract, Driver, Kernel as _, Mat, MatMut, Pool, Ptr, PtrMut, Ready, launch,
};

use super::{images, state_space};

/// Sizes of the kernels' operands.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Samples.
    pub batch: usize,
    /// Tokens of a sample.
    pub tokens: usize,
    /// Channels of the state space.
    pub channels: usize,
    /// States of a channel.
    pub states: usize,
}

/// What is timed, and what docs/kernels.md tells costs of: DiS-B/2 with a label.
pub const SHAPE: Shape = Shape {
    batch: 64,
    tokens: 258,
    channels: 1536,
    states: 16,
};

impl Shape {
    /// Channels of the residual stream, half of those of the state space.
    pub fn width(&self) -> usize {
        self.channels / 2
    }

    /// Heads of attention of that width: as many as leave at least 64 channels to each.
    pub fn heads(&self) -> usize {
        let width = self.width();
        (1..=width / 64)
            .rev()
            .find(|&h| width.is_multiple_of(h))
            .unwrap_or(1)
    }
}

type Launcher<D> = Box<dyn Fn(&D) -> dis_kernels::Result<()>>;

/// A kernel, ready to be launched again and again.
pub struct Work<D: Driver> {
    launch: Launcher<D>,
    /// Bytes of all that it must read and write, each once.
    pub least: usize,
    /// What its pointers point to.
    _memory: Vec<Block<D>>,
}

impl<D: Driver> Work<D> {
    /// Launches it once.
    pub fn launch(&self, driver: &D) -> Result<()> {
        Ok((self.launch)(driver)?)
    }
}

/// Device memory for operands.
pub struct Memory<'a, D: Driver> {
    pool: &'a Pool<D>,
    blocks: Vec<Block<D>>,
    seed: u32,
    least: usize,
}

impl<'a, D: Driver> Memory<'a, D> {
    /// From a pool.
    pub fn new(pool: &'a Pool<D>) -> Self {
        Self {
            pool,
            blocks: Vec::new(),
            seed: 1,
            least: 0,
        }
    }

    /// Values to be read.
    pub fn put<T: bytemuck::Pod>(&mut self, values: &[T]) -> Result<&Block<D>> {
        let bytes = bytemuck::cast_slice(values);
        let block = self.pool.take(bytes.len())?;
        self.least += bytes.len();
        self.pool.driver().upload(block.address(), bytes)?;
        self.blocks.push(block);
        Ok(&self.blocks[self.blocks.len() - 1])
    }

    /// Values spread over a range.
    pub fn values(&mut self, len: usize, low: f32, high: f32) -> Result<PtrMut<f32>> {
        self.seed += 1;
        let mut state = self.seed.wrapping_mul(0x9e37_79b9);
        let values: Vec<f32> = (0..len)
            .map(|_| {
                // Numerical Recipes' quick generator: only the spread matters here.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                low + (high - low) * (state >> 8) as f32 / (1 << 24) as f32
            })
            .collect();
        Ok(self.put(&values)?.ptr_mut())
    }

    /// A dense matrix of such values.
    pub fn mat(&mut self, shape: [usize; 3], low: f32, high: f32) -> Result<MatMut> {
        let [batch, tokens, channels] = shape;
        let ptr = self.values(batch * tokens * channels, low, high)?;
        Ok(MatMut::dense(ptr, batch, tokens, channels))
    }

    /// A matrix that is read and written.
    pub fn changed(&mut self, shape: [usize; 3], low: f32, high: f32) -> Result<MatMut> {
        let x = self.mat(shape, low, high)?;
        self.least += 4 * x.elements();
        Ok(x)
    }

    /// Memory to be written.
    pub fn room<T>(&mut self, len: usize) -> Result<PtrMut<T>> {
        let block = self.pool.take(len * size_of::<T>())?;
        self.least += len * size_of::<T>();
        let ptr = block.ptr_mut();
        self.blocks.push(block);
        Ok(ptr)
    }

    /// A matrix to be written.
    pub fn out(&mut self, shape: [usize; 3]) -> Result<MatMut> {
        let [batch, tokens, channels] = shape;
        let ptr = self.room(batch * tokens * channels)?;
        Ok(MatMut::dense(ptr, batch, tokens, channels))
    }

    fn ids(&mut self, count: usize, entries: usize) -> Result<Ptr<u32>> {
        let ids: Vec<u32> = (0..count).map(|i| (i * 7 % entries) as u32).collect();
        Ok(self.put(&ids)?.ptr())
    }

    /// The work of one kernel over this memory.
    pub fn work<K: Contract + 'static>(self, kernel: Ready<K>) -> Work<D> {
        self.work_of(move |driver| launch(driver, &kernel))
    }

    /// The work of whatever launches over this memory.
    pub fn work_of(self, f: impl Fn(&D) -> dis_kernels::Result<()> + 'static) -> Work<D> {
        Work {
            launch: Box::new(f),
            least: self.least,
            _memory: self.blocks,
        }
    }
}

/// A kernel of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// The forward scan.
    ScanForward(state_space::Forward),
    /// The backward scan.
    ScanBackward(state_space::Backward),
    /// Its partial sums, of both directions.
    SumPartials,
    /// The convolution of one direction.
    ConvForward,
    /// Of both.
    ConvBoth,
    /// Backward of one.
    ConvBackward,
    /// RMSNorm with residual add.
    NormForward,
    /// Its gradient.
    NormBackward,
    /// The gradient of its weight, partial sums.
    NormParamSums,
    /// Softmax of the scores of attention.
    SoftmaxForward,
    /// Its gradient.
    SoftmaxBackward,
    /// A value everywhere.
    Fill,
    /// A from its logarithm.
    NegExp,
    /// SiLU.
    Silu,
    /// Its gradient.
    SiluBackward,
    /// A copy.
    Copy,
    /// Rounding to bfloat16.
    RoundBf16,
    /// `dst += alpha * src`.
    Axpy,
    /// `dst += a * b`.
    AddProduct,
    /// A factor for each sample.
    ScaleSamples,
    /// Sums over rows, the first stage.
    SumRows,
    /// Rows of a table.
    Gather,
    /// Gradient of a table.
    ScatterAdd,
    /// Images to patches.
    Patchify,
    /// Patches to images.
    Unpatchify,
    /// What samplers and the loss do with images.
    Images(images::Kind),
    /// Sums of squares, the first stage.
    SquareSums,
    /// The second.
    NormFinish,
    /// AdamW, clipping and moving average.
    AdamW,
}

/// All kernels but the matrix product.
pub fn kernels() -> Vec<Kernel> {
    let mut all: Vec<Kernel> = state_space::FORWARDS
        .iter()
        .map(|&forward| Kernel::ScanForward(forward))
        .collect();
    all.extend(state_space::BACKWARDS.map(Kernel::ScanBackward));
    all.extend([
        Kernel::SumPartials,
        Kernel::ConvForward,
        Kernel::ConvBoth,
        Kernel::ConvBackward,
        Kernel::NormForward,
        Kernel::NormBackward,
        Kernel::NormParamSums,
        Kernel::SoftmaxForward,
        Kernel::SoftmaxBackward,
        Kernel::Fill,
        Kernel::NegExp,
        Kernel::Silu,
        Kernel::SiluBackward,
        Kernel::Copy,
        Kernel::RoundBf16,
        Kernel::Axpy,
        Kernel::AddProduct,
        Kernel::ScaleSamples,
        Kernel::SumRows,
        Kernel::Gather,
        Kernel::ScatterAdd,
        Kernel::Patchify,
        Kernel::Unpatchify,
        Kernel::Images(images::Kind::Combine),
        Kernel::Images(images::Kind::Clamp),
        Kernel::Images(images::Kind::AddNoise),
        Kernel::Images(images::Kind::Mix),
        Kernel::Images(images::Kind::Rescale),
        Kernel::Images(images::Kind::Threshold),
        Kernel::Images(images::Kind::Loss),
        Kernel::SquareSums,
        Kernel::NormFinish,
        Kernel::AdamW,
    ]);
    all
}

const CLASSES: usize = 1001;

impl Kernel {
    /// In the table.
    pub fn name(&self) -> String {
        match self {
            Self::ScanForward(forward) => forward.name(),
            Self::ScanBackward(backward) => backward.name(),
            Self::Images(kind) => format!("{kind:?}"),
            other => format!("{other:?}"),
        }
    }

    /// What an entry does, where it can do several things.
    #[cfg(test)]
    pub fn note(&self) -> String {
        match self {
            Self::ScanForward(forward) => forward.note(),
            Self::ScanBackward(backward) => backward.note(),
            Self::SumPartials => ", both".into(),
            Self::Images(images::Kind::Combine) => ", three terms".into(),
            _ => String::new(),
        }
    }

    /// What costs are told for each of, and how many of them there are.
    #[cfg(test)]
    pub fn unit(&self, s: &Shape) -> (&'static str, usize) {
        let rows = s.batch * s.tokens;
        let values = s.batch * images::VALUES;
        match self {
            Self::ScanForward(_)
            | Self::ScanBackward(_)
            | Self::ConvForward
            | Self::ConvBoth
            | Self::ConvBackward
            | Self::Fill
            | Self::Silu
            | Self::SiluBackward
            | Self::Copy
            | Self::RoundBf16
            | Self::Axpy
            | Self::AddProduct
            | Self::ScaleSamples
            | Self::SumRows
            | Self::SumPartials => ("token and inner channel", rows * s.channels),
            Self::NormForward | Self::NormBackward | Self::NormParamSums => {
                ("token and channel", rows * s.width())
            }
            Self::SoftmaxForward | Self::SoftmaxBackward => {
                ("score of a head", rows * s.heads() * s.tokens)
            }
            Self::NegExp => ("inner channel and state", s.channels * s.states),
            Self::Gather | Self::ScatterAdd => ("label and channel", s.batch * s.width()),
            Self::Patchify | Self::Unpatchify | Self::Images(_) => ("value of an image", values),
            Self::SquareSums | Self::AdamW => ("weight", rows * s.channels),
            Self::NormFinish => ("partial sum", norm_partials((rows * s.channels) as u64)),
        }
    }

    /// Whether its work is that of samples; the optimizer and A have none.
    #[cfg(test)]
    pub fn is_of_samples(&self) -> bool {
        !matches!(
            self,
            Self::NegExp | Self::SquareSums | Self::NormFinish | Self::AdamW
        )
    }

    /// Whether as many samples cost as many times what one does.
    pub fn is_proportional(&self) -> bool {
        !matches!(self, Self::NegExp | Self::NormFinish)
    }

    /// Samples, where the kernel is for few.
    pub fn batch(&self, of: &Shape) -> usize {
        match self {
            Self::ScanForward(forward) if forward.is_for_few() => 1,
            _ => of.batch,
        }
    }

    /// The kernel with operands in this memory.
    pub fn build<D: Driver>(self, pool: &Pool<D>, s: Shape) -> Result<Work<D>> {
        let mut m = Memory::new(pool);
        let full = [s.batch, s.tokens, s.channels];
        Ok(match self {
            Self::ScanForward(forward) => forward.build(m, s)?,
            Self::ScanBackward(backward) => backward.build(m, s)?,
            Self::ConvForward => state_space::conv_forward(m, s)?,
            Self::ConvBoth => state_space::conv_both(m, s)?,
            Self::ConvBackward => state_space::conv_backward(m, s)?,
            Self::SumPartials => state_space::sum_partials(m, s)?,
            Self::NormForward | Self::NormBackward | Self::NormParamSums => self.norm(m, s)?,
            Self::SoftmaxForward | Self::SoftmaxBackward => {
                let scores = [s.batch * s.heads(), s.tokens, s.tokens];
                let x = m.mat(scores, 0.0, 1.0)?.read();
                match self {
                    Self::SoftmaxForward => {
                        let out = m.out(scores)?;
                        m.work(SoftmaxForward::new(x, out, 0.125)?)
                    }
                    _ => {
                        let (dout, dx) = (m.mat(scores, -1.0, 1.0)?.read(), m.out(scores)?);
                        m.work(SoftmaxBackward::new(x, dout, dx, 0.125)?)
                    }
                }
            }
            Self::RoundBf16 => {
                let x = m.mat(full, -4.0, 4.0)?.read();
                let out = m.room(s.batch * s.tokens * Bf16Mat::stride(s.channels))?;
                m.work(RoundBf16::new(x, out)?)
            }
            Self::Fill => {
                let y = m.out(full)?;
                m.work(Fill::new(y, 0.5)?)
            }
            Self::NegExp => {
                let states = [1, s.channels, s.states];
                let (x, y) = (m.mat(states, -1.0, 3.0)?.read(), m.out(states)?);
                m.work(NegExp::new(x, y)?)
            }
            Self::Silu | Self::Copy => {
                let (x, y) = (m.mat(full, -4.0, 4.0)?.read(), m.out(full)?);
                match self {
                    Self::Silu => m.work(Silu::new(x, y)?),
                    _ => m.work(Copy::new(x, y)?),
                }
            }
            Self::Axpy => {
                let (x, y) = (m.mat(full, -4.0, 4.0)?.read(), m.changed(full, -1.0, 1.0)?);
                // Back and forth would be exact; a small factor does not overflow either.
                m.work(Axpy::new(x, y, 1e-6)?)
            }
            Self::SiluBackward | Self::AddProduct => {
                let a = m.mat(full, -4.0, 4.0)?.read();
                let b = m.mat(full, -1.0, 1.0)?.read();
                match self {
                    Self::SiluBackward => {
                        let y = m.out(full)?;
                        m.work(SiluBackward::new(a, b, y)?)
                    }
                    _ => {
                        let y = m.changed(full, -1.0, 1.0)?;
                        m.work(AddProduct::new(a, b, y)?)
                    }
                }
            }
            Self::ScaleSamples => {
                let scale = m.mat([s.batch, 1, 1], 0.5, 2.0)?.read();
                let (x, y) = (m.mat(full, -1.0, 1.0)?.read(), m.out(full)?);
                m.work(ScaleSamples::new(x, y, scale)?)
            }
            Self::SumRows => {
                let rows = s.batch * s.tokens;
                let x = m.mat([1, rows, s.channels], -1.0, 1.0)?.read();
                let y = m.out([1, rows.div_ceil(reduce::CHUNK), s.channels])?;
                m.work(SumRows::new(x, y, 1.0, false, reduce::CHUNK)?)
            }
            Self::Gather | Self::ScatterAdd => {
                let table = m.mat([1, CLASSES, s.width()], -1.0, 1.0)?;
                // Of which only the rows of the labels are needed.
                let row = 4 * s.width();
                m.least -= row * (CLASSES - s.batch);
                let ids = m.ids(s.batch, CLASSES)?;
                let rows = [s.batch, 1, s.width()];
                match self {
                    Self::Gather => {
                        let rows = m.out(rows)?;
                        m.work(Gather::new(table.read(), ids, rows)?)
                    }
                    _ => {
                        let rows = m.mat(rows, -1.0, 1.0)?.read();
                        m.least += row * s.batch;
                        m.work(ScatterAdd::new(rows, ids, table)?)
                    }
                }
            }
            Self::Patchify | Self::Unpatchify => {
                let grid = Grid {
                    batch: s.batch,
                    channels: 4,
                    height: 32,
                    width: 32,
                    patch: 2,
                    channel_last: self == Self::Unpatchify,
                };
                let (values, patches) = (s.batch * images::VALUES, [s.batch, 256, 16]);
                match self {
                    Self::Patchify => {
                        let (image, out) = (m.values(values, -1.0, 1.0)?, m.out(patches)?);
                        m.work(Patchify::new(image.read(), out, grid)?)
                    }
                    _ => {
                        let (x, image) = (m.mat(patches, -1.0, 1.0)?, m.room(values)?);
                        m.work(Unpatchify::new(image, x.read(), grid)?)
                    }
                }
            }
            Self::Images(kind) => kind.build(m, s.batch)?,
            Self::SquareSums => {
                let x = m.values(full.iter().product(), -1.0, 1.0)?;
                let partial = m.room(norm_partials(x.len()))?;
                m.work(SquareSums::new(x.read(), partial)?)
            }
            Self::NormFinish => {
                let count = norm_partials(full.iter().product::<usize>() as u64);
                let partial = m.put(&vec![1.0f64; count])?.ptr();
                let out = m.room(1)?;
                m.work(NormFinish::new(partial, count, out)?)
            }
            Self::AdamW => adamw(m, full.iter().product())?,
        })
    }

    fn norm<D: Driver>(self, mut m: Memory<'_, D>, s: Shape) -> Result<Work<D>> {
        let shape = [s.batch, s.tokens, s.width()];
        let weight = Some(m.mat([1, 1, s.width()], 0.5, 1.5)?.read());
        let x = m.mat(shape, -1.0, 1.0)?.read();
        if self == Self::NormForward {
            let hidden = m.mat(shape, -1.0, 1.0)?.read();
            let (sum, stats) = (m.out(shape)?, m.out([s.batch, s.tokens, 2])?);
            let out = m.out(shape)?;
            let kernel = NormForward {
                residual: Some(x),
                hidden,
                hidden_scale: None,
                weight,
                bias: None,
                shift_scale: None,
                sum: Some(sum),
                stats: Some(stats),
                out,
                layer: false,
                eps: 1e-5,
            };
            return Ok(m.work(kernel.ready()?));
        }
        let stats = m.mat([s.batch, s.tokens, 2], 0.5, 1.5)?.read();
        let dout = m.mat(shape, -1.0, 1.0)?.read();
        if self == Self::NormBackward {
            let kernel = NormBackward {
                x,
                stats,
                weight,
                shift_scale: None,
                dout,
                dx: m.out(shape)?,
                layer: false,
                accumulate: false,
            };
            return Ok(m.work(kernel.ready()?));
        }
        let kernel = NormParamSums {
            x,
            stats,
            weight,
            bias: None,
            shift_scale: None,
            dout,
            partial: m.room(s.batch * s.tokens.div_ceil(norm::CHUNK) * 2 * s.width())?,
            chunk: norm::CHUNK,
        };
        Ok(m.work(kernel.ready()?))
    }
}

/// The update of `n` weights.
fn adamw<D: Driver>(mut m: Memory<'_, D>, n: usize) -> Result<Work<D>> {
    let row = [1, 1, n];
    let kernel = AdamW {
        params: m.changed(row, -1.0, 1.0)?.ptr,
        grads: m.values(n, -1.0, 1.0)?.read(),
        m: m.changed(row, -0.1, 0.1)?.ptr,
        v: m.changed(row, 0.0, 0.1)?.ptr,
        ema: m.changed(row, -1.0, 1.0)?.ptr,
        grad_norm: m.values(1, 1.0, 2.0)?.read(),
        grad_scale: 1.0,
        max_norm: Some(1.0),
        keep: 1.0,
        one_minus_beta1: 0.1,
        beta2: 0.999,
        one_minus_beta2: 0.001,
        step: 1e-4,
        inverse_root: 1.0,
        eps: 1e-8,
        ema_decay: 0.9999,
        one_minus_ema: 0.0001,
    };
    Ok(m.work(kernel.ready()?))
}

/// A product `c = a b`, of m x k by k x n: by our own kernel, and as a library is asked for it.
pub fn gemm<D: Driver>(
    pool: &Pool<D>,
    [m, k, n]: [usize; 3],
    bf16: bool,
) -> Result<(Work<D>, GemmCall)> {
    let mut memory = Memory::new(pool);
    let a = memory.mat([1, m, k], -1.0, 1.0)?.read();
    let b = memory.mat([1, k, n], -1.0, 1.0)?.read();
    let c = memory.mat([1, m, n], 0.0, 0.0)?;
    let call = GemmCall {
        m: m as u32,
        n: n as u32,
        k: k as u32,
        a: a.ptr.address(),
        lda: k as u32,
        transpose_a: false,
        b: b.ptr.address(),
        ldb: n as u32,
        transpose_b: false,
        c: c.ptr.address(),
        ldc: n as u32,
        beta: 0.0,
        bf16,
    };
    if !bf16 {
        let kernel = Gemm::new(a.factor(false), b.factor(false), c, None, false)?;
        return Ok((memory.work(kernel), call));
    }
    let mut rounded = |x: Mat| -> Result<Bf16Mat> {
        let (rows, columns) = (x.tokens, x.channels);
        let room = memory.room(rows * Bf16Mat::stride(columns))?;
        launch(pool.driver(), &RoundBf16::new(x, room)?)?;
        Ok(Bf16Mat::rounded(room.read(), rows, columns))
    };
    let (a, b) = (rounded(a)?, rounded(b)?);
    let call = GemmCall {
        a: a.ptr.address(),
        lda: a.row_stride as u32,
        b: b.ptr.address(),
        ldb: b.row_stride as u32,
        ..call
    };
    let kernel = GemmBf16::new(a.factor(false), b.factor(false), c, None, false)?;
    Ok((memory.work(kernel), call))
}
