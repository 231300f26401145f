//! The index of a folder of pictures or latents: what is known of every file, so that it need not be read again.
//!
//! ```text
//! {"format": "dis index 1", "files": {"cat/1.png": {"stamp": {"size": 3022, ...}, "sha256": "...", ...}}}
//! ```
//!
//! A record says that the file with this stamp is good (a picture decodes), and the hash of its bytes.
//! Both hold for any size of crops. It is taken for the file as long as the stamp agrees; else the file is hashed
//! again, and looked at again if the hash is another.

mod check;
mod place;
mod sizes;
mod stamp;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Result;
pub use check::{BadFile, Check, Checked, Progress};
pub(crate) use check::{Outcome, Seen, hash_file};
pub use sizes::Sizes;
pub(super) use stamp::Stamp;
use stamp::now_ns;

/// Name of an index in the folder that it describes.
pub const FOLDER_INDEX: &str = ".dis-index.json";

/// Changes when pictures are decoded by other rules, so that all are decoded again.
const FORMAT: &str = "dis index 1";

/// SHA-256 of a file's bytes.
pub type ContentHash = [u8; 32];

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// As it was just before the file was read.
    pub stamp: Stamp,
    /// When that was, in nanoseconds since 1970.
    pub read_ns: i64,
    /// Of its bytes.
    #[serde(with = "hexadecimal")]
    pub sha256: ContentHash,
    /// Columns of a picture.
    pub width: u32,
    /// Rows of a picture.
    pub height: u32,
    /// Whether this program drew it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drawn: bool,
    /// Whether the file surely has not changed since.
    #[serde(skip)]
    current: bool,
}

impl Record {
    pub fn new(stamp: Stamp, read_ns: i64, sha256: ContentHash, seen: Seen) -> Self {
        let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            stamp,
            read_ns,
            sha256,
            width: side(seen.width),
            height: side(seen.height),
            drawn: seen.drawn,
            current: true,
        }
    }

    /// What was found when its content was looked at.
    pub fn seen(&self) -> Seen {
        Seen {
            width: self.width as usize,
            height: self.height as usize,
            drawn: self.drawn,
        }
    }
}

#[derive(Deserialize)]
struct Stored {
    format: String,
    files: BTreeMap<String, Record>,
}

#[derive(Serialize)]
struct Storing<'a> {
    format: &'a str,
    files: &'a BTreeMap<String, Record>,
}

/// The index of a folder.
#[derive(Debug, Default)]
pub(super) struct FolderIndex {
    root: PathBuf,
    files: BTreeMap<String, Record>,
}

impl FolderIndex {
    /// What there is for a folder; empty if there is nothing that can be used, since all of it can be
    /// found out again.
    pub fn load(root: &Path) -> Self {
        let mut files: BTreeMap<String, Record> = BTreeMap::new();
        // The later place is written only where the earlier one cannot be.
        for place in place::places(root) {
            match read(&place) {
                Ok(found) => files.extend(found),
                Err(why) => tracing::debug!("{}: no index: {why}", place.display()),
            }
        }
        files.par_iter_mut().for_each(|(name, record)| {
            let same = Stamp::of(&root.join(name)).is_ok_and(|stamp| stamp == record.stamp);
            record.current = same && record.stamp.tells_changes_since(record.read_ns);
        });
        Self {
            root: root.to_path_buf(),
            files,
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where it lies.
    pub fn place(&self) -> Option<PathBuf> {
        place::places(&self.root).into_iter().find(|p| p.is_file())
    }

    /// What is known of a file by its relative name, whether or not it has changed since.
    pub fn record(&self, name: &str) -> Option<&Record> {
        self.files.get(name)
    }

    /// What is known of a file, if it surely has not changed since.
    pub fn current(&self, name: &str) -> Option<&Record> {
        self.files.get(name).filter(|record| record.current)
    }

    pub fn insert(&mut self, name: String, record: Record) {
        self.files.insert(name, record);
    }

    /// Forgets files that are gone; `there` surely are there.
    pub fn prune(&mut self, there: &[String]) {
        let there: HashSet<&str> = there.iter().map(String::as_str).collect();
        let root = &self.root;
        self.files
            .retain(|name, _| there.contains(name.as_str()) || root.join(name).is_file());
    }

    /// Writes it into the folder, or where that cannot be written into the user's cache; returns where.
    ///
    /// # Errors
    /// If neither can be written.
    pub fn save(&self) -> Result<PathBuf> {
        let stored = Storing {
            format: FORMAT,
            files: &self.files,
        };
        let text = serde_json::to_string(&stored).map_err(|e| super::DataError::Invalid {
            what: format!("cannot write an index: {e}"),
        })?;
        place::write(&self.root, text.as_bytes())
    }
}

fn read(place: &Path) -> std::result::Result<BTreeMap<String, Record>, String> {
    let text = std::fs::read(place).map_err(|e| e.to_string())?;
    let stored: Stored = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    if stored.format != FORMAT {
        return Err(format!("its format is {:?}", stored.format));
    }
    Ok(stored.files)
}

/// A file's name as in an index: relative to the folder, parts joined by slashes.
pub(super) fn relative_name(root: &Path, file: &Path) -> String {
    let relative = file.strip_prefix(root).unwrap_or(file);
    let parts: Vec<_> = relative.iter().map(|p| p.to_string_lossy()).collect();
    parts.join("/")
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::ContentHash;
    use crate::hex;

    pub fn serialize<S: Serializer>(hash: &ContentHash, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex(hash))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<ContentHash, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        let digits = text.as_bytes().as_chunks::<2>().0;
        let mut hash = [0; 32];
        if text.len() != 64 {
            return Err(D::Error::custom("a hash has 64 digits"));
        }
        for (byte, digits) in hash.iter_mut().zip(digits) {
            let digits = std::str::from_utf8(digits).map_err(D::Error::custom)?;
            *byte = u8::from_str_radix(digits, 16).map_err(D::Error::custom)?;
        }
        Ok(hash)
    }
}

#[cfg(test)]
mod tests;
