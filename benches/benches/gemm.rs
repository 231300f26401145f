//! Matrix products at the shapes of DiS-S, B and H, against the `gemm` crate, with the rate of
//! multiply-adds that the processor reaches in registers beside them. `DIS_SIMD` picks our instruction
//! set, the feature `avx512` (on by default) that of the crate.

#![allow(missing_docs, clippy::expect_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::simd::{Kernel, Number, Simd, dispatch, level};
use dis_tensor::{Accum, Backend, Cpu, Layout, Precision, Tokens, TokensMut};

/// (rows, length of the sum, columns): in_proj, x_proj, dt_proj, out_proj of DiS-S, then larger.
const SHAPES: [(usize, usize, usize); 7] = [
    (257, 368, 1472),
    (257, 736, 55),
    (257, 23, 736),
    (257, 736, 368),
    (2056, 368, 1472),
    (258, 768, 3072),
    (258, 3072, 1536),
];

/// The same projections of DiS-S with a batch of 8.
const TRAINING: [(usize, usize, usize); 4] = [
    (2056, 368, 1472),
    (2056, 736, 55),
    (2056, 23, 736),
    (2056, 736, 368),
];

fn normals(seed: u64, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    Stream::new(seed, Purpose::Test, 0, 0).fill_normal(&mut values);
    values
}

/// `16 * 28 * 1000` multiply-adds in registers.
struct Peak;

impl Peak {
    /// With so many sums.
    #[inline(always)]
    fn sums<S: Simd, const N: usize>(simd: S) -> f32 {
        let x = simd.splat_part(black_box(0.999));
        let y = simd.splat_part(black_box(1e-3));
        // Different ones, which no compiler takes together.
        let mut sums: [S::P; N] = std::array::from_fn(|i| simd.splat_part(black_box(i as f32)));
        for _ in 0..28 * 1000 * S::PARTS / N {
            for sum in &mut sums {
                *sum = sum.fma(x, y);
            }
        }
        let mut out = [0.0; 16];
        let mut total = 0.0;
        for sum in sums {
            simd.store_part(sum, &mut out, 0);
            total += out[0];
        }
        total
    }
}

impl Kernel for Peak {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        // As many as registers hold beside the two others.
        match S::PARTS {
            1 => Self::sums::<S, 28>(simd),
            _ => Self::sums::<S, 14>(simd),
        }
    }
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm");
    group.sample_size(20);
    group.throughput(Throughput::Elements(16 * 28 * 1000));
    group.bench_function("peak, a thread", |b| b.iter(|| dispatch(level(), Peak)));
    for (m, k, n) in SHAPES {
        let (a, w) = (normals(1, m * k), normals(2, n * k));
        let mut plain = vec![0.0f32; m * n];
        group.throughput(Throughput::Elements((m * n * k) as u64));
        for threads in [1, 2] {
            let cpu = Cpu::with_threads(threads).expect("threads");
            let (x, weight) = (cpu.from_f32(&a), cpu.from_f32(&w));
            let mut out = cpu.alloc::<f32>(m * n);
            group.bench_function(format!("{m}x{k}x{n}/ours, threads {threads}"), |b| {
                b.iter(|| {
                    let (x, weight) = (
                        Tokens::new(&x, Layout::dense(1, m, k)),
                        Tokens::new(&weight, Layout::dense(1, n, k)),
                    );
                    let out = TokensMut::new(&mut out, Layout::dense(1, m, n));
                    cpu.gemm(x, weight.t(), None, Accum::Replace, out)
                        .expect("a product");
                });
            });
            let mut ready = cpu.from_f32(&w);
            cpu.prepare_weights(&mut ready, &[Layout::matrix(n, k)])
                .expect("a prepared matrix");
            group.bench_function(format!("{m}x{k}x{n}/prepared, threads {threads}"), |b| {
                b.iter(|| {
                    let (x, weight) = (
                        Tokens::new(&x, Layout::dense(1, m, k)),
                        Tokens::new(&ready, Layout::dense(1, n, k)),
                    );
                    let out = TokensMut::new(&mut out, Layout::dense(1, m, n));
                    cpu.gemm(x, weight.t(), None, Accum::Replace, out)
                        .expect("a product");
                });
            });
            let half = cpu.clone().with_precision(Precision::Bfloat16);
            group.bench_function(format!("{m}x{k}x{n}/ours bf16, threads {threads}"), |b| {
                b.iter(|| {
                    let (x, weight) = (
                        Tokens::new(&x, Layout::dense(1, m, k)),
                        Tokens::new(&weight, Layout::dense(1, n, k)),
                    );
                    let out = TokensMut::new(&mut out, Layout::dense(1, m, n));
                    half.gemm(x, weight.t(), None, Accum::Replace, out)
                        .expect("a product");
                });
            });
            let parallelism = match threads {
                1 => gemm::Parallelism::None,
                _ => gemm::Parallelism::Rayon(threads),
            };
            group.bench_function(format!("{m}x{k}x{n}/gemm crate, threads {threads}"), |b| {
                b.iter(|| {
                    cpu.install(|| {
                        // SAFETY: dense matrices of exactly these sizes.
                        unsafe {
                            gemm::gemm(
                                m,
                                n,
                                k,
                                plain.as_mut_ptr(),
                                1,
                                n as isize,
                                false,
                                a.as_ptr(),
                                1,
                                k as isize,
                                w.as_ptr(),
                                k as isize,
                                1,
                                0.0f32,
                                1.0f32,
                                false,
                                false,
                                false,
                                parallelism,
                            );
                        }
                    });
                });
            });
        }
    }
}

/// The products of a step of training, whose operands are packed at every call: forward, gradient of the
/// input, gradient of the weight, which is added to.
fn training(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm of a training step");
    group.sample_size(20);
    for (m, k, n) in TRAINING {
        let (a, w, d) = (normals(1, m * k), normals(2, n * k), normals(3, m * n));
        group.throughput(Throughput::Elements((m * n * k) as u64));
        for threads in [1, 2] {
            let cpu = Cpu::with_threads(threads).expect("threads");
            let [x, weight, dy] = [&a, &w, &d].map(|values| cpu.from_f32(values));
            let [mut dx, mut dw, mut y] = [&a, &w, &d].map(|values| cpu.zeros::<f32>(values.len()));
            let (input, by, output) = (
                Layout::dense(1, m, k),
                Layout::dense(1, n, k),
                Layout::dense(1, m, n),
            );
            group.bench_function(format!("{m}x{k}x{n}/y, threads {threads}"), |b| {
                b.iter(|| {
                    let (x, weight) = (Tokens::new(&x, input), Tokens::new(&weight, by));
                    let y = TokensMut::new(&mut y, output);
                    cpu.gemm(x, weight.t(), None, Accum::Replace, y)
                        .expect("a product");
                });
            });
            group.bench_function(format!("{m}x{k}x{n}/dx, threads {threads}"), |b| {
                b.iter(|| {
                    let (dy, weight) = (Tokens::new(&dy, output), Tokens::new(&weight, by));
                    let dx = TokensMut::new(&mut dx, input);
                    cpu.gemm(dy, weight, None, Accum::Replace, dx)
                        .expect("a product");
                });
            });
            group.bench_function(format!("{m}x{k}x{n}/dw, threads {threads}"), |b| {
                b.iter(|| {
                    let (dy, x) = (Tokens::new(&dy, output), Tokens::new(&x, input));
                    let dw = TokensMut::new(&mut dw, by);
                    cpu.gemm(dy.t(), x, None, Accum::Add, dw)
                        .expect("a product");
                });
            });
        }
    }
}

criterion_group!(benches, products, training);
criterion_main!(benches);
