//! What images are compared by: classifiers, ONNX networks, and the names of their classes.

use std::fs;

use dis_data::{ImageShape, NpzImages};

use super::{eval, left_out, noise, value};
use crate::common::{class_folders, fail, names, short_run, succeed, words, workplace};

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
    let common = words("--reference digits-train --features classifier:a.safetensors");
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
    let args = words("train-classifier --data digits --steps 1 --out c.safetensors");
    assert!(succeed(at, &args).contains("179 test images"));
}

/// `tests/data/tiny.onnx`: features relu(pixels W) with W(i, j) = ((7 i + 3 j) mod 11 - 5) / 16.
#[test]
#[cfg(feature = "onnx")]
fn features_of_an_onnx_network_are_those_of_its_formula() {
    use dis_data::{Dataset, digits_split};
    use dis_files::npz::NpzFile;
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
    let names = words("--onnx-features features --onnx-logits logits --onnx-spatial spatial");
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
        &words("eval digits --reference digits --features onnx:x.onnx"),
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
        let more = words("--features classifier:k.safetensors --metrics labels,is");
        eval(at, &[&base[..], &more].concat())
    };
    assert_eq!(value(&judge("test,size=8"), "labels"), 1.0);
    let renamed = judge("renamed,size=8");
    assert_eq!(left_out(&renamed), ["labels"]);
    let why = renamed["results"]["left_out"][0]["why"].as_str().unwrap();
    assert!(why.contains("class names differ"), "{why}");
    assert!(both.iter().all(|names| why.contains(names)), "{why}");
    // Names travel in the file of samples, where the numbers are another order's.
    let shape = ImageShape::from([3, 8, 8]);
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
