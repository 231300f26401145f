//! `dis study`: the smoke study, and killing it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{command, dis, fail, succeed};

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

    // Files that are damaged or gone cost their run, not the report.
    let run = at.join("whole/runs/base/seed-0");
    let figures = outcome_names(&run.join("eval"));
    fs::write(&figures[0], "{").unwrap();
    let output = dis(at, &["study", file, "--out", "whole", "--report"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("left out: base, seed 0"), "{stderr}");
    let report = fs::read_to_string(at.join("whole/REPORT.md")).unwrap();
    for part in ["9 of 10 runs", "## Runs without a result", "damaged"] {
        assert!(report.contains(part), "no {part:?} in:\n{report}");
    }
    fs::remove_file(&figures[0]).unwrap();
    fs::write(run.join("ending.json"), "no JSON").unwrap();
    fs::remove_dir_all(at.join("whole/runs/base/seed-1/samples")).unwrap();
    succeed(at, &["study", file, "--out", "whole", "--report"]);
    let report = fs::read_to_string(at.join("whole/REPORT.md")).unwrap();
    for part in ["9 of 10 runs", "ending.json: damaged", "no picture"] {
        assert!(report.contains(part), "no {part:?} in:\n{report}");
    }
    // The study mends what it can.
    succeed(at, &["study", file, "--out", "whole"]);
    let report = fs::read_to_string(at.join("whole/REPORT.md")).unwrap();
    assert!(report.contains("10 of 10 runs"), "{report}");

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
            "every = 20",
            "every = 20\nfeatures = \"inception\"",
            ["evaluate.features", "classifier:FILE"],
        ),
        (
            "every = 20",
            "every = 20\nfeatures = \"classifier:absent.safetensors\"",
            ["absent.safetensors", "read it"],
        ),
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
        // Settings of single variants are named before anything is run.
        let list: &[&str] = match from.starts_with("model") || from.starts_with("\"att") {
            true => &["--list"],
            false => &[],
        };
        fail(at, &[&["study", "s.toml"], list].concat(), &words);
    }
    fail(at, &["study", "absent.toml"], &["absent.toml"]);
    assert!(!at.join("runs").exists());
}

/// With `features`, another network judges, and figures of different networks do not mix.
#[test]
fn a_classifier_can_judge() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let classifier = ["--data", "digits-train", "--steps", "5"];
    let args = [
        &["train-classifier", "--out", "c.safetensors"],
        &classifier[..],
    ]
    .concat();
    succeed(at, &args);
    let pixels = r#"
        title = "Judged by a classifier"
        seeds = [0]
        [evaluate]
        every = 5
        samples = 20
        reference_limit = 100
        steps = 2
        [base.model]
        patch_size = 4
        embed_dim = 16
        depth = 2
        [base.data]
        spec = "digits-train"
        [base.train]
        steps = 5
        batch_size = 8
        log_every = 1
        [[axis]]
        name = "long skips"
        key = "model.skip"
        values = ["concat", "none"]
    "#;
    let judged = pixels.replace(
        "every = 5",
        "every = 5\nfeatures = \"classifier:c.safetensors\"",
    );
    fs::write(at.join("pixels.toml"), pixels).unwrap();
    fs::write(at.join("judged.toml"), judged).unwrap();
    let mut distances = Vec::new();
    for (name, network, by) in [
        ("pixels", "pixels in [0, 1]", "distance of the pixels"),
        (
            "judged",
            "classifier sha256=",
            "the features of `classifier:c.safetensors`",
        ),
    ] {
        succeed(at, &["study", &format!("{name}.toml"), "--out", name]);
        let report = fs::read_to_string(at.join(name).join("REPORT.md")).unwrap();
        assert!(report.contains(by), "{report}");
        let path = at
            .join(name)
            .join("runs/base/seed-0/eval/step-00000005.json");
        let figures: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert!(
            figures["network"].as_str().unwrap().starts_with(network),
            "{figures}"
        );
        distances.push(figures["frechet"].as_f64().unwrap());
    }
    assert!(distances[0] != distances[1]);
    fail(
        at,
        &["study", "pixels.toml", "--out", "judged", "--report"],
        &["step-00000005.json", "other settings of [evaluate]"],
    );
}

/// Every study of the repository is one that can be run.
/// IDX files of the shape of Fashion-MNIST: an image of each class.
fn small_fashion(folder: &Path) {
    fs::create_dir(folder).unwrap();
    for part in ["train", "t10k"] {
        let images: Vec<u8> = [2051u32, 10, 28, 28]
            .into_iter()
            .flat_map(u32::to_be_bytes)
            .chain((0..10 * 784).map(|i| (i % 251) as u8))
            .collect();
        let labels: Vec<u8> = [2049u32, 10]
            .into_iter()
            .flat_map(u32::to_be_bytes)
            .chain(0..10)
            .collect();
        fs::write(folder.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
}

#[test]
fn studies_of_the_repository_expand() {
    let dir = tempfile::tempdir().unwrap();
    small_fashion(&dir.path().join("fashion"));
    for (name, first, count) in [
        ("digits.toml", ["base", "patch-size-1", "patch-size-4"], 12),
        (
            "fashion.toml",
            ["base", "patch-size-7", "patch-size-14"],
            11,
        ),
    ] {
        // Where its data are is the reader's; here they are small ones.
        let text = fs::read_to_string(smoke().with_file_name(name)).unwrap();
        let text = text.replace("/usr/share/datasets/fashion-mnist", "fashion");
        fs::write(dir.path().join(name), text).unwrap();
        let output = dis(dir.path(), &["study", name, "--list"]);
        let names = String::from_utf8(output.stdout).unwrap();
        let names: Vec<&str> = names.lines().collect();
        assert_eq!(names[..3], first);
        assert_eq!(names.len(), count);
    }
}

/// A variant that diverges, and one whose settings make no model, leave the others alone.
#[test]
fn obstacles_of_one_variant_are_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let study = |axis: &str| {
        format!(
            r#"
            title = "Obstacles"
            seeds = [0]
            [evaluate]
            every = 6
            samples = 10
            reference_limit = 50
            steps = 2
            [base.model]
            patch_size = 4
            embed_dim = 16
            depth = 2
            [base.data]
            spec = "digits-train"
            [base.train]
            steps = 6
            batch_size = 8
            log_every = 1
            warmup_steps = 0
            sample_every = 0
            max_grad_norm = 0.0
            [[axis]]
            name = "axis"
            {axis}
            "#
        )
    };
    let rates = "key = \"train.lr\"\nvalues = [1e-3, 1000.0, 2e-3]";
    fs::write(at.join("rates.toml"), study(rates)).unwrap();
    succeed(at, &["study", "rates.toml", "--out", "rates"]);
    let report = fs::read_to_string(at.join("rates/REPORT.md")).unwrap();
    for part in [
        "3 of 4 runs",
        "| 1000.0 | 0, 1 diverged |",
        "## Runs without a result",
        "| axis-1000.0 | 0 | diverged | rates/runs/axis-1000.0/seed-0: ",
    ] {
        assert!(report.contains(part), "no {part:?} in {report}");
    }
    assert!(
        at.join("rates/runs/axis-0.002/seed-0/eval/step-00000006.json")
            .exists()
    );
    // Again: it is not tried again, and the report is the same.
    fs::remove_dir_all(at.join("rates/runs/axis-1000.0/seed-0/checkpoints")).unwrap();
    succeed(at, &["study", "rates.toml", "--out", "rates"]);
    assert!(
        !at.join("rates/runs/axis-1000.0/seed-0/checkpoints")
            .exists()
    );
    assert_eq!(
        fs::read_to_string(at.join("rates/REPORT.md")).unwrap(),
        report
    );

    let patches = "key = \"model.patch_size\"\nvalues = [3, 4]";
    fs::write(at.join("patches.toml"), study(patches)).unwrap();
    let args = ["study", "patches.toml", "--out", "patches"];
    fail(at, &args, &["1 of 2 runs failed", "axis-3", "patch_size"]);
    let report = fs::read_to_string(at.join("patches/REPORT.md")).unwrap();
    assert!(report.contains("1 of 2 runs") && report.contains("| axis-3 | 0 | failed |"));
    assert!(report.contains("| 3 | 0 | "), "{report}");
    fail(
        at,
        &["study", "patches.toml", "--list"],
        &["axis-3", "patch_size"],
    );
}
