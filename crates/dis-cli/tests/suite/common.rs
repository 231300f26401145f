//! Runs the built `dis` and looks at what it leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A small run on the digits, seconds long.
pub const TINY: &str = r#"
[model]
patch_size = 4
embed_dim = 16
depth = 2

[data]
spec = "digits-train"

[train]
steps = 30
batch_size = 16
lr = 1e-3
warmup_steps = 5
log_every = 5
checkpoint_every = 7
sample_every = 0
"#;

/// `dis` with these arguments, in `dir`.
pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dis"));
    command.current_dir(dir).args(args);
    command
}

/// A command line as one types it: its words.
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Runs it to its end.
pub fn dis(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

/// Runs it and expects success.
pub fn succeed(dir: &Path, args: &[&str]) -> String {
    let output = dis(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "dis {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs it and expects failure with one line that holds all of `words`.
pub fn fail(dir: &Path, args: &[&str], words: &[&str]) {
    let output = dis(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "dis {args:?} succeeded");
    assert!(
        output.status.code().is_some(),
        "dis {args:?} was killed: {stderr}"
    );
    let errors: Vec<&str> = stderr.lines().filter(|l| l.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "dis {args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "dis {args:?}: {stderr}");
    for word in words {
        assert!(
            errors[0].contains(word),
            "dis {args:?}: no {word:?} in {}",
            errors[0]
        );
    }
}

/// A directory with the tiny configuration in it.
pub fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tiny.toml"), TINY).unwrap();
    dir
}

/// The files of the newest checkpoint of a run: name and bytes, sorted.
pub fn newest(run: &Path) -> Vec<(String, Vec<u8>)> {
    let mut steps: Vec<PathBuf> = fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    steps.sort();
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(steps.last().unwrap())
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| {
            (
                p.file_name().unwrap().to_string_lossy().into_owned(),
                fs::read(p).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

/// Names of everything in a directory but hidden files: records, locks, what is not finished.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names = all_names(dir);
    names.retain(|name| !name.starts_with('.'));
    names
}

/// Names of everything in a directory.
pub fn all_names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Class folders of pictures, 8 pixels a side: the name, colour and number of each class.
pub fn class_folders(dir: &Path, classes: &[(&str, [u8; 3], u32)]) {
    for (name, colour, count) in classes {
        let folder = dir.join(name);
        fs::create_dir_all(&folder).unwrap();
        for i in 0..*count {
            let picture = image::RgbImage::from_fn(8, 8, |x, y| {
                image::Rgb(colour.map(|c| c + ((7 * x + 5 * y + 3 * i) % 16) as u8))
            });
            picture.save(folder.join(format!("{i}.png"))).unwrap();
        }
    }
}

/// A run of few steps on `data`, in `out`.
pub fn short_run(dir: &Path, data: &str, out: &str) {
    let args = [
        "train",
        "--config",
        "tiny.toml",
        "--data",
        data,
        "--steps",
        "2",
        "--out",
        out,
    ];
    succeed(dir, &args);
}
