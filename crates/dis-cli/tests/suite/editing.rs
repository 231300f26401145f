//! Image to image, inpainting, inversion, interpolation and trajectories from the command line.

use std::fs;
use std::path::Path;

use crate::common::{fail, names, succeed, words, workplace};
use image::{GrayImage, Luma};

/// The digits of a folder of pictures.
fn pictures(dir: &Path) -> Vec<Vec<u8>> {
    let files = names(dir).into_iter().map(|name| dir.join(name));
    files
        .map(|file| image::open(file).unwrap().into_luma8().into_raw())
        .collect()
}

fn distance(a: &[u8], b: &[u8]) -> f64 {
    let pairs = a.iter().zip(b);
    let squares = pairs.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
    (squares.sum::<f64>() / a.len() as f64).sqrt()
}

#[test]
fn strength_says_how_much_of_an_image_changes() {
    let dir = workplace();
    let at = dir.path();
    let mut distances = Vec::new();
    for (strength, out) in [("0.1", "little"), ("0.5", "half"), ("1", "all")] {
        let base = words("sample --init-image digits-held-out --classes 0,1,2");
        let more = ["--steps", "20", "--strength", strength, "--out", out];
        succeed(at, &[&base[..], &more].concat());
        let drawn = pictures(&at.join(out));
        let held_out = dis_data::open(&"digits-held-out".parse().unwrap()).unwrap();
        let total: f64 = drawn
            .iter()
            .enumerate()
            // Three classes of each of eight images.
            .map(|(i, drawn)| {
                let given = held_out.sample(i / 3, false).unwrap().image;
                distance(drawn, &dis_data::grid::to_bytes(&given))
            })
            .sum();
        distances.push(total / drawn.len() as f64);
    }
    assert!(distances.is_sorted(), "{distances:?}");
    assert!(distances[0] < 0.5 * distances[2], "{distances:?}");
}

#[test]
fn inpainting_keeps_what_is_black_in_the_mask() {
    let dir = workplace();
    let at = dir.path();
    succeed(
        at,
        &["sample", "--classes", "3", "--num", "1", "--out", "given"],
    );
    let given = GrayImage::from_raw(8, 8, pictures(&at.join("given")).remove(0)).unwrap();
    given.save(at.join("given.png")).unwrap();
    let mask = GrayImage::from_fn(8, 8, |_, y| Luma([if y < 4 { 255 } else { 0 }]));
    mask.save(at.join("mask.png")).unwrap();
    let base = ["sample", "--init-image", "given.png", "--mask", "mask.png"];
    succeed(
        at,
        &[&base[..], &["--classes", "8", "--num", "4", "--out", "new"]].concat(),
    );
    let drawn = pictures(&at.join("new"));
    assert_eq!(drawn.len(), 4);
    for image in &drawn {
        assert_eq!(image[32..], given.as_raw()[32..]);
        assert_ne!(image[..32], given.as_raw()[..32]);
    }
    GrayImage::new(8, 8).save(at.join("black.png")).unwrap();
    let black = words("sample --init-image given.png --mask black.png --out x.png");
    fail(at, &black, &["black.png", "nothing is white"]);
}

#[test]
fn inversion_reconstructs() {
    let dir = workplace();
    let at = dir.path();
    let base = words("sample --init-image digits-held-out --invert --num 3");
    let error = |refine: &str, out: &str| {
        succeed(
            at,
            &[
                &base[..],
                &["--steps", "20", "--refine", refine, "--out", out],
            ]
            .concat(),
        );
        // Each image is followed by its reconstruction.
        let all = pictures(&at.join(out));
        assert_eq!(all.len(), 6);
        let pairs = all.chunks_exact(2);
        pairs
            .map(|pair| distance(&pair[0], &pair[1]))
            .fold(0.0, f64::max)
    };
    let (plain, refined) = (error("0", "plain"), error("8", "refined"));
    assert!(refined < plain, "{refined}, {plain}");
    succeed(
        at,
        &["sample", "--classes", "3", "--num", "1", "--out", "given"],
    );
    fail(
        at,
        &words("sample --init-image given/000000-class3.png --invert --classes 3,12"),
        &["\"12\""],
    );
}

#[test]
fn interpolation_ends_in_what_it_goes_between() {
    let dir = workplace();
    let at = dir.path();
    let sample = |more: &[&str], out: &str| {
        succeed(
            at,
            &[&["sample", "--steps", "10", "--out", out][..], more].concat(),
        );
        pictures(&at.join(out))
    };
    let three = sample(&["--classes", "3", "--num", "2"], "three");
    let noise = sample(
        &["--interpolate", "noise", "--classes", "3", "--frames", "5"],
        "noise",
    );
    assert_eq!(
        (noise.len(), &noise[0], &noise[4]),
        (5, &three[0], &three[1])
    );
    assert_ne!(noise[2], noise[0]);
    let both = words("--interpolate both --classes 3,8 --frames 4 --num 4");
    let both = sample(&both, "both");
    let eight = sample(&["--classes", "8", "--num", "2"], "eight");
    assert_eq!((&both[0], &both[3]), (&three[0], &eight[1]));
    let classes = words("--interpolate classes --classes 3,8 --frames 3 --num 3");
    let classes = sample(&classes, "classes");
    assert_eq!((&classes[0], &classes[2]), (&three[0], &eight[0]));
    fail(
        at,
        &["sample", "--interpolate", "both"],
        &["--classes", "two classes"],
    );
    fail(
        at,
        &["sample", "--interpolate", "noise", "--frames", "1"],
        &["--frames"],
    );
}

#[test]
fn trajectories_are_strips_or_animations() {
    let dir = workplace();
    let at = dir.path();
    let base = words("sample --classes 5 --num 3 --steps 20 --out s.png");
    succeed(at, &[&base[..], &["--trajectory", "strip.png"]].concat());
    // Ten moments of three images of 48 pixels, two between them.
    let strip = image::open(at.join("strip.png")).unwrap();
    assert_eq!((strip.width(), strip.height()), (10 * 50 + 2, 3 * 50 + 2));
    succeed(at, &[&base[..], &["--trajectory", "moves.apng"]].concat());
    let bytes = fs::read(at.join("moves.apng")).unwrap();
    let frames = bytes.windows(4).filter(|w| *w == b"fcTL").count();
    assert_eq!(frames, 20);
    fail(
        at,
        &[&base[..], &["--trajectory", "x.gif"]].concat(),
        &["x.gif", ".apng"],
    );
    let npz = words("sample --num 3 --out s.npz --trajectory x.png");
    fail(at, &npz, &["--trajectory", "s.npz"]);
}

#[test]
fn refusals_name_the_option() {
    let dir = workplace();
    let at = dir.path();
    fail(
        at,
        &["sample", "--init-image", "absent.png"],
        &["--init-image", "absent.png"],
    );
    fail(at, &["sample", "--init-image", "tiny.toml"], &["tiny.toml"]);
    let digits = ["sample", "--init-image", "digits"];
    fail(
        at,
        &[&digits[..], &["--strength", "0"]].concat(),
        &["--strength"],
    );
    fail(
        at,
        &[&digits[..], &["--mask", "absent.png"]].concat(),
        &["absent.png"],
    );
    fail(
        at,
        &[&digits[..], &["--invert", "--out", "x.npz"]].concat(),
        &["--invert"],
    );
    assert_eq!(names(at), ["tiny.toml"]);
}
