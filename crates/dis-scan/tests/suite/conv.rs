//! The fast convolution against the oracle.

use super::case::{Matrix, SENTINEL};
use dis_scan::cpu::{self, Level};
use dis_scan::{Conv, ConvGrads, Direction, oracle};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Layout, simd};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    shape: [usize; 3],
    width: usize,
    pad: usize,
    reverse: bool,
    bias: bool,
    silu: bool,
    accumulate: bool,
    seed: u64,
}

#[derive(Clone)]
struct Results {
    out: Matrix,
    dx: Matrix,
    arena: Matrix,
}

impl Results {
    fn check(&self, what: &str) -> Result<(), TestCaseError> {
        let all = [("out", &self.out), ("dx", &self.dx), ("arena", &self.arena)];
        for (name, matrix) in all {
            matrix
                .check(name, 1e-6, 1.0)
                .map_err(|e| TestCaseError::fail(format!("{what}: {e}")))?;
        }
        Ok(())
    }
}

struct Problem {
    case: Case,
    x: Matrix,
    weight: Matrix,
    bias: Option<Matrix>,
    dout: Matrix,
}

impl Problem {
    fn new(case: &Case) -> Self {
        let rng = &mut Stream::new(case.seed, Purpose::Test, 0, 0);
        let channels = case.shape[2];
        Self {
            case: case.clone(),
            x: Matrix::random(rng, case.shape, case.pad, |x| 2.0 * x),
            weight: Matrix::random(rng, [1, channels, case.width], case.pad, |x| x),
            bias: case
                .bias
                .then(|| Matrix::random(rng, [1, 1, channels], case.pad, |x| x)),
            dout: Matrix::random(rng, case.shape, 0, |x| x),
        }
    }

    fn direction(&self) -> Direction {
        if self.case.reverse {
            Direction::Reverse
        } else {
            Direction::Forward
        }
    }

    fn fresh(&self) -> Results {
        let Case {
            shape,
            pad,
            accumulate,
            seed,
            width,
            ..
        } = self.case;
        let rng = &mut Stream::new(seed, Purpose::Test, 1, 0);
        let channels = shape[2];
        let mut arena = vec![SENTINEL; channels * (width + 1) + 3];
        arena[1..=channels * width].fill(0.5);
        arena[channels * width + 2..channels * (width + 1) + 2].fill(-1.0);
        Results {
            out: Matrix::sentinel(shape, pad),
            dx: if accumulate {
                Matrix::random(rng, shape, pad, |x| x)
            } else {
                Matrix::sentinel(shape, pad)
            },
            arena: Matrix::new(Layout::vector(arena.len()), arena),
        }
    }

    fn offsets(&self) -> (usize, Option<usize>) {
        (1, Some(self.case.shape[2] * self.case.width + 2))
    }

    fn run_oracle(&self, r: &mut Results) {
        let conv = Conv {
            x: self.x.wide(),
            weight: self.weight.wide(),
            bias: self.bias.as_ref().map(Matrix::wide),
            silu: self.case.silu,
            direction: self.direction(),
        };
        oracle::conv1d(conv, r.out.wide_mut()).unwrap();
        let (weight, bias) = self.offsets();
        let grads = ConvGrads {
            arena: &mut r.arena.wide[..],
            weight,
            bias,
        };
        let accumulate = self.case.accumulate;
        oracle::conv1d_backward(conv, self.dout.wide(), accumulate, r.dx.wide_mut(), grads)
            .unwrap();
    }

    #[cfg(feature = "sim")]
    fn run_gpu(&self, gpu: &dis_tensor::Cuda<dis_kernels::sim::Sim>, r: &mut Results) {
        let case = super::gpu::ConvCase {
            x: &self.x,
            weight: &self.weight,
            bias: self.bias.as_ref(),
            dout: &self.dout,
            silu: self.case.silu,
            direction: self.direction(),
            accumulate: self.case.accumulate,
            offsets: self.offsets(),
        };
        case.run(gpu, &mut r.out, &mut r.dx, &mut r.arena);
    }

    fn run_fast(&self, level: Level, r: &mut Results) {
        let conv = Conv {
            x: self.x.narrow(),
            weight: self.weight.narrow(),
            bias: self.bias.as_ref().map(Matrix::narrow),
            silu: self.case.silu,
            direction: self.direction(),
        };
        cpu::conv1d(level, conv, r.out.narrow_mut()).unwrap();
        let (weight, bias) = self.offsets();
        let grads = ConvGrads {
            arena: &mut r.arena.narrow[..],
            weight,
            bias,
        };
        let accumulate = self.case.accumulate;
        cpu::conv1d_backward(
            level,
            conv,
            self.dout.narrow(),
            accumulate,
            r.dx.narrow_mut(),
            grads,
        )
        .unwrap();
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let flags = proptest::array::uniform4(any::<bool>());
    (
        (1..4usize, 1..60usize, 1..40usize),
        2..5usize,
        0..4usize,
        flags,
        any::<u64>(),
    )
        .prop_map(|((b, l, d), width, pad, f, seed)| Case {
            // Half of the sequences are about as short as the taps.
            shape: [b, if seed % 2 == 0 { 1 + l % 5 } else { l }, d],
            width,
            pad,
            reverse: f[0],
            bias: f[1],
            silu: f[2],
            accumulate: f[3],
            seed,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn fast_convolution_agrees_with_the_oracle(case in cases()) {
        let problem = Problem::new(&case);
        let fresh = problem.fresh();
        for level in simd::supported() {
            let mut results = fresh.clone();
            problem.run_oracle(&mut results);
            problem.run_fast(level, &mut results);
            results.check(&level.to_string())?;
        }
        #[cfg(feature = "sim")]
        {
            let mut results = fresh.clone();
            problem.run_oracle(&mut results);
            let i = problem.case.seed as usize % super::gpu::GPUS.len();
            problem.run_gpu(&super::gpu::GPUS[i], &mut results);
            results.check(&format!("simulated GPU {i}"))?;
        }
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let case = Case {
        shape: [3, 100, 200],
        width: 4,
        pad: 0,
        reverse: false,
        bias: true,
        silu: true,
        accumulate: false,
        seed: 3,
    };
    let problem = Problem::new(&case);
    for level in simd::supported() {
        let mut first: Option<Results> = None;
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let mut results = problem.fresh();
            pool.install(|| problem.run_fast(level, &mut results));
            let first = first.get_or_insert_with(|| results.clone());
            assert_eq!(first.out.narrow, results.out.narrow);
            assert_eq!(first.dx.narrow, results.dx.narrow);
            assert_eq!(first.arena.narrow, results.arena.narrow);
        }
    }
}
