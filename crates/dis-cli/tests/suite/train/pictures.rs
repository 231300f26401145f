//! What people bring as data: damaged, oddly named, in other formats, too deep.

use std::fs;
use std::path::Path;

use super::train;
use crate::common::{dis, fail, newest, succeed, workplace};

/// A picture without a flat part.
fn picture(path: &Path, seed: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let level = |x: u32, y: u32| (x * 31 + y * 17 * seed + x * y) as u8;
    let pixel = |x, y| image::Rgb([level(x, y), level(y, x), seed as u8]);
    image::RgbImage::from_fn(48, 40, pixel).save(path).unwrap();
}

#[test]
fn a_jpeg_that_was_cut_off_is_named() {
    let dir = workplace();
    let at = dir.path();
    picture(&at.join("photos/whole.jpg"), 1);
    let whole = fs::read(at.join("photos/whole.jpg")).unwrap();
    let kept = whole.len() * 2 / 5;
    let mut zeros = whole.clone();
    zeros[kept..].fill(0);
    let cut = [&whole[..kept], &zeros, &whole[..whole.len() - 2]];
    let data = ["--data", "photos,size=32", "--out", "run", "--steps", "2"];
    for bytes in cut {
        fs::write(at.join("photos/cut.jpg"), bytes).unwrap();
        fail(at, &train(&data), &["cut.jpg", "truncated"]);
        let _ = fs::remove_dir_all(at.join("run"));
        let statistics = ["eval", "photos,size=32", "--save-statistics", "s.npz"];
        fail(at, &statistics, &["photos: ", "cut.jpg: truncated"]);
    }
    fs::write(at.join("photos/cut.jpg"), [&whole[..], b"more"].concat()).unwrap();
    succeed(at, &train(&data));
}

/// Statistics of a data set, which every kind of data gives.
fn statistics(at: &Path, spec: &str) -> String {
    let _ = fs::remove_file(at.join("s.npz"));
    succeed(at, &["eval", spec, "--save-statistics", "s.npz"])
}

#[test]
fn paths_may_hold_commas_and_missing_ones_are_said() {
    let dir = workplace();
    let at = dir.path();
    for folder in ["cats, dogs", "x,flip"] {
        for i in 0..3 {
            picture(&at.join(folder).join(format!("{i}.png")), i + 1);
        }
    }
    for spec in [
        "cats, dogs,size=8",
        "folder:cats, dogs,size=8",
        "x,flip,size=8",
        "folder:x,flip,size=8x4",
    ] {
        assert!(statistics(at, spec).contains("3 images"), "{spec}");
    }
    let folder = ["--data", "x,flip,size=9,unconditional", "--out", "run"];
    fail(at, &train(&folder), &["not a multiple of"]);
    for (spec, words) in [
        ("gone.npz", "gone.npz: no such file"),
        ("gone/,size=8", "gone/: no such folder"),
    ] {
        fail(at, &["eval", spec, "--reference", "digits"], &[words]);
        fail(at, &train(&["--data", spec, "--out", "run"]), &[words]);
    }
    let given = ["sample", "--init-image", "gone.png", "--num", "1"];
    fail(at, &given, &["gone.png: no such file"]);
    fs::write(at.join("photo.heic"), "no format that is read").unwrap();
    let given = ["sample", "--init-image", "photo.heic", "--num", "1"];
    fail(
        at,
        &given,
        &["photo.heic: is a text", "not a picture in a format"],
    );
}

#[test]
fn pictures_below_class_folders_are_counted_and_read_where_asked() {
    let dir = workplace();
    let at = dir.path();
    for file in [
        "apple/0.png",
        "apple/more/1.webp",
        "apple/more/2.gif",
        "sea/0.tiff",
        "sea/1.BMP",
    ] {
        picture(&at.join("photos").join(file), 3);
    }
    fs::write(at.join("photos/sea/a.heic"), "no format that is read").unwrap();
    let data = |spec| {
        let _ = fs::remove_dir_all(at.join("run"));
        let output = dis(
            at,
            &train(&["--data", spec, "--out", "run", "--steps", "1"]),
        );
        assert!(output.status.success());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        stderr
            .lines()
            .find(|l| l.starts_with("data: "))
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        data("photos,size=8"),
        "data: folder: 3 images cropped to 3x8x8, 2 classes, 2 pictures in apple/more left out (the \
         option recursive reads them), 1 file could not be read as pictures: sea/a.heic"
    );
    assert_eq!(
        data("photos,size=8,recursive"),
        "data: folder: 5 images cropped to 3x8x8, 2 classes, 1 file could not be read as pictures: \
         sea/a.heic"
    );
    fs::create_dir(at.join("tree")).unwrap();
    fs::rename(at.join("photos"), at.join("tree/train")).unwrap();
    let words = [
        "tree: no images",
        "pictures were found in tree/train/apple",
        "give tree/train",
    ];
    fail(
        at,
        &["eval", "tree,size=8", "--save-statistics", "s.npz"],
        &words,
    );
    fs::create_dir(at.join("tree/train/empty")).unwrap();
    let words = ["tree/train/empty: no images"];
    fail(
        at,
        &["eval", "tree/train,size=8", "--save-statistics", "s.npz"],
        &words,
    );
}

#[test]
fn labels_that_begin_at_one_are_warned_of_and_recorded() {
    let dir = workplace();
    let at = dir.path();
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 6, 0, 0, 0, 8, 0, 0, 0, 8];
    images.extend((0..6 * 64).map(|i| (i * 7 % 256) as u8));
    // Unpacked, and still named as if it were not.
    fs::write(at.join("letters-images-idx3-ubyte.gz"), images).unwrap();
    let labels = [0, 0, 8, 1, 0, 0, 0, 6, 1, 2, 3, 1, 2, 3];
    fs::write(at.join("letters-labels-idx1-ubyte.gz"), labels).unwrap();
    let data = ["--data", "idx:letters", "--out", "run", "--steps", "2"];
    let output = dis(at, &train(&data));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("warning: 1 of 4 classes has no image: 0"),
        "{stderr}"
    );
    let recorded = newest(&at.join("run")).into_iter().any(|(_, bytes)| {
        let text = String::from_utf8_lossy(&bytes);
        let value = text.split("unoccupied_classes").nth(1).unwrap_or_default();
        value.chars().take(8).collect::<String>().contains("[0]")
    });
    assert!(recorded);
}
