//! Matrix products.

use dis_tensor::simd::supported;
use dis_tensor::{Accum, Cpu, Layout, Precision, Reference};
use proptest::prelude::*;

use crate::draw::{CPUS, Draw, Operand, check, outcome};
use crate::operation::Operation;

/// Operands of an (m, k) by (k, n) product.
pub fn operands(d: &mut Draw, m: usize, k: usize, n: usize, ta: bool, tb: bool) -> Vec<Operand> {
    let a = if ta {
        d.matrix(1, k, m)
    } else {
        d.matrix(1, m, k)
    };
    let b = if tb {
        d.matrix(1, n, k)
    } else {
        d.matrix(1, k, n)
    };
    vec![a, b, d.matrix(1, 1, n), d.matrix(1, m, n)]
}

fn all(m: usize, k: usize, n: usize, seed: u64) {
    let mut d = Draw::new(seed);
    for flags in 0..4 {
        let (transpose_a, transpose_b) = (flags & 1 != 0, flags & 2 != 0);
        for (bias, accum) in [
            (false, Accum::Replace),
            (true, Accum::Replace),
            (false, Accum::Add),
        ] {
            let operation = Operation::Gemm {
                transpose_a,
                transpose_b,
                bias,
                accum,
            };
            check(
                &operation,
                &operands(&mut d, m, k, n, transpose_a, transpose_b),
                3e-6,
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn small(m in 0usize..40, k in 0usize..40, n in 0usize..40, seed: u64) {
        all(m, k, n, seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]
    #[test]
    fn large(m in 1usize..150, k in 1usize..700, n in 1usize..150, seed: u64) {
        all(m, k, n, seed);
    }
}

#[test]
fn samples_count_as_rows() {
    let mut d = Draw::new(5);
    let operation = Operation::Gemm {
        transpose_a: false,
        transpose_b: true,
        bias: true,
        accum: Accum::Replace,
    };
    let operands = [
        d.matrix(3, 7, 11),
        d.matrix(1, 13, 11),
        d.matrix(1, 1, 13),
        d.matrix(3, 7, 13),
    ];
    check(&operation, &operands, 2e-6);
}

/// The model's shapes, and sums over thousands of rows as in gradients of weights: the same bits
/// for 1 to 4 threads. Not compared with the reference, which would take minutes.
#[test]
fn same_bits_for_any_number_of_threads() {
    let cases = [
        (257, 368, 1472, false, true),
        (257, 736, 55, false, true),
        (257, 24, 736, false, true),
        (17, 128, 512, false, true),
        (2056, 368, 1472, false, true),
        (1, 1472, 368, false, true),
        (129, 777, 333, false, true),
        (1472, 4112, 368, true, false),
        (55, 4113, 736, true, false),
        (31, 5001, 97, true, false),
        (2056, 1472, 368, false, false),
        (515, 736, 24, false, false),
    ];
    let mut d = Draw::new(11);
    for (m, k, n, transpose_a, transpose_b) in cases {
        for accum in [Accum::Replace, Accum::Add] {
            let operation = Operation::Gemm {
                transpose_a,
                transpose_b,
                bias: false,
                accum,
            };
            let operands = operands(&mut d, m, k, n, transpose_a, transpose_b);
            let results = CPUS
                .each_ref()
                .map(|cpu| outcome(cpu, &operation, &operands).unwrap());
            for other in &results[1..] {
                let pairs = results[0][3].iter().zip(other[3].iter());
                let differing = pairs.filter(|(x, y)| x.to_bits() != y.to_bits()).count();
                assert_eq!(differing, 0, "{m} x {k} x {n} {operation:?}");
            }
        }
    }
}

/// A row of the result does not depend on the other rows, at the sizes of the model: neither on how
/// many there are, nor on whether its tile is packed or read in place.
#[test]
fn same_bits_for_any_number_of_rows() {
    let mut d = Draw::new(12);
    for (k, n) in [(368, 1472), (736, 55), (23, 736), (1100, 33)] {
        let operands = operands(&mut d, 300, k, n, false, true);
        for precision in [Precision::Float32, Precision::Bfloat16] {
            rows_alone(&operands, n, precision);
        }
    }
}

fn rows_alone(operands: &[Operand], n: usize, precision: Precision) {
    let operation = Operation::Gemm {
        transpose_a: false,
        transpose_b: true,
        bias: true,
        accum: Accum::Replace,
    };
    let cpus = CPUS.each_ref().map(|x| x.clone().with_precision(precision));
    let whole = outcome(&cpus[0], &operation, operands).unwrap();
    for (first, rows) in [(0, 1), (299, 1), (7, 16), (100, 57)] {
        let mut part = operands.to_vec();
        for matrix in [0, 3] {
            part[matrix].layout = part[matrix].layout.token_range(first, rows);
        }
        for cpu in &cpus {
            let result = outcome(cpu, &operation, &part).unwrap();
            for row in 0..rows {
                let at = part[3].layout.offset + row * part[3].layout.row_stride;
                assert!(
                    result[3][at..at + n] == whole[3][at..at + n],
                    "{precision:?} {n} {first} {row}"
                );
            }
        }
    }
}

#[test]
fn a_product_over_nothing_is_zero_or_bias() {
    let mut d = Draw::new(2);
    for (bias, accum) in [
        (false, Accum::Replace),
        (true, Accum::Replace),
        (false, Accum::Add),
    ] {
        let operation = Operation::Gemm {
            transpose_a: false,
            transpose_b: false,
            bias,
            accum,
        };
        let nothing = |rows, cols| Operand {
            data: vec![],
            layout: Layout::matrix(rows, cols).at(9),
        };
        let operands = [nothing(3, 0), nothing(0, 4), d.dense(4), d.matrix(1, 3, 4)];
        check(&operation, &operands, 1e-7);
    }
}

/// Operands of a product, those that are multiplied rounded to bfloat16.
pub fn bfloat16(operands: &[Operand]) -> Vec<Operand> {
    let round = |x: f32| {
        let bits = x.to_bits();
        f32::from_bits((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF_0000)
    };
    let mut rounded = operands.to_vec();
    for matrix in &mut rounded[..2] {
        matrix.data.iter_mut().for_each(|x| *x = round(*x));
    }
    rounded
}

/// Products of bfloat16 are exact in float32, so a product of rounded operands differs from that in
/// float64 only by the rounding of sums; on every instruction set.
#[test]
fn bfloat16_is_rounding_and_nothing_else() {
    let mut d = Draw::new(21);
    for (m, k, n) in [
        (1, 1, 1),
        (5, 7, 9),
        (29, 33, 70),
        (17, 1030, 40),
        // Few rows: threads share the columns.
        (20, 420, 130),
        (3, 23, 16),
    ] {
        for flags in 0..4 {
            let (transpose_a, transpose_b) = (flags & 1 != 0, flags & 2 != 0);
            let operation = Operation::Gemm {
                transpose_a,
                transpose_b,
                bias: true,
                accum: Accum::Replace,
            };
            let exact = operands(&mut d, m, k, n, transpose_a, transpose_b);
            let rounded = bfloat16(&exact);
            let reference = outcome(&Reference::new(), &operation, &rounded).unwrap();
            for level in supported() {
                let mut alike = Vec::new();
                for threads in [1, 3] {
                    let cpu = Cpu::with_threads(threads).unwrap().with_level(level);
                    let cpu = cpu.with_precision(Precision::Bfloat16);
                    let ours = outcome(&cpu, &operation, &exact).unwrap().remove(3);
                    let pairs = ours.iter().zip(reference[3].iter());
                    let worst = pairs.fold(0.0f64, |a, (x, y)| a.max((f64::from(*x) - y).abs()));
                    assert!(worst < 3e-6 * (k as f64).sqrt() + 1e-6, "{level}: {worst}");
                    alike.push(ours.to_vec());
                }
                assert!(alike[0] == alike[1]);
            }
        }
    }
}
