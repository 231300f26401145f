//! Step "kernels": time of every family beside what bounds it.
//!
//! Bytes and operations are those that the simulator counts when it runs the same kernel on one
//! sample, times the samples, where each costs the same.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use dis_kernels::sim::{Counters, Options, Sim};
use dis_kernels::{Driver, Pool};
use serde_json::json;

use super::Day;
use super::clock::time;
use super::device::Facts;
use super::rates::{Rates, measure, products};
use super::section::{Section, Table};
use super::work::{Kernel, SHAPE, Shape, Work, kernels};

/// What a launch costs.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    /// The entries that were launched.
    pub entries: Vec<&'static str>,
    pub bytes: f64,
    /// What it must read and write, once.
    pub least: f64,
    pub special: f64,
    pub fma: f64,
    pub warps: f64,
}

impl Cost {
    /// Least seconds by each rate. The last counts PTX instructions and is no bound in the strict sense.
    pub fn seconds(&self, rates: &Rates) -> [(&'static str, f64); 4] {
        [
            ("bytes", self.bytes / rates.bytes),
            ("special", self.special / rates.special),
            ("FMA", self.fma / rates.fma),
            ("issue", self.warps / rates.issue),
        ]
    }
}

/// The largest.
pub(super) fn largest(bounds: &[(&'static str, f64)]) -> (&'static str, f64) {
    let larger = |best: (_, f64), part: &(_, f64)| if part.1 > best.1 { *part } else { best };
    bounds.iter().fold(("nothing", 0.0), larger)
}

/// What a kernel costs: one sample is simulated, where that says what many cost.
pub(super) fn cost(kernel: Kernel, shape: Shape) -> Result<Cost> {
    let (samples, batch) = match kernel.is_proportional() {
        true => (shape.batch as f64, 1),
        false => (1.0, shape.batch),
    };
    cost_of(|pool| kernel.build(pool, Shape { batch, ..shape }), samples)
}

/// What the simulator counts for some work, times `samples`.
pub(super) fn cost_of(
    build: impl Fn(&Pool<Sim>) -> Result<Work<Sim>>,
    samples: f64,
) -> Result<Cost> {
    let sim = Sim::new(Options {
        checks: false,
        ..Options::default()
    });
    let work = build(&Pool::new(sim.clone()))?;
    // What made its operands does not count.
    sim.take_counters();
    work.launch(&sim)?;
    let all: BTreeMap<&'static str, Counters> = sim.take_counters();
    let entries = all.keys().copied().collect();
    let mut sum = Counters::default();
    all.into_values().for_each(|counters| sum += counters);
    // Threads of a warp that read one address count each in the first, and once in the second;
    // sectors of which a warp uses a part count whole in the second.
    let bytes = (sum.global_load_bytes + sum.global_store_bytes).min(32 * sum.sectors);
    Ok(Cost {
        entries,
        bytes: samples * bytes as f64,
        least: samples * work.least as f64,
        special: samples * sum.special as f64,
        fma: samples * sum.fma as f64,
        warps: samples * sum.warp_instructions as f64,
    })
}

/// Runs the step.
pub fn run<D: Driver>(day: &Day, driver: &D, facts: &Facts) -> Result<Section> {
    let (rates, copies, copies_data) = measure(day, driver, facts)?;
    let tiny = Shape {
        batch: 2,
        tokens: 19,
        channels: 48,
        states: 16,
    };
    let whole = if day.quick { tiny } else { SHAPE };
    let mut table = Table::new(&[
        "kernel", "batch", "us", "MB", "GB/s", "bound us", "by", "of bound", "issue us",
    ]);
    let (mut data, mut failures) = (Vec::new(), Vec::new());
    for kernel in kernels() {
        let of = Shape {
            batch: kernel.batch(&whole),
            ..whole
        };
        let name = kernel.name();
        // One kernel that fails must not take the others' times along.
        let one = || -> Result<_> {
            let cost = cost(kernel, of).context("counting its cost")?;
            let pool = Pool::new(driver.clone());
            let work = kernel.build(&pool, of)?;
            let seconds = time(driver, day.effort(), || work.launch(driver))?;
            Ok((cost, seconds))
        };
        let (cost, seconds) = match one() {
            Ok(found) => found,
            Err(error) => {
                failures.push(format!("{name}: {error:#}"));
                continue;
            }
        };
        let bounds @ [.., (_, issue)] = cost.seconds(&rates);
        let (by, bound) = largest(&bounds[..3]);
        let micros = |x: f64| format!("{:.1}", x * 1e6);
        table.push([
            name.clone(),
            of.batch.to_string(),
            micros(seconds.median),
            format!("{:.1}", cost.bytes / 1e6),
            format!("{:.0}", cost.bytes / seconds.median / 1e9),
            micros(bound),
            by.into(),
            format!("{:.0}%", 100.0 * bound / seconds.median),
            micros(issue),
        ]);
        data.push(json!({
            "kernel": name, "entries": cost.entries, "batch": of.batch, "tokens": of.tokens, "channels": of.channels,
            "states": of.states, "seconds": seconds.median, "least": seconds.least,
            "repetitions": seconds.repetitions, "bytes": cost.bytes,
            "least_bytes": cost.least, "special": cost.special,
            "fma": cost.fma, "warp_instructions": cost.warps, "bound_seconds": bound,
            "bound_by": by, "issue_seconds": issue,
        }));
    }
    let mut tables = vec![copies, table];
    let mut products_data = json!(null);
    match products(day, driver, &rates) {
        Ok((table, data)) => {
            tables.push(table);
            products_data = data;
        }
        Err(error) => failures.push(format!("matrix products: {error:#}")),
    }
    let notes = vec![
        format!(
            "Shape: {} samples (1 for the kernels of small batches), {} tokens, {} channels \
             (norms and tables: {}), {} states; patches of 32 x 32 x 4 latents; as many weights as \
             activations for the optimizer.",
            whole.batch,
            whole.tokens,
            whole.channels,
            whole.width(),
            whole.states
        ),
        format!(
            "Bound: the largest of bytes at the faster copy's {:.0} GB/s, special results at {:.2} \
             and fused multiply-adds at {:.2} tera a second (16 and {} a clock and multiprocessor, \
             at the highest clock). Issue: PTX instructions at 4 a clock, beside it.",
            rates.bytes / 1e9,
            rates.special / 1e12,
            rates.fma / 1e12,
            facts.fma_a_clock()
        ),
    ];
    Ok(Section {
        notes,
        tables,
        data: json!({
            "rates": { "bytes": rates.bytes, "special": rates.special, "fma": rates.fma,
                "issue": rates.issue },
            "copies": copies_data, "kernels": data, "products": products_data,
        }),
        failures,
    })
}
