//! `dis study`: the smoke study, and killing it.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::{command, dis, fail, succeed};

fn smoke() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../studies/smoke.toml")
}

/// What a study is to give again: the report, its plots and pictures, the figures of every run.
fn outcome(out: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    fn collect(dir: &Path, root: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, root, found);
            } else if path.extension().is_some_and(|e| e != "jsonl") {
                // metrics.jsonl has the speed in it.
                let name = path.strip_prefix(root).unwrap().to_path_buf();
                found.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    collect(out, out, &mut found);
    found.sort();
    found
}

#[test]
fn the_smoke_study_reports_every_section_and_survives_kills() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let file = smoke();
    let file = file.to_str().unwrap();
    let report = succeed(at, &["study", file, "--out", "whole"]);
    assert_eq!(report.trim(), "whole/REPORT.md");
    let report = fs::read_to_string(at.join("whole/REPORT.md")).unwrap();
    for section in [
        "# Smoke test of `dis study`",
        "## What was run",
        "10 of 10 runs: 5 configurations with 2 seeds each, on `digits-train`",
        "## Claims",
        "| patch size | smaller patches help | 2, 4 |",
        "| long skips | concatenation helps | concat, none |",
        "## Axis: patch size",
        "## Axis: long skips",
        "## Axis: mixer",
        "| attention |",
        "### Samples: mixer",
        "## Cost against tokens",
        "## Settings",
        "seed",
    ] {
        assert!(report.contains(section), "no {section:?} in:\n{report}");
    }
    // Everything that the report shows is there.
    let shown: Vec<&str> = report
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .collect();
    assert_eq!(shown.len(), 3 * 3 + (2 + 3 + 2) + 1);
    for path in shown {
        let size = fs::metadata(at.join("whole").join(path)).unwrap().len();
        assert!(size > 200, "{path}: {size} bytes");
    }

    // Killed four times at moments of no meaning, then left alone: the same in every byte.
    let args = ["study", file, "--out", "cut"];
    for kill in 1..=4 {
        let mut child = command(at, &args).spawn().unwrap();
        let wanted = 3 * kill;
        let evaluations = || {
            outcome_names(&at.join("cut/runs"))
                .iter()
                .filter(|n| n.extension().is_some_and(|e| e == "json"))
                .count()
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while evaluations() < wanted && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(3));
        }
        let _ = child.kill();
        child.wait().unwrap();
    }
    succeed(at, &args);
    let (whole, cut) = (outcome(&at.join("whole")), outcome(&at.join("cut")));
    // A kill may leave an older checkpoint beside the last one, or a file that was not finished; all
    // that belongs to the outcome is there and the same.
    for (name, a) in &whole {
        let other = cut.iter().find(|(other, _)| other == name);
        let (_, b) = other.unwrap_or_else(|| panic!("no {}", name.display()));
        assert!(a == b, "{} differs", name.display());
    }

    // Once more: nothing is trained, since there is no room for it.
    for run in fs::read_dir(at.join("cut/runs")).unwrap() {
        for seed in fs::read_dir(run.unwrap().path()).unwrap() {
            fs::remove_dir_all(seed.unwrap().path().join("checkpoints")).unwrap();
        }
    }
    fs::remove_file(at.join("cut/REPORT.md")).unwrap();
    succeed(at, &args);
    let again = fs::read(at.join("cut/REPORT.md")).unwrap();
    assert!(again == report.as_bytes());
    assert!(
        !outcome_names(&at.join("cut/runs"))
            .iter()
            .any(|n| { n.extension().is_some_and(|e| e == "safetensors") })
    );

    // Other settings do not mix with what is there.
    let text = fs::read_to_string(file)
        .unwrap()
        .replace("lr = 2e-3", "lr = 1e-3");
    fs::write(at.join("other.toml"), text).unwrap();
    fail(
        at,
        &["study", "other.toml", "--out", "cut"],
        &["base/seed-0", "other settings"],
    );
}

fn outcome_names(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn mistakes_in_the_file_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let text = fs::read_to_string(smoke()).unwrap();
    for (from, to, words) in [
        (
            "model.patch_size",
            "model.patchsize",
            ["patchsize", "unknown"],
        ),
        ("every = 20", "evry = 20", ["s.toml", "line"]),
        (
            "values = [2, 4]",
            "values = [2, 3]",
            ["patch size", "best_first"],
        ),
        (
            "\"attention\" }",
            "\"attn\" }",
            ["mixer", "mamba, attention"],
        ),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(at.join("s.toml"), text.replace(from, to)).unwrap();

        fail(at, &["study", "s.toml"], &words);
    }
    fail(at, &["study", "absent.toml"], &["absent.toml"]);
    assert!(!at.join("runs").exists());
}

/// Every study of the repository is one that can be run.
#[test]
fn studies_of_the_repository_expand() {
    let dir = tempfile::tempdir().unwrap();
    let file = smoke().with_file_name("digits.toml");
    let output = dis(dir.path(), &["study", file.to_str().unwrap(), "--list"]);
    let names = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = names.lines().collect();
    assert_eq!(names[..3], ["base", "patch-size-1", "patch-size-4"]);
    assert_eq!(names.len(), 12);
}
