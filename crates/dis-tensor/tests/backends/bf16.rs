//! Products of bfloat16 on the simulated GPU.

use dis_kernels::sim::{Options, Sim};
use dis_tensor::{Accum, Backend, Cuda, Layout, Precision, Reals, Reference, Tokens, TokensMut};

use crate::draw::{CPUS, Draw, Operand, outcome, stays};
use crate::gemm::{bfloat16, operands};
use crate::gpu::GPUS;
use crate::operation::Operation;

fn gpu() -> Cuda<Sim> {
    Cuda::new(Sim::new(Options::default())).with_precision(Precision::Bfloat16)
}

fn launches(gpu: &Cuda<Sim>, entry: &str) -> u64 {
    gpu.driver().counters().get(entry).map_or(0, |c| c.launches)
}

/// `a b^T` of `a` (rows x k) and the matrix at `layout` of `weights`.
fn times<B: Backend>(b: &B, a: &[f32], weights: &Reals<B>, layout: Layout) -> Vec<f32> {
    let (rows, columns) = (a.len() / layout.channels, layout.rows());
    let a = b.from_f32(a);
    let mut c = b.alloc(rows * columns);
    b.gemm(
        Tokens::new(&a, Layout::matrix(rows, layout.channels)),
        Tokens::new(weights, layout).t(),
        None,
        Accum::Replace,
        TokensMut::new(&mut c, Layout::matrix(rows, columns)),
    )
    .unwrap();
    assert_eq!(b.failure(), None);
    b.to_f32(&c)
}

/// Sums of `k` exact products and what was there before: off by at most (k + 1) / 2^24 of the sum of
/// magnitudes in any order (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section
/// 3.1, to first order, hence twice), on the processor as on the GPU.
#[test]
fn products_agree_with_the_processor() {
    let mut d = Draw::new(31);
    for (m, k, n) in [
        (1, 1, 1),
        (5, 7, 9),
        (29, 33, 70),
        (3, 130, 16),
        (66, 20, 65),
    ] {
        for flags in 0..12 {
            let (transpose_a, transpose_b) = (flags & 1 != 0, flags & 2 != 0);
            let (bias, accum) = [
                (false, Accum::Replace),
                (true, Accum::Replace),
                (false, Accum::Add),
            ][flags / 4];
            let operation = Operation::Gemm {
                transpose_a,
                transpose_b,
                bias,
                accum,
            };
            let exact = operands(&mut d, m, k, n, transpose_a, transpose_b);
            let rounded = bfloat16(&exact);
            let want = outcome(&Reference::new(), &operation, &rounded).unwrap();
            let mut magnitudes = rounded.clone();
            for x in &mut magnitudes {
                x.data.iter_mut().for_each(|x| *x = x.abs());
            }
            let magnitudes = outcome(&Reference::new(), &operation, &magnitudes).unwrap();
            let bound = |j: usize| 2.0 * (k as f64 + 1.0) * 2f64.powi(-24) * magnitudes[3][j];
            let near = |got: &[f32], what: &str| {
                for (j, (&got, want)) in got.iter().zip(want[3].iter()).enumerate() {
                    let off = (f64::from(got) - want).abs();
                    assert!(
                        off <= bound(j),
                        "{what}, {m} {k} {n} {flags}: {off:e} at {j}"
                    );
                }
                stays(&exact[3], got, what);
            };
            let cpu = CPUS[0].clone().with_precision(Precision::Bfloat16);
            near(&outcome(&cpu, &operation, &exact).unwrap()[3], "processor");
            for gpu in GPUS.iter() {
                let gpu = gpu.backend.clone().with_precision(Precision::Bfloat16);
                let results = outcome(&gpu, &operation, &exact).unwrap();
                near(&gpu.to_f32(&results[3]), "simulated GPU");
                // Operands are rounded elsewhere.
                assert!(gpu.to_f32(&results[0]) == exact[0].data);
                assert!(gpu.to_f32(&results[1]) == exact[1].data);
            }
        }
    }
}

/// Times the identity, either operand comes back as it was rounded.
#[test]
fn operands_are_rounded_to_the_bits_of_the_processor() {
    let (rows, k) = (41, 37);
    let mut d = Draw::new(32);
    let mut values = d.dense(rows * k).data;
    for (i, x) in values.iter_mut().enumerate() {
        // Ties among them, of even and of odd upper halves.
        if i % 3 == 0 {
            *x = f32::from_bits(x.to_bits() & 0xffff_0000 | 0x8000);
        }
    }
    let mut identity = vec![0.0; k * k];
    (0..k).for_each(|i| identity[i * (k + 1)] = 1.0);
    let cpu = CPUS[0].clone().with_precision(Precision::Bfloat16);
    let gpu = gpu();
    fn both<B: Backend>(b: &B, values: &[f32], identity: &[f32], k: usize) -> [Vec<f32>; 2] {
        let (x, one) = (b.from_f32(values), b.from_f32(identity));
        let left = times(b, values, &one, Layout::matrix(k, k));
        let right = times(b, identity, &x, Layout::matrix(values.len() / k, k));
        [left, right]
    }
    let want = both(&cpu, &values, &identity, k);
    assert!(want[0] != values);
    for gpu in [gpu.clone(), gpu.with_ptx_gemm(true)] {
        assert!(both(&gpu, &values, &identity, k) == want);
    }
}

/// The same bits, with the weights rounded once: whole matrices, some of their columns, matrices that
/// were not prepared, and other forms of product. A write ends the copies.
#[test]
fn prepared_weights_give_the_same_bits() {
    let mut d = Draw::new(33);
    let Operand { data, .. } = d.dense(2000);
    let (first, second) = (Layout::matrix(19, 23).at(5), Layout::matrix(7, 64).at(600));
    let views = [
        (first, true),
        (second, true),
        (first.columns(3, 11), true),
        (second.columns(32, 32), true),
        (first.token_range(2, 5), true),
        // Across the end of the first, beside both, and rows at another distance.
        (Layout::matrix(23, 19).at(20), false),
        (Layout::matrix(9, 30).at(1200), false),
        (Layout::padded(1, 4, 20, 40).at(5), false),
    ];
    for ptx_gemm in [false, true] {
        let gpu = gpu().with_ptx_gemm(ptx_gemm);
        let plain = gpu.from_f32(&data);
        let mut ready = gpu.from_f32(&data);
        gpu.prepare_weights(&mut ready, &[second, first]).unwrap();
        assert!(gpu.prepare_weights(&mut ready, &[first]).is_err());
        for (layout, known) in views {
            let a = d.dense(13 * layout.channels).data;
            let want = times(&gpu, &a, &plain, layout);
            let before = launches(&gpu, "dis_round_bf16");
            assert!(times(&gpu, &a, &ready, layout) == want, "{layout:?}");
            let rounded = launches(&gpu, "dis_round_bf16") - before;
            assert_eq!(rounded, if known { 1 } else { 2 }, "{layout:?}");
        }
        // A copy is not what later weights are.
        let a = d.dense(13 * first.channels).data;
        gpu.write_f32(&mut ready, first.offset, &[100.0]).unwrap();
        let mut changed = data.clone();
        changed[first.offset] = 100.0;
        let want = times(&gpu, &a, &gpu.from_f32(&changed), first);
        assert!(times(&gpu, &a, &ready, first) == want);
        gpu.prepare_weights(&mut ready, &[first]).unwrap();
        assert!(times(&gpu, &a, &ready, first) == want);
        gpu.fill(TokensMut::new(&mut ready, first), 0.5).unwrap();
        let filled = times(&gpu, &a, &ready, first);
        let row = filled.chunks_exact(first.rows());
        assert!(row.into_iter().all(|r| r.iter().all(|x| *x == r[0])));
    }
    // In float32 there is nothing to prepare.
    let full = gpu().with_precision(Precision::Float32);
    let mut ready = full.from_f32(&data);
    let held = full.pool_stats().bytes_in_use;
    full.prepare_weights(&mut ready, &[first]).unwrap();
    assert_eq!(full.pool_stats().bytes_in_use, held);
}

/// By the host or by the kernel of that precision; memory for operands is used again.
#[test]
fn products_go_the_way_that_was_asked_for() {
    let gpu = gpu();
    assert!(gpu.describe().contains("bfloat16"), "{}", gpu.describe());
    let weights = gpu.from_f32(&[1.0, 2.0, 3.0, 4.0]);
    let run = |gpu: &Cuda<Sim>| {
        let c = times(gpu, &[1.0, 2.0, 3.0, 4.0], &weights, Layout::matrix(2, 2));
        assert_eq!(c, [5.0, 11.0, 11.0, 25.0]);
    };
    run(&gpu);
    let allocations = gpu.pool_stats().allocations;
    run(&gpu);
    run(&gpu.clone().with_ptx_gemm(true));
    assert_eq!(gpu.pool_stats().allocations, allocations);
    assert_eq!(launches(&gpu, "dis_gemm_bf16"), 1);
    assert_eq!(launches(&gpu, "dis_round_bf16"), 6);
    run(&gpu.with_precision(Precision::Float32));
}
