//! Files of images and of statistics in the place of samples or the reference.

use std::fs;

use dis_files::npz::NpzFile;
use dis_files::zip::ZipWriter;
use dis_files::{ElementType, NpyHeader};

use super::{eval, left_out, value};
use crate::common::{fail, succeed, workplace};

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
