//! Which checkpoints are kept, and which one is taken.

use std::fs;
use std::path::Path;

use super::train;
use crate::common::{dis, fail, names, newest, succeed, words, workplace};

#[test]
fn a_finished_run_can_be_extended_and_sampled() {
    let dir = workplace();
    let at = dir.path();
    succeed(
        at,
        &train(&["--steps", "4", "--sample-every", "2", "--out", "run"]),
    );
    assert_eq!(
        names(&at.join("run/samples")),
        ["step-00000002.png", "step-00000004.png"]
    );
    succeed(at, &["train", "--resume", "run", "--steps", "8"]);
    assert!(names(&at.join("run/checkpoints")).contains(&"step-00000008".to_string()));
    succeed(
        at,
        &words("sample --checkpoint run --num 3 --classes 4 --steps 4 --out x.png"),
    );
    assert!(at.join("x.png").is_file());
    succeed(
        at,
        &train(&["--steps", "2", "--init-from", "run", "--out", "tuned"]),
    );
    let info = succeed(at, &["info", "--checkpoint", "tuned"]);
    assert!(info.contains("parameters"), "{info}");
}

#[test]
fn keep_bounds_the_checkpoints() {
    let dir = workplace();
    let at = dir.path();
    succeed(
        at,
        &train(&words("--steps 9 --checkpoint-every 2 --keep 2 --out run")),
    );
    assert_eq!(
        names(&at.join("run/checkpoints")),
        ["step-00000008", "step-00000009"]
    );
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
    let dir = workplace();
    let at = dir.path();
    succeed(at, &train(&["--steps", "15", "--out", "run"]));
    let whole = newest(&at.join("run"));
    let ema = at.join("run/checkpoints/step-00000015/ema.safetensors");
    let mut bytes = fs::read(&ema).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&ema, bytes).unwrap();
    let output = dis(at, &["train", "--resume", "run"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("warning") && stderr.contains("ema.safetensors"),
        "{stderr}"
    );
    assert!(output.status.success());
    assert_eq!(
        newest(&at.join("run")),
        whole,
        "the damaged checkpoint is replaced"
    );
}

/// Changes a byte in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn every_command_takes_the_newest_whole_checkpoint_that_resume_takes() {
    let dir = workplace();
    let at = dir.path();
    succeed(at, &train(&["--steps", "15", "--out", "run"]));
    let step = |n: u32| at.join(format!("run/checkpoints/step-{n:08}"));
    // What a command takes of the run, told by the bytes that it makes of it.
    let convert = |checkpoint: &str| {
        let output = dis(at, &["convert", checkpoint, "x.safetensors"]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        (stderr, fs::read(at.join("x.safetensors")).unwrap())
    };
    let ema = |n: u32| fs::read(step(n).join("ema.safetensors")).unwrap();
    let (quiet, newest) = convert("run");
    assert!(quiet.is_empty() && newest == ema(15), "{quiet}");

    // A value that differs, even in a file that is not read.
    flip(&step(15).join("adam_m.safetensors"));
    // A directory that a crash left.
    fs::create_dir(step(16)).unwrap();
    let (warned, older) = convert("run");
    assert!(older == ema(14), "{warned}");
    for words in [
        "step-00000016",
        "adam_m.safetensors: does not have the hash",
        "older",
    ] {
        assert!(warned.contains(words), "{warned}");
    }
    let draw = ["--num", "4", "--steps", "1", "--checkpoint", "run"];
    let judge = words("--num 4 --steps 1 --reference digits-held-out");
    for command in [
        [&["sample", "--out", "a.png"], &draw[..]].concat(),
        vec!["info", "--checkpoint", "run"],
        [
            &["eval", "run", "--metrics", "fid", "--bootstrap", "0"],
            &judge[..],
        ]
        .concat(),
    ] {
        let output = dis(at, &command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let warned = stderr.contains("does not have the hash");
        assert!(output.status.success() && warned, "{command:?}: {stderr}");
    }
    let output = dis(at, &["train", "--resume", "run"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("does not have the hash"), "{stderr}");
    let (quiet, again) = convert("run");
    assert!(quiet.is_empty() && again == newest, "{quiet}");

    // A checkpoint that is named is not passed over, and a file of it is warned of.
    flip(&step(15).join("ema.safetensors"));
    let named = "run/checkpoints/step-00000015";
    fail(
        at,
        &["info", "--checkpoint", named],
        &["ema.safetensors", "damaged"],
    );
    let (warned, _) = convert("run/checkpoints/step-00000015/ema.safetensors");
    assert!(warned.contains("does not have the hash"), "{warned}");
    flip(&step(14).join("weights.safetensors"));
    fs::remove_file(step(7).join("adam_v.safetensors")).unwrap();
    fail(
        at,
        &["info", "--checkpoint", "run"],
        &["no checkpoint can be read"],
    );
}

#[test]
fn a_file_says_what_it_holds_and_a_checkpoint_may_be_given() {
    let dir = workplace();
    let at = dir.path();
    succeed(at, &train(&["--steps", "3", "--out", "run"]));
    let step = "run/checkpoints/step-00000003";
    let convert = |input: &str, more: &[&str]| {
        succeed(at, &[&["convert", input, "x.safetensors"], more].concat());
        fs::read(at.join("x.safetensors")).unwrap()
    };
    let file = |name: &str| fs::read(at.join(step).join(format!("{name}.safetensors"))).unwrap();
    assert!(convert(step, &[]) == file("ema"));
    assert!(convert(step, &["--raw"]) == file("weights"));
    assert!(convert("run/checkpoints", &[]) == file("ema"));
    let info = |checkpoint: &str| succeed(at, &["info", "--checkpoint", checkpoint]);
    assert!(info(step).contains("ema") && info("run").contains("ema"));
    let small = ["--num", "1", "--steps", "1", "--out", "a.png"];
    succeed(
        at,
        &[&["sample", "--checkpoint", step], &small[..]].concat(),
    );
    succeed(
        at,
        &[&["sample", "--raw", "--checkpoint", step], &small[..]].concat(),
    );
    succeed(
        at,
        &train(&["--steps", "1", "--init-from", step, "--out", "from"]),
    );

    for (moments, which) in [("adam_m", "first"), ("adam_v", "second")] {
        let path = format!("{step}/{moments}.safetensors");
        // The content says it wherever it lies.
        fs::copy(at.join(&path), at.join("other.safetensors")).unwrap();
        for path in [path.as_str(), "other.safetensors"] {
            let words = [path, which, "moments of the optimizer", "ema.safetensors"];
            fail(
                at,
                &[&["sample", "--checkpoint", path], &small[..]].concat(),
                &words,
            );
            fail(at, &["info", "--checkpoint", path], &words);
            fail(at, &["convert", path, "y.safetensors"], &words);
            fail(
                at,
                &["eval", path, "--reference", "digits-held-out"],
                &words,
            );
            let init = train(&["--init-from", path, "--out", "no"]);
            fail(at, &init, &words);
        }
    }
    // Files that do not say it are judged by their place.
    let mut bytes = file("adam_v");
    let key = br#"\"holds\":\"adam_v\""#;
    let found = bytes.windows(key.len()).position(|w| w == key).unwrap();
    bytes[found + 2..found + 7].copy_from_slice(b"other");
    fs::write(at.join(step).join("adam_v.safetensors"), bytes).unwrap();
    let path = format!("{step}/adam_v.safetensors");
    fail(
        at,
        &["info", "--checkpoint", &path],
        &["second moments of the optimizer"],
    );
}

/// What the last step of a run is, and nothing else.
#[test]
fn a_run_that_is_done_is_left_alone() {
    let dir = workplace();
    let at = dir.path();
    succeed(at, &train(&["--steps", "6", "--out", "run"]));
    let config = fs::read(at.join("run/config.toml")).unwrap();
    let log = fs::read(at.join("run/metrics.jsonl")).unwrap();
    for more in [&[][..], &["--steps", "3"], &["--steps", "6", "--keep", "1"]] {
        let said = succeed(at, &[&["train", "--resume", "run"], more].concat());
        assert_eq!(said.trim(), "nothing to do: step 6 of 6 is done");
        assert_eq!(fs::read(at.join("run/config.toml")).unwrap(), config);
        assert_eq!(fs::read(at.join("run/metrics.jsonl")).unwrap(), log);
    }
    // A run whose every update was left out has no mean loss.
    let args = train(&["--steps", "2", "--lr", "0", "--out", "other"]);
    let said = succeed(at, &args);
    assert!(said.contains("trained 2 steps, mean loss 1."), "{said}");
}
