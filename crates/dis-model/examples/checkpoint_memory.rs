//! Time and peak memory of writing and reading a checkpoint of random weights:
//!
//! ```text
//! cargo run --release -p dis-model --example checkpoint_memory -- write DiS-H/2 x.safetensors
//! cargo run --release -p dis-model --example checkpoint_memory -- read x.safetensors
//! ```
//!
//! Without arguments it writes a DiS-S/4 and removes it. A name ending in `.pt` writes a PyTorch file. Peak memory is the kernel's (`VmHWM`), for the
//! whole process, so write and read in processes of their own.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use dis_model::checkpoint::InferHints;
use dis_model::{Checkpoint, ConditionKind, DisConfig, DisModel, Metadata};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let temporary = std::env::temp_dir().join("checkpoint_memory.safetensors");
    let temporary = temporary.to_string_lossy();
    let words: Vec<&str> = match args.is_empty() {
        true => vec!["write", "DiS-S/4", &temporary],
        false => args.iter().map(String::as_str).collect(),
    };
    let (checkpoint, start) = match words[..] {
        ["write", model, path] => {
            let checkpoint = random(model)?;
            let start = Instant::now();
            if path.ends_with(".pt") {
                checkpoint.save_torch(Path::new(path))?;
            } else {
                checkpoint.save(Path::new(path))?;
            }
            (checkpoint, start)
        }
        ["read", path] => {
            let start = Instant::now();
            let checkpoint = Checkpoint::load(Path::new(path), &InferHints::default())?;
            (checkpoint, start)
        }
        _ => return Err("arguments: write MODEL FILE, or read FILE".into()),
    };
    let seconds = start.elapsed().as_secs_f64();
    let bytes = 4.0 * checkpoint.model.table().len() as f64;
    println!(
        "{} parameters, weights {:.1} MiB, {} in {seconds:.2} s ({:.2} GB/s)",
        checkpoint.model.table().parameters(),
        bytes / f64::from(1 << 20),
        words[0],
        bytes / 1e9 / seconds
    );
    if let Some(peak) = peak_bytes() {
        println!(
            "peak {:.1} MiB, {:.3} times the weights",
            peak / f64::from(1 << 20),
            peak / bytes
        );
    }
    if args.is_empty() {
        std::fs::remove_file(&*temporary)?;
    }
    Ok(())
}

/// A published entry for latents of 32 x 32 and 1,000 classes, with weights that cost no time.
fn random(name: &str) -> Result<Checkpoint, Box<dyn Error>> {
    let mut config = DisConfig::zoo(name, 32, 4)?;
    config.condition = ConditionKind::Classes {
        num_classes: 1000,
        null_label: true,
    };
    let model = DisModel::new(config)?;
    let mut weights = vec![0.0; model.table().len()];
    let mut state = 1u32;
    for spec in model.table().specs() {
        for value in &mut weights[spec.offset..spec.offset + spec.len()] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *value = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
        }
    }
    Ok(Checkpoint {
        model,
        weights,
        metadata: Metadata::new(config),
    })
}

/// Most memory that this process ever had, where the system says.
fn peak_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(1024.0 * kib)
}
