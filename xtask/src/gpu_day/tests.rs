//! The whole day at tiny sizes on the simulator.

use clap::Parser;
use serde_json::Value;

use super::{Args, run};

#[derive(Parser)]
struct Typed {
    #[command(flatten)]
    args: Args,
}

fn typed(line: &[&str]) -> Args {
    Typed::try_parse_from(line).unwrap().args
}

#[test]
fn a_quick_day_on_the_simulator_passes_and_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("results").display().to_string();
    let args = typed(&["gpu-day", "--device", "sim", "--quick", "--out", &out]);
    assert!(run(&args).unwrap());
    let read =
        |name: &str| std::fs::read_to_string(folder.path().join("results").join(name)).unwrap();
    let day: Value = serde_json::from_str(&read("sim.json")).unwrap();
    let steps = day["steps"].as_array().unwrap();
    let names: Vec<&str> = steps.iter().map(|s| s["step"].as_str().unwrap()).collect();
    assert_eq!(names, ["device", "parity", "approx", "kernels", "models"]);
    let kernels = &steps[3]["section"]["data"];
    let all = super::work::kernels().len();
    assert_eq!(kernels["kernels"].as_array().unwrap().len(), all);
    for kernel in kernels["kernels"].as_array().unwrap() {
        assert!(kernel["bytes"].as_f64().unwrap() > 0.0, "{kernel}");
        assert!(kernel["bound_seconds"].as_f64().unwrap() > 0.0, "{kernel}");
    }
    // Trained with and without recompute, and sampled; in bfloat16 without recompute.
    assert_eq!(
        steps[4]["section"]["data"]["runs"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
    let vectors: Value = serde_json::from_str(&read("sim-vectors.json")).unwrap();
    for vector in vectors["vectors"].as_array().unwrap() {
        assert_eq!(
            vector["inputs"].as_array().unwrap().len(),
            vector["results"].as_array().unwrap().len()
        );
    }
    let text = read("sim.md");
    assert!(
        text.contains("times mean nothing") && text.contains("scan backward, both"),
        "{text}"
    );
}

/// One line and no panic.
#[test]
fn without_a_gpu_the_task_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display().to_string();
    // A machine that has one may run the step.
    if let Err(error) = run(&typed(&["gpu-day", "--out", &out, "--step", "device"])) {
        let text = format!("{error:#}");
        assert!(!text.contains('\n'), "{text}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
