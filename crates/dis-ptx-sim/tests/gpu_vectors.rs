//! What GPUs gave for approximate instructions lies within the simulator's bounds.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::words_with;
use dis_ptx_sim::{Approx, Options};
use serde_json::Value;

fn run(instruction: &str, inputs: &[u32], approx: Approx) -> Vec<u32> {
    let triples: Vec<[u32; 3]> = inputs.iter().map(|&x| [x, 0, 0]).collect();
    let options = Options {
        approx,
        ..Options::default()
    };
    words_with(&format!("{instruction} %d, %a;"), &triples, options)
}

/// Results outside the bounds, in words.
fn outside(instruction: &str, inputs: &[u32], results: &[u32]) -> Vec<String> {
    let [low, high] = [Approx::Low, Approx::High].map(|end| run(instruction, inputs, end));
    let mut found = Vec::new();
    for (i, (&x, &y)) in inputs.iter().zip(results).enumerate() {
        let [x, y, low, high] = [x, y, low[i], high[i]].map(f32::from_bits);
        let inside = if low.is_nan() {
            y.is_nan()
        } else if low == high {
            // Listed results, signs of zero included.
            y.to_bits() == low.to_bits()
        } else {
            low <= y && y <= high
        };
        if !inside {
            found.push(format!(
                "{instruction} of {x:e} gave {y:e}, not within {low:e} to {high:e}"
            ));
        }
    }
    found
}

fn bits(value: &Value) -> Vec<u32> {
    let values = value.as_array().unwrap().iter();
    values
        .map(|v| u32::try_from(v.as_u64().unwrap()).unwrap())
        .collect()
}

#[test]
fn recorded_results_are_within_the_bounds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gpu_vectors");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        files += 1;
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let vectors = json["vectors"].as_array().unwrap();
        assert!(!vectors.is_empty(), "{}", path.display());
        for vector in vectors {
            let (inputs, results) = (bits(&vector["inputs"]), bits(&vector["results"]));
            assert!(!inputs.is_empty() && inputs.len() == results.len());
            let wrong = outside(vector["instruction"].as_str().unwrap(), &inputs, &results);
            assert_eq!(wrong, [""; 0], "{}", path.display());
        }
    }
    if files == 0 {
        eprintln!("no GPU has been recorded yet");
    }
}

#[test]
fn a_result_too_far_off_is_noticed() {
    for instruction in ["ex2.approx.ftz.f32", "rcp.approx.ftz.f32"] {
        let inputs = [1.5f32, -3.25, 0.0, f32::INFINITY, f32::NAN].map(f32::to_bits);
        let mut results = run(instruction, &inputs, Approx::Exact);
        assert_eq!(outside(instruction, &inputs, &results), [""; 0]);
        results[0] += 3;
        assert_eq!(outside(instruction, &inputs, &results).len(), 1);
        // A listed result has no room at all.
        results[3] ^= 1;
        assert_eq!(outside(instruction, &inputs, &results).len(), 2);
    }
}
