use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::{
    Check, Checked, DataError, DataSpec, Dataset, FolderDataset, FolderOptions, grid, open,
    open_checked,
};

/// Long enough for a file to be trusted by its stamp from here on.
fn rest() {
    std::thread::sleep(Duration::from_millis(80));
}

/// A picture whose file has the same number of bytes for every `level`.
fn picture(path: &Path, level: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 4, 4);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_compression(png::Compression::NoCompression);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[level; 16]).unwrap();
    writer.finish().unwrap();
    fs::write(path, bytes).unwrap();
}

fn pictures(dir: &Path, names: &[&str]) {
    for (i, name) in names.iter().enumerate() {
        picture(&dir.join(name), (i as u8).wrapping_mul(10));
    }
}

fn check_with(dir: &Path, check: &Check) -> Result<(FolderDataset, Checked)> {
    let go_on = &mut |_, _| ControlFlow::Continue(());
    FolderDataset::open_checked(dir, &FolderOptions::new(4), check, go_on)
}

fn check(dir: &Path) -> (FolderDataset, Checked) {
    check_with(dir, &Check::default()).unwrap()
}

#[test]
fn files_are_read_once() {
    let dir = tempfile::tempdir().unwrap();
    pictures(dir.path(), &["b/1.png", "a/1.png", "a/2.png"]);
    rest();
    let unchecked = FolderDataset::open(dir.path(), &FolderOptions::new(4)).unwrap();
    let (data, checked) = check(dir.path());
    assert_eq!((checked.read, checked.bad.len()), (3, 0));
    let index = checked.index.unwrap();
    assert_eq!(index, dir.path().join(FOLDER_INDEX));
    // The identity does not depend on who hashed the files.
    assert_eq!(unchecked.identity(), data.identity());
    assert!(data.content(2).is_some() && data.content(3).is_none());
    let (again, checked) = check(dir.path());
    assert_eq!((checked.read, checked.index.as_ref()), (0, Some(&index)));
    assert_eq!(again.identity(), data.identity());
    // Any size of crops is served by the same index, and so is a part of the folder's options.
    let spec: DataSpec = format!("{},size=2,unconditional", dir.path().display())
        .parse()
        .unwrap();
    let go_on = &mut |_, _| ControlFlow::Continue(());
    let (_, checked) = open_checked(&spec, &Check::default(), go_on).unwrap();
    assert_eq!(checked.read, 0);
    // A new file is read, the others are not; one that is gone is forgotten.
    picture(&dir.path().join("b/2.png"), 77);
    fs::remove_file(dir.path().join("a/2.png")).unwrap();
    rest();
    assert_eq!(check(dir.path()).1.read, 1);
    let stored = fs::read_to_string(&index).unwrap();
    assert!(stored.contains("b/2.png") && !stored.contains("a/2.png"));
    // What is no index costs time only.
    for text in [
        "",
        "{}",
        "[1]",
        "{\"format\": \"dis index 1\", \"files\": {\"a/1.png\": {}}}",
    ] {
        fs::write(&index, text).unwrap();
        assert_eq!(check(dir.path()).1.read, 3, "{text}");
    }
}

#[test]
fn contents_are_told_apart_and_places_and_names_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("photos");
    pictures(&photos, &["a/1.png", "a/2.png", "b/1.png"]);
    rest();
    let base = check(&photos).0.identity();
    assert!(base.contains("n=3") && base.contains("contents="), "{base}");
    // Another picture of equal size in bytes and pixels, and the first one back.
    picture(&photos.join("a/2.png"), 99);
    let (other, checked) = check(&photos);
    assert_eq!(checked.read, 1);
    assert_ne!(other.identity(), base);
    assert_eq!(other.identity_by_names(), {
        picture(&photos.join("a/2.png"), 10);
        check(&photos).0.identity_by_names()
    });
    assert_eq!(check(&photos).0.identity(), base);
    // Times do not matter.
    let file = fs::File::options()
        .append(true)
        .open(photos.join("b/1.png"))
        .unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(check(&photos).0.identity(), base);
    let moved = dir.path().join("moved");
    fs::rename(&photos, &moved).unwrap();
    assert_eq!(check(&moved).0.identity(), base);
    // Order counts, since it is the order of training; names do not.
    fs::rename(moved.join("a/2.png"), moved.join("a/3.png")).unwrap();
    assert_eq!(check(&moved).0.identity(), base);
    fs::rename(moved.join("a/3.png"), moved.join("a/0.png")).unwrap();
    assert_ne!(check(&moved).0.identity(), base);
    fs::rename(moved.join("a/0.png"), moved.join("a/2.png")).unwrap();
    fs::rename(moved.join("b"), moved.join("c")).unwrap();
    assert_ne!(check(&moved).0.identity(), base, "names of classes count");
}

#[test]
fn two_files_that_change_places_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    pictures(dir.path(), &["1.png", "2.png"]);
    let path = |name: &str| dir.path().join(name);
    for name in ["1.png", "2.png"] {
        let file = fs::File::options().append(true).open(path(name)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    }
    rest();
    let base = check(dir.path()).0.identity();
    // Sizes and times that programs set are the same for both, as in an unpacked archive.
    fs::rename(path("1.png"), path("x")).unwrap();
    fs::rename(path("2.png"), path("1.png")).unwrap();
    fs::rename(path("x"), path("2.png")).unwrap();
    if cfg!(unix) {
        assert_ne!(check(dir.path()).0.identity(), base);
    }
}

#[test]
fn bad_pictures_are_all_named_or_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (10..30).map(|i| format!("{i}.png")).collect();
    pictures(
        dir.path(),
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let without = tempfile::tempdir().unwrap();
    for name in &names {
        fs::copy(dir.path().join(name), without.path().join(name)).unwrap();
    }
    let cut = |name: &str| {
        let path = dir.path().join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        fs::remove_file(without.path().join(name)).unwrap();
        bytes
    };
    let whole = cut("17.png");
    cut("23.png");
    rest();
    let error = check_with(dir.path(), &Check::default()).unwrap_err();
    let text = error.to_string();
    for part in [
        "2 of 20 pictures are bad",
        "17.png: cannot decode",
        "23.png:",
        "--skip-bad",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let skip_bad = Check {
        skip_bad: true,
        ..Check::default()
    };
    let (data, checked) = check_with(dir.path(), &skip_bad).unwrap();
    // What was good is known already; what was bad is looked at again.
    assert_eq!((checked.read, data.len()), (2, 18));
    assert_eq!(checked.skipped, ["17.png", "23.png"]);
    assert!(data.describe().contains("2 pictures skipped"));
    assert!((0..18).all(|i| data.sample(i, false).is_ok()));
    assert_eq!(data.identity(), check(without.path()).0.identity());
    // A run goes on without what it began without, whether or not it has been repaired.
    fs::write(dir.path().join("17.png"), whole).unwrap();
    let skip = Check {
        skip: checked.skipped,
        ..Check::default()
    };
    let (again, checked) = check_with(dir.path(), &skip).unwrap();
    assert_eq!(again.identity(), data.identity());
    assert_eq!(checked.skipped.len(), 2);
    for name in &names {
        fs::write(dir.path().join(name), "no picture").unwrap();
    }
    let text = check_with(dir.path(), &skip_bad).unwrap_err().to_string();
    assert!(text.contains("all 20 pictures are bad"), "{text}");
    let text = check_with(dir.path(), &Check::default())
        .unwrap_err()
        .to_string();
    assert!(text.contains("and 10 more"), "{text}");
}

#[test]
fn a_stopped_check_keeps_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..200).map(|i| format!("{i}.png")).collect();
    pictures(
        dir.path(),
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    rest();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build()
        .unwrap();
    let stopped = pool.install(|| {
        let stop = &mut |done, all| {
            assert_eq!(all, 200);
            match done {
                0 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        };
        FolderDataset::open_checked(dir.path(), &FolderOptions::new(4), &Check::default(), stop)
    });
    assert!(matches!(stopped, Err(DataError::Stopped)));
    assert_eq!(check(dir.path()).1.read, 200 - 2 * 16);
}

#[test]
fn what_this_program_wrote_is_no_data() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    pictures(dir.path(), &["a/1.png", "a/2.png", "b/1.png"]);
    let base = check(dir.path()).0.identity();
    for run in ["runs/tiny", "runs/deep/er", "mine"] {
        fs::create_dir_all(path(run).join("checkpoints")).unwrap();
        fs::write(path(run).join("config.toml"), "").unwrap();
        picture(&path(run).join("samples/step-1.png"), 1);
    }
    fs::create_dir_all(path("study/runs")).unwrap();
    fs::write(path("study/study.toml"), "").unwrap();
    fs::create_dir_all(path("codes")).unwrap();
    fs::write(path("codes/latents.json"), "").unwrap();
    let drawing = crate::crop::Picture {
        height: 2,
        width: 2,
        channels: 1,
        bytes: vec![7; 4],
    };
    fs::create_dir_all(path("drawn")).unwrap();
    for name in ["samples.png", "a/samples.png", "drawn/0.png", "drawn/1.png"] {
        grid::write_png(&path(name), &drawing).unwrap();
    }
    let (data, _) = check(dir.path());
    assert_eq!(data.identity(), base);
    assert_eq!(data.class_names(), ["a", "b"]);
    let text = data.describe();
    let left_out = "4 runs, 1 folder of latents and 4 pictures that dis drew are left out";
    assert!(text.ends_with(left_out), "{text}");
    // Where there is nothing else, drawn pictures are what is wanted.
    let spec: DataSpec = format!("{},size=2", path("drawn").display())
        .parse()
        .unwrap();
    assert_eq!(open(&spec).unwrap().len(), 2);
    // Pictures that are written to be data do not carry the mark.
    grid::write_unmarked_png(&path("a/3.png"), &drawing).unwrap();
    assert_eq!(check(dir.path()).0.len(), 4);
    // A folder that is neither a class nor ours is still a mistake.
    fs::create_dir(path("c")).unwrap();
    let text = check_with(dir.path(), &Check::default())
        .unwrap_err()
        .to_string();
    assert!(text.contains("/c: no images"), "{text}");
}
