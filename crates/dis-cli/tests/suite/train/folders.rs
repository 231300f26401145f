//! Runs on folders of pictures: looked at before they begin, and continued wherever the pictures are.

use std::fs;
use std::path::Path;

use crate::common::{command, dis, names, newest, words};

const TINY: &str = r#"
[model]
patch_size = 4
embed_dim = 16
depth = 2

[data]
spec = "digits"

[train]
steps = 4
batch_size = 4
warmup_steps = 1
log_every = 1
checkpoint_every = 2
sample_every = 0
"#;

/// These arguments, on one thread: the tests of a file run at once.
fn alone<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &["--threads", "1"]].concat()
}

fn succeed(at: &Path, args: &[&str]) -> String {
    crate::common::succeed(at, &alone(args))
}

fn fail(at: &Path, args: &[&str], words: &[&str]) {
    crate::common::fail(at, &alone(args), words);
}

/// A grey picture of 9 x 8; files of all levels and numbers have the same size.
fn picture(path: &Path, number: u8, level: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixel = |x: u32, y: u32| image::Luma([(x * y) as u8 ^ number.wrapping_mul(37) ^ level]);
    let picture = image::GrayImage::from_fn(9, 8, pixel);
    let file = fs::File::create(path).unwrap();
    let (plain, none) = (
        image::codecs::png::CompressionType::Uncompressed,
        image::codecs::png::FilterType::NoFilter,
    );
    let encoder = image::codecs::png::PngEncoder::new_with_quality(file, plain, none);
    picture.write_with_encoder(encoder).unwrap();
}

/// A directory with a configuration and pictures in it.
fn with_pictures(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tiny.toml"), TINY).unwrap();
    for (i, file) in files.iter().enumerate() {
        picture(&dir.path().join(file), i as u8, 0);
    }
    dir
}

const FLAT: [&str; 6] = [
    "photos/1.png",
    "photos/2.png",
    "photos/3.png",
    "photos/4.png",
    "photos/5.png",
    "photos/6.png",
];

fn train(at: &Path, data: &str, out: &str) {
    let config = at.join("tiny.toml");
    let config = config.to_str().unwrap();
    let args = ["train", "--config", config, "--data", data, "--out", out];
    succeed(at, &args);
}

fn cut(path: &Path) -> Vec<u8> {
    let whole = fs::read(path).unwrap();
    fs::write(path, &whole[..whole.len() - 30]).unwrap();
    whole
}

fn manifest(run: &Path) -> serde_json::Value {
    let files = newest(run);
    let (_, text) = files.iter().find(|(n, _)| n == "manifest.json").unwrap();
    serde_json::from_slice(text).unwrap()
}

#[test]
fn bad_pictures_are_found_before_the_first_step_and_can_be_repaired() {
    let dir = with_pictures(&FLAT);
    let at = dir.path();
    let bad = [at.join("photos/2.png"), at.join("photos/5.png")];
    let whole: Vec<_> = bad.iter().map(|path| cut(path)).collect();
    let start = words("train --config tiny.toml --data photos,size=8 --out run");
    fail(
        at,
        &start,
        &["2 of 6 pictures", "2.png", "5.png", "--skip-bad"],
    );
    assert!(
        !at.join("run").exists(),
        "nothing is left of a run that never began"
    );

    // Without them, as often as wanted, and whether or not they are repaired.
    succeed(at, &[&start[..], &["--skip-bad"]].concat());
    let config = fs::read_to_string(at.join("run/config.toml")).unwrap();
    assert!(
        config.contains("2.png") && config.contains("5.png"),
        "{config}"
    );
    succeed(at, &["train", "--resume", "run", "--steps", "6"]);
    for (path, whole) in bad.iter().zip(&whole) {
        fs::write(path, whole).unwrap();
    }
    succeed(at, &["train", "--resume", "run", "--steps", "8"]);
    let data = manifest(&at.join("run"))["data"].to_string();
    assert!(data.contains("n=4"), "{data}");

    // A picture that goes bad later is named, and repaired it is what it was.
    train(at, "photos,size=8", "other");
    train(at, "photos,size=8", "same");
    let path = at.join("photos/3.png");
    let whole = cut(&path);
    let resume = ["train", "--resume", "other", "--steps", "8"];
    fail(at, &resume, &["3.png"]);
    fs::write(&path, whole).unwrap();
    succeed(at, &resume);
    succeed(at, &["train", "--resume", "same", "--steps", "8"]);
    assert!(newest(&at.join("other")) == newest(&at.join("same")));
}

#[test]
fn data_may_move_but_not_change() {
    let dir = with_pictures(&FLAT);
    let at = dir.path();
    train(at, "photos,size=8,flip", "run");
    train(at, "photos,size=8,flip", "same");
    let elsewhere = tempfile::tempdir().unwrap();
    let run = at.join("run");
    let resume = ["train", "--resume", run.to_str().unwrap(), "--steps"];
    succeed(elsewhere.path(), &[&resume[..], &["6"]].concat());

    fs::rename(at.join("photos"), at.join("moved")).unwrap();
    let gone = [&resume[..], &["8"]].concat();
    fail(at, &gone, &["run/config.toml", "photos", "--data"]);
    // Options that are not said are those of the run.
    succeed(at, &[&gone[..], &["--data", "moved"]].concat());
    let config = fs::read_to_string(at.join("run/config.toml")).unwrap();
    assert!(config.contains("moved,size=8,flip"), "{config}");
    for steps in ["6", "8"] {
        succeed(
            at,
            &[
                "train", "--resume", "same", "--steps", steps, "--data", "moved",
            ],
        );
    }
    assert!(newest(&run) == newest(&at.join("same")));

    // Another picture of equal size in bytes, under the same name.
    let size = || fs::metadata(at.join("moved/4.png")).unwrap().len();
    let before = size();
    picture(&at.join("moved/4.png"), 3, 99);
    assert_eq!(size(), before);
    let on = [&resume[..], &["10"]].concat();
    fail(at, &on, &["data have changed", "--accept-changed-data"]);
    succeed(at, &[&on[..], &["--accept-changed-data"]].concat());
    succeed(at, &[&resume[..], &["12"]].concat());
    let changes = &manifest(&run)["data_changes"];
    assert_eq!(changes.as_array().map(Vec::len), Some(1));
    assert_eq!(changes[0]["step"], 8);
    assert_eq!(changes[0]["now"], manifest(&run)["data"]);
    fail(
        at,
        &["train", "--accept-changed-data", "--preset", "digits"],
        &["--resume"],
    );
}

#[test]
fn runs_lie_inside_their_data() {
    let classes = with_pictures(&["photos/a/1.png", "photos/a/2.png", "photos/b/1.png"]);
    let flat = with_pictures(&FLAT);
    for dir in [&classes, &flat] {
        let at = dir.path().join("photos");
        let config = ["train", "--config", "../tiny.toml", "--data", ".,size=8"];
        succeed(&at, &config);
        let drawn = words("sample --checkpoint runs/tiny --num 3 --steps 2");
        succeed(&at, &drawn);
        succeed(&at, &[&drawn[..], &["--out", "more"]].concat());
        succeed(&at, &["train", "--resume", "runs/tiny", "--steps", "6"]);
        succeed(&at, &[&config[..], &["--out", "deep/er/run"]].concat());
        let output = dis(&at, &["train", "--resume", "deep/er/run", "--steps", "6"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("2 runs and 4 pictures that dis drew are left out"),
            "{said}"
        );
        assert!(newest(&at.join("runs/tiny")) == newest(&at.join("deep/er/run")));
    }
}

#[test]
fn a_survey_counts_and_names() {
    let dir = with_pictures(&["photos/a/1.png", "photos/a/2.png", "photos/b/1.png"]);
    let at = dir.path();
    fs::write(at.join("photos/b/notes.txt"), "").unwrap();
    let text = succeed(at, &["data", "photos"]);
    for part in ["3 pictures, 2 classes", "  a  ", "9x8", ".dis-index.json"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let survey = |args: &[&str]| -> (serde_json::Value, bool) {
        let output = dis(at, &[&["data", "photos", "--json"], args].concat());
        (
            serde_json::from_slice(&output.stdout).unwrap(),
            output.status.success(),
        )
    };
    let (good, success) = survey(&[]);
    assert!(success);
    assert_eq!(
        (&good["images"], &good["left_out"]["other_files"]),
        (&3.into(), &1.into())
    );
    assert_eq!(good["bad"].as_array().map(Vec::len), Some(0));
    cut(&at.join("photos/b/1.png"));
    let (bad, success) = survey(&[]);
    assert!(!success);
    assert_eq!(bad["bad"][0]["file"], "b/1.png");
    assert_eq!(
        bad["classes"][1],
        serde_json::json!({ "name": "b", "images": 0 })
    );
    assert_ne!(bad["identity"], good["identity"]);
    assert!(survey(&["--skip-bad"]).1);
    // Classes of other kinds too, also those without images.
    let digits = succeed(at, &["data", "digits-held-out"]);
    assert!(
        digits.contains("297 images") && digits.contains("  9  "),
        "{digits}"
    );
    fail(at, &["data", "nowhere"], &["nowhere"]);
}

#[test]
fn an_index_that_cannot_lie_in_the_folder_lies_in_the_cache() {
    let dir = with_pictures(&["photos/1.png", "photos/2.png"]);
    let at = dir.path();
    // Stands for a folder that cannot be written, also for root.
    fs::create_dir(at.join("photos/.dis-index.json")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(80));
    for read in [2, 0] {
        let mut command = command(at, &["data", "photos", "--json"]);
        let output = command
            .env("XDG_CACHE_HOME", at.join("cache"))
            .output()
            .unwrap();
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["files_read"], read);
    }
    let kept = names(&at.join("cache/dis"));
    assert!(kept.len() == 1 && kept[0].starts_with("index-"), "{kept:?}");
}
