//! Sampling and inspecting from the command line.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{fail, names, succeed, workplace};

#[test]
fn with_no_argument_draws_the_bundled_digits() {
    let dir = workplace();
    let at = dir.path();
    succeed(at, &["sample"]);
    let png = fs::read(at.join("samples.png")).unwrap();
    assert_eq!(&png[1..4], b"PNG");
    for more in [
        ["--threads", "1"],
        ["--batch-size", "7"],
        ["--batch-size", "1"],
    ] {
        succeed(at, &[&["sample", "--out", "again.png"], &more[..]].concat());
        let again = fs::read(at.join("again.png")).unwrap();
        assert_eq!(again, png, "{more:?} does not matter");
    }
    succeed(at, &["sample", "--seed", "1", "--out", "other.png"]);
    assert_ne!(fs::read(at.join("other.png")).unwrap(), png);
}

/// The GPU's products of bfloat16, by the simulator.
#[cfg(feature = "sim")]
#[test]
fn bfloat16_on_the_simulator() {
    let dir = workplace();
    let at = dir.path();
    let sample = |more: &[&'static str]| {
        let args = ["sample", "--device", "sim", "--num", "1", "--steps", "2"];
        [&args[..], more].concat()
    };
    let output = common::dis(at, &sample(&["--precision", "bf16"]));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("bfloat16 products"), "{stderr}");
    assert_eq!(&fs::read(at.join("samples.png")).unwrap()[1..4], b"PNG");
    fail(at, &sample(&["--precision", "tf32"]), &["--precision tf32"]);
}

#[test]
fn writes_single_pictures_and_takes_every_sampler() {
    let dir = workplace();
    let at = dir.path();
    succeed(
        at,
        &[
            "sample",
            "--classes",
            "7,2",
            "--num",
            "3",
            "--steps",
            "3",
            "--out",
            "pictures",
        ],
    );
    let expected = [
        "000000-class7.png",
        "000001-class7.png",
        "000002-class2.png",
    ];
    assert_eq!(names(&at.join("pictures")), expected);
    for more in [
        &["--sampler", "ancestral"][..],
        &["--eta", "1", "--clip"],
        &["--cfg", "1"],
        &["--cfg", "3", "--cfg-interval", "100,600"],
        &["--cfg-published"],
    ] {
        let base = ["sample", "--num", "2", "--steps", "4", "--out", "x.png"];
        let args: Vec<&str> = base.iter().chain(more).copied().collect();
        succeed(at, &args);
    }
}

#[test]
fn refusals_name_the_culprit_and_write_nothing() {
    let dir = workplace();
    let at = dir.path();
    let sample = |more: &[&str], words: &[&str]| {
        let base = ["sample", "--num", "1", "--steps", "2"];
        let args: Vec<&str> = base.iter().chain(more).copied().collect();
        fail(at, &args, words);
    };
    sample(&["--classes", "eleven"], &["eleven", "classes are 0"]);
    sample(&["--classes", "10"], &["\"10\""]);
    sample(
        &["--checkpoint", "absent.safetensors"],
        &["absent.safetensors"],
    );
    sample(&["--out", "absent/x.png"], &["absent"]);
    sample(&["--out", "x.jpg"], &["x.jpg"]);
    sample(&["--eta", "2"], &["--eta"]);
    sample(&["--cfg", "-1"], &["--cfg"]);
    sample(&["--threads", "0"], &["--threads"]);
    fail(at, &["sample", "--steps", "2000"], &["2000"]);
    fail(at, &["sample", "--num", "0"], &["--num"]);
    assert_eq!(names(at), ["tiny.toml"]);
}

#[test]
fn damaged_checkpoints_are_refused_by_name() {
    let dir = workplace();
    let at = dir.path();
    succeed(
        at,
        &[
            "train",
            "--config",
            "tiny.toml",
            "--steps",
            "1",
            "--out",
            "run",
        ],
    );
    let good = fs::read(at.join("run/checkpoints/step-00000001/ema.safetensors")).unwrap();
    let refuse = |bytes: &[u8], words: &[&str]| {
        fs::write(at.join("bad.safetensors"), bytes).unwrap();
        let mut all = vec!["bad.safetensors"];
        all.extend(words);
        fail(
            at,
            &[
                "sample",
                "--checkpoint",
                "bad.safetensors",
                "--out",
                "x.png",
            ],
            &all,
        );
        fail(at, &["info", "--checkpoint", "bad.safetensors"], &all);
        assert!(!at.join("x.png").exists());
    };
    refuse(&[], &["safetensors"]);
    refuse(&good[..good.len() / 2], &["safetensors"]);
    refuse(b"not a checkpoint at all", &["safetensors"]);
    // Another name of the same length: one tensor is missing, another is unknown.
    let swapped = replace(&good, b"norm_f.weight", b"norm_g.weight");
    refuse(&swapped, &["norm_f.weight", "missing"]);
    // Another shape of the same size.
    let shaped = replace(&good, b"[1,6,16]", b"[6,1,16]");
    refuse(&shaped, &["pos_embed", "[6, 1, 16]", "[1, 6, 16]"]);
    let unknown = replace(&good, b"drop_path_rate", b"drop_path_rats");
    refuse(&unknown, &["drop_path_rats"]);
    let nan = {
        let mut bytes = good.clone();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        bytes
    };
    refuse(&nan, &["NaN"]);
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
    let mut out = bytes.to_vec();
    out[at..at + to.len()].copy_from_slice(to);
    out
}

#[test]
fn info_of_the_zoo_is_exact() {
    let dir = workplace();
    let at = dir.path();
    let args = [
        "info",
        "--model",
        "DiS-H/2",
        "--image-size",
        "256",
        "--latent",
    ];
    let text = succeed(at, &args);
    for word in [
        "parameters",
        "multiply-adds",
        "tokens",
        "inference",
        "training",
    ] {
        assert!(text.contains(word), "{text}");
    }
    let args = ["info", "--model", "DiS-S/2", "--json"];
    let json: serde_json::Value = serde_json::from_str(&succeed(at, &args)).unwrap();
    assert_eq!(json["parameters"], 28_488_008);
    assert_eq!(json["tokens"], 257);
    fail(at, &["info", "--model", "DiS-Q/2"], &["DiS-Q/2", "DiS-S"]);
    fail(
        at,
        &["info", "--model", "DiS-S/2", "--image-size", "33"],
        &["image_size"],
    );
}

#[test]
fn help_and_completions_work() {
    let dir = workplace();
    for args in [
        &["--help"][..],
        &["train", "--help"],
        &["sample", "--help"],
        &["info", "--help"],
    ] {
        assert!(succeed(dir.path(), args).contains("Usage"));
    }
    assert!(succeed(dir.path(), &["completions", "bash"]).contains("dis"));
}
