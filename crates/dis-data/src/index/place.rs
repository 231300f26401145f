//! Where the index of a folder lies.

use std::path::{Path, PathBuf};

use dis_files::write_atomic;
use sha2::{Digest, Sha256};

use super::FOLDER_INDEX;
use crate::{DataError, Result, short_hash};

/// Where an index of this folder may lie: in it, or in the user's cache.
pub(super) fn places(root: &Path) -> Vec<PathBuf> {
    let cached = cache_folder().map(|cache| cache.join(cached_name(root)));
    [root.join(FOLDER_INDEX)]
        .into_iter()
        .chain(cached)
        .collect()
}

/// Writes an index to the first place that can be written.
pub(super) fn write(root: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let mut refused = None;
    for place in places(root) {
        let made = match place.parent() {
            Some(parent) if parent != root => std::fs::create_dir_all(parent)
                .map_err(DataError::io(parent, "create the cache folder")),
            _ => Ok(()),
        };
        match made.and_then(|()| Ok(write_atomic(&place, bytes)?)) {
            Ok(()) => return Ok(place),
            // That the user's cache cannot be written says less than why the folder cannot.
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| DataError::Invalid {
        what: format!("{}: there is no place for an index", root.display()),
    }))
}

/// By the folder's true path, so that links to it share an index.
fn cached_name(root: &Path) -> String {
    let path = root
        .canonicalize()
        .or_else(|_| std::path::absolute(root))
        .unwrap_or_else(|_| root.to_path_buf());
    let hash = Sha256::new().chain_update(path.as_os_str().as_encoded_bytes());
    format!("index-{}.json", short_hash(hash))
}

/// The user's folder for what can be made again: `$XDG_CACHE_HOME/dis` or the platform's own.
fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| {
        let value = PathBuf::from(std::env::var_os(name)?);
        value.is_absolute().then_some(value)
    };
    let platform = || match std::env::consts::OS {
        "windows" => folder("LOCALAPPDATA"),
        "macos" => Some(folder("HOME")?.join("Library").join("Caches")),
        _ => Some(folder("HOME")?.join(".cache")),
    };
    Some(folder("XDG_CACHE_HOME").or_else(platform)?.join("dis"))
}
