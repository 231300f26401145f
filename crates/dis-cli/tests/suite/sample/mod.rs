//! `dis sample`.

mod classes;
mod refusals;

use std::fs;

use crate::common::{fail, names, succeed, words, workplace};

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
    let output = crate::common::dis(at, &sample(&["--precision", "bf16"]));
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
        &words("sample --classes 7,2 --num 3 --steps 3 --out pictures"),
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
    let three = words("sample --num 3 --classes 7 --steps 2 --seed 2");
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
