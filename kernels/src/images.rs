//! Launch contracts of `images.ptx`. Here a batch of images is a token matrix with one token a
//! sample, which holds all its values.

use crate::contract;
use crate::contract::{ContractInfo, Geometry, Params, Ptr, PtrMut, Ready};
use crate::error::{KernelError, Result};
use crate::mat::{Mat, MatMut, grid_limit, shape, to_u32};

contract! {
    /// `dst = sum over k of coefficient_k(sample) * x_k`.
    pub struct Combine: IMAGES, "dis_combine" {
        table: Ptr<u64>, terms: u32,
        dst: PtrMut<f32>, dst_batch: u32,
        n: u32,
    }
}
contract! {
    /// `x` limited to `[low, high]`.
    pub struct Clamp: IMAGES, "dis_clamp" {
        x: PtrMut<f32>, x_batch: u32,
        low: f32, high: f32,
        n: u32,
    }
}
contract! {
    /// `dst += exp(slope(sample) * log_scale + offset(sample)) * noise`.
    pub struct AddNoise: IMAGES, "dis_add_noise" {
        noise: Ptr<f32>, noise_batch: u32,
        log_scale: Ptr<f32>, log_scale_batch: u32,
        dst: PtrMut<f32>, dst_batch: u32,
        lines: Ptr<u64>,
        n: u32,
    }
}
contract! {
    /// `dst = weight * a + (1 - weight) * b`.
    pub struct Mix: IMAGES, "dis_mix" {
        weight: Ptr<f32>, weight_batch: u32,
        a: Ptr<f32>, a_batch: u32,
        b: Ptr<f32>, b_batch: u32,
        dst: PtrMut<f32>, dst_batch: u32,
        n: u32,
    }
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[Combine::INFO, Clamp::INFO, AddNoise::INFO, Mix::INFO];

/// Values that a block takes.
const WIDTH: usize = 256;

/// Checks that all are batches of images like `dst`, which has one token a sample; its geometry.
fn images(kernel: &'static str, dst: MatMut, sources: &[(&'static str, Mat)]) -> Result<Geometry> {
    if dst.tokens != 1 {
        let what = format!("images of {} tokens each, not of one", dst.tokens);
        return Err(shape(kernel, what));
    }
    dst.check(kernel, "the output")?;
    for (name, source) in sources {
        source.check_shape(kernel, name, dst.shape())?;
    }
    Ok(Geometry::new(
        [
            dst.channels.div_ceil(WIDTH) as u32,
            grid_limit(kernel, "the number of samples", dst.batch)?,
            1,
        ],
        [WIDTH as u32, 1, 1],
    ))
}

/// The number of a list that belongs to a sample: there is one for each, or one for all.
fn of_sample(list: &[f64], sample: usize) -> f64 {
    list[if list.len() == 1 { 0 } else { sample }]
}

fn per_sample(kernel: &'static str, name: &'static str, list: &[f64], batch: usize) -> Result<()> {
    if list.len() == 1 || list.len() == batch {
        return Ok(());
    }
    let what = format!("{} {name} for {batch} samples", list.len());
    Err(shape(kernel, what))
}

/// The words that an upload must put where a kernel reads them.
fn uploaded(kernel: &'static str, name: &'static str, words: usize, at: Ptr<u64>) -> Result<()> {
    if (words as u64) <= at.len() {
        return Ok(());
    }
    Err(KernelError::OutOfBounds {
        kernel,
        name,
        needed: words as u64,
        len: at.len(),
    })
}

/// The terms of a linear combination, checked: coefficients, one a sample or one for all, and
/// images of equal shapes.
#[derive(Clone, Debug)]
pub struct Terms {
    words: Vec<u64>,
    shape: [usize; 3],
    terms: usize,
}

impl Terms {
    /// Checks the operands.
    ///
    /// # Errors
    /// No term, shapes that differ, a wrong number of coefficients, views outside their memory.
    pub fn new(terms: &[(&[f64], Mat)]) -> Result<Self> {
        const NAME: &str = "dis_combine";
        let Some((_, first)) = terms.first() else {
            return Err(shape(NAME, "a combination of no terms".into()));
        };
        let mut words = Vec::with_capacity(2 * terms.len() * first.batch);
        for (coefficients, x) in terms {
            x.check_shape(NAME, "a term", first.shape())?;
            per_sample(NAME, "coefficients", coefficients, first.batch)?;
            for sample in 0..first.batch {
                words.push(x.ptr.at((sample * x.batch_stride) as u64).address());
                words.push(of_sample(coefficients, sample).to_bits());
            }
        }
        Ok(Self {
            words,
            shape: first.shape(),
            terms: terms.len(),
        })
    }

    /// What [`Combine`] reads: to be uploaded before it runs.
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}

impl Combine {
    /// Checks the operands. At `table` lie the words of `terms`.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(terms: &Terms, table: Ptr<u64>, dst: MatMut) -> Result<Ready<Self>> {
        const NAME: &str = "dis_combine";
        let geometry = images(NAME, dst, &[])?;
        if terms.shape != dst.shape() {
            let what = format!("terms of shape {:?} into {:?}", terms.shape, dst.shape());
            return Err(shape(NAME, what));
        }
        uploaded(NAME, "table", terms.words.len(), table)?;
        let kernel = Self {
            table,
            terms: to_u32(NAME, "the number of terms", terms.terms)?,
            dst: dst.ptr,
            dst_batch: dst.batch_stride as u32,
            n: dst.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

impl Clamp {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(low: f32, high: f32, x: MatMut) -> Result<Ready<Self>> {
        let geometry = images("dis_clamp", x, &[])?;
        let kernel = Self {
            x: x.ptr,
            x_batch: x.batch_stride as u32,
            low,
            high,
            n: x.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

/// Slope and offset of each sample's log scale, checked: as many as there are samples, or one.
#[derive(Clone, Debug)]
pub struct Lines {
    words: Vec<u64>,
}

impl Lines {
    /// Checks the numbers of both.
    ///
    /// # Errors
    /// A wrong number of slopes or offsets.
    pub fn new(slopes: &[f64], offsets: &[f64], batch: usize) -> Result<Self> {
        per_sample("dis_add_noise", "slopes", slopes, batch)?;
        per_sample("dis_add_noise", "offsets", offsets, batch)?;
        let line = |sample| [of_sample(slopes, sample), of_sample(offsets, sample)];
        Ok(Self {
            words: (0..batch).flat_map(line).map(f64::to_bits).collect(),
        })
    }

    /// What [`AddNoise`] reads: to be uploaded before it runs.
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}

impl AddNoise {
    /// Checks the operands. At `at` lie the words of `lines`.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(
        noise: Mat,
        log_scale: Mat,
        lines: &Lines,
        at: Ptr<u64>,
        dst: MatMut,
    ) -> Result<Ready<Self>> {
        const NAME: &str = "dis_add_noise";
        let sources = [("noise", noise), ("log_scale", log_scale)];
        let geometry = images(NAME, dst, &sources)?;
        if lines.words.len() != 2 * dst.batch {
            let what = format!("{} lines for {} samples", lines.words.len() / 2, dst.batch);
            return Err(shape(NAME, what));
        }
        uploaded(NAME, "lines", lines.words.len(), at)?;
        let kernel = Self {
            noise: noise.ptr,
            noise_batch: noise.batch_stride as u32,
            log_scale: log_scale.ptr,
            log_scale_batch: log_scale.batch_stride as u32,
            dst: dst.ptr,
            dst_batch: dst.batch_stride as u32,
            lines: at,
            n: dst.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}

impl Mix {
    /// Checks the operands.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(weight: Mat, a: Mat, b: Mat, dst: MatMut) -> Result<Ready<Self>> {
        let sources = [("weight", weight), ("a", a), ("b", b)];
        let geometry = images("dis_mix", dst, &sources)?;
        let kernel = Self {
            weight: weight.ptr,
            weight_batch: weight.batch_stride as u32,
            a: a.ptr,
            a_batch: a.batch_stride as u32,
            b: b.ptr,
            b_batch: b.batch_stride as u32,
            dst: dst.ptr,
            dst_batch: dst.batch_stride as u32,
            n: dst.channels as u32,
        };
        Ok(Ready::new(kernel, geometry))
    }
}
