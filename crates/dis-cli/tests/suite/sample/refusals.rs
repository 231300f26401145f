//! What `dis sample` refuses before it begins.

use std::fs;

use crate::common::{self, fail, names, succeed, words, workplace};

#[test]
fn what_is_written_is_nothing_else_of_the_command() {
    let dir = workplace();
    let at = dir.path();
    succeed(
        at,
        &["sample", "--num", "1", "--steps", "2", "--out", "a.png"],
    );
    let a = fs::read(at.join("a.png")).unwrap();
    let study = concat!(env!("CARGO_MANIFEST_DIR"), "/../../studies/smoke.toml");
    fs::copy(study, at.join("s.toml")).unwrap();
    fs::write(at.join("s.npz"), "").unwrap();
    fs::create_dir(at.join("p")).unwrap();
    for (args, words) in [
        (
            &["sample", "--init-image", "a.png", "--out", "./a.png"][..],
            ["--init-image", "--out"],
        ),
        (
            &words("sample --init-image a.png --mask m.png --out m.png"),
            ["--mask", "--out"],
        ),
        (
            &["sample", "--out", "b.png", "--trajectory", "b.png"],
            ["--out", "--trajectory"],
        ),
        (&["convert", "x.pt", "x.pt"], ["IN", "OUT"]),
        (
            &["eval", "s.npz", "--save-statistics", "s.npz"],
            ["SAMPLES", "--save-statistics"],
        ),
        (
            &words("eval --reference digits --json j --save-statistics j"),
            ["--json", "--save-statistics"],
        ),
        (
            &words("eval --bpd --reference digits --json j --plot ./j"),
            ["--json", "--plot"],
        ),
        (
            &["encode", "p,size=8", "--vae", "v", "--out", "p"],
            ["DATA", "--out"],
        ),
        (&["study", "s.toml", "--out", "s.toml"], ["FILE", "--out"]),
        (
            &["train-classifier", "--data", "npz:d.npz", "--out", "d.npz"],
            ["--data", "--out"],
        ),
        (
            &["train", "--config", "tiny.toml", "--out", "tiny.toml"],
            ["--config", "--out"],
        ),
    ] {
        fail(at, args, &words);
    }
    assert_eq!(fs::read(at.join("a.png")).unwrap(), a);
}

/// Negative values reach their options: to be used, or to be refused by name.
#[test]
fn negative_values_are_values() {
    let dir = workplace();
    let at = dir.path();
    let refused = |args: &[&str], word: &str| {
        let output = common::dis(at, args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{args:?}");
        assert!(stderr.contains(word), "{args:?}: {stderr}");
        assert!(
            !stderr.contains("unexpected argument"),
            "{args:?}: {stderr}"
        );
    };
    for option in [
        "--num",
        "--seed",
        "--classes",
        "--batch-size",
        "--steps",
        "--refine",
        "--threads",
        "--eta",
        "--cfg",
        "--cfg-rescale",
        "--clip-quantile",
        "--vae-tile",
    ] {
        let given = ["sample", "--init-image", "digits", "--invert", "--vae", "x"];
        let given = match option {
            "--refine" | "--vae-tile" => &given[..],
            _ => &given[..1],
        };
        refused(&[given, &[option, "-1"]].concat(), option);
    }
    refused(
        &["train", "--config", "tiny.toml", "--lr", "-1"],
        "train.lr",
    );
    refused(
        &["train", "--config", "tiny.toml", "--keep", "-1"],
        "--keep",
    );
    refused(&["info", "--batch-size", "-1"], "--batch-size");
    refused(
        &["encode", "x", "--vae", "v", "--out", "o", "--size", "-8"],
        "--size",
    );
    let eval = words("eval digits --reference digits --features onnx:x.onnx");
    for more in [
        ["--onnx-range", "-1,1"],
        ["--onnx-normalize", "-0.5,-1,0.5,1"],
    ] {
        // Taken: what is missing is the file, or the means to read it.
        refused(&[&eval[..], &more].concat(), "onnx");
    }
    for (option, value) in [("--bootstrap", "-1"), ("--pr-k", "-3"), ("--metrics", "-x")] {
        refused(&[&eval[..4], &[option, value]].concat(), option);
    }
    let interval = ["--cfg-interval", "-5,600", "--num", "1", "--steps", "2"];
    succeed(
        at,
        &[&["sample"], &interval[..], &["--out", "i.png"]].concat(),
    );
}

/// A reader that is gone, or a device that is full: one line, and no panic.
#[test]
fn results_that_cannot_be_written_are_one_error() {
    let dir = workplace();
    let at = dir.path();
    let run = |args: &[&str], out: std::process::Stdio, both: Option<std::process::Stdio>| {
        let mut command = common::command(at, args);
        command.stdout(out);
        if let Some(err) = both {
            command.stderr(err);
        }
        command.output().unwrap()
    };
    let gone = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        std::process::Stdio::from(writer)
    };
    let sample = ["sample", "--num", "1", "--steps", "2", "--out", "p.png"];
    for args in [
        &["info"][..],
        &["info", "--json"],
        &["completions", "bash"],
        &sample,
    ] {
        let output = run(args, gone(), None);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let errors = stderr
            .lines()
            .filter(|l| l.starts_with("error: cannot write to standard"));
        assert_eq!(
            (output.status.code(), errors.count()),
            (Some(1), 1),
            "{stderr}"
        );
        assert!(!stderr.contains("panicked"), "{stderr}");
        #[cfg(target_os = "linux")]
        {
            let full = fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .unwrap();
            assert_eq!(run(args, full.into(), None).status.code(), Some(1));
        }
    }
    // Nobody listens at all: the work is done, and the exit code says that its result was not told.
    fs::remove_file(at.join("p.png")).unwrap();
    assert_eq!(run(&sample, gone(), Some(gone())).status.code(), Some(1));
    assert!(at.join("p.png").exists());
}

#[test]
fn sizes_beyond_the_memory_are_refused() {
    let dir = workplace();
    let at = dir.path();
    let huge = "10000000000000000";
    for (args, option) in [
        (&["sample", "--num", huge][..], "--num"),
        (
            &["sample", "--interpolate", "noise", "--frames", huge],
            "--frames",
        ),
        (&["eval", "--reference", "digits", "--num", huge], "--num"),
        (
            &[
                "eval",
                "--reference",
                "digits",
                "--num",
                "4",
                "--bootstrap",
                huge,
            ],
            "--bootstrap",
        ),
        (
            &[
                "eval",
                "--reference",
                "digits",
                "--num",
                "4",
                "--kid-subsets",
                huge,
            ],
            "--kid-subsets",
        ),
        (
            &[
                "train-classifier",
                "--data",
                "digits-train",
                "--out",
                "c",
                "--batch-size",
                huge,
            ],
            "--batch-size",
        ),
        (&["sample", "--threads", huge], "--threads"),
    ] {
        fail(at, args, &[option]);
    }
    fs::create_dir(at.join("photos")).unwrap();
    for i in 0..3 {
        let name = format!("photos/{i}.png");
        image::GrayImage::new(8, 8).save(at.join(name)).unwrap();
    }
    let photos = "photos,size=60000";
    let args = ["eval", photos, "--reference", photos];
    fail(at, &args, &["--batch-size", "this machine has"]);
    // No batch is larger than what is asked for.
    let args = ["sample", "--num", "2", "--steps", "2", "--batch-size", huge];
    succeed(at, &args);
    let info = ["info", "--batch-size", "18446744073709551615"];
    assert!(succeed(at, &info).contains("inference"));
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
    succeed(at, &words("train --config tiny.toml --steps 1 --out run"));
    let good = fs::read(at.join("run/checkpoints/step-00000001/ema.safetensors")).unwrap();
    let refuse = |bytes: &[u8], parts: &[&str]| {
        fs::write(at.join("bad.safetensors"), bytes).unwrap();
        let mut all = vec!["bad.safetensors"];
        all.extend(parts);
        fail(
            at,
            &words("sample --checkpoint bad.safetensors --out x.png"),
            &all,
        );
        fail(at, &["info", "--checkpoint", "bad.safetensors"], &all);
        assert!(!at.join("x.png").exists());
    };
    refuse(&[], &["safetensors"]);
    refuse(&good[..good.len() / 2], &["safetensors"]);
    refuse(
        b"no weights at all",
        &["no weights at all", "not a checkpoint"],
    );
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
