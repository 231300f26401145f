//! Launch contracts of `images.ptx`. Here a batch of images is a token matrix with one token a
//! sample, which holds all its values.

use crate::contract::{Contract, ContractInfo, Geometry, Kernel, Param, Ready, contract};
use crate::error::Result;
use crate::mat::{Mat, MatMut, grid_limit, images, shape, shapes};
use crate::pointer::Ptr;

contract! {
    /// `dst = sum over k of coefficient_k(sample) * x_k`.
    pub struct Combine: IMAGES, "dis_combine" {
        table: Ptr<u64>, terms: usize,
        dst: MatMut [batch],
        n: usize = |k| k.dst.channels,
    }
}
contract! {
    /// `x` limited to `[low, high]`.
    pub struct Clamp: IMAGES, "dis_clamp" {
        x: MatMut [batch],
        low: f32, high: f32,
        n: usize = |k| k.x.channels,
    }
    pub fn new;
}
contract! {
    /// `dst += exp(slope(sample) * log_scale + offset(sample)) * noise`.
    pub struct AddNoise: IMAGES, "dis_add_noise" {
        noise: Mat [batch], log_scale: Mat [batch], dst: MatMut [batch],
        lines: Ptr<u64>,
        n: usize = |k| k.dst.channels,
    }
}
contract! {
    /// `dst = weight * a + (1 - weight) * b`.
    pub struct Mix: IMAGES, "dis_mix" {
        weight: Mat [batch], a: Mat [batch], b: Mat [batch], dst: MatMut [batch],
        n: usize = |k| k.dst.channels,
    }
    pub fn new;
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[Combine::INFO, Clamp::INFO, AddNoise::INFO, Mix::INFO];

/// Values that a block takes.
const WIDTH: usize = 256;

fn geometry(kernel: &'static str, dst: &MatMut) -> Result<Geometry> {
    let [batch, values] = images(kernel, dst)?;
    let grid = [
        values.div_ceil(WIDTH) as u32,
        grid_limit(kernel, "the number of samples", batch)?,
        1,
    ];
    Ok(Geometry::new(grid, [WIDTH as u32, 1, 1]))
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
        const NAME: &str = Combine::NAME;
        let Some((_, first)) = terms.first() else {
            return Err(shape(NAME, "a combination of no terms".into()));
        };
        let mut words = Vec::with_capacity(2 * terms.len() * first.batch);
        for (coefficients, x) in terms {
            shapes(NAME, &[("a term", x, first.shape())])?;
            x.check(NAME, "a term")?;
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
        if terms.shape != dst.shape() {
            let what = format!("terms of shape {:?} into {:?}", terms.shape, dst.shape());
            return Err(shape(Self::NAME, what));
        }
        table.holds(Self::NAME, "table", terms.words.len() as u64)?;
        let terms = terms.terms;
        Self { table, terms, dst }.ready()
    }
}

impl Kernel for Combine {
    fn fit(&mut self) -> Result<Geometry> {
        geometry(Self::NAME, &self.dst)
    }
}

impl Kernel for Clamp {
    fn fit(&mut self) -> Result<Geometry> {
        geometry(Self::NAME, &self.x)
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
        per_sample(AddNoise::NAME, "slopes", slopes, batch)?;
        per_sample(AddNoise::NAME, "offsets", offsets, batch)?;
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
        if lines.words.len() != 2 * dst.batch {
            let what = format!("{} lines for {} samples", lines.words.len() / 2, dst.batch);
            return Err(shape(Self::NAME, what));
        }
        at.holds(Self::NAME, "lines", lines.words.len() as u64)?;
        Self {
            noise,
            log_scale,
            dst,
            lines: at,
        }
        .ready()
    }
}

impl Kernel for AddNoise {
    fn fit(&mut self) -> Result<Geometry> {
        let whole = self.dst.shape();
        shapes(
            Self::NAME,
            &[
                ("noise", &self.noise, whole),
                ("log_scale", &self.log_scale, whole),
            ],
        )?;
        geometry(Self::NAME, &self.dst)
    }
}

impl Kernel for Mix {
    fn fit(&mut self) -> Result<Geometry> {
        let whole = self.dst.shape();
        shapes(
            Self::NAME,
            &[
                ("weight", &self.weight, whole),
                ("a", &self.a, whole),
                ("b", &self.b, whole),
            ],
        )?;
        geometry(Self::NAME, &self.dst)
    }
}
