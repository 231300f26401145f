//! Rounding to bfloat16, and products of that.

use dis_kernels::bf16::{Bf16Mat, GemmBf16, RoundBf16};
use dis_kernels::ptx::BF16;
use dis_kernels::sim::Sim;
use dis_kernels::{Block, Driver, PtrMut};

use crate::bench::{Bench, Field};
use crate::refused::{cut, refused};

/// What memory holds before a kernel writes it.
const BEFORE: u16 = 0x1234;

/// The nearest of the 16-bit numbers below and above, by distances in float64.
fn nearest(x: f32) -> u16 {
    if x.is_nan() {
        return 0x7fff;
    }
    let low = (x.to_bits() >> 16) as u16;
    // In magnitude; beyond the largest comes what would be 2^128, which stands for infinity.
    let value = |half: u16| match half & 0x7fff {
        0x7f80 => 2f64.powi(128),
        _ => f64::from(f32::from_bits(u32::from(half & 0x7fff) << 16)),
    };
    if x.is_infinite() {
        return low;
    }
    let x = f64::from(x.abs());
    let (below, above) = (x - value(low), value(low + 1) - x);
    match below.total_cmp(&above) {
        std::cmp::Ordering::Less => low,
        std::cmp::Ordering::Greater => low + 1,
        std::cmp::Ordering::Equal => low + (low & 1),
    }
}

fn wide(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

fn halves(d: &Bench, block: &Block<Sim>) -> Vec<u16> {
    let mut values = vec![0u16; block.bytes() / 2];
    let bytes = bytemuck::cast_slice_mut(&mut values);
    d.sim.download(block.address(), bytes).unwrap();
    values
}

/// Memory for `rows` rounded rows, and one more element on either side of a pair.
fn room(d: &Bench, rows: usize, columns: usize) -> Block<Sim> {
    d.put(&vec![BEFORE; 2 + rows * Bf16Mat::stride(columns) + 2])
}

fn inner(block: &Block<Sim>) -> PtrMut<u16> {
    let all = block.ptr_mut::<u16>().at(2);
    PtrMut::new(all.address(), all.len() - 2)
}

/// `x`, rounded by the kernel; what lies around must stay.
fn rounded(d: &Bench, x: &Field) -> (Block<Sim>, Bf16Mat) {
    let (rows, columns) = (x.shape[0] * x.shape[1], x.shape[2]);
    let block = room(d, rows, columns);
    d.run(RoundBf16::new(x.mat(), inner(&block)));
    let mat = Bf16Mat::rounded(inner(&block).read(), rows, columns);
    let mut want = vec![BEFORE; block.bytes() / 2];
    for i in 0..rows {
        let row = &mut want[2 + i * mat.row_stride..][..mat.row_stride];
        for (j, place) in row[..columns].iter_mut().enumerate() {
            *place = nearest(x.at(i / x.shape[1], i % x.shape[1], j) as f32);
        }
        if columns % 2 == 1 {
            row[columns] = 0;
        }
    }
    assert!(
        halves(d, &block) == want,
        "{rows} x {columns}, {} apart",
        x.mat().row_stride
    );
    (block, mat)
}

#[test]
fn rounding() {
    let mut d = Bench::new();
    for (shape, pad) in [
        ([1, 1, 1], 0),
        ([1, 3, 2], 0),
        ([1, 5, 37], 0),
        ([1, 9, 64], 3),
        ([1, 2, 1021], 1),
        ([1, 300, 5], 2),
        // Longer than a grid is wide.
        ([1, 2, 33_001], 1),
    ] {
        let x = d.field(shape, pad);
        rounded(&d, &x);
    }
    // Samples count as rows where they lie at one distance.
    let x = d.field([3, 5, 7], 0);
    rounded(&d, &x);
    let coverage = d.sim.coverage(&BF16).unwrap();
    let missed: Vec<_> = coverage
        .uncovered()
        .filter(|l| l.entry == "dis_round_bf16")
        .map(|l| &l.instruction)
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
}

/// Every upper half, with lower halves on, beside and far from a tie: subnormals, infinities, NaN, and
/// what overflows.
#[test]
fn rounding_of_every_kind_of_number() {
    let mut d = Bench::new();
    let mut x = d.field([1, 6, 1 << 16], 0);
    for (i, low) in [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff]
        .into_iter()
        .enumerate()
    {
        for high in 0..1u32 << 16 {
            x.host[(i << 16) + high as usize] = f32::from_bits(high << 16 | low);
        }
    }
    x.block = d.put(&x.host);
    rounded(&d, &x);
    let special = [
        (f32::MAX, 0x7f80),
        (f32::from_bits(0x7f7f_7fff), 0x7f7f),
        (f32::from_bits(0x7f7f_8000), 0x7f80),
        (f32::from_bits(0xff7f_8000), 0xff80),
        (1.0 + 2f32.powi(-8), 0x3f80),
        (1.0 + 3.0 * 2f32.powi(-8), 0x3f82),
        (f32::from_bits(0x8000), 0),
        (f32::from_bits(0x8001), 1),
        (-0.0, 0x8000),
        (f32::from_bits(0xff80_0001), 0x7fff),
    ];
    for (x, want) in special {
        assert_eq!(nearest(x), want, "{x:e}");
    }
}

/// Against float64 of the rounded operands. A product of two bfloat16 is exact in float32, so the sum of
/// k of them and of what there was is off by at most (k + 1) / 2^24 of the sum of magnitudes (Higham,
/// "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1, to first order; twice covers
/// the rest).
fn product(d: &mut Bench, [m, k, n]: [usize; 3], pad: usize, flags: usize) {
    let (ta, tb, accumulate) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    let turned = |t: bool, r, c| if t { [1, c, r] } else { [1, r, c] };
    let (sa, sb) = (turned(ta, m, k), turned(tb, k, n));
    // Operands are parts of larger matrices, one column and row from their beginning where there is
    // padding.
    let grown = |[_, r, c]: [usize; 3]| [1, r + pad, c + pad];
    let (a, b) = (d.field(grown(sa), pad), d.field(grown(sb), pad));
    let ((_a, a16), (_b, b16)) = (rounded(d, &a), rounded(d, &b));
    let from = pad.min(1);
    let part = |x: Bf16Mat, [_, r, c]: [usize; 3]| x.part([from; 2], [r, c]).unwrap();
    let (bias, c) = (d.field([1, 1, n], 0), d.field([1, m, n], pad));
    let add = (!accumulate).then(|| bias.mat());
    let (a16, b16) = (part(a16, sa), part(b16, sb));
    d.run(GemmBf16::new(
        a16.factor(ta),
        b16.factor(tb),
        c.mat_mut(),
        add,
        accumulate,
    ));
    let get = |x: &Field, t: bool, i: usize, j: usize| {
        let (i, j) = if t { (j, i) } else { (i, j) };
        f64::from(wide(nearest(x.at(0, from + i, from + j) as f32)))
    };
    let got = d.get(&c.block);
    let mut inside = vec![false; got.len()];
    for i in 0..m {
        for j in 0..n {
            let first = match accumulate {
                true => c.at(0, i, j),
                false => bias.at(0, 0, j),
            };
            let terms: Vec<f64> = (0..k)
                .map(|p| get(&a, ta, i, p) * get(&b, tb, p, j))
                .chain([first])
                .collect();
            let want: f64 = terms.iter().sum();
            let magnitude: f64 = terms.iter().map(|x| x.abs()).sum();
            let bound = 2.0 * (k as f64 + 1.0) * 2f64.powi(-24) * magnitude;
            let at = c.index(0, i, j);
            let off = (f64::from(got[at]) - want).abs();
            assert!(off <= bound, "{m} {k} {n} {flags}, ({i}, {j}): {off:e}");
            inside[at] = true;
        }
    }
    for (at, _) in inside.iter().enumerate().filter(|(_, inside)| !**inside) {
        assert_eq!(got[at].to_bits(), c.host[at].to_bits(), "beside, at {at}");
    }
}

#[test]
fn products() {
    let mut d = Bench::new();
    for (size, pad) in [
        ([1, 1, 1], 0),
        ([5, 7, 3], 2),
        ([66, 17, 70], 1),
        ([3, 130, 66], 0),
        ([64, 16, 64], 0),
    ] {
        for flags in 0..8 {
            product(&mut d, size, pad, flags);
        }
    }
    let coverage = d.sim.coverage(&BF16).unwrap();
    let missed: Vec<_> = coverage
        .uncovered()
        .filter(|l| l.entry == "dis_gemm_bf16")
        .map(|l| &l.instruction)
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let mut d = Bench::new();
    let x = d.field([1, 3, 5], 1);
    let block = room(&d, 3, 5);
    let to = inner(&block);
    refused("round", RoundBf16::new(cut(x.mat()), to));
    refused(
        "round",
        RoundBf16::new(x.mat(), PtrMut::new(to.address(), to.len() - 1)),
    );
    refused("round", RoundBf16::new(x.mat(), block.ptr_mut().at(1)));
    let apart = d.field([2, 3, 5], 1);
    let long = room(&d, 6, 5);
    refused("round", RoundBf16::new(apart.mat(), inner(&long)));

    let (_a, a) = rounded(&d, &x);
    let y = d.field([1, 5, 4], 0);
    let (_b, b) = rounded(&d, &y);
    let (c, bias) = (d.field([1, 3, 4], 0), d.field([1, 1, 4], 0));
    let product = |a: Bf16Mat, ta, b: Bf16Mat, bias, c: &Field| {
        GemmBf16::new(
            a.factor(ta),
            b.factor(false),
            c.mat_mut(),
            Some(bias),
            false,
        )
    };
    let bias = bias.mat();
    product(a, false, b, bias, &c).unwrap();
    refused("product", product(a, true, b, bias, &c));
    refused("product", product(b, false, b, bias, &c));
    refused("product", product(a, false, b, cut(bias), &c));
    for shape in [[1, 3, 5], [1, 4, 4], [2, 3, 4]] {
        let other = d.field(shape, 0);
        refused("product", product(a, false, b, bias, &other));
    }
    refused("product", product(cut(a), false, b, bias, &c));
    refused("product", product(a, false, cut(b), bias, &c));
    assert!(a.part([1, 0], [3, 5]).is_none() && a.part([0, 1], [3, 5]).is_none());
    assert!(a.part([1, 2], [2, 3]).is_some());
}
