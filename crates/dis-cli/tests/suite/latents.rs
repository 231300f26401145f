//! Encoding, training on latents, and pictures of what comes out.

use std::fs;
use std::path::Path;

use crate::common::{self, fail, succeed, words, workplace};

/// A tiny autoencoder: one latent for 2 x 2 pixels.
const VAE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/golden/vae_tiny_2level"
);

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| {
            let e = e.unwrap();
            let name = e.file_name().to_string_lossy().into_owned();
            (name, fs::read(e.path()).unwrap())
        })
        // Records and locks are no outcome.
        .filter(|(name, _)| !name.starts_with('.'))
        .collect();
    files.sort();
    files
}

#[test]
fn encoding_continues_and_depends_on_nothing_but_its_input() {
    let dir = workplace();
    let at = |name: &str| dir.path().join(name);
    let encode = |out: &str, more: &[&str]| {
        let args = ["encode", "digits-held-out", "--vae", VAE, "--out", out];
        let shards = ["--shard-size", "100"];
        [&args[..], &shards[..], more].concat().join("\n")
    };
    let run = |out: &str, more: &[&str]| {
        let args = encode(out, more);
        succeed(dir.path(), &args.split('\n').collect::<Vec<_>>())
    };
    let said = run("a", &["--threads", "1"]);
    assert!(said.contains("297 latents of 4x4x4 in a"), "{said}");
    let whole = files(&at("a"));
    let names: Vec<&str> = whole.iter().map(|(n, _)| n.as_str()).collect();
    let expected = [
        "latents-00000.safetensors",
        "latents-00001.safetensors",
        "latents-00002.safetensors",
        "latents.json",
    ];
    assert_eq!(names, expected);
    run("b", &["--threads", "2", "--batch-size", "7"]);
    assert!(files(&at("b")) == whole);

    // A whole shard is kept, a missing or damaged one is made again.
    let kept = at("b").join(expected[0]);
    let age = || fs::metadata(&kept).unwrap().modified().unwrap();
    let before = age();
    fs::remove_file(at("b").join(expected[1])).unwrap();
    fs::write(at("b").join(expected[2]), "half").unwrap();
    run("b", &[]);
    assert_eq!(age(), before);
    assert!(files(&at("b")) == whole);

    let refused = |more: &[&str], words: &[&str]| {
        let args = encode("b", more);
        fail(dir.path(), &args.split('\n').collect::<Vec<_>>(), words);
    };
    refused(&["--flip"], &["b: holds latents", "--flip"]);
    let other = ["encode", "digits-train", "--vae", VAE, "--out", "b"];
    fail(dir.path(), &other, &["other data"]);
    let none = ["encode", "digits", "--vae", "none", "--out", "c"];
    fail(dir.path(), &none, &["none"]);
    let again = ["encode", "latents:b", "--vae", VAE, "--out", "c"];
    fail(dir.path(), &again, &["latents already"]);
}

#[test]
fn a_model_of_latents_is_trained_and_makes_pictures() {
    let dir = workplace();
    let run = |args: &str| succeed(dir.path(), &args.split(' ').collect::<Vec<_>>());
    run(&format!(
        "encode digits-train,flip --vae {VAE} --out latents"
    ));
    let tiny = fs::read_to_string(dir.path().join("tiny.toml")).unwrap();
    let tiny = tiny
        .replace("patch_size = 4", "patch_size = 2")
        .replace("sample_every = 0", "sample_every = 30");
    fs::write(dir.path().join("tiny.toml"), tiny).unwrap();
    run("train --config tiny.toml --data latents,flip --out run");
    assert!(dir.path().join("run/samples/step-00000030.png").is_file());

    // From an older checkpoint it arrives at the same: the latents drawn are the same.
    let run_dir = dir.path().join("run");
    let whole = common::newest(&run_dir);
    for step in [28, 30] {
        let name = format!("checkpoints/step-{step:08}");
        fs::remove_dir_all(run_dir.join(name)).unwrap();
    }
    run("train --resume run");
    assert!(common::newest(&run_dir) == whole);
    let (_, weights) = &whole.iter().find(|(n, _)| n.contains("weights")).unwrap();
    let text = String::from_utf8_lossy(weights);
    assert!(text.contains("latent_scale") && text.contains("0.18215"));
    assert!(text.contains("autoencoder") && !text.contains("max_level"));

    fail(
        dir.path(),
        &["sample", "--checkpoint", "run"],
        &["model of latents", "--vae"],
    );
    let draw = |out: &str, more: &str| {
        run(&format!(
            "sample --checkpoint run --vae {VAE} --num 3 --steps 5 --out {out}{more}"
        ))
    };
    draw("whole", "");
    draw("tiles", " --vae-tile 4 --threads 1 --batch-size 2");
    let whole = files(&dir.path().join("whole"));
    assert_eq!(whole.len(), 3);
    // Latents of 4 x 4 fit in a tile of 4.
    let pixels = |files: &[(String, Vec<u8>)]| -> Vec<_> {
        let decoded = files
            .iter()
            .map(|(_, bytes)| image::load_from_memory(bytes));
        decoded.map(Result::unwrap).collect()
    };
    let tiles = files(&dir.path().join("tiles"));
    assert!(pixels(&tiles) == pixels(&whole));
    let picture = image::load_from_memory(&whole[0].1).unwrap();
    assert_eq!((picture.width(), picture.height()), (8, 8));
    assert_eq!(picture.color(), image::ColorType::Rgb8);

    fail(
        dir.path(),
        &["sample", "--vae", VAE, "--num", "1"],
        &["4 channels", "draws 1"],
    );
}

#[test]
fn shards_of_pictures_that_stay_are_kept() {
    let dir = workplace();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("photos")).unwrap();
    let draw = |i: u8, level: u8| {
        let picture = dis_data::crop::Picture {
            height: 8,
            width: 8,
            channels: 1,
            bytes: (0..64u8).map(|j| j.wrapping_mul(i) ^ level).collect(),
        };
        let path = at(&format!("photos/{i}.png"));
        dis_data::grid::write_unmarked_png(&path, &picture).unwrap();
    };
    (0..10).for_each(|i| draw(i, 0));
    let args = [
        "encode", "photos", "--size", "8", "--vae", VAE, "--out", "l",
    ];
    let args = [&args[..], &["--shard-size", "4", "--threads", "1"]].concat();
    let whole = fs::read(at("photos/8.png")).unwrap();
    fs::write(at("photos/8.png"), &whole[..50]).unwrap();
    fail(
        dir.path(),
        &args,
        &["1 of 10 pictures", "8.png", "--skip-bad"],
    );
    succeed(dir.path(), &[&args[..], &["--skip-bad"]].concat());
    let index = || fs::read_to_string(at("l/latents.json")).unwrap();
    assert!(index().contains("\"8.png\""), "{}", index());

    // The repaired picture belongs to the last shard; the others stay the files that they were.
    let age = |i: usize| {
        let shard = at("l").join(format!("latents-0000{i}.safetensors"));
        fs::metadata(shard).unwrap().modified().unwrap()
    };
    let ages = || [age(0), age(1), age(2)];
    let before = ages();
    fs::write(at("photos/8.png"), &whole).unwrap();
    let said = succeed(dir.path(), &args);
    assert!(said.contains("10 latents"), "{said}");
    let after = ages();
    assert_eq!(after[..2], before[..2]);
    assert_ne!(after[2], before[2]);
    assert!(!index().contains("8.png"));
    draw(1, 7);
    succeed(dir.path(), &args);
    assert_ne!(age(0), after[0]);
    assert_eq!([age(1), age(2)], after[1..]);

    // Of the old pictures nothing is left.
    (0..10).for_each(|i| draw(i, 99));
    fail(dir.path(), &args, &["other data", "--accept-changed-data"]);
    succeed(
        dir.path(),
        &[&args[..], &["--accept-changed-data"]].concat(),
    );
    // A shard that was damaged is named before it is trained on.
    let shard = at("l/latents-00001.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shard, bytes).unwrap();
    let train = words("train --config tiny.toml --data l --out run");
    fail(
        dir.path(),
        &train,
        &["1 of 3 shards", "latents-00001.safetensors"],
    );
    let text = succeed(dir.path(), &[&["data", "l"][..], &["--skip-bad"]].concat());
    assert!(text.contains("latents-00001.safetensors"), "{text}");
}
