//! Training from the command line: exact resume, threads, overrides.

mod checkpoints;
mod folders;
mod pictures;
mod plans;
mod processes;
mod rectangles;
mod refusals;
mod transfer;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    self, all_names, class_folders, command, dis, fail, newest, short_run, succeed, workplace,
};

const TRAIN: [&str; 3] = ["train", "--config", "tiny.toml"];

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    TRAIN.iter().chain(more).copied().collect()
}

#[test]
fn killed_at_any_moment_and_resumed_gives_the_same_bytes() {
    let dir = workplace();
    let at = dir.path();
    succeed(at, &train(&["--out", "whole"]));
    let whole = newest(&at.join("whole"));
    assert_eq!(whole.len(), 5);

    // Killed three times, each time a little later; the first kill may come before any checkpoint.
    let mut child = command(at, &train(&["--out", "cut"])).spawn().unwrap();
    let mut seen = 0;
    for (kill, wanted) in [(0, 0), (1, 1), (2, 2)] {
        let deadline = Instant::now() + Duration::from_secs(60);
        // Waits until the run has its directory, then for one more checkpoint each time.
        let reached = |seen: &mut usize| {
            let folder = at.join("cut/checkpoints");
            let count = fs::read_dir(folder).map_or(0, |d| d.count());
            *seen = count.max(*seen);
            at.join("cut/config.toml").exists() && count >= wanted
        };
        while !reached(&mut seen)
            && Instant::now() < deadline
            && child.try_wait().unwrap().is_none()
        {
            thread::sleep(Duration::from_millis(2));
        }
        thread::sleep(Duration::from_millis(3 * kill));
        let _ = child.kill();
        child.wait().unwrap();
        child = command(at, &["train", "--resume", "cut"]).spawn().unwrap();
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(newest(&at.join("cut")), whole);
    assert!(
        !all_names(&at.join("cut/checkpoints"))
            .iter()
            .any(|n| n.starts_with(".tmp"))
    );
    // Every logged step is there once.
    let log = fs::read_to_string(at.join("cut/metrics.jsonl")).unwrap();
    let steps: Vec<u64> = log
        .lines()
        .map(|l| {
            serde_json::from_str::<serde_json::Value>(l).unwrap()["step"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(steps, [5, 10, 15, 20, 25, 30]);
}

#[test]
fn threads_and_recompute_do_not_change_the_weights() {
    let dir = workplace();
    let at = dir.path();
    let short = ["--steps", "6", "--out"];
    let run = |name, more: &[&str]| {
        let args: Vec<&str> = train(&short)
            .into_iter()
            .chain([name])
            .chain(more.iter().copied())
            .collect();
        succeed(at, &args);
        newest(&at.join(name))
    };
    let one = run("one", &["--threads", "1"]);
    assert_eq!(run("two", &["--threads", "2"]), one);
    assert_eq!(run("three", &["--threads", "3", "--recompute"]), one);
    assert_ne!(run("other", &["--seed", "1"]), one);
}

/// Other products, the same for any number of threads, and continued in another precision only with a warning.
#[test]
fn products_may_be_bfloat16() {
    let dir = workplace();
    let at = dir.path();
    let mut refused = command(at, &train(&["--precision", "bf16", "--device", "cpu"]));
    let refused = refused.env("DIS_SIMD", "portable").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(
        said.contains("--precision bf16: portable") && said.contains("leave --precision away"),
        "{said}"
    );
    if !dis_tensor::simd::pairs::has_pairs() {
        return;
    }
    succeed(at, &train(&["--steps", "4", "--out", "f32"]));
    let bf16 = |name: &str, threads: &str| {
        let more = ["--steps", "4", "--precision", "bf16", "--threads", threads];
        succeed(at, &[&train(&more)[..], &["--out", name]].concat());
        newest(&at.join(name))
    };
    let one = bf16("one", "1");
    assert_ne!(one, newest(&at.join("f32")));
    assert_eq!(bf16("two", "2"), one);
    let resume = |more: &[&str]| {
        let args = [&["train", "--resume", "one", "--steps"], more].concat();
        let output = dis(at, &args);
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let warning = "computed with";
    assert!(!resume(&["6", "--precision", "bf16"]).contains(warning));
    let said = resume(&["8"]);
    assert!(
        said.contains(warning) && said.contains("bfloat16"),
        "{said}"
    );
    fail(
        at,
        &train(&["--precision", "tf32", "--device", "cpu", "--out", "x"]),
        &["--precision tf32"],
    );
}

#[test]
fn a_start_from_other_weights_keeps_the_classes_by_name() {
    let dir = workplace();
    let at = dir.path();
    let (red, green, blue) = ([200, 20, 20], [20, 200, 20], [20, 20, 200]);
    let first = [("apple", red, 4), ("leaf", green, 4), ("sea", blue, 4)];
    class_folders(&at.join("first"), &first);
    short_run(at, "first,size=8", "run");
    let config = format!("{}min_lr = 0.0\n", common::TINY);
    fs::write(at.join("still.toml"), config).unwrap();
    let load = |run: &str| {
        let file = at
            .join(run)
            .join("checkpoints/step-00000002/weights.safetensors");
        dis_model::Checkpoint::load(&file, &Default::default()).unwrap()
    };
    let mut checkpoint = load("run");
    let spec = checkpoint.model.table().specs().iter();
    let spec = spec
        .clone()
        .find(|s| s.name.starts_with("label_emb"))
        .unwrap()
        .clone();
    let width = spec.shape[1];
    let rows = |weights: &[f32]| -> Vec<Vec<f32>> {
        let table = &weights[spec.offset..spec.offset + spec.len()];
        table.chunks(width).map(<[f32]>::to_vec).collect()
    };
    let own = rows(&checkpoint.weights);
    // The same weights, said to be of the classes in another order.
    checkpoint.metadata.extra.insert(
        "class_names".into(),
        serde_json::json!(["sea", "apple", "leaf"]),
    );
    checkpoint.save(&at.join("turned.safetensors")).unwrap();
    let start = |from: &'static str, out: &'static str| {
        let base = ["train", "--config", "still.toml", "--data", "first,size=8"];
        // No step that changes anything.
        let more = [
            "--steps",
            "2",
            "--lr",
            "0",
            "--init-from",
            from,
            "--out",
            out,
        ];
        [&base[..], &more].concat()
    };
    succeed(at, &start("turned.safetensors", "second"));
    let turned = rows(&load("second").weights);
    assert_eq!(
        turned[..3],
        [own[1].clone(), own[2].clone(), own[0].clone()]
    );
    assert_eq!(turned[3], own[3], "the null label stays");
    succeed(
        at,
        &start("run/checkpoints/step-00000002/weights.safetensors", "third"),
    );
    assert_eq!(rows(&load("third").weights), own);
}
