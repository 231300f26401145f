//! Training from the command line: exact resume, threads, overrides.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "train/folders.rs"]
mod folders;
#[path = "train/pictures.rs"]
mod pictures;
#[path = "train/rectangles.rs"]
mod rectangles;
#[path = "train/transfer.rs"]
mod transfer;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    all_names, class_folders, command, dis, fail, names, newest, short_run, succeed, workplace,
};

const TRAIN: [&str; 3] = ["train", "--config", "tiny.toml"];

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    TRAIN.iter().chain(more).copied().collect()
}

#[test]
fn killed_at_any_moment_and_resumed_gives_the_same_bytes() {
    let dir = workplace();
    let at = dir.path();
    succeed(at, &train(&["--out", "whole"]));
    let whole = newest(&at.join("whole"));
    assert_eq!(whole.len(), 5);

    // Killed three times, each time a little later; the first kill may come before any checkpoint.
    let mut child = command(at, &train(&["--out", "cut"])).spawn().unwrap();
    let mut seen = 0;
    for (kill, wanted) in [(0, 0), (1, 1), (2, 2)] {
        let deadline = Instant::now() + Duration::from_secs(60);
        // Waits until the run has its directory, then for one more checkpoint each time.
        let reached = |seen: &mut usize| {
            let folder = at.join("cut/checkpoints");
            let count = fs::read_dir(folder).map_or(0, |d| d.count());
            *seen = count.max(*seen);
            at.join("cut/config.toml").exists() && count >= wanted
        };
        while !reached(&mut seen)
            && Instant::now() < deadline
            && child.try_wait().unwrap().is_none()
        {
            thread::sleep(Duration::from_millis(2));
        }
        thread::sleep(Duration::from_millis(3 * kill));
        let _ = child.kill();
        child.wait().unwrap();
        child = command(at, &["train", "--resume", "cut"]).spawn().unwrap();
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(newest(&at.join("cut")), whole);
    assert!(
        !all_names(&at.join("cut/checkpoints"))
            .iter()
            .any(|n| n.starts_with(".tmp"))
    );
    // Every logged step is there once.
    let log = fs::read_to_string(at.join("cut/metrics.jsonl")).unwrap();
    let steps: Vec<u64> = log
        .lines()
        .map(|l| {
            serde_json::from_str::<serde_json::Value>(l).unwrap()["step"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(steps, [5, 10, 15, 20, 25, 30]);
}

#[test]
fn threads_and_recompute_do_not_change_the_weights() {
    let dir = workplace();
    let at = dir.path();
    let short = ["--steps", "6", "--out"];
    let run = |name, more: &[&str]| {
        let args: Vec<&str> = train(&short)
            .into_iter()
            .chain([name])
            .chain(more.iter().copied())
            .collect();
        succeed(at, &args);
        newest(&at.join(name))
    };
    let one = run("one", &["--threads", "1"]);
    assert_eq!(run("two", &["--threads", "2"]), one);
    assert_eq!(run("three", &["--threads", "3", "--recompute"]), one);
    assert_ne!(run("other", &["--seed", "1"]), one);
}

/// Other products, the same for any number of threads, and continued in another precision only with a warning.
#[test]
fn products_may_be_bfloat16() {
    let dir = workplace();
    let at = dir.path();
    succeed(at, &train(&["--steps", "4", "--out", "f32"]));
    let bf16 = |name: &str, threads: &str| {
        let more = ["--steps", "4", "--precision", "bf16", "--threads", threads];
        succeed(at, &[&train(&more)[..], &["--out", name]].concat());
        newest(&at.join(name))
    };
    let one = bf16("one", "1");
    assert_ne!(one, newest(&at.join("f32")));
    assert_eq!(bf16("two", "2"), one);
    let resume = |more: &[&str]| {
        let args = [&["train", "--resume", "one", "--steps"], more].concat();
        let output = dis(at, &args);
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let warning = "computed with";
    assert!(!resume(&["6", "--precision", "bf16"]).contains(warning));
    let said = resume(&["8"]);
    assert!(
        said.contains(warning) && said.contains("bfloat16"),
        "{said}"
    );
    fail(
        at,
        &train(&["--precision", "tf32", "--device", "cpu", "--out", "x"]),
        &["--precision tf32"],
    );
}

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
        &[
            "sample",
            "--checkpoint",
            "run",
            "--num",
            "3",
            "--classes",
            "4",
            "--steps",
            "4",
            "--out",
            "x.png",
        ],
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
        &train(&[
            "--steps",
            "9",
            "--checkpoint-every",
            "2",
            "--keep",
            "2",
            "--out",
            "run",
        ]),
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
    let judge = [
        "--num",
        "4",
        "--steps",
        "1",
        "--reference",
        "digits-held-out",
    ];
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
    let data = [
        "--data",
        "pictures,size=8,grey",
        "--out",
        "run",
        "--steps",
        "5",
    ];
    fail(at, &train(&data), &["broken.png"]);
}

#[test]
fn a_start_from_other_weights_keeps_the_classes_by_name() {
    let dir = workplace();
    let at = dir.path();
    let (red, green, blue) = ([200, 20, 20], [20, 200, 20], [20, 20, 200]);
    let first = [("apple", red, 4), ("leaf", green, 4), ("sea", blue, 4)];
    class_folders(&at.join("first"), &first);
    short_run(at, "first,size=8", "run");
    let config = format!("{}min_lr = 0.0\n", common::TINY);
    fs::write(at.join("still.toml"), config).unwrap();
    let load = |run: &str| {
        let file = at
            .join(run)
            .join("checkpoints/step-00000002/weights.safetensors");
        dis_model::Checkpoint::load(&file, &Default::default()).unwrap()
    };
    let mut checkpoint = load("run");
    let spec = checkpoint.model.table().specs().iter();
    let spec = spec
        .clone()
        .find(|s| s.name.starts_with("label_emb"))
        .unwrap()
        .clone();
    let width = spec.shape[1];
    let rows = |weights: &[f32]| -> Vec<Vec<f32>> {
        let table = &weights[spec.offset..spec.offset + spec.len()];
        table.chunks(width).map(<[f32]>::to_vec).collect()
    };
    let own = rows(&checkpoint.weights);
    // The same weights, said to be of the classes in another order.
    checkpoint.metadata.extra.insert(
        "class_names".into(),
        serde_json::json!(["sea", "apple", "leaf"]),
    );
    checkpoint.save(&at.join("turned.safetensors")).unwrap();
    let start = |from: &'static str, out: &'static str| {
        let base = ["train", "--config", "still.toml", "--data", "first,size=8"];
        // No step that changes anything.
        let more = [
            "--steps",
            "2",
            "--lr",
            "0",
            "--init-from",
            from,
            "--out",
            out,
        ];
        [&base[..], &more].concat()
    };
    succeed(at, &start("turned.safetensors", "second"));
    let turned = rows(&load("second").weights);
    assert_eq!(
        turned[..3],
        [own[1].clone(), own[2].clone(), own[0].clone()]
    );
    assert_eq!(turned[3], own[3], "the null label stays");
    succeed(
        at,
        &start("run/checkpoints/step-00000002/weights.safetensors", "third"),
    );
    assert_eq!(rows(&load("third").weights), own);
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

/// Signals that schedulers send before they kill are as good as Ctrl-C.
#[cfg(unix)]
#[test]
fn a_signal_ends_a_run_with_a_checkpoint() {
    let dir = workplace();
    let at = dir.path();
    for signal in ["-TERM", "-HUP"] {
        let run = format!("run{signal}");
        let args = ["--steps", "2000000", "--checkpoint-every", "1000000"];
        let args = train(&[&args[..], &["--threads", "1", "--out", &run]].concat());
        let mut child = command(at, &args).spawn().unwrap();
        let log = at.join(&run).join("metrics.jsonl");
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs::metadata(&log).map_or(0, |m| m.len()) == 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let pid = child.id().to_string();
        let mut kill = std::process::Command::new("kill");
        assert!(kill.args([signal, &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(names(&at.join(&run).join("checkpoints")).len(), 1);
    }
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
    let args = [
        "train",
        "--config",
        "said.toml",
        "--lr",
        "1e-6",
        "--out",
        "x",
    ];
    fail(at, &args, &["train.min_lr", "train.lr (--lr)"]);
}

/// Of two processes at one run the second is told of the first, and a killed one leaves nothing behind.
#[test]
fn a_run_belongs_to_one_process() {
    let dir = workplace();
    let at = dir.path();
    let args = train(&["--steps", "2000000", "--threads", "1", "--out", "run"]);
    let mut child = command(at, &args).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !at.join("run/checkpoints/step-00000007").exists() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let holder = format!("dis train (process {}", child.id());
    let words = ["run: in use by", &holder];
    fail(at, &["train", "--resume", "run"], &words);
    fail(at, &train(&["--out", "run"]), &words);
    child.kill().unwrap();
    child.wait().unwrap();
    let said = succeed(at, &["train", "--resume", "run", "--steps", "1"]);
    assert!(said.contains("nothing to do"), "{said}");
}

/// Other outputs have locks too.
#[test]
fn an_output_belongs_to_one_process() {
    let dir = workplace();
    let at = dir.path();
    let study = concat!(env!("CARGO_MANIFEST_DIR"), "/../../studies/smoke.toml");
    let vae = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/vae_tiny_2level"
    );
    for args in [
        &["study", study][..],
        &["encode", "digits", "--vae", vae],
        &["sample", "--num", "1", "--steps", "2"],
    ] {
        let lock = dis_files::DirLock::acquire(&at.join("out"), "a test").unwrap();
        let args = [args, &["--out", "out"]].concat();
        fail(at, &args, &["out: in use by a test (process"]);
        drop(lock);
    }
}
