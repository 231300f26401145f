//! `dis eval` and `dis train-classifier`.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{class_folders, dis, fail, names, short_run, succeed, workplace};
use dis_data::{ImageShape, NpzImages};
use dis_files::npz::NpzFile;
use dis_files::zip::ZipWriter;
use dis_files::{ElementType, NpyHeader};
use dis_tensor::random::{Purpose, Stream};
use serde_json::Value;

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
    let shape = ImageShape {
        channels: 1,
        height: 8,
        width: 8,
    };
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
fn statistics_are_saved_and_stand_for_images() {
    let dir = workplace();
    let at = dir.path();
    let out = succeed(
        at,
        &["eval", "digits-train", "--save-statistics", "train.npz"],
    );
    assert!(out.contains("train.npz"), "{out}");
    let images = eval(at, &["digits-held-out", "--reference", "digits-train"]);
    let saved = eval(at, &["digits-held-out", "--reference", "train.npz"]);
    assert_eq!(value(&images, "fid"), value(&saved, "fid"));
    assert_eq!(
        left_out(&saved),
        ["sfid", "is", "kid", "pr", "dc", "labels", "copies"]
    );
    let mut arrays = NpzFile::open(&at.join("train.npz")).unwrap();
    assert_eq!(arrays.array("mu").unwrap().shape(), [64]);
    assert_eq!(arrays.array("sigma").unwrap().shape(), [64, 64]);
}

#[test]
fn statistics_are_known_by_what_they_hold() {
    let dir = workplace();
    let at = dir.path();
    let save = |name: &str| {
        let data = "digits-held-out";
        succeed(at, &["eval", data, "--save-statistics", name]);
        let data = "digits-train";
        eval(at, &[data, "--reference", name, "--metrics", "fid"])
    };
    let plain = save("stats.npz");
    for name in ["stats", "STATS.NPZ", "stats.safetensors", "sta,ts"] {
        assert_eq!(value(&save(name), "fid"), value(&plain, "fid"), "{name}");
    }
}

#[test]
fn images_are_read_compressed_and_in_fortran_order() {
    let dir = workplace();
    let at = dir.path();
    let shape = [12, 4, 5, 3];
    let pixel = |i: usize| (i * 37 % 251) as u8;
    let n: usize = shape.iter().product();
    let plain: Vec<u8> = (0..n).map(pixel).collect();
    let mut fortran = vec![0; n];
    for (i, value) in plain.iter().enumerate() {
        let (mut rest, mut stride, mut place) = (i, n, 0);
        for length in shape.into_iter().rev() {
            stride /= length;
            place += rest % length * stride;
            rest /= length;
        }
        fortran[place] = *value;
    }
    let header = |fortran_order| NpyHeader {
        fortran_order,
        ..NpyHeader::new(ElementType::U8, &shape)
    };
    let whole = |order, data: &[u8]| [&header(order).to_bytes(), data].concat();
    let (c, f) = (whole(false, &plain), whole(true, &fortran));
    let write = |name: &str, content: &[u8], deflate: bool| {
        let mut zip = ZipWriter::new(Vec::new());
        match deflate {
            true => zip.add_deflated("arr_0.npy", content).unwrap(),
            false => zip.add("arr_0.npy", content).unwrap(),
        }
        fs::write(at.join(name), zip.finish().unwrap()).unwrap();
    };
    write("c.npz", &c, false);
    write("f.npz", &f, false);
    write("deflated.npz", &c, true);
    write("both.npz", &f, true);
    let statistics = |name: &str| {
        succeed(at, &["eval", name, "--save-statistics", "s.npz"]);
        fs::read(at.join("s.npz")).unwrap()
    };
    for name in ["f.npz", "deflated.npz", "both.npz"] {
        assert!(statistics(name) == statistics("c.npz"), "{name}");
    }
    // The archive is cut off, or says that there is more than there is.
    let bytes = fs::read(at.join("deflated.npz")).unwrap();
    fs::write(at.join("cut.npz"), &bytes[..bytes.len() / 2]).unwrap();
    fail(
        at,
        &["eval", "cut.npz", "--save-statistics", "s"],
        &["cut.npz", "cut off"],
    );
    let objects = NpyHeader {
        descr: "|O".into(),
        ..header(false)
    };
    let objects = [objects.to_bytes(), plain].concat();
    write("objects.npz", &objects, true);
    fail(
        at,
        &["eval", "objects.npz", "--save-statistics", "s"],
        &["Python objects"],
    );
}

#[test]
fn a_classifier_is_trained_and_its_features_are_used() {
    let dir = workplace();
    let at = dir.path();
    let train = |out: &str, threads: &str| {
        let args = [
            "train-classifier",
            "--data",
            "digits-train",
            "--steps",
            "150",
            "--out",
            out,
            "--threads",
            threads,
        ];
        succeed(at, &args)
    };
    let said = train("a.safetensors", "1");
    let accuracy: f64 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(
        accuracy > 93.0 && said.contains("297 test images"),
        "{said}"
    );
    train("b.safetensors", "2");
    let read = |name: &str| fs::read(at.join(name)).unwrap();
    assert!(read("a.safetensors") == read("b.safetensors"));
    noise(&at.join("noise.npz"), 100);
    let common = [
        "--reference",
        "digits-train",
        "--features",
        "classifier:a.safetensors",
    ];
    let real = eval(at, &[&["digits-held-out"], &common[..]].concat());
    assert_eq!(left_out(&real), Vec::<&str>::new());
    assert!(value(&real, "labels") > 0.93 && value(&real, "is") > 7.0);
    let bad = eval(at, &[&["noise.npz"], &common[..]].concat());
    assert_eq!(left_out(&bad), ["labels"]);
    for name in ["fid", "sfid", "kid"] {
        assert!(value(&bad, name) > 3.0 * value(&real, name), "{name}");
    }
    assert!(value(&bad, "is") < value(&real, "is"));
    // A tenth is held back where the data have no part for testing.
    let args = [
        "train-classifier",
        "--data",
        "digits",
        "--steps",
        "1",
        "--out",
        "c.safetensors",
    ];
    assert!(succeed(at, &args).contains("179 test images"));
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
    let shape = ImageShape {
        channels: 3,
        height: 4,
        width: 4,
    };
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
        &[
            "train-classifier",
            "--data",
            "digits,unconditional",
            "--out",
            "c.safetensors",
        ],
        &["no classes"],
    );
    assert!(!at.join("c.safetensors").exists());
    let help = dis(at, &["eval", "--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("docs/evaluation.md"));
}

/// `tests/data/tiny.onnx`: features relu(pixels W) with W(i, j) = ((7 i + 3 j) mod 11 - 5) / 16.
#[test]
#[cfg(feature = "onnx")]
fn features_of_an_onnx_network_are_those_of_its_formula() {
    use dis_data::{Dataset, digits_split};
    let dir = workplace();
    let at = dir.path();
    let onnx = concat!("onnx:", env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.onnx");
    let common = ["--features", onnx, "--onnx-range", "0,1"];
    let save = ["eval", "digits-held-out", "--save-statistics", "s.npz"];
    succeed(at, &[&save, &common[..]].concat());
    let mut statistics = NpzFile::open(&at.join("s.npz")).unwrap();
    let mu = statistics.array("mu").unwrap().to_f64().unwrap();
    let (_, held) = digits_split(0).unwrap();
    let mut expected = [0.0; 4];
    for n in 0..held.len() {
        let image = held.sample(n, false).unwrap().image;
        for (j, sum) in expected.iter_mut().enumerate() {
            let terms = image.iter().enumerate().map(|(i, v)| {
                let pixel = f64::from(((v + 1.0) * 127.5).round()) / 255.0;
                pixel * (((7 * i + 3 * j) % 11) as f64 - 5.0) / 16.0
            });
            *sum += terms.sum::<f64>().max(0.0) / 297.0;
        }
    }
    assert_eq!(mu.len(), 4);
    for (a, b) in mu.iter().zip(expected) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    let names = [
        "--onnx-features",
        "features",
        "--onnx-logits",
        "logits",
        "--onnx-spatial",
        "spatial",
    ];
    let compare = ["digits-held-out", "--reference", "digits-train"];
    let report = eval(at, &[&compare, &common[..], &names].concat());
    assert_eq!(left_out(&report), Vec::<&str>::new());
    assert!(value(&report, "is") >= 1.0 && value(&report, "sfid") < 1.0);
    let bad = ["--onnx-features", "nothing"];
    fail(
        at,
        &[&["eval"], &compare[..], &common, &bad].concat(),
        &["tiny.onnx", "nothing"],
    );
    fs::write(at.join("bad.onnx"), [1, 2, 3]).unwrap();
    fail(
        at,
        &[&["eval"], &compare[..], &["--features", "onnx:bad.onnx"]].concat(),
        &["bad.onnx"],
    );
}

#[test]
#[cfg(not(feature = "onnx"))]
fn a_build_without_onnx_says_so() {
    let dir = workplace();
    fail(
        dir.path(),
        &[
            "eval",
            "digits",
            "--reference",
            "digits",
            "--features",
            "onnx:x.onnx",
        ],
        &["cargo feature `onnx`"],
    );
}

#[test]
fn classes_of_two_holders_are_matched_by_name() {
    let dir = workplace();
    let at = dir.path();
    let (red, green, blue) = ([200, 20, 20], [20, 200, 20], [20, 20, 200]);
    let (apple, leaf, sea) = (("apple", red, 12), ("leaf", green, 12), ("sea", blue, 12));
    class_folders(&at.join("train"), &[apple, leaf, sea]);
    class_folders(&at.join("test"), &[leaf, sea]);
    class_folders(
        &at.join("renamed"),
        &[("x", red, 4), ("y", green, 4), ("z", blue, 4)],
    );
    let train = |test: &'static str| {
        let base = ["train-classifier", "--data", "train,size=8", "--test", test];
        [&base[..], &["--steps", "80", "--out", "k.safetensors"]].concat()
    };
    let both = ["\"apple\", \"leaf\", \"sea\"", "\"x\", \"y\", \"z\""];
    fail(at, &train("renamed,size=8"), &both);
    let said = succeed(at, &train("test,size=8"));
    assert!(said.starts_with("100.00 % of 24 test images"), "{said}");
    let judge = |samples: &str| {
        let base = [samples, "--reference", "train,size=8"];
        let more = [
            "--features",
            "classifier:k.safetensors",
            "--metrics",
            "labels,is",
        ];
        eval(at, &[&base[..], &more].concat())
    };
    assert_eq!(value(&judge("test,size=8"), "labels"), 1.0);
    let renamed = judge("renamed,size=8");
    assert_eq!(left_out(&renamed), ["labels"]);
    let why = renamed["results"]["left_out"][0]["why"].as_str().unwrap();
    assert!(why.contains("class names differ"), "{why}");
    assert!(both.iter().all(|names| why.contains(names)), "{why}");
    // Names travel in the file of samples, where the numbers are another order's.
    let shape = ImageShape {
        channels: 3,
        height: 8,
        width: 8,
    };
    let mut file = NpzImages::open(&at.join("turned.npz"), shape, 2, "").unwrap();
    let flat = |colour: [u8; 3]| colour.map(|c| [c + 8; 64]).concat();
    file.append(&[flat(blue), flat(red)].concat()).unwrap();
    let names_of = ["sea", "leaf", "apple"].map(String::from);
    file.finish(Some(&[0, 2]), &names_of).unwrap();
    assert_eq!(value(&judge("turned.npz"), "labels"), 1.0);

    // The same for likelihoods, inversion, and a start from other weights.
    short_run(at, "train,size=8", "run");
    let bits = |reference: &'static str| {
        let base = ["eval", "run", "--bpd", "--reference", reference];
        [&base[..], &["--num", "2", "--bpd-steps", "2"]].concat()
    };
    succeed(at, &bits("test,size=8"));
    fail(at, &bits("renamed,size=8"), &both);
    let invert = |data: &'static str| {
        let base = ["sample", "--checkpoint", "run", "--invert", "--refine", "0"];
        let more = [
            "--init-image",
            data,
            "--num",
            "1",
            "--steps",
            "2",
            "--out",
            "x",
        ];
        [&base[..], &more].concat()
    };
    succeed(at, &invert("test,size=8"));
    assert_eq!(names(&at.join("x"))[0], "000000-classleaf.png");
    fail(
        at,
        &invert("renamed,size=8"),
        &[&both[..], &["--classes"]].concat(),
    );
}

/// Images as bytes in an `.npz`.
fn save(path: &Path, images: &[Vec<u8>]) {
    let shape = ImageShape {
        channels: 1,
        height: 8,
        width: 8,
    };
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
    let args = [
        "eval",
        "one.npz",
        "--reference",
        "many.npz",
        "--metrics",
        "fid,is",
    ];
    fail(at, &args, &["none of the metrics", "2 samples, not 1"]);
    // Statistics that cannot be saved do not keep figures from being shown.
    let args = [
        "eval",
        "one.npz",
        "--reference",
        "many.npz",
        "--save-statistics",
        "x.npz",
    ];
    let output = dis(at, &args);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\ncopies "));
    fail(at, &args, &["--save-statistics", "at least 2"]);
}
