//! `--init-from`: what is taken from a checkpoint of other images and classes, and what is drawn.

use std::fs;
use std::path::Path;

use dis_model::checkpoint::InferHints;
use dis_model::{Checkpoint, Metadata};
use image::{GrayImage, Luma};

use crate::common::{dis, fail, succeed};

const CONFIG: &str = r#"
[model]
patch_size = 2
embed_dim = 16
depth = 2

[data]
spec = "animals,size=8,grey"

[train]
steps = 2
batch_size = 2
sample_every = 0
"#;

/// Two pictures of each class, in a folder of that name.
fn pictures(at: &Path, folder: &str, classes: &[&str]) {
    for (i, class) in classes.iter().enumerate() {
        let dir = at.join(folder).join(class);
        fs::create_dir_all(&dir).unwrap();
        for j in 0..2 {
            let level = |x, y| Luma([(40 * i as u32 + 9 * j + 5 * x + 3 * y) as u8]);
            let picture = GrayImage::from_fn(16, 16, level);
            picture.save(dir.join(format!("{j}.png"))).unwrap();
        }
    }
}

/// The weights that a run began with: it made no step with a learning rate of 0.
fn weights(at: &Path, run: &str) -> Checkpoint {
    let file = at
        .join(run)
        .join("checkpoints/step-00000002/weights.safetensors");
    Checkpoint::load(&file, &InferHints::default()).unwrap()
}

fn rows(checkpoint: &Checkpoint, name: &str) -> Vec<Vec<f32>> {
    let spec = checkpoint.model.table().find(name).unwrap();
    let values = &checkpoint.weights[spec.offset..spec.offset + spec.len()];
    values.chunks_exact(16).map(<[f32]>::to_vec).collect()
}

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "--config", "run.toml"], more].concat()
}

#[test]
fn fine_tuning_on_other_images_and_classes() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::write(at.join("run.toml"), CONFIG).unwrap();
    pictures(at, "animals", &["cat", "dog", "owl"]);
    pictures(at, "more", &["ant", "dog", "elk", "owl"]);
    succeed(at, &train(&["--out", "first"]));

    // A rate of 0 leaves the weights as they began.
    let still = ["--lr", "0", "--seed", "7", "--init-from", "first"];
    fs::write(
        at.join("run.toml"),
        CONFIG.replace("steps", "min_lr = 0.0\nsteps"),
    )
    .unwrap();
    let tune = |out: &str, data: &str| {
        let output = dis(
            at,
            &train(&[&still[..], &["--data", data, "--out", out]].concat()),
        );
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let record = fs::read_to_string(at.join(out).join("init-from.json")).unwrap();
        (
            said,
            serde_json::from_str::<serde_json::Value>(&record).unwrap(),
            weights(at, out),
        )
    };
    let (said, record, same) = tune("same", "animals,size=8,grey");
    let ema = at.join("first/checkpoints/step-00000002/ema.safetensors");
    let first = Checkpoint::load(&ema, &InferHints::default()).unwrap();
    assert_eq!(same.weights, first.weights);
    let tensors = first.model.table().specs().len();
    assert!(
        said.contains(&format!("from first: took {tensors} tensors")),
        "{said}"
    );
    assert_eq!(
        record,
        serde_json::json!({"checkpoint": "first", "taken": tensors})
    );

    let (said, record, more) = tune("more-classes", "more,size=12,grey");
    assert!(
        said.contains("position table resized from 4x4 to 6x6"),
        "{said}"
    );
    assert!(
        said.contains("classes kept: 2 of 4 (dog, owl), drawn: ant, elk, left out: cat"),
        "{said}"
    );
    assert_eq!(record["positions"], serde_json::json!([[4, 4], [6, 6]]));
    assert_eq!(
        record["classes"]["drawn"],
        serde_json::json!(["ant", "elk"])
    );
    let table = "label_emb.embedding_table.weight";
    let (old, new) = (rows(&first, table), rows(&more, table));
    assert_eq!((&new[1], &new[3], &new[4]), (&old[1], &old[2], &old[3]));
    assert!(new[0] != old[0] && new[2] != old[2]);
    let (old, new) = (rows(&first, "pos_embed"), rows(&more, "pos_embed"));
    assert_eq!((new.len(), &new[..2]), (38, &old[..2]));
    // The metadata are those of a run that began by itself.
    let Metadata { model, extra, .. } = more.metadata;
    assert_eq!(model.image_size, 12.into());
    assert_eq!(
        extra["class_names"],
        serde_json::json!(["ant", "dog", "elk", "owl"])
    );
    assert!(!extra.contains_key("init_from"));

    let (said, _, without) = tune("without", "animals,size=8,grey,unconditional");
    assert!(
        said.contains("left out: pos_embed of the condition, label_emb"),
        "{said}"
    );
    assert_eq!(
        rows(&without, "pos_embed")[..],
        rows(&first, "pos_embed")[1..]
    );
}

#[test]
fn other_architectures_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::write(at.join("run.toml"), CONFIG).unwrap();
    pictures(at, "animals", &["cat", "dog"]);
    succeed(at, &train(&["--out", "first"]));
    let refused = |data: &str, old: &str, new: &str, words: &[&str]| {
        fs::write(at.join("run.toml"), CONFIG.replace(old, new)).unwrap();
        let more = ["--out", "x", "--init-from", "first", "--data", data];
        fail(at, &train(&more), words);
        assert!(!at.join("x").exists());
    };
    let grey = "animals,size=8,grey";
    let patch = "\"patch_embed.proj.weight\" has shape [16, 1, 2, 2]";
    refused(
        grey,
        "patch_size = 2",
        "patch_size = 4",
        &[patch, "[16, 1, 4, 4]", "patch_size is 2"],
    );
    refused(
        "animals,size=8",
        "",
        "",
        &[patch, "[16, 3, 2, 2]", "channels is 1 there and 3 here"],
    );
    refused(
        grey,
        "embed_dim = 16",
        "embed_dim = 32",
        &["\"pos_embed\"", "[1, 18, 16]", "[1, 18, 32]"],
    );
    refused(
        grey,
        "depth = 2",
        "depth = 4",
        &["\"in_blocks.1.", "depth is 2 there and 4 here"],
    );
}
