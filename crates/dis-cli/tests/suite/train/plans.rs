//! Runs that are planned from the data and a time.

use std::fs;
use std::path::Path;

use crate::common::{class_folders, command, dis, fail, succeed, words, workplace};

/// Two classes of 60 pictures of 8 x 8.
fn pictures(at: &Path) {
    let (red, blue) = ([200, 20, 20], [20, 20, 200]);
    class_folders(
        &at.join("photos"),
        &[("red & warm", red, 60), ("blue", blue, 60)],
    );
}

/// What a plan says on standard error.
fn said(at: &Path, line: &str) -> (String, String) {
    let output = dis(at, &words(line));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{line}: {stderr}");
    (text(&output.stdout), stderr)
}

#[test]
fn data_alone_are_enough() {
    let dir = workplace();
    let at = dir.path();
    pictures(at);
    let (_, stderr) = said(at, "train --data photos/ --for 3s --batch-size 4");
    for part in [
        "plan for 3 s",
        "tokens",
        "predicts v, cosine",
        "learning rate",
        "held out",
        "ends",
        "120 images",
    ] {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
    let run = at.join("runs/photos");
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(
        config.contains("for = \"3s\"") && config.contains("held_out = 6"),
        "{config}"
    );
    // The file is an ordinary one, and what it says can be drawn from.
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines
            .iter()
            .all(|line| line["time"].is_number() && line["seconds"].is_number())
    );
    let looks: Vec<_> = lines
        .iter()
        .filter(|line| line["grid"].is_string())
        .collect();
    let last = looks.last().unwrap();
    assert!(last["validation_loss"].is_number(), "{last}");
    let grid = run.join(last["grid"].as_str().unwrap());
    assert!(grid.is_file());
    // A grid never comes before the checkpoint of its step.
    let step = last["step"].as_u64().unwrap();
    assert!(
        run.join(format!("checkpoints/step-{step:08}/manifest.json"))
            .is_file()
    );
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    for part in [
        "data:image/png;base64,",
        "<svg",
        "dis train --resume",
        "for = ",
    ] {
        assert!(report.contains(part), "no {part:?} in the report");
    }
    assert!(!report.contains("<script") && !report.contains("src=\"http"));
    fail(
        at,
        &words("train --data photos/ --for 3s"),
        &["runs/photos", "--resume"],
    );
    let (stdout, _) = said(at, "train --resume runs/photos");
    assert!(stdout.contains("nothing to do"), "{stdout}");
    succeed(
        at,
        &words("sample --checkpoint runs/photos --steps 2 --num 2 --out x.png"),
    );
}

#[test]
fn what_is_said_goes_before_the_plan() {
    let dir = workplace();
    let at = dir.path();
    pictures(at);
    let shown = |line: &str| said(at, &format!("{line} --print-config")).0;
    let plan = shown("train --data digits --steps 50 --batch-size 8 --lr 0.25 --seed 7");
    for part in [
        "steps = 50",
        "batch_size = 8",
        "lr = 0.25",
        "seed = 7",
        "prediction = \"v\"",
    ] {
        assert!(plan.contains(part), "no {part:?} in {plan}");
    }
    assert!(!plan.contains("for = "));
    // What is printed is a configuration that trains as it is.
    fs::write(at.join("plan.toml"), &plan).unwrap();
    let args = words("train --config plan.toml --steps 2 --out planned");
    assert!(succeed(at, &args).contains("trained 2 steps"));
    // Parts of a file, with and without data.
    fs::write(
        at.join("part.toml"),
        "[model]\nembed_dim = 24\npatch_size = 4\ndepth = 2\n",
    )
    .unwrap();
    let plan = shown("train --config part.toml --data digits --for 5s --batch-size 4");
    for part in ["embed_dim = 24", "depth = 2", "for = \"5s\"", "ema_share"] {
        assert!(plan.contains(part), "no {part:?} in {plan}");
    }
    fail(
        at,
        &words("train --config part.toml"),
        &["part.toml has no [data]", "--data"],
    );
    fs::write(
        at.join("whole.toml"),
        "[model]\npatch_size = 4\nembed_dim = 16\ndepth = 2\n[train]\nsteps = 2\n",
    )
    .unwrap();
    let args = words("train --config whole.toml --data digits --out whole");
    assert!(succeed(at, &args).contains("trained 2 steps"));
    let preset = shown("train --preset digits --for 5s --lr 0.01");
    assert!(
        preset.contains("batch_size = 128") && preset.contains("for = \"5s\""),
        "{preset}"
    );
    let preset = shown("train --preset digits");
    assert!(
        preset.contains("steps = 5000") && preset.contains("num_classes = 10"),
        "{preset}"
    );
    assert!(!at.join("runs").exists());
}

#[test]
fn mistakes_come_before_anything_else() {
    let dir = workplace();
    let at = dir.path();
    // The data are not looked at: there are none.
    fs::write(
        at.join("bad.toml"),
        "[train]\nlr = 1e-3\n\n[model]\nembed_dmi = 16\n",
    )
    .unwrap();
    let args = words("train --config bad.toml --data nowhere");
    fail(at, &args, &["bad.toml", "line 5", "embed_dmi"]);
    fail(
        at,
        &["train"],
        &["--data photos/", "--preset digits", "--resume"],
    );
    for bad in ["0s", "5", "1x", "20 minutes"] {
        let mut command = command(at, &["train", "--data", "digits", "--for", bad]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("--for"));
    }
}
