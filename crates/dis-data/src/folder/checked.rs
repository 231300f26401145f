//! Folders of pictures after a look at every one: which are data, and what they are.

use std::collections::HashSet;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{FolderDataset, FolderOptions};
use crate::index::{Check, Checked, ContentHash, Outcome, Progress, Seen, hash_file};
use crate::outputs::has_mark;
use crate::picture::decode;
use crate::tree::LeftOut;
use crate::{DataError, Dataset, Result, short_hash};

impl FolderDataset {
    /// Lists a folder and looks at every picture that its index does not know, see
    /// [`open_checked`](crate::open_checked).
    ///
    /// # Errors
    /// As [`FolderDataset::open`], and those of the check.
    pub fn open_checked(
        dir: &Path,
        options: &FolderOptions,
        check: &Check,
        progress: Progress<'_>,
    ) -> Result<(Self, Checked)> {
        let (mut data, mut index) = Self::list(dir, options, check.samples)?;
        let skip: HashSet<&str> = check.skip.iter().map(String::as_str).collect();
        let mut skipped = data.keep(|data, i| !skip.contains(data.names[i].as_str()));
        let (outcomes, mut checked) = index.check(&data.names, Some(&look), progress)?;
        if !checked.bad.is_empty() && !check.skip_bad {
            return Err(DataError::Bad {
                path: dir.to_path_buf(),
                what: "pictures",
                bad: checked.bad,
                of: data.len(),
                hint: "repair or remove them, or go on without them with --skip-bad",
            });
        }
        let hash = |outcome: Outcome| Some(outcome.ok()?.sha256);
        data.contents = outcomes.into_iter().map(hash).collect();
        skipped.extend(data.keep(|data, i| data.contents[i].is_some()));
        if data.files.is_empty() {
            return Err(DataError::Invalid {
                what: format!(
                    "{}: all {} pictures are bad, or to be skipped",
                    dir.display(),
                    skipped.len()
                ),
            });
        }
        data.skipped = skipped.len();
        checked.skipped = skipped;
        Ok((data, checked))
    }

    /// Leaves out all other pictures than those wanted, and returns their names.
    fn keep(&mut self, wanted: impl Fn(&Self, usize) -> bool) -> Vec<String> {
        let keep: Vec<bool> = (0..self.files.len()).map(|i| wanted(self, i)).collect();
        let gone = self.names.iter().zip(&keep).filter(|(_, keep)| !**keep);
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        fn filter<T>(list: &mut Vec<T>, keep: &[bool]) {
            let mut keep = keep.iter();
            list.retain(|_| keep.next().is_some_and(|k| *k));
        }
        filter(&mut self.files, &keep);
        filter(&mut self.names, &keep);
        filter(&mut self.contents, &keep);
        filter(&mut self.cache, &keep);
        if let Some(labels) = &mut self.labels {
            filter(labels, &keep);
        }
        gone
    }

    /// Names of the classes, and the class and the content of each picture.
    pub(super) fn hash_contents(&self) -> Sha256 {
        let mut hash = Sha256::new();
        for class in &self.class_names {
            hash.update(class.as_bytes());
            hash.update([0]);
        }
        // Hashing what no check has hashed reads every file, but decodes none.
        let known = self.contents.par_iter().zip(&self.files);
        let contents: Vec<ContentHash> = known
            .map(|(known, file)| known.or_else(|| hash_file(file).ok()).unwrap_or_default())
            .collect();
        for (i, content) in contents.iter().enumerate() {
            hash.update(self.label(i).unwrap_or(u32::MAX).to_le_bytes());
            hash.update(content);
        }
        hash
    }

    /// What was found in the folder and is not read.
    pub(crate) fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// A line for people; `what` there are so many of.
    pub(crate) fn describe_as(&self, what: &str) -> String {
        let classes = match self.num_classes() {
            Some(n) => format!("{n} classes"),
            None => "no classes".into(),
        };
        let skipped = match self.skipped {
            0 => String::new(),
            1 => ", 1 picture skipped".to_owned(),
            n => format!(", {n} pictures skipped"),
        };
        format!(
            "folder: {} {what}, {classes}{skipped}{}",
            self.len(),
            self.left_out
        )
    }

    /// The identity of the pictures themselves, whatever they are cropped to.
    pub(crate) fn identity_uncropped(&self) -> String {
        let (n, classes) = (self.len(), self.class_names.len());
        let hash = short_hash(self.hash_contents());
        format!("folder n={n} classes={classes} contents={hash}")
    }
}

/// What a check finds out of a picture: whether it decodes, above all.
fn look(path: &Path, bytes: &[u8]) -> Result<Seen> {
    let picture = decode(bytes, path, false)?;
    Ok(Seen {
        width: picture.width,
        height: picture.height,
        drawn: has_mark(bytes),
    })
}
