//! What `dis train` refuses before it begins.

use std::fs;

use super::train;
use crate::common::{self, fail, succeed, words, workplace};

#[test]
fn refusals() {
    let dir = workplace();
    let at = dir.path();
    fail(at, &["train"], &["--preset"]);
    fail(
        at,
        &["train", "--preset", "nonesuch"],
        &["nonesuch", "digits"],
    );
    fail(at, &["train", "--config", "absent.toml"], &["absent.toml"]);
    fail(at, &["train", "--resume", "absent"], &["absent", "no run"]);
    fail(at, &train(&["--data", "absent", "--out", "x"]), &["absent"]);
    fail(at, &train(&["--lr", "-1", "--out", "x"]), &["lr"]);
    fail(
        at,
        &train(&["--batch-size", "0", "--out", "x"]),
        &["batch_size"],
    );
    fail(at, &train(&["--device", "cuda", "--out", "x"]), &["cuda"]);
    fs::write(at.join("bad.toml"), common::TINY.replace("depth", "dpeth")).unwrap();
    fail(
        at,
        &["train", "--config", "bad.toml", "--out", "x"],
        &["dpeth"],
    );
    fs::write(
        at.join("bad.toml"),
        common::TINY.replace("batch_size", "batchsize"),
    )
    .unwrap();
    fail(
        at,
        &["train", "--config", "bad.toml", "--out", "x"],
        &["bad.toml", "line", "batchsize"],
    );
    assert!(
        !at.join("x").exists(),
        "nothing is left of runs that never began"
    );
    fs::write(at.join("file"), "").unwrap();
    fail(at, &train(&["--out", "file/run"]), &["file"]);
    succeed(at, &train(&["--steps", "1", "--out", "run"]));
    fail(
        at,
        &train(&["--steps", "1", "--out", "run"]),
        &["run", "--resume"],
    );
}

#[test]
fn an_image_that_does_not_decode_is_named() {
    let dir = workplace();
    let at = dir.path();
    fs::create_dir(at.join("pictures")).unwrap();
    succeed(
        at,
        &["sample", "--num", "4", "--steps", "2", "--out", "pictures"],
    );
    fs::write(at.join("pictures/broken.png"), b"not a picture").unwrap();
    let data = words("--data pictures,size=8,grey --out run --steps 5");
    fail(at, &train(&data), &["broken.png"]);
}

#[test]
fn sizes_beyond_the_memory_are_refused_before_it_is_taken() {
    let dir = workplace();
    let at = dir.path();
    for size in ["100000000000", "18446744073709551615"] {
        let words = ["--batch-size", "this machine has"];
        fail(at, &train(&["--batch-size", size, "--out", "x"]), &words);
    }
    let config = |from: &str, to: &str| {
        fs::write(at.join("big.toml"), common::TINY.replace(from, to)).unwrap();
        ["train", "--config", "big.toml", "--out", "x"]
    };
    for (from, to, words) in [
        (
            "lr = 1e-3",
            "lr = 1e-3\naccumulation = 1000000000000",
            ["train.accumulation", "this machine has"],
        ),
        (
            "embed_dim = 16\ndepth = 2",
            "embed_dim = 65536\ndepth = 10000",
            ["[model]", "this machine has"],
        ),
        (
            "sample_every = 0",
            "sample_every = 1\n[sample]\nper_class = 1000000000000",
            ["sample.per_class", "this machine has"],
        ),
    ] {
        fail(at, &config(from, to), &words);
    }
    assert!(!at.join("x").exists());
}

#[test]
fn the_least_rate_follows_unless_it_is_said() {
    let dir = workplace();
    let at = dir.path();
    succeed(
        at,
        &train(&["--lr", "5e-7", "--steps", "1", "--out", "run"]),
    );
    let preset = ["--preset", "digits", "--lr", "1e-6", "--steps", "1"];
    succeed(
        at,
        &[&["train"], &preset[..], &["--out", "preset"]].concat(),
    );
    let said = common::TINY.replace("lr = 1e-3", "lr = 1e-3\nmin_lr = 1e-5");
    fs::write(at.join("said.toml"), said).unwrap();
    let args = words("train --config said.toml --lr 1e-6 --out x");
    fail(at, &args, &["train.min_lr", "train.lr (--lr)"]);
}
