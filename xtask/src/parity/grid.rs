//! Which problems are run: a pairwise selection of the grid, or all of it.

use std::collections::BTreeSet;

use anyhow::Result;
use dis_scan::{Direction, Discretization};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Precision, Reference};

use super::data::{Outputs, Probe, nearest_bf16, plain};
use super::images::images;
use super::loss::loss;
use super::model::{VARIANTS, model};
use super::off::Off;
use super::operations::{elementwise, norms, optimizer, products, tables};
use super::state_space::{ScanCase, conv, mixer, scan};

const TOKENS: [usize; 5] = [1, 5, 257, 258, 1026];
const CHANNELS: [usize; 3] = [24, 37, 736];
const STATES: [usize; 4] = [1, 8, 16, 32];
const BATCHES: [usize; 2] = [1, 3];
const DIRECTIONS: [Direction; 2] = [Direction::Forward, Direction::Reverse];
const HOLDS: [Discretization; 2] = [Discretization::Mamba, Discretization::ZeroOrderHold];

/// Settings of a simulated device: how `.approx` instructions err, and the order of blocks.
const SETTINGS: usize = 3;

/// What is computed.
#[derive(Clone, Copy, Debug)]
pub enum Problem {
    /// Elementwise operations, sums and softmax.
    Elementwise([usize; 3]),
    /// Matrix products.
    Products([usize; 3]),
    /// The same of bfloat16, against float64 of operands rounded to it.
    Bf16Products([usize; 3]),
    /// Norms.
    Norms([usize; 3]),
    /// Tables and patches.
    Tables([usize; 3]),
    /// Batches of images: samples, values.
    Images([usize; 2]),
    /// The training loss: samples, values.
    Loss([usize; 2]),
    /// Global norm and AdamW.
    Optimizer(usize),
    /// Convolutions: shape, width, direction.
    Conv([usize; 3], usize, Direction),
    /// Scans.
    Scan(ScanCase),
    /// Mixers: shape and states.
    Mixer([usize; 3], usize),
    /// Whole models, by variant.
    Model(usize),
    /// The same with products of bfloat16, against float64 of what is not rounded: where a value is
    /// nearly a tie the processor and a device may round it to different sides, so that their distance
    /// from float64 is all that is bounded.
    Bf16Model(usize),
}

impl Problem {
    /// Its family, for filters.
    pub fn family(&self) -> &'static str {
        match self {
            Self::Elementwise(_) => "elementwise",
            Self::Products(_) => "gemm",
            Self::Bf16Products(_) => "gemm bf16",
            Self::Norms(_) => "norm",
            Self::Tables(_) => "tables",
            Self::Images(_) => "images",
            Self::Loss(_) => "loss",
            Self::Optimizer(_) => "optimizer",
            Self::Conv(..) => "conv1d",
            Self::Scan(_) => "scan",
            Self::Mixer(..) => "mixer",
            Self::Model(_) => "model",
            Self::Bf16Model(_) => "model bf16",
        }
    }

    /// Its parameters.
    pub fn describe(&self) -> String {
        match self {
            Self::Model(variant) | Self::Bf16Model(variant) => VARIANTS[*variant].into(),
            Self::Scan(case) => format!("{case:?}"),
            other => format!("{other:?}"),
        }
    }

    /// Runs it.
    pub fn run<B: Probe>(&self, b: &B, seed: u64) -> Result<Outputs> {
        match *self {
            Self::Elementwise(shape) => elementwise(b, shape, seed),
            Self::Products(sizes) | Self::Bf16Products(sizes) => products(b, sizes, seed, plain),
            Self::Norms(shape) => norms(b, shape, seed),
            Self::Tables(sizes) => tables(b, sizes, seed),
            Self::Images(sizes) => images(b, sizes, seed),
            Self::Loss(sizes) => loss(b, sizes, seed),
            Self::Optimizer(n) => optimizer(b, n, seed),
            Self::Conv(shape, width, direction) => conv(b, shape, width, direction, seed),
            Self::Scan(ref case) => scan(b, case, seed),
            Self::Mixer(shape, states) => mixer(b, shape, states, seed),
            Self::Model(variant) | Self::Bf16Model(variant) => model(b, variant, seed),
        }
    }

    /// Runs it in float64, with what each number may be off.
    pub fn exact(&self, seed: u64) -> Result<Outputs> {
        let reference = Reference::<Off>::of();
        match *self {
            Self::Bf16Products(sizes) => products(&reference, sizes, seed, nearest_bf16),
            _ => self.run(&reference, seed),
        }
    }

    /// What its matrix products take.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Bf16Products(_) | Self::Bf16Model(_) => Precision::Bfloat16,
            _ => Precision::Float32,
        }
    }

    /// Roughly the work that a simulator has, in elements.
    pub fn work(&self) -> usize {
        match *self {
            Self::Elementwise(s) | Self::Norms(s) | Self::Conv(s, ..) => {
                4 * s.iter().product::<usize>()
            }
            Self::Products([m, k, n]) | Self::Bf16Products([m, k, n]) => m * k * n,
            Self::Tables(s) => s.iter().product(),
            Self::Images([batch, values]) => 12 * batch * values,
            Self::Loss([batch, values]) => 100 * batch * values,
            Self::Optimizer(n) => n,
            Self::Scan(c) => c.shape.iter().product::<usize>() * c.states,
            Self::Mixer([b, l, w], n) => b * l * 2 * w * (2 * n + 4 * w),
            Self::Model(_) | Self::Bf16Model(_) => 0,
        }
    }
}

/// A problem with its seed, and the device's settings.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What is computed.
    pub problem: Problem,
    /// Of the operands, and of flags without a level of their own.
    pub seed: u64,
    /// 0: exact, 1: at the lower, 2: at the upper end of the documented error.
    pub approx: usize,
    /// 0: ascending, 1: descending, 2: shuffled.
    pub order: usize,
}

/// Makes a problem of a point of the grid.
type Make = Box<dyn Fn(&[usize]) -> Problem>;

/// A family as factors with levels, the last two the device's settings.
struct Factors {
    levels: Vec<usize>,
    make: Make,
}

fn factors(levels: &[usize], make: impl Fn(&[usize]) -> Problem + 'static) -> Factors {
    let mut levels = levels.to_vec();
    levels.extend([SETTINGS, SETTINGS]);
    Factors {
        levels,
        make: Box::new(make),
    }
}

fn shape(i: &[usize]) -> [usize; 3] {
    [BATCHES[i[0]], TOKENS[i[1]], CHANNELS[i[2]]]
}

fn families() -> Vec<Factors> {
    const ROWS: [usize; 4] = [1, 5, 65, 130];
    const INNER: [usize; 4] = [1, 24, 37, 257];
    const COLUMNS: [usize; 4] = [1, 24, 37, 65];
    const COUNTS: [usize; 3] = [1, 3, 7];
    const ENTRIES: [usize; 3] = [1, 5, 11];
    const VALUES: [usize; 4] = [1, 37, 257, 3072];
    const LENGTHS: [usize; 4] = [1, 37, 5000, 70_000];
    const WIDTHS: [usize; 3] = [12, 19, 37];
    vec![
        factors(&[2, 5, 3], |i| Problem::Elementwise(shape(i))),
        factors(&[4, 4, 4], |i| {
            Problem::Products([ROWS[i[0]], INNER[i[1]], COLUMNS[i[2]]])
        }),
        factors(&[2, 5, 3], |i| Problem::Norms(shape(i))),
        factors(&[3, 3, 3], |i| {
            Problem::Tables([COUNTS[i[0]], ENTRIES[i[1]], CHANNELS[i[2]]])
        }),
        factors(&[2, 4], |i| Problem::Images([BATCHES[i[0]], VALUES[i[1]]])),
        factors(&[2, 4], |i| Problem::Loss([BATCHES[i[0]], VALUES[i[1]]])),
        factors(&[4], |i| Problem::Optimizer(LENGTHS[i[0]])),
        factors(&[2, 5, 3, 3, 2], |i| {
            Problem::Conv(shape(i), 2 + i[3], DIRECTIONS[i[4]])
        }),
        factors(&[2, 5, 3, 4, 2, 2, 2, 2], |i| {
            Problem::Scan(ScanCase {
                shape: shape(i),
                states: STATES[i[3]],
                direction: DIRECTIONS[i[4]],
                discretization: HOLDS[i[5]],
                full: i[6] == 0,
                accumulate: i[7] == 1,
            })
        }),
        factors(&[2, 3, 3, 4], |i| {
            Problem::Mixer([BATCHES[i[0]], TOKENS[i[1]], WIDTHS[i[2]]], STATES[i[3]])
        }),
        factors(&[VARIANTS.len()], |i| Problem::Model(i[0])),
        factors(&[4, 4, 4], |i| {
            Problem::Bf16Products([ROWS[i[0]], INNER[i[1]], COLUMNS[i[2]]])
        }),
        factors(&[VARIANTS.len()], |i| Problem::Bf16Model(i[0])),
    ]
}

/// The work that a case of the selection may be unless told otherwise.
const BUDGET: usize = 1_000_000;

/// The cases to run, of no more work than `up_to`.
pub fn cases(full: bool, up_to: Option<usize>, seed: u64) -> Vec<Case> {
    let most = up_to.unwrap_or(if full { usize::MAX } else { BUDGET });
    let mut stream = Stream::new(seed, Purpose::Test, 3, 0);
    let mut cases = Vec::new();
    for family in families() {
        let fits = |point: &[usize]| (family.make)(point).work() <= most;
        let points = if full {
            all(&family.levels)
        } else {
            pairwise(&family.levels, &fits, &mut stream)
        };
        for point in points {
            let settings = family.levels.len() - 2;
            // Whatever is left out, a case keeps its seed.
            let seed = stream.next_u64() >> 1;
            if fits(&point) {
                cases.push(Case {
                    problem: (family.make)(&point),
                    seed,
                    approx: point[settings],
                    order: point[settings + 1],
                });
            }
        }
    }
    cases.extend(extra(&mut stream));
    cases
}

/// What the grid does not reach, or only by chance: rows so long that a block walks them in steps
/// or that shared memory does not hold them, more than 64 states, and the kernels of large batches, for devices of few multiprocessors.
fn extra(stream: &mut Stream) -> Vec<Case> {
    let wide = ScanCase {
        shape: [2, 18, 20],
        states: 130,
        direction: Direction::Reverse,
        discretization: Discretization::ZeroOrderHold,
        full: true,
        accumulate: true,
    };
    let mamba = Discretization::Mamba;
    let scan = |shape, states, full, discretization| {
        Problem::Scan(ScanCase {
            shape,
            states,
            full,
            discretization,
            ..wide
        })
    };
    let hold = wide.discretization;
    [
        // Padding: none, so that rows join.
        (Problem::Elementwise([1, 409, 737]), 0),
        (Problem::Elementwise([2, 1, 12_300]), 0),
        (Problem::Scan(wide), 0),
        (scan([2, 18, 20], 16, true, hold), 0),
        (scan([1, 37, 300], 16, false, hold), 0),
        (scan([3, 35, 150], 16, true, mamba), 0),
        (scan([1, 1, 300], 16, true, hold), 1),
        (scan([2, 35, 70], 32, true, mamba), 3),
        (scan([2, 35, 70], 32, false, hold), 2),
    ]
    .map(|(problem, pad)| Case {
        problem,
        // 64: few multiprocessors.
        seed: stream.next_u64() >> 3 << 2 | 64 | pad,
        approx: 0,
        order: 0,
    })
    .to_vec()
}

/// Every point of a grid.
fn all(levels: &[usize]) -> Vec<Vec<usize>> {
    let mut points = vec![Vec::new()];
    for &n in levels {
        points = points
            .into_iter()
            .flat_map(|point: Vec<usize>| {
                (0..n).map(move |i| {
                    let mut point = point.clone();
                    point.push(i);
                    point
                })
            })
            .collect();
    }
    points
}

/// Points that fit, in which every two levels of two factors meet that can: greedily, the best of a
/// few random points around each pair that has not met.
fn pairwise(
    levels: &[usize],
    fits: &dyn Fn(&[usize]) -> bool,
    stream: &mut Stream,
) -> Vec<Vec<usize>> {
    type Pair = (usize, usize, usize, usize);
    let pairs_of = |point: &[usize]| {
        let mut pairs = Vec::new();
        for a in 0..point.len() {
            for b in 0..a {
                pairs.push((a, point[a], b, point[b]));
            }
        }
        pairs
    };
    let mut missing: BTreeSet<Pair> = BTreeSet::new();
    for a in 0..levels.len() {
        for b in 0..a {
            for i in 0..levels[a] {
                missing.extend((0..levels[b]).map(|j| (a, i, b, j)));
            }
        }
    }
    let mut points = Vec::new();
    while let Some(&(a, i, b, j)) = missing.first() {
        let mut best: Option<(usize, Vec<usize>)> = None;
        for _ in 0..60 {
            let mut point: Vec<usize> = levels
                .iter()
                .map(|&n| stream.below(n as u64) as usize)
                .collect();
            (point[a], point[b]) = (i, j);
            if !fits(&point) {
                continue;
            }
            let gain = pairs_of(&point)
                .iter()
                .filter(|pair| missing.contains(pair))
                .count();
            if best.as_ref().is_none_or(|(most, _)| gain > *most) {
                best = Some((gain, point));
            }
        }
        // Too large together, whatever the rest.
        missing.remove(&(a, i, b, j));
        if let Some((_, point)) = best {
            for pair in pairs_of(&point) {
                missing.remove(&pair);
            }
            points.push(point);
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_levels_meet() {
        let levels = [3, 4, 2, 5];
        let mut stream = Stream::new(1, Purpose::Test, 0, 0);
        let points = pairwise(&levels, &|_| true, &mut stream);
        assert!(points.len() < 40, "{}", points.len());
        for a in 0..4 {
            for b in 0..a {
                for i in 0..levels[a] {
                    for j in 0..levels[b] {
                        assert!(points.iter().any(|p| p[a] == i && p[b] == j));
                    }
                }
            }
        }
        assert_eq!(all(&levels).len(), 120);
    }
}
