//! Files that PyTorch wrote (`data/make.py`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use dis_files::FileError;
use dis_files::torch::{TorchError, TorchFile};

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
    let tensors = file.tensors("types").unwrap();
    assert_eq!(tensors.len(), 15);
    for tensor in tensors {
        let float = tensor.name.contains("float");
        let expected = signed.map(|x: f32| match tensor.name.as_str() {
            "bool" => f32::from(u8::from(x != 0.0)),
            _ if float => x,
            name if name.starts_with("uint") => x.abs().trunc(),
            _ => x.trunc(),
        });
        assert_eq!(file.read(&tensor).unwrap(), expected, "{}", tensor.name);
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
        assert_eq!(file.read(&tensor).unwrap(), expected, "{name}");
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
    assert_eq!(file.names("wrapped"), ["module.weight", "module.bias"]);
    assert_eq!(file.names("deep/module/state_dict"), ["weight", "bias"]);
    assert_eq!((file.count("deep"), file.count("deep/nothing")), (0, 0));
    let parameter = file.tensor("param/p").unwrap();
    assert_eq!(file.read(&parameter).unwrap(), [1.0, 2.0]);
    assert_eq!(file.tensor("opt/state/0/exp_avg").unwrap().shape, [2, 3]);
    let args = file.values("args");
    assert_eq!(args["num_classes"], 10);
    assert_eq!((&args["lr"], &args["loss"]), (&1e-4.into(), &0.5.into()));
    assert_eq!(
        (&args["steps"], &args["negative"]),
        (&7.into(), &(-5).into())
    );
    assert_eq!((&args["flag"], &args["name"]), (&true.into(), &"x".into()));
    assert!(args["nothing"].is_null() && args.get("big").is_none());
    assert!(file.values("epoch").is_empty() && !file.contains("epochs"));
    for path in ["args", "nowhere", "types/float32"] {
        let message = file.tensors(path).unwrap_err().to_string();
        assert!(message.contains(path), "{message}");
    }
}

#[test]
fn other_protocols_and_a_bare_state_dict() {
    for (name, path) in [
        ("protocol3.pt", "model"),
        ("protocol4.pt", "model"),
        ("bare.pt", ""),
    ] {
        let mut file = open(name);
        let tensors = file.tensors(path).unwrap();
        let values: Vec<f32> = tensors.iter().flat_map(|t| file.read(t).unwrap()).collect();
        assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, -1.0, -2.0], "{name}");
    }
}

#[test]
fn what_would_run_code_is_refused_by_name() {
    match TorchFile::open(&data("runs.pt")) {
        Err(FileError::Torch {
            source: TorchError::Global { name },
            ..
        }) => assert_eq!(name, "posix.system"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn other_files_of_pytorch_say_what_they_are() {
    let refused = |name: &str, word: &str| {
        let file = TorchFile::open(&data(name)).and_then(|mut file| file.tensors("model"));
        let message = file.unwrap_err().to_string();
        assert!(
            message.contains(word) && message.contains(name),
            "{message}"
        );
    };
    refused("legacy.pt", "before 1.6");
    refused("script.pt", "TorchScript");
    refused("meta.pt", "\"meta\"");
}
