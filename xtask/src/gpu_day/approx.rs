//! Step "approximate instructions": what the device returns for them, recorded bit by bit over a
//! fixed list of inputs, and how far that is off at most over many more.

use anyhow::{Context, Result};
use dis_kernels::approx::{Approx, INSTRUCTIONS};
use dis_kernels::{Driver, Pool, launch};
use serde_json::{Value, json};

use super::Day;
use super::device::Facts;
use super::report::slug;
use super::section::{Section, Table};

/// Zeros, ones, infinities, NaN, subnormals and where results overflow or vanish.
const SPECIAL: [u32; 24] = [
    0x0000_0000,
    0x8000_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc0_0001,
    0x0000_0001,
    0x8000_0001,
    0x007f_ffff,
    0x807f_ffff,
    0x0080_0000,
    0x8080_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x42ff_ffff,
    0x4300_0000,
    0xc2fc_0000,
    0xc2fc_0001,
    0xc315_0000,
    0x7e80_0000,
    0x7e80_0001,
    0xfe80_0001,
];

/// The fixed list: special values, then values spread over the exponents that matter to `ex2` (its
/// results are normal for |x| up to 126) and over all exponents, for `rcp`.
pub fn inputs(count: usize) -> Vec<u32> {
    let mut list = SPECIAL.to_vec();
    let mut state = 1u64;
    while list.len() < count.max(SPECIAL.len()) {
        // splitmix64 (Steele, Lea and Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let x = x ^ (x >> 31);
        let bits = x as u32;
        let value = match list.len() % 3 {
            // Uniform over -130 to 130.
            0 => (((x >> 32) as f32 / 4_294_967_296.0) * 260.0 - 130.0).to_bits(),
            // Uniform over -1 to 0: the decays of a scan.
            1 => (-((x >> 32) as f32) / 4_294_967_296.0).to_bits(),
            // Any bits; NaN is in the list above.
            _ if f32::from_bits(bits).is_nan() => continue,
            _ => bits,
        };
        list.push(value);
    }
    list
}

/// Results of both instructions.
fn evaluate<D: Driver>(driver: &D, inputs: &[u32]) -> Result<[Vec<u32>; 2]> {
    let pool = Pool::new(driver.clone());
    let bytes = 4 * inputs.len();
    let (x, ex2, rcp) = (pool.take(bytes)?, pool.take(bytes)?, pool.take(bytes)?);
    driver.upload(x.address(), bytemuck::cast_slice(inputs))?;
    launch(driver, &Approx::new(x.ptr(), ex2.ptr_mut(), rcp.ptr_mut())?)?;
    let mut results = [vec![0u32; inputs.len()], vec![0u32; inputs.len()]];
    for (block, out) in [ex2, rcp].iter().zip(&mut results) {
        driver.download(block.address(), bytemuck::cast_slice_mut(out))?;
    }
    Ok(results)
}

/// The exact result in float64, where input and result are normal numbers and so not flushed.
fn exact(instruction: usize, x: f32) -> Option<f64> {
    let wide = f64::from(x);
    let y = match instruction {
        0 => wide.exp2(),
        _ => 1.0 / wide,
    };
    let normal = |v: f64| {
        let size = v.abs();
        size >= f64::from(f32::MIN_POSITIVE) && size <= f64::from(f32::MAX)
    };
    (x.is_normal() && normal(y)).then_some(y)
}

/// Errors in units in the last place of the exact result: the most below and above, and where.
fn worst(instruction: usize, inputs: &[u32], results: &[u32]) -> (usize, [(f64, f32); 2]) {
    let (mut count, mut ends) = (0, [(0.0f64, 0.0f32); 2]);
    for (&x, &y) in inputs.iter().zip(results) {
        let (x, y) = (f32::from_bits(x), f64::from(f32::from_bits(y)));
        let Some(want) = exact(instruction, x) else {
            continue;
        };
        count += 1;
        let exponent = (want.abs().to_bits() >> 52) as i32 - 1023;
        let error = (y - want) / f64::from(exponent - 23).exp2();
        if error < ends[0].0 || error.is_nan() {
            ends[0] = (error, x);
        }
        if error > ends[1].0 {
            ends[1] = (error, x);
        }
    }
    (count, ends)
}

/// Units in the last place that the simulator allows `ex2` and `rcp` (PTX ISA, section 9.7.3).
const ALLOWED: [f64; 2] = [2.0, 1.0];

/// Runs the step; writes `<device>-vectors.json`.
pub fn run<D: Driver>(day: &Day, driver: &D, facts: &Facts) -> Result<Section> {
    let (recorded, many) = if day.quick {
        (96, 256)
    } else {
        (3072, 3 << 22)
    };
    let list = inputs(recorded);
    let results = evaluate(driver, &list)?;
    let vectors: Vec<Value> = INSTRUCTIONS
        .iter()
        .zip(&results)
        .map(|(name, out)| json!({ "instruction": name, "inputs": list, "results": out }))
        .collect();
    let file = json!({ "device": facts.name, "driver": driver.describe(), "vectors": vectors });
    std::fs::create_dir_all(&day.out).with_context(|| day.out.display().to_string())?;
    let path = day.out.join(format!("{}-vectors.json", slug(&facts.name)));
    std::fs::write(&path, serde_json::to_string(&file)? + "\n")
        .with_context(|| path.display().to_string())?;

    let long = inputs(many);
    let mut table = Table::new(&["instruction", "inputs", "ulp below", "ulp above", "allowed"]);
    let (mut data, mut failures) = (Vec::new(), Vec::new());
    for (i, out) in evaluate(driver, &long)?.iter().enumerate() {
        let (count, [low, high]) = worst(i, &long, out);
        let name = INSTRUCTIONS[i];
        for (error, x) in [low, high] {
            // A NaN is not within anything.
            if error.is_nan() || error.abs() > ALLOWED[i] {
                failures.push(format!("{name} of {x:e} is off by {error:.3} ulp"));
            }
        }
        table.push([
            name.to_string(),
            count.to_string(),
            format!("{:.3} (x = {:e})", low.0, low.1),
            format!("{:.3} (x = {:e})", high.0, high.1),
            format!("{}", ALLOWED[i]),
        ]);
        data.push(
            json!({ "instruction": name, "inputs": count, "below": low.0, "above": high.0,
            "at": [low.1, high.1] }),
        );
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(Section {
        notes: vec![format!(
            "{recorded} inputs with the bits of their results are in `{name}`; copied to \
             `crates/dis-ptx-sim/tests/gpu_vectors/`, the simulator's tests hold them against its \
             bounds. Below: errors over many more inputs, where nothing is flushed."
        )],
        tables: vec![table],
        data: json!(data),
        failures,
    })
}

#[cfg(test)]
mod tests {
    use super::{exact, inputs, worst};

    #[test]
    fn inputs_cover_both_ranges() {
        let list = inputs(3072);
        let values: Vec<f32> = list.iter().map(|&x| f32::from_bits(x)).collect();
        assert!(
            values
                .iter()
                .filter(|x| (-130.0..=130.0).contains(*x))
                .count()
                > 2000
        );
        for exponent in -120..120 {
            let scale = (exponent as f32).exp2();
            let near = |x: &&f32| (x.abs() / scale) >= 1.0 && (x.abs() / scale) < 4.0;
            assert!(values.iter().any(|x| near(&x)), "2^{exponent}");
        }
        assert_eq!(list, inputs(4000)[..3072]);
    }

    #[test]
    fn errors_are_told_in_units_in_the_last_place() {
        let x = 3.0f32;
        let y = (1.0 / x).to_bits() + 2;
        let (count, [low, high]) = worst(1, &[x.to_bits()], &[y]);
        assert_eq!((count, low.0), (1, 0.0));
        assert!((high.0 - 2.0).abs() < 0.5);
        assert_eq!(exact(0, 200.0), None);
    }
}
