//! How many images each class and each given picture gets, and what classes are called.

use std::fs;
use std::path::Path;

use crate::common::{self, class_folders, fail, names, short_run, succeed, words, workplace};

/// Classes of the images in an npz, counted.
fn counts(file: &Path, classes: usize) -> Vec<usize> {
    let data = dis_data::open_npz(file).unwrap();
    let mut counts = vec![0; classes];
    for &label in data.labels().unwrap() {
        counts[label as usize] += 1;
    }
    counts
}

#[test]
fn any_number_of_images_is_divided_over_all_classes() {
    let dir = workplace();
    let at = dir.path();
    let draw = |num: &str| {
        succeed(
            at,
            &["sample", "--steps", "1", "--num", num, "--out", "a.npz"],
        );
        counts(&at.join("a.npz"), 10)
    };
    assert_eq!(draw("12"), [2, 2, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(draw("19"), [2, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
    // Fewer images than classes are spread over them.
    assert_eq!(draw("4"), [1, 0, 1, 0, 0, 1, 0, 1, 0, 0]);
    // Rows from noise to noise take turns.
    let walk = ["sample", "--interpolate", "noise", "--frames", "2"];
    let more = ["--num", "8", "--steps", "1", "--out", "a.npz"];
    succeed(at, &[&walk[..], &more].concat());
    assert_eq!(
        counts(&at.join("a.npz"), 10),
        [2, 0, 2, 0, 0, 2, 0, 2, 0, 0]
    );
}

#[test]
fn given_pictures_and_classes_each_get_their_share() {
    let dir = workplace();
    let at = dir.path();
    fs::create_dir(at.join("five")).unwrap();
    for i in 0..5u8 {
        let flat = image::GrayImage::from_pixel(8, 8, image::Luma([60 * i]));
        flat.save(at.join(format!("five/{i}.png"))).unwrap();
    }
    let draw = |num: &str, out: &str| -> Vec<(usize, String)> {
        let base = ["sample", "--init-image", "five", "--strength", "0.05"];
        let more = ["--classes", "3,5,7", "--steps", "20", "--num", num];
        succeed(at, &[&base[..], &more, &["--out", out]].concat());
        let drawn = names(&at.join(out)).into_iter().map(|name| {
            let image = image::open(at.join(out).join(&name)).unwrap().into_luma8();
            let mean = image.iter().map(|&v| u32::from(v)).sum::<u32>() / 64;
            let class = name.split("class").nth(1).unwrap().replace(".png", "");
            (((mean + 30) / 60) as usize, class)
        });
        drawn.collect()
    };
    let of = |pairs: &[(usize, &str)]| -> Vec<(usize, String)> {
        pairs.iter().map(|&(i, c)| (i, c.to_owned())).collect()
    };
    assert_eq!(draw("3", "a"), of(&[(0, "3"), (1, "5"), (2, "7")]));
    assert_eq!(
        draw("7", "b"),
        of(&[
            (0, "3"),
            (0, "5"),
            (1, "3"),
            (1, "7"),
            (2, "5"),
            (3, "7"),
            (4, "3")
        ])
    );
    // As many as there are of both: every picture under every class.
    let all = draw("15", "c");
    let expected = (0..5).flat_map(|i| ["3", "5", "7"].map(|c| (i, c.to_owned())));
    assert_eq!(all, expected.collect::<Vec<_>>());
}

#[test]
fn classes_go_by_their_names() {
    let dir = workplace();
    let at = dir.path();
    let grey = [9; 3];
    class_folders(
        &at.join("numbers"),
        &[("1", grey, 2), ("2", grey, 2), ("10", grey, 2)],
    );
    short_run(at, "numbers,size=8", "numbered");
    let sample = |run: &str, more: &[&str]| -> Vec<String> {
        let base = ["sample", "--checkpoint", run, "--steps", "1", "--out", "x"];
        let _ = fs::remove_dir_all(at.join("x"));
        succeed(at, &[&base[..], more].concat());
        names(&at.join("x"))
    };
    let ten = sample("numbered", &["--classes", "10", "--num", "1"]);
    assert_eq!(ten, ["000000-class10.png"]);
    assert_eq!(
        sample("numbered", &["--num", "3"]),
        [
            "000000-class1.png",
            "000001-class10.png",
            "000002-class2.png"
        ]
    );
    let refuse = |run: &str, list: &str, words: &[&str]| {
        let args = ["sample", "--checkpoint", run, "--classes", list];
        fail(at, &args, words);
    };
    refuse(
        "numbered",
        "0",
        &["--classes", "no class \"0\"", "\"1\", \"10\", \"2\""],
    );

    class_folders(
        &at.join("pets"),
        &[("cat, tabby", grey, 2), ("dog", grey, 2)],
    );
    short_run(at, "pets,size=8", "pets-run");
    let both = ["000000-classcat, tabby.png", "000001-classdog.png"];
    for list in ["cat, tabby,dog", "\"cat, tabby\", dog", "0,1"] {
        assert_eq!(sample("pets-run", &["--classes", list, "--num", "2"]), both);
    }
    let twice = ["--classes", "cat, tabby", "--classes", "dog"];
    assert_eq!(
        sample("pets-run", &[&twice[..], &["--num", "2"]].concat()),
        both
    );
    refuse("pets-run", "cat", &["\"cat, tabby\", \"dog\""]);
}

#[test]
fn classes_without_images_are_drawn_only_when_asked_for() {
    let dir = workplace();
    let at = dir.path();
    short_run(at, "digits-train", "run");
    let file = at.join("run/checkpoints/step-00000002/ema.safetensors");
    let mut checkpoint = dis_model::Checkpoint::load(&file, &Default::default()).unwrap();
    let extra = &mut checkpoint.metadata.extra;
    extra.insert("unoccupied_classes".into(), serde_json::json!([0, 4]));
    checkpoint.save(&at.join("gaps.safetensors")).unwrap();
    let base = ["sample", "--checkpoint", "gaps.safetensors", "--steps", "1"];
    let draw = |more: &[&str]| {
        let args = [&base[..], more, &["--out", "a.npz"]].concat();
        let output = common::dis(at, &args);
        assert!(output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (counts(&at.join("a.npz"), 10), said)
    };
    let (counts, said) = draw(&["--num", "9"]);
    assert_eq!(counts, [0, 2, 1, 1, 0, 1, 1, 1, 1, 1]);
    assert!(!said.contains("warning"), "{said}");
    let (counts, said) = draw(&["--num", "4", "--classes", "4,5"]);
    assert_eq!(counts, [0, 0, 0, 0, 2, 2, 0, 0, 0, 0]);
    assert!(
        said.contains("warning") && said.contains("no image of class 4"),
        "{said}"
    );
    let judge = words("eval gaps.safetensors --reference digits --steps 1");
    let more = ["--num", "6", "--metrics", "fid", "--bootstrap", "0"];
    let said = succeed(at, &[&judge[..], &more].concat());
    assert!(said.contains("6 of the model's 8 classes"), "{said}");
}
