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

/// Cases of each format, unless `DIS_MUTATIONS` says otherwise: some ten seconds in all.
const CASES: u64 = 8000;

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
fn npz() {
    check("npz", &readers::npz_seeds(), &readers::Npz);
}

#[test]
fn latents() {
    check(
        "latents",
        &readers::latents_seeds(),
        &readers::Latents::new(),
    );
}

/// A count that agrees between index and shard, and that no file can have.
#[test]
fn latents_of_an_impossible_number() {
    let reader = readers::Latents::new();
    let mut outcomes = Vec::new();
    for count in ["5", "6917529027641081856"] {
        let seed = &readers::latents_seeds()[0];
        let text: String = seed.iter().map(|&b| char::from(b)).collect();
        let changed = text
            .replace("\"count\": 5,", &format!("\"count\": {count},"))
            .replace("\"shard_size\": 5,", &format!("\"shard_size\": {count},"))
            .replace("[5,", &format!("[{count},"))
            .replace("[5]", &format!("[{count}]"));
        let mut bytes: Vec<u8> = changed.chars().map(|c| c as u8).collect();
        // The lengths of the index and of the header changed with the number's.
        let added = (count.len() - 1) as u16;
        let index = u16::from_le_bytes([bytes[0], bytes[1]]) + 2 * added;
        bytes[..2].copy_from_slice(&index.to_le_bytes());
        let header = 2 + usize::from(index);
        let length = u16::from_le_bytes([bytes[header], bytes[header + 1]]) + 3 * added;
        bytes[header..header + 2].copy_from_slice(&length.to_le_bytes());
        outcomes.push(reader.read(&bytes));
    }
    assert_eq!(outcomes[0], Ok(()));
    let message = outcomes[1].clone().unwrap_err();
    let refused = message.contains("latents-00000.safetensors: not a valid safetensors file");
    assert!(refused, "{message}");
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
