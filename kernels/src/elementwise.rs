//! Launch contracts of `elementwise.ptx`.

use crate::contract;
use crate::contract::{ContractInfo, Geometry, Params, Ptr, PtrMut, Ready};
use crate::error::Result;
use crate::mat::{Mat, MatMut, grid_limit, shape};

contract! {
    /// `dst = value`.
    pub struct Fill: ELEMENTWISE, "dis_fill" {
        dst: PtrMut<f32>, dst_row: u32, dst_batch: u32,
        value: f32,
        tokens: u32, channels: u32,
    }
}
contract! {
    /// `dst = src`.
    pub struct Copy: ELEMENTWISE, "dis_copy" {
        src: Ptr<f32>, src_row: u32, src_batch: u32,
        dst: PtrMut<f32>, dst_row: u32, dst_batch: u32,
        tokens: u32, channels: u32,
    }
}
contract! {
    /// `dst += alpha * src`.
    pub struct Axpy: ELEMENTWISE, "dis_axpy" {
        src: Ptr<f32>, src_row: u32, src_batch: u32,
        dst: PtrMut<f32>, dst_row: u32, dst_batch: u32,
        alpha: f32,
        tokens: u32, channels: u32,
    }
}
contract! {
    /// `dst(b, t, c) = scale(b) * src(b, t, c)`.
    pub struct ScaleSamples: ELEMENTWISE, "dis_scale_samples" {
        src: Ptr<f32>, src_row: u32, src_batch: u32,
        dst: PtrMut<f32>, dst_row: u32, dst_batch: u32,
        scale: Ptr<f32>, scale_batch: u32,
        tokens: u32, channels: u32,
    }
}
contract! {
    /// `out = x * sigmoid(x)`.
    pub struct Silu: ELEMENTWISE, "dis_silu" {
        x: Ptr<f32>, x_row: u32, x_batch: u32,
        out: PtrMut<f32>, out_row: u32, out_batch: u32,
        tokens: u32, channels: u32,
    }
}
contract! {
    /// `dx = dout * silu'(x)`.
    pub struct SiluBackward: ELEMENTWISE, "dis_silu_backward" {
        x: Ptr<f32>, x_row: u32, x_batch: u32,
        dout: Ptr<f32>, dout_row: u32, dout_batch: u32,
        dx: PtrMut<f32>, dx_row: u32, dx_batch: u32,
        tokens: u32, channels: u32,
    }
}
contract! {
    /// `out = -exp(x)`.
    pub struct NegExp: ELEMENTWISE, "dis_neg_exp" {
        x: Ptr<f32>, x_row: u32, x_batch: u32,
        out: PtrMut<f32>, out_row: u32, out_batch: u32,
        tokens: u32, channels: u32,
    }
}
contract! {
    /// `dst += a * b`.
    pub struct AddProduct: ELEMENTWISE, "dis_add_product" {
        a: Ptr<f32>, a_row: u32, a_batch: u32,
        b: Ptr<f32>, b_row: u32, b_batch: u32,
        dst: PtrMut<f32>, dst_row: u32, dst_batch: u32,
        tokens: u32, channels: u32,
    }
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

/// Matrices of one shape, folded to as few dimensions as their strides allow.
struct Folded<const N: usize> {
    sources: [Mat; N],
    dst: MatMut,
    geometry: Geometry,
}

/// Checks the operands and folds them. `by_sample` keeps samples apart.
fn fold<const N: usize>(
    kernel: &'static str,
    sources: [(&'static str, Mat); N],
    dst: MatMut,
    by_sample: bool,
) -> Result<Folded<N>> {
    dst.check(kernel, "the output")?;
    for (name, source) in &sources {
        source.check_shape(kernel, name, dst.shape())?;
    }
    let mut sources = sources.map(|(_, source)| source);
    let mut dst = dst;
    if !by_sample && dst.is_dense() && sources.iter().all(Mat::is_dense) {
        (sources, dst) = (sources.map(Mat::as_row), dst.as_row());
        // The one row can be longer than what was checked above.
        dst.check(kernel, "the output")?;
    } else if !by_sample && dst.is_matrix() && sources.iter().all(Mat::is_matrix) {
        (sources, dst) = (sources.map(Mat::as_matrix), dst.as_matrix());
        dst.check(kernel, "the output")?;
        for source in &sources {
            source.check(kernel, "an input")?;
        }
    }
    if by_sample && dst.row_stride == dst.channels {
        let contiguous = |x: &Mat| x.row_stride == x.channels;
        if sources.iter().all(contiguous) {
            // Each sample is one row.
            (sources, dst) = (sources.map(Mat::sample_as_row), dst.sample_as_row());
            dst.check(kernel, "the output")?;
        }
    }
    let [batch, tokens, channels] = dst.shape();
    let width = channels.next_power_of_two().clamp(32, 256);
    let rows = 256 / width;
    let geometry = Geometry::new(
        [
            tokens.div_ceil(rows) as u32,
            channels.div_ceil(width).min(MOST_BLOCKS) as u32,
            grid_limit(kernel, "the number of samples", batch)?,
        ],
        [width as u32, rows as u32, 1],
    );
    Ok(Folded {
        sources,
        dst,
        geometry,
    })
}

impl Fill {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(dst: MatMut, value: f32) -> Result<Ready<Self>> {
        let Folded { dst, geometry, .. } = fold("dis_fill", [], dst, false)?;
        let kernel = Self {
            dst: dst.ptr,
            dst_row: dst.row_stride as u32,
            dst_batch: dst.batch_stride as u32,
            value,
            tokens: dst.tokens as u32,
            channels: dst.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

impl Copy {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(src: Mat, dst: MatMut) -> Result<Ready<Self>> {
        let folded = fold("dis_copy", [("src", src)], dst, false)?;
        let ([src], dst, geometry) = (folded.sources, folded.dst, folded.geometry);
        let kernel = Self {
            src: src.ptr,
            src_row: src.row_stride as u32,
            src_batch: src.batch_stride as u32,
            dst: dst.ptr,
            dst_row: dst.row_stride as u32,
            dst_batch: dst.batch_stride as u32,
            tokens: dst.tokens as u32,
            channels: dst.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

impl Axpy {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(alpha: f32, src: Mat, dst: MatMut) -> Result<Ready<Self>> {
        let folded = fold("dis_axpy", [("src", src)], dst, false)?;
        let ([src], dst, geometry) = (folded.sources, folded.dst, folded.geometry);
        let kernel = Self {
            src: src.ptr,
            src_row: src.row_stride as u32,
            src_batch: src.batch_stride as u32,
            dst: dst.ptr,
            dst_row: dst.row_stride as u32,
            dst_batch: dst.batch_stride as u32,
            alpha,
            tokens: dst.tokens as u32,
            channels: dst.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

impl ScaleSamples {
    /// Checks the operands; `scale` is (batch, 1, 1).
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(scale: Mat, src: Mat, dst: MatMut) -> Result<Ready<Self>> {
        const NAME: &str = "dis_scale_samples";
        scale.check_shape(NAME, "scale", [dst.batch, 1, 1])?;
        let folded = fold(NAME, [("src", src)], dst, true)?;
        let ([src], dst, geometry) = (folded.sources, folded.dst, folded.geometry);
        let kernel = Self {
            src: src.ptr,
            src_row: src.row_stride as u32,
            src_batch: src.batch_stride as u32,
            dst: dst.ptr,
            dst_row: dst.row_stride as u32,
            dst_batch: dst.batch_stride as u32,
            scale: scale.ptr,
            scale_batch: scale.batch_stride as u32,
            tokens: dst.tokens as u32,
            channels: dst.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

impl Silu {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(x: Mat, out: MatMut) -> Result<Ready<Self>> {
        let folded = fold("dis_silu", [("x", x)], out, false)?;
        let ([x], out, geometry) = (folded.sources, folded.dst, folded.geometry);
        let kernel = Self {
            x: x.ptr,
            x_row: x.row_stride as u32,
            x_batch: x.batch_stride as u32,
            out: out.ptr,
            out_row: out.row_stride as u32,
            out_batch: out.batch_stride as u32,
            tokens: out.tokens as u32,
            channels: out.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

impl SiluBackward {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(x: Mat, dout: Mat, dx: MatMut) -> Result<Ready<Self>> {
        let folded = fold("dis_silu_backward", [("x", x), ("dout", dout)], dx, false)?;
        let ([x, dout], dx, geometry) = (folded.sources, folded.dst, folded.geometry);
        let kernel = Self {
            x: x.ptr,
            x_row: x.row_stride as u32,
            x_batch: x.batch_stride as u32,
            dout: dout.ptr,
            dout_row: dout.row_stride as u32,
            dout_batch: dout.batch_stride as u32,
            dx: dx.ptr,
            dx_row: dx.row_stride as u32,
            dx_batch: dx.batch_stride as u32,
            tokens: dx.tokens as u32,
            channels: dx.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

impl NegExp {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(x: Mat, out: MatMut) -> Result<Ready<Self>> {
        let folded = fold("dis_neg_exp", [("x", x)], out, false)?;
        let ([x], out, geometry) = (folded.sources, folded.dst, folded.geometry);
        let kernel = Self {
            x: x.ptr,
            x_row: x.row_stride as u32,
            x_batch: x.batch_stride as u32,
            out: out.ptr,
            out_row: out.row_stride as u32,
            out_batch: out.batch_stride as u32,
            tokens: out.tokens as u32,
            channels: out.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

impl AddProduct {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(a: Mat, b: Mat, dst: MatMut) -> Result<Ready<Self>> {
        let folded = fold("dis_add_product", [("a", a), ("b", b)], dst, false)?;
        let ([a, b], dst, geometry) = (folded.sources, folded.dst, folded.geometry);
        let kernel = Self {
            a: a.ptr,
            a_row: a.row_stride as u32,
            a_batch: a.batch_stride as u32,
            b: b.ptr,
            b_row: b.row_stride as u32,
            b_batch: b.batch_stride as u32,
            dst: dst.ptr,
            dst_row: dst.row_stride as u32,
            dst_batch: dst.batch_stride as u32,
            tokens: dst.tokens as u32,
            channels: dst.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
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
