//! Looking at every file of a folder once.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{ContentHash, FolderIndex, Record, Sizes, Stamp, now_ns};
use crate::picture::read_file;
use crate::{DataError, Result};

/// Pictures that a thread looks at before progress is told.
const BLOCK: usize = 16;
/// What is known so far is written this often, so that an interruption loses no more.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// How the pictures of a folder are checked before they are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Pictures to leave out, by their names relative to the folder (with slashes), good or bad.
    pub skip: Vec<String>,
    /// Leave out bad pictures instead of refusing.
    pub skip_bad: bool,
    /// They are samples to be judged: those that this program drew are wanted, and others beside them
    /// refused. Otherwise drawn pictures beside others are left out.
    pub samples: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Files that had to be read: those that the index did not know, or not as they are.
    pub read: usize,
    /// Pictures that do not decode, in order. They are left out.
    pub bad: Vec<BadFile>,
    /// Pictures left out in all, those of [`Check::skip`] first.
    pub skipped: Vec<String>,
    /// Sizes of the good pictures of a folder.
    pub sizes: Option<Sizes>,
    /// Where the index lies; `None` if the data need none or it could not be written.
    pub index: Option<PathBuf>,
    /// Why the index could not be written.
    pub no_index: Option<String>,
}

/// A file that cannot be used, such as a picture that does not decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFile {
    /// Its name relative to the folder, with slashes.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
}

impl std::fmt::Display for BadFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.reason)
    }
}

/// Is told now and then how many files are done and how many there are; may break off.
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize) -> ControlFlow<()>;

/// Finds out what is in a file of these bytes; nothing is asked of files that need only a hash.
pub type Look<'a> = Option<&'a (dyn Fn(&Path, &[u8]) -> Result<Seen> + Sync)>;

/// What is known of a good file beside its hash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Whether this program drew it.
    pub drawn: bool,
}

/// What became of one file.
pub type Outcome = std::result::Result<Record, BadFile>;

impl FolderIndex {
    /// Hashes every one of `names` that the index does not know as it is and looks at its content if
    /// that is another, on all threads, and returns what became of each. The index is brought up to date and, where that changes it,
    /// written. `progress` is called now and then with the number of files that were looked at and
    /// that are to be.
    ///
    /// # Errors
    /// [`DataError::Stopped`] if `progress` breaks off; what was found so far is kept.
    pub fn check(
        &mut self,
        names: &[String],
        look: Look<'_>,
        progress: Progress<'_>,
    ) -> Result<(Vec<Outcome>, Checked)> {
        let mut outcomes: Vec<Option<Outcome>> = names
            .par_iter()
            .map(|name| self.current(name).cloned().map(Ok))
            .collect();
        let due: Vec<usize> = (0..names.len())
            .filter(|&i| outcomes[i].is_none())
            .collect();
        let mut checked = Checked {
            read: due.len(),
            ..Checked::default()
        };
        let (mut done, mut saved) = (0, Instant::now());
        for block in due.chunks(BLOCK * rayon::current_num_threads()) {
            if progress(done, due.len()).is_break() {
                self.keep(&mut checked);
                return Err(DataError::Stopped);
            }
            let index = &*self;
            let found: Vec<_> = block
                .par_iter()
                .map(|&i| index.look_at(&names[i], look))
                .collect();
            for (&i, found) in block.iter().zip(found) {
                outcomes[i] = Some(match found {
                    Ok(record) => {
                        self.insert(names[i].clone(), record.clone());
                        Ok(record)
                    }
                    Err(reason) => {
                        let file = names[i].clone();
                        Err(BadFile { file, reason })
                    }
                });
            }
            done += block.len();
            if saved.elapsed() > SAVE_EVERY {
                self.keep(&mut checked);
                saved = Instant::now();
            }
        }
        match due.is_empty() {
            true => checked.index = self.place(),
            false => {
                let _ = progress(done, due.len());
                self.prune(names);
                self.keep(&mut checked);
            }
        }
        let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
        checked.bad = outcomes.iter().filter_map(|o| o.clone().err()).collect();
        let good = outcomes.iter().flatten();
        checked.sizes = Sizes::of(good.map(|record| (record.width, record.height)));
        Ok((outcomes, checked))
    }

    /// Writes the index if it can be: without one, the next check takes longer, and that is all.
    fn keep(&self, checked: &mut Checked) {
        match self.save() {
            Ok(place) => (checked.index, checked.no_index) = (Some(place), None),
            Err(error) => checked.no_index = Some(error.to_string()),
        }
    }

    /// Reads a file; the reason if it is bad.
    fn look_at(&self, name: &str, look: Look<'_>) -> std::result::Result<Record, String> {
        let path = self.root().join(name);
        let read = || -> Result<Record> {
            let io = || DataError::io(&path, "read it");
            let stamp = Stamp::of(&path).map_err(io())?;
            let read_ns = now_ns();
            let Some(look) = look else {
                let sha256 = hash_file(&path).map_err(io())?;
                return Ok(Record::new(stamp, read_ns, sha256, Seen::default()));
            };
            let bytes = read_file(&path)?;
            let sha256 = Sha256::digest(&bytes).into();
            let seen = match self.record(name) {
                Some(known) if known.sha256 == sha256 => known.seen(),
                _ => look(&path, &bytes)?,
            };
            Ok(Record::new(stamp, read_ns, sha256, seen))
        };
        read().map_err(|error| reason(&path, &error))
    }
}

/// SHA-256 of a file's bytes.
pub fn hash_file(path: &Path) -> io::Result<ContentHash> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hash.finalize().into())
}

/// What an error says beside the name of the file.
fn reason(path: &Path, error: &DataError) -> String {
    let text = error.to_string();
    match text.strip_prefix(&format!("{}: ", path.display())) {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}
