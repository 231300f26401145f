//! What every kernel costs, beside an H100's bounds: the table of docs/kernels.md.

use std::collections::BTreeSet;

use anyhow::Result;
use dis_kernels::gemm::TILE;

use super::device::open_sim;
use super::kernels::{Cost, cost, cost_of, largest};
use super::rates::Rates;
use super::work::{SHAPE, Shape, gemm, kernels};

/// Bytes a second of a measured copy on an H100 (SXM); its clocks are those that the simulator passes for.
const COPY: f64 = 3.0e12;

/// Why entries move more than 1.25 times the least.
const REASONS: &[(&[&str], &str)] = &[
    (
        &["dis_scan_forward_n16"],
        "of both directions the second adds to what the first left in y, 8 bytes, and B and C are read by \
         every block of 128 channels, 2",
    ),
    (
        &[
            "dis_scan_forward_split16",
            "dis_scan_forward_lanes4",
            "dis_scan_forward_lanes8",
        ],
        "the same, with B and C for every 32 channels, 8 bytes, or 64 with `lanes8`, 4; these entries are bound \
         by issue",
    ),
    (
        &["dis_scan_backward_n16", "dis_scan_backward_any"],
        "each direction reads dout and z, 8 bytes more than once, the second adds to dz, 8,\n  \
         and B and C are read for every 32 channels, 8; they are bound by issue, too",
    ),
    (
        &["dis_norm_backward"],
        "the weight is read for every token, 4 bytes, and lies in a cache: it is a vector",
    ),
    (
        &["dis_norm_param_sums"],
        "every warp of channels reads a token's two statistics, a sector each time",
    ),
    (
        &["dis_rescale"],
        "one pass for the means, one for the squares, one to write: an image lies in a cache",
    ),
    (
        &["dis_threshold"],
        "31 passes count how many values are below a bound, for one bit of the quantile each; an image lies in \
         a cache, and a step of a sampler takes a thousand times as long",
    ),
    (
        &["dis_combine"],
        "every warp reads addresses and coefficients, a sector each, which lie in a cache",
    ),
    (
        &["dis_gemm", "dis_gemm_bf16"],
        "a block reads its 64 rows and 64 columns, 96 bytes or half of that, which the blocks beside it find in the \
         second-level cache; a GPU with cuBLAS does not use them",
    ),
];

fn row(name: &str, unit: &str, count: f64, cost: &Cost, rates: &Rates) -> String {
    let per = |x: f64| x / count;
    let bounds = cost.seconds(rates);
    let (by, _) = largest(&bounds);
    let times = bounds.map(|(name, seconds)| {
        let mark = if name == by { "**" } else { "" };
        format!("{mark}{:.1}{mark}", seconds * 1e6)
    });
    format!(
        "| {name} | {unit} | {:.1} | {:.2} | {:.1} | {:.0} | {:.0} | {} |\n",
        per(cost.bytes),
        cost.least / cost.bytes,
        per(cost.special),
        per(cost.fma),
        per(32.0 * cost.warps),
        times.join(" | "),
    )
}

/// The rows, the entries that they are of, and those that move more than 1.25 times the least.
fn table() -> Result<(String, BTreeSet<&'static str>, BTreeSet<&'static str>)> {
    let rates = Rates::new(&open_sim().1, COPY);
    let mut out = String::from(
        "| kernel | for each | bytes | least | special | FMA | instructions | us: bytes | special | FMA | issue |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let (mut known, mut more) = (BTreeSet::new(), BTreeSet::new());
    let mut add = |name: &str, (unit, count): (&str, f64), cost: &Cost| {
        out += &row(name, unit, count, cost, &rates);
        known.extend(&cost.entries);
        if cost.bytes > 1.25 * cost.least {
            more.extend(&cost.entries);
        }
    };
    for kernel in kernels() {
        let batch = if kernel.is_of_samples() {
            SHAPE.batch
        } else {
            1
        };
        let shape = Shape { batch, ..SHAPE };
        let cost = cost(kernel, shape)?;
        let name = format!("`{}`{}", cost.entries.join("`, `"), kernel.note());
        let (unit, count) = kernel.unit(&shape);
        add(&name, (unit, count as f64), &cost);
    }
    // in_proj: whole tiles, which all cost the same; the weights are needed once for all of them.
    let [k, n] = [SHAPE.width(), 2 * SHAPE.channels];
    let rows = SHAPE.batch * SHAPE.tokens;
    let (elements, tiles) = ((rows * n) as f64, rows / TILE * (n / TILE));
    for (name, bf16, bytes) in [("dis_gemm", false, 4.0), ("dis_gemm_bf16", true, 2.0)] {
        let tile = |pool: &_| Ok(gemm(pool, [TILE, k, TILE], bf16)?.0);
        let mut cost = cost_of(tile, tiles as f64)?;
        cost.least = bytes * ((rows + n) * k) as f64 + 4.0 * elements;
        let name = format!("`{name}`, {k} to {n}");
        add(&name, ("element of the product", elements), &cost);
    }
    Ok((out, known, more))
}

/// With `DIS_WRITE=1` it is written instead.
#[test]
fn table_is_that_of_the_counters() {
    const MARKS: [&str; 2] = ["<!-- costs -->\n", "<!-- end of costs -->"];
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kernels.md");
    let (mut new, known, more) = table().unwrap();
    let all: BTreeSet<&str> = dis_kernels::contracts()
        .iter()
        .filter(|c| c.file.name != "approx.ptx")
        .map(|c| c.entry)
        .collect();
    let text = std::fs::read_to_string(path).unwrap();
    let (head, rest) = text.split_once(MARKS[0]).unwrap();
    let (old, tail) = rest.split_once(MARKS[1]).unwrap();
    new += "\nOver 1.25 times the least:\n\n";
    for (entries, reason) in REASONS {
        new += &format!("- `{}`: {reason}.\n", entries.join("`, `"));
    }
    if std::env::var_os("DIS_WRITE").is_some() {
        let [begin, end] = MARKS;
        std::fs::write(path, format!("{head}{begin}{new}{end}{tail}")).unwrap();
        return;
    }
    assert_eq!(known, all, "entries in the table");
    let explained: BTreeSet<&str> = REASONS.iter().flat_map(|r| r.0).copied().collect();
    assert_eq!(
        more, explained,
        "entries that move over 1.25 times the least"
    );
    assert!(
        old == new,
        "the table of docs/kernels.md is out of date; run this test with DIS_WRITE=1 to write it \
         anew: {new}"
    );
}
