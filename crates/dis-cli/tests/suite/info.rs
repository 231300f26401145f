//! `dis info`, help and completions.

use crate::common::{fail, succeed, words, workplace};

#[test]
fn info_of_the_zoo_is_exact() {
    let dir = workplace();
    let at = dir.path();
    let args = words("info --model DiS-H/2 --image-size 256 --latent");
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
