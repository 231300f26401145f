//! A folder of pictures: it holds those of one call, which may be continued or replaced.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dis_data::differing_settings;
use dis_files::DirLock;
use dis_files::write_atomic;
use serde::{Deserialize, Serialize};

use crate::note;

/// File that says what is drawn into a folder.
const RECORD: &str = ".dis-sample";

/// What an unfinished folder, or a finished one, is made of.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// What decides the pictures, a line each.
    settings: String,
    /// Names of all pictures, of which some may not be there yet.
    pictures: Vec<String>,
}

/// A folder that takes pictures.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    names: Vec<String>,
    /// Nobody else draws into it.
    _lock: DirLock,
}

impl Folder {
    /// Begins a folder, or continues one of the same settings. One of other settings, or with anything
    /// else in it, is refused unless `overwrite`: then the pictures that its record names are removed,
    /// and nothing else.
    ///
    /// # Errors
    /// With what is in the way, or if files cannot be read or written.
    pub fn open(dir: &Path, names: Vec<String>, settings: &str, overwrite: bool) -> Result<Self> {
        let lock = DirLock::acquire(dir, "dis sample")?;
        let record = Record {
            settings: settings.to_string(),
            pictures: names,
        };
        let path = dir.join(RECORD);
        let found = read(&path)?;
        let at = dir.display();
        match found {
            Some(found) if found == record && !overwrite => {}
            Some(found) if overwrite => remove(dir, &found)?,
            Some(found) => bail!(
                "--out {at}: holds pictures of other settings: {}; choose another directory, or replace \
                 them with --overwrite",
                differing_settings(&found.settings, settings)
            ),
            None if overwrite => {}
            None => refuse_others(dir)?,
        }
        if overwrite && let n @ 1.. = others(dir)? {
            note!("--overwrite: {n} other files stay in {at}");
        }
        let text = serde_json::to_string(&record)?;
        write_atomic(&path, text.as_bytes())?;
        Ok(Self {
            dir: dir.to_path_buf(),
            names: record.pictures,
            _lock: lock,
        })
    }

    /// Where picture number `index` is or goes.
    pub fn path(&self, index: usize) -> PathBuf {
        self.dir
            .join(self.names.get(index).map_or("", String::as_str))
    }

    /// Whether a picture is there: it is whole then.
    pub fn has(&self, index: usize) -> bool {
        index < self.names.len() && self.path(index).is_file()
    }
}

/// Refuses a directory that holds files of which nothing says that this command wrote them.
///
/// # Errors
/// If there are any, or it cannot be listed.
pub fn refuse_others(dir: &Path) -> Result<()> {
    if !dir.join(RECORD).exists() && others(dir)? > 0 {
        bail!(
            "--out {}: the directory is not empty, and figures of its pictures would be of a mixture; \
             choose another, or add to it with --overwrite",
            dir.display()
        );
    }
    Ok(())
}

/// Files in a directory but hidden ones.
fn others(dir: &Path) -> Result<usize> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e).with_context(|| format!("cannot list {}", dir.display())),
    };
    let mut count = 0;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
        count += usize::from(!entry.file_name().to_string_lossy().starts_with('.'));
    }
    Ok(count)
}

fn read(path: &Path) -> Result<Option<Record>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    let record = serde_json::from_str(&text);
    record.with_context(|| format!("{}: no record of `dis sample`", path.display()))
}

fn remove(dir: &Path, record: &Record) -> Result<()> {
    // Names only: a record that was tampered with leads nowhere else.
    let own = (record.pictures.iter()).filter(|name| {
        Path::new(name)
            .file_name()
            .is_some_and(|n| n == name.as_str())
    });
    for name in own {
        let path = dir.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_the_pictures_of_one_call() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("s");
        fs::create_dir(&at).unwrap();
        let names = |n: usize| -> Vec<String> { (0..n).map(|i| format!("{i:06}.png")).collect() };
        let open =
            |n: usize, settings: &str, overwrite| Folder::open(&at, names(n), settings, overwrite);
        let first = open(3, "--seed: 1\n--steps: 2\n", false).unwrap();
        fs::write(first.path(1), "x").unwrap();
        // One process at a time.
        let message = open(3, "--seed: 1\n--steps: 2\n", false).unwrap_err();
        assert!(message.to_string().contains("in use by"), "{message}");
        drop(first);
        // The same call goes on.
        let again = open(3, "--seed: 1\n--steps: 2\n", false).unwrap();
        assert_eq!(
            [0, 1, 2, 3].map(|i| again.has(i)),
            [false, true, false, false]
        );
        drop(again);
        // Another is told of what differs.
        let error = open(3, "--seed: 2\n--steps: 2\n", false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("--seed: 1 then, --seed: 2 now;"), "{error}");
        assert!(open(2, "--seed: 1\n--steps: 2\n", false).is_err());
        // Replacing removes what this command wrote, and nothing else.
        fs::write(at.join("holiday.png"), "x").unwrap();
        let other = open(2, "--seed: 2\n", true).unwrap();
        assert!(!other.has(0) && !other.has(1) && at.join("holiday.png").exists());
    }

    #[test]
    fn what_others_wrote_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        fs::write(at.join(".hidden"), "").unwrap();
        refuse_others(at).unwrap();
        fs::write(at.join("000000.png"), "mine").unwrap();
        assert!(refuse_others(at).is_err());
        let open = |overwrite| Folder::open(at, vec!["000001.png".into()], "", overwrite);
        assert!(open(false).is_err());
        drop(open(true).unwrap());
        assert_eq!(fs::read(at.join("000000.png")).unwrap(), b"mine");
        // A record does not lead out of its directory.
        let inner = at.join("inner");
        fs::create_dir(&inner).unwrap();
        let record = r#"{"settings":"","pictures":["../000000.png","/etc/hostname"]}"#;
        fs::write(inner.join(RECORD), record).unwrap();
        Folder::open(&inner, Vec::new(), "x", true).unwrap();
        assert!(at.join("000000.png").exists());
    }
}
