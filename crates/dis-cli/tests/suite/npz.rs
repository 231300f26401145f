//! Many images in one file, over as many runs as it takes.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::common::{all_names, command, fail, succeed, words, workplace};

fn sample<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let base = [
        "sample",
        "--num",
        "600",
        "--steps",
        "4",
        "--batch-size",
        "16",
        "--out",
        out,
    ];
    base.iter().chain(more).copied().collect()
}

#[test]
fn killed_at_any_moment_and_started_again_gives_the_same_file() {
    let dir = workplace();
    let at = dir.path();
    succeed(at, &sample("whole.npz", &[]));
    let partial = at.join("cut.npz.partial");
    let mut begun = 0;
    for _ in 0..3 {
        let mut child = command(at, &sample("cut.npz", &["--threads", "1"]))
            .spawn()
            .unwrap();
        // Killed as soon as there are more images than before, or it is done.
        while child.try_wait().unwrap().is_none() {
            let len = fs::metadata(&partial).map_or(0, |m| m.len());
            if len > begun {
                begun = len;
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let _ = child.kill();
        child.wait().unwrap();
    }
    // Other settings do not mix with what is there; a smaller batch is no other setting.
    if partial.exists() {
        fail(
            at,
            &sample("cut.npz", &["--seed", "1"]),
            &["cut.npz.partial", "--seed: 0 then, --seed: 1 now"],
        );
    }
    let mut other = sample("cut.npz", &["--threads", "2"]);
    other[6] = "5";
    succeed(at, &other);
    let whole = fs::read(at.join("whole.npz")).unwrap();
    assert!(whole == fs::read(at.join("cut.npz")).unwrap());
    assert_eq!(all_names(at), ["cut.npz", "tiny.toml", "whole.npz"]);
}

#[test]
fn what_was_drawn_can_be_trained_on() {
    let dir = workplace();
    let at = dir.path();
    succeed(
        at,
        &["sample", "--num", "40", "--steps", "2", "--out", "s.npz"],
    );
    let run = words("train --config tiny.toml --data npz:s.npz --out run");
    succeed(at, &[&run[..], &["--steps", "2"]].concat());
    fail(
        at,
        &words("train --config tiny.toml --data npz:tiny.toml --out x"),
        &["tiny.toml", ".npz file"],
    );
}
