//! Launch contracts of `elementwise.ptx`.

use crate::contract::{Contract, ContractInfo, Geometry, Kernel, contract};
use crate::error::Result;
use crate::mat::{Mat, MatMut, grid_limit, shape, shapes};

contract! {
    /// `dst = value`.
    pub struct Fill: ELEMENTWISE, "dis_fill" {
        dst: MatMut, value: f32,
        tokens: usize = |k| k.dst.tokens, channels: usize = |k| k.dst.channels,
    }
    pub fn new;
}
contract! {
    /// `dst = src`.
    pub struct Copy: ELEMENTWISE, "dis_copy" {
        src: Mat, dst: MatMut,
        tokens: usize = |k| k.dst.tokens, channels: usize = |k| k.dst.channels,
    }
    pub fn new;
}
contract! {
    /// `dst += alpha * src`.
    pub struct Axpy: ELEMENTWISE, "dis_axpy" {
        src: Mat, dst: MatMut, alpha: f32,
        tokens: usize = |k| k.dst.tokens, channels: usize = |k| k.dst.channels,
    }
    pub fn new;
}
contract! {
    /// `dst(b, t, c) = scale(b) * src(b, t, c)`, with `scale` (batch, 1, 1).
    pub struct ScaleSamples: ELEMENTWISE, "dis_scale_samples" {
        src: Mat, dst: MatMut, scale: Mat [batch],
        tokens: usize = |k| k.dst.tokens, channels: usize = |k| k.dst.channels,
    }
    pub fn new;
}
contract! {
    /// `out = x * sigmoid(x)`.
    pub struct Silu: ELEMENTWISE, "dis_silu" {
        x: Mat, out: MatMut,
        tokens: usize = |k| k.out.tokens, channels: usize = |k| k.out.channels,
    }
    pub fn new;
}
contract! {
    /// `dx = dout * silu'(x)`.
    pub struct SiluBackward: ELEMENTWISE, "dis_silu_backward" {
        x: Mat, dout: Mat, dx: MatMut,
        tokens: usize = |k| k.dx.tokens, channels: usize = |k| k.dx.channels,
    }
    pub fn new;
}
contract! {
    /// `out = -exp(x)`.
    pub struct NegExp: ELEMENTWISE, "dis_neg_exp" {
        x: Mat, out: MatMut,
        tokens: usize = |k| k.out.tokens, channels: usize = |k| k.out.channels,
    }
    pub fn new;
}
contract! {
    /// `dst += a * b`.
    pub struct AddProduct: ELEMENTWISE, "dis_add_product" {
        a: Mat, b: Mat, dst: MatMut,
        tokens: usize = |k| k.dst.tokens, channels: usize = |k| k.dst.channels,
    }
    pub fn new;
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[
    Fill::INFO,
    Copy::INFO,
    Axpy::INFO,
    ScaleSamples::INFO,
    Silu::INFO,
    SiluBackward::INFO,
    NegExp::INFO,
    AddProduct::INFO,
];

/// Blocks along the channels: enough to fill any GPU; each then walks on.
const MOST_BLOCKS: usize = 1024;

/// Checks that matrices have one shape, and folds them to as few dimensions as their strides allow.
fn fold<const N: usize>(
    kernel: &'static str,
    mut sources: [(&'static str, &mut Mat); N],
    dst: &mut MatMut,
) -> Result<Geometry> {
    let whole = dst.shape();
    for (name, source) in &sources {
        shapes(kernel, &[(name, &**source, whole)])?;
    }
    let all = |is: fn(&Mat) -> bool| is(&dst.read()) && sources.iter().all(|(_, x)| is(x));
    if all(Mat::is_dense) {
        *dst = dst.as_row();
        sources.iter_mut().for_each(|(_, x)| **x = x.as_row());
    } else if all(Mat::is_matrix) {
        *dst = dst.as_matrix();
        sources.iter_mut().for_each(|(_, x)| **x = x.as_matrix());
    }
    geometry(kernel, dst.shape())
}

/// A thread for every channel of a row, or for as many as that.
fn geometry(kernel: &'static str, [batch, tokens, channels]: [usize; 3]) -> Result<Geometry> {
    let width = channels.next_power_of_two().clamp(32, 256);
    let rows = 256 / width;
    let grid = [
        tokens.div_ceil(rows) as u32,
        channels.div_ceil(width).min(MOST_BLOCKS) as u32,
        grid_limit(kernel, "the number of samples", batch)?,
    ];
    Ok(Geometry::new(grid, [width as u32, rows as u32, 1]))
}

impl Kernel for ScaleSamples {
    /// Samples stay apart.
    fn fit(&mut self) -> Result<Geometry> {
        let (src, dst) = (&mut self.src, &mut self.dst);
        let expected = [dst.batch, 1, 1];
        shapes(
            Self::NAME,
            &[("src", src, dst.shape()), ("scale", &self.scale, expected)],
        )?;
        if dst.row_stride == dst.channels && src.row_stride == src.channels {
            (*src, *dst) = (src.sample_as_row(), dst.sample_as_row());
        }
        geometry(Self::NAME, dst.shape())
    }
}

/// Kernels whose operands all have one shape.
macro_rules! folded {
    ($($name:ident: [$($source:ident),*] to $dst:ident;)*) => {
        $(impl Kernel for $name {
            fn fit(&mut self) -> Result<Geometry> {
                let sources = [$((stringify!($source), &mut self.$source)),*];
                fold(Self::NAME, sources, &mut self.$dst)
            }
        })*
    };
}
folded! {
    Fill: [] to dst;
    Copy: [src] to dst;
    Axpy: [src] to dst;
    Silu: [x] to out;
    SiluBackward: [x, dout] to dx;
    NegExp: [x] to out;
    AddProduct: [a, b] to dst;
}

/// A row that is added to every token of `of` (and to every sample, if there is only one), as a
/// matrix of the shape of `of` with strides of zero.
///
/// # Errors
/// If the shapes do not fit together.
pub fn broadcast_tokens(x: Mat, of: [usize; 3]) -> Result<Mat> {
    let [batch, tokens, channels] = of;
    if x.tokens != 1 || x.channels != channels || (x.batch != 1 && x.batch != batch) {
        let what = format!(
            "x has shape {:?}, which cannot be added to {of:?}",
            x.shape()
        );
        return Err(shape("dis_axpy", what));
    }
    Ok(Mat {
        batch,
        tokens,
        row_stride: 0,
        batch_stride: if x.batch == 1 { 0 } else { x.batch_stride },
        ..x
    })
}

/// A table over tokens that is added to every sample of `of`.
///
/// # Errors
/// If the shapes do not fit together.
pub fn broadcast_samples(x: Mat, of: [usize; 3]) -> Result<Mat> {
    let [batch, tokens, channels] = of;
    if x.shape() != [1, tokens, channels] {
        let what = format!(
            "x has shape {:?}, which cannot be added to {of:?}",
            x.shape()
        );
        return Err(shape("dis_axpy", what));
    }
    Ok(Mat {
        batch,
        batch_stride: 0,
        ..x
    })
}
