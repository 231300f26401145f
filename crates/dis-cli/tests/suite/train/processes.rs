//! Runs and other outputs belong to one process, which a signal ends.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::train;
use crate::common::{command, fail, names, succeed, workplace};

/// Of two processes at one run the second is told of the first, and a killed one leaves nothing behind.
#[test]
fn a_run_belongs_to_one_process() {
    let dir = workplace();
    let at = dir.path();
    let args = train(&["--steps", "2000000", "--threads", "1", "--out", "run"]);
    let mut child = command(at, &args).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !at.join("run/checkpoints/step-00000007").exists() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let holder = format!("dis train (process {}", child.id());
    let words = ["run: in use by", &holder];
    fail(at, &["train", "--resume", "run"], &words);
    fail(at, &train(&["--out", "run"]), &words);
    child.kill().unwrap();
    child.wait().unwrap();
    let said = succeed(at, &["train", "--resume", "run", "--steps", "1"]);
    assert!(said.contains("nothing to do"), "{said}");
}

/// Other outputs have locks too.
#[test]
fn an_output_belongs_to_one_process() {
    let dir = workplace();
    let at = dir.path();
    let study = concat!(env!("CARGO_MANIFEST_DIR"), "/../../studies/smoke.toml");
    let vae = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/vae_tiny_2level"
    );
    for args in [
        &["study", study][..],
        &["encode", "digits", "--vae", vae],
        &["sample", "--num", "1", "--steps", "2"],
    ] {
        let lock = dis_files::DirLock::acquire(&at.join("out"), "a test").unwrap();
        let args = [args, &["--out", "out"]].concat();
        fail(at, &args, &["out: in use by a test (process"]);
        drop(lock);
    }
}

/// Signals that schedulers send before they kill are as good as Ctrl-C.
#[cfg(unix)]
#[test]
fn a_signal_ends_a_run_with_a_checkpoint() {
    let dir = workplace();
    let at = dir.path();
    for signal in ["-TERM", "-HUP"] {
        let run = format!("run{signal}");
        let args = ["--steps", "2000000", "--checkpoint-every", "1000000"];
        let args = train(&[&args[..], &["--threads", "1", "--out", &run]].concat());
        let mut child = command(at, &args).spawn().unwrap();
        let log = at.join(&run).join("metrics.jsonl");
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs::metadata(&log).map_or(0, |m| m.len()) == 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let pid = child.id().to_string();
        let mut kill = std::process::Command::new("kill");
        assert!(kill.args([signal, &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(names(&at.join(&run).join("checkpoints")).len(), 1);
    }
}
