//! Parameters by name in one flat arena.
//!
//! Weights, gradients, optimizer moments and averages are buffers of [`ParamTable::len`] elements
//! that share one layout, so that an update, a norm or a copy is a single pass. Names and shapes
//! are those of the published state dict.

use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Layout, Tokens, TokensMut};

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// Uniform in `-bound ..= bound`.
    Uniform {
        /// Largest magnitude.
        bound: f64,
    },
    /// Normal around 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// `ln(n + 1)` for state n of every channel: S4D-real.
    StateLog,
    /// The inverse softplus of a step drawn log-uniformly from [0.001, 0.1], at least 1e-4.
    StepBias,
}

impl Init {
    /// PyTorch's default for a linear map or convolution: uniform within `1 / sqrt(fan_in)`.
    pub fn fan_in(fan_in: usize) -> Self {
        Self::Uniform {
            bound: 1.0 / (fan_in.max(1) as f64).sqrt(),
        }
    }

    fn value(self, stream: &mut Stream, column: usize) -> f64 {
        match self {
            Self::Zeros => 0.0,
            Self::Ones => 1.0,
            Self::Uniform { bound } => bound * (2.0 * stream.uniform() - 1.0),
            Self::Normal { std } => std * stream.normal(),
            Self::StateLog => ((column + 1) as f64).ln(),
            Self::StepBias => {
                let (low, high) = (1e-3_f64.ln(), 0.1_f64.ln());
                let step = (low + (high - low) * stream.uniform()).exp().max(1e-4);
                step + (-(-step).exp_m1()).ln()
            }
        }
    }
}

/// One parameter of the arena, seen as a matrix (first dimension x the rest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// First element.
    pub offset: usize,
    /// First dimension of the shape, or 1 for a vector.
    pub rows: usize,
    /// Product of the other dimensions, or the length of a vector.
    pub cols: usize,
}

impl Param {
    /// Its place in an arena.
    pub fn layout(&self) -> Layout {
        Layout::matrix(self.rows, self.cols).at(self.offset)
    }

    /// It, in this arena.
    pub fn view<'a, Bf>(&self, arena: &'a Bf) -> Tokens<'a, Bf> {
        Tokens::new(arena, self.layout())
    }

    /// It, in this arena, to write.
    pub fn view_mut<'a, Bf>(&self, arena: &'a mut Bf) -> TokensMut<'a, Bf> {
        TokensMut::new(arena, self.layout())
    }
}

/// Name, shape, place and start of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Name in the published state dict.
    pub name: String,
    /// Shape there.
    pub shape: Vec<usize>,
    /// First element in the arena.
    pub offset: usize,
    /// How it starts.
    pub init: Init,
}

impl ParamSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Every parameter starts at a multiple of this many elements; the gaps stay zero.
const ALIGN: usize = 16;

/// The layout of an arena.
#[derive(Clone, Debug, Default)]
pub struct ParamTable {
    specs: Vec<ParamSpec>,
    products: Vec<Layout>,
    len: usize,
}

impl ParamTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the weight of a linear map, (outputs, inputs): a matrix that a forward pass uses in
    /// products by its transpose and in no other way.
    pub fn add_weight(&mut self, name: impl Into<String>, shape: [usize; 2], init: Init) -> Param {
        let weight = self.add(name, &shape, init);
        self.products.push(weight.layout());
        weight
    }

    /// The weights of linear maps, for [`dis_tensor::Backend::prepare_weights`]. Parameters that have been
    /// prepared serve forward passes only.
    pub fn products(&self) -> &[Layout] {
        &self.products
    }

    /// Appends a parameter. Vectors (one dimension) become a row.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], init: Init) -> Param {
        let offset = self.len;
        let spec = ParamSpec {
            name: name.into(),
            shape: shape.to_vec(),
            offset,
            init,
        };
        let elements = spec.len();
        self.len = (offset + elements).next_multiple_of(ALIGN);
        self.specs.push(spec);
        match shape {
            [len] => Param {
                offset,
                rows: 1,
                cols: *len,
            },
            [rows, rest @ ..] => Param {
                offset,
                rows: *rows,
                cols: rest.iter().product(),
            },
            [] => Param {
                offset,
                rows: 1,
                cols: 1,
            },
        }
    }

    /// Elements of an arena, padding included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// Number of parameter elements, padding left out.
    pub fn parameters(&self) -> usize {
        self.specs.iter().map(ParamSpec::len).sum()
    }

    /// All parameters in order.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// The parameter of this name.
    pub fn find(&self, name: &str) -> Option<&ParamSpec> {
        self.specs.iter().find(|spec| spec.name == name)
    }

    /// Fresh weights: an arena on the host. Each parameter has its own random stream, so weights
    /// depend on the seed and their place in the table alone.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        let mut arena = vec![0.0; self.len];
        for (index, spec) in self.specs.iter().enumerate() {
            let mut stream = Stream::new(seed, Purpose::Init, index as u64, 0);
            let columns = spec.shape.last().copied().unwrap_or(1).max(1);
            let values = &mut arena[spec.offset..spec.offset + spec.len()];
            for (i, value) in values.iter_mut().enumerate() {
                *value = spec.init.value(&mut stream, i % columns) as f32;
            }
        }
        arena
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_aligned_and_found_by_name() {
        let mut table = ParamTable::new();
        let a = table.add("a", &[3, 5], Init::Ones);
        let b = table.add("b", &[7], Init::StateLog);
        assert_eq!((a.offset, b.offset), (0, 16));
        assert_eq!((b.rows, b.cols), (1, 7));
        assert_eq!((table.len(), table.parameters()), (32, 22));
        assert_eq!(table.find("b").map(|s| s.offset), Some(16));
        let arena = table.initial(0);
        assert_eq!(arena[14..17], [1.0, 0.0, 0.0]);
        assert!((arena[18] - 3f32.ln()).abs() < 1e-7);
    }

    #[test]
    fn step_bias_gives_steps_within_its_range() {
        let mut table = ParamTable::new();
        table.add("dt_proj.bias", &[10_000], Init::StepBias);
        for raw in table.initial(5) {
            let step = f64::from(raw).exp().ln_1p();
            assert!((0.000_999..0.100_01).contains(&step), "{step}");
        }
    }
}
