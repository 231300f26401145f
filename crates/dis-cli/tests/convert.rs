//! `dis convert`, and the other commands on `.pt` files.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{TINY, fail, succeed};

fn golden(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    root.join(name).to_string_lossy().into_owned()
}

fn bundled() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/digits.safetensors");
    path.to_string_lossy().into_owned()
}

#[test]
fn to_torch_and_back_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let said = succeed(dir, &["convert", &bundled(), "digits.pt"]);
    assert!(said.contains("parameters"), "{said}");
    succeed(dir, &["convert", "digits.pt", "again.safetensors"]);
    let bytes = |path: PathBuf| fs::read(path).unwrap();
    assert_eq!(
        bytes(dir.join("again.safetensors")),
        bytes(bundled().into())
    );
    // The metadata travel along, so no question is asked.
    let info = |name: &str| succeed(dir, &["info", "--json", "--checkpoint", name]);
    assert_eq!(info("digits.pt"), info(&bundled()));
}

#[test]
fn published_files_convert_and_are_asked_about_where_unclear() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let pt = golden("checkpoint_tiny.pt");
    // Its arguments are those of a stock model, so they are not believed.
    fail(
        dir,
        &["convert", &pt, "x.safetensors"],
        &["11 rows", "DiS-S/2", "--null-label true or false"],
    );
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    let convert = |out: &str, more: &[&str]| {
        let args = [&["convert", &pt, out, "--null-label", "true"], more].concat();
        let said = succeed(dir, &args);
        (said, fs::read(dir.join(out)).unwrap())
    };
    let (said, ema) = convert("ema.safetensors", &[]);
    assert!(said.contains("entry ema"), "{said}");
    let (said, raw) = convert("raw.safetensors", &["--raw"]);
    assert!(said.contains("entry model"), "{said}");
    assert_ne!(ema, raw);
    assert_eq!(convert("e.safetensors", &["--ema"]).1, ema);
    assert_eq!(convert("m.safetensors", &["--entry", "model"]).1, raw);
    let small = ["--num", "2", "--steps", "2", "--out", "s.png"];
    let sample = ["sample", "--checkpoint", "ema.safetensors"];
    succeed(dir, &[&sample[..], &small].concat());
    let sample = ["sample", "--checkpoint", &pt, "--null-label", "true"];
    succeed(dir, &[&sample[..], &small].concat());
}

#[test]
fn a_run_becomes_one_file_of_weights_and_average() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("tiny.toml"), TINY).unwrap();
    succeed(
        dir,
        &[
            "train",
            "--config",
            "tiny.toml",
            "--out",
            "run",
            "--steps",
            "3",
        ],
    );
    succeed(dir, &["convert", "run", "both.pt"]);
    for (option, file) in [("--ema", "ema"), ("--raw", "weights")] {
        let out = format!("{file}.safetensors");
        succeed(dir, &["convert", "both.pt", &out, option]);
        let kept = format!("run/checkpoints/step-00000003/{file}.safetensors");
        assert_eq!(
            fs::read(dir.join(&out)).unwrap(),
            fs::read(dir.join(kept)).unwrap()
        );
    }
}

#[test]
fn what_cannot_be_converted_is_said_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (st, pt) = (bundled(), golden("checkpoint_tiny.pt"));
    fail(
        dir,
        &["convert", &st, "x.onnx"],
        &["x.onnx", ".safetensors, .pt"],
    );
    fail(dir, &["convert", &st, "no/x.pt"], &["no", "directory"]);
    fail(
        dir,
        &["convert", &st, "x.pt", "--ema"],
        &["one set of weights"],
    );
    fail(dir, &["convert", "gone.pt", "x.safetensors"], &["gone.pt"]);
    fail(
        dir,
        &["convert", &pt, "x.safetensors", "--entry", "best"],
        &["\"best\"", "\"model\"", "\"ema\""],
    );
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dis-files/tests/data/runs.pt");
    fail(
        dir,
        &["convert", &runs.to_string_lossy(), "x.safetensors"],
        &["posix.system", "refused"],
    );
    let half = fs::read(&pt).unwrap();
    fs::write(dir.join("half.pt"), &half[..half.len() / 2]).unwrap();
    fail(
        dir,
        &["convert", "half.pt", "x.safetensors"],
        &["half.pt", "cut off"],
    );
    assert_eq!(fs::read_dir(dir).unwrap().count(), 1);
}
