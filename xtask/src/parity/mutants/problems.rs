//! Small problems that between them execute every line of a text.

use dis_scan::{Direction, Discretization};

use super::super::grid::Problem;
use super::super::state_space::ScanCase;

/// Flags of the norms, as bits of the seed from 8 on: LayerNorm, weight, bias, modulation, residual,
/// scale of samples, accumulation.
const NORMS: [u64; 6] = [0x7f01, 0x0002, 0x6a00, 0x1501, 0x1b02, 0x6400];

/// Sizes of products, and seeds.
const PRODUCTS: [([usize; 3], u64); 10] = [
    ([5, 24, 37], 1),
    ([65, 37, 65], 2),
    ([1, 1, 1], 3),
    ([130, 17, 70], 5),
    ([7, 20, 39], 4),
    ([66, 18, 68], 8),
    ([23, 20, 55], 12),
    ([44, 20, 29], 16),
    ([60, 16, 21], 20),
    // The last tile of the sum ends in its last quarter.
    ([9, 30, 67], 24),
];

fn scans() -> Vec<(Problem, u64)> {
    let (forward, reverse) = (Direction::Forward, Direction::Reverse);
    let (mamba, hold) = (Discretization::Mamba, Discretization::ZeroOrderHold);
    let mut out = Vec::new();
    for (shape, states, direction, discretization, full, accumulate) in [
        ([2, 19, 37], 16, forward, mamba, true, false),
        ([1, 5, 24], 16, reverse, hold, false, true),
        ([2, 37, 24], 4, reverse, mamba, true, true),
        ([1, 18, 37], 3, forward, hold, true, false),
        ([1, 17, 24], 32, reverse, mamba, false, false),
        ([1, 5, 20], 130, forward, mamba, true, true),
        // All four states of a lane, and lanes that have fewer or none, under the zero-order hold.
        ([1, 9, 24], 4, reverse, hold, true, false),
        ([1, 7, 24], 7, forward, hold, false, true),
        ([1, 5, 20], 130, reverse, hold, true, false),
        ([1, 40, 24], 2, forward, mamba, true, false),
        // Enough threads for the entries of large batches.
        ([46, 18, 736], 16, reverse, mamba, true, true),
        ([46, 3, 736], 16, forward, hold, true, false),
        ([46, 3, 736], 8, reverse, mamba, true, false),
        ([12, 3, 736], 32, forward, mamba, true, false),
    ] {
        let case = ScanCase {
            shape,
            states,
            direction,
            discretization,
            full,
            accumulate,
        };
        out.push((Problem::Scan(case), 7 + states as u64));
    }
    // Nothing lies behind the last token, and tiles end at every quarter.
    for tokens in [4, 10, 15] {
        let case = ScanCase {
            shape: [1, tokens, 24],
            states: 16,
            direction: forward,
            discretization: mamba,
            full: true,
            accumulate: false,
        };
        out.insert(0, (Problem::Scan(case), 8));
    }
    // Both directions in one launch, backward too.
    out.insert(9, (Problem::Mixer([1, 19, 12], 16), 3));
    out.insert(9, (Problem::Mixer([2, 5, 12], 4), 2));
    out
}

fn convolutions() -> Vec<(Problem, u64)> {
    // Nothing lies behind the last token, and groups of four end at every one of them.
    let mut out: Vec<_> = (5..9)
        .map(|tokens| (Problem::Conv([1, tokens, 24], 4, Direction::Forward), 8))
        .collect();
    for (seed, width) in [
        (0u64, 2usize),
        (4, 3),
        (8 + 1, 4),
        (4 + 8 + 2, 4),
        (16 + 4, 3),
        (16 + 8 + 4 + 3, 2),
    ] {
        for (shape, direction) in [
            ([2, 19, 37], Direction::Forward),
            ([1, 70, 150], Direction::Reverse),
            ([3, 1, 24], Direction::Reverse),
            ([1, 4, 24], Direction::Forward),
            ([2, 32, 24], Direction::Reverse),
        ] {
            out.push((Problem::Conv(shape, width, direction), seed));
        }
    }
    out
}

/// The problems of a text, the cheap ones first, with their seeds.
pub fn of(text: &str) -> Vec<(Problem, u64)> {
    let elementwise = [
        ([2, 5, 37], 1),
        ([1, 1, 24], 2),
        ([3, 7, 300], 3),
        ([1, 300, 40], 5),
        // One row longer than a grid is wide.
        ([1, 2, 131_500], 4),
    ];
    match text {
        "elementwise.ptx" | "reduce.ptx" => elementwise
            .map(|(shape, seed)| (Problem::Elementwise(shape), seed))
            .to_vec(),
        "softmax.ptx" => [
            ([2, 5, 37], 1),
            ([1, 1, 24], 2),
            ([3, 7, 300], 3),
            // Rows that shared memory does not hold.
            ([2, 2, 12_300], 5),
        ]
        .map(|(shape, seed)| (Problem::Elementwise(shape), seed))
        .to_vec(),
        "norm.ptx" => {
            let shapes = [[2, 5, 37], [3, 3, 300], [1, 40, 24]];
            let each = NORMS
                .iter()
                .flat_map(|&seed| shapes.map(|s| (Problem::Norms(s), seed)));
            each.collect()
        }
        "embed.ptx" | "patch.ptx" => [([3, 5, 24], 1), ([7, 11, 37], 2), ([1, 1, 300], 3)]
            .map(|(s, seed)| (Problem::Tables(s), seed))
            .to_vec(),
        "images.ptx" | "statistics.ptx" => [([3, 300], 1), ([2, 37], 2), ([1, 1], 3)]
            .map(|(s, seed)| (Problem::Images(s), seed))
            .to_vec(),
        "loss.ptx" => [([3, 300], 1), ([2, 37], 2), ([1, 1], 3)]
            .map(|(s, seed)| (Problem::Loss(s), seed))
            .to_vec(),
        "optim.ptx" => [(37, 2), (37, 3), (5000, 4), (70_000, 5), (1_060_000, 6)]
            .map(|(n, seed)| (Problem::Optimizer(n), seed))
            .to_vec(),
        "gemm.ptx" => PRODUCTS
            .map(|(s, seed)| (Problem::Products(s), seed))
            .to_vec(),
        "bf16.ptx" => PRODUCTS
            .into_iter()
            // A row longer than a grid is wide.
            .chain([([1, 1, 33_000], 1)])
            .map(|(s, seed)| (Problem::Bf16Products(s), seed))
            .collect(),
        "conv1d.ptx" => convolutions(),
        "partials.ptx" => {
            let mut out = convolutions();
            out.extend(scans());
            out
        }
        _ => scans(),
    }
}
