//! `dis convert`, and the other commands on `.pt` files.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{TINY, fail, succeed, words};
use dis_files::npz::{Array, write_npz};
use dis_files::torch::{Dict, write_torch};
use dis_files::{ElementType, SafetensorsFile, View, le_bytes, write_safetensors};

fn golden(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    root.join(name).to_string_lossy().into_owned()
}

fn bundled() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/digits.safetensors");
    path.to_string_lossy().into_owned()
}

#[test]
fn to_torch_and_back_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let said = succeed(dir, &["convert", &bundled(), "digits.pt"]);
    assert!(said.contains("parameters"), "{said}");
    succeed(dir, &["convert", "digits.pt", "again.safetensors"]);
    let bytes = |path: PathBuf| fs::read(path).unwrap();
    assert_eq!(
        bytes(dir.join("again.safetensors")),
        bytes(bundled().into())
    );
    // The metadata travel along, so no question is asked.
    let info = |name: &str| succeed(dir, &["info", "--json", "--checkpoint", name]);
    assert_eq!(info("digits.pt"), info(&bundled()));
}

#[test]
fn published_files_convert_and_are_asked_about_where_unclear() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let pt = golden("checkpoint_tiny.pt");
    // Its arguments are those of a stock model, so they are not believed.
    fail(
        dir,
        &["convert", &pt, "x.safetensors"],
        &["11 rows", "DiS-S/2", "--null-label true or false"],
    );
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    let convert = |out: &str, more: &[&str]| {
        let args = [&["convert", &pt, out, "--null-label", "true"], more].concat();
        let said = succeed(dir, &args);
        (said, fs::read(dir.join(out)).unwrap())
    };
    let (said, ema) = convert("ema.safetensors", &[]);
    assert!(said.contains("entry ema"), "{said}");
    let (said, raw) = convert("raw.safetensors", &["--raw"]);
    assert!(said.contains("entry model"), "{said}");
    assert_ne!(ema, raw);
    assert_eq!(convert("e.safetensors", &["--ema"]).1, ema);
    assert_eq!(convert("m.safetensors", &["--entry", "model"]).1, raw);
    let small = ["--num", "2", "--steps", "2", "--out", "s.png"];
    let sample = ["sample", "--checkpoint", "ema.safetensors"];
    succeed(dir, &[&sample[..], &small].concat());
    let sample = ["sample", "--checkpoint", &pt, "--null-label", "true"];
    succeed(dir, &[&sample[..], &small].concat());
}

#[test]
fn a_run_becomes_one_file_of_weights_and_average() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("tiny.toml"), TINY).unwrap();
    succeed(dir, &words("train --config tiny.toml --out run --steps 3"));
    succeed(dir, &["convert", "run", "both.pt"]);
    for (option, file) in [("--ema", "ema"), ("--raw", "weights")] {
        let out = format!("{file}.safetensors");
        succeed(dir, &["convert", "both.pt", &out, option]);
        let kept = format!("run/checkpoints/step-00000003/{file}.safetensors");
        assert_eq!(
            fs::read(dir.join(&out)).unwrap(),
            fs::read(dir.join(kept)).unwrap()
        );
    }
}

/// The bundled model with another word before each of its names, as safetensors and as `.pt`.
fn renamed(dir: &Path, name: &str, rename: &dyn Fn(&str) -> Vec<String>) {
    let mut file = SafetensorsFile::open(bundled().as_ref()).unwrap();
    let metadata = file.metadata("dis").unwrap().to_string();
    let tensors: Vec<_> = file.tensors().to_vec();
    let mut values = Vec::new();
    for tensor in &tensors {
        let data = file.read(&tensor.name).unwrap();
        for name in rename(&tensor.name) {
            // What is no average differs from it.
            let raw = name.starts_with("model.");
            let data: Vec<f32> = data
                .iter()
                .map(|x| if raw { x / 2.0 } else { *x })
                .collect();
            values.push((name, tensor.shape.clone(), data));
        }
    }
    values.push(("n_averaged".into(), vec![], vec![3.0]));
    let views = values.iter().map(|(name, shape, data)| View {
        name,
        shape,
        element: ElementType::F32,
        data: le_bytes(data),
    });
    let views: Vec<View<'_>> = views.collect();
    let mut bytes = Vec::new();
    let map = HashMap::from([("dis".to_string(), metadata.clone())]);
    write_safetensors(&mut bytes, &views, Some(map)).unwrap();
    fs::write(dir.join(format!("{name}.safetensors")), bytes).unwrap();
    let tensors = values
        .iter()
        .map(|(n, s, d)| (n.as_str(), s.as_slice(), d.as_slice()));
    let dict = Dict {
        name: "state_dict",
        tensors: tensors.collect(),
    };
    let file = fs::File::create(dir.join(format!("{name}.pt"))).unwrap();
    write_torch(file, &[dict], &[("dis", &metadata)]).unwrap();
}

#[test]
fn words_of_wrappers_before_names_are_taken_off_in_either_format() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    succeed(dir, &["convert", &bundled(), "plain.safetensors"]);
    let plain = fs::read(dir.join("plain.safetensors")).unwrap();
    for prefix in [
        "module.",
        "_orig_mod.",
        "model.",
        "ema_model.",
        "module._orig_mod.module.",
    ] {
        renamed(dir, "x", &|name| vec![format!("{prefix}{name}")]);
        for file in ["x.safetensors", "x.pt"] {
            succeed(dir, &["convert", file, "back.safetensors"]);
            let back = fs::read(dir.join("back.safetensors")).unwrap();
            assert_eq!(back == plain, prefix != "model.", "{prefix} {file}");
        }
    }
    // Weights and average side by side, as training frameworks keep them.
    renamed(dir, "two", &|name| {
        vec![format!("model.{name}"), format!("ema_model.{name}")]
    });
    for file in ["two.safetensors", "two.pt"] {
        let convert = |more: &[&str]| {
            let args = [&["convert", file, "one.safetensors"], more].concat();
            (
                succeed(dir, &args),
                fs::read(dir.join("one.safetensors")).unwrap(),
            )
        };
        let (said, bytes) = convert(&[]);
        assert!(said.contains("ema_model") && bytes == plain, "{said}");
        assert!(convert(&["--ema"]).1 == plain);
        let (said, raw) = convert(&["--raw"]);
        assert!(said.contains("model") && raw != plain, "{said}");
    }
    let small = ["--num", "1", "--steps", "1", "--out", "s.png"];
    succeed(
        dir,
        &[&["sample", "--checkpoint", "two.safetensors"], &small[..]].concat(),
    );
}

#[test]
fn other_files_are_called_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n";
    write("pointer.safetensors", pointer.as_bytes());
    write("page.pt", b"\n<!DOCTYPE html>\n<html></html>");
    write(
        "model.safetensors.index.json",
        br#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}"#,
    );
    write("model.safetensors.gz", b"\x1F\x8B\x08\0\0\0\0\0");
    write("missing.pt", b"Entry not found");
    write("arrays.pt", &fs::read(arrays(dir)).unwrap());
    write("picture.pt", b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR");
    for (name, words) in [
        (
            "pointer.safetensors",
            &["Git LFS pointer", "git lfs pull"][..],
        ),
        ("page.pt", &["web page (HTML)", "not a checkpoint"]),
        (
            "model.safetensors.index.json",
            &["sharded checkpoint", "2 shards", "model-2-of-2.safetensors"],
        ),
        ("model.safetensors.gz", &["gzip", "gunzip"]),
        ("missing.pt", &["Entry not found"]),
        ("arrays.pt", &["an .npz file of arrays"]),
        ("picture.pt", &["PNG picture"]),
    ] {
        let all = [&[name], words].concat();
        fail(dir, &["info", "--checkpoint", name], &all);
        fail(
            dir,
            &["sample", "--checkpoint", name, "--out", "x.png"],
            &all,
        );
        fail(dir, &["convert", name, "x.safetensors"], &all);
    }
    // What a classifier or an .npz file should be.
    fail(
        dir,
        &["eval", "page.pt", "--reference", "digits"],
        &["web page (HTML)"],
    );
    let features = ["--features", "classifier:pointer.safetensors"];
    let eval = ["eval", "digits-held-out", "--reference", "digits-train"];
    fail(dir, &[&eval[..], &features].concat(), &["git lfs pull"]);
    fs::copy(dir.join("page.pt"), dir.join("page.npz")).unwrap();
    fail(
        dir,
        &["eval", "npz:page.npz", "--save-statistics", "s"],
        &["web page (HTML), not an .npz file"],
    );
}

/// An `.npz` file.
fn arrays(dir: &Path) -> PathBuf {
    let path = dir.join("arrays.npz");
    let mu = Array::from_f64(&[2], &[0.0, 1.0]).unwrap();
    write_npz(&path, &[("mu", &mu)]).unwrap();
    path
}

#[test]
fn names_of_outputs_may_be_in_capitals() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    succeed(dir, &["convert", "bundled", "X.PT"]);
    succeed(dir, &["convert", "X.PT", "X.SafeTensors"]);
    let bytes = fs::read(dir.join("X.SafeTensors")).unwrap();
    assert_eq!(bytes, fs::read(bundled()).unwrap());
    let small = ["sample", "--num", "1", "--steps", "1"];
    succeed(dir, &[&small[..], &["--out", "X.PNG"]].concat());
    succeed(
        dir,
        &[&small[..], &["--out", "X.NPZ", "--checkpoint", "X.PT"]].concat(),
    );
    assert!(fs::read(dir.join("X.PNG")).unwrap().starts_with(b"\x89PNG"));
    assert!(fs::read(dir.join("X.NPZ")).unwrap().starts_with(b"PK"));
}

#[test]
fn what_cannot_be_converted_is_said_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (st, pt) = (bundled(), golden("checkpoint_tiny.pt"));
    fail(
        dir,
        &["convert", &st, "x.onnx"],
        &["x.onnx", ".safetensors, .pt"],
    );
    fail(dir, &["convert", &st, "no/x.pt"], &["no", "directory"]);
    fail(
        dir,
        &["convert", &st, "x.pt", "--ema"],
        &["one set of weights"],
    );
    fail(dir, &["convert", "gone.pt", "x.safetensors"], &["gone.pt"]);
    fail(
        dir,
        &["convert", &pt, "x.safetensors", "--entry", "best"],
        &["\"best\"", "\"model\"", "\"ema\""],
    );
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dis-files/tests/data/runs.pt");
    fail(
        dir,
        &["convert", &runs.to_string_lossy(), "x.safetensors"],
        &["posix.system", "refused"],
    );
    let half = fs::read(&pt).unwrap();
    fs::write(dir.join("half.pt"), &half[..half.len() / 2]).unwrap();
    fail(
        dir,
        &["convert", "half.pt", "x.safetensors"],
        &["half.pt", "cut off"],
    );
    assert_eq!(fs::read_dir(dir).unwrap().count(), 1);
}

/// Shapes tell how many patches there are, not how they lie.
#[test]
fn sides_of_a_rectangle_are_asked_for_once() {
    use dis_model::{DisConfig, DisModel};
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let model = DisModel::new(DisConfig::new([4, 6], 2, 1, 16, 2)).unwrap();
    let weights = model.table().initial(0);
    let bare = dis_model::checkpoint::serialize_arena(model.table(), &weights, None).unwrap();
    fs::write(dir.join("bare.safetensors"), bare).unwrap();
    let convert = ["convert", "bare.safetensors", "wide.safetensors"];
    let words = ["6 left are not a square", "--image-size WIDTHxHEIGHT"];
    fail(dir, &["info", "--checkpoint", "bare.safetensors"], &words);
    fail(
        dir,
        &[&convert[..], &["--image-size", "6x6"]].concat(),
        &["6x6 have 9 patches"],
    );
    succeed(dir, &[&convert[..], &["--image-size", "6x4"]].concat());
    let info = succeed(dir, &["info", "--checkpoint", "wide.safetensors"]);
    assert!(info.contains("1 x 4 x 6, patch 2"), "{info}");
    let zoo = ["info", "--model", "DiS-S/2", "--image-size", "96x64"];
    let info = succeed(dir, &zoo);
    assert!(
        info.contains("3 x 64 x 96") && info.contains("1536 patches"),
        "{info}"
    );
    let latent = succeed(dir, &[&zoo[..], &["--latent"]].concat());
    assert!(latent.contains("4 x 8 x 12"), "{latent}");
}
