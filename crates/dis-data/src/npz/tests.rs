use std::io::Cursor;
use std::path::Path;

use dis_files::NpyHeader as Header;
use dis_files::zip::ZipWriter;
use proptest::prelude::*;

use super::*;
use crate::{Dataset, ImageShape, Result};

fn shape(channels: usize) -> ImageShape {
    ImageShape::from([channels, 3, 2])
}

fn pixels(count: usize, channels: usize) -> Vec<u8> {
    (0..count * shape(channels).len())
        .map(|i| (i * 37 % 256) as u8)
        .collect()
}

proptest! {
    /// Whatever happened between, the file is that of an uninterrupted run, and reads back.
    #[test]
    fn interruptions_leave_no_trace(
        count in 1usize..12, batch in 1usize..5, channels in prop::sample::select(vec![1, 3]),
        cuts in prop::collection::vec((0usize..6, 0u64..40), 0..4), labelled: bool, named: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (shape, pixels) = (shape(channels), pixels(count, channels));
        let labels: Vec<u32> = (0..count as u32).map(|i| i % 4).collect();
        let labels = labelled.then_some(labels.as_slice());
        let names = ["cat, tabby", "", "\u{e9}\u{1f600}", "b"].map(String::from);
        let names = if named { &names[..] } else { &[] };
        let run = |path: &Path, most: usize| -> Result<()> {
            let mut images = NpzImages::open(path, shape, count, "seed 1\n")?;
            for _ in 0..most {
                let (start, end) = (images.done(), (images.done() + batch).min(count));
                if start < count {
                    images.append(&pixels[start * shape.len()..end * shape.len()])?;
                }
            }
            if images.done() == count { images.finish(labels, names) } else { Ok(()) }
        };
        let (whole, cut) = (dir.path().join("whole.npz"), dir.path().join("cut.npz"));
        run(&whole, count).unwrap();
        for (batches, lost) in cuts {
            run(&cut, batches).unwrap();
            let partial = dir.path().join("cut.npz.partial");
            if let Ok(file) = std::fs::OpenOptions::new().write(true).open(&partial) {
                file.set_len(file.metadata().unwrap().len().saturating_sub(lost)).unwrap();
            }
        }
        run(&cut, count).unwrap();
        prop_assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&cut).unwrap());
        prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        let read = open_npz(&whole).unwrap();
        prop_assert_eq!(read.raw_pixels(), pixels);
        prop_assert_eq!(read.labels(), labels);
        prop_assert_eq!(read.shape(), shape);
        if labelled && named {
            prop_assert_eq!(read.class_names(), names);
        }
    }
}

#[test]
fn other_settings_and_other_files_are_not_continued() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    let open = |settings: &str| NpzImages::open(&path, shape(1), 4, settings);
    open("seed: 1\nsteps: 5\n")
        .unwrap()
        .append(&pixels(2, 1))
        .unwrap();
    let message = open("seed: 2\nsteps: 5\n").unwrap_err().to_string();
    assert!(message.contains("seed: 1 then, seed: 2 now"), "{message}");
    let images = open("seed: 1\nsteps: 5\n").unwrap();
    assert_eq!(images.done(), 2);
    let message = open("seed: 1\nsteps: 5\n").unwrap_err().to_string();
    assert!(message.contains("in use by"), "{message}");
    assert!(NpzImages::discard(&path).is_err());
    assert!(
        images
            .finish(None, &[])
            .unwrap_err()
            .to_string()
            .contains("2 of 4")
    );
    let mut images = open("seed: 1\nsteps: 5\n").unwrap();
    assert!(images.append(&pixels(3, 1)).is_err());
    assert!(images.append(&[1]).is_err());
    drop(images);
    NpzImages::discard(&path).unwrap();
    assert!(!dir.path().join("x.npz.partial").exists());
    for other in [&b"short"[..], b"something else altogether"] {
        std::fs::write(dir.path().join("x.npz.partial"), other).unwrap();
        let message = open("seed: 1\n").unwrap_err().to_string();
        assert!(message.contains("in the way"), "{message}");
    }
}

fn archive(arrays: &[(&str, &str, &[usize], &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Vec::new());
    for (name, descr, shape, data) in arrays {
        let header = Header {
            descr: (*descr).into(),
            fortran_order: false,
            shape: shape.to_vec(),
        };
        let entry = [header.to_bytes(), data.to_vec()].concat();
        zip.add(&format!("{name}.npy"), &entry).unwrap();
    }
    zip.finish().unwrap()
}

#[test]
fn what_is_no_set_of_images_is_explained() {
    let image = ("arr_0", "|u1", &[1, 2, 2, 1][..], &[0, 1, 2, 3][..]);
    let read = |arrays: &[(&str, &str, &[usize], &[u8])]| {
        read_npz(Cursor::new(archive(arrays)), Path::new("x.npz"))
    };
    let labels = read(&[image, ("arr_1", "<i4", &[1], &[7, 0, 0, 0])]).unwrap();
    assert_eq!(labels.labels(), Some(&[7][..]));
    assert_eq!(labels.num_classes(), Some(8));
    // numpy.array(["a", "bc"]).
    let names = [&b"a\0\0\0\0\0\0\0"[..], b"b\0\0\0c\0\0\0"].concat();
    let label = ("arr_1", "|u1", &[1][..], &[1][..]);
    let named = read(&[image, label, ("class_names", "<U2", &[2], &names)]).unwrap();
    assert_eq!(named.class_names(), ["a", "bc"]);
    for (arrays, part) in [
        (
            &[("mu", "<f8", &[1][..], &[0; 8][..])][..],
            "has no array arr_0 (it has [\"mu\"])",
        ),
        (
            &[("arr_0", "<f4", &[1, 1, 1, 1], &[0; 4])],
            "its type is \"<f4\"",
        ),
        (
            &[("arr_0", "<c8", &[1, 1, 1, 1], &[0; 8])],
            "which is not read",
        ),
        (
            &[("arr_0", "|u1", &[1, 2, 2], &[0; 4])],
            "its shape is [1, 2, 2]",
        ),
        (
            &[("arr_0", "|u1", &[1, 2, 2, 4], &[0; 16])],
            "its shape is [1, 2, 2, 4]",
        ),
        (&[("arr_0", "|u1", &[0, 2, 2, 1], &[])], "it is empty"),
        (&[("arr_0", "|u1", &[9, 2, 2, 1], &[0; 4])], "has 4 bytes"),
        (
            &[("arr_0", "|u1", &[usize::MAX, 9, 9, 1], &[0; 4])],
            "has 4 bytes",
        ),
        (&[image, ("arr_1", "<f4", &[1], &[0; 4])], "is of type F32"),
        (
            &[image, ("arr_1", "<i4", &[1, 1], &[0; 4])],
            "its shape is [1, 1]",
        ),
        (
            &[image, ("arr_1", "<i4", &[2], &[0; 8])],
            "1 images but 2 labels",
        ),
        (
            &[image, ("arr_1", "<i4", &[1], &[255; 4])],
            "label 0 is no class number",
        ),
        (
            &[image, label, ("class_names", "<U1", &[1], &[0; 4])],
            "label 1 but 1 classes",
        ),
        (
            &[image, label, ("class_names", "<U1", &[1], &[255; 4])],
            "class_names holds what is no text",
        ),
        (
            &[image, label, ("class_names", "<u4", &[1], &[0; 4])],
            "class_names is no list of texts",
        ),
        (
            &[image, label, ("class_names", "<U0", &[1 << 40], &[])],
            "class_names is no list of texts",
        ),
        (
            &[
                image,
                label,
                ("class_names", "<U99999999999999", &[9], &[0; 4]),
            ],
            "has 4 bytes",
        ),
        (
            &[image, ("arr_1", "<u4", &[1], &[255; 4])],
            "is not a class of 1 images",
        ),
    ] {
        let message = read(arrays).unwrap_err().to_string();
        assert!(message.starts_with("x.npz: "), "{message}");
        assert!(message.contains(part), "{message}: {part}");
    }
    let message = open_npz(Path::new("missing.npz")).unwrap_err().to_string();
    assert!(message.contains("missing.npz"), "{message}");
}
