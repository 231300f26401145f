//! Pickles made by hand: what PyTorch never writes, and what a hostile file might.

use std::io::Cursor;
use std::path::Path;

use super::TorchFile;
use crate::error::{FileError, Result};
use crate::zip::ZipWriter;

/// A file of this pickle, with one storage of 16 bytes.
fn file(pickle: &[u8]) -> Result<TorchFile<Cursor<Vec<u8>>>> {
    let mut zip = ZipWriter::new(Vec::new());
    zip.add("x/data.pkl", pickle).unwrap();
    zip.add(
        "x/data/0",
        &[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    )
    .unwrap();
    TorchFile::new(Cursor::new(zip.finish().unwrap()), Path::new("x"))
}

/// A dictionary that has what this builds under "w".
fn wrapped(pickle: &[u8]) -> Vec<u8> {
    [b"\x80\x02}X\x01\0\0\0w", pickle, b"s."].concat()
}

/// A tensor: shape and strides as operations that make tuples.
fn tensor(location: &str, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let text = |t: &str| [b"X", &(t.len() as u32).to_le_bytes()[..], t.as_bytes()].concat();
    let storage = [
        &b"("[..],
        &text("storage"),
        b"ctorch\nIntStorage\n",
        &text("0"),
        &text(location),
        b"K\x04tQ",
    ];
    [
        &b"ctorch._utils\n_rebuild_tensor_v2\n("[..],
        &storage.concat(),
        &[b'K', offset],
        shape,
        strides,
        b"\x89NtR",
    ]
    .concat()
}

fn read(file: &mut TorchFile<Cursor<Vec<u8>>>, path: &str) -> Result<Vec<f32>> {
    let tensor = file.tensor(path)?;
    file.read(&tensor)
}

fn refused(outcome: Result<impl Sized>, word: &str) {
    let message = match outcome {
        Ok(_) => panic!("accepted, but expected {word:?}"),
        Err(FileError::Torch { source, .. }) => source.to_string(),
        Err(other) => panic!("{other}"),
    };
    assert!(message.contains(word), "{message}");
}

#[test]
fn only_what_tensors_need_is_named() {
    let global = |module: &str, name: &str| {
        let pickle = [b"c", module.as_bytes(), b"\n", name.as_bytes(), b"\n"].concat();
        file(&wrapped(&pickle))
    };
    for (module, name) in [
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_from_type_v2"),
        ("collections", "defaultdict"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("os", "getcwd"),
        ("torch", "ComplexFloatStorage"),
        ("a\x1b[31m", "b"),
    ] {
        refused(global(module, name), "refused");
    }
    assert!(global("collections", "OrderedDict").is_ok());
    assert!(global("torch", "bfloat16").is_ok());
    // As a text on the stack, which newer protocols have.
    refused(file(&wrapped(b"\x8C\x02os\x8C\x06system\x93")), "os.system");
    refused(global(&"m".repeat(300), "x"), "name without end");
}

#[test]
fn other_operations_are_refused_by_name() {
    for (code, name) in [
        (b'i', "INST"),
        (b'o', "OBJ"),
        (b'P', "PERSID"),
        (0x82, "EXT1"),
        (0x92, "NEWOBJ_EX"),
        (0x97, "NEXT_BUFFER"),
        (0xFF, "0xff"),
    ] {
        refused(file(&wrapped(&[code, b'\n', b'\n'])), name);
    }
}

#[test]
fn damaged_pickles_are_refused() {
    let whole = wrapped(&tensor("cpu", 0, b"K\x04\x85", b"K\x01\x85"));
    let mut good = file(&whole).unwrap();
    assert_eq!(read(&mut good, "w").unwrap(), [1.0, 2.0, 0.0, 0.0]);
    for len in 0..whole.len() {
        assert!(file(&whole[..len]).is_err(), "{len} bytes");
    }
    refused(file(b"\x80\x02."), "there is none");
    refused(file(b"\x80\x02K\x01."), "no dictionary");
    refused(file(&wrapped(b"h\x07")), "memo 7");
    refused(file(&wrapped(b"t")), "mark");
    refused(file(&wrapped(b"(R")), "where there is none");
    refused(file(&wrapped(b"K\x01K\x02a")), "not a list");
    refused(file(&wrapped(b"K\x01)R")), "no global");
    refused(file(&wrapped(b"X\x02\0\0\0\xFF\xFF")), "UTF-8");
    refused(file(&wrapped(b"X\xFF\xFF\xFF\xFF")), "cut off");
    refused(
        file(&wrapped(b"\x8E\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF")),
        "cut off",
    );
    refused(file(&wrapped(b"NQ")), "arguments");
    refused(
        file(&wrapped(b"ctorch._utils\n_rebuild_tensor_v2\n)R")),
        "unknown way",
    );
}

#[test]
fn tags_of_devices() {
    let at = |location: &str| file(&wrapped(&tensor(location, 0, b"K\x04\x85", b"K\x01\x85")));
    for location in ["cpu", "cuda", "cuda:0", "cuda:13"] {
        assert!(at(location).is_ok(), "{location}");
    }
    for location in ["meta", "cuda:", "cuda:x", "mps", ""] {
        refused(at(location), "cuda:N");
    }
    refused(at(&"c".repeat(100_000)), "cccc");
}

#[test]
fn views_cannot_leave_or_multiply_the_file() {
    let view = |offset: u8, shape: &[u8], strides: &[u8]| {
        let mut file = file(&wrapped(&tensor("cpu", offset, shape, strides)))?;
        read(&mut file, "w")
    };
    assert_eq!(view(1, b"K\x01\x85", b"K\x09\x85").unwrap(), [2.0]);
    assert_eq!(
        view(0, b"K\x02K\x02\x86", b"K\0K\x01\x86").unwrap(),
        [1.0, 2.0, 1.0, 2.0]
    );
    refused(view(1, b"K\x04\x85", b"K\x01\x85"), "leaves its storage");
    refused(view(0, b"K\x02\x85", b"K\x04\x85"), "leaves its storage");
    // A thousand million copies of one element.
    refused(
        view(0, b"J\0\0\0\x40\x85", b"K\0\x85"),
        "more than the file has bytes",
    );
    refused(
        view(0, b"J\xFF\xFF\xFF\xFF\x85", b"K\0\x85"),
        "size is expected",
    );
    refused(view(0, b"K\x02K\x02\x86", b"K\x01\x85"), "strides");
    let mut both = b"\x80\x02}(".to_vec();
    for name in [b'a', b'b'] {
        both.extend([b'X', 1, 0, 0, 0, name]);
        both.extend(tensor("cpu", 0, b"M\0\x02\x85", b"K\0\x85"));
    }
    both.extend(b"u.");
    // Each has fewer elements than the file has bytes, both together have more.
    let mut both = file(&both).unwrap();
    assert_eq!(read(&mut both, "a").unwrap(), [1.0; 512]);
    refused(both.tensors(""), "more than the file has bytes");
}

#[test]
fn nesting_and_circles_need_no_stack() {
    let deep = [vec![b']'; 200_000], vec![b'a'; 199_999]].concat();
    assert!(file(&wrapped(&deep)).is_ok());
    let tuples = [&b"N"[..], &[0x85; 200_000]].concat();
    assert!(file(&wrapped(&tuples)).is_ok());
    // A dictionary that contains itself.
    let mut circle = file(b"\x80\x02}q\0X\x05\0\0\0modelh\0s.").unwrap();
    assert!(circle.entries().is_empty());
    refused(circle.tensors(""), "no tensors");
    refused(circle.tensors("model/model/model"), "no tensors");
}

#[test]
fn copies_are_counted() {
    // A list of a thousand pairs, of which many ordered dictionaries are made.
    let mut pickle = b"]q\0(".to_vec();
    pickle.extend(b"NN\x86".repeat(1000));
    pickle.extend(b"e0");
    pickle.extend(b"ccollections\nOrderedDict\nq\x010");
    pickle.extend(b"h\x01h\0\x85R0".repeat(10_000));
    pickle.push(b'N');
    refused(file(&wrapped(&pickle)), "more than 4000000 values");
}

#[test]
fn numbers_of_numpy() {
    let scalar = |code: &str, bytes: &[u8]| {
        let dtype = [
            b"cnumpy\ndtype\nX\x02\0\0\0",
            code.as_bytes(),
            b"\x89\x88\x87R",
        ];
        let value = [
            &b"cnumpy._core.multiarray\nscalar\n"[..],
            &dtype.concat(),
            &[b'C', bytes.len() as u8],
            bytes,
            b"\x86R",
        ];
        let args = [
            b"\x80\x02}X\x04\0\0\0args}X\x01\0\0\0n",
            &value.concat()[..],
            b"ss.",
        ];
        file(&args.concat()).map(|f| f.values("args")["n"].clone())
    };
    assert_eq!(scalar("f8", &0.5f64.to_le_bytes()).unwrap(), 0.5);
    assert_eq!(scalar("f4", &0.25f32.to_le_bytes()).unwrap(), 0.25);
    assert_eq!(scalar("i2", &(-3i16).to_le_bytes()).unwrap(), -3);
    assert_eq!(scalar("u1", &[200]).unwrap(), 200);
    assert_eq!(scalar("b1", &[1]).unwrap(), true);
    refused(scalar("f8", &[0; 4]), "4 bytes");
    refused(scalar("c8", &[0; 8]), "no plain number");
}
