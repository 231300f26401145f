//! Images that are not square, from the data to pictures and figures.

use std::fs;
use std::path::Path;

use dis_data::NpzImages;

use image::{GrayImage, Luma};

use crate::common::{fail, names, newest, succeed, words};

/// Grey images, 8 high and 4 wide, in two classes: bright above or below.
const COUNT: usize = 12;
const SHAPE: [usize; 3] = [1, 8, 4];

const CONFIG: &str = r#"
[model]
patch_size = 2
embed_dim = 16
depth = 2

[data]
spec = "npz:tall.npz"

[diffusion]
steps = 50

[train]
steps = 4
batch_size = 4
checkpoint_every = 2
sample_every = 4
"#;

/// Image i is brighter above if i is even, and below if it is odd.
fn level(i: usize, pixel: usize) -> u8 {
    let bright = (pixel < 16) == i.is_multiple_of(2);
    5 * pixel as u8 + if bright { 90 } else { 0 }
}

fn write_data(at: &Path) {
    let mut images = NpzImages::open(&at.join("tall.npz"), SHAPE.into(), COUNT, "").unwrap();
    for i in 0..COUNT {
        let image: Vec<u8> = (0..32).map(|pixel| level(i, pixel)).collect();
        images.append(&image).unwrap();
    }
    let labels: Vec<u32> = (0..COUNT as u32).map(|i| i % 2).collect();
    images.finish(Some(&labels), &[]).unwrap();
    fs::write(at.join("tall.toml"), CONFIG).unwrap();
}

fn size(path: &Path) -> (u32, u32) {
    image::image_dimensions(path).unwrap()
}

#[test]
fn rectangles_from_data_to_pictures_and_figures() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    write_data(at);
    succeed(at, &["train", "--config", "tall.toml", "--out", "run"]);
    let config = fs::read_to_string(at.join("run/config.toml")).unwrap();
    let table: toml::Table = config.parse().unwrap();
    assert_eq!(table["model"]["image_size"], toml::Value::from(vec![8, 4]));

    // Stopped half way and continued: the same bytes.
    let half = ["--steps", "2", "--out", "half"];
    let train = ["train", "--config", "tall.toml"];
    succeed(at, &[&train[..], &half].concat());
    succeed(at, &["train", "--resume", "half", "--steps", "4"]);
    let weights = |run: &str| {
        newest(&at.join(run))
            .into_iter()
            .find(|(n, _)| n.starts_with("ema"))
    };
    assert!(weights("run").is_some());

    let info = succeed(at, &["info", "--checkpoint", "run"]);
    assert!(
        info.contains("1 x 8 x 4, patch 2") && info.contains("10 (8 patches)"),
        "{info}"
    );

    let sample = |more: &[&str]| {
        let base = ["sample", "--checkpoint", "run", "--steps", "3"];
        succeed(at, &[&base[..], more].concat())
    };
    // Two classes in rows, three images each, with two pixels around them.
    sample(&["--num", "6", "--out", "grid.png"]);
    let scale = (size(&at.join("grid.png")).1 - 6) / 16;
    assert_eq!(
        size(&at.join("grid.png")),
        (3 * (4 * scale + 2) + 2, 2 * (8 * scale + 2) + 2)
    );
    sample(&["--num", "2", "--out", "folder"]);
    let drawn = names(&at.join("folder"));
    assert_eq!(drawn.len(), 2);
    assert_eq!(size(&at.join("folder").join(&drawn[0])), (4, 8));
    sample(&words(
        "--interpolate both --classes 0,1 --frames 3 --num 3 --out walk",
    ));
    assert_eq!(names(&at.join("walk")).len(), 3);
    sample(&["--num", "2", "--trajectory", "t.apng", "--out", "x.png"]);
    sample(&["--num", "8", "--out", "drawn.npz"]);

    // Given images, inverted and inpainted from above.
    sample(&words(
        "--init-image npz:tall.npz --invert --num 2 --out inverted",
    ));
    assert_eq!(names(&at.join("inverted")).len(), 4);
    let mask = GrayImage::from_fn(4, 8, |_, y| Luma([if y < 4 { 255 } else { 0 }]));
    mask.save(at.join("mask.png")).unwrap();
    let given = ["--init-image", "npz:tall.npz", "--mask", "mask.png"];
    sample(
        &[
            &given[..],
            &["--classes", "0", "--num", "1", "--out", "painted"],
        ]
        .concat(),
    );
    let painted = at.join("painted").join(&names(&at.join("painted"))[0]);
    let painted = image::open(painted).unwrap().into_luma8().into_raw();
    let first: Vec<u8> = (0..32).map(|pixel| level(0, pixel)).collect();
    assert_eq!(painted[16..], first[16..]);
    assert_ne!(painted[..16], first[..16]);

    // A picture of another size is cropped to the model's.
    let picture = GrayImage::from_fn(30, 20, |x, y| Luma([(8 * x + y) as u8]));
    picture.save(at.join("one.png")).unwrap();
    sample(&["--init-image", "one.png", "--num", "8", "--out", "changed"]);
    assert_eq!(names(&at.join("changed")).len(), 8);
    let eval = words("eval changed --reference npz:tall.npz --bootstrap 0");
    succeed(at, &eval);
    let eval = words("eval drawn.npz --reference npz:tall.npz --bootstrap 0");
    let report = succeed(at, &eval);
    assert!(report.contains("fid"), "{report}");
    let bits = words("eval run --bpd --reference npz:tall.npz --num 2");
    assert!(succeed(at, &bits).contains("bits"));
    succeed(at, &["convert", "run", "run.pt"]);
    assert!(succeed(at, &["info", "--checkpoint", "run.pt"]).contains("1 x 8 x 4"));
}

#[test]
fn sizes_that_do_not_fit_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    write_data(at);
    let refused = |old: &str, new: &str, words: &[&str]| {
        fs::write(at.join("wrong.toml"), CONFIG.replace(old, new)).unwrap();
        fail(
            at,
            &["train", "--config", "wrong.toml", "--out", "x"],
            words,
        );
        assert!(!at.join("x").exists());
    };
    let patch = "patch_size = 2";
    refused(patch, "patch_size = 8", &["image_size 4", "patch_size 8"]);
    refused(
        patch,
        "patch_size = 2\nimage_size = [4, 8]",
        &["1x4x8", "1x8x4"],
    );
    refused(
        patch,
        "patch_size = 2\nimage_size = [8, 4, 2]",
        &["image_size", "[height, width]"],
    );
    let sample = words("sample --init-image npz:tall.npz --num 1 --out x.png");
    fail(at, &sample, &["1x8x4", "1x8x8"]);
}
