//! Whatever is in a file: reading it gives a result or a typed error. It never panics, and never
//! takes more memory than a small multiple of the file.
//!
//! Valid files are damaged by a seeded mutator. `DIS_MUTATIONS=100000` sets how many of each format
//! are tried; a failure names the format and the number of the case, which reproduces it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod memory;
mod mutator;
mod readers;

use std::panic::{AssertUnwindSafe, catch_unwind};

use memory::{Counting, peak_of};
use mutator::Mutator;
use readers::Reader;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Cases of each format, unless `DIS_MUTATIONS` says otherwise: a few seconds in all.
const CASES: u64 = 1500;

fn cases() -> u64 {
    std::env::var("DIS_MUTATIONS").map_or(CASES, |text| text.parse().unwrap())
}

/// Reads the seeds whole, then damaged.
fn check(name: &str, seeds: &[Vec<u8>], reader: &dyn Reader) {
    for (i, seed) in seeds.iter().enumerate() {
        let outcome = reader.read(seed);
        assert!(outcome.is_ok(), "{name}: seed {i}: {outcome:?}");
    }
    let (mut accepted, mut worst, mut worst_case) = (0, 0.0, 0);
    for case in 0..cases() {
        let mut mutator = Mutator::new(case);
        let seed = &seeds[mutator.below(seeds.len())];
        let bytes = mutator.damage(seed);
        let run = || catch_unwind(AssertUnwindSafe(|| reader.read(&bytes)));
        let (outcome, peak) = peak_of(run);
        match outcome {
            Ok(Ok(())) => accepted += 1,
            Ok(Err(message)) => {
                assert!(!message.is_empty(), "{name}: case {case}: no message");
                assert!(
                    message.len() < 4096 && !message.contains('\n'),
                    "{name}: case {case}: not one line: {message}"
                );
            }
            Err(_) => panic!("{name}: case {case} panicked"),
        }
        let most = reader.most_memory(bytes.len());
        assert!(
            peak <= most,
            "{name}: case {case}: {peak} bytes of memory for a file of {} (at most {most})",
            bytes.len()
        );
        let share = peak as f64 / most as f64;
        if share > worst {
            (worst, worst_case) = (share, case);
        }
    }
    println!(
        "{name}: {} cases, {accepted} still valid, most memory {:.0} % of its bound (case {worst_case})",
        cases(),
        100.0 * worst
    );
}

#[test]
fn torch() {
    check("torch", &readers::torch_seeds(), &readers::Torch);
}

#[test]
fn safetensors() {
    let seeds = readers::safetensors_seeds();
    check("safetensors", &seeds, &readers::Safetensors);
}

#[test]
fn png_and_jpeg() {
    check(
        "pictures",
        &readers::picture_seeds(),
        &readers::Pictures::new(),
    );
}

#[test]
fn idx() {
    check("idx", &readers::idx_seeds(), &readers::Idx::new(false));
}

#[test]
fn idx_gz() {
    let seeds = readers::idx_gz_seeds();
    check("idx gz", &seeds, &readers::Idx::new(true));
}

#[test]
fn cifar() {
    check("cifar", &readers::cifar_seeds(), &readers::Cifar::new());
}

#[test]
fn configurations() {
    check("config", &readers::config_seeds(), &readers::Config);
}

/// The measure itself can fail.
#[test]
fn memory_is_counted() {
    let (_, peak) = peak_of(|| drop(vec![0u8; 1 << 20]));
    assert!(peak >= 1 << 20);
    let (kept, peak) = peak_of(|| {
        drop(vec![1u8; 1 << 16]);
        vec![1u8; 1 << 10]
    });
    assert!(((1 << 16)..(1 << 16) + 4096).contains(&peak));
    drop(kept);
}
