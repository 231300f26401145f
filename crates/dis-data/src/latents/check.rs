//! Whether shards are what their index says, which opening them does not tell.

use std::path::Path;

use super::{INDEX, LatentIndex};
use crate::index::{Checked, FolderIndex, Progress, relative_name};
use crate::{BadFile, DataError, Result, hex};

/// Compares the hash of every shard with that in `latents.json`, and returns the number of shards and
/// what was found. Shards that were hashed before and have not changed since are not read again.
///
/// # Errors
/// If there is no index; [`DataError::Stopped`].
pub fn compare_shards(folder: &Path, progress: Progress<'_>) -> Result<(usize, Checked)> {
    let index = LatentIndex::load(folder)?.ok_or_else(|| DataError::Missing {
        path: folder.to_path_buf(),
        what: INDEX.into(),
    })?;
    let paths = (0..index.shards.len()).map(|i| LatentIndex::shard_path(folder, i));
    let names: Vec<String> = paths.map(|path| relative_name(folder, &path)).collect();
    let mut known = FolderIndex::load(folder);
    let (outcomes, mut checked) = known.check(&names, None, progress)?;
    let each = outcomes.into_iter().zip(&index.shards).zip(names);
    checked.sizes = None;
    checked.bad = each
        .filter_map(|((outcome, due), file)| match outcome {
            Ok(found) if hex(&found.sha256) == *due => None,
            Ok(_) => Some(BadFile {
                file,
                reason: format!("does not have the hash that {INDEX} says"),
            }),
            Err(bad) => Some(bad),
        })
        .collect();
    Ok((index.shards.len(), checked))
}

/// Refuses latents of which a shard is not what their index says.
///
/// # Errors
/// [`DataError::Bad`] with all such shards, and those of [`compare_shards`].
pub fn check_latents(folder: &Path, progress: Progress<'_>) -> Result<Checked> {
    let (of, mut checked) = compare_shards(folder, progress)?;
    let bad = std::mem::take(&mut checked.bad);
    if bad.is_empty() {
        return Ok(checked);
    }
    Err(DataError::Bad {
        path: folder.to_path_buf(),
        what: "shards",
        bad,
        of,
        hint: "the same dis encode again makes them anew and keeps the others",
    })
}
