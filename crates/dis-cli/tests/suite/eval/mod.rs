//! `dis eval` and `dis train-classifier`.

mod features;
mod given;

use std::fs;
use std::path::Path;

use dis_data::{ImageShape, NpzImages};
use dis_tensor::random::{Purpose, Stream};
use serde_json::Value;

use crate::common::{dis, fail, names, succeed, words, workplace};

/// Runs `dis eval` and reads its JSON.
fn eval(at: &Path, args: &[&str]) -> Value {
    let all = [&["eval"], args, &["--json", "e.json", "--bootstrap", "20"]].concat();
    succeed(at, &all);
    serde_json::from_str(&fs::read_to_string(at.join("e.json")).unwrap()).unwrap()
}

fn value(report: &Value, name: &str) -> f64 {
    let figures = report["results"]["figures"].as_array().unwrap();
    let figure = figures.iter().find(|f| f["name"] == name);
    figure.unwrap()["value"].as_f64().unwrap()
}

fn left_out(report: &Value) -> Vec<&str> {
    let all = report["results"]["left_out"].as_array().unwrap();
    all.iter().map(|l| l["metric"].as_str().unwrap()).collect()
}

/// Grey images of 8 x 8 random bytes.
fn noise(path: &Path, count: usize) {
    let shape = ImageShape::from([1, 8, 8]);
    let mut s = Stream::new(0, Purpose::Test, 0, 0);
    let bytes: Vec<u8> = (0..count * 64).map(|_| s.next_u32() as u8).collect();
    let mut images = NpzImages::open(path, shape, count, "noise").unwrap();
    images.append(&bytes).unwrap();
    images.finish(None, &[]).unwrap();
}

/// As the specification of the command asks: the model lies between real images and noise.
#[test]
fn the_model_lies_between_held_out_digits_and_noise() {
    let dir = workplace();
    let at = dir.path();
    noise(&at.join("noise.npz"), 297);
    let common = ["--reference", "digits-train", "--metrics", "fid,kid,pr,dc"];
    let with = |samples: &[&str]| eval(at, &[samples, &common[..]].concat());
    let real = with(&["digits-held-out"]);
    let model = with(&[
        "bundled",
        "--num",
        "297",
        "--sampler",
        "dpmpp-2m",
        "--spacing",
        "karras",
        "--steps",
        "10",
    ]);
    let noise = with(&["noise.npz"]);
    let fids = [&real, &model, &noise].map(|r| value(r, "fid"));
    println!(
        "Frechet distances: held out {}, model {}, noise {}",
        fids[0], fids[1], fids[2]
    );
    assert!(fids[0] < fids[1] && 10.0 * fids[1] < fids[2], "{fids:?}");
    let kids = [&real, &model, &noise].map(|r| value(r, "kid"));
    // Unbiased: for held-out digits and the model it is about zero, on either side.
    assert!(
        kids[..2].iter().all(|k| 50.0 * k.abs() < kids[2]),
        "{kids:?}"
    );
    assert!(value(&model, "precision") > 0.7 && value(&noise, "precision") == 0.0);
    assert!(value(&model, "coverage") > 0.3 && value(&noise, "coverage") == 0.0);
    // Everything that the figures depend on is there.
    assert_eq!(model["samples"]["sampling"]["sampler"], "dpmpp-2m");
    assert_eq!(model["samples"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(model["reference"]["images"], 1500);
    assert_eq!(model["settings"]["bootstrap"]["resamples"], 20);
}

#[test]
fn a_copy_of_the_training_set_is_flagged() {
    let dir = workplace();
    let common = ["--reference", "digits-train", "--metrics", "copies"];
    let copied = eval(dir.path(), &[&["digits-train"], &common[..]].concat());
    assert_eq!(value(&copied, "copies"), 1.0);
    let warnings = copied["results"]["warnings"].to_string();
    assert!(
        warnings.contains("copies of reference images"),
        "{warnings}"
    );
    let held = eval(dir.path(), &[&["digits-held-out"], &common[..]].concat());
    assert!(value(&held, "copies") < 0.05);
    assert_eq!(held["results"]["warnings"].as_array().unwrap().len(), 0);
}

#[test]
fn a_run_is_repeated_to_the_byte_and_equals_its_npz() {
    let dir = workplace();
    let at = dir.path();
    let draw = ["--steps", "3", "--num", "40", "--seed", "5"];
    let run = |threads: &str| {
        let more = ["--reference", "digits-held-out", "--threads", threads];
        let report = eval(at, &[&["bundled"], &draw[..], &more].concat());
        (fs::read(at.join("e.json")).unwrap(), report)
    };
    let (one, report) = run("1");
    assert!(one == run("2").0);
    succeed(at, &[&["sample", "--out", "s.npz"], &draw[..]].concat());
    let more = ["--reference", "digits-held-out", "--seed", "5"];
    let npz = eval(at, &[&["s.npz"], &more[..]].concat());
    assert_eq!(npz["results"], report["results"]);
    assert_eq!(
        npz["samples"]["images_sha256"],
        report["samples"]["images_sha256"]
    );
    // As single pictures too: they are cropped and made grey like the other side.
    succeed(at, &[&["sample", "--out", "pictures"], &draw[..]].concat());
    let pictures = eval(at, &[&["pictures"], &more[..]].concat());
    assert_eq!(value(&pictures, "fid"), value(&npz, "fid"));
}

#[test]
fn bits_per_dimension_have_parts_that_add_up_and_a_plot() {
    let dir = workplace();
    let at = dir.path();
    let args = [
        "bundled",
        "--bpd",
        "--reference",
        "digits-held-out",
        "--num",
        "6",
        "--bpd-steps",
        "5",
        "--plot",
        "bits.svg",
    ];
    let report = eval(at, &args);
    let bits = &report["bits_per_dimension"];
    let part = |key: &str| bits[key].as_f64().unwrap();
    let sum = part("prior") + part("diffusion") + part("decoder");
    assert!((part("total") - sum).abs() < 1e-9 && sum > 0.0);
    assert_eq!(bits["terms"].as_array().unwrap().len(), 5);
    let svg = fs::read_to_string(at.join("bits.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.matches("<polyline").count() >= 2);
    fail(
        at,
        &["eval", "digits", "--bpd", "--reference", "digits"],
        &["--bpd", "checkpoint"],
    );
}

#[test]
fn what_cannot_be_compared_is_said() {
    let dir = workplace();
    let at = dir.path();
    let shape = ImageShape::from([3, 4, 4]);
    let mut images = NpzImages::open(&at.join("colour.npz"), shape, 3, "").unwrap();
    images.append(&[7; 144]).unwrap();
    images.finish(None, &[]).unwrap();
    let eval = |args: &[&str], words: &[&str]| fail(at, &[&["eval"], args].concat(), words);
    eval(
        &["colour.npz", "--reference", "digits"],
        &["3x4x4", "1x8x8", "size=N"],
    );
    eval(&["digits"], &["required arguments"]);
    eval(
        &["digits", "--reference", "digits", "--metrics", "fdi"],
        &["fdi", "copies"],
    );
    eval(&["missing.npz", "--reference", "digits"], &["missing.npz"]);
    eval(
        &[
            "digits",
            "--reference",
            "digits",
            "--num",
            "1",
            "--metrics",
            "fid",
        ],
        &["at least 2 samples, not 1"],
    );
    eval(
        &["digits", "--reference", "digits", "--num", "9999"],
        &["9999", "1797"],
    );
    eval(
        &["digits", "--reference", "digits", "--features", "inception"],
        &["pixels, classifier:FILE or onnx:FILE"],
    );
    eval(
        &[
            "digits",
            "--reference",
            "digits",
            "--features",
            "classifier:tiny.toml",
        ],
        &["tiny.toml"],
    );
    fs::create_dir_all(at.join("a")).unwrap();
    eval(&["a/", "--reference", "a/"], &["size=N"]);
    fail(
        at,
        &words("train-classifier --data digits,unconditional --out c.safetensors"),
        &["no classes"],
    );
    assert!(!at.join("c.safetensors").exists());
    let help = dis(at, &["eval", "--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("docs/evaluation.md"));
}

/// Images as bytes in an `.npz`.
fn save(path: &Path, images: &[Vec<u8>]) {
    let shape = ImageShape::from([1, 8, 8]);
    let mut file = NpzImages::open(path, shape, images.len(), "").unwrap();
    file.append(&images.concat()).unwrap();
    file.finish(None, &[]).unwrap();
}

fn images(count: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut s = Stream::new(seed, Purpose::Test, 0, 0);
    (0..count)
        .map(|_| (0..64).map(|_| s.next_u32() as u8).collect())
        .collect()
}

/// Copies are found though the reference has twins, and a set is at distance 0 of itself.
#[test]
fn twins_in_the_reference_hide_nothing() {
    let dir = workplace();
    let at = dir.path();
    let all = images(120, 1);
    let twins: Vec<Vec<u8>> = all.iter().chain(&all[..3]).cloned().collect();
    save(&at.join("twins.npz"), &twins);
    save(&at.join("stolen.npz"), &all[..100]);
    save(&at.join("own.npz"), &images(100, 2));
    let with = |samples| {
        eval(
            at,
            &[samples, "--reference", "twins.npz", "--metrics", "copies"],
        )
    };
    let stolen = with("stolen.npz");
    assert_eq!(value(&stolen, "copies"), 1.0);
    let warnings = stolen["results"]["warnings"].to_string();
    assert!(
        warnings.contains("are copies") && warnings.contains("6 of 123"),
        "{warnings}"
    );
    assert!(value(&with("own.npz"), "copies") < 0.05);
    let same = eval(
        at,
        &["own.npz", "--reference", "own.npz", "--metrics", "fid"],
    );
    assert!((0.0..1e-9).contains(&value(&same, "fid")));
}

/// A metric that cannot be had leaves the others alone; if none can, the command fails.
#[test]
fn few_images_lose_the_metrics_that_need_more() {
    let dir = workplace();
    let at = dir.path();
    save(&at.join("three.npz"), &images(3, 1));
    save(&at.join("one.npz"), &images(1, 1));
    save(&at.join("many.npz"), &images(40, 2));
    let with = |samples, reference| {
        succeed(
            at,
            &[
                "eval",
                samples,
                "--reference",
                reference,
                "--bootstrap",
                "0",
            ],
        )
    };
    let three = with("three.npz", "many.npz");
    for word in [
        "\nfid ",
        "\nkid ",
        "\ncopies ",
        "left out: pr: ",
        "left out: dc: ",
        "4 samples, not 3",
    ] {
        assert!(three.contains(word), "no {word:?} in {three}");
    }
    let one = with("one.npz", "many.npz");
    assert!(
        one.contains("\ncopies ") && one.contains("2 samples, not 1"),
        "{one}"
    );
    let reversed = with("many.npz", "three.npz");
    assert!(reversed.contains("4 reference images, not 3"), "{reversed}");
    let args = words("eval one.npz --reference many.npz --metrics fid,is");
    fail(at, &args, &["none of the metrics", "2 samples, not 1"]);
    // Statistics that cannot be saved do not keep figures from being shown.
    let args = words("eval one.npz --reference many.npz --save-statistics x.npz");
    let output = dis(at, &args);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\ncopies "));
    fail(at, &args, &["--save-statistics", "at least 2"]);
}

/// Pictures that the command drew are what is judged: neither left out nor mixed with others, and a
/// broken one is found before anything is computed.
#[test]
fn drawn_pictures_are_judged_alone_and_looked_at_first() {
    let dir = workplace();
    let at = dir.path();
    let draw = ["sample", "--num", "4", "--steps", "2", "--out", "drawn"];
    succeed(at, &draw);
    let judge = [
        "drawn",
        "--reference",
        "digits-held-out",
        "--metrics",
        "kid",
    ];
    assert_eq!(eval(at, &judge)["samples"]["images"], 4);
    let holiday = at.join("drawn/holiday.png");
    image::GrayImage::new(9, 9).save(&holiday).unwrap();
    let args = [&["eval"], &judge[..]].concat();
    let words = [
        "drawn: 4 of 5 pictures were drawn by dis",
        "holiday.png",
        "mixture",
    ];
    fail(at, &args, &words);
    fs::remove_file(holiday).unwrap();
    // Cut off behind the mark of the program.
    let third = at.join("drawn").join(&names(&at.join("drawn"))[2]);
    let bytes = fs::read(&third).unwrap();
    fs::write(&third, &bytes[..bytes.len() - 40]).unwrap();
    fail(at, &args, &["1 of 4 pictures is bad", "--skip-bad"]);
    let reference = ["eval", "bundled", "--num", "100000", "--reference", "drawn"];
    fail(at, &reference, &["1 of 4 pictures is bad"]);
    let skip = [&judge[..], &["--skip-bad"]].concat();
    assert_eq!(eval(at, &skip)["samples"]["images"], 3);
}
