//! The GPU backend on the simulator, for the same suite.

use std::sync::LazyLock;

use dis_kernels::sim::{Approx, Options, Order, Sim};
use dis_tensor::{Accum, Backend, Cuda};

use crate::draw::{Operand, largest, outcome, stays};
use crate::operation::Operation;

/// A backend, and the largest case it is given, in elements.
pub struct Gpu {
    pub backend: Cuda<Sim>,
    limit: usize,
}

fn gpu(approx: Approx, order: Order, limit: usize, ptx_gemm: bool) -> Gpu {
    let options = Options {
        approx,
        order,
        ..Options::default()
    };
    Gpu {
        backend: Cuda::new(Sim::new(options)).with_ptx_gemm(ptx_gemm),
        limit,
    }
}

/// Approximate instructions at both ends of their error, blocks and warps in several orders, matrix
/// products by the host and by the kernel.
pub static GPUS: LazyLock<[Gpu; 4]> = LazyLock::new(|| {
    [
        gpu(Approx::Exact, Order::InOrder, 100_000, true),
        gpu(Approx::Exact, Order::Reversed, 20_000, true),
        gpu(Approx::High, Order::Shuffled(3), 20_000, true),
        gpu(Approx::Low, Order::Shuffled(9), 20_000, false),
    ]
});

/// Compares every simulated GPU with what the reference gave, as `draw::check` does the CPU.
pub fn check(operation: &Operation, operands: &[Operand], expected: &[Vec<f64>], rtol: f64) {
    let size: usize = operands.iter().map(|x| x.data.len()).sum();
    let mut bits: Option<Vec<Vec<u32>>> = None;
    for (i, Gpu { backend, limit }) in GPUS.iter().enumerate() {
        if size > *limit {
            continue;
        }
        let results = outcome(backend, operation, operands).unwrap();
        let results: Vec<Vec<f32>> = results.iter().map(|x| backend.to_f32(x)).collect();
        assert_eq!(backend.failure(), None);
        for (j, (got, want)) in results.iter().zip(expected).enumerate() {
            let what = format!("{operation:?}, simulated GPU {i}, operand {j}");
            let largest = largest(want);
            for (k, (&got, &want)) in got.iter().zip(want).enumerate() {
                let error = (f64::from(got) - want).abs();
                assert!(
                    error <= rtol * largest,
                    "{what} at {k}: {got} not {want} of {largest}"
                );
            }
            stays(&operands[j], got, &what);
        }
        // With exact functions the order of blocks and warps must not show.
        if i < 2 {
            let these: Vec<Vec<u32>> = results
                .iter()
                .map(|x| x.iter().map(|x| x.to_bits()).collect())
                .collect();
            match &bits {
                Some(first) => assert!(*first == these, "{operation:?} depends on the order"),
                None => bits = Some(these),
            }
        }
    }
}

/// Memory that was handed out again counts as never written.
#[test]
fn stale_memory_is_seen() {
    use dis_tensor::{Layout, Tokens, TokensMut};
    let b = &GPUS[0].backend.clone();
    let b = &Cuda::new(b.driver().clone());
    let old = b.from_f32(&[1.0; 1000]);
    drop(old);
    let stale = b.alloc::<f32>(1000);
    assert_eq!(b.pool_stats().reuses, 1);
    let mut out = b.zeros::<f32>(1000);
    let row = Layout::vector(1000);
    let error = b
        .silu(Tokens::new(&stale, row), TokensMut::new(&mut out, row))
        .unwrap_err();
    assert!(error.to_string().contains("elementwise.ptx"), "{error}");
}

/// By the host, or by the kernel.
#[test]
fn products_go_the_way_that_was_asked_for() {
    let launches = |gpu: &Cuda<Sim>| {
        let counters = gpu.driver().counters();
        counters.get("dis_gemm").map_or(0, |c| c.launches)
    };
    let gpu = Cuda::new(Sim::new(Options::default()));
    let a = gpu.from_f32(&[1.0, 2.0, 3.0, 4.0]);
    let square = dis_tensor::Layout::matrix(2, 2);
    let run = |gpu: &Cuda<Sim>| {
        let mut c = gpu.zeros::<f32>(4);
        let view = dis_tensor::Tokens::new(&a, square);
        let out = dis_tensor::TokensMut::new(&mut c, square);
        gpu.gemm(view, view, None, Accum::Replace, out).unwrap();
        assert_eq!(gpu.to_f32(&c), [7.0, 10.0, 15.0, 22.0]);
    };
    run(&gpu);
    assert_eq!(launches(&gpu), 0);
    run(&gpu.clone().with_ptx_gemm(true));
    assert_eq!(launches(&gpu), 1);
}
