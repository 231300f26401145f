//! Sampling and inspecting from the command line.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{class_folders, fail, names, short_run, succeed, workplace};

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

/// A folder holds the pictures of one call: more of the same are added, others are refused or replaced.
#[test]
fn a_folder_of_pictures_is_no_mixture() {
    let dir = workplace();
    let at = dir.path();
    let six = [
        "sample", "--num", "6", "--steps", "2", "--seed", "1", "--out", "s",
    ];
    succeed(at, &six);
    let first = names(&at.join("s"));
    assert_eq!(first.len(), 6);
    let bytes = |name: &String| fs::read(at.join("s").join(name)).unwrap();
    let before: Vec<Vec<u8>> = first.iter().map(bytes).collect();
    let three = [
        "sample",
        "--num",
        "3",
        "--classes",
        "7",
        "--steps",
        "2",
        "--seed",
        "2",
    ];
    let three = [&three[..], &["--out", "s"]].concat();
    fail(
        at,
        &three,
        &["--seed: 1 then, --seed: 2 now", "--overwrite"],
    );
    // What is missing is drawn, whatever the batches.
    for name in [&first[1], &first[4]] {
        fs::remove_file(at.join("s").join(name)).unwrap();
    }
    fs::write(at.join("s").join(&first[0]), "kept").unwrap();
    succeed(
        at,
        &[&six[..], &["--batch-size", "1", "--threads", "1"]].concat(),
    );
    assert_eq!(names(&at.join("s")), first);
    assert_eq!(bytes(&first[0]), b"kept");
    assert!(first[1..].iter().map(bytes).eq(before[1..].iter().cloned()));
    fs::write(at.join("s/notes.txt"), "mine").unwrap();
    succeed(at, &[&three[..], &["--overwrite"]].concat());
    assert_eq!(names(&at.join("s")).len(), 3 + 1);
    fs::create_dir(at.join("photos")).unwrap();
    fs::write(at.join("photos/000000.png"), "mine").unwrap();
    let there = ["sample", "--num", "1", "--steps", "2", "--out", "photos"];
    fail(at, &there, &["photos", "not empty", "--overwrite"]);
    assert_eq!(names(&at.join("photos")), ["000000.png"]);
}

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
            &[
                "sample",
                "--init-image",
                "a.png",
                "--mask",
                "m.png",
                "--out",
                "m.png",
            ],
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
            &[
                "eval",
                "--reference",
                "digits",
                "--json",
                "j",
                "--save-statistics",
                "j",
            ],
            ["--json", "--save-statistics"],
        ),
        (
            &[
                "eval",
                "--bpd",
                "--reference",
                "digits",
                "--json",
                "j",
                "--plot",
                "./j",
            ],
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
    let eval = [
        "eval",
        "digits",
        "--reference",
        "digits",
        "--features",
        "onnx:x.onnx",
    ];
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

/// Classes of the images in an npz, counted.
fn counts(file: &Path, classes: usize) -> Vec<usize> {
    let data = dis_data::open_npz(file).unwrap();
    let mut counts = vec![0; classes];
    for &label in data.labels().unwrap() {
        counts[label as usize] += 1;
    }
    counts
}

#[test]
fn any_number_of_images_is_divided_over_all_classes() {
    let dir = workplace();
    let at = dir.path();
    let draw = |num: &str| {
        succeed(
            at,
            &["sample", "--steps", "1", "--num", num, "--out", "a.npz"],
        );
        counts(&at.join("a.npz"), 10)
    };
    assert_eq!(draw("12"), [2, 2, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(draw("19"), [2, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
    // Fewer images than classes are spread over them.
    assert_eq!(draw("4"), [1, 0, 1, 0, 0, 1, 0, 1, 0, 0]);
    // Rows from noise to noise take turns.
    let walk = ["sample", "--interpolate", "noise", "--frames", "2"];
    let more = ["--num", "8", "--steps", "1", "--out", "a.npz"];
    succeed(at, &[&walk[..], &more].concat());
    assert_eq!(
        counts(&at.join("a.npz"), 10),
        [2, 0, 2, 0, 0, 2, 0, 2, 0, 0]
    );
}

#[test]
fn given_pictures_and_classes_each_get_their_share() {
    let dir = workplace();
    let at = dir.path();
    fs::create_dir(at.join("five")).unwrap();
    for i in 0..5u8 {
        let flat = image::GrayImage::from_pixel(8, 8, image::Luma([60 * i]));
        flat.save(at.join(format!("five/{i}.png"))).unwrap();
    }
    let draw = |num: &str, out: &str| -> Vec<(usize, String)> {
        let base = ["sample", "--init-image", "five", "--strength", "0.05"];
        let more = ["--classes", "3,5,7", "--steps", "20", "--num", num];
        succeed(at, &[&base[..], &more, &["--out", out]].concat());
        let drawn = names(&at.join(out)).into_iter().map(|name| {
            let image = image::open(at.join(out).join(&name)).unwrap().into_luma8();
            let mean = image.iter().map(|&v| u32::from(v)).sum::<u32>() / 64;
            let class = name.split("class").nth(1).unwrap().replace(".png", "");
            (((mean + 30) / 60) as usize, class)
        });
        drawn.collect()
    };
    let of = |pairs: &[(usize, &str)]| -> Vec<(usize, String)> {
        pairs.iter().map(|&(i, c)| (i, c.to_owned())).collect()
    };
    assert_eq!(draw("3", "a"), of(&[(0, "3"), (1, "5"), (2, "7")]));
    assert_eq!(
        draw("7", "b"),
        of(&[
            (0, "3"),
            (0, "5"),
            (1, "3"),
            (1, "7"),
            (2, "5"),
            (3, "7"),
            (4, "3")
        ])
    );
    // As many as there are of both: every picture under every class.
    let all = draw("15", "c");
    let expected = (0..5).flat_map(|i| ["3", "5", "7"].map(|c| (i, c.to_owned())));
    assert_eq!(all, expected.collect::<Vec<_>>());
}

#[test]
fn classes_go_by_their_names() {
    let dir = workplace();
    let at = dir.path();
    let grey = [9; 3];
    class_folders(
        &at.join("numbers"),
        &[("1", grey, 2), ("2", grey, 2), ("10", grey, 2)],
    );
    short_run(at, "numbers,size=8", "numbered");
    let sample = |run: &str, more: &[&str]| -> Vec<String> {
        let base = ["sample", "--checkpoint", run, "--steps", "1", "--out", "x"];
        let _ = fs::remove_dir_all(at.join("x"));
        succeed(at, &[&base[..], more].concat());
        names(&at.join("x"))
    };
    let ten = sample("numbered", &["--classes", "10", "--num", "1"]);
    assert_eq!(ten, ["000000-class10.png"]);
    assert_eq!(
        sample("numbered", &["--num", "3"]),
        [
            "000000-class1.png",
            "000001-class10.png",
            "000002-class2.png"
        ]
    );
    let refuse = |run: &str, list: &str, words: &[&str]| {
        let args = ["sample", "--checkpoint", run, "--classes", list];
        fail(at, &args, words);
    };
    refuse(
        "numbered",
        "0",
        &["--classes", "no class \"0\"", "\"1\", \"10\", \"2\""],
    );

    class_folders(
        &at.join("pets"),
        &[("cat, tabby", grey, 2), ("dog", grey, 2)],
    );
    short_run(at, "pets,size=8", "pets-run");
    let both = ["000000-classcat, tabby.png", "000001-classdog.png"];
    for list in ["cat, tabby,dog", "\"cat, tabby\", dog", "0,1"] {
        assert_eq!(sample("pets-run", &["--classes", list, "--num", "2"]), both);
    }
    let twice = ["--classes", "cat, tabby", "--classes", "dog"];
    assert_eq!(
        sample("pets-run", &[&twice[..], &["--num", "2"]].concat()),
        both
    );
    refuse("pets-run", "cat", &["\"cat, tabby\", \"dog\""]);
}

#[test]
fn classes_without_images_are_drawn_only_when_asked_for() {
    let dir = workplace();
    let at = dir.path();
    short_run(at, "digits-train", "run");
    let file = at.join("run/checkpoints/step-00000002/ema.safetensors");
    let mut checkpoint = dis_model::Checkpoint::load(&file, &Default::default()).unwrap();
    let extra = &mut checkpoint.metadata.extra;
    extra.insert("unoccupied_classes".into(), serde_json::json!([0, 4]));
    checkpoint.save(&at.join("gaps.safetensors")).unwrap();
    let base = ["sample", "--checkpoint", "gaps.safetensors", "--steps", "1"];
    let draw = |more: &[&str]| {
        let args = [&base[..], more, &["--out", "a.npz"]].concat();
        let output = common::dis(at, &args);
        assert!(output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (counts(&at.join("a.npz"), 10), said)
    };
    let (counts, said) = draw(&["--num", "9"]);
    assert_eq!(counts, [0, 2, 1, 1, 0, 1, 1, 1, 1, 1]);
    assert!(!said.contains("warning"), "{said}");
    let (counts, said) = draw(&["--num", "4", "--classes", "4,5"]);
    assert_eq!(counts, [0, 0, 0, 0, 2, 2, 0, 0, 0, 0]);
    assert!(
        said.contains("warning") && said.contains("no image of class 4"),
        "{said}"
    );
    let judge = [
        "eval",
        "gaps.safetensors",
        "--reference",
        "digits",
        "--steps",
        "1",
    ];
    let more = ["--num", "6", "--metrics", "fid", "--bootstrap", "0"];
    let said = succeed(at, &[&judge[..], &more].concat());
    assert!(said.contains("6 of the model's 8 classes"), "{said}");
}
