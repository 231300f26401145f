//! Files that PyTorch wrote (`data/make.py`), and ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Cursor;
use std::path::{Path, PathBuf};

use dis_model::checkpoint::{
    Entry, InferHints, WeightFile, read_tensors, serialize_arena, write_torch,
};
use dis_model::{Checkpoint, ConditionKind, DisConfig, DisModel, Metadata};

/// Files that PyTorch wrote.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../dis-files/tests/data")
        .join(name)
}

#[test]
fn entries_are_chosen_and_wrappers_taken_off() {
    let names = |entry: &str| -> Vec<String> {
        let file = WeightFile::open(&data("types.pt"), &Entry::Named(entry.into())).unwrap();
        file.tensors().iter().map(|t| t.name.clone()).collect()
    };
    for entry in ["wrapped", "deep", "deep/module/state_dict"] {
        assert_eq!(names(entry), ["weight", "bias"], "{entry}");
    }
    let refused = |entry: &Entry| {
        let file = WeightFile::open(&data("types.pt"), entry);
        file.unwrap_err().to_string()
    };
    let unclear = refused(&Entry::Auto);
    assert!(
        unclear.contains("unclear") && unclear.contains("\"types\" (15)"),
        "{unclear}"
    );
    for entry in [Entry::Ema, Entry::Raw, Entry::Named("args".into())] {
        let message = refused(&entry);
        assert!(message.contains("\"views\" (8)"), "{message}");
    }
    for name in ["protocol4.pt", "bare.pt"] {
        let file = WeightFile::open(&data(name), &Entry::Auto).unwrap();
        assert_eq!(file.tensors().len(), 2, "{name}");
    }
    let legacy = WeightFile::open(&data("legacy.pt"), &Entry::Auto).unwrap_err();
    assert!(legacy.to_string().contains("before 1.6"), "{legacy}");
}

#[test]
fn the_published_layout_loads_and_asks_where_unclear() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/checkpoint_tiny.pt");
    let load = |null_label, entry: &Entry| {
        let hints = InferHints {
            null_label,
            ..InferHints::default()
        };
        Checkpoint::load_entry(&path, entry, &hints)
    };
    let message = load(None, &Entry::Auto).unwrap_err().to_string();
    assert!(message.contains("say which") && message.contains("not believed"));
    let config = |null_label| *load(Some(null_label), &Entry::Auto).unwrap().model.config();
    let classes = |num_classes, null_label| ConditionKind::Classes {
        num_classes,
        null_label,
    };
    assert_eq!(config(true).condition, classes(10, true));
    assert_eq!(config(false).condition, classes(11, false));
    assert_eq!((config(true).image_size, config(true).depth), (8.into(), 4));
    let weights = |entry: &Entry| load(Some(true), entry).unwrap().weights;
    assert_eq!(weights(&Entry::Auto), weights(&Entry::Ema));
    assert_ne!(weights(&Entry::Ema), weights(&Entry::Raw));
}

fn small() -> Checkpoint {
    let mut config = DisConfig::new(8, 2, 3, 16, 2);
    config.condition = ConditionKind::Classes {
        num_classes: 3,
        null_label: true,
    };
    let model = DisModel::new(config).unwrap();
    Checkpoint {
        weights: model.table().initial(1),
        model,
        metadata: Metadata::new(config),
    }
}

#[test]
fn ours_come_back_and_equal_content_gives_equal_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let ours = small();
    let (a, b) = (dir.path().join("a.pt"), dir.path().join("b.pt"));
    ours.save_torch(&a).unwrap();
    ours.save_torch(&b).unwrap();
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    let again = Checkpoint::load(&a, &InferHints::default()).unwrap();
    assert_eq!(again.weights, ours.weights);
    assert_eq!(again.metadata, ours.metadata);
    // The two entries share their storages.
    let stored = 4 * ours.model.table().parameters() as u64;
    assert!(std::fs::metadata(&a).unwrap().len() < stored + stored / 2);

    let table = ours.model.table();
    let other = table.initial(2);
    let mut bytes = Vec::new();
    let entries = [("model", ours.weights.as_slice()), ("ema", &other)];
    write_torch(&mut bytes, table, &entries, None).unwrap();
    let arena = |entry| {
        let file = WeightFile::new(Cursor::new(&bytes), Path::new("x"), &entry);
        file.unwrap().read_arena(table).unwrap()
    };
    assert_eq!(
        (arena(Entry::Raw), arena(Entry::Ema)),
        (ours.weights, other)
    );
}

#[test]
fn weights_that_are_not_numbers_are_refused() {
    let mut ours = small();
    let spec = ours.model.table().find("norm_f.weight").unwrap().clone();
    ours.weights[spec.offset + 2] = f32::NEG_INFINITY;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    for torch in [false, true] {
        if torch {
            ours.save_torch(&path).unwrap();
        } else {
            ours.save(&path).unwrap();
        }
        let error = Checkpoint::load(&path, &InferHints::default()).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("\"norm_f.weight\" holds -inf at element 2"),
            "{message}"
        );
    }
}

#[test]
fn damaged_safetensors_are_refused() {
    let bytes = small().to_bytes().unwrap();
    let refused = |bytes: &[u8], word: &str| {
        let message = read_tensors(bytes, Path::new("x")).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    };
    refused(&[], "0 bytes");
    refused(&bytes[..7], "7 bytes");
    refused(&bytes[..100], "header");
    refused(&bytes[..bytes.len() - 4], "are there");
    refused(&[&bytes[..], &[0]].concat(), "are there");
    let mut changed = bytes.clone();
    changed[8] = b'[';
    refused(&changed, "not a valid safetensors file");
    // A model of many blocks in the metadata of a file of few tensors.
    let ours = small();
    for (depth, word) in [(4, "is missing"), (9_998, "9999 blocks")] {
        let mut metadata = ours.metadata.clone();
        metadata.model.depth = depth;
        let table = ours.model.table();
        let bytes = serialize_arena(table, &ours.weights, Some(&metadata)).unwrap();
        let error = Checkpoint::from_bytes(&bytes, Path::new("x"), &InferHints::default());
        let message = error.unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
}
