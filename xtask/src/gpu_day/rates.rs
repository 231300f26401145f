//! What the device can do at most: memory bandwidth and matrix products as measured, arithmetic by
//! its clocks.

use anyhow::{Result, bail};
use dis_kernels::elementwise::Copy;
use dis_kernels::{Driver, Pool, launch};
use serde_json::{Value, json};

use super::Day;
use super::clock::time;
use super::device::Facts;
use super::section::Table;
use super::work::{Memory, gemm};

/// Most of everything a second.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Bytes of the faster of two copies, read and written.
    pub bytes: f64,
    /// Results of the special function units.
    pub special: f64,
    /// Fused multiply-adds.
    pub fma: f64,
    /// Instructions of whole warps.
    pub issue: f64,
}

impl Rates {
    /// By the clocks of a device that copies as many bytes a second.
    pub fn new(facts: &Facts, bytes: f64) -> Self {
        let clocks = facts.clocks();
        Self {
            bytes,
            special: 16.0 * clocks,
            fma: facts.fma_a_clock() * clocks,
            issue: 4.0 * clocks,
        }
    }
}

/// Measures a copy of `len` floats by the driver and by our kernel.
pub fn measure<D: Driver>(day: &Day, driver: &D, facts: &Facts) -> Result<(Rates, Table, Value)> {
    let len = if day.quick { 1 << 12 } else { 1 << 28 };
    // Two buffers must fit, with room to spare.
    let len = len.min(facts.free_bytes as usize / 16);
    let pool = Pool::new(driver.clone());
    let mut memory = Memory::new(&pool);
    // Written once, so that nothing is read that was not.
    let (from, to) = (memory.out([1, 1, len])?, memory.out([1, 1, len])?);
    driver.zero(from.ptr.address(), 4 * len)?;
    let by_driver = time(driver, day.effort(), || {
        Ok(driver.copy(from.ptr.address(), to.ptr.address(), 4 * len)?)
    })?;
    let kernel = Copy::new(from.read(), to)?;
    let by_kernel = time(driver, day.effort(), || Ok(launch(driver, &kernel)?))?;
    let moved = 8.0 * len as f64;
    let mut table = Table::new(&["copy", "MiB", "ms", "GB/s"]);
    let mut data = Vec::new();
    for (name, seconds) in [("by the driver", by_driver), ("by dis_copy", by_kernel)] {
        let rate = moved / seconds.median;
        table.push([
            name.to_string(),
            format!("{}", (4 * len) >> 20),
            format!("{:.3}", seconds.median * 1e3),
            format!("{:.0}", rate / 1e9),
        ]);
        data.push(
            json!({ "copy": name, "bytes": moved, "seconds": seconds.median,
            "bytes_per_second": rate }),
        );
    }
    let copied = moved / by_driver.median.min(by_kernel.median);
    Ok((Rates::new(facts, copied), table, json!(data)))
}

/// Times products at the shapes of in_proj and out_proj, by the library and by our kernels, of float32 and
/// of bfloat16 that was rounded before.
pub fn products<D: Driver>(day: &Day, driver: &D, rates: &Rates) -> Result<(Table, Value)> {
    let sizes: &[[usize; 3]] = if day.quick {
        &[[9, 17, 33]]
    } else {
        // Rows of 64 samples of 258 tokens; widths of DiS-S, B and H.
        &[
            [16_512, 368, 1472],
            [16_512, 768, 3072],
            [16_512, 1536, 768],
            [16_512, 1536, 6144],
        ]
    };
    let mut table = Table::new(&["product m x k x n", "by", "ms", "TFLOP/s", "of FMA rate"]);
    let mut data = Vec::new();
    for &[m, k, n] in sizes {
        let mut lines = Vec::new();
        for (bf16, ours, library) in [
            (false, "dis_gemm", "library"),
            (true, "dis_gemm_bf16", "library, bfloat16"),
        ] {
            let pool = Pool::new(driver.clone());
            let (work, call) = gemm(&pool, [m, k, n], bf16)?;
            lines.push((ours, time(driver, day.effort(), || work.launch(driver))?));
            if driver.has_gemm() {
                let seconds = time(driver, day.effort(), || match driver.gemm(&call)? {
                    true => Ok(()),
                    false => bail!("the driver has a product and does none"),
                })?;
                lines.push((library, seconds));
            }
        }
        for (by, seconds) in lines {
            let fma = (m * k * n) as f64 / seconds.median;
            table.push([
                format!("{m} x {k} x {n}"),
                by.into(),
                format!("{:.3}", seconds.median * 1e3),
                format!("{:.1}", 2.0 * fma / 1e12),
                format!("{:.0}%", 100.0 * fma / rates.fma),
            ]);
            data.push(
                json!({ "m": m, "k": k, "n": n, "by": by, "seconds": seconds.median,
                "least": seconds.least, "flops": 2.0 * fma }),
            );
        }
    }
    Ok((table, json!(data)))
}
