//! Random operands, the same for every backend.

use dis_model::ModelBackend;
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Element, Layout, Reals, Tokens, TokensMut, View, ViewMut};

use super::off::Off;

/// What a problem gives: each output with its name, whole buffers.
pub type Outputs = Vec<(&'static str, Numbers)>;

/// The elements of a buffer.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Their values.
    pub values: Vec<f64>,
    /// What a device may have them off, where this is known: on [`Off`] alone.
    pub off: Vec<Off>,
}

impl From<Vec<f64>> for Numbers {
    fn from(values: Vec<f64>) -> Self {
        let off = Vec::new();
        Self { values, off }
    }
}

/// What backends compute in.
pub trait Number: Element {
    /// Many of them.
    fn numbers(list: Vec<Self>) -> Numbers;
}

impl Number for f32 {
    fn numbers(list: Vec<Self>) -> Numbers {
        list.into_iter().map(f64::from).collect::<Vec<_>>().into()
    }
}

impl Number for Off {
    fn numbers(off: Vec<Self>) -> Numbers {
        let values = off.iter().map(|x| x.value).collect();
        Numbers { values, off }
    }
}

/// A backend that problems run on.
pub trait Probe: ModelBackend<Real: Number> {}
impl<B: ModelBackend<Real: Number>> Probe for B {}

/// A source of operands: everything follows from the seed and the order of the draws.
pub struct Draw<'a, B: ModelBackend> {
    backend: &'a B,
    stream: Stream,
    pad: usize,
}

/// A token matrix on a backend.
pub struct Field<B: ModelBackend> {
    /// The memory, padding included.
    pub buf: Reals<B>,
    /// Where the matrix lies in it.
    pub layout: Layout,
}

impl<B: ModelBackend> Field<B> {
    /// To read.
    pub fn view(&self) -> View<'_, B> {
        Tokens::new(&self.buf, self.layout)
    }

    /// To write.
    pub fn view_mut(&mut self) -> ViewMut<'_, B> {
        TokensMut::new(&mut self.buf, self.layout)
    }
}

impl<'a, B: ModelBackend> Draw<'a, B> {
    /// Matrices get rows `pad` longer than needed.
    pub fn new(backend: &'a B, seed: u64, pad: usize) -> Self {
        Self {
            backend,
            stream: Stream::new(seed, Purpose::Test, 0, 0),
            pad,
        }
    }

    /// A matrix of normals through `f`.
    pub fn field(&mut self, shape: [usize; 3], f: impl Fn(f64) -> f64) -> Field<B> {
        let [batch, tokens, channels] = shape;
        let mut layout = Layout::padded(batch, tokens, channels, channels + self.pad).at(self.pad);
        // Samples apart, so that the whole is no matrix.
        layout.batch_stride += 2 * self.pad;
        self.with_layout(layout, f)
    }

    /// As [`Self::field`], one matrix whatever the padding.
    pub fn matrix(&mut self, shape: [usize; 3], f: impl Fn(f64) -> f64) -> Field<B> {
        let [batch, tokens, channels] = shape;
        let layout = Layout::padded(batch, tokens, channels, channels + self.pad).at(self.pad);
        self.with_layout(layout, f)
    }

    /// A dense one.
    pub fn dense(&mut self, shape: [usize; 3], f: impl Fn(f64) -> f64) -> Field<B> {
        let [batch, tokens, channels] = shape;
        self.with_layout(Layout::dense(batch, tokens, channels), f)
    }

    /// A dense one, somewhere in its buffer.
    pub fn shifted(&mut self, shape: [usize; 3], f: impl Fn(f64) -> f64) -> Field<B> {
        let [batch, tokens, channels] = shape;
        self.with_layout(Layout::dense(batch, tokens, channels).at(self.pad), f)
    }

    fn with_layout(&mut self, layout: Layout, f: impl Fn(f64) -> f64) -> Field<B> {
        let values: Vec<f32> = (0..layout.end() + self.pad)
            .map(|_| f(self.stream.normal()) as f32)
            .collect();
        Field {
            buf: self.backend.from_f32(&values),
            layout,
        }
    }

    /// Whole numbers below `n`.
    pub fn ids(&mut self, count: usize, n: usize) -> Vec<u32> {
        (0..count)
            .map(|_| self.stream.below(n as u64) as u32)
            .collect()
    }
}

/// All of a buffer.
pub fn read<B: Probe>(backend: &B, buf: &Reals<B>) -> Numbers {
    Number::numbers(backend.download(buf))
}

/// The bfloat16 nearest to what a normal is in float32.
pub fn nearest_bf16(x: f64) -> f64 {
    let bits = (x as f32).to_bits();
    let rounded = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    f64::from(f32::from_bits(rounded))
}

/// Leaves a normal as it is.
pub fn plain(x: f64) -> f64 {
    x
}
