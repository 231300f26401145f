//! `dis sample`.

mod classes;
mod refusals;

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{command, dis, fail, names, short_run, succeed, words, workplace};

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
    let output = dis(at, &sample(&["--precision", "bf16"]));
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
        &["--sampler", "ddim", "--eta", "1", "--clip"],
        &["--published"],
        &["--cfg", "1"],
        &["--cfg", "3", "--cfg-interval", "100,600"],
        &["--cfg-published"],
    ] {
        let base = ["sample", "--num", "2", "--steps", "4", "--out", "x.png"];
        let args: Vec<&str> = base.iter().chain(more).copied().collect();
        succeed(at, &args);
    }
}

/// What pictures say of themselves is enough to draw them again, pixel by pixel.
#[test]
fn pictures_say_how_they_were_drawn() {
    let dir = workplace();
    let at = dir.path();
    let read = |name: &str| fs::read(at.join(name)).unwrap();
    let grid = "sample --num 5 --classes 3,5 --seed 9 --sampler heun --steps 3 --cfg 2.5 --captions --scale 3";
    succeed(at, &words(&format!("{grid} --out grid.png")));
    succeed(
        at,
        &words("sample --like grid.png --out again.png --batch-size 2"),
    );
    assert_eq!(read("again.png"), read("grid.png"));
    succeed(
        at,
        &words("sample --num 4 --steps 2 --interpolate both --classes 1,7 --frames 4 --out walk"),
    );
    succeed(
        at,
        &words("sample --like walk/000002-class1.png --out one.png"),
    );
    assert_eq!(read("one.png"), read("walk/000002-class1.png"));
    for same in ["grid.png", "one.png"] {
        let said = succeed(at, &["verify", same]);
        assert_eq!(said.trim_end(), format!("{same}: the same bits"));
    }
    // A pixel that was changed.
    let text = dis_data::drawn_with(&at.join("one.png")).unwrap().unwrap();
    assert!(
        text.contains("\"index\":2") && text.contains("\"class\":\"1\""),
        "{text}"
    );
    let pixels = image::open(at.join("one.png")).unwrap().into_luma8();
    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    let mut bytes = pixels.into_raw();
    bytes[20] ^= 8;
    let channels = 1;
    let changed = dis_data::crop::Picture {
        height,
        width,
        channels,
        bytes,
    };
    dis_data::grid::write_png_with(&at.join("changed.png"), &changed, &text).unwrap();
    let output = dis(at, &["verify", "changed.png"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("1 of 64 values differ, by 8 of 255"),
        "{said}"
    );
    // On other instructions it is the same, or it says why not.
    let mut portable = command(at, &["verify", "grid.png"]);
    let said = portable
        .env("DIS_SIMD", "portable")
        .output()
        .unwrap()
        .stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains("the same bits") || said.contains("this is portable"),
        "{said}"
    );
    // Other weights, other options, pictures that say nothing, and those made of others.
    short_run(at, "digits-train", "run");
    fail(
        at,
        &words("verify grid.png --checkpoint run"),
        &["grid.png", "SHA-256", "--checkpoint"],
    );
    assert!(
        !dis(at, &words("sample --like grid.png --seed 3"))
            .status
            .success()
    );
    dis_data::grid::write_png(&at.join("plain.png"), &changed).unwrap();
    fail(
        at,
        &words("verify plain.png"),
        &["plain.png", "does not say how it was drawn"],
    );
    fail(at, &words("verify tiny.toml"), &["tiny.toml", "PNG"]);
    succeed(
        at,
        &words("sample --init-image one.png --steps 2 --num 1 --out made.png"),
    );
    fail(
        at,
        &words("sample --like made.png"),
        &["made.png", "given image"],
    );
    fail(
        at,
        &words("sample --like one.png --out one.png"),
        &["--like", "--out"],
    );
}

/// A picture of another size or in colour is not taken without a word.
#[test]
fn what_is_lost_of_a_given_image_is_said() {
    let dir = workplace();
    let at = dir.path();
    let said = |picture: &str| {
        let args = [
            "sample",
            "--init-image",
            picture,
            "--num",
            "1",
            "--steps",
            "2",
        ];
        let output = dis(at, &args);
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    image::RgbImage::from_pixel(20, 30, image::Rgb([200, 10, 10]))
        .save(at.join("photo.png"))
        .unwrap();
    let words = "--init-image photo.png: cropped and scaled from 20x30 to 8x8, and made grey";
    assert!(said("photo.png").contains(words), "{}", said("photo.png"));
    image::GrayImage::new(8, 8)
        .save(at.join("grey.png"))
        .unwrap();
    let quiet = said("grey.png");
    assert!(!quiet.contains("--init-image"), "{quiet}");
    assert!(quiet.contains("model: bundled digits model:"), "{quiet}");
}

/// Asked to stop, it ends after a step and says what there is.
#[cfg(unix)]
#[test]
fn a_signal_ends_a_drawing() {
    let dir = workplace();
    let at = dir.path();
    let args = words("sample --num 100000 --steps 9 --batch-size 8 --threads 1 --out pictures");
    let mut child = command(at, &args).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !at.join("pictures/000007-class0.png").exists() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let mut kill = Command::new("kill");
    let pid = child.id().to_string();
    assert!(kill.args(["-INT", &pid]).status().unwrap().success());
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    let drawn = names(&at.join("pictures")).len();
    assert_eq!(drawn % 8, 0);
    let words = format!("stopped after {drawn} of 100000 images in pictures");
    assert!(said.contains(&words), "{said}");
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
