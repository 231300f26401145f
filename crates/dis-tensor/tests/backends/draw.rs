//! Operands of random place and content, and the comparison of backends on them.

use std::sync::LazyLock;

use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Backend, Cpu, ImageOps, Layout, Reals, Reference, Result, simd};

use crate::operation::Operation;

/// A buffer's content and the view of it that an operation is given.
#[derive(Clone, Debug)]
pub struct Operand {
    pub data: Vec<f32>,
    pub layout: Layout,
}

/// Draws operands; everything follows from the seed.
pub struct Draw {
    stream: Stream,
}

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self {
            stream: Stream::new(seed, Purpose::Test, 0, 0),
        }
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.stream.below(n as u64) as usize
    }

    pub fn coin(&mut self) -> bool {
        self.below(2) == 1
    }

    pub fn normal(&mut self) -> f64 {
        self.stream.normal()
    }

    pub fn filled(&mut self, layout: Layout) -> Operand {
        let mut data = vec![0.0; layout.end() + self.below(4)];
        self.stream.fill_normal(&mut data);
        Operand { data, layout }
    }

    /// A dense buffer that is all view.
    pub fn dense(&mut self, len: usize) -> Operand {
        let layout = Layout::vector(len);
        let mut data = vec![0.0; len];
        self.stream.fill_normal(&mut data);
        Operand { data, layout }
    }

    /// Dense, or columns of something wider, somewhere in the buffer.
    pub fn matrix(&mut self, batch: usize, tokens: usize, channels: usize) -> Operand {
        let layout = if self.coin() {
            Layout::dense(batch, tokens, channels).at(self.below(5))
        } else {
            let (before, after) = (self.below(4), self.below(20));
            let width = before + channels + after;
            Layout::padded(batch, tokens, width, width)
                .columns(before, channels)
                .at(self.below(3))
        };
        self.filled(layout)
    }

    /// As [`Draw::matrix`], or a range of the tokens of longer samples.
    pub fn view(&mut self, batch: usize, tokens: usize, channels: usize) -> Operand {
        if self.below(3) < 2 {
            return self.matrix(batch, tokens, channels);
        }
        let (before, after, pad) = (self.below(3), self.below(3), self.below(5));
        let all = before + tokens + after;
        let layout = Layout::padded(batch, all, channels, channels + pad);
        self.filled(layout.token_range(before, tokens))
    }
}

/// The CPU backend with 1 to 4 threads, started once.
pub static CPUS: LazyLock<[Cpu; 4]> = LazyLock::new(|| [1, 2, 3, 4].map(cpu));

/// The CPU backend with 2 threads, for every instruction set of this machine.
pub static LEVELS: LazyLock<Vec<Cpu>> = LazyLock::new(|| {
    simd::supported()
        .into_iter()
        .map(|x| CPUS[1].clone().with_level(x))
        .collect()
});

pub fn cpu(threads: usize) -> Cpu {
    Cpu::with_threads(threads).unwrap()
}

/// Runs an operation and returns all buffers afterwards, whole, inputs too.
pub fn outcome<B: Backend + ImageOps>(
    backend: &B,
    operation: &Operation,
    operands: &[Operand],
) -> Result<Vec<Reals<B>>> {
    let mut buffers: Vec<_> = operands.iter().map(|x| backend.from_f32(&x.data)).collect();
    let layouts: Vec<_> = operands.iter().map(|x| x.layout).collect();
    operation.run(backend, &layouts, &mut buffers)?;
    Ok(buffers)
}

/// The largest magnitude of a buffer.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m: f64, x| m.max(x.abs()))
}

/// Checks that what lies beside the view has kept its bits.
pub fn stays(operand: &Operand, after: &[f32], what: &str) {
    let mask = mask(&operand.layout, after.len());
    for j in (0..after.len()).filter(|&j| !mask[j]) {
        let same = after[j].to_bits() == operand.data[j].to_bits();
        assert!(same, "{what} at {j}, beside the view");
    }
}

/// Checks that all thread counts agree bit by bit, and every instruction set (and, with feature
/// `sim`, the simulated GPU) with the reference to within `rtol` of the largest magnitude of each
/// buffer. Buffers are compared whole: what lies beside a view must stay.
pub fn check(operation: &Operation, operands: &[Operand], rtol: f64) {
    let expected = outcome(&Reference::new(), operation, operands).unwrap();
    let run = |cpu: &Cpu| outcome(cpu, operation, operands).unwrap();
    let results = CPUS.each_ref().map(run);
    for (threads, other) in (1..).zip(&results) {
        same_bits(
            &results[0],
            other,
            &format!("{operation:?} with {threads} threads"),
        );
    }
    for cpu in LEVELS.iter() {
        let results = run(cpu);
        for (i, (got, want)) in results.iter().zip(&expected).enumerate() {
            let what = format!("{operation:?}, {}, operand {i}", cpu.level());
            let largest = largest(want);
            for (j, (&got, &want)) in got.iter().zip(want.iter()).enumerate() {
                let error = (f64::from(got) - want).abs();
                assert!(
                    error <= rtol * largest,
                    "{what} at {j}: {got} not {want} of {largest}"
                );
            }
            stays(&operands[i], got, &what);
        }
    }
    #[cfg(feature = "sim")]
    {
        let expected: Vec<Vec<f64>> = expected.iter().map(|x| x.to_vec()).collect();
        crate::gpu::check(operation, operands, &expected, rtol);
    }
}

pub fn same_bits(left: &[Reals<Cpu>], right: &[Reals<Cpu>], what: &str) {
    for (i, (left, right)) in left.iter().zip(right).enumerate() {
        let same = left
            .iter()
            .zip(right.iter())
            .all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{what}: operand {i} has other bits");
    }
}

/// Which of `len` elements of the buffer belong to the view.
fn mask(layout: &Layout, len: usize) -> Vec<bool> {
    let mut mask = vec![false; len];
    for b in 0..layout.batch {
        for t in 0..layout.tokens {
            // Views without elements may lie anywhere.
            for c in 0..layout.channels {
                mask[layout.row(b, t) + c] = true;
            }
        }
    }
    mask
}
