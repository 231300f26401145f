//! Files that PyTorch wrote (`data/make.py`), and ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Cursor;
use std::path::{Path, PathBuf};

use dis_model::checkpoint::{
    Entry, InferHints, TorchError, TorchFile, WeightFile, read_tensors, serialize_arena,
    write_torch,
};
use dis_model::{Checkpoint, ConditionKind, DisConfig, DisModel, Metadata, ModelError};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn open(name: &str) -> TorchFile {
    TorchFile::open(&data(name)).unwrap()
}

#[test]
fn every_type_is_read() {
    let mut file = open("types.pt");
    let signed = [0.0, 1.0, 2.0, 3.0, 1.5, -2.0, 96.0, 0.25];
    let tensors = file.tensors(&Entry::Named("types".into())).unwrap();
    assert_eq!(tensors.len(), 15);
    for tensor in tensors {
        let float = tensor.name.contains("float");
        let expected = signed.map(|x: f32| match tensor.name.as_str() {
            "bool" => f32::from(u8::from(x != 0.0)),
            _ if float => x,
            name if name.starts_with("uint") => x.abs().trunc(),
            _ => x.trunc(),
        });
        assert_eq!(
            file.read(&tensor).unwrap().data,
            expected,
            "{}",
            tensor.name
        );
    }
}

#[test]
fn views_are_read_row_major() {
    let mut file = open("types.pt");
    let base = |row: usize, column: usize| (6 * row + column) as f32 - 5.0;
    let mut check = |name: &str, shape: &[usize], at: &dyn Fn(usize, usize) -> f32| {
        let tensor = file.tensor(&format!("views/{name}")).unwrap();
        assert_eq!(tensor.shape, shape, "{name}");
        let columns = shape.last().copied().unwrap_or(1).max(1);
        let expected: Vec<f32> = (0..shape.iter().product())
            .map(|i| at(i / columns, i % columns))
            .collect();
        assert_eq!(tensor.data, expected, "{name}");
    };
    check("dense", &[4, 6], &base);
    check("transposed", &[6, 4], &|r, c| base(c, r));
    check("offset", &[2, 3], &|r, c| base(r + 1, c + 2));
    check("strided", &[2, 2], &|r, c| base(2 * r, 3 * c));
    check("scalar", &[], &|_, _| 7.5);
    check("empty", &[0, 3], &|_, _| 0.0);
    check("flat", &[4], &|_, c| c as f32);
    check("expanded", &[2, 3], &|_, _| -5.0);
}

#[test]
fn entries_and_what_wraps_them() {
    let mut file = open("types.pt");
    let entries = file.entries();
    let count = |name: &str| entries.iter().find(|(n, _)| n == name).map(|(_, n)| *n);
    assert_eq!((count("types"), count("views")), (Some(15), Some(8)));
    assert_eq!((count("wrapped"), count("param")), (Some(2), Some(1)));
    let mut names = |entry: &str| -> Vec<String> {
        let tensors = file.tensors(&Entry::Named(entry.into())).unwrap();
        tensors.into_iter().map(|t| t.name).collect()
    };
    assert_eq!(names("wrapped"), ["weight", "bias"]);
    assert_eq!(names("deep"), ["weight", "bias"]);
    assert_eq!(names("deep/module/state_dict"), ["weight", "bias"]);
    assert_eq!(file.tensor("param/p").unwrap().data, [1.0, 2.0]);
    assert_eq!(file.tensor("opt/state/0/exp_avg").unwrap().shape, [2, 3]);
    let args = file.arguments();
    assert_eq!(args["num_classes"], 10);
    assert_eq!((&args["lr"], &args["loss"]), (&1e-4.into(), &0.5.into()));
    assert_eq!(
        (&args["steps"], &args["negative"]),
        (&7.into(), &(-5).into())
    );
    assert_eq!((&args["flag"], &args["name"]), (&true.into(), &"x".into()));
    assert!(args["nothing"].is_null() && args.get("big").is_none());
    let unclear = file.tensors(&Entry::Auto).unwrap_err().to_string();
    assert!(unclear.contains("unclear") && unclear.contains("\"types\" (15)"));
    for entry in [Entry::Ema, Entry::Raw, Entry::Named("args".into())] {
        let message = file.tensors(&entry).unwrap_err().to_string();
        assert!(message.contains("\"views\" (8)"), "{message}");
    }
}

#[test]
fn other_protocols_and_a_bare_state_dict() {
    for name in ["protocol3.pt", "protocol4.pt", "bare.pt"] {
        let mut file = open(name);
        let tensors = file.tensors(&Entry::Auto).unwrap();
        let values: Vec<f32> = tensors
            .iter()
            .flat_map(|t| file.read(t).unwrap().data)
            .collect();
        assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, -1.0, -2.0], "{name}");
    }
}

#[test]
fn what_would_run_code_is_refused_by_name() {
    match TorchFile::open(&data("runs.pt")) {
        Err(ModelError::Torch {
            source: TorchError::Global { name },
            ..
        }) => assert_eq!(name, "posix.system"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn other_files_of_pytorch_say_what_they_are() {
    let refused = |name: &str, word: &str| {
        let file = WeightFile::open(&data(name), &Entry::Auto);
        let message = file.map(|_| ()).unwrap_err().to_string();
        assert!(
            message.contains(word) && message.contains(name),
            "{message}"
        );
    };
    refused("legacy.pt", "before 1.6");
    refused("script.pt", "TorchScript");
    refused("meta.pt", "\"meta\"");
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
    assert_eq!((config(true).image_size, config(true).depth), (8, 4));
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
